//! Memory against its limit. The kernel's figure decides whether memory is short. The account of
//! what each connection owns adds the change since the last reading, and decides whom to close. If
//! the kernel provides no figure, the account serves for both.

use crate::engine::Now;
use crate::limits;
use crate::server::config::{BASE_BYTES, MemoryPlan};
use crate::time;

/// A stage is left this many percent below its threshold, to avoid flapping.
const HYSTERESIS: u64 = 5;

/// Memory owned by connections beyond their slots in the table, kept up to date.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    /// Bytes owned.
    pub(crate) memory: usize,
    /// Bytes of unsent output among them.
    pub(crate) queued: usize,
}

impl Account {
    /// Replaces one owner's share: `counted` is its previous value.
    pub(crate) fn update(&mut self, counted: &mut Self, now: Self) {
        self.memory = self.memory + now.memory - counted.memory;
        self.queued = self.queued + now.queued - counted.queued;
        *counted = now;
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MemoryStage {
    #[default]
    Normal = 0,
    /// From 75 %: not ready, upgrades refused, short keep-alive.
    Tight = 1,
    /// From 92 %: peers with unsent output are not read, the largest connections are closed.
    Short = 2,
    /// From 97 %: connections are refused at accept.
    Exhausted = 3,
}

impl MemoryStage {
    /// For the log.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Tight => "tight, refusing upgrades",
            Self::Short => "short, closing the largest connections",
            Self::Exhausted => "exhausted, refusing connections at accept",
        }
    }
}

/// Thresholds, in percent of the limit.
const STAGES: [(u64, MemoryStage); 3] = {
    let [tight, short, out] = limits::MEMORY_PERCENT;
    [(out, MemoryStage::Exhausted), (short, MemoryStage::Short), (tight, MemoryStage::Tight)]
};

/// Connections are closed from [`MemoryStage::Short`] on, until usage is below this percentage.
const RELIEVED_PERCENT: u64 = 85;
/// A single allocation must keep usage below this percentage.
const FILLED_PERCENT: u64 = 96;
/// Read the kernel's figure again when the account has changed by this much, or by this fraction of
/// the limit.
const READ_AFTER_BYTES: u64 = 1024 * 1024;
const READ_AFTER_PART: u64 = 128;
/// Read it again after this time, if the account has changed at all. While memory is scarce, more
/// often and even without a change.
const READ_AFTER_MS: u64 = 100;
const READ_AFTER_MS_SCARCE: u64 = 2;
const READ_AFTER_MS_WAITING: u64 = 250;
/// Memory is scarce from this percentage on.
const SCARCE_PERCENT: u64 = 60;

/// The current account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounted {
    pub(crate) bytes: usize,
    pub(crate) connections: usize,
}

/// The kernel's figure and the account at that time.
#[derive(Clone, Copy, Debug)]
struct Reading {
    used: u64,
    counted: u64,
    at_ns: u64,
}

/// Whether closing connections has freed memory, so that it does not continue in vain.
#[derive(Clone, Copy, Debug)]
enum Relief {
    /// No connections were closed since memory was last sufficient.
    Unneeded,
    /// Since the last reading, connections were closed that owned `freed` bytes.
    Underway { used: u64, freed: u64 },
    /// Usage did not fall: the allocator keeps the freed pages, or others have allocated as much.
    /// Closing continues only if usage grows beyond this.
    Futile { used: u64 },
}

#[derive(Debug)]
pub(crate) struct Pressure {
    limit: Option<u64>,
    /// Memory of an idle connection.
    connection_bytes: u64,
    stage: MemoryStage,
    estimate: u64,
    /// Usage if the kernel fills all buffers that it may for peers that are not read.
    projected: u64,
    counted: u64,
    reading: Option<Reading>,
    /// A reading was requested and has not arrived.
    reading_requested: bool,
    /// Memory of the process before its first connection.
    base: u64,
    relief: Relief,
}

