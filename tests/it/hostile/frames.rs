//! Frames after a valid upgrade of `/echo`, with a message limit of 64 KiB.

use super::{Row, check, each, row};
use crate::peer::{close, frame, text};

const LIMIT: usize = 64 * 1024;

#[test]
fn frames() {
    check(&rows(), &["--max-message", "64KiB"], true);
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = headers();
    rows.extend(lengths());
    rows.extend(fragments());
    rows.extend(encodings());
    rows.extend(closes());
    rows.extend(masks());
    rows
}

/// A frame with this header and a mask of zeroes.
fn raw(header: &[u8], payload: &[u8]) -> Vec<u8> {
    [header, &[0; 4], payload].concat()
}

fn headers() -> Vec<Row> {
    let mut rows = vec![
        row("not masked", b"\x81\x02hi", "close 1002"),
        row("an empty one not masked", b"\x81\x00", "close 1002"),
        row("a ping not masked", b"\x89\x00", "close 1002"),
    ];
    let first = |byte: &[u8]| frame(byte[0], b"hi");
    let unmasked = |byte: &[u8]| frame(byte[0], b"");
    rows.extend(each(
        "reserved bits",
        [[0xc1], [0xa1], [0x91], [0xf1], [0xc2], [0x41]],
        first,
        "close 1002",
    ));
    rows.extend(each("reserved bits control", [[0xc9], [0xa8], [0x9a]], unmasked, "close 1002"));
    let opcodes = [0x83, 0x84, 0x85, 0x86, 0x87, 0x8b, 0x8c, 0x8d, 0x8e, 0x8f].map(|byte| [byte]);
    rows.extend(each("opcode", opcodes, first, "close 1002"));
    rows.extend(each("control frame unfinished", [[0x08], [0x09], [0x0a]], first, "close 1002"));
    let long = |byte: &[u8]| frame(byte[0], &[b'x'; 126]);
    rows.extend(each("control frame long", [[0x88], [0x89], [0x8a]], long, "close 1002"));
    rows.push(row("control frame as long as may be", frame(0x89, b""), "pong \"\""));
    let wide = |byte: &[u8]| raw(&[byte[0], 0xfe, 0, 5], b"hello");
    rows.extend(each("control frame wide", [[0x88], [0x89], [0x8a]], wide, "close 1002"));
    ended(rows)
}

/// The server's FIN follows its Close, which the rows leave out.
fn ended(rows: Vec<Row>) -> Vec<Row> {
    let ends = |row: Row| {
        let want = match row.want {
            "close 1002" => "close 1002 | fin",
            "close 1007" => "close 1007 | fin",
            "close 1009" => "close 1009 | fin",
            other => other,
        };
        Row { want, ..row }
    };
    rows.into_iter().map(ends).collect()
}

