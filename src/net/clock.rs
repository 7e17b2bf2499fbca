//! The only place that reads a clock.

use std::sync::OnceLock;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::time::Now;

static START_NS: OnceLock<u64> = OnceLock::new();

/// The time: monotonic since the first call, wall clock since 1970.
#[must_use]
pub fn now() -> Now {
    let ns = nanoseconds(clock_gettime(ClockId::Monotonic));
    let wall_ns = nanoseconds(clock_gettime(ClockId::Realtime));
    // Another thread may have read a later time and been the first to set the start.
    let mono_ns = ns.saturating_sub(*START_NS.get_or_init(|| ns));
    Now { mono_ns, wall_ms: (wall_ns / 1_000_000) as i64 }
}

/// `CLOCK_MONOTONIC` in microseconds, comparable across processes.
pub(super) fn monotonic_us() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic)) / 1_000
}

/// Zero before 1970. The wall clock overflows in 2554.
fn nanoseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec.cast_unsigned())
}
