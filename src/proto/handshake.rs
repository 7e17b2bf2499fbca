//! The server side of the opening handshake (RFC 6455 §4.2): which requests become a WebSocket, and
//! the fields of the response. It does not know which paths exist.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use super::deflate;
use super::http::{self, Framing, Method, Request, Upgrade};
use super::refusal::Refusal;

/// RFC 6455 §1.3: appended to the key, so that no other server accepts by accident.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The value of `Sec-WebSocket-Accept`: 20 bytes in base64.
pub type Accept = [u8; 28];

/// A valid request to become a WebSocket.
#[derive(Debug)]
pub struct Offer<'b> {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: Accept,
    /// Subprotocols in the client's order of preference.
    pub subprotocols: Vec<&'b str>,
    /// The first acceptable offer of compression.
    pub deflate: Option<deflate::Terms>,
}

/// Checks everything that does not depend on the path, except the origin.
pub fn check<'b>(request: &Request<'_, 'b>) -> Result<Offer<'b>, Refusal> {
    if request.method != Method::Get {
        return Err(Refusal::MethodNotAllowed);
    }
    if request.upgrade != Upgrade::WebSocket || request.minor != 1 {
        return Err(Refusal::UpgradeMissing);
    }
    if request.framing != Framing::Length(0) {
        return Err(Refusal::UpgradeBody);
    }
    if request.host.is_empty() {
        return Err(Refusal::HostMissing);
    }
    if request.value("sec-websocket-version") != Some("13") {
        return Err(Refusal::UpgradeVersion);
    }
    let accept = accept(request.value("sec-websocket-key").ok_or(Refusal::KeyInvalid)?)?;
    let mut offers = deflate::Offers::default();
    for value in request.values("sec-websocket-extensions") {
        read_extensions(value, &mut offers)?;
    }
    Ok(Offer { accept, subprotocols: subprotocols(request)?, deflate: offers.first() })
}

/// The value of `Sec-WebSocket-Accept` (RFC 6455 §4.2.2, 5.4).
pub(super) fn accept(key: &str) -> Result<Accept, Refusal> {
    if !is_key(key.as_bytes()) {
        return Err(Refusal::KeyInvalid);
    }
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; 28];
    match STANDARD.encode_slice(digest, &mut accept) {
        Ok(_) => Ok(accept),
        Err(_) => Err(Refusal::KeyInvalid),
    }
}

/// Whether this is the base64 of 16 bytes: 22 digits, the last of which has four zero bits, and
/// padding.
fn is_key(key: &[u8]) -> bool {
    let Some((digits, b"==")) = key.split_last_chunk() else { return false };
    digits.len() == 22
        && digits.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        && matches!(digits[21], b'A' | b'Q' | b'g' | b'w')
}

/// RFC 6455 §4.1 (10): tokens without duplicates.
fn subprotocols<'b>(request: &Request<'_, 'b>) -> Result<Vec<&'b str>, Refusal> {
    let mut offered = Vec::new();
    for value in request.values("sec-websocket-protocol") {
        for item in http::list_items(value) {
            let name = http::visible_ascii(item).filter(|name| http::is_token(name.as_bytes()));
            offered.push(name.ok_or(Refusal::SubprotocolInvalid)?);
        }
    }
    // Sorted, since comparing each with each would take milliseconds for 4 000 names.
    let mut sorted = offered.clone();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Refusal::SubprotocolInvalid);
    }
    Ok(offered)
}

/// Parses `name; parameter; parameter=value, name …` (RFC 6455 §9.1) in one pass without
/// backtracking. A malformed list is rejected, since the peer is broken.
fn read_extensions(value: &[u8], offers: &mut deflate::Offers) -> Result<(), Refusal> {
    let bad = Refusal::ExtensionInvalid;
    let text = http::visible_ascii(value).ok_or(bad)?;
    // An unclosed quote makes all offers unacceptable, but is no error.
    for (at, part) in split_unquoted(text).unwrap_or_default() {
        let (name, setting) = match part.split_once('=') {
            Some((name, setting)) if at == b';' => (name, Some(setting.trim())),
            _ => (part, None),
        };
        let quoted = |s: &str| s.len() > 1 && s.starts_with('"') && s.ends_with('"');
        let fine = http::is_token(name.trim().as_bytes())
            && setting.is_none_or(|s| http::is_token(s.as_bytes()) || quoted(s));
        let empty_item = part.trim().is_empty() && at == b',';
        if !fine && !empty_item {
            return Err(bad);
        }
        match at {
            b';' => offers.parameter(name.trim(), setting),
            _ => offers.offer(name.trim()),
        }
    }
    Ok(())
}

/// Splits at `,` and `;` outside quotes; each part comes with the separator before it.
/// `None` when a quote is not closed.
fn split_unquoted(text: &str) -> Option<Vec<(u8, &str)>> {
    let mut parts = Vec::new();
    let (mut start, mut before) = (0, b',');
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' | b';' if !quoted => {
                parts.push((before, &text[start..at]));
                (start, before) = (at + 1, byte);
            }
            _ => {}
        }
    }
    parts.push((before, &text[start..]));
    (!quoted).then_some(parts)
}

