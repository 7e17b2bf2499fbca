//! Parameters of a mount, from `--mount PATH=BEHAVIOUR?PARAMS` or a URL's query. Knows names, units
//! and bounds, not what a parameter does.

use std::fmt;

use crate::proto::deflate::{self, Compression};
use crate::proto::frame::{REASON_BYTES_MAX, may_be_sent};
use crate::units;

/// Shortest push interval that a URL may set.
const PUSH_GAP_MS_MIN: u64 = 100;
/// Longest delay that a URL may set.
const DELAY_MS_MAX: u64 = 10_000;
/// Largest push that a URL may request.
const PUSH_SIZE_MAX: u64 = 64 * 1024;
/// Shortest keepalive interval that a URL may set.
const PING_MS_MIN: u64 = 1_000;
/// Upper bound of all durations, as for flags: far larger ones would overflow the clock.
const TIME_MS_MAX: u64 = 24 * 3_600_000;
/// Longest time that a message may block the process.
const BLOCK_MS_MAX: u64 = 60_000;

/// The parameters of a mount or connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// `delay`: answer each message this long after its arrival.
    pub delay_ms: u64,
    /// `randping`: push `randping` at random intervals up to this; 0: never.
    pub randping_ms: u64,
    /// `every`: push `tick <n>` at this interval; 0: never.
    pub every_ms: u64,
    /// `size`: pad pushes to this many bytes.
    pub size: usize,
    /// `ping`: keepalive interval; 0: off, `None`: the server's.
    pub ping_ms: Option<u64>,
    /// `hello`: first send a message that identifies the server.
    pub hello: bool,
    /// `deflate`: compression; `None`: the server's.
    pub deflate: Option<Compression>,
    /// `subprotocol`: supported subprotocols.
    pub subprotocols: Vec<String>,
    /// `work`: time that the single worker of the process spends on each message; 0: not used.
    pub work_ms: u64,
    /// `block`: how long each message blocks the whole process.
    pub block_ms: u64,
    /// `close_after`: close this long after opening; 0: never.
    pub close_after_ms: u64,
    /// `code`: close code for `close_after`.
    pub close_code: Option<u16>,
    /// `reason`: close reason for `close_after`.
    pub close_reason: String,
    /// `fault`: injected fault.
    pub fault: Option<WireFault>,
    /// `token-file`: file with the token that clients need; empty: none.
    pub token_file: String,
    /// Parameters of the behaviour itself, as given.
    pub own: Vec<(&'static str, String)>,
}

/// A parameter of one behaviour.
#[derive(Debug)]
pub struct OwnParam {
    /// The name.
    pub name: &'static str,
    /// Describes valid values.
    pub want: &'static str,
    /// Validates a value.
    pub accepts: fn(&str) -> bool,
    /// Whether a URL cannot override the mount's value.
    pub is_fixed: bool,
}

/// An injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireFault {
    /// Reset the connection at the first message.
    Reset,
    /// Do not answer Pings.
    NoPong,
    /// Answer the upgrade with 503.
    Status503,
    /// Stop reading.
    StallRead,
    /// Send echoes in fragments.
    Fragment,
}

const WIRE_FAULTS: &[(&str, WireFault)] = &[
    ("rst", WireFault::Reset),
    ("no-pong", WireFault::NoPong),
    ("status-503", WireFault::Status503),
    ("stall-read", WireFault::StallRead),
    ("fragment", WireFault::Fragment),
];

/// Where a parameter comes from, which decides its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator; or a URL, if `--faults` is given.
    Trusted,
    /// A URL from an untrusted client.
    Url,
}

/// A known parameter with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParam {
    /// The parameter.
    pub name: &'static str,
    /// Describes valid values.
    pub want: &'static str,
}

impl fmt::Display for BadParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter {}: must be {}", self.name, self.want)
    }
}

type Set = fn(&mut Params, &str, Source) -> bool;

