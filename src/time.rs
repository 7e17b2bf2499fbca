//! Time as a value: nothing here reads a clock. Also calendar formats for HTTP and logs.

use std::num::NonZeroU32;

/// The time of a turn, read once by the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Nanoseconds since an arbitrary start; never goes back.
    pub mono_ns: u64,
    /// Milliseconds since 1970; may jump, so for display only.
    pub wall_ms: i64,
}

impl Now {
    /// [`Now::mono_ns`] in milliseconds.
    #[must_use]
    pub fn mono_ms(self) -> u64 {
        self.mono_ns / 1_000_000
    }
}

/// Nanoseconds in `ms` milliseconds.
#[must_use]
pub fn ms(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}

/// The earlier of two deadlines, either of which may be missing.
#[inline]
#[must_use]
pub fn earlier(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (Some(due), None) | (None, Some(due)) => Some(due),
        (None, None) => None,
    }
}

/// A monotonic time in 16 ms ticks, in four bytes, for state that each connection holds.
/// It wraps after 2.2 years, so two of them are comparable only within one year.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(NonZeroU32);

impl Moment {
    const TICK_NS: u64 = 16_000_000;
    /// A time further ahead could compare as past; no timer is set that far.
    const AHEAD_MS_MAX: u64 = 365 * 24 * 3_600_000;

    /// The first tick that is not before this time.
    #[must_use]
    pub fn at(ns: u64) -> Self {
        // Zero becomes one tick later, so that `Option<Moment>` takes no extra byte.
        Self(NonZeroU32::new(ns.div_ceil(Self::TICK_NS) as u32).unwrap_or(NonZeroU32::MIN))
    }

    /// This many milliseconds from now, but a year at most.
    #[must_use]
    pub fn after(now: Now, ms: u64) -> Self {
        Self::at(now.mono_ns.saturating_add(self::ms(ms.min(Self::AHEAD_MS_MAX))))
    }

    /// Ticks from this moment to now; negative if it is in the future.
    fn ticks_ago(self, now: Now) -> i32 {
        ((now.mono_ns / Self::TICK_NS) as u32).wrapping_sub(self.0.get()) as i32
    }

    /// One tick earlier.
    #[must_use]
    pub fn before(self) -> Self {
        Self(NonZeroU32::new(self.0.get().wrapping_sub(1)).unwrap_or(NonZeroU32::MAX))
    }

    /// Whether it is now or in the past.
    #[must_use]
    pub fn has_come(self, now: Now) -> bool {
        self.ticks_ago(now) >= 0
    }

    /// Milliseconds from this moment to now, or 0 if it is in the future.
    #[must_use]
    pub fn ms_ago(self, now: Now) -> u64 {
        u64::try_from(self.ticks_ago(now)).unwrap_or(0) * Self::TICK_NS / 1_000_000
    }

    /// The same in nanoseconds, given a time close to it.
    #[must_use]
    pub fn ns(self, now: Now) -> u64 {
        let tick =
            (now.mono_ns / Self::TICK_NS).saturating_add_signed(-i64::from(self.ticks_ago(now)));
        tick * Self::TICK_NS
    }
}

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

struct Calendar {
    year: i64,
    month: i64,
    day: i64,
    weekday: &'static str,
    second_of_day: i64,
    ms: i64,
}

