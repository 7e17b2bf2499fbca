//! HTTP request syntax and framing.

use wspulse::proto::deflate;

use super::{Row, check, each, get, row};

#[test]
fn http() {
    check(&rows(), &[], false);
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows = request_lines();
    rows.extend(fields());
    rows.extend(limits());
    rows.extend(targets_and_methods());
    rows.extend(framing());
    rows.extend(bodies());
    rows.extend(other_protocols());
    rows.extend(negotiation());
    rows
}

fn request_lines() -> Vec<Row> {
    vec![
        row("no version", "GET / \r\n\r\n", "400c"),
        row("no version, no space", "GET /\r\n\r\n", "400c"),
        row("another major version", "GET / HTTP/9.9\r\nHost: h\r\n\r\n", "505c"),
        row("HTTP/2 as text", "GET / HTTP/2.0\r\nHost: h\r\n\r\n", "505c"),
        row("no version at all", "GET / HTTP/x.y\r\nHost: h\r\n\r\n", "400c"),
        row("lower case", "GET / http/1.1\r\nHost: h\r\n\r\n", "400c"),
        row("HTTP/0.9", "GET /\r\n", "400c"),
        row("HTTP/1.0 without Host", "GET /healthz HTTP/1.0\r\n\r\n", "200c"),
        row("no Host", "GET /healthz HTTP/1.1\r\n\r\n", "400c"),
        row("one empty line first", [b"\r\n", &get("")[..]].concat(), "200"),
        row("two empty lines first", [b"\r\n\r\n", &get("")[..]].concat(), "400c"),
    ]
}

/// A GET with these further fields.
fn with(lines: &[u8]) -> Vec<u8> {
    get(lines)
}

/// A GET with this value of Host.
fn host(value: &[u8]) -> Vec<u8> {
    [b"GET /healthz HTTP/1.1\r\nHost: ", value, b"\r\n\r\n"].concat()
}