/// Name, description of valid values, and setter of each parameter. Unknown names in a URL are
/// ignored, since proxies add tokens of their own.
const PARAMS: &[(&str, &str, Set)] = &[
    ("delay", "a duration up to 24h (from a URL 10s), such as 100ms", |p, v, s| {
        duration(v, |ms| s == Source::Trusted || ms <= DELAY_MS_MAX, &mut p.delay_ms)
    }),
    ("randping", "a duration from 100ms (from --mount 0) to 24h, such as 3s", |p, v, s| {
        duration(v, |ms| s == Source::Trusted || ms >= PUSH_GAP_MS_MIN, &mut p.randping_ms)
    }),
    ("every", "a duration from 100ms (from --mount 0) to 24h, such as 5s", |p, v, s| {
        duration(v, |ms| s == Source::Trusted || ms >= PUSH_GAP_MS_MIN, &mut p.every_ms)
    }),
    ("size", "a size up to 64KiB, such as 1KiB", |p, v, s| {
        let size = units::size(v).filter(|&n| s == Source::Trusted || n <= PUSH_SIZE_MAX);
        size.and_then(|n| usize::try_from(n).ok()).map(|n| p.size = n).is_some()
    }),
    ("ping", "a duration from 1s (from --mount 0) to 24h, such as 20s", |p, v, s| {
        let mut ping_ms = 0;
        let fits = duration(v, |ms| s == Source::Trusted || ms >= PING_MS_MIN, &mut ping_ms);
        if fits {
            p.ping_ms = Some(ping_ms);
        }
        fits
    }),
    ("hello", "1 or 0", |p, v, _| match v {
        "1" | "true" | "" => {
            p.hello = true;
            true
        }
        "0" | "false" => {
            p.hello = false;
            true
        }
        _ => false,
    }),
    ("deflate", "on, off or a level from 1 to 9 (from a URL only off)", |p, v, s| {
        // A URL may disable compression; only the operator may spend more CPU on it.
        let fits = |wanted: &Compression| {
            *wanted == Compression::Off || (deflate::BUILT && s == Source::Trusted)
        };
        p.deflate = Compression::parse(v).filter(fits);
        p.deflate.is_some()
    }),
    ("subprotocol", "a list of names, such as chat,v2", |p, v, _| {
        p.subprotocols = v.split(',').map(|name| name.trim().to_owned()).collect();
        p.subprotocols.iter().all(|name| crate::proto::http::is_token(name.as_bytes()))
    }),
    (
        "work",
        "a duration up to 24h, such as 100ms (only from --mount, or with --faults)",
        |p, v, s| duration(v, |_| s == Source::Trusted, &mut p.work_ms),
    ),
    ("block", "a duration up to 60s, such as 100ms (only with --faults)", |p, v, s| {
        duration(v, |ms| s == Source::Trusted && ms <= BLOCK_MS_MAX, &mut p.block_ms)
    }),
    (
        "close_after",
        "a duration up to 24h, such as 45s (only from --mount, or with --faults)",
        |p, v, s| duration(v, |_| s == Source::Trusted, &mut p.close_after_ms),
    ),
    ("code", "a close code that a server may send (only with --faults)", |p, v, s| {
        let code = v.parse().ok().filter(|&code| s == Source::Trusted && may_be_sent(code));
        code.map(|code| p.close_code = Some(code)).is_some()
    }),
    ("reason", "at most 123 bytes of text (only with --faults)", |p, v, s| {
        let fits = s == Source::Trusted && v.len() <= REASON_BYTES_MAX;
        if fits {
            v.clone_into(&mut p.close_reason);
        }
        fits
    }),
    (
        "fault",
        "rst, no-pong, status-503, stall-read or fragment (only with --faults)",
        |p, v, s| {
            let fault = WIRE_FAULTS.iter().find(|(name, _)| *name == v && s == Source::Trusted);
            fault.map(|(_, fault)| p.fault = Some(*fault)).is_some()
        },
    ),
    ("token-file", "the path of a file (only from --mount)", |p, v, s| {
        v.clone_into(&mut p.token_file);
        s == Source::Trusted && !v.is_empty()
    }),
];

impl Params {
    /// The first parameter that requires `--faults`.
    #[must_use]
    pub fn needs_faults(&self) -> Option<&'static str> {
        if self.block_ms > 0 {
            return Some("block");
        }
        self.fault.map(|_| "fault")
    }
}

fn duration(value: &str, fits: impl Fn(u64) -> bool, into: &mut u64) -> bool {
    let duration_ms = units::duration_ms(value).filter(|&ms| ms <= TIME_MS_MAX && fits(ms));
    duration_ms.map(|ms| *into = ms).is_some()
}