/// Converts days to a civil date in eras of 400 years that begin on 1 March, so that the leap day
/// is the last day of its year and needs no special case.
fn calendar(wall_ms: i64) -> Calendar {
    let seconds = wall_ms.div_euclid(1000);
    let days = seconds.div_euclid(86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let weekday = usize::try_from(days.rem_euclid(7)).unwrap_or(0);
    Calendar {
        year: era * 400 + year_of_era + i64::from(month <= 2),
        month,
        day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
        weekday: DAYS[weekday],
        second_of_day: seconds.rem_euclid(86_400),
        ms: wall_ms.rem_euclid(1000),
    }
}

/// `Sat, 21 Nov 2026 03:19:04 GMT`, the format of HTTP's `Date` (RFC 9110 §5.6.7).
#[must_use]
pub fn http_date(wall_ms: i64) -> String {
    let c = calendar(wall_ms);
    let month = usize::try_from(c.month - 1).unwrap_or(0);
    let (h, m, s) = (c.second_of_day / 3600, c.second_of_day / 60 % 60, c.second_of_day % 60);
    format!("{}, {:02} {} {} {h:02}:{m:02}:{s:02} GMT", c.weekday, c.day, MONTHS[month], c.year)
}

/// `21/Nov/2026:03:19:04 +0000`, the common log format.
#[must_use]
pub fn log_date(wall_ms: i64) -> String {
    let c = calendar(wall_ms);
    let month = usize::try_from(c.month - 1).unwrap_or(0);
    let (h, m, s) = (c.second_of_day / 3600, c.second_of_day / 60 % 60, c.second_of_day % 60);
    format!("{:02}/{}/{}:{h:02}:{m:02}:{s:02} +0000", c.day, MONTHS[month], c.year)
}

/// `2026-11-21T03:19:04.123Z`.
#[must_use]
pub fn rfc3339(wall_ms: i64) -> String {
    let c = calendar(wall_ms);
    let (h, m, s) = (c.second_of_day / 3600, c.second_of_day / 60 % 60, c.second_of_day % 60);
    format!("{:04}-{:02}-{:02}T{h:02}:{m:02}:{s:02}.{:03}Z", c.year, c.month, c.day, c.ms)
}

/// Parses the format of [`rfc3339`] in UTC, with or without a fraction of a second.
#[must_use]
pub fn from_rfc3339(text: &str) -> Option<i64> {
    let (date, rest) = text.split_once('T')?;
    let time = rest.strip_suffix('Z')?;
    let number = |text: &str, digits: usize| -> Option<i64> {
        let valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_digit());
        valid.then(|| text.parse().ok())?
    };
    let mut parts = date.split('-');
    let (year, month, day) =
        (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = time.split(':');
    let (h, m, s) =
        (number(clock.next()?, 2)?, number(clock.next()?, 2)?, number(clock.next()?, 2)?);
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && h < 24
        && m < 60
        && s < 61
        && (1..=9).contains(&fraction.len());
    if parts.next().is_some() || clock.next().is_some() || !valid {
        return None;
    }
    let ms = number(&format!("{:0<3}", fraction.get(..fraction.len().min(3))?), 3)?;
    // Years begin in March, as in `calendar`.
    let shifted_year = year - i64::from(month <= 2);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let leap_days = shifted_year / 4 - shifted_year / 100 + shifted_year / 400;
    let days = 365 * shifted_year + leap_days + day_of_year - 719_468;
    Some((((days * 24 + h) * 60 + m) * 60 + s) * 1000 + ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_far_ahead_is_ahead() {
        let now = Now { mono_ns: ms(123_456_789_000), wall_ms: 0 };
        for hours in [24, 8_760, 10_000, 20_000, u64::MAX / 3_600_000] {
            let moment = Moment::after(now, hours * 3_600_000);
            assert!(!moment.has_come(now), "{hours} h");
            assert!(moment.ns(now) >= now.mono_ns + ms(hours.min(8_760) * 3_600_000), "{hours} h");
        }
    }

    #[test]
    fn dates_that_others_computed() {
        for (wall_ms, http, iso) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT", "1970-01-01T00:00:00.000Z"),
            (951_826_154_007, "Tue, 29 Feb 2000 12:09:14 GMT", "2000-02-29T12:09:14.007Z"),
            (1_709_251_199_999, "Thu, 29 Feb 2024 23:59:59 GMT", "2024-02-29T23:59:59.999Z"),
            (4_107_542_400_000, "Mon, 01 Mar 2100 00:00:00 GMT", "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(http_date(wall_ms), http);
            assert_eq!(rfc3339(wall_ms), iso);
            assert_eq!(from_rfc3339(iso), Some(wall_ms));
        }
    }

    #[test]
    fn dates_that_are_read() {
        assert_eq!(from_rfc3339("2026-11-21T03:19:04Z"), Some(1_795_231_144_000));
        assert_eq!(from_rfc3339("1970-01-01T00:00:00.5Z"), Some(500));
        assert_eq!(from_rfc3339("1970-01-01T00:00:00.123456789Z"), Some(123));
        for bad in [
            "",
            "2026-11-21",
            "2026-11-21T03:19:04",
            "2026-11-21T03:19:04+01:00",
            "2026-13-21T03:19:04Z",
            "2026-11-21T24:19:04Z",
            "2026-11-21T03:19:04.Z",
            "2026-11-21T03:19:04.é1Z",
            "+026-11-21T03:19:04Z",
            "2026-11-21-1T03:19:04Z",
        ] {
            assert_eq!(from_rfc3339(bad), None, "{bad}");
        }
        assert_eq!(log_date(951_826_154_007), "29/Feb/2000:12:09:14 +0000");
    }
}
