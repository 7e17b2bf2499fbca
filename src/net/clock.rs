//! The only place that reads a clock.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::time::Now;

static START: OnceLock<Instant> = OnceLock::new();

/// The time: monotonic since the first call, wall clock since 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the only place that may")]
pub fn now() -> Now {
    let instant = Instant::now();
    let since_start = instant.saturating_duration_since(*START.get_or_init(|| instant));
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono_ns: u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX),
        wall_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
    }
}

/// `CLOCK_MONOTONIC` in microseconds, comparable across processes.
pub(super) fn monotonic_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000 + nanos.unwrap_or(0) / 1_000
}
