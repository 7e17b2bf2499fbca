//! A circuit breaker for a backend that cannot be reached: requests fail immediately instead of
//! after a connect timeout each, and a backend that is starting up is not flooded.

use super::Why;
use crate::calls::pool::{Failure, Reply};
use crate::engine::Now;
use crate::time;

/// Consecutive connect failures that open the circuit.
const FAILURES: u8 = 5;
const PAUSE_MS: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 30_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    /// Requests are sent; counts consecutive failures.
    Closed { failures: u8 },
    /// Requests fail until `until_ns`.
    Open { until_ns: u64, pause_ms: u64 },
    /// One trial request is in flight; others fail.
    HalfOpen { pause_ms: u64 },
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Circuit {
    /// Returns whether to send a request, and whether it is the trial.
    pub(super) fn admit(&mut self, now: Now) -> (bool, bool) {
        match *self {
            Self::Closed { .. } => (true, false),
            Self::Open { until_ns, pause_ms } if until_ns <= now.mono_ns => {
                *self = Self::HalfOpen { pause_ms };
                (true, true)
            }
            Self::Open { .. } | Self::HalfOpen { .. } => (false, false),
        }
    }

    /// Connected: closes the circuit, whatever the response will be.
    pub(super) fn reached(&mut self) {
        *self = Self::default();
    }

    pub(super) fn record(&mut self, now: Now, how: &Result<Reply, Why>, is_trial: bool) {
        let open = |pause_ms| Self::Open { until_ns: now.mono_ns + time::ms(pause_ms), pause_ms };
        let unreachable = match how {
            // Not sent.
            Err(Why::Circuit | Why::Busy | Why::Unsendable) => return self.cancelled(is_trial),
            Err(Why::Failed(Failure::NotConnected(_) | Failure::NoConnection)) => true,
            Ok(_) | Err(Why::Failed(Failure::Answer(_) | Failure::TimedOut)) => false,
        };
        *self = match *self {
            Self::HalfOpen { pause_ms } if unreachable && is_trial => {
                open((2 * pause_ms).min(PAUSE_MS_MAX))
            }
            Self::Closed { failures } if unreachable && failures + 1 >= FAILURES => open(PAUSE_MS),
            Self::Closed { failures } if unreachable => Self::Closed { failures: failures + 1 },
            // Sent before the circuit opened: no new information.
            Self::Open { .. } | Self::HalfOpen { .. } if unreachable => return,
            Self::Open { .. } | Self::HalfOpen { .. } | Self::Closed { .. } => Self::default(),
        };
    }

    /// A request was cancelled; if it was the trial, the next request takes its place.
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
    use crate::engine::HangUp;

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let refused: Result<Reply, Why> = Err(Why::Failed(Failure::NotConnected(HangUp::Refused)));
        let mut circuit = Circuit::default();
        for _ in 0..FAILURES {
            assert_eq!(circuit.admit(at(0)), (true, false));
        }
        for _ in 0..2 * FAILURES {
            circuit.record(at(0), &refused, false);
        }
        let mut ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(circuit.admit(at(ms + pause_ms - 1)), (false, false));
            ms += pause_ms;
            assert_eq!(circuit.admit(at(ms)), (true, true));
            assert_eq!(circuit.admit(at(ms)), (false, false), "one trial at a time");
            circuit.record(at(ms), &refused, true);
        }
        ms += 30_000;
        assert_eq!(circuit.admit(at(ms)), (true, true));
        circuit.cancelled(true);
        assert_eq!(circuit.admit(at(ms)), (true, true));
        circuit.reached();
        assert_eq!(circuit.admit(at(ms)), (true, false), "closed before the response");
        circuit.record(at(ms), &Ok(Reply::default()), true);
        assert_eq!(circuit, Circuit::default());
    }
}
