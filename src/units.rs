//! Durations and sizes as text: `250ms`, `10s`, `2h`; `64KiB`, `1MiB`. Text of limited length.

/// Parses a duration into milliseconds; only `0` needs no unit.
#[must_use]
pub fn duration_ms(text: &str) -> Option<u64> {
    scaled(text, &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)])
}

/// Parses a duration into nanoseconds, with decimals and also in microseconds: `1.5ms`, `500us`.
#[must_use]
pub fn duration_ns(text: &str) -> Option<u64> {
    let units = [
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    if text == "0" {
        return Some(0);
    }
    let split = |(unit, scale): &(&str, u64)| Some((text.strip_suffix(unit)?, *scale));
    let (number, scale) = units.iter().find_map(split)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !(is_digits(whole) && is_digits(fraction) && (1..=9).contains(&fraction.len())) {
        return None;
    }
    // At most 9 digits of an hour do not fit into 64 bits.
    let parts = fraction.parse::<u128>().ok()? * u128::from(scale);
    let fraction = u64::try_from(parts / 10_u128.pow(fraction.len() as u32)).ok()?;
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(fraction)
}

/// Formats nanoseconds as [`duration_ns`] reads them.
#[must_use]
pub fn show_span(ns: u64) -> String {
    match ns {
        _ if ns.is_multiple_of(1_000_000) => show_duration(ns / 1_000_000),
        0..1_000_000 => format!("{}us", ns as f64 / 1e3),
        _ => format!("{}ms", ns as f64 / 1e6),
    }
}

/// `1 message`, `2 messages`.
#[must_use]
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A rate, with a decimal only below 100.
#[must_use]
pub fn per_second(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

/// The longest prefix of at most this many bytes.
#[must_use]
pub fn prefix(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Whether this character is visible, and neither controls a terminal nor changes the direction of
/// what follows.
#[must_use]
pub fn is_plain(c: char) -> bool {
    let is_format = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{61c}' | '\u{ad}');
    !c.is_control() && !is_format
}

/// Parses a size into bytes; a number without a unit is bytes.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    text.parse()
        .ok()
        .filter(|_| is_digits(text))
        .or_else(|| scaled(text, &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)]))
}

/// Formats milliseconds with the largest unit that divides them.
#[must_use]
pub fn show_duration(ms: u64) -> String {
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(scale, _)| ms > 0 && ms.is_multiple_of(*scale)) {
        Some((scale, unit)) => format!("{}{unit}", ms / scale),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// Formats nanoseconds for people: three digits and a unit that fits.
#[must_use]
pub fn show_time(ns: u64) -> String {
    let (scale, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let value = ns as f64 / scale;
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// Formats bytes with the largest unit that divides them.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(scale, _)| bytes > 0 && bytes.is_multiple_of(*scale)) {
        Some((scale, unit)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (number, scale) =
        units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, scale)))?;
    let number: u64 = number.parse().ok().filter(|_| is_digits(number))?;
    number.checked_mul(*scale)
}

/// `u64::from_str` accepts a leading `+`, which no flag should.
fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [("250ms", 250), ("10s", 10_000), ("2h", 7_200_000), ("3m", 180_000)] {
            assert_eq!(duration_ms(text), Some(ms), "{text}");
            assert_eq!(show_duration(ms), text);
        }
        assert_eq!(duration_ms("0"), Some(0));
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1 s",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert_eq!(duration_ms(text), None, "{text}");
        }
    }

    #[test]
    fn spans() {
        for (text, ns) in [
            ("500us", 500_000),
            ("1.5ms", 1_500_000),
            ("0.5us", 500),
            ("10s", 10_000_000_000),
            ("2h", 7_200_000_000_000),
        ] {
            assert_eq!((duration_ns(text), show_span(ns)), (Some(ns), text.to_owned()));
        }
        for (text, ns) in [
            ("20µs", 20_000),
            ("1.50s", 1_500_000_000),
            ("0", 0),
            ("0.25m", 15_000_000_000),
            ("0.999999999h", 3_599_999_996_400),
        ] {
            assert_eq!(duration_ns(text), Some(ns), "{text}");
        }
        for text in ["", "s", ".5s", "5.s", "1.2.3s", "-1s", "+1s", "1e3s", "1.5", "5", "1 ms"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
        for text in ["1.0000000001s", "99999999999999999999h", "9999999999h", "1nm"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
    }

    #[test]
    fn times() {
        for (ns, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_234, "1.23 µs"),
            (100_400_000, "100 ms"),
            (30_040_000_000, "30.0 s"),
            (300_000_000_000, "300 s"),
        ] {
            assert_eq!(show_time(ns), text);
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("64KiB", 65_536), ("1MiB", 1 << 20), ("17B", 17)] {
            assert_eq!(size(text), Some(bytes), "{text}");
            assert_eq!(show_size(bytes), text);
        }
        assert_eq!(size("4096"), Some(4096));
        for text in ["", "KiB", "-1", "+1", "1kb", "1.5MiB", "99999999999GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
