//! Responses, each split in several ways, and input that must be rejected.

use core::fmt::Write as _;

use super::*;

const LIMITS: Limits = Limits { head_bytes: 8192, body_bytes: 100 };

/// A response as text: its statuses and fields, its body, how it ended, what is left over.
fn read(asked: Asked, bytes: &[u8], cut: usize, ends: bool) -> String {
    let mut answer = Answer::new(asked, LIMITS);
    let (mut said, mut body, mut left) = (String::new(), Vec::new(), Vec::new());
    let mut end = String::new();
    let mut parts = bytes.chunks(cut);
    loop {
        let fresh = parts.next();
        left.extend_from_slice(fresh.unwrap_or_default());
        let mut rest = &left[..];
        loop {
            match answer.next(&mut rest) {
                Ok(Some(Event::Head(head))) => {
                    said += &head.status().to_string();
                    for (name, value) in head.fields() {
                        write!(said, " {name}={}", value.escape_ascii()).unwrap();
                    }
                }
                Ok(Some(Event::Body(piece))) => body.extend_from_slice(piece),
                Ok(Some(Event::End(persistence))) => end = format!(" {persistence:?}"),
                Ok(None) => break,
                Err(fault) => return format!("{said} {:?} {fault:?}", text(&body)),
            }
        }
        left = rest.to_vec();
        if fresh.is_none() {
            break;
        }
    }
    let over = if ends { format!(" {:?}", answer.ended()) } else { String::new() };
    format!("{said} {:?}{end}{over} {}", text(&body), text(&left)).trim_end().to_owned()
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn any_cut(asked: Asked, bytes: &[u8], ends: bool) -> String {
    let whole = read(asked, bytes, bytes.len().max(1), ends);
    for cut in [1, 2, 3, 7, 16] {
        assert_eq!(read(asked, bytes, cut, ends), whole, "cut at {cut}: {}", text(bytes));
    }
    whole
}

fn plain(bytes: &str) -> String {
    any_cut(Asked::Ordinary, bytes.as_bytes(), false)
}

#[test]
fn answers() {
    for (bytes, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "200 Content-Length=2 \"hi\" KeepAlive"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nX", "200 Content-Length=0 \"\" KeepAlive X"),
        ("HTTP/1.1 204\r\n\r\n", "204 \"\" KeepAlive"),
        ("HTTP/1.1 304 \r\nContent-Length: 999\r\n\r\n", "304 Content-Length=999 \"\" KeepAlive"),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\n!",
            "200 Connection=x, Close Content-Length=1 \"!\" Close",
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n!", "200 Content-Length=1 \"!\" Close"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 01\r\n\r\n!",
            "200 Content-Length=1 content-length=01 \"!\" KeepAlive",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!",
            "200 Content-Length=1 \"!\" KeepAlive",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n\
             5\r\nhello\r\n00A;x=\"y\"\r\n0123456789\r\n0;z\r\nA: b\r\nC:\r\n\r\nHTTP",
            "200 Transfer-Encoding=Chunked \"hello0123456789\" KeepAlive HTTP",
        ),
        ("HTTP/1.1 200 OK\r\nX: \t a\u{e9} \t\r\n\r\n", "200 X=a\\xc3\\xa9 \"\""),
    ] {
        assert_eq!(plain(bytes), want);
    }
}

#[test]
fn answers_that_end_with_the_connection() {
    for (bytes, want) in [
        ("HTTP/1.1 200 OK\r\n\r\nhi", "200 \"hi\" Ok(())"),
        ("HTTP/1.0 200 OK\r\n\r\n", "200 \"\" Ok(())"),
        ("", " \"\" Err(NoAnswer)"),
        ("H", " \"\" Err(CutOff)"),
        ("HTTP/1.1 100 Continue\r\n\r\n", " \"\" Err(CutOff)"),
        ("HTTP/1.1 200 OK\r\n", " \"\" Err(CutOff)"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
            "200 Content-Length=3 \"hi\" Err(CutOff)",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
            "200 Transfer-Encoding=chunked \"hi\" Err(CutOff)",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            "200 Content-Length=2 \"hi\" KeepAlive Ok(())",
        ),
    ] {
        assert_eq!(any_cut(Asked::Ordinary, bytes.as_bytes(), true), want, "{bytes}");
    }
}

