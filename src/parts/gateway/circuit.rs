//! A backend that cannot be reached is not asked for a while: failing fast is kinder to clients
//! than five seconds each, and to a backend that is just coming up.

use super::Why;
use crate::calls::pool::{Failure, Reply};
use crate::engine::Now;
use crate::time;

/// So many connections that do not come about, one after the other.
const FAILURES: u8 = 5;
const PAUSE_MS: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 30_000;

/// How a backend is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circuit {
    /// As always, but for so many failures.
    Closed { failures: u8 },
    /// Not until then.
    Open { until_ns: u64, pause_ms: u64 },
    /// One request finds out.
    Trying { pause_ms: u64 },
}

impl Default for Circuit {
    fn default() -> Self {
        Self::Closed { failures: 0 }
    }
}

impl Circuit {
    /// Whether a request may go, and whether it is the one that finds out.
    pub(super) fn ask(&mut self, now: Now) -> (bool, bool) {
        match *self {
            Self::Closed { .. } => (true, false),
            Self::Open { until_ns, pause_ms } if until_ns <= now.mono_ns => {
                *self = Self::Trying { pause_ms };
                (true, true)
            }
            Self::Open { .. } | Self::Trying { .. } => (false, false),
        }
    }

    /// There is a connection: whatever comes of the request, the backend can be reached.
    pub(super) fn reached(&mut self) {
        *self = Self::default();
    }

    /// What became of a request that went.
    pub(super) fn told(&mut self, now: Now, how: &Result<Reply, Why>, is_trial: bool) {
        let open = |pause_ms| Self::Open { until_ns: now.mono_ns + time::ms(pause_ms), pause_ms };
        let unreachable = match how {
            // Nothing was tried.
            Err(Why::Circuit | Why::Busy | Why::Unsendable) => return self.forgotten(is_trial),
            Err(Why::Failed(Failure::NotConnected(_) | Failure::NoConnection)) => true,
            Ok(_) | Err(Why::Failed(Failure::Answer(_) | Failure::TimedOut)) => false,
        };
        *self = match *self {
            Self::Trying { pause_ms } if unreachable && is_trial => {
                open((2 * pause_ms).min(PAUSE_MS_MAX))
            }
            Self::Closed { failures } if unreachable && failures + 1 >= FAILURES => open(PAUSE_MS),
            Self::Closed { failures } if unreachable => Self::Closed { failures: failures + 1 },
            // Those that went before it was known: they tell nothing new.
            Self::Open { .. } | Self::Trying { .. } if unreachable => return,
            Self::Open { .. } | Self::Trying { .. } | Self::Closed { .. } => Self::default(),
        };
    }

    /// A request is given up: if it was to find out, another one has to.
    pub(super) fn forgotten(&mut self, is_trial: bool) {
        if let Self::Trying { pause_ms } = *self
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
            assert_eq!(circuit.ask(at(0)), (true, false));
        }
        for _ in 0..2 * FAILURES {
            circuit.told(at(0), &refused, false);
        }
        let mut ms = 0;
        for pause_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(circuit.ask(at(ms + pause_ms - 1)), (false, false));
            ms += pause_ms;
            assert_eq!(circuit.ask(at(ms)), (true, true));
            assert_eq!(circuit.ask(at(ms)), (false, false), "one finds out");
            circuit.told(at(ms), &refused, true);
        }
        ms += 30_000;
        assert_eq!(circuit.ask(at(ms)), (true, true));
        circuit.forgotten(true);
        assert_eq!(circuit.ask(at(ms)), (true, true));
        circuit.reached();
        assert_eq!(circuit.ask(at(ms)), (true, false), "nobody waits for the answer");
        circuit.told(at(ms), &Ok(Reply::default()), true);
        assert_eq!(circuit, Circuit::default());
    }
}
