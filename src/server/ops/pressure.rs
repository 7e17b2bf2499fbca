//! Memory against its limit. Two figures, two uses: what the kernel says decides whether memory is
//! short; the account of what each connection owns says what has changed since the kernel was last
//! asked, and whom to close. Where the kernel cannot be asked, the account is used for both.

use crate::engine::Now;
use crate::limits;
use crate::server::config::{BASE_BYTES, MemoryPlan};
use crate::time;

/// A stage is left this many percent below where it was entered, or it would flutter.
const HYSTERESIS: u64 = 5;

/// What connections own beyond their places, kept up to date as they change.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::server) struct Account {
    /// Bytes of memory.
    pub(in crate::server) memory: usize,
    /// Bytes of output that waits, which is part of it.
    pub(in crate::server) queued: usize,
}

impl Account {
    /// One owner's share has changed; `counted` is what it was the last time.
    pub(in crate::server) fn update(&mut self, counted: &mut Self, now: Self) {
        self.memory = self.memory + now.memory - counted.memory;
        self.queued = self.queued + now.queued - counted.queued;
        *counted = now;
    }
}

/// How short memory is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::server) enum MemoryStage {
    /// Not at all.
    #[default]
    Ease = 0,
    /// From 75 %: not ready, no upgrades, short keep-alive.
    Tight = 1,
    /// From 92 %: peers with output waiting are not read, the largest is closed.
    Short = 2,
    /// From 97 %: connections are refused at accept.
    Out = 3,
}

impl MemoryStage {
    /// What it means, for the log.
    pub(in crate::server) fn name(self) -> &'static str {
        match self {
            Self::Ease => "at ease",
            Self::Tight => "tight, upgrades are refused",
            Self::Short => "short, the largest connection is closed",
            Self::Out => "used up, clients are turned away",
        }
    }
}

/// Where the stages begin, in percent of the limit.
const STAGES: [(u64, MemoryStage); 3] = {
    let [tight, short, out] = limits::MEMORY_PERCENT;
    [(out, MemoryStage::Out), (short, MemoryStage::Short), (tight, MemoryStage::Tight)]
};

/// Closing begins at the stage *short* and ends here, in percent of the limit.
const RELIEVED_PERCENT: u64 = 85;
/// What may be allocated at once must leave this many percent of the limit in use, or less.
const FILLED_PERCENT: u64 = 96;
/// The kernel is asked again when the account has changed by this much, or by this part of the
/// limit.
const READ_AFTER_BYTES: u64 = 1024 * 1024;
const READ_AFTER_PART: u64 = 128;
/// It is asked again after so long, if the account has changed at all: more often while memory is
/// scarce, and then also when nothing has changed.
const READ_AFTER_MS: u64 = 100;
const READ_AFTER_MS_SCARCE: u64 = 2;
const READ_AFTER_MS_WAITING: u64 = 250;
/// From here on memory is called scarce, in percent of the limit.
const SCARCE_PERCENT: u64 = 60;

/// What the account says: bytes that are owned, and connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Demand {
    pub(in crate::server) owned: usize,
    pub(in crate::server) connections: usize,
}

/// The kernel's figure, and what the account said at that moment.
#[derive(Clone, Copy, Debug)]
struct Reading {
    used: u64,
    counted: u64,
    at_ns: u64,
}

/// What closing has achieved, so that it does not go on in vain.
#[derive(Clone, Copy, Debug)]
enum Relief {
    /// Nothing was closed since memory was last at ease.
    Unneeded,
    /// Since the last reading, connections were closed that owned so much.
    Underway { used: u64, freed: u64 },
    /// It was in vain: the allocator keeps the pages of what was closed, or others have taken as
    /// much. Closing goes on only when the kernel's figure grows beyond this.
    Futile { used: u64 },
}

#[derive(Debug)]
pub(in crate::server) struct Pressure {
    limit: Option<u64>,
    /// What a connection costs that does nothing.
    connection_bytes: u64,
    stage: MemoryStage,
    estimate: u64,
    /// What is used once the kernel holds all that it may for peers that are not read.
    promised: u64,
    counted: u64,
    reading: Option<Reading>,
    /// The kernel was asked and has not said anything.
    is_asked: bool,
    /// What the process used before its first connection.
    base: u64,
    relief: Relief,
}