#[test]
fn the_request_decides_about_101_and_the_body() {
    let long = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n";
    assert_eq!(any_cut(Asked::Head, long, false), "200 Content-Length=999 \"\" KeepAlive");
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let want = "200 Transfer-Encoding=chunked \"\" KeepAlive";
    assert_eq!(any_cut(Asked::Head, chunked, true), format!("{want} Ok(())"));
    let upgraded = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n\x81\x00";
    let want = "101 Upgrade=websocket \"\" Close \\x81\\x00";
    assert_eq!(any_cut(Asked::Upgrade, upgraded, false), want);
    let refused = b"HTTP/1.1 426 No\r\nContent-Length: 1\r\n\r\n!";
    assert!(any_cut(Asked::Upgrade, refused, false).starts_with("426 "));
    for asked in [Asked::Ordinary, Asked::Head, Asked::Status] {
        assert_eq!(any_cut(asked, upgraded, false), " \"\" Upgraded");
    }
}

#[test]
fn a_long_body_does_not_hide_a_status() {
    let long = "x".repeat(101);
    for (fields, body, want) in [
        ("Content-Length: 101", &*long, ""),
        ("Transfer-Encoding: chunked", "2\r\nhi\r\n63\r\nabc", "hi"),
        ("X: y", &*long, &long[1..]),
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{body}");
        let heard = any_cut_to(Asked::Status, bytes.as_bytes());
        assert_eq!(heard, format!("200 {} {want:?} Close", fields.replace(": ", "=")));
        assert!(plain(&bytes).ends_with("BodyTooLarge"), "{bytes}");
    }
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(any_cut(Asked::Status, short, false), "200 Content-Length=2 \"hi\" KeepAlive");
}

/// Without what is left over, which depends on the cut where a body is not read to its end.
fn any_cut_to(asked: Asked, bytes: &[u8]) -> String {
    let end = |cut| {
        let heard = read(asked, bytes, cut, false);
        heard.split_inclusive(" Close").next().unwrap_or_default().to_owned()
    };
    let whole = end(bytes.len());
    assert!([1, 2, 3, 7, 16].iter().all(|cut| end(*cut) == whole), "{whole}");
    whole
}

/// Responses that parsers would read differently, and ones that only cost.
#[test]
fn hostile_answers() {
    let many = "A: b\r\n".repeat(101);
    let long = format!("A: {}\r\n", "b".repeat(8192));
    let interim = "HTTP/1.1 100 C\r\n\r\n".repeat(9);
    let trailer = "A: b\r\n".repeat(2000);
    let ok = "HTTP/1.1 200 OK\r\n";
    let chunked = format!("{ok}Transfer-Encoding: chunked\r\n\r\n");
    for (bytes, want) in [
        ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "NotHttp"),
        ("\x15\x03\x01".to_owned(), "NotHttp"),
        ("\r\nHTTP/1.1 200 OK\r\n".to_owned(), "NotHttp"),
        ("http/1.1 200 OK\r\n".to_owned(), "NotHttp"),
        ("HTTP/2".to_owned(), "Version"),
        ("HTTP/1.2".to_owned(), "Version"),
        ("HTTP/1.1 20 OK\r\n\r\n".to_owned(), "StatusInvalid"),
        ("HTTP/1.1 0200 OK\r\n\r\n".to_owned(), "StatusInvalid"),
        ("HTTP/1.1 099 OK\r\n\r\n".to_owned(), "StatusInvalid"),
        ("HTTP/1.1 600 OK\r\n\r\n".to_owned(), "StatusInvalid"),
        ("HTTP/1.1 200 OK\n".to_owned(), "FieldInvalid"),
        (format!("{ok}A: b\rC: d\r\n\r\n"), "FieldInvalid"),
        (format!("{ok}A: b\r\n c\r\n\r\n"), "FieldInvalid"),
        (format!("{ok} A: b\r\n\r\n"), "FieldInvalid"),
        (format!("{ok}A : b\r\n\r\n"), "FieldInvalid"),
        (format!("{ok}A\r\n\r\n"), "FieldInvalid"),
        (format!("{ok}A: \0\r\n\r\n"), "FieldInvalid"),
        (format!("{ok}{many}\r\n"), "TooManyFields"),
        (format!("{ok}{long}\r\n"), "HeadTooLarge"),
        (interim, "TooManyInterim"),
        (format!("{ok}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), "LengthAmbiguous"),
        (
            format!("{ok}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "LengthAmbiguous",
        ),
        (format!("{ok}Content-Length: 1, 1\r\n\r\n"), "LengthInvalid"),
        (format!("{ok}Content-Length: +1\r\n\r\n"), "LengthInvalid"),
        (format!("{ok}Content-Length: \r\n\r\n"), "LengthInvalid"),
        (format!("{ok}Content-Length: 101\r\n\r\n"), "BodyTooLarge"),
        (format!("{ok}Content-Length: 99999999999999999999\r\n\r\n"), "BodyTooLarge"),
        (format!("{ok}Transfer-Encoding: gzip, chunked\r\n\r\n"), "EncodingInvalid"),
        (format!("{ok}Transfer-Encoding: identity\r\n\r\n"), "EncodingInvalid"),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), "EncodingInvalid"),
        (format!("{chunked}\r\n"), "ChunkInvalid"),
        (format!("{chunked}0x1\r\n"), "ChunkInvalid"),
        (format!("{chunked}-1\r\n"), "ChunkInvalid"),
        (format!("{chunked}1 \r\n"), "ChunkInvalid"),
        (format!("{chunked}1\n"), "ChunkInvalid"),
        (format!("{chunked}1\r\n!!"), "ChunkInvalid"),
        (format!("{chunked}1\r\n!\n"), "ChunkInvalid"),
        (format!("{chunked}{}\r\n", "0".repeat(16)), "ChunkInvalid"),
        (format!("{chunked}1;{}\r\n", "x".repeat(256)), "ChunkInvalid"),
        (format!("{chunked}65\r\n"), "BodyTooLarge"),
        (format!("{chunked}ffffffffffffff\r\n"), "BodyTooLarge"),
        (format!("{chunked}0\r\nA b\r\n"), "ChunkInvalid"),
        (format!("{chunked}0\r\nA: b\r\n c\r\n"), "ChunkInvalid"),
        (format!("{chunked}0\r\n{trailer}\r\n"), "HeadTooLarge"),
        (format!("{ok}\r\n{}", "x".repeat(101)), "BodyTooLarge"),
    ] {
        let said = plain(&bytes);
        assert!(said.ends_with(want), "{said} instead of {want}: {bytes}");
    }
}

