//! Parameters of a mount, from `--mount PATH=BEHAVIOUR?PARAMS` or from the URL's query.
//! It knows names, units and bounds; it does not know what a parameter does.

use std::fmt;

use crate::units;

/// A gap for random pushes or ticks shorter than this is refused from a URL.
const PUSH_GAP_MS_MIN: u64 = 100;
/// A delay longer than this is refused from a URL.
const DELAY_MS_MAX: u64 = 10_000;
/// A padded push larger than this is refused from a URL.
const PUSH_SIZE_MAX: u64 = 64 * 1024;
/// A keepalive shorter than this is refused from a URL.
const PING_MS_MIN: u64 = 1_000;

/// What a mount or a URL asks of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// `delay`: each message is answered this long after its arrival.
    pub delay_ms: u64,
    /// `randping`: push `randping` at random gaps up to this; 0 pushes none.
    pub randping_ms: u64,
    /// `every`: push `tick <n>` at this gap; 0 pushes none.
    pub every_ms: u64,
    /// `size`: pad pushed payloads to this many bytes.
    pub size: usize,
    /// `ping`: keepalive gap of its own; 0 turns it off, none takes the server's.
    pub ping_ms: Option<u64>,
    /// `hello`: first say who serves.
    pub hello: bool,
    /// `subprotocol`: what this mount speaks.
    pub subprotocols: Vec<String>,
}

/// Who states a parameter, which decides what it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator, or anyone once `--faults` is given.
    Trusted,
    /// Anyone who can open a connection.
    Url,
}

/// A parameter that has a name we know and a value that we cannot use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadParam {
    /// The parameter's name.
    pub name: &'static str,
    /// What its value must be.
    pub want: &'static str,
}

impl fmt::Display for BadParam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter {}: must be {}", self.name, self.want)
    }
}

type Set = fn(&mut Params, &str, Source) -> bool;

/// One row a parameter: its name, what it must be, and how it is taken.
/// Names that are not here are ignored, since proxies add tokens of their own.
const PARAMS: &[(&str, &str, Set)] = &[
    ("delay", "a duration up to 10s, such as 100ms", |p, v, s| {
        duration(v, |ms| s == Source::Trusted || ms <= DELAY_MS_MAX, &mut p.delay_ms)
    }),
    ("randping", "a duration of at least 100ms, such as 3s", |p, v, s| {
        duration(v, |ms| s == Source::Trusted || ms >= PUSH_GAP_MS_MIN, &mut p.randping_ms)
    }),
    ("every", "a duration of at least 100ms, such as 5s", |p, v, s| {
        duration(v, |ms| s == Source::Trusted || ms >= PUSH_GAP_MS_MIN, &mut p.every_ms)
    }),
    ("size", "a size up to 64KiB, such as 1KiB", |p, v, s| {
        let size = units::size(v).filter(|&n| s == Source::Trusted || n <= PUSH_SIZE_MAX);
        size.and_then(|n| usize::try_from(n).ok()).map(|n| p.size = n).is_some()
    }),
    ("ping", "a duration of at least 1s, such as 20s (0 only from --mount)", |p, v, s| {
        let ping = units::duration_ms(v).filter(|&ms| s == Source::Trusted || ms >= PING_MS_MIN);
        ping.map(|ms| p.ping_ms = Some(ms)).is_some()
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
    ("subprotocol", "a list of names, such as chat,v2", |p, v, _| {
        p.subprotocols = v.split(',').map(|name| name.trim().to_owned()).collect();
        p.subprotocols.iter().all(|name| crate::proto::http::is_token(name.as_bytes()))
    }),
];

fn duration(value: &str, fits: impl Fn(u64) -> bool, into: &mut u64) -> bool {
    units::duration_ms(value).filter(|&ms| fits(ms)).map(|ms| *into = ms).is_some()
}

impl Params {
    /// Takes `a=1&b=2` on top of what is already set; the first bad value refuses the whole.
    pub fn take(&mut self, query: &str, source: Source) -> Result<(), BadParam> {
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(&(name, want, set)) = PARAMS.iter().find(|row| row.0 == name) else {
                continue;
            };
            let value = crate::proto::http::percent_decoded(value);
            let taken = value.is_some_and(|value| set(self, &value, source));
            if !taken {
                return Err(BadParam { name, want });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(query: &str, source: Source) -> Result<Params, BadParam> {
        let mut params = Params::default();
        params.take(query, source).map(|()| params)
    }

    #[test]
    fn known_names_are_taken_and_others_ignored() {
        let params = take("delay=100ms&token=x&every=5s&size=1KiB&hello=1", Source::Url).unwrap();
        assert_eq!((params.delay_ms, params.every_ms, params.size), (100, 5_000, 1024));
        assert!(params.hello);
    }

    #[test]
    fn bounds_hold_for_urls_only() {
        for query in ["delay=11s", "randping=99ms", "every=1ms", "size=65KiB", "ping=0"] {
            assert!(take(query, Source::Url).is_err(), "{query}");
            assert!(take(query, Source::Trusted).is_ok(), "{query}");
        }
    }

    #[test]
    fn bad_values_name_the_parameter() {
        for query in ["delay=soon", "size=", "hello=maybe", "ping=%zz", "subprotocol=a b"] {
            let bad = take(query, Source::Trusted).unwrap_err();
            assert!(query.starts_with(bad.name), "{query}");
        }
    }
}