impl Pressure {
    pub(crate) fn new(plan: MemoryPlan) -> Self {
        Self {
            limit: plan.limit,
            connection_bytes: plan.connection_bytes(),
            stage: MemoryStage::Normal,
            estimate: 0,
            projected: 0,
            counted: 0,
            reading: None,
            reading_requested: false,
            base: 0,
            relief: Relief::Unneeded,
        }
    }

    pub(crate) fn stage(&self) -> MemoryStage {
        self.stage
    }

    pub(crate) fn limit(&self) -> Option<u64> {
        self.limit
    }

    /// Estimated usage: the last reading plus the change of the account since.
    pub(crate) fn estimate(&self) -> u64 {
        self.estimate
    }

    /// Updates the estimate; returns whether the stage changed.
    pub(crate) fn update(&mut self, accounted: Accounted) -> bool {
        let Some(limit) = self.limit else { return false };
        // A quarter more for fragmentation in the allocator.
        let owned = accounted.bytes as u64 + accounted.bytes as u64 / 4;
        self.counted = owned + accounted.connections as u64 * self.connection_bytes;
        self.estimate = match self.reading {
            Some(reading) => (reading.used + self.counted).saturating_sub(reading.counted),
            // Another quarter for what is not accounted: page tables, unread input.
            None => (BASE_BYTES + self.counted) / 4 * 5,
        };
        self.projected = self.base
            + accounted.bytes as u64
            + accounted.connections as u64 * self.connection_bytes;
        let (used, projected, percent) = (self.estimate, self.projected, limit / 100);
        let stage_at = |below: u64| {
            let reached = |bytes: u64| stage_where(|from| bytes >= percent * (from - below));
            reached(used).max(reached(projected).min(MemoryStage::Short))
        };
        let stage = stage_at(0);
        let next = if stage >= self.stage { stage } else { stage_at(HYSTERESIS).min(self.stage) };
        std::mem::replace(&mut self.stage, next) != next
    }

    /// Whether to read the kernel's figure now. Returns true once; [`Pressure::set_reading`]
    /// follows.
    pub(crate) fn wants_reading(&mut self, now: Now) -> bool {
        let Some(limit) = self.limit.filter(|_| !self.reading_requested) else { return false };
        self.reading_requested = match self.reading {
            None => true,
            Some(reading) => {
                let changed = self.counted.abs_diff(reading.counted);
                let is_scarce = self.estimate >= limit / 100 * SCARCE_PERCENT;
                let after_ms = match (changed > 0, is_scarce) {
                    (_, true) => READ_AFTER_MS_SCARCE,
                    (true, false) => READ_AFTER_MS,
                    (false, _) if self.stage > MemoryStage::Normal => READ_AFTER_MS_WAITING,
                    (false, _) => return false,
                };
                changed >= READ_AFTER_BYTES.min(limit / READ_AFTER_PART)
                    || now.mono_ns >= reading.at_ns + time::ms(after_ms)
            }
        };
        self.reading_requested
    }

    /// The kernel's figure was read.
    pub(crate) fn set_reading(&mut self, now: Now, used: u64) {
        self.reading_requested = false;
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

    /// When to read the kernel's figure again without any event.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let reading =
            self.reading.filter(|_| self.stage > MemoryStage::Normal && !self.reading_requested)?;
        Some(reading.at_ns + time::ms(READ_AFTER_MS_WAITING))
    }

    /// How many bytes to free by closing connections; at most once for each reading.
    pub(crate) fn excess(&self) -> u64 {
        let Some(limit) = self.limit.filter(|_| self.stage >= MemoryStage::Short) else { return 0 };
        match (self.relief, self.reading) {
            (Relief::Underway { .. }, Some(_)) => return 0,
            (Relief::Futile { used }, _) if self.estimate < used + limit / READ_AFTER_PART => {
                return 0;
            }
            (Relief::Futile { .. } | Relief::Unneeded | Relief::Underway { .. }, _) => {}
        }
        self.estimate.max(self.projected).saturating_sub(limit / 100 * RELIEVED_PERCENT)
    }