#[test]
fn a_fault_is_final() {
    let mut answer = Answer::new(Asked::Ordinary, LIMITS);
    assert_eq!(answer.next(&mut &b"SSH"[..]).err(), Some(Fault::NotHttp));
    assert_eq!(answer.next(&mut &b"HTTP/1.1 200 OK\r\n\r\n"[..]).err(), Some(Fault::NotHttp));
    assert_eq!(answer.ended(), Err(Fault::NotHttp));
    assert!(answer.head.is_empty());
}

#[test]
fn requests() {
    let request = Request {
        method: "GET",
        target: "/x?y",
        host: "[::1]:80",
        fields: &[("Accept", "*/*")],
        body: b"",
    };
    let written = |request: Request<'_>| {
        let mut out = Vec::new();
        request.write(&mut out).map(|()| text(&out))
    };
    assert_eq!(
        written(request).unwrap(),
        "GET /x?y HTTP/1.1\\r\\nHost: [::1]:80\\r\\nAccept: */*\\r\\n\\r\\n"
    );
    let post = Request { method: "POST", ..request };
    assert!(written(post).unwrap().ends_with("\\r\\nContent-Length: 0\\r\\n\\r\\n"));
    let post = Request { body: b"hi", ..post };
    assert!(written(post).unwrap().ends_with("\\r\\nContent-Length: 2\\r\\n\\r\\nhi"));
    assert_eq!(request.asked(), Asked::Ordinary);
    assert_eq!(Request { method: "HEAD", ..request }.asked(), Asked::Head);
    let upgrade = Request { fields: &[("upgrade", "websocket")], ..request };
    assert_eq!(upgrade.asked(), Asked::Upgrade);
    for (bad, why) in [
        (Request { method: "GET ", ..request }, Unsendable::Method),
        (Request { method: "", ..request }, Unsendable::Method),
        (Request { target: "", ..request }, Unsendable::Target),
        (Request { target: "/ HTTP/1.1\r\n", ..request }, Unsendable::Target),
        (Request { host: "h/", ..request }, Unsendable::Host),
        (Request { host: "", ..request }, Unsendable::Host),
        (Request { fields: &[("A\r\nB", "c")], ..request }, Unsendable::Field),
        (Request { fields: &[("A", "b\r\nC: d")], ..request }, Unsendable::Field),
        (Request { fields: &[("Content-length", "5")], ..request }, Unsendable::Field),
    ] {
        assert_eq!(written(bad), Err(why));
    }
}

/// Time is linear in the number of bytes: no step examines a byte twice.
#[test]
fn a_head_in_single_bytes_is_kept_once() {
    let mut answer = Answer::new(Asked::Ordinary, LIMITS);
    let head = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(8000));
    for (at, byte) in head.bytes().enumerate() {
        let came = answer.next(&mut &[byte][..]).unwrap().is_some();
        assert_eq!(came, at + 1 == head.len());
    }
    assert!(answer.next(&mut &b"!"[..]).unwrap().is_some());
    assert_eq!(answer.head.capacity(), 0, "the head is freed after its event");
}
