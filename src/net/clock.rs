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
    // In 64 bits it overflows after 584 years, and 128 would cost as much as reading the clock.
    let ns = since_start.as_secs() * 1_000_000_000 + u64::from(since_start.subsec_nanos());
    let wall_ms = since_1970.as_secs() * 1_000 + u64::from(since_1970.subsec_millis());
    Now { mono_ns: ns, wall_ms: wall_ms as i64 }
}

/// `CLOCK_MONOTONIC` in microseconds, comparable across processes.
pub(super) fn monotonic_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000 + nanos.unwrap_or(0) / 1_000
}
