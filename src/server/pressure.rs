//! Memory, as we count it ourselves, against what the container may have: the kernel's figure
//! comes late, and its answer to too much is to kill.

use super::config::MemoryPlan;
use crate::engine::Id;

/// What the process has before its first connection.
pub(super) const BASE_BYTES: u64 = 3 * 1024 * 1024;
/// A connection: its place with us; its socket, file and poll entry in the kernel, and a page of
/// what is on its way.
pub(super) const CONNECTION_BYTES: u64 = 8 * 1024;
/// A stage is left this many percent below where it was entered, or it would flutter.
const HYSTERESIS: u64 = 5;

/// What connections own beyond their places, kept up to date as they change.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// Bytes of memory.
    pub(super) memory: usize,
    /// Bytes of output that waits, which is part of it.
    pub(super) queued: usize,
}

impl Account {
    /// One owner's share has changed; `counted` is what it was the last time.
    pub(super) fn update(&mut self, counted: &mut Self, now: Self) {
        self.memory = self.memory + now.memory - counted.memory;
        self.queued = self.queued + now.queued - counted.queued;
        *counted = now;
    }
}

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Not at all.
    #[default]
    Ease = 0,
    /// From 75 %: not ready, no upgrades, short keep-alive.
    Tight = 1,
    /// From 92 %: peers with output waiting are not read, the largest is closed.
    Short = 2,
    /// From 97 %: everyone is turned away at the door.
    Out = 3,
}

impl Stage {
    /// What it means, for the log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ease => "at ease",
            Self::Tight => "tight, upgrades are refused",
            Self::Short => "short, the largest connection is closed",
            Self::Out => "used up, clients are turned away",
        }
    }
}

/// Where the stages begin, in percent of the limit.
const STAGES: [(u64, Stage); 3] = [(97, Stage::Out), (92, Stage::Short), (75, Stage::Tight)];

#[derive(Debug, Default)]
pub(super) struct Pressure {
    limit: Option<u64>,
    /// What a connection costs that does nothing.
    connection_bytes: u64,
    stage: Stage,
    /// The connection that is closed to make room.
    pub(super) victim: Option<Id>,
}

impl Pressure {
    pub(super) fn new(plan: MemoryPlan) -> Self {
        let connection_bytes = plan.connection_bytes();
        Self { limit: plan.limit, connection_bytes, stage: Stage::Ease, victim: None }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    pub(super) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Looks at what is owned; says whether the stage is another one.
    pub(super) fn weigh(&mut self, owned: usize, connections: usize) -> bool {
        let Some(limit) = self.limit else { return false };
        // A quarter more for the gaps of the allocator.
        let owned = owned as u64 + owned as u64 / 4;
        let counted = BASE_BYTES + owned + connections as u64 * self.connection_bytes;
        // And a quarter for what nobody counts: page tables, what has come and is not read yet.
        let used = counted + counted / 4;
        let reached = |percent: u64| used >= limit / 100 * percent;
        let stage = stage_where(reached);
        let next = if stage >= self.stage {
            stage
        } else {
            stage_where(|percent| reached(percent - HYSTERESIS)).min(self.stage)
        };
        std::mem::replace(&mut self.stage, next) != next
    }
}

fn stage_where(reached: impl Fn(u64) -> bool) -> Stage {
    STAGES.iter().find(|(percent, _)| reached(*percent)).map_or(Stage::Ease, |(_, stage)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_stage_is_left_lower_than_it_was_entered() {
        let limit = Some(100 * MIB as u64);
        let mut pressure = Pressure::new(MemoryPlan { limit, ..MemoryPlan::default() });
        for (owned_mib, stage) in [
            (45, Stage::Ease),
            (46, Stage::Tight),
            (44, Stage::Tight),
            (42, Stage::Ease),
            (57, Stage::Short),
            (60, Stage::Out),
            (0, Stage::Ease),
        ] {
            pressure.weigh(owned_mib * MIB, 0);
            assert_eq!(pressure.stage(), stage, "{owned_mib} MiB");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_short() {
        let mut pressure = Pressure::default();
        assert!(!pressure.weigh(usize::MAX / 2, 0));
        assert_eq!(pressure.stage(), Stage::Ease);
    }
}
