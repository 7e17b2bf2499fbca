//! Parses a complete request head into a [`Request`] that is safe to act upon. It is strict where
//! leniency has enabled attacks. `intake` collects the head.

use std::borrow::Cow;

pub use super::headers::Fields;
use super::headers::Headers;
pub use super::path::{Slashes, decoded_path, percent_decoded};
use super::path::{decode_unreserved, split_target};
use super::refusal::Refusal;
use super::words::{has_above, has_below};

/// Known methods. One that a path does not serve gets 405, an unknown one 501.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `PUT`, `PATCH`, `CONNECT`, `TRACE`: no path serves them.
    Unserved,
}

impl Method {
    /// The method as text; unserved ones share a name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Unserved => "other",
        }
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            "GET" => Ok(Self::Get),
            "HEAD" => Ok(Self::Head),
            "POST" => Ok(Self::Post),
            "DELETE" => Ok(Self::Delete),
            "OPTIONS" => Ok(Self::Options),
            "PUT" | "PATCH" | "CONNECT" | "TRACE" => Ok(Self::Unserved),
            _ => Err(Refusal::MethodUnknown),
        }
    }
}

/// How the end of the body is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After this many bytes, perhaps none.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// Whether further requests may follow on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The connection stays open.
    KeepAlive,
    /// This request is the last.
    Close,
}

/// The outcome of the `Upgrade` and `Connection` fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// No `Upgrade` field.
    No,
    /// Another protocol; the connection closes after the response.
    Other,
    /// `websocket`, and `Connection` has the token `upgrade`.
    WebSocket,
    /// `websocket`, but `Connection` lacks the token, since a proxy removed it.
    Unconnected,
}

/// A well-formed request.
#[derive(Debug)]
pub struct Request<'h, 'b> {
    /// The parsed method.
    pub method: Method,
    /// The method as it was sent.
    pub method_text: &'b str,
    /// The target as it was sent.
    pub target: &'b str,
    /// The target's path with unreserved `%XX` decoded.
    pub path: Cow<'b, str>,
    /// The same without any decoding.
    pub raw_path: &'b str,
    /// The target's query, without its `?`.
    pub query: &'b str,
    /// The `Host` field; empty if a client of HTTP/1.0 sent none.
    pub host: &'b str,
    /// Minor HTTP version: 0 or 1.
    pub minor: u8,
    /// How the end of the body is determined.
    pub framing: Framing,
    /// Whether the connection stays open.
    pub persistence: Persistence,
    /// Whether it asks for another protocol.
    pub upgrade: Upgrade,
    /// Whether it expects `100 Continue`.
    pub expects_continue: bool,
    headers: Headers<'h, 'b>,
}

impl<'h, 'b> Request<'h, 'b> {
    /// All header fields in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'b str, &'b [u8])> + use<'_, 'h, 'b> {
        self.headers.iter()
    }

    /// The values of all fields with this name, which is case-insensitive.
    pub fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'b [u8]> + use<'s, 'h, 'b> {
        self.headers.values(name)
    }

    /// The value of a field that occurs exactly once and is visible ASCII.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'b str> {
        let mut values = self.values(name);
        let value = values.next()?;
        if values.next().is_some() {
            return None;
        }
        visible_ascii(value)
    }
}

/// Parses a complete head, including its blank line.
pub fn parse<'h, 'b>(
    head: &'b [u8],
    fields: &'h mut Fields<'b>,
) -> Result<Request<'h, 'b>, Refusal> {
    parse_with(head, fields, Slashes::Refused)
}

/// The same with a choice of how several leading slashes are treated.
pub fn parse_with<'h, 'b>(
    head: &'b [u8],
    fields: &'h mut Fields<'b>,
    slashes: Slashes,
) -> Result<Request<'h, 'b>, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, fields.space()) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::FieldInvalid),
        Err(error) => return Err(refusal(error)),
    }
    // All three are there once the parse is complete.
    let (Some(method_text), Some(target), Some(minor)) =
        (parsed.method, parsed.path, parsed.version)
    else {
        return Err(Refusal::NotHttp);
    };
    let headers = Headers::new(parsed.headers);
    let method = Method::parse(method_text)?;
    let host = host(headers, minor)?;
    let framing = framing(headers, minor)?;
    let (path, query) = split_target(target, host, method_text, slashes)?;
    let connection = Connection::read(headers);
    let upgrade = upgrade(headers, connection);
    Ok(Request {
        method,
        method_text,
        target,
        path: decode_unreserved(path),
        raw_path: path,
        query,
        host,
        minor,
        framing,
        persistence: persistence(connection, minor, upgrade, method_text),
        upgrade,
        expects_continue: expects_continue(headers)?,
        headers,
    })
}

fn refusal(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status => Refusal::FieldInvalid,
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::Version => Refusal::Version,
        httparse::Error::Token => Refusal::NotHttp,
    }
}

/// RFC 9112 §3.2: exactly one `Host` in HTTP/1.1. If there are two, even equal ones, a proxy may
/// have used the other one.
fn host<'b>(headers: Headers<'_, 'b>, minor: u8) -> Result<&'b str, Refusal> {
    let mut hosts = headers.values("host");
    let Some(host) = hosts.next() else {
        return if minor == 0 { Ok("") } else { Err(Refusal::HostMissing) };
    };
    if hosts.next().is_some() {
        return Err(Refusal::HostTwice);
    }
    let host = visible_ascii(host).ok_or(Refusal::HostInvalid)?;
    if is_host(host) { Ok(host) } else { Err(Refusal::HostInvalid) }
}

/// Accepts `host`, `host:port`, `[v6]:port` or nothing; no user, no path, no list.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<core::net::Ipv6Addr>().is_ok() => ("", port),
            _ => return false,
        },
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_is_fine = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()));
    port_is_fine && name.bytes().all(|byte| IS_HOST[usize::from(byte)])
}

