//! Parsers of values: addresses, origins, prefixes, close codes, times and sizes.
//! The error is a clause that says what the value must be.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;
use std::borrow::Cow;
use std::path::PathBuf;

use crate::listen::Listen;
use crate::proto::deflate::{self, Compression};
use crate::proto::forwarded::Range;
use crate::proto::frame::REASON_BYTES_MAX;
use crate::proto::url::split_port;
use crate::units;

/// The longest time: sums of such times cannot overflow.
const TIME_MS_MAX: u64 = 24 * 3_600_000;
/// Less has no room for one message of the default `--max-message`.
const MEMORY_MIN: u64 = 8 * 1024 * 1024;
/// The size of `sun_path`, without the terminating NUL.
const SOCKET_PATH_MAX: usize = 107;
/// Close codes that a server may send (RFC 6455 §7.4, and those registered since).
const CLOSE_CODES: [RangeInclusive<u16>; 3] = [1000..=1003, 1007..=1014, 3000..=4999];

/// Most ranges of trusted proxies.
const RANGES_MAX: usize = 64;

type Read<T> = Result<T, Cow<'static, str>>;

/// An address to listen on: `ADDR:PORT`, a port of the default address, or `unix:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    Full(SocketAddr),
    Port(u16),
    Unix(String),
}

impl Address {
    /// Where to listen; `of_port` is the address that a bare port means.
    pub(crate) fn listen(self, of_port: impl FnOnce(u16) -> Listen) -> Listen {
        match self {
            Self::Full(at) => Listen::At(at),
            Self::Port(port) => of_port(port),
            Self::Unix(path) => Listen::Unix(path.into()),
        }
    }
}

/// A bare port of the main listener is that of all addresses.
pub(crate) fn every_address(port: u16) -> Listen {
    Listen::Default { port }
}

pub(crate) fn address(text: &str) -> Read<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        return socket_path(path).map(|path| Address::Unix(path.to_owned()));
    }
    if let Ok(full) = text.parse() {
        return Ok(Address::Full(full));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err("needs brackets and a port, such as [::1]:8080".into());
    }
    let (host, port) = match text.rsplit_once(':') {
        Some(pair) => pair,
        None if text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('.') => ("", text),
        None => {
            return Err(
                "must be an address and a port, such as 127.0.0.1:8080, [::]:8080 or :8080, or a \
                 Unix socket, such as unix:/run/x.sock"
                    .into(),
            );
        }
    };
    let port = self::port(port)?;
    match host {
        "" => Ok(Address::Port(port)),
        "localhost" => Ok(Address::Full(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))),
        _ => Err("must be an IP address or localhost and a port: other names are not resolved, \
                  since they may have several addresses"
            .into()),
    }
}

pub(crate) fn socket_path(path: &str) -> Read<&str> {
    match path.len() {
        0 => Err("must have a path, such as unix:/run/x.sock".into()),
        // Other programs read a leading @ as the abstract namespace: a name without a file.
        _ if path.starts_with('@') => Err("must have a path that does not begin with @".into()),
        1..=SOCKET_PATH_MAX if !path.contains('\0') => Ok(path),
        _ => Err(format!("must have a path of at most {SOCKET_PATH_MAX} bytes").into()),
    }
}

pub(crate) fn port(text: &str) -> Read<u16> {
    let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    number.ok_or_else(|| "must have a port from 0 to 65535".into())
}

/// The value of a switch's variable.
pub(crate) fn switch(text: &str) -> Read<bool> {
    match text {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        _ => Err("must be 1, 0, true or false".into()),
    }
}

pub(crate) fn word<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Read<T> {
    let found = words.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let (last, rest) = names.split_last().expect("a choice has words");
        format!("must be {} or {last}", rest.join(", ")).into()
    })
}

/// A time of at least 1 ms, for settings where 0 makes no sense.
pub(crate) fn time(text: &str) -> Read<u64> {
    match time_or_zero(text)? {
        0 => Err("must be longer than 0".into()),
        ms => Ok(ms),
    }
}

pub(crate) fn time_or_zero(text: &str) -> Read<u64> {
    match units::duration_ms(text) {
        Some(ms) if ms <= TIME_MS_MAX => Ok(ms),
        Some(_) => Err("must be at most 24h".into()),
        None => Err("must be a time such as 250ms, 10s or 2h".into()),
    }
}

/// A time that is kept in nanoseconds.
pub(crate) fn span_or_zero(text: &str) -> Read<u64> {
    match units::duration_ns(text) {
        Some(ns) if ns <= TIME_MS_MAX * 1_000_000 => Ok(ns),
        Some(_) => Err("must be at most 24h".into()),
        None => Err("must be a time such as 500us, 1.5ms or 10s".into()),
    }
}

/// A message's size: at least that of a control frame; above 1 GiB it is a typing error.
pub(crate) fn message_size(text: &str) -> Read<usize> {
    let size = units::size(text).ok_or("must be a size such as 64KiB or 1MiB")?;
    match usize::try_from(size) {
        Ok(size) if (125..=1 << 30).contains(&size) => Ok(size),
        _ => Err("must be from 125B to 1GiB".into()),
    }
}

pub(crate) fn compression(text: &str) -> Read<Compression> {
    match Compression::parse(text) {
        Some(Compression::On(_)) if !deflate::BUILT => {
            Err("must be off: this build has no compression".into())
        }
        Some(compression) => Ok(compression),
        None => Err("must be on, off or a level from 1 to 9".into()),
    }
}