fn fields() -> Vec<Row> {
    let mut rows = vec![
        row("two Hosts, equal", get("Host: h"), "400c"),
        row("two Hosts, another", get("host: evil"), "400c"),
        row("two Hosts, empty", get("Host:"), "400c"),
        row("empty Host", host(b""), "200"),
        row("tab before the value", "GET /healthz HTTP/1.1\r\nhoSt:\th\r\n\r\n", "200"),
        row("tabs around the value", "GET /healthz HTTP/1.1\r\nHost: \th\t \r\n\r\n", "200"),
        row("empty value", get("X-Empty:"), "200"),
        row("nothing but white space", get("X-Empty: \t "), "200"),
        row("first line begins with a space", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", "400c"),
        row("first line begins with a tab", "GET / HTTP/1.1\r\n\tHost: h\r\n\r\n", "400c"),
        row("folded", get("X: a\r\n b"), "400c"),
        row("folded with a tab", get("X: a\r\n\tb"), "400c"),
        row("folded, a request inside", get("X: a\r\n GET / HTTP/1.1"), "400c"),
        row("bytes of another encoding", get(b"X: caf\xc3\xa9 \xff\x80"), "200"),
        row("delimiter in a name a line without a colon", get("X-Invalid"), "400c"),
        row("delimiter in a name a name of no letters", get(": v"), "400c"),
        row("delimiter in a name a name beyond ASCII", get("X-\u{e9}: v"), "400c"),
        row("bare LF after the request line", "GET /healthz HTTP/1.1\nHost: h\r\n\r\n", "400c"),
        row("bare LF after a field", "GET /healthz HTTP/1.1\r\nHost: h\n\r\n", "400c"),
        row("bare LF at the end", "GET /healthz HTTP/1.1\r\nHost: h\r\n\n", "400c"),
        row("bare LF only", "GET /healthz HTTP/1.1\nHost: h\n\n", "400c"),
        row("bare LF first", [b"\n", &get("")[..]].concat(), "400c"),
        row("bare CR in a value", get("X: a\rb"), "400c"),
        row("bare CR hides a field", get("X: a\rTransfer-Encoding: chunked"), "400c"),
        row("CR CR before a name", get("X: a\r\n\r\rName: b"), "400c"),
        row("CR CR LF", get("X: a\r\r\nY: b"), "400c"),
        row("CR in the request line", "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n", "400c"),
    ];
    let hosts = ["u@h", "u:p@h", "h h", "h,i", "h/", "h/healthz", "h\\i", "[::1", "h:80:80", "h:x"];
    rows.extend(each("Host", hosts, host, "400c"));
    let names = ["Host : a", "X-A : b", "X-A\t: b", "Transfer-Encoding : chunked"];
    rows.extend(each("space before the colon", names, with, "400c"));
    let names = ["X-Invalid[]: 1", "X(a): 1", "X a: 1", "X\"a: 1", "X/a: 1", "X\x7f: 1"];
    rows.extend(each("delimiter in a name", names, with, "400c"));
    let controls = (0..=0x1f).filter(|byte| !b"\t\r\n".contains(byte)).chain([0x7f]);
    for control in controls {
        let value = [b"X: a", &[control][..], b"b"].concat();
        rows.extend(each("control character in a value", [value], with, "400c"));
    }
    rows
}

fn limits() -> Vec<Row> {
    let line = |n: usize| {
        let target = "a".repeat(n - "GET / HTTP/1.1".len());
        format!("GET /{target} HTTP/1.1\r\nHost: h\r\n\r\n")
    };
    let head = |n: usize| get(format!("X: {}", "a".repeat(n - get("X: ").len())));
    let many = |n: usize| get(vec!["X: y"; n - 1].join("\r\n"));
    vec![
        row("request line of 4096 bytes", line(4_096), "404"),
        row("request line of 4097 bytes", line(4_097), "414c"),
        row("request line without an end", "A".repeat(9_000), "414c"),
        row("head of 8192 bytes", head(8_192), "200"),
        row("head of 8193 bytes", head(8_193), "431c"),
        row(
            "head without an end",
            [b"GET / HTTP/1.1\r\nX: ", &[b'a'; 20_000][..]].concat(),
            "431c",
        ),
        row("100 fields", many(100), "200"),
        row("101 fields", many(101), "431c"),
        row("1000 fields", many(1_000), "431c"),
    ]
}

/// A request of this target.
fn target(target: &[u8]) -> Vec<u8> {
    [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat()
}

fn method(method: &[u8]) -> Vec<u8> {
    [method, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat()
}

fn targets_and_methods() -> Vec<Row> {
    let mut rows = Vec::new();
    let same = ["http://h/healthz", "HTTP://H/healthz", "https://h/healthz"];
    rows.extend(each("absolute target", same, target, "200"));
    let others = ["http://evil/healthz", "http://h:81/", "http://u@h/", "ftp://h/", "h/healthz"];
    rows.extend(each("absolute target", others, target, "400c"));
    rows.extend(each(
        "target with two slashes",
        ["//evil/ws", "//h/healthz", "//"],
        target,
        "400c",
    ));
    let strange =
        [&b"/a\\b"[..], b"\\", b"/a#b", b"/healthz#", b"/a b", b"/a\x00b", b"/a\tb", b"/\xff"];
    rows.extend(each("strange target", strange, target, "400c"));
    rows.extend(each(
        "strange target",
        ["/healthz%00", "/%00", "/healthz%20", "/%zz", "/%"],
        target,
        "404",
    ));
    let spelled =
        ["/%2e%2e/healthz", "/./healthz", "/../healthz", "/healthz/", "/%2fhealthz", "/HEALTHZ"];
    rows.extend(each("path", spelled, target, "404"));
    rows.extend(each("path unreserved", ["/%68ealthz"], target, "200"));
    rows.extend(each("method", ["OPTIONS *", "TRACE /healthz", "PUT /healthz"], method, "405"));
    rows.extend(each("method", ["CONNECT h:80", "CONNECT /healthz"], method, "405c"));
    let unknown = ["ABCDEFGHIJKLMNOPQ /", "get /healthz", "Get /healthz", "BREW /"];
    rows.extend(each("unknown method", unknown, method, "501c"));
    rows
}

fn length(value: &[u8]) -> Vec<u8> {
    get([b"Content-Length: ", value].concat())
}

fn encoding(value: &[u8]) -> Vec<u8> {
    [&get([b"Transfer-Encoding:", value].concat())[..], b"0\r\n\r\n"].concat()
}

fn framing() -> Vec<Row> {
    let mut rows = Vec::new();
    let lengths =
        ["+5", "-1", "5,5", "5, 5", "5 5", "0x5", "\u{665}", "", "5.0", "5;a", "\"5\"", "1e1"];
    rows.extend(each("Content-Length", lengths, length, "400c"));
    for twice in ["5\r\nContent-Length: 5", "5\r\nContent-Length: 6", "0\r\ncontent-length: 0"] {
        rows.extend(each("Content-Length twice", [twice], length, "400c"));
    }
    let huge = ["18446744073709551616", "1000000000000000000000000000000"];
    // 413, not 400: the number is valid and too large.
    rows.extend(each("Content-Length", huge, length, "413c"));
    rows.extend(each(
        "Content-Length as one more than it can be",
        ["99999999999999999999"],
        length,
        "413c",
    ));
    for both in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "TRANSFER-ENCODING: chunked\r\ncontent-length: 0",
        "Content-Length: 5\r\nTransfer-Encoding: identity",
    ] {
        rows.extend(each("Content-Length and Transfer-Encoding", [both], with, "400c"));
    }
    let encodings = [
        " chunked, identity",
        " identity, chunked",
        " identity",
        " gzip",
        " xchunked",
        " chunked;q=1",
        " chunked,",
        " ,chunked",
        " \"chunked\"",
        " chunked\t, x",
        "\x0bchunked",
        " \x0cchunked",
        "",
    ];
    rows.extend(each("Transfer-Encoding", encodings, encoding, "400c"));
    rows.push(row(
        "Transfer-Encoding twice",
        encoding(b" chunked\r\nTransfer-Encoding: chunked"),
        "400c",
    ));
    rows.push(row(
        "Transfer-Encoding tab before the colon",
        get("Transfer-Encoding\t: chunked"),
        "400c",
    ));
    let old = "GET /healthz HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    rows.push(row("chunked on HTTP/1.0", old, "400c"));
    rows
}

/// A chunked GET with these bytes as its body.
fn chunked(body: &[u8]) -> Vec<u8> {
    [&get("Transfer-Encoding: chunked")[..], body].concat()
}

fn bodies() -> Vec<Row> {
    let mut rows = Vec::new();
    let sizes = [
        "100000004\r\n",
        "00000000000000005\r\n",
        "0x5\r\nhello\r\n",
        "-5\r\n",
        "+5\r\n",
        " 5\r\n",
        "5 \r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n",
        "5\r\r\nhello\r\n",
        "g\r\n",
        ";a\r\n",
        "\r\n",
    ];
    rows.extend(each("chunk size", sizes, chunked, "400c"));
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(300));
    rows.extend(each("chunk size long extension", [long], chunked, "400c"));
    let data =
        ["5\r\nhelloXX0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "0\r\n\rX"];
    rows.extend(each("chunk data", data, chunked, "400c"));
    let trailer = |lines: &str| chunked(format!("5\r\nhello\r\n0\r\n{lines}\r\n").as_bytes());
    // Trailers are read and dropped: they belong neither to this head nor to the next request.
    for lines in [
        "Host: evil\r\n",
        "Content-Length: 500\r\n",
        "Transfer-Encoding: gzip\r\nConnection: close\r\n",
        "X:\r\n",
    ] {
        rows.push(row(&format!("trailer {}", lines.escape_debug()), trailer(lines), "200"));
    }
    rows.push(row("trailer of many lines", trailer(&"X: y\r\n".repeat(600)), "200"));
    rows.push(row("trailer beyond its bound", trailer(&"X: y\r\n".repeat(700)), "413c"));
    let broken = ["Host\r\n", "X : y\r\n", " X: y\r\n", "X: y\r\n z\r\n", "X: y\n", "X: \0\r\n"];
    for lines in broken {
        rows.push(row(&format!("trailer {}", lines.escape_debug()), trailer(lines), "400c"));
    }
    let sent = |n: usize| [&length(n.to_string().as_bytes())[..], &vec![b'x'; n]].concat();
    rows.push(row("5 bytes", sent(5), "200"));
    rows.push(row("8192 bytes", sent(8_192), "200"));
    rows.push(row("8193 bytes", sent(8_193), "200c"));
    rows.push(row("200000 bytes", sent(200_000), "200c"));
    rows.push(row("in a chunk", chunked(b"5;a=b\r\nhello\r\n0\r\n\r\n"), "200"));
    // The chunk framing counts: it exceeds 8 KiB although the data does not.
    rows.push(row("chunks of a byte", chunked(&chunks_of_a_byte(5_000)), "413c"));
    rows.push(row("fewer chunks of a byte", chunked(&chunks_of_a_byte(1_500)), "200"));
    // A chunked body exceeds the limit only after its route has answered.
    let large = [b"2001\r\n", &[b'x'; 8_193][..], b"\r\n0\r\n\r\n"].concat();
    rows.push(row("a large chunk", chunked(&large), "413c"));
    let waits =
        "GET /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    rows.push(row("a refused body", waits, "200c"));
    let post =
        "POST /healthz HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    rows.push(row("refused", post, "405c"));
    rows.extend(each("Expect", ["Expect: nonsense", "Expect: 100-continue, x"], with, "417c"));
    rows
}

fn chunks_of_a_byte(n: usize) -> Vec<u8> {
    [&b"1\r\nx\r\n".repeat(n)[..], b"0\r\n\r\n"].concat()
}

fn other_protocols() -> Vec<Row> {
    let garbage: Vec<u8> = (0..65_000_u32).map(|i| ((i * i) >> 3) as u8 | 0x80).collect();
    vec![
        row("garbage", garbage, "400c"),
        row("zeroes", vec![0; 65_000], "400c"),
        row("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400c"),
        row("the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505c"),
        row("SSH", "SSH-2.0-OpenSSH_9.6\r\n", "400c"),
        row("PROXY 1", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "400c"),
        row("PROXY 2", b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c", "400c"),
        row(
            "h2c",
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"),
            "200c",
        ),
        row("close beats keep-alive", get("Connection: close, keep-alive"), "200c"),
        row("in two fields", get("Connection: keep-alive\r\nconnection: CLOSE"), "200c"),
        row(
            "an upgrade on HTTP/1.0",
            "GET /echo HTTP/1.0\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "426c upgrade=\"websocket\"",
        ),
    ]
}

fn negotiation() -> Vec<Row> {
    let page = |field: &str| format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
    let ranges = page(&format!("Range: bytes={}", "0-,".repeat(2_000)));
    let zipped = if deflate::BUILT { "200 content-encoding=\"gzip\"" } else { "200" };
    let codings = page(&format!("Accept-Encoding: {}", "gzip;q=0.001,".repeat(600)));
    let refused = page(&format!("Accept-Encoding: {}", "x;q=0.5;".repeat(1_000)));
    vec![
        row("many ranges", ranges, "200"),
        row("many codings", codings, zipped),
        row("many weights", refused, "200"),
        row("HEAD", "HEAD /version HTTP/1.1\r\nHost: h\r\n\r\n", "200 content-length=\"37\""),
    ]
}
