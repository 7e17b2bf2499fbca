//! Upgrade requests built from fields: an independent parser finds a key of 16 bytes and version 13
//! in accepted ones, and not in those refused for their key or version.

use wspulse::proto::deflate::{self, Terms};
use wspulse::proto::handshake::{self, Origin};
use wspulse::proto::http::{self, Fields, Request};
use wspulse::proto::refusal::Refusal;

use super::{extensions, input};

const INPUT_MAX: usize = 2 * 1024;
/// The longest head.
const HEAD_MAX: usize = 8 * 1024;

/// Lines of a valid request. Each low bit of the input's first byte omits one.
const FLAWLESS: [&str; 6] = [
    "GET /echo HTTP/1.1",
    "Host: example.test:8080",
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

/// See the module's head. The input's further lines, separated by LF, follow these.
pub fn handshake(data: &[u8]) {
    let (&left_out, lines) = data.split_first().unwrap_or((&0, &[]));
    let lines = input::expanded(&lines[..lines.len().min(INPUT_MAX)], HEAD_MAX);
    let mut head = Vec::with_capacity(HEAD_MAX);
    for (bit, line) in FLAWLESS.iter().enumerate() {
        if left_out & (1 << bit) == 0 {
            head.extend_from_slice(line.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        head.extend_from_slice(line);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let mut fields = Fields::default();
    match http::parse(&head, &mut fields) {
        Ok(request) => check(&request),
        Err(refusal) => assert!((400..=505).contains(&refusal.status()), "{refusal:?}"),
    }
}

fn check(request: &Request<'_, '_>) {
    let version_is_13 = only(request, "sec-websocket-version") == Some(b"13");
    let key = only(request, "sec-websocket-key").and_then(decoded);
    let key_is_fine = key.is_some_and(|key| key.len() == 16);
    match handshake::check(request) {
        Ok(offer) => {
            assert!(version_is_13, "another version is accepted");
            assert!(key_is_fine, "an invalid key is accepted");
            assert_eq!((request.method_text, request.minor), ("GET", 1));
            assert!(
                names(request, "upgrade", "websocket") && names(request, "connection", "upgrade")
            );
            assert_eq!(decoded(&offer.accept).map(|digest| digest.len()), Some(20));
            check_subprotocols(request, &offer.subprotocols);
            check_extensions(request, offer.deflate);
        }
        Err(Refusal::UpgradeVersion) => assert!(!version_is_13, "version 13 is refused"),
        Err(Refusal::KeyInvalid) => assert!(!key_is_fine, "a valid key is refused"),
        Err(Refusal::OriginForeign | Refusal::OriginTwice) => {
            panic!("the origin is not checked yet")
        }
        Err(refusal) => assert!((400..=505).contains(&refusal.status()), "{refusal:?}"),
    }
    match handshake::origin(request) {
        Ok(Origin::Absent) => assert_eq!(request.values("origin").count(), 0),
        Ok(Origin::Same) => check_same(request),
        Ok(Origin::Foreign(origin)) => {
            assert_eq!(only(request, "origin"), Some(origin.as_bytes()));
        }
        Err(refusal) => assert!(matches!(refusal.status(), 400 | 403), "{refusal:?}"),
    }
}

/// The value of a field that occurs once.
fn only<'b>(request: &Request<'_, 'b>, name: &str) -> Option<&'b [u8]> {
    let mut all = request.fields().filter(|(field, _)| field.eq_ignore_ascii_case(name));
    let (_, value) = all.next()?;
    all.next().is_none().then_some(value)
}

fn names(request: &Request<'_, '_>, field: &str, token: &str) -> bool {
    request.fields().filter(|(name, _)| name.eq_ignore_ascii_case(field)).any(|(_, list)| {
        let list = list.to_ascii_lowercase();
        list.split(|&byte| byte == b',').any(|item| item.trim_ascii() == token.as_bytes())
    })
}

/// Decodes padded base64.
fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for digit in &text[..text.len() - padding] {
        let value = DIGITS.iter().position(|known| known == digit)?;
        bits = (bits << 6 | u32::try_from(value).ok()?) & 0xffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    // Unused bits must be 0, or one key would have several encodings.
    (bits & ((1 << count) - 1) == 0).then_some(bytes)
}

fn check_subprotocols(request: &Request<'_, '_>, chosen_from: &[&str]) {
    let mut offered: Vec<&[u8]> = Vec::new();
    for (_, list) in
        request.fields().filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-protocol"))
    {
        let items = list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
        offered.extend(items.filter(|item| !item.is_empty()));
    }
    assert!(chosen_from.iter().map(|name| name.as_bytes()).eq(offered.iter().copied()));
    offered.sort_unstable();
    assert!(offered.windows(2).all(|pair| pair[0] != pair[1]), "a duplicate name is accepted");
    assert!(offered.iter().all(|name| http::is_token(name)));
}

fn check_extensions(request: &Request<'_, '_>, terms: Option<Terms>) {
    let fields = request.fields();
    let fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-extensions"));
    let wanted = extensions::first(fields.map(|(_, value)| value));
    let agreed = terms.map(|terms| (terms.server_bits, terms.client_bits));
    assert_eq!(agreed, wanted.filter(|_| deflate::BUILT), "another offer is accepted");
}

/// Same origin: the name in `Origin` equals that of a host field.
fn check_same(request: &Request<'_, '_>) {
    let origin = only(request, "origin").expect("there is one");
    let origin = std::str::from_utf8(origin).expect("it is text").to_ascii_lowercase();
    let (scheme, host) = origin.split_once("://").expect("it has a scheme");
    if scheme.ends_with("-extension") {
        return;
    }
    assert!(
        !host.contains(['/', '?', '#', '@', '\\', ' ', ',']),
        "accepted as the same, not a host: {host}"
    );
    let hosts = ["host", "x-forwarded-host"].iter().filter_map(|name| only(request, name));
    let known = hosts.filter_map(|host| std::str::from_utf8(host).ok()).any(|known| {
        let known = known.to_ascii_lowercase();
        let known = known.split(',').next().unwrap_or_default().trim();
        name_of(known) == name_of(host)
    });
    assert!(known, "{origin} is taken for the same host");
}

/// A host without its port and trailing dot.
fn name_of(host: &str) -> &str {
    let name = match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    name.trim_end_matches('.')
}
