//! A circuit breaker for an address that cannot be reached: requests fail or go elsewhere at once
//! instead of after a connect timeout each, and a server that is starting up is not flooded. It
//! judges attempts to connect only, not responses.

use crate::engine::Now;
use crate::time;

/// Consecutive connect failures that open the circuit.
const FAILURES: u8 = 5;
const PAUSE_MS: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 30_000;
/// The pause while requests wait for the address to come up.
const HOLD_PAUSE_MS: u64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    /// Connections are opened; counts consecutive failures.
    Closed { failures: u8 },
    /// No connection is opened until `until_ns`.
    Open { until_ns: u64, pause_ms: u64 },
    /// One trial connection is being opened; no others are.
    HalfOpen { pause_ms: u64 },
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Circuit {
    /// Whether a connection may be opened.
    pub(super) fn admits(self, now: Now) -> bool {
        match self {
            Self::Closed { .. } => true,
            Self::Open { until_ns, .. } => until_ns <= now.mono_ns,
            Self::HalfOpen { .. } => false,
        }
    }

    /// When the next trial may begin.
    pub(super) fn opens_ns(self) -> Option<u64> {
        match self {
            Self::Open { until_ns, .. } => Some(until_ns),
            Self::Closed { .. } | Self::HalfOpen { .. } => None,
        }
    }

    /// A connection that is admitted begins; returns whether it is the trial.
    pub(super) fn begin(&mut self) -> bool {
        match *self {
            Self::Open { pause_ms, .. } => {
                *self = Self::HalfOpen { pause_ms };
                true
            }
            Self::Closed { .. } | Self::HalfOpen { .. } => false,
        }
    }

    /// Connected.
    pub(super) fn reached(&mut self) {
        *self = Self::default();
    }

    /// Connecting failed. With `holds`, requests wait for the address, so that it is tried again
    /// soon and often.
    pub(super) fn failed(&mut self, now: Now, is_trial: bool, holds: bool) {
        let open = |pause_ms| Self::Open { until_ns: now.mono_ns + time::ms(pause_ms), pause_ms };
        *self = match *self {
            Self::Closed { .. } if holds => open(HOLD_PAUSE_MS),
            Self::HalfOpen { .. } if is_trial && holds => open(HOLD_PAUSE_MS),
            Self::HalfOpen { pause_ms } if is_trial => {
                open((2 * pause_ms).clamp(PAUSE_MS, PAUSE_MS_MAX))
            }
            Self::Closed { failures } if failures + 1 >= FAILURES => open(PAUSE_MS),
            Self::Closed { failures } => Self::Closed { failures: failures + 1 },
            // It began before the circuit opened: no new information.
            known @ (Self::Open { .. } | Self::HalfOpen { .. }) => known,
        };
    }

    /// An attempt takes so long that another address is tried: this one is avoided from now on.
    pub(super) fn stalled(&mut self, now: Now, is_trial: bool) {
        if let Self::Closed { .. } = *self {
            *self = Self::Open { until_ns: now.mono_ns + time::ms(PAUSE_MS), pause_ms: PAUSE_MS };
        } else {
            self.failed(now, is_trial, false);
        }
    }

    /// An attempt was given up. If it was the trial, the next one takes its place.
    pub(super) fn cancelled(&mut self, is_trial: bool) {
        if let Self::HalfOpen { pause_ms } = *self
            && is_trial
        {
            *self = Self::Open { until_ns: 0, pause_ms };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut circuit = Circuit::default();
        for _ in 0..FAILURES {
            assert!(circuit.admits(at(0)) && !circuit.begin());
        }
        for _ in 0..2 * FAILURES {
            circuit.failed(at(0), false, false);
        }
        let mut ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert!(!circuit.admits(at(ms + pause_ms - 1)));
            ms += pause_ms;
            assert_eq!(circuit.opens_ns(), Some(time::ms(ms)));
            assert!(circuit.admits(at(ms)) && circuit.begin());
            assert!(!circuit.admits(at(ms + 1_000_000)), "one trial at a time");
            circuit.failed(at(ms), true, false);
        }
        ms += 30_000;
        assert!(circuit.begin());
        circuit.cancelled(true);
        assert!(circuit.admits(at(ms)) && circuit.begin());
        circuit.reached();
        assert_eq!(circuit, Circuit::default());
    }

    #[test]
    fn an_address_that_is_waited_for_is_tried_often() {
        let mut circuit = Circuit::default();
        for ms in (0..60_000).step_by(500) {
            assert!(circuit.admits(at(ms)), "{ms}");
            let is_trial = circuit.begin();
            circuit.failed(at(ms), is_trial, true);
            assert!(!circuit.admits(at(ms + 499)));
        }
    }

    #[test]
    fn a_stalled_address_is_avoided_at_once() {
        let mut circuit = Circuit::default();
        circuit.begin();
        circuit.stalled(at(250), false);
        assert!(!circuit.admits(at(1_249)) && circuit.admits(at(1_250)));
        // The attempt itself fails later, which is no news.
        circuit.failed(at(2_000), false, false);
        assert!(circuit.admits(at(2_000)) && circuit.begin());
        circuit.stalled(at(2_250), true);
        assert!(!circuit.admits(at(4_249)) && circuit.admits(at(4_250)), "twice as long");
    }
}