impl Params {
    /// Applies `a=1&b=2` on top of the current values; stops at the first invalid one.
    pub fn take(
        &mut self,
        query: &str,
        source: Source,
        own: &'static [OwnParam],
    ) -> Result<(), BadParam> {
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || crate::proto::http::percent_decoded(value);
            if let Some(&(name, want, set)) = PARAMS.iter().find(|row| row.0 == name) {
                let taken = value().is_some_and(|value| set(self, &value, source));
                if !taken {
                    return Err(BadParam { name, want });
                }
            } else if let Some(row) = own.iter().find(|row| row.name == name) {
                let value = value().filter(|value| (row.accepts)(value));
                let value = value.ok_or(BadParam { name: row.name, want: row.want })?;
                self.take_own(row, &value);
            }
        }
        Ok(())
    }

    fn take_own(&mut self, row: &OwnParam, value: &str) {
        match self.own.iter_mut().find(|(name, _)| *name == row.name) {
            Some((_, known)) if row.is_fixed && !known.is_empty() => {}
            Some((_, known)) => value.clone_into(known),
            None => self.own.push((row.name, value.to_owned())),
        }
    }

    /// A parameter of the behaviour itself; empty if not given.
    #[must_use]
    pub fn own(&self, name: &str) -> &str {
        self.own.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// The first unknown name, and the known ones. In a flag it is a typo; in a URL it may be meant
    /// for another program.
    #[must_use]
    pub fn unknown<'q>(
        query: &'q str,
        own: &'static [OwnParam],
    ) -> Option<(&'q str, Vec<&'static str>)> {
        let names = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default());
        let known: Vec<&'static str> =
            PARAMS.iter().map(|row| row.0).chain(own.iter().map(|row| row.name)).collect();
        let unknown = names.into_iter().find(|name| !name.is_empty() && !known.contains(name))?;
        Some((unknown, known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(query: &str, source: Source) -> Result<Params, BadParam> {
        let mut params = Params::default();
        params.take(query, source, &[]).map(|()| params)
    }

    #[test]
    fn known_names_are_taken_and_others_ignored() {
        let params = take("delay=100ms&token=x&every=5s&size=1KiB&hello=1", Source::Url).unwrap();
        assert_eq!((params.delay_ms, params.every_ms, params.size), (100, 5_000, 1024));
        assert!(params.hello);
    }

    #[test]
    fn bounds_hold_for_urls_only() {
        for query in [
            "delay=11s",
            "randping=99ms",
            "every=1ms",
            "size=65KiB",
            "ping=0",
            "work=100ms",
            "block=100ms",
            "close_after=45s",
            "code=1012",
            "reason=bye",
            "fault=rst",
        ] {
            assert!(take(query, Source::Url).is_err(), "{query}");
            assert!(take(query, Source::Trusted).is_ok(), "{query}");
        }
    }

    #[test]
    fn durations_are_at_most_a_day() {
        for name in ["delay", "randping", "every", "ping", "work", "close_after"] {
            assert!(take(&format!("{name}=24h"), Source::Trusted).is_ok(), "{name}");
            for long in ["86400001ms", "25h", "10000h", "5000000000000h"] {
                let bad = take(&format!("{name}={long}"), Source::Trusted).unwrap_err();
                assert!(bad.name == name && bad.want.contains("24h"), "{bad}");
            }
        }
    }

    #[test]
    fn a_url_may_only_disable_compression() {
        let off = take("deflate=off", Source::Url).unwrap();
        assert_eq!(off.deflate, Some(Compression::Off));
        assert!(take("deflate=9", Source::Url).is_err());
        assert_eq!(take("deflate=9", Source::Trusted).is_ok(), deflate::BUILT);
    }

    #[test]
    fn bad_values_name_the_parameter() {
        for query in [
            "delay=soon",
            "size=",
            "hello=maybe",
            "ping=%zz",
            "subprotocol=a b",
            "block=61s",
            "code=1006",
            "fault=fire",
            "deflate=10",
        ] {
            let bad = take(query, Source::Trusted).unwrap_err();
            assert!(query.starts_with(bad.name), "{query}");
        }
    }
}