fn lengths() -> Vec<Row> {
    let declared = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let part = |length: u64| [&[0x02, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let half = frame(0x02, &vec![b'x'; LIMIT / 2]);
    let rest = |n: usize| [&half[..], &frame(0x80, &vec![b'x'; n])].concat();
    ended(vec![
        row("length top bit set", declared(1 << 63), "close 1002"),
        row("length all bits set", declared(u64::MAX), "close 1002"),
        row("length the longest there is", declared(i64::MAX as u64), "close 1009"),
        row("length 4 GiB", declared(1 << 32), "close 1009"),
        row("length one more than a message", declared(LIMIT as u64 + 1), "close 1009"),
        row("length the first of several", part(LIMIT as u64 + 1), "close 1009"),
        row("length the first of several, longest", part(i64::MAX as u64), "close 1009"),
        row("length 125 in two bytes", raw(&[0x82, 0xfe, 0, 125], &[0; 125]), "close 1002"),
        row("length 0 in two bytes", raw(&[0x82, 0xfe, 0, 0], b""), "close 1002"),
        row("length 0 in eight bytes", declared(0), "close 1002"),
        row("length 65535 in eight bytes", declared(65_535), "close 1002"),
        row(
            "length as a continuation",
            [frame(2, b"x"), raw(&[0x80, 0xfe, 0, 1], b"x")].concat(),
            "close 1002",
        ),
        row("message as long as may be", frame(0x82, &vec![b'x'; LIMIT]), "binary (65536 bytes)"),
        row("message in two parts", rest(LIMIT / 2), "binary (65536 bytes)"),
        row("message in two parts, one more", rest(LIMIT / 2 + 1), "close 1009"),
        row(
            "message the sum overflows",
            [&frame(2, b"x")[..], &[0x80, 0xff, 0x7f], &[0xff; 7], &[0; 4]].concat(),
            "close 1009",
        ),
        row(
            "message a control frame between",
            [&half[..], &frame(0x89, b"p"), &frame(0x80, b"x")].concat(),
            "pong \"p\" | binary (32769 bytes)",
        ),
    ])
}

fn fragments() -> Vec<Row> {
    let empty = |n: usize| [&frame(0x01, b"")[..], &frame(0x00, b"").repeat(n)].concat();
    let whole = |n: usize| [&empty(n)[..], &frame(0x80, b"x")].concat();
    let spread = [
        &frame(0x01, b"")[..],
        &[frame(0, b""), frame(0, b"x")].concat().repeat(1_024),
        &frame(0x80, b""),
    ]
    .concat();
    let pinged =
        [frame(1, b"ab"), frame(0x89, b"p"), frame(0, b"cd"), frame(0x8a, b""), frame(0x80, b"")];
    ended(vec![
        row("fragments a continuation of nothing", frame(0x80, b"x"), "close 1002"),
        row("fragments an unfinished one of nothing", frame(0x00, b"x"), "close 1002"),
        row(
            "fragments after a whole message",
            [text("a"), frame(0x80, b"x")].concat(),
            "text \"a\" | close 1002 | fin",
        ),
        row("fragments text inside of text", [frame(1, b"a"), text("b")].concat(), "close 1002"),
        row(
            "fragments a start inside of text",
            [frame(1, b"a"), frame(2, b"b")].concat(),
            "close 1002",
        ),
        row("1025 empty ones", empty(1_025), "close 1008 | fin"),
        row("1024 empty ones", whole(1_024), "text \"x\""),
        row("1024 of them, others between", spread, "text (1024 bytes)"),
        row("an empty message", text(""), "text \"\""),
        row("an empty binary message", frame(0x82, b""), "binary \"\""),
        row("an empty message in parts", [frame(1, b""), frame(0x80, b"")].concat(), "text \"\""),
        row("a ping between fragments", pinged.concat(), "pong \"p\" | text \"abcd\""),
    ])
}

fn encodings() -> Vec<Row> {
    let mut rows = Vec::new();
    let invalid = [
        &b"\xff"[..],
        b"\x80",
        b"ok\xffbad",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        b"truncated \xe2\x98",
        b"\xf0\x9d\x84",
    ];
    rows.extend(each("invalid UTF-8", invalid, |text| frame(0x81, text), "close 1007"));
    let in_parts = |text: &[u8]| [frame(1, &text[..1]), frame(0x80, &text[1..])].concat();
    rows.extend(each("invalid UTF-8 in parts", invalid, in_parts, "close 1007"));
    let first = |text: &[u8]| [frame(1, text), frame(0, b"x"), frame(0x80, b"y")].concat();
    rows.extend(each("invalid UTF-8 in the first of three", &invalid[..9], first, "close 1007"));
    rows.extend(each(
        "invalid UTF-8 not in binary",
        [b"\xff\x80"],
        |bytes| frame(0x82, bytes),
        "binary 0xff80",
    ));
    let clef = "a\u{1d11e}b".as_bytes();
    for at in 0..=clef.len() {
        let parts = [frame(0x01, &clef[..at]), frame(0x80, &clef[at..])].concat();
        rows.push(row(&format!("UTF-8 cut at {at}"), parts, "text \"a\u{1d11e}b\""));
    }
    let singly: Vec<u8> = clef.iter().flat_map(|byte| frame(0, &[*byte])).collect();
    let singly = [frame(0x01, b""), singly, frame(0x80, b"")].concat();
    rows.push(row("UTF-8 in single bytes", singly, "text \"a\u{1d11e}b\""));
    ended(rows)
}

fn closes() -> Vec<Row> {
    let mut rows = vec![
        row("close code half a code", frame(0x88, b"\x03"), "close 1002"),
        row("close code no code", frame(0x88, b""), "close | fin"),
        row("close code a code and a reason", close(1000, "bye"), "close 1000 \"bye\" | fin"),
        row("a reason that is no text", frame(0x88, b"\x03\xe8\xff"), "close 1007"),
        row("a reason cut short", frame(0x88, b"\x03\xe8\xe2\x98"), "close 1007"),
        row("the longest reason", close(1000, &"r".repeat(123)), "close 1000 | fin"),
        row("a longer reason", close(1000, &"r".repeat(124)), "close 1002"),
        row("data behind it", [close(1000, ""), text("late")].concat(), "close 1000 \"\" | fin"),
        row(
            "nonsense behind it",
            [&close(1000, "")[..], &[0xff; 40]].concat(),
            "close 1000 \"\" | fin",
        ),
        row("another Close", [close(1000, ""), close(1001, "")].concat(), "close 1000 \"\" | fin"),
        row("in a message", [frame(1, b"half"), close(1001, "")].concat(), "close 1001 \"\" | fin"),
    ];
    for wrong in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        rows.push(row(&format!("close code {wrong}"), close(wrong, ""), "close 1002"));
    }
    let right = [
        (1000, "close 1000 \"\" | fin"),
        (1001, "close 1001 \"\" | fin"),
        (1002, "close 1002 \"\" | fin"),
        (1003, "close 1003 \"\" | fin"),
        (1007, "close 1007 \"\" | fin"),
        (1011, "close 1011 \"\" | fin"),
        (1014, "close 1014 \"\" | fin"),
        (3000, "close 3000 \"\" | fin"),
        (3999, "close 3999 \"\" | fin"),
        (4000, "close 4000 \"\" | fin"),
        (4999, "close 4999 \"\" | fin"),
    ];
    for (code, want) in right {
        rows.push(row(&format!("close code {code}"), close(code, ""), want));
    }
    ended(rows)
}

fn masks() -> Vec<Row> {
    let request = b"GET /healthz HTTP/1.1";
    let shown = "text \"GET /healthz HTTP/1.1\"";
    // The masked bytes are an HTTP request, to poison a cache on the path.
    let masked: Vec<u8> = request.iter().map(|byte| byte ^ 0x20).collect();
    let poison = [&[0x82, 0x80 | request.len() as u8][..], &[0x20; 4], request].concat();
    assert_eq!(masked, b"get\0\x0fHEALTHZ\0http\x0f\x11\x0e\x11");
    vec![
        row("a mask of zeroes", raw(&[0x81, 0x85], b"hello"), "text \"hello\""),
        row("a payload of ones", frame(0x82, &[0xff; 4]), "binary 0xffffffff"),
        row("both", raw(&[0x82, 0x84], &[0xff; 4]), "binary 0xffffffff"),
        row("spells a request", raw(&[0x81, 0x80 | request.len() as u8], request), shown),
        row(
            "spells a request on the wire",
            poison,
            "binary \"get\\0\\u{f}HEALTHZ\\0http\\u{f}\\u{11}\\u{e}\\u{11}\"",
        ),
    ]
}