/// The `Origin` of a request, compared with its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'b> {
    /// No `Origin`: the client is not a browser.
    Absent,
    /// A page of the same host, or a browser extension.
    Same,
    /// A page of another host.
    Foreign(&'b str),
}

/// Compares `Origin` with the host that the browser connected to.
pub fn origin<'b>(request: &Request<'_, 'b>) -> Result<Origin<'b>, Refusal> {
    let mut origins = request.values("origin");
    let Some(origin) = origins.next() else { return Ok(Origin::Absent) };
    if origins.next().is_some() {
        return Err(Refusal::OriginTwice);
    }
    let origin = http::visible_ascii(origin).ok_or(Refusal::OriginForeign)?;
    let forwarded = request.value("x-forwarded-host");
    let mut hosts = [request.host].into_iter().chain(forwarded.and_then(|f| f.split(',').next()));
    let same = match origin.split_once("://") {
        Some((scheme, _)) if scheme.ends_with("-extension") => true,
        Some((_, host)) if !host.is_empty() && http::is_host(host) => {
            hosts.any(|wanted| same_host(host, wanted.trim()))
        }
        _ => false,
    };
    Ok(if same { Origin::Same } else { Origin::Foreign(origin) })
}

/// Compares case-insensitively; a host without a port matches any port, since proxies drop ports.
fn same_host(a: &str, b: &str) -> bool {
    let (name_a, port_a) = split_port(a);
    let (name_b, port_b) = split_port(b);
    let same_name = name_a.trim_end_matches('.').eq_ignore_ascii_case(name_b.trim_end_matches('.'));
    same_name && !name_a.is_empty() && (port_a.is_empty() || port_b.is_empty() || port_a == port_b)
}

/// Splits a `Host` into name and port, which is empty if missing.
#[must_use]
pub fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        // The last colon of `[::1]` is inside the brackets.
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::Fields;

    #[test]
    fn the_example_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ==").unwrap(), *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for key in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZR==",
            "AAAA",
            "dGhlIHNhbXBsZSBub25jZQ== ",
        ] {
            assert_eq!(accept(key), Err(Refusal::KeyInvalid), "{key}");
        }
    }

    #[test]
    fn keys_are_the_base64_of_16_bytes() {
        let mut rng = crate::rng::Rng::new(1);
        for _ in 0..50_000 {
            let bytes: Vec<u8> = (0..15 + rng.below(3)).map(|_| rng.below(256) as u8).collect();
            let mut key = STANDARD.encode(bytes).into_bytes();
            for _ in 0..rng.below(3) {
                let at = rng.below(key.len() as u64) as usize;
                key[at] = b"Aw+/=_-.B "[rng.below(10) as usize];
            }
            let is_valid = STANDARD.decode(&key).is_ok_and(|nonce| nonce.len() == 16);
            assert_eq!(is_key(&key), is_valid, "{}", String::from_utf8_lossy(&key));
        }
    }

    #[test]
    fn origins() {
        let verdict = |origin: &str, host: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\r\n");
            let mut fields = Fields::default();
            let request = http::parse(head.as_bytes(), &mut fields).unwrap();
            super::origin(&request).unwrap() == Origin::Same
        };
        for (origin, host) in [
            ("http://h", "h"),
            ("http://h:80", "h"),
            ("https://H:443", "h:443"),
            ("http://h", "h:8080"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("http://[::1]", "[::1]:8080"),
            ("http://h.", "h"),
            ("chrome-extension://abc", "h"),
            ("moz-extension://a-b", "h"),
        ] {
            assert!(verdict(origin, host), "{origin} {host}");
        }
        for (origin, host) in [
            ("null", "h"),
            ("http://evil", "h"),
            ("http://h:81", "h:80"),
            ("http://h@evil", "h"),
            ("http://h/", "h"),
            ("http://h.evil", "h"),
            ("http://evilh", "h"),
            ("h", "h"),
            ("http://", "h"),
            ("http://[::2]", "[::1]"),
            ("", "h"),
            ("http://evil?h", "h"),
        ] {
            assert!(!verdict(origin, host), "{origin} {host}");
        }
    }

    #[test]
    fn extension_lists() {
        let read = |list: &str| read_extensions(list.as_bytes(), &mut deflate::Offers::default());
        for fine in [
            "permessage-deflate; client_max_window_bits",
            "a; b=\"x, y; z\", c",
            "a,,b",
            "__proto__",
            "permessage-deflate; server_max_window_bits=99",
            "a; b = c",
        ] {
            assert_eq!(read(fine), Ok(()), "{fine}");
        }
        for bad in ["a b", "a;", "=", "a; b=", "a; =c", "a; b=c d", "\"a\"", "a;;b"] {
            assert_eq!(read(bad), Err(Refusal::ExtensionInvalid), "{bad}");
        }
    }
}
