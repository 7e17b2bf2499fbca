//! How the server stops: announce, stop accepting, close one connection after the other, hard
//! stop. Each phase ends at a time; this file knows the times, `mod.rs` carries the phases out.

use super::config::{DrainPlan, DrainReady};
use crate::engine::Now;
use crate::time;

/// Between two signals that are both meant.
const REPEAT_MS: u64 = 1_000;
/// Time that each connection gets in the staggered close, as long as the window has it.
const CLOSE_GAP_MS: u64 = 20;

/// How far the server is on its way out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not at all.
    #[default]
    Serving,
    /// Readiness fails; everything is still served.
    Announced,
    /// No new connections; the open ones are closed one after the other.
    Closing,
    /// Over.
    Stopped,
}

impl Phase {
    /// Whether new connections and upgrades are refused.
    pub(super) fn refuses(self) -> bool {
        match self {
            Self::Serving | Self::Announced => false,
            Self::Closing | Self::Stopped => true,
        }
    }
}

/// The clock of a drain.
#[derive(Debug, Default)]
pub(super) struct Drain {
    pub(super) phase: Phase,
    /// When it was announced.
    began_ns: u64,
    /// When the present phase ends.
    until_ns: Option<u64>,
    /// `WebSockets` that were closed as the protocol has it, and those that were cut.
    pub(super) clean: u64,
    pub(super) forced: u64,
}

/// What a signal means, by when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Begin to drain.
    Begin,
    /// A repeat that a restarted supervisor sends: ignored.
    Repeat,
    /// The operator means now.
    Now,
}

impl Drain {
    pub(super) fn meaning(&self, now: Now) -> Meaning {
        match self.phase {
            Phase::Serving => Meaning::Begin,
            Phase::Announced | Phase::Closing | Phase::Stopped
                if now.mono_ns < self.began_ns + time::ms(REPEAT_MS) =>
            {
                Meaning::Repeat
            }
            Phase::Announced | Phase::Closing | Phase::Stopped => Meaning::Now,
        }
    }

    pub(super) fn announce(&mut self, now: Now, plan: &DrainPlan) {
        self.phase = Phase::Announced;
        self.began_ns = now.mono_ns;
        self.until_ns = Some(now.mono_ns + time::ms(plan.delay_ms));
    }

    /// Begins to close; returns over how long `n` connections are spread.
    pub(super) fn close(&mut self, plan: &DrainPlan, n: usize) -> u64 {
        self.phase = Phase::Closing;
        (self.clean, self.forced) = (0, 0);
        self.until_ns = Some(self.began_ns + time::ms(plan.timeout_ms));
        time::ms(plan.window_ms.min(CLOSE_GAP_MS.saturating_mul(n as u64)))
    }

    pub(super) fn stop(&mut self) {
        self.phase = Phase::Stopped;
        self.until_ns = None;
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.until_ns
    }

    pub(super) fn phase_is_over(&self, now: Now) -> bool {
        self.until_ns.is_some_and(|until| until <= now.mono_ns)
    }

    pub(super) fn elapsed_ms(&self, now: Now) -> u64 {
        (now.mono_ns - self.began_ns) / 1_000_000
    }

    /// Whether answers say that the connection ends.
    pub(super) fn is_under_way(&self) -> bool {
        self.phase != Phase::Serving
    }

    /// Whether `/readyz` fails.
    pub(super) fn is_unready(&self, plan: &DrainPlan) -> bool {
        self.is_under_way() && plan.ready == DrainReady::Fail
    }
}
