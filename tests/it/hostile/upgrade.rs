//! The upgrade: 101 only for a valid request, and nothing is read after a refusal.

use wspulse::engine::Signal;

use super::{Client, Row, check, each, end, row};
use crate::harness::Harness;
use crate::peer::{self, KEY};

#[test]
fn upgrades() {
    let mount = ["--mount", "/chat=echo?subprotocol=chat"];
    check(&rows(), &mount, false);
}

/// An upgrade of `/echo` in which these lines replace the default ones with the same name.
fn with(lines: &[u8]) -> Vec<u8> {
    request("GET /echo", lines)
}

fn request(line: &str, lines: &[u8]) -> Vec<u8> {
    let lower = lines.to_ascii_lowercase();
    let usual = [
        ("host", "Host: example.test".to_owned()),
        ("connection", "Connection: Upgrade".to_owned()),
        ("upgrade", "Upgrade: websocket".to_owned()),
        ("sec-websocket-version", "Sec-WebSocket-Version: 13".to_owned()),
        ("sec-websocket-key", format!("Sec-WebSocket-Key: {KEY}")),
    ];
    let mut head = format!("{line} HTTP/1.1\r\n").into_bytes();
    for (name, usual) in usual {
        let replaced = lower.split(|&b| b == b'\n').any(|line| {
            line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
        });
        if !replaced {
            head.extend_from_slice(usual.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
    }
    // A line of a name and `-` removes the field.
    for line in lines.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        if !line.ends_with(b":-") {
            head.extend_from_slice(line);
            head.extend_from_slice(b"\r\n");
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = requests();
    rows.extend(versions_and_keys());
    rows.extend(origins());
    rows.extend(offers());
    rows
}

fn requests() -> Vec<Row> {
    let plain = "GET /healthz HTTP/1.1\r\nHost: h\r\n";
    let body = |fields: &str, body: &str| [&with(fields.as_bytes())[..], body.as_bytes()].concat();
    let glued = [&with(b"")[..], &peer::text("glued"), &peer::frame(0x89, b"p")].concat();
    let mut rows = vec![
        row("POST", request("POST /echo", b""), "405c allow=\"GET\""),
        row("HEAD", request("HEAD /echo", b""), "405c"),
        row("no Connection, plain path", format!("{plain}Upgrade: websocket\r\n\r\n"), "200c"),
        row("no Upgrade, plain path", format!("{plain}Connection: Upgrade\r\n\r\n"), "200"),
        row("no Connection", with(b"Connection:-"), "426c upgrade=\"websocket\""),
        row("another Connection", with(b"Connection: keep-alive"), "426c upgrade=\"websocket\""),
        row("no Upgrade", with(b"Upgrade:-"), "426c upgrade=\"websocket\""),
        row("neither", with(b"Upgrade:-\nConnection:-"), "426c upgrade=\"websocket\""),
        row("as Firefox writes it", with(b"Connection: keep-alive, Upgrade"), "101"),
        row("any letter case", with(b"CONNECTION: uPGRADE\nuPGRADE: WebSOCKET"), "101"),
        row("in two fields", with(b"Connection: keep-alive\nConnection: upgrade"), "101"),
        row("a body", body("Content-Length: 5", "hello"), "400c"),
        row("a chunked body", body("Transfer-Encoding: chunked", "0\r\n\r\n"), "400c"),
        row("no bytes of body", with(b"Content-Length: 0"), "101"),
        row("frames glued to it", glued, "101 | text \"glued\" | pong \"p\""),
        row("refused, a request behind", with(b"Sec-WebSocket-Key: x"), "400c"),
        row("two protocols", with(b"Upgrade: websocket, h2c"), "101"),
        row("the other first", with(b"Upgrade: h2c, websocket"), "101"),
        row(
            "another protocol",
            format!("{plain}Connection: Upgrade\r\nUpgrade: foo\r\n\r\n"),
            "200c",
        ),
        row("empty Host", with(b"Host:"), "400c"),
        row("NUL in the key", with(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\x00="), "400c"),
        row("NUL behind the key", with(format!("Sec-WebSocket-Key: {KEY}\0x").as_bytes()), "400c"),
    ];
    for path in ["GET /nope", "GET /healthz", "GET /version", "GET /echo/", "GET /ECHO"] {
        rows.push(row(&format!("path {path}"), request(path, b""), "404c"));
    }
    rows
}

fn versions_and_keys() -> Vec<Row> {
    let mut rows = Vec::new();
    let version = |value: &[u8]| with(&[b"Sec-WebSocket-Version:", value].concat());
    let wrong =
        ["-", " 7", " 8", " 12", " 14", " 13, 13", " 13,", " 8, 13", "", " 013", " +13", " 1 3"];
    let want = "426c sec-websocket-version=\"13\"";
    rows.extend(each("version", wrong, version, want));
    rows.extend(each("version twice", [" 13\nSec-WebSocket-Version: 13"], version, want));
    rows.extend(each("version white space around", ["13", " 13 ", "\t13\t"], version, "101"));
    let key = |value: &[u8]| with(&[b"Sec-WebSocket-Key:", value].concat());
    let keys = [
        "-",
        "",
        " dGhlIHNhbXBsZSBub25j",
        " dGhlIHNhbXBsZSBub25jZWU=",
        " dGhlIHNhbXBsZSBub25jZQ",
        " dGhlIHNhbXBsZSBub25jZQ=",
        " dGhlIHNhbXBsZSBub25jZR==",
        " dGhlIHNhbXBsZSBub25j!Q==",
        " dGhlIHNhbXBs ZSBub25jZQ==",
        " dGhlIHNhbXBsZSBub25jZQ==,",
        " dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    rows.extend(each("key", keys, key, "400c"));
    rows
}

fn origins() -> Vec<Row> {
    let origin = |value: &[u8]| with(&[b"Origin: ", value].concat());
    let mut rows = vec![
        row("absent", with(b""), "101"),
        row("twice", with(b"Origin: http://example.test\nOrigin: http://example.test"), "400c"),
        row("twice, another", with(b"Origin: http://example.test\nOrigin: http://evil"), "400c"),
        row("ports differ", with(b"Host: h:8080\nOrigin: http://h:9090"), "403c"),
        row("same port", with(b"Host: h:8080\nOrigin: http://h:8080"), "101"),
        row("a proxy dropped the port", with(b"Host: h\nOrigin: http://h:8080"), "101"),
        row("no port in Origin", with(b"Host: h:8080\nOrigin: http://h"), "101"),
        row("the default port", with(b"Host: h:80\nOrigin: http://h"), "101"),
        row("the default port in Origin", with(b"Host: h\nOrigin: https://h:443"), "101"),
        row("behind a proxy", with(b"Origin: http://app\nX-Forwarded-Host: app"), "101"),
    ];
    let foreign = [
        &b"http://evil"[..],
        b"null",
        b"",
        b"http://example.test/",
        b"http://example.test/path",
        b"http://example.test@evil",
        b"http://user@example.test",
        b"http://example.test.evil",
        b"http://evilexample.test",
        b"example.test",
        b"http://",
        b"http://evil\\example.test",
        b"http://example.test\xff",
    ];
    rows.extend(each("origin", foreign, origin, "403c"));
    rows.extend(each("origin", ["http://example.test", "https://EXAMPLE.test"], origin, "101"));
    rows.extend(each("origin", ["moz-extension://a-b", "chrome-extension://abc"], origin, "101"));
    rows
}

fn offers() -> Vec<Row> {
    let protocol = |value: &[u8]| with(&[b"Sec-WebSocket-Protocol:", value].concat());
    let extension = |value: &[u8]| with(&[b"Sec-WebSocket-Extensions: ", value].concat());
    let mut rows = vec![
        row("spaces", protocol(" ".repeat(7_500).as_bytes()), "101"),
        row("commas", protocol(",".repeat(7_500).as_bytes()), "101"),
        row("spaces and commas", protocol(" ,".repeat(3_750).as_bytes()), "101"),
        row("the first offer", protocol(b" x, y"), "101 sec-websocket-protocol=\"x\""),
        row("in two fields", protocol(b" x\nSec-WebSocket-Protocol: y"), "101 protocol=\"x\""),
        row("duplicate in two fields", protocol(b" x\nSec-WebSocket-Protocol: x"), "400c"),
        row("not spoken", request("GET /chat", b"Sec-WebSocket-Protocol: x"), "101"),
    ];
    rows.extend(each("duplicates", [" x, x", " x,y,x"], protocol, "400c"));
    let declined = [
        "__proto__",
        "constructor; toString",
        "permessage-deflate; server_max_window_bits=99",
        "permessage-deflate; x=\"unterminated",
        "permessage-deflate; x=\"a, b\"",
        "x-webkit-deflate-frame",
    ];
    rows.extend(each("extension", declined, extension, "101"));
    rows.extend(each(
        "no list",
        ["=,;", "a b", ";", "\"a\"", "permessage-deflate; =x"],
        extension,
        "400c",
    ));
    rows
}

#[test]
fn at_the_connection_limit() {
    let mut harness = Harness::new(&["--max-connections", "2"]);
    let mut first = Client::upgraded(&mut harness, "/echo");
    let _second = Client::upgraded(&mut harness, "/echo");
    let mut third = Client::connect(&mut harness);
    let output = third.exchange(&mut harness, &peer::upgrade("/echo", &[]));
    assert!(output.len() == 1 && output[0].starts_with("503 "), "{output:?}");
    assert!(output[0].contains("retry-after=") && output[0].contains("connection=\"close\""));
    assert_eq!(end(&harness, third.wire), "fin");
    assert_eq!(first.exchange(&mut harness, &peer::text("unharmed")), ["text \"unharmed\""]);
}

#[test]
fn while_draining() {
    let mut harness = Harness::new(&["--profile", "kubernetes", "--drain-delay", "5s"]);
    let mut half = Client::connect(&mut harness);
    half.exchange(&mut harness, b"GET /echo HTTP/1.1\r\n");
    let _open = Client::upgraded(&mut harness, "/echo");
    harness.signal(Signal::Stop);
    // The drain is announced: new clients are still served.
    let mut late = Client::upgraded(&mut harness, "/echo");
    assert_eq!(late.exchange(&mut harness, &peer::text("late")), ["text \"late\""]);
    harness.pass(5_000);
    let rest = peer::upgrade("/echo", &[]);
    let rest = &rest[b"GET /echo HTTP/1.1\r\n".len()..];
    let output = half.exchange(&mut harness, rest);
    assert!(output.len() == 1 && output[0].starts_with("503 "), "{output:?}");
    assert!(output[0].contains("retry-after=") && output[0].contains("connection=\"close\""));
}
