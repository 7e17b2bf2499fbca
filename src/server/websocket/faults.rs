//! Faults of the whole process, available with `--faults`: it blocks for a while, or exits. Both
//! begin after a second, so that the HTTP response is sent.

use crate::engine::{Action, Now};
use crate::time;

/// Time between request and fault.
const DELAY_MS: u64 = 1_000;
/// The exit status of `/seppuku`.
const SEPPUKU_STATUS: u8 = 69;

/// Scheduled faults, and the current one.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// When to block, and for how long.
    sleep: Option<(u64, u64)>,
    /// When to exit.
    exit_ns: Option<u64>,
    /// The process is blocked until then.
    frozen_until_ns: u64,
}

impl Faults {
    pub(crate) fn sleep_soon(&mut self, now: Now, for_ms: u64) {
        self.sleep = Some((now.mono_ns + time::ms(DELAY_MS), for_ms));
    }

    pub(crate) fn exit_soon(&mut self, now: Now) {
        self.exit_ns = Some(now.mono_ns + time::ms(DELAY_MS));
    }

    /// Blocks for this long, after any earlier block.
    pub(crate) fn freeze(&mut self, now: Now, for_ms: u64) -> Action {
        self.frozen_until_ns = self.frozen_until_ns.max(now.mono_ns) + time::ms(for_ms);
        Action::Freeze { until_ns: self.frozen_until_ns }
    }

    pub(crate) fn frozen_until_ns(&self) -> u64 {
        self.frozen_until_ns
    }

    pub(crate) fn is_frozen(&self, now: Now) -> bool {
        now.mono_ns < self.frozen_until_ns
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.sleep.map(|(at_ns, _)| at_ns).into_iter().chain(self.exit_ns).min()
    }

    /// Returns the fault that is due.
    pub(crate) fn fire(&mut self, now: Now) -> Option<Action> {
        if self.exit_ns.is_some_and(|at_ns| at_ns <= now.mono_ns) {
            return Some(Action::Exit(SEPPUKU_STATUS));
        }
        let (_, for_ms) = self.sleep.take_if(|(at_ns, _)| *at_ns <= now.mono_ns)?;
        Some(self.freeze(now, for_ms))
    }
}