impl Pressure {
    pub(in crate::server) fn new(plan: MemoryPlan) -> Self {
        Self {
            limit: plan.limit,
            connection_bytes: plan.connection_bytes(),
            stage: MemoryStage::Ease,
            estimate: 0,
            promised: 0,
            counted: 0,
            reading: None,
            is_asked: false,
            base: 0,
            relief: Relief::Unneeded,
        }
    }

    pub(in crate::server) fn stage(&self) -> MemoryStage {
        self.stage
    }

    pub(in crate::server) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// What is used, as far as it is known: the kernel's figure and what has changed since.
    pub(in crate::server) fn estimate(&self) -> u64 {
        self.estimate
    }

    /// Looks at what is owned; says whether the stage is another one.
    pub(in crate::server) fn weigh(&mut self, demand: Demand) -> bool {
        let Some(limit) = self.limit else { return false };
        // A quarter more for the gaps of the allocator.
        let owned = demand.owned as u64 + demand.owned as u64 / 4;
        self.counted = owned + demand.connections as u64 * self.connection_bytes;
        self.estimate = match self.reading {
            Some(reading) => (reading.used + self.counted).saturating_sub(reading.counted),
            // Another quarter for what is not counted: page tables, bytes that are not read yet.
            None => (BASE_BYTES + self.counted) / 4 * 5,
        };
        self.promised =
            self.base + demand.owned as u64 + demand.connections as u64 * self.connection_bytes;
        let (used, promised, percent) = (self.estimate, self.promised, limit / 100);
        let stage_at = |below: u64| {
            let reached = |bytes: u64| stage_where(|from| bytes >= percent * (from - below));
            reached(used).max(reached(promised).min(MemoryStage::Short))
        };
        let stage = stage_at(0);
        let next = if stage >= self.stage { stage } else { stage_at(HYSTERESIS).min(self.stage) };
        std::mem::replace(&mut self.stage, next) != next
    }

    /// Whether the kernel is to be asked now. Says so once: [`Pressure::read`] is the answer.
    pub(in crate::server) fn asks_kernel(&mut self, now: Now) -> bool {
        let Some(limit) = self.limit.filter(|_| !self.is_asked) else { return false };
        self.is_asked = match self.reading {
            None => true,
            Some(reading) => {
                let changed = self.counted.abs_diff(reading.counted);
                let is_scarce = self.estimate >= limit / 100 * SCARCE_PERCENT;
                let after_ms = match (changed > 0, is_scarce) {
                    (_, true) => READ_AFTER_MS_SCARCE,
                    (true, false) => READ_AFTER_MS,
                    (false, _) if self.stage > MemoryStage::Ease => READ_AFTER_MS_WAITING,
                    (false, _) => return false,
                };
                changed >= READ_AFTER_BYTES.min(limit / READ_AFTER_PART)
                    || now.mono_ns >= reading.at_ns + time::ms(after_ms)
            }
        };
        self.is_asked
    }

    /// The kernel says that so many bytes are used.
    pub(in crate::server) fn read(&mut self, now: Now, used: u64) {
        self.is_asked = false;
        if self.reading.is_none() {
            self.base = used.saturating_sub(self.counted).min(BASE_BYTES);
        }
        self.reading = Some(Reading { used, counted: self.counted, at_ns: now.mono_ns });
        self.relief = match self.relief {
            _ if self.limit.is_none_or(|limit| used < limit / 100 * RELIEVED_PERCENT) => {
                Relief::Unneeded
            }
            Relief::Underway { used: before, freed } if used + freed / 2 > before => {
                Relief::Futile { used }
            }
            Relief::Underway { .. } | Relief::Unneeded => Relief::Unneeded,
            futile @ Relief::Futile { .. } => futile,
        };
    }

    /// When the kernel is asked again although nothing happens.
    pub(in crate::server) fn next_deadline(&self) -> Option<u64> {
        let reading = self.reading.filter(|_| self.stage > MemoryStage::Ease && !self.is_asked)?;
        Some(reading.at_ns + time::ms(READ_AFTER_MS_WAITING))
    }

    /// How much is to be freed by closing connections; once for each reading.
    pub(in crate::server) fn excess(&self) -> u64 {
        let Some(limit) = self.limit.filter(|_| self.stage >= MemoryStage::Short) else { return 0 };
        match (self.relief, self.reading) {
            (Relief::Underway { .. }, Some(_)) => return 0,
            (Relief::Futile { used }, _) if self.estimate < used + limit / READ_AFTER_PART => {
                return 0;
            }
            (Relief::Futile { .. } | Relief::Unneeded | Relief::Underway { .. }, _) => {}
        }
        self.estimate.max(self.promised).saturating_sub(limit / 100 * RELIEVED_PERCENT)
    }