    /// Connections that owned `freed` bytes were closed.
    pub(crate) fn relieved(&mut self, freed: u64) {
        let used = self.reading.map_or(self.estimate, |reading| reading.used);
        self.relief = Relief::Underway { used, freed };
    }

    /// The largest allocation permitted now.
    pub(crate) fn available(&self) -> usize {
        let Some(limit) = self.limit else { return usize::MAX };
        usize::try_from((limit / 100 * FILLED_PERCENT).saturating_sub(self.estimate))
            .unwrap_or(usize::MAX)
    }

    /// Memory of an idle connection.
    pub(crate) fn connection_bytes(&self) -> u64 {
        self.connection_bytes
    }
}

fn stage_where(reached: impl Fn(u64) -> bool) -> MemoryStage {
    STAGES
        .iter()
        .find(|(percent, _)| reached(*percent))
        .map_or(MemoryStage::Normal, |(_, stage)| *stage)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn owned(owned: usize) -> Accounted {
        Accounted { bytes: owned, connections: 0 }
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
            (45, MemoryStage::Normal),
            (46, MemoryStage::Tight),
            (44, MemoryStage::Tight),
            (42, MemoryStage::Normal),
            (57, MemoryStage::Short),
            (60, MemoryStage::Exhausted),
            (0, MemoryStage::Normal),
        ] {
            pressure.update(owned(owned_mib * MIB));
            assert_eq!(pressure.stage(), stage, "{owned_mib} MiB");
        }
    }

    #[test]
    fn without_a_limit_nothing_is_short() {
        let mut pressure = Pressure::new(MemoryPlan::default());
        assert!(!pressure.update(owned(usize::MAX / 2)));
        assert!(!pressure.wants_reading(Now::default()));
        assert_eq!(pressure.stage(), MemoryStage::Normal);
    }

    #[test]
    fn the_kernel_decides_and_the_account_tells_what_has_changed_since() {
        let mut pressure = limited(100);
        pressure.update(owned(4 * MIB));
        assert!(pressure.wants_reading(at(0)));
        assert!(!pressure.wants_reading(at(0)), "it has not answered yet");
        pressure.set_reading(at(0), 80 * MIB as u64);
        assert!(pressure.update(owned(4 * MIB)));
        assert_eq!(pressure.stage(), MemoryStage::Tight);
        pressure.update(owned(12 * MIB));
        assert_eq!((pressure.estimate(), pressure.stage()), (90 * MIB as u64, MemoryStage::Tight));
        assert!(pressure.wants_reading(at(1)), "much has changed");
        pressure.set_reading(at(1), 20 * MIB as u64);
        pressure.update(owned(12 * MIB));
        assert_eq!(pressure.stage(), MemoryStage::Normal);
        assert!(!pressure.wants_reading(at(1000)), "nothing has changed");
    }

    #[test]
    fn closing_ends_where_it_frees_nothing() {
        let mut pressure = limited(100);
        pressure.update(owned(0));
        pressure.set_reading(at(0), 95 * MIB as u64);
        pressure.update(owned(0));
        assert_eq!(pressure.excess(), 10 * MIB as u64);
        pressure.relieved(5 * MIB as u64);
        assert_eq!(pressure.excess(), 0, "first a fresh reading");
        // The allocator keeps the freed pages.
        pressure.set_reading(at(5), 95 * MIB as u64);
        pressure.update(owned(0));
        assert_eq!(pressure.excess(), 0);
        // Usage grows nevertheless.
        pressure.set_reading(at(10), 98 * MIB as u64);
        pressure.update(owned(0));
        assert_eq!(pressure.excess(), 13 * MIB as u64);
        // Usage has fallen, so closing continues.
        pressure.relieved(2 * MIB as u64);
        pressure.set_reading(at(15), 96 * MIB as u64);
        pressure.update(owned(0));
        assert_eq!(pressure.excess(), 11 * MIB as u64);
    }
}