/// Which bytes a host name may have.
const IS_HOST: [bool; 256] = with_alphanumerics(b"-._~%!$&'()*+;=");

/// RFC 9112 §6: one plain number, or exactly `chunked`; never both.
fn framing(headers: Headers<'_, '_>, minor: u8) -> Result<Framing, Refusal> {
    let mut lengths = headers.values("content-length");
    let mut encodings = headers.values("transfer-encoding");
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(_), Some(_)) => Err(Refusal::LengthAmbiguous),
        (Some(length), None) => {
            if lengths.next().is_some() {
                return Err(Refusal::LengthAmbiguous);
            }
            decimal(length).map(Framing::Length)
        }
        (None, Some(encoding)) => {
            let fine = minor == 1 && encodings.next().is_none();
            if fine && encoding.eq_ignore_ascii_case(b"chunked") {
                Ok(Framing::Chunked)
            } else {
                Err(Refusal::EncodingInvalid)
            }
        }
    }
}

/// Parses digits only: no sign, no list, no white space.
pub(super) fn decimal(text: &[u8]) -> Result<u64, Refusal> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::LengthInvalid);
    }
    text.iter()
        .try_fold(0_u64, |sum, digit| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .ok_or(Refusal::BodyTooLarge)
}

/// The tokens of `Connection` that matter here.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
}

impl Connection {
    fn read(headers: Headers<'_, '_>) -> Self {
        let mut connection = Self::default();
        for token in headers.values("connection").flat_map(list_items) {
            connection.close |= token.eq_ignore_ascii_case(b"close");
            connection.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            connection.upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
        connection
    }
}

fn persistence(connection: Connection, minor: u8, upgrade: Upgrade, method: &str) -> Persistence {
    // The bytes after a refused tunnel or upgrade may belong to another protocol.
    let tunnel = method == "CONNECT" || upgrade != Upgrade::No;
    if connection.close || tunnel || (minor == 0 && !connection.keep_alive) {
        Persistence::Close
    } else {
        Persistence::KeepAlive
    }
}

fn upgrade(headers: Headers<'_, '_>, connection: Connection) -> Upgrade {
    let mut any = false;
    let mut websocket = false;
    for list in headers.values("upgrade") {
        any = true;
        websocket |= has_token(list, "websocket");
    }
    match (any, websocket) {
        (false, _) => Upgrade::No,
        (true, false) => Upgrade::Other,
        (true, true) if connection.upgrade => Upgrade::WebSocket,
        (true, true) => Upgrade::Unconnected,
    }
}

fn expects_continue(headers: Headers<'_, '_>) -> Result<bool, Refusal> {
    let mut expects = false;
    for value in headers.values("expect") {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::Expectation);
        }
        expects = true;
    }
    Ok(expects)
}

/// The items of a comma-separated list, trimmed and without empty ones (RFC 9110 §5.6.1).
pub fn list_items(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

pub(super) fn has_token(list: &[u8], token: &str) -> bool {
    list_items(list).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether this is a token (RFC 9110 §5.6.2): the name of a field, a method, a subprotocol.
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| IS_TOKEN[usize::from(byte)])
}

/// Which bytes a token may have.
const IS_TOKEN: [bool; 256] = with_alphanumerics(b"!#$%&'*+-.^_`|~");

/// A table of letters, digits and these bytes.
const fn with_alphanumerics(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// Whether a field value may contain this byte (RFC 9110 §5.5).
pub(super) fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A field value as text, if it has only visible ASCII, spaces and tabs.
#[must_use]
pub fn visible_ascii(value: &[u8]) -> Option<&str> {
    let is_visible = |&b: &u8| b == b'\t' || (b' '..=b'~').contains(&b);
    let are_visible = |word: &[u8; 8]| {
        let bytes = u64::from_le_bytes(*word);
        !has_below(bytes, b' ') && !has_above(bytes, b'~') || word.iter().all(is_visible)
    };
    let (words, rest) = value.as_chunks();
    let visible = words.iter().all(are_visible) && rest.iter().all(is_visible);
    visible.then(|| std::str::from_utf8(value).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(target: &str) -> Result<String, Refusal> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: h:1\r\n\r\n");
        parse(head.as_bytes(), &mut Fields::default()).map(|r| r.path.into_owned())
    }

    #[test]
    fn targets() {
        for (target, path) in [
            ("/", "/"),
            ("/a/b?c=/d", "/a/b"),
            ("/%68ealthz", "/healthz"),
            ("/%2e%2e/healthz", "/../healthz"),
            ("/a%2fb%00%zz%", "/a%2fb%00%zz%"),
            ("http://h:1/x?y", "/x"),
            ("WS://H:1", "/"),
        ] {
            assert_eq!(path_of(target).as_deref(), Ok(path), "{target}");
        }
        for target in ["//evil/ws", "/a\\b", "/a#b", "http://other/x", "ftp://h:1/", "x", "*", "/é"]
        {
            assert!(path_of(target).is_err(), "{target}");
        }
    }

    #[test]
    fn visible_values() {
        for at in 0..20 {
            for byte in 0..=255 {
                let mut value = [b'a'; 20];
                value[at] = byte;
                let want = byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
                assert_eq!(visible_ascii(&value).is_some(), want, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn hosts() {
        for host in ["", "h", "h:80", "a.b-c_d:1", "127.0.0.1:8080", "[::1]:8080", "[::1]", "h:"] {
            assert!(is_host(host), "{host}");
        }
        for host in ["u@h", "h h", "h,i", "h/", "[::1", "[x]", "h:x", "h:1:2", "h:123456", "a]"] {
            assert!(!is_host(host), "{host}");
        }
    }
}