    /// Connections were closed that owned so much.
    pub(in crate::server) fn relieved(&mut self, freed: u64) {
        let used = self.reading.map_or(self.estimate, |reading| reading.used);
        self.relief = Relief::Underway { used, freed };
    }

    /// How many bytes may be allocated at once.
    pub(in crate::server) fn room(&self) -> usize {
        let Some(limit) = self.limit else { return usize::MAX };
        usize::try_from((limit / 100 * FILLED_PERCENT).saturating_sub(self.estimate))
            .unwrap_or(usize::MAX)
    }

    /// What a connection costs that does nothing.
    pub(in crate::server) fn connection_bytes(&self) -> u64 {
        self.connection_bytes
    }
}

fn stage_where(reached: impl Fn(u64) -> bool) -> MemoryStage {
    STAGES
        .iter()
        .find(|(percent, _)| reached(*percent))
        .map_or(MemoryStage::Ease, |(_, stage)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn owned(owned: usize) -> Demand {
        Demand { owned, connections: 0 }
    }

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    fn limited(mib: usize) -> Pressure {
        Pressure::new(MemoryPlan { limit: Some((mib * MIB) as u64), ..MemoryPlan::default() })
    }

    #[test]
    fn a_stage_is_left_lower_than_it_was_entered() {
        let limit = Some(100 * MIB as u64);
        let mut pressure = Pressure::new(MemoryPlan { limit, ..MemoryPlan::default() });
        for (owned_mib, stage) in [
            (45, MemoryStage::Ease),
            (46, MemoryStage::Tight),
            (44, MemoryStage::Tight),
            (42, MemoryStage::Ease),
            (57, MemoryStage::Short),
            (60, MemoryStage::Out),
            (0, MemoryStage::Ease),
        ] {
            pressure.weigh(owned(owned_mib * MIB));
            assert_eq!(pressure.stage(), stage, "{owned_mib} MiB");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_short() {
        let mut pressure = Pressure::new(MemoryPlan::default());
        assert!(!pressure.weigh(owned(usize::MAX / 2)));
        assert!(!pressure.asks_kernel(Now::default()));
        assert_eq!(pressure.stage(), MemoryStage::Ease);
    }

    #[test]
    fn the_kernel_decides_and_the_account_tells_what_has_changed_since() {
        let mut pressure = limited(100);
        pressure.weigh(owned(4 * MIB));
        assert!(pressure.asks_kernel(at(0)));
        assert!(!pressure.asks_kernel(at(0)), "it has not answered yet");
        pressure.read(at(0), 80 * MIB as u64);
        assert!(pressure.weigh(owned(4 * MIB)));
        assert_eq!(pressure.stage(), MemoryStage::Tight);
        pressure.weigh(owned(12 * MIB));
        assert_eq!((pressure.estimate(), pressure.stage()), (90 * MIB as u64, MemoryStage::Tight));
        assert!(pressure.asks_kernel(at(1)), "much has changed");
        pressure.read(at(1), 20 * MIB as u64);
        pressure.weigh(owned(12 * MIB));
        assert_eq!(pressure.stage(), MemoryStage::Ease);
        assert!(!pressure.asks_kernel(at(1000)), "nothing has changed");
    }

    #[test]
    fn closing_ends_where_it_frees_nothing() {
        let mut pressure = limited(100);
        pressure.weigh(owned(0));
        pressure.read(at(0), 95 * MIB as u64);
        pressure.weigh(owned(0));
        assert_eq!(pressure.excess(), 10 * MIB as u64);
        pressure.relieved(5 * MIB as u64);
        assert_eq!(pressure.excess(), 0, "first a fresh reading");
        // The allocator keeps what was freed.
        pressure.read(at(5), 95 * MIB as u64);
        pressure.weigh(owned(0));
        assert_eq!(pressure.excess(), 0);
        // It grows all the same.
        pressure.read(at(10), 98 * MIB as u64);
        pressure.weigh(owned(0));
        assert_eq!(pressure.excess(), 13 * MIB as u64);
        // Where the kernel sees it, closing goes on.
        pressure.relieved(2 * MIB as u64);
        pressure.read(at(15), 96 * MIB as u64);
        pressure.weigh(owned(0));
        assert_eq!(pressure.excess(), 11 * MIB as u64);
    }
}