pub(crate) fn tls_file(text: &str) -> Read<Option<PathBuf>> {
    match text {
        _ if cfg!(not(feature = "tls")) => Err("cannot be used: this build has no TLS".into()),
        "" => Err("must be a file".into()),
        path => Ok(Some(path.into())),
    }
}

/// A number of connections; `auto` is 0.
pub(crate) fn connections(text: &str) -> Read<usize> {
    if text == "auto" {
        return Ok(0);
    }
    let count = text.parse().ok().filter(|count| (1..=10_000_000).contains(count));
    count.ok_or_else(|| "must be auto or a number from 1 to 10000000".into())
}

/// A memory limit; `None` is `auto`, which the caller determines.
pub(crate) fn memory(text: &str) -> Read<Option<u64>> {
    if text == "auto" {
        return Ok(None);
    }
    match units::size(text) {
        Some(size) if size >= MEMORY_MIN => Ok(Some(size)),
        Some(_) => Err("must be at least 8MiB".into()),
        None => Err("must be auto or a size such as 64MiB".into()),
    }
}

pub(crate) fn count(text: &str, most: u64) -> Read<u64> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let count = text.parse().ok().filter(|count| digits && (1..=most).contains(count));
    count.ok_or_else(|| format!("must be a number from 1 to {most}").into())
}

/// `200/s`, `0.5/s` or the number alone; returns the nanoseconds between two events.
pub(crate) fn interval_ns(text: &str) -> Read<u64> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let rate = number.parse::<f64>().ok().filter(|rate| plain && (0.001..=1e6).contains(rate));
    #[expect(clippy::cast_sign_loss, reason = "it is at least 0.001")]
    let interval = rate.map(|rate| (1e9 / rate) as u64);
    interval.ok_or_else(|| "must be a rate from 0.001/s to 1000000/s".into())
}

pub(crate) fn percent(text: &str) -> Read<u64> {
    let number = text.strip_suffix('%').unwrap_or(text);
    let percent = number.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "must be from 0% to 100%".into())
}

pub(crate) fn close_code(text: &str) -> Read<u16> {
    let code = text.parse().ok().filter(|c| CLOSE_CODES.iter().any(|range| range.contains(c)));
    code.ok_or_else(|| {
        "must be a close code that a server may send: 1000 to 1003, 1007 to 1014 or 3000 to 4999"
            .into()
    })
}

pub(crate) fn close_reason(text: &str) -> Read<String> {
    match text.len() {
        0..=REASON_BYTES_MAX => Ok(text.to_owned()),
        n => Err(format!("must be at most {REASON_BYTES_MAX} bytes, and is {n}").into()),
    }
}

/// A path prefix without a trailing slash. Only unreserved characters (RFC 3986 §2.3) are allowed:
/// request paths are decoded before they are compared, the prefix is not.
pub(crate) fn base_path(text: &str) -> Read<String> {
    let path = text.trim_end_matches('/');
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let sound = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
    match path.strip_prefix('/') {
        None if path.is_empty() => Ok(String::new()),
        Some(rest) if rest.split('/').all(sound) => Ok(path.to_owned()),
        _ => Err("must begin with / and hold only letters, digits, - . _ ~ and single /".into()),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Same,
    Any,
    Listed(String),
}

pub(crate) fn origin(text: &str) -> Read<Origin> {
    match text {
        "same" => Ok(Origin::Same),
        "any" => Ok(Origin::Any),
        _ => listed_origin(&text.to_ascii_lowercase()).map(Origin::Listed),
    }
}

/// Browsers send an origin in lower case, without a path and without the scheme's default port
/// (RFC 6454 §6.2): any other form would never match.
fn listed_origin(text: &str) -> Read<String> {
    const WANT: &str = "must be same, any or scheme://host[:port], such as https://app.example";
    let (scheme, rest) = text.split_once("://").ok_or(WANT)?;
    if matches!(scheme, "ws" | "wss") {
        return Err("must be the page's scheme: http:// or https://, not ws:// or wss://".into());
    }
    if rest.contains(['/', '?', '#']) {
        return Err("must end after the host and port: an origin has no path".into());
    }
    let (name, port) = split_port(rest).map_err(|flaw| flaw.clause(WANT))?;
    let letters = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    if scheme.is_empty() || !scheme.bytes().all(letters) {
        return Err(WANT.into());
    }
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    Ok(match port {
        None | Some(80) if scheme == "http" => format!("{scheme}://{host}"),
        None | Some(443) if scheme == "https" => format!("{scheme}://{host}"),
        None => format!("{scheme}://{host}"),
        Some(port) => format!("{scheme}://{host}:{port}"),
    })
}

/// A host name without a port, as browsers send it in `Host`.
pub(crate) fn host_name(text: &str) -> Read<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if (1..=253).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("must be a name without a port, such as admin.example".into())
    }
}

/// Address ranges, separated by commas.
pub(crate) fn ranges(text: &str) -> Read<Vec<Range>> {
    let ranges: Option<Vec<Range>> =
        text.split(',').map(|part| Range::parse(part.trim())).collect();
    ranges.filter(|ranges| ranges.len() <= RANGES_MAX).ok_or_else(|| {
        format!("must be at most {RANGES_MAX} address ranges, such as 10.0.0.0/8,fd00::/8").into()
    })
}

/// Makes a name fit for a header field: characters other than visible ASCII become `-`.
pub(crate) fn name(text: &str) -> String {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { '-' };
    text.trim().chars().take(253).map(visible).collect()
}
