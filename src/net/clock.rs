//! The one place that asks a clock.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::time::Now;

static START: OnceLock<Instant> = OnceLock::new();

/// The moment, since the first call and since 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> Now {
    let instant = Instant::now();
    let since_start = instant.saturating_duration_since(*START.get_or_init(|| instant));
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        mono_ns: u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX),
        wall_ms: i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX),
    }
}
