//! The timing of a drain: announce, stop accepting, close one connection after the other, hard
//! stop. `stop.rs` carries the phases out.

use crate::engine::Now;
use crate::limits;
use crate::server::config::{DrainPlan, DrainReady};
use crate::time;

/// A second signal within this time is a repetition.
const REPEAT_MS: u64 = 1_000;
/// The minimum time over which connections are closed.
const WINDOW_MS_MIN: u64 = 3_000;
/// Time for each connection in the staggered close, if the window is long enough.
const CLOSE_GAP_MS: u64 = 20;

/// The phase of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Serving,
    /// Readiness fails; everything is still served.
    Announced,
    /// New connections are refused; the open ones are closed one after the other.
    Closing,
    Stopped,
}

impl Phase {
    /// For the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Announced => "announced",
            Self::Closing => "closing",
            Self::Stopped => "stopped",
        }
    }

    /// Whether new connections and upgrades are refused.
    pub(crate) fn refuses(self) -> bool {
        match self {
            Self::Serving | Self::Announced => false,
            Self::Closing | Self::Stopped => true,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Drain {
    pub(crate) phase: Phase,
    /// When it was announced.
    began_ns: u64,
    /// When the first signal was received.
    signalled_ns: Option<u64>,
    /// When the current phase ends.
    until_ns: Option<u64>,
    /// The main listeners are closed: until then connections may still be accepted.
    pub(crate) accepting_stopped: bool,
    /// `WebSockets` closed with a close handshake, and those that broke or were reset.
    pub(crate) clean: u64,
    pub(crate) forced: u64,
}

/// The effect of SIGTERM, depending on its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEffect {
    /// Begin to drain.
    Begin,
    /// A repetition, as sent by a restarted supervisor.
    Ignore,
    /// Stop immediately.
    Stop,
}

impl Drain {
    pub(crate) fn signal_effect(&self, now: Now) -> SignalEffect {
        match self.signalled_ns {
            None => SignalEffect::Begin,
            Some(first_ns) if now.mono_ns < first_ns + time::ms(REPEAT_MS) => SignalEffect::Ignore,
            Some(_) => SignalEffect::Stop,
        }
    }

    /// A preStop hook or an operator announces a drain: readiness fails until a signal is received.
    pub(crate) fn announce(&mut self, now: Now) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Announced;
            self.began_ns = now.mono_ns;
        }
    }

    /// SIGTERM. The delay counts from the announcement, so all or part of it may already be over.
    pub(crate) fn signalled(&mut self, now: Now, plan: &DrainPlan) {
        self.announce(now);
        self.signalled_ns = Some(now.mono_ns);
        self.until_ns = Some(now.mono_ns.max(self.began_ns + time::ms(plan.delay_ms)));
    }

    /// Cancels an announced drain, unless a signal was received.
    pub(crate) fn cancel(&mut self) -> bool {
        let cancelled = self.phase == Phase::Announced && self.signalled_ns.is_none();
        if cancelled {
            self.phase = Phase::Serving;
        }
        cancelled
    }

    /// Enters the phase `Closing`; returns the time over which to spread `n` closes. Window and
    /// timeout count from the announcement, since the supervisor's grace period does as well.
    pub(crate) fn close(&mut self, now: Now, plan: &DrainPlan, n: usize) -> u64 {
        self.phase = Phase::Closing;
        (self.clean, self.forced) = (0, 0);
        let left_ms =
            plan.timeout_ms.saturating_sub(self.elapsed_ms(now) + limits::DRAIN_CLOSE_WAIT_MS);
        let window_ms = plan.window_ms.min(left_ms.max(WINDOW_MS_MIN));
        let needed_ns = now.mono_ns + time::ms(window_ms + limits::DRAIN_CLOSE_WAIT_MS);
        self.until_ns = Some(needed_ns.max(self.began_ns + time::ms(plan.timeout_ms)));
        spread_ns(window_ms, n)
    }

    pub(crate) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.until_ns = None;
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.until_ns
    }

    /// The latest time of the hard stop; `None` while the drain can be cancelled.
    pub(crate) fn ends_ns(&self, plan: &DrainPlan) -> Option<u64> {
        let least_ms = plan.delay_ms + WINDOW_MS_MIN + limits::DRAIN_CLOSE_WAIT_MS;
        let late_ns = self.signalled_ns? + time::ms(least_ms);
        Some(late_ns.max(self.began_ns + time::ms(plan.timeout_ms)))
    }

    pub(crate) fn phase_is_over(&self, now: Now) -> bool {
        self.until_ns.is_some_and(|until| until <= now.mono_ns)
    }

    pub(crate) fn elapsed_ms(&self, now: Now) -> u64 {
        (now.mono_ns - self.began_ns) / 1_000_000
    }

    /// Whether HTTP responses close the connection.
    pub(crate) fn is_under_way(&self) -> bool {
        self.phase != Phase::Serving
    }

    /// Whether `/readyz` fails.
    pub(crate) fn is_unready(&self, plan: &DrainPlan) -> bool {
        self.is_under_way() && plan.ready == DrainReady::Fail
    }
}

/// The time over which to close `n` connections.
pub(crate) fn spread_ns(window_ms: u64, n: usize) -> u64 {
    time::ms(window_ms.min(CLOSE_GAP_MS.saturating_mul(n as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rest of the delay if the drain was announced `announced_ms` before the signal.
    fn left_ms(announced_ms: u64) -> u64 {
        let plan = DrainPlan {
            delay_ms: 5_000,
            window_ms: 15_000,
            timeout_ms: 25_000,
            code: 1001,
            reason: String::new(),
            ready: DrainReady::Fail,
            leaves_early: false,
        };
        let at = |ms| Now { mono_ns: time::ms(1_000 + ms), wall_ms: 0 };
        let mut drain = Drain::default();
        if announced_ms > 0 {
            drain.announce(at(0));
        }
        let signal = at(announced_ms);
        drain.signalled(signal, &plan);
        (drain.next_deadline().unwrap() - signal.mono_ns) / 1_000_000
    }

    #[test]
    fn a_signal_waits_for_what_is_left_of_the_delay() {
        for (announced_ms, left) in
            [(0, 5_000), (1, 4_999), (1_000, 4_000), (5_000, 0), (15_000, 0)]
        {
            assert_eq!(left_ms(announced_ms), left, "announced {announced_ms} ms before");
        }
    }
}
