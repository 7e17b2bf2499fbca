//! What `--faults` lets anyone do to the process: stop it for a while, or end it. Both begin a
//! second after they were asked for, so that the answer arrives.

use crate::engine::{Action, Now};
use crate::time;

/// From the answer to the deed.
const FUSE_MS: u64 = 1_000;
/// What `/seppuku` ends with.
const SEPPUKU: u8 = 69;

/// Deeds that are to come, and the one that is under way.
#[derive(Debug, Default)]
pub(in crate::server) struct Faults {
    /// When to stand still, and for how long.
    sleep: Option<(u64, u64)>,
    /// When to end.
    exit_ns: Option<u64>,
    /// Until when the process stands still.
    frozen_until_ns: u64,
}

impl Faults {
    pub(in crate::server) fn sleep_soon(&mut self, now: Now, for_ms: u64) {
        self.sleep = Some((now.mono_ns + time::ms(FUSE_MS), for_ms));
    }

    pub(in crate::server) fn exit_soon(&mut self, now: Now) {
        self.exit_ns = Some(now.mono_ns + time::ms(FUSE_MS));
    }

    /// Stands still for so long, after whatever it stands still for already.
    pub(in crate::server) fn freeze(&mut self, now: Now, for_ms: u64) -> Action {
        self.frozen_until_ns = self.frozen_until_ns.max(now.mono_ns) + time::ms(for_ms);
        Action::Freeze { until_ns: self.frozen_until_ns }
    }

    pub(in crate::server) fn frozen_until_ns(&self) -> u64 {
        self.frozen_until_ns
    }

    pub(in crate::server) fn is_frozen(&self, now: Now) -> bool {
        now.mono_ns < self.frozen_until_ns
    }

    pub(in crate::server) fn next_deadline(&self) -> Option<u64> {
        self.sleep.map(|(at_ns, _)| at_ns).into_iter().chain(self.exit_ns).min()
    }

    /// The deed that is due.
    pub(in crate::server) fn fire(&mut self, now: Now) -> Option<Action> {
        if self.exit_ns.is_some_and(|at_ns| at_ns <= now.mono_ns) {
            return Some(Action::Exit(SEPPUKU));
        }
        let (_, for_ms) = self.sleep.take_if(|(at_ns, _)| *at_ns <= now.mono_ns)?;
        Some(self.freeze(now, for_ms))
    }
}
