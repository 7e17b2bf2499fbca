//! The seeds of the corpora: named inputs, each for one case. `UPDATE=1 cargo test corpora` writes
//! them to `corpus/`, where the fuzzer starts. The format of an input is described at its property;
//! `0` in front means no cuts, and `\x01` repeats bytes (`properties/input.rs`).

/// Corpus, name and bytes of every seed.
pub(crate) fn all() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let texts = [
        ("answers", ANSWERS),
        ("head", HEAD),
        ("handshake", HANDSHAKE),
        ("utf8", UTF8),
        ("proxy", PROXY),
        ("deflate", DEFLATE),
    ];
    let texts = texts.into_iter().flat_map(|(corpus, seeds)| {
        seeds.iter().map(move |(name, bytes)| (corpus, *name, bytes.to_vec()))
    });
    let frames = raw_frames().into_iter().chain(built_frames());
    let frames = frames.map(|(name, bytes)| ("frames", name, bytes));
    let plays = PLAYS.iter().map(|(name, operations)| ("server", *name, operations.concat()));
    let watches = watches().into_iter().map(|(name, bytes)| ("watch", name, bytes));
    let gateways = GATEWAYS.iter().map(|(name, bytes)| ("gateway", *name, bytes.to_vec()));
    let peers = PEERS.iter().map(|(name, bytes)| ("peers", *name, bytes.to_vec()));
    let reports = reports().into_iter().map(|(name, bytes)| ("reports", name, bytes));
    let services = services().into_iter().map(|(name, bytes)| ("aws", name, bytes));
    texts
        .chain(frames)
        .chain(plays)
        .chain(watches)
        .chain(gateways)
        .chain(peers)
        .chain(services)
        .chain(reports)
        .collect()
}

/// A report of `load --json`.
const REPORT: &str = "\
    {\"answered\":1988,\"apart_ms\":0.0,\"began_ms\":1795946273485.0,\"busiest_ms\":null,\"cau\
    ses\":{\"refused\":{\"count\":3,\"text\":\"connection refused\"}},\"clients\":10,\"closed_\
    by_server\":{\"1012\":2},\"closes\":{\"1000\":9,\"1006\":1,\"1012\":2},\"connect_ms\":6.13\
    7047,\"connected\":10,\"cpu_share\":0.09406098128038401,\"downtime\":{\"histogram\":\"HIST\
    FAAAADN4AQEoANf/HISTEwAAAAAAAAAAAAAAAgAAAAAAAAABAAB///////8/8AAAAAAAAHe7B/M=\",\"min_ms\":\
    0.0,\"max_ms\":0.0},\"due\":1988,\"elapsed_ms\":1000.0,\"failed\":0,\"failed_attempts\":{}\
    ,\"generators\":1,\"ideal_ms\":null,\"interrupted\":false,\"lag\":{\"histogram\":\"HISTFAA\
    AADN4AQEoANf/HISTEwAAAAAAAAAAAAAAAgAAAAAAAAABAAB///////8/8AAAAAAAAHe7B/M=\",\"min_ms\":0.0\
    ,\"max_ms\":0.0},\"latency\":{\"histogram\":\"HISTEwAAAAQAAAAAAAAAAgAAAAAAAAABAAB///////8/\
    8AAAAAAAAAECBQQ=\",\"min_ms\":1e-06,\"max_ms\":5e-06},\"limited\":1,\"lost\":0,\"not_yet_c\
    onnected\":0,\"opened\":10,\"reconnect\":true,\"repeated\":0,\"schema\":2,\"sent\":1988,\"\
    servers\":[{\"answers\":1988,\"connections\":10,\"name\":\"pod-0\"}],\"starved\":0,\"still\
    _down\":0,\"storm_peak\":0,\"task\":\"10 clients, messages for 1s, 200/s a client\",\"unan\
    swered\":0,\"unasked\":0,\"unsent\":0,\"url\":\"ws://h/\",\"verify\":false,\"waiting_share\
    \":0.050315982932392936}";
/// Reports, see `properties/reports.rs`.
fn reports() -> Vec<(&'static str, Vec<u8>)> {
    let changed = |from: &str, to: &str| REPORT.replacen(from, to, 1).into_bytes();
    vec![
        ("whole", REPORT.into()),
        ("two_lines", format!("{REPORT}\n{REPORT}\n").into_bytes()),
        ("cut_off", REPORT[..REPORT.len() / 2].into()),
        ("no_schema", b"{}".to_vec()),
        ("another_schema", changed("\"schema\":2", "\"schema\":1")),
        ("absurd_count", changed("\"sent\":", "\"sent\":1844674407370955")),
        ("control_characters", changed("ws://h/", "ws://\\u001b[2J")),
        ("damaged_histogram", changed("\"HISTF", "\"HISTG")),
    ]
}

/// Answers of services, files, variables, see `properties/aws.rs`.
fn services() -> Vec<(&'static str, Vec<u8>)> {
    let whole = |status: u16, body: &str| {
        format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let json = |more: &str, until: &str| {
        whole(
            200,
            &format!(
                "{{\"AccessKeyId\":\"ASIAKEY\",\"SecretAccessKey\":\"a-secret/+=\",\
                 \"Token\":\"a-session/+={more}\",\"Expiration\":\"{until}\"}}"
            ),
        )
    };
    let xml = |key: &str| {
        whole(
            200,
            &format!(
                "<R><Credentials><AccessKeyId>{key}</AccessKeyId>\n<SecretAccessKey>a-secret\
                 </SecretAccessKey><SessionToken>a-session</SessionToken>\
                 <Expiration>2026-11-21T04:19:04Z</Expiration></Credentials></R>"
            ),
        )
    };
    let (later, before) = ("2026-11-21T04:19:04Z", "2026-11-21T03:00:00Z");
    let refused = "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>";
    let chunked = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";
    let counted = "{\"Attributes\":{\"messages\":{\"N\":\"7\"}}}";
    let described = "{\"Table\":{\"TableStatus\":\"ACTIVE\",\
        \"KeySchema\":[{\"AttributeName\":\"connectionId\"}]}}";
    let fault = |kind: &str| whole(400, &format!("{{\"__type\":\"x#{kind}\"}}"));
    let pair = "aws_access_key_id = AKID\naws_secret_access_key=a-secret\n";
    let seeds = [
        ("pod", format!("0pa.token\n\x02\x02{}", json("", later))),
        ("pod_cut", format!("1\x03pa.token\x02\x02{}", json("", later))),
        ("pod_escaped", format!("0p\x02\x02{}", json("\\/", later))),
        ("pod_expired", format!("0p\x02\x02{}", json("", before))),
        ("pod_line_in_token", format!("0px\r\nEvil: y\x02\x02{}", json("\\r\\nE: y", later))),
        ("pod_no_end", "0pt\x02\x02HTTP/1.1 200 X\r\n\r\n{\"AccessKeyId\":".to_owned()),
        ("pod_nested", format!("0pt\x02\x02{chunked}fff\r\n[[[[[[[[\x01\x08\u{ff}")),
        ("role", format!("0wa.b-c~d=\x02\x02{}", xml("ASIAKEY"))),
        ("role_line_in_key", format!("0wt\x02\x02{}", xml("A\r\nEvil: y"))),
        ("role_refused", format!("0wt\x02\x02{}", whole(403, refused))),
        ("role_too_long", "0wt\x02\x02HTTP/1.1 200 X\r\n\r\naaaaaaaa\x01\u{80}\u{ff}\x01\u{ff}\u{ff}".to_owned()),
        ("counted", format!("0d{}", whole(200, counted))),
        ("counted_in_chunks", format!("0d{chunked}{:x}\r\n{counted}\r\n0\r\n\r\n", counted.len())),
        ("described", format!("0d{}", whole(200, described))),
        ("throttled", format!("0d{}", fault("ThrottlingException"))),
        ("no_table", format!("0d{}", fault("ResourceNotFoundException"))),
        ("unknown_fault", format!("0d{}", fault("\\u2603Exception\\n"))),
        ("server_in_trouble", format!("0d{}", whole(503, "<html>"))),
        ("file", format!("0k# ours\n[default]\n{pair}region=x\n")),
        ("file_of_two", format!("0k[a]\r\n{pair}[b]\n{}", pair.replace("AKID", "AKID2"))),
        ("file_twice", format!("0k[a]\n{pair}[b]\n{pair}")),
        ("file_half", "0k[a]\naws_access_key_id=A\n".to_owned()),
        ("keys_of_the_environment", "0eAWS_REGION=x\nAWS_ACCESS_KEY_ID=A\nAWS_SECRET_ACCESS_KEY=a-secret\nAWS_SESSION_TOKEN=a-session".to_owned()),
        ("container", "0eAWS_REGION=x\nAWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1/a?b\nAWS_CONTAINER_AUTHORIZATION_TOKEN=a-secret".to_owned()),
        ("container_elsewhere", "0eAWS_REGION=x\nAWS_CONTAINER_CREDENTIALS_RELATIVE_URI=@h/a".to_owned()),
        ("role_of_the_environment", "0eAWS_REGION=x\nAWS_ROLE_ARN=a b\nAWS_WEB_IDENTITY_TOKEN_FILE=/t\nAWS_ENDPOINT_URL_STS=http://127.0.0.1:1/x".to_owned()),
    ];
    // Bytes that are not text.
    let bytes =
        |text: String| text.chars().map(|char| u8::try_from(char).unwrap_or(b'?')).collect();
    seeds.into_iter().map(|(name, text)| (name, bytes(text))).collect()
}

/// A kind and its data, see `properties/peers.rs`.
const PEERS: &[(&str, &[u8])] = &[
    ("key_file_hex", b"\x0011112222333344445555666677778888111122223333444455556666777788ff\n"),
    ("key_file_base64", b"\0ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=\r\n\r\n"),
    ("key_file_short", b"\0c2hvcnQ=\n"),
    ("key_file_rubbish", b"\0\xff\xfe\n\n"),
    ("id_of_ours", b"\x01\0"),
    ("id_of_ipv6", b"\x01\x01"),
    ("id_changed", b"\x01\0\x20A\x30b"),
    ("id_of_another_key", b"\x01\0\x01z"),
    ("no_key_http", b"\x02GET / HTTP/1.1\r\n\r\n"),
    ("no_key_hello", b"\x02\x01\x07aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb"),
    ("message_post", b"\x03\x02\0\0\0\x01aaaaaaaaaaaaaaaahello"),
    ("message_found", b"\x03\x04\0\0\0\x01aaaaaaaabbbbbbbb\x01:\0\x01x"),
    // Even operations are the owner's wire, odd ones the dialler's.
    ("talk", b"\x04\0\xff\x01\xff\x06\x05\x06\x09\0\xff\x01\xff\x06\x01"),
    ("talk_in_bytes", b"\x04\0\x11\0\x11\x01\x09\x01\x1f\x06\x05\0\x04\0\x30\x01\x05"),
    ("talk_changed", b"\x04\0\xff\x01\xff\x06\x05\x0a\x20\0\xff"),
    ("talk_cut_out", b"\x04\0\xff\x01\xff\x06\x05\x0c\x03\0\xff"),
    ("talk_replayed", b"\x04\0\xff\x01\xff\x06\x05\0\xff\x0e\x22\0\xff"),
];

/// Two bytes per operation, see `properties/gateway.rs`.
const GATEWAYS: &[(&str, &[u8])] = &[
    ("one_message", b"\x00\x00\x02\x00\x06\x00\x03\x00"),
    ("three_in_order", b"\x00\x00\x02\x00\x02\x01\x02\x04\x06\x00\x06\x00\x06\x00\x03\x00"),
    ("close_with_a_queue", b"\x00\x00\x02\x00\x02\x04\x05\x00\x06\x00\x06\x00"),
    ("break_with_a_queue", b"\x00\x00\x02\x00\x02\x04\x04\x00\x06\x00"),
    ("refused_five_times", b"\x00\x00\x02\x00\x0a\x00\x02\x00\x0a\x00\x02\x00\x0a\x00\x02\x00\x0a\x00\x02\x00\x0a\x00\x02\x00\x0c\xff\x02\x00"),
    ("callbacks", b"\x00\x00\x0b\x02\x0b\x00\x0b\x01\x0b\x02\x03\x00"),
];

const HEAD: &[(&str, &[u8])] = &[
    ("get", b"0GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("get_http_1_0", b"0GET / HTTP/1.0\r\n\r\n"),
    (
        "get_with_body",
        b"0GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n",
    ),
    (
        "get_with_chunks",
        b"0GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    ("pipelined_cut_small", b"2\x04\x14GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n\x01\x22\x05"),
    ("empty_line_before", b"0\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("two_empty_lines_before", b"0\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"),
    (
        "two_lengths",
        b"0GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        "length_beside_encoding",
        b"0POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\
        Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("length_with_sign", b"0GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello"),
    ("encoding_twice", b"0GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("bare_lf", b"0GET / HTTP/1.1\nHost: h\n\n"),
    ("bare_cr", b"0GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n"),
    ("folded_line", b"0GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"),
    ("space_before_colon", b"0GET / HTTP/1.1\r\nHost : h\r\n\r\n"),
    ("nul_in_value", b"0GET / HTTP/1.1\r\nHost: h\r\nX: a\0b\r\n\r\n"),
    ("no_colon", b"0GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n"),
    ("host_missing", b"0GET / HTTP/1.1\r\n\r\n"),
    ("host_twice", b"0GET / HTTP/1.1\r\nHost: h\r\nhOST: h\r\n\r\n"),
    ("absolute_target", b"0GET http://h:1/healthz?x HTTP/1.1\r\nHost: h:1\r\n\r\n"),
    ("encoded_path", b"0GET /%68ealthz%2f%zz HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("options_star", b"0OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("connect", b"0CONNECT h:1 HTTP/1.1\r\nHost: h:1\r\n\r\n"),
    ("unknown_method", b"0BREW / HTTP/1.1\r\nHost: h\r\n\r\n"),
    ("http_2_preface", b"0PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("tls_hello", b"0\x16\x03\x02\x02\0\x02\0\xfc\x03\x03"),
    ("line_too_long", b"0GET /aaaaaaaa\x01\x08\xff\x01\xff\x10 HTTP/1.1\r\nHost: h\r\n\r\n"),
    (
        "head_too_large",
        b"0GET / HTTP/1.1\r\nHost: h\r\nX: aaaaaaaa\x01\x08\xff\x01\xff\x19\r\n\r\n",
    ),
    ("too_many_fields", b"0GET / HTTP/1.1\r\nHost: h\r\nX: y\r\n\x01\x06\x65\r\n"),
    (
        "body_too_large",
        b"0GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 9000\r\n\r\naaaaaaaa\x01\x08\xff",
    ),
    (
        "body_of_its_size",
        b"1\xffGET / HTTP/1.1\r\nHost: h\r\nContent-Length: 8192\r\n\r\n\
        aaaaaaaa\x01\x08\xff\x01\xff\x19GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ),
    (
        "chunks_of_one_byte",
        b"1\xbeGET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
        1\r\nX\r\n\x01\x06\xff\x01\xfc\x800\r\n\r\n",
    ),
    (
        "expect_continue",
        b"0POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\
        Expect: 100-continue\r\n\r\nhello",
    ),
    (
        "upgrade_with_frames",
        b"1\x80GET /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x82\0\0\0\0hi\x88\x80\0\0\0\0",
    ),
    (
        "upgrade_with_body",
        b"0GET /echo HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 2\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nhi",
    ),
    (
        "upgrade_to_h2c",
        b"0GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ),
    ("whoami", b"0GET /whoami HTTP/1.1\r\nHost: h\r\nCookie: a=b\r\nX-Y: \x80\xff\r\n\r\n"),
];

const PROXY: &[(&str, &[u8])] = &[
    ("tcp4", b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\nGET / HTTP/1.1\r\n"),
    ("tcp6", b"PROXY TCP6 2001:db8::1 ::1 1234 80\r\n"),
    ("unknown", b"PROXY UNKNOWN a b c\r\n"),
    ("endless_line", b"PROXY UNKNOWN aaaaaaaa\x01\x08\xff"),
    ("v2_tcp4", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\x0a\0\0\x01\x04\xd2\0\x50"),
    ("v2_local", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ("v2_too_long", b"\r\n\r\n\0\r\nQUIT\n\x21\0\xff\xff"),
    ("v2_too_short", b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x0c\0\0\0\0\0\0\0\0\0\0\0\0"),
    ("no_header", b"GET / HTTP/1.1\r\n"),
];

/// After the cuts, the kind of the request: `0` any, `1` HEAD, `2` an upgrade.
const ANSWERS: &[(&str, &[u8])] = &[
    ("proxy_tunnel", b"2\x04\x144HTTP/1.1 200 Connected\r\nVia: 1.1 p\r\n\r\n"),
    ("proxy_refusal", b"04HTTP/1.0 407 No\r\nProxy-Authenticate: Basic\r\n\r\nno"),
    ("proxy_early_bytes", b"04HTTP/1.1 200\r\n\r\n\x81\x00"),
    ("proxy_ssh", b"04SSH-2.0-OpenSSH_9.6\r\n"),
    ("length", b"00HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1"),
    ("no_content", b"00HTTP/1.1 204 No Content\r\n\r\n"),
    ("not_modified", b"00HTTP/1.1 304\r\nContent-Length: 99999\r\n\r\n"),
    ("head", b"01HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"),
    ("until_close", b"2\x04\x140HTTP/1.0 200 OK\r\n\r\nhello"),
    (
        "chunks",
        b"2\x01\x090HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nA: b\r\n\r\nHTTP",
    ),
    (
        "watch",
        b"00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        8\r\n{\"a\":1}\n\r\n\x01\x0d\xff",
    ),
    ("chunk_of_16_digits", b"00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000000000000001"),
    ("chunk_too_large", b"00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4001\r\n"),
    (
        "trailer_too_large",
        b"00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: bcde\r\n\x01\x09\xff\x01\xff\x10",
    ),
    (
        "trailer_folded",
        b"00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n",
    ),
    (
        "interim",
        b"00HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    ("interim_for_ever", b"00HTTP/1.1 100 Continue\r\n\r\n\x01\x19\xff"),
    ("upgraded", b"02HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x00"),
    ("upgraded_unasked", b"00HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    ("connection_close", b"00HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\n!"),
    ("equal_lengths", b"00HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 01\r\n\r\n!"),
    ("two_lengths", b"00HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n!"),
    (
        "length_beside_encoding",
        b"00HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("length_in_a_list", b"00HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n!"),
    ("encodings", b"00HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
    ("chunked_1_0", b"00HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("folded_line", b"00HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"),
    ("bare_lf", b"00HTTP/1.1 200 OK\n\n"),
    ("bare_cr", b"00HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n"),
    ("empty_line_before", b"00\r\nHTTP/1.1 200 OK\r\n\r\n"),
    ("bytes_beyond_ascii", b"00HTTP/1.1 200 \xc3\xa9\r\nA: \xff\r\n\r\n"),
    ("no_reason", b"00HTTP/1.1 200\r\n\r\n"),
    ("status_600", b"00HTTP/1.1 600 X\r\n\r\n"),
    ("status_of_two_digits", b"00HTTP/1.1 99 X\r\n\r\n"),
    ("version_2", b"00HTTP/2 200\r\n\r\n"),
    ("ssh", b"00SSH-2.0-OpenSSH_9.2p1\r\n"),
    ("tls_alert", b"00\x15\x03\x03\0\x02\x02\x46"),
    ("head_too_large", b"00HTTP/1.1 200 OK\r\nA: aaaaaaaa\x01\x08\xff\x01\xff\x19\r\n\r\n"),
    ("too_many_fields", b"00HTTP/1.1 200 OK\r\nX: y\r\n\x01\x06\x65\r\n"),
    ("body_too_large", b"00HTTP/1.1 200 OK\r\n\r\naaaaaaaa\x01\x08\xff\x01\xff\x50"),
    ("status_of_a_long_body", b"03HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nabc"),
    (
        "status_of_a_long_chunk",
        b"03HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n4001\r\nabc",
    ),
    ("status_until_close", b"03HTTP/1.1 200 OK\r\n\r\naaaaaaaa\x01\x08\xff\x01\xff\x50"),
    ("cut_off", b"00HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"),
    ("nothing", b"00"),
];

/// The first byte leaves out lines of a valid request: `@` none, `A` the first, `B` Host, `D`
/// Connection, `H` Upgrade, `P` the version, `` ` `` the key. Lines end with LF.
const HANDSHAKE: &[(&str, &[u8])] = &[
    ("flawless", b"@"),
    ("http_1_0", b"AGET /echo HTTP/1.0\nOrigin: http://example.test"),
    ("post", b"APOST /echo HTTP/1.1\n"),
    ("host_empty", b"BHost:\nOrigin: http://"),
    ("host_v6", b"BHost: [::1]:80\nOrigin: http://[::1]\n"),
    ("connection_missing", b"D"),
    ("upgrade_twice", b"HUpgrade: h2c\nUpgrade: a, WebSocket\n"),
    ("version_8", b"PSec-WebSocket-Version: 8\n"),
    ("version_list", b"PSec-WebSocket-Version: 13, 8\n"),
    ("version_twice", b"@Sec-WebSocket-Version: 13\n"),
    ("key_twice", b"@Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n"),
    ("key_of_15_bytes", b"`Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\n"),
    ("key_without_padding", b"`Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA\n"),
    ("key_with_stray_bits", b"`Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAB==\n"),
    ("key_with_spaces", b"`Sec-WebSocket-Key:  \tAAAAAAAAAAAAAAAAAAAAAA== \n"),
    ("body", b"@Content-Length: 1\n"),
    ("subprotocols", b"@Sec-WebSocket-Protocol: chat, v2.x,,a\nSec-WebSocket-Protocol: b\n"),
    ("subprotocol_twice", b"@Sec-WebSocket-Protocol: chat\nSec-WebSocket-Protocol: a,chat\n"),
    ("subprotocol_is_none", b"@Sec-WebSocket-Protocol: a b\n"),
    ("subprotocols_of_8_kib", b"@Sec-WebSocket-Protocol: a,\x01\x02\xff\x01\xfe\x1e\n"),
    ("deflate", b"@Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n"),
    ("extension_quoted", b"@Sec-WebSocket-Extensions: a; b=\"x, \\\"y; z\", c; d=e\n"),
    ("extension_unclosed", b"@Sec-WebSocket-Extensions: a; b=\"x\\\n"),
    ("extensions_of_8_kib", b"@Sec-WebSocket-Extensions: a;b=\"\\\",\x01\x09\xff\x01\xfc\x14\n"),
    ("backslashes_of_8_kib", b"@Sec-WebSocket-Extensions: a;b=\"\\\\\x01\x02\xff\x01\xfe\x1e\"\n"),
    (
        "deflate_second_offer",
        b"@Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8, \
        permessage-deflate; server_max_window_bits=\"1\\2\"; client_max_window_bits=9\n",
    ),
    ("deflate_in_two_fields", b"@Sec-WebSocket-Extensions: permessage-deflate; x\nSec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\n"),
    (
        "deflate_twice_the_same",
        b"@Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
        server_no_context_takeover\n",
    ),
    (
        "deflate_quotes_in_quotes",
        b"@Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\"1\"0\"\"\n",
    ),
    ("deflate_offers_of_8_kib", b"@Sec-WebSocket-Extensions: permessage-deflate; x,\x01\x16\xff\x01\xff\x02 permessage-deflate\n"),
    ("deflate_parameters_of_8_kib", b"@Sec-WebSocket-Extensions: permessage-deflate;x\x01\x02\xff\x01\xff\x1e\n"),
    ("origin_same", b"@Origin: http://EXAMPLE.test.:8080\n"),
    ("origin_without_port", b"@Origin: https://example.test\n"),
    ("origin_foreign", b"@Origin: http://example.test.evil\n"),
    ("origin_with_user", b"@Origin: http://example.test@evil\n"),
    ("origin_null", b"@Origin: null\n"),
    ("origin_twice", b"@Origin: http://example.test\nOrigin: http://evil\n"),
    ("origin_of_an_extension", b"@Origin: chrome-extension://abc\n"),
    ("forwarded_host", b"@Origin: http://a.b\nX-Forwarded-Host: a.b:1, c\n"),
    ("latin_1", b"@Origin: http://\xe9\nSec-WebSocket-Protocol: \xe9\n"),
];

const UTF8: &[(&str, &[u8])] = &[
    ("empty", b"0"),
    ("ascii", b"0Hello, world"),
    ("greek_in_single_bytes", b"1\x00\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"),
    ("two_three_four_cut_by_three", b"1\x02\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\xc3\xa9"),
    ("ends_inside_of_a_character", b"0ab\xf0\x9d\x84"),
    ("continuation_alone", b"0a\x80"),
    ("overlong_two", b"1\x00a\xc0\xaf"),
    ("overlong_three", b"1\x00\xe0\x9f\xbf"),
    ("overlong_four", b"1\x00\xf0\x8f\xbf\xbf"),
    ("surrogate", b"1\x00\xed\xa0\x80"),
    ("last_character", b"1\x00\xf4\x8f\xbf\xbf"),
    ("beyond_the_last", b"1\x00\xf4\x90\x80\x80"),
    ("no_byte_of_utf8", b"0ok\xffbad"),
    ("second_byte_wrong_across_a_cut", b"1\x03abc\xe2\x28\xa1"),
    ("third_byte_wrong_across_a_cut", b"1\x04abc\xe2\x82\x28"),
    (
        "across_64_bytes",
        b"10aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xe2\x82\xac",
    ),
    (
        "wrong_across_64_bytes",
        b"0aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xe2\x82a",
    ),
];

/// The first byte: 0, 4, 8 and 12 inflate the rest with a limit, 1 lets `miniz_oxide` compress it,
/// 2 compresses it in parts, each with its level, its length in units of 8 bytes, and its data.
const DEFLATE: &[(&str, &[u8])] = &[
    ("wire_of_one_block", b"\x00\xf2\x48\xcd\xc9\xc9\x07\x00"),
    ("wire_of_a_stored_block", b"\x00\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00"),
    ("wire_of_a_last_block", b"\x00\xf3\x48\xcd\xc9\xc9\x07\x00"),
    ("wire_without_an_end", b"\x00\xf3\x48\xcd\xc9\xc9\x07"),
    ("wire_of_two_blocks", b"\x00\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
    ("wire_of_no_bytes", b"\x00"),
    ("wire_of_an_empty_message", b"\x00\x00"),
    ("wire_of_a_takeover", b"\x00\xf2\x00\x11\x00\x00"),
    ("wire_of_no_such_block", b"\x00\x06"),
    ("wire_of_no_such_distance", b"\x00\x4b\x4c\x04\xf2\x00"),
    ("wire_that_is_cut_off", b"\x00\xf2\x48\xcd"),
    ("wire_with_more_behind", b"\x00\xf3\x48\xcd\xc9\xc9\x07\xde\xad"),
    ("wire_of_many_last_blocks", b"\x08\x03\x00\x01\x02\x3f"),
    ("wire_of_too_many_last_blocks", b"\x08\x03\x00\x01\x02\x41"),
    ("wire_of_empty_blocks", b"\x08\x00\x00\x00\xff\xff\x01\x05\xff\x00"),
    ("wire_of_tables", b"\x08\x05\xc0\x81\x08\x00\x00\x00\x00\x20\x7f\xeb\x03\x00"),
    ("wire_of_tables_that_lack_codes", b"\x08\x04\x40\x00\x00\x00\x00\x00\x00\x00"),
    ("wire_of_text_that_is_none", b"\x00\x00\x01\x00\xfe\xff\xff\x00"),
    ("another_ones_text", b"\x09\x06\x00\x09\x10another one's text\x01\x12\x20"),
    ("another_ones_stored_bytes", b"\x0d\x00\x01\x00\x80abcdefgh\x01\x08\xff\x01\xff\x20"),
    ("another_ones_bomb", b"\x05\x09\x00\x03\x00a\x01\x01\xff\x01\xff\xff\x01\xff\xff"),
    ("ours_at_every_level", b"\x02\x00\x02abcdefg\x01\x07\xffhijkl\x01\x02abcdefg\x01\x07\xffhijkl\x05\x02abcdefg\x01\x07\xffhijkl\x08\x02abcdefg\x01\x07\xffhijkl"),
    ("ours_in_a_narrow_window", b"\x02\x00\x02abcdefg\x01\x07\xffhijkl\x09\x02abcdefg\x01\x07\xffhijkl\x12\x02abcdefg\x01\x07\xffhijkl\x08\x02abcdefg\x01\x07\xffhijkl"),
    ("ours_too_short", b"\x02\x36\x01abcdefgh\x3e\x01ijklmnop"),
];

/// The byte after the cuts: the stream follows raw, with this limit of a message.
const UP_TO_125: u8 = 0;
const UP_TO_4000: u8 = 2;

type Seed = (&'static str, Vec<u8>);

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let length = u8::try_from(payload.len()).expect("a short frame");
    let mut frame = vec![first, 0x80 | length];
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

fn raw_frames() -> Vec<Seed> {
    let raw = |style: u8, frames: &[Vec<u8>]| [&[b'0', style][..], &frames.concat()].concat();
    let one = |first: u8, payload: &[u8]| raw(UP_TO_4000, &[masked(first, payload)]);
    let bytes = |frame: &[u8]| raw(UP_TO_4000, &[frame.to_vec()]);
    vec![
        ("text", one(0x81, b"hello")),
        ("text_unmasked", bytes(b"\x81\x05hello")),
        ("binary_empty", one(0x82, b"")),
        ("text_is_not_utf8", one(0x81, b"\xce\xba\xe1\xbd\xff")),
        ("wrong_text_in_half_a_frame", bytes(b"\x81\xfe\x01\x00\0\0\0\0ok\xff")),
        (
            "fragments_with_ping",
            raw(
                UP_TO_4000,
                &[masked(0x01, b"\xe2\x82"), masked(0x89, b"between"), masked(0x80, b"\xac!")],
            ),
        ),
        (
            "fragment_ends_in_wrong_character",
            raw(
                UP_TO_4000,
                &[masked(0x01, b"\xf4"), masked(0x00, b"\x90"), masked(0x80, b"\x80\x80")],
            ),
        ),
        ("continuation_alone", one(0x80, b"a")),
        ("message_inside_message", raw(UP_TO_4000, &[masked(0x01, b"a"), masked(0x81, b"b")])),
        ("ping", raw(UP_TO_125, &[masked(0x89, b"a"), masked(0x89, b""), masked(0x8a, b"x")])),
        ("ping_in_fragments", one(0x09, b"a")),
        ("ping_of_126_bytes", bytes(b"\x89\xfe\x00\x7e")),
        ("reserved_bit_1", one(0xc1, b"a")),
        ("reserved_bit_2", one(0xa1, b"a")),
        ("reserved_opcode_3", one(0x83, b"")),
        ("length_in_eight_bytes_too_many", bytes(b"\x82\xff\0\0\0\0\0\0\0\x01\0\0\0\0a")),
        ("length_with_top_bit", bytes(b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0")),
        ("length_beyond_memory", bytes(b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0")),
        ("too_big_by_its_header", raw(UP_TO_125, &[b"\x82\xfe\x00\x7e\0\0\0\0".to_vec()])),
        ("too_big_in_fragments", raw(UP_TO_125, &[masked(2, &[9; 100]), masked(0x80, &[9; 26])])),
        ("as_big_as_it_may_be", raw(UP_TO_125, &[masked(2, &[9; 100]), masked(0x80, &[9; 25])])),
        ("close", raw(UP_TO_4000, &[masked(0x88, b"\x03\xe8bye"), masked(0x81, b"late")])),
        ("close_without_code", one(0x88, b"")),
        ("close_of_one_byte", one(0x88, b"\x03")),
        ("close_1005", one(0x88, b"\x03\xed")),
        ("close_1014", one(0x88, b"\x03\xf6bad gateway")),
        ("close_reason_is_not_utf8", one(0x88, b"\x03\xe8\xff")),
        ("close_inside_of_a_message", raw(UP_TO_4000, &[masked(1, b"a"), masked(0x88, b"")])),
    ]
}

/// Bit 0 of the style builds a stream: first byte, shape, length, pattern (`properties/frames`).
fn built_frames() -> Vec<Seed> {
    const UP_TO_4000: u8 = 3;
    const UP_TO_70_000: u8 = 5;
    const UP_TO_200_000: u8 = 7;
    /// The peer reads 1 KiB at a time, and late.
    const SLOWLY: u8 = 4 << 3;
    let built = |cuts: &[u8], frames: &[&[u8]]| [cuts, &frames.concat()].concat();
    vec![
        // Shape 3: a boundary length, by its number; from 12 on, around the limit.
        ("echo_from_where_it_lies", built(&[b'0', UP_TO_70_000], &[b"\x82\x03\x05abcd"])),
        ("echo_from_a_block", built(&[b'1', 200, UP_TO_70_000], &[b"\x82\x03\x08abcd"])),
        ("a_map_of_its_own", built(&[b'0', UP_TO_200_000], &[b"\x82\x03\x0babcd\x81\0\x02hihi"])),
        ("text_in_a_map", built(&[b'1', 140, UP_TO_200_000], &[b"\x81\x03\x0b\xf0\x9d\x84\x9e"])),
        ("wrong_text_in_a_map", built(&[b'0', UP_TO_200_000], &[b"\x81\x03\x0ba\xce\xba\xff"])),
        ("at_the_limit", built(&[b'0', UP_TO_4000], &[b"\x82\x03\x0eabcd\x82\x03\x0fabcd"])),
        (
            "fragments_grow_into_a_map",
            built(
                &[b'2', 150, 3, UP_TO_200_000],
                &[
                    b"\x02\x02\x40\x00abcd",
                    b"\x00\x02\x40\x00efgh",
                    b"\x89\0\x04ping",
                    b"\x80\x02\x20\x00ijkl",
                ],
            ),
        ),
        // Shape 0x10: repeated by the next byte; 0x18: more empty fragments than are allowed.
        (
            "more_frames_than_a_turn_has",
            built(&[b'0', UP_TO_4000], &[b"\x81\x10\x01hihi\xff\x81\x10\x01hihi\x10"]),
        ),
        (
            "empty_fragments",
            built(&[b'0', UP_TO_4000], &[b"\x01\0\0aaaa", b"\x00\x18\0aaaa\0", b"\x80\0\x01aaaa"]),
        ),
        (
            "empty_fragments_too_many",
            built(&[b'0', UP_TO_4000], &[b"\x01\0\0aaaa", b"\x00\x18\0aaaa\x01"]),
        ),
        (
            "slow_reader_of_pings",
            built(
                &[b'0', UP_TO_4000 | SLOWLY],
                &[b"\x89\x10\x7dabcd\xff\x89\x10\x7dabcd\xff\x89\x10\x7dabcd\xff"],
            ),
        ),
        (
            "slow_reader_of_much",
            built(
                &[b'1', 190, UP_TO_70_000 | SLOWLY],
                &[b"\x82\x02\x40\x00abcd\x82\x02\x40\x00efgh\x81\x00\x02hihi\x88\0\0"],
            ),
        ),
    ]
}

/// Operations of `properties/server`: the operation, its wire, then its arguments.
const PLAYS: &[(&str, &[&[u8]])] = &[
    ("echo", &[&[0], CONNECT, UPGRADE, HELLO, BYE, &[6, 0]]),
    ("echo_of_300_kib", &[&[2], CONNECT, UPGRADE, &[21, 0, 0x19, 0x4b, 0, b'a', b'b'], BYE]),
    ("half_a_head_and_time", &[&[0], CONNECT, &[18, 0, 0, 20], &[3, 0, 255]]),
    ("silence", &[&[0], CONNECT, &[3, 0, 255]]),
    ("requests_in_a_row", &[&[0], CONNECT, &[16, 0, 0], &[16, 0, 2], &[16, 0, 4], &[16, 0, 5]]),
    ("upgrade_with_body_awaited", &[&[0], CONNECT, &[16, 0, 6], &[3, 0, 255]]),
    ("more_peers_than_places", &[&[0], CONNECT, CONNECT, CONNECT, CONNECT, CONNECT, CONNECT]),
    ("admin_while_draining", &[&[3], CONNECT, &[1, 0], &[2, 0], &[16, 1, 5], &[3, 0, 200]]),
    (
        "drain_with_an_open_message",
        &[
            &[2],
            CONNECT,
            UPGRADE,
            &[21, 0, 0x50, 0x40, 0, b'a', b'b', 9],
            &[2, 0],
            &[3, 0, 200],
            &[3, 0, 200],
        ],
    ),
    ("stop_twice", &[&[3], CONNECT, UPGRADE, &[2, 0], &[3, 0, 100], &[2, 0]]),
    (
        "peer_takes_nothing",
        &[
            &[1],
            CONNECT,
            UPGRADE,
            &[9, 0, 0],
            &[21, 0, 0x29, 0x40, b'a', b'b', 200],
            &[3, 0, 255],
            &[3, 0, 255],
        ],
    ),
    (
        "peer_takes_it_again",
        &[
            &[1],
            CONNECT,
            UPGRADE,
            &[9, 0, 0],
            &[21, 0, 0x29, 0x40, b'a', b'b', 200],
            &[10, 0, 8, 0],
            &[11, 0],
            BYE,
        ],
    ),
    (
        "pushes_to_a_slow_peer",
        &[
            &[1],
            CONNECT,
            &[12, 0, 2],
            &[9, 0, 10],
            &[3, 0, 192],
            &[3, 0, 195],
            &[11, 0],
            &[3, 0, 64],
        ],
    ),
    ("delayed_answers", &[&[0], CONNECT, &[12, 0, 3], HELLO, HELLO, &[3, 0, 1], BYE]),
    (
        "delay_is_full",
        &[
            &[1],
            CONNECT,
            &[12, 0, 4],
            &[21, 0, 0x20, 1, b'a', b'b', 255],
            &[21, 0, 0x20, 1, b'a', b'b', 255],
            &[21, 0, 0x20, 1, b'a', b'b', 255],
            &[21, 0, 0x20, 1, b'a', b'b', 255],
            &[21, 0, 0x20, 1, b'a', b'b', 255],
            &[3, 0, 202],
            BYE,
        ],
    ),
    ("no_descriptors", &[&[0], &[5, 0, 1], CONNECT, &[5, 0, 0], &[3, 0, 100], &[16, 0, 1]]),
    (
        "everything_in_one_turn",
        &[
            &[0],
            &[0x80, 0],
            &[0x8c, 0, 0],
            &[0x95, 0, 0, 2, b'h', b'i'],
            &[0x86, 0],
            &[0x87, 0],
            &[8, 0],
        ],
    ),
    (
        "faults_at_calls",
        &[
            &[0],
            CONNECT,
            &[4, 0, 1],
            UPGRADE,
            &[4, 0, 2],
            HELLO,
            &[4, 0, 0],
            HELLO,
            &[4, 0, 3],
            HELLO,
        ],
    ),
    (
        "keepalive_is_not_answered",
        &[&[3], CONNECT, UPGRADE, &[3, 0, 192], &[3, 0, 192], &[3, 0, 192]],
    ),
    ("reload", &[&[0], CONNECT, &[2, 2], CONNECT, &[2, 2], &[16, 0, 0]]),
    ("deflate_echo", &[&[0], CONNECT, &[12, 0, 8], &[21, 0, 0x09, 0x40, b'a', b'b'], BYE]),
    (
        "deflate_pushes_to_a_slow_peer",
        &[&[1], CONNECT, &[12, 0, 0x12], &[9, 0, 10], &[3, 0, 192], &[3, 0, 195], &[11, 0]],
    ),
    (
        "deflate_bits_on_anything",
        &[
            &[0],
            CONNECT,
            CONNECT,
            &[12, 0, 8],
            &[12, 1, 0],
            &[21, 0, 0x82, 1, 0, 0],
            &[21, 0, 0x83, 1, 0, 0],
            &[21, 1, 0x80, 1, 0, 0],
            &[21, 0, 0x86, 1, 0, 0],
        ],
    ),
    ("noise", &[&[0], CONNECT, &[19, 0, 6], b"\x16\x03\x01\0\0\0", &[3, 0, 200]]),
];
const CONNECT: &[u8] = &[0, 0];
/// To `/echo`, on wire 0.
const UPGRADE: &[u8] = &[12, 0, 0];
const HELLO: &[u8] = &[21, 0, 0, 2, b'h', b'i'];
/// An empty Close.
const BYE: &[u8] = &[21, 0, 7, 0, b'a', b'b'];

/// Answers of an API server: a list of one, then a watch with these lines.
fn watches() -> Vec<(&'static str, Vec<u8>)> {
    let whole = |status: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let object = |name: &str, version: u32| {
        format!(
            "{{\"metadata\":{{\"name\":\"{name}\",\"namespace\":\"n\",\"uid\":\"u\",\
             \"resourceVersion\":\"{version}\"}}}}"
        )
    };
    let metadata = "\"metadata\":{\"resourceVersion\":\"7\"}";
    let listed = whole("200 OK", &format!("{{{metadata},\"items\":[{}]}}", object("a", 5)));
    let line = |kind: &str, object: &str| format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n");
    let watch = |lines: &str, end: &str| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("0{listed}\x02\x02{head}{:x}\r\n{lines}\r\n{end}", lines.len())
    };
    let stream = |lines: &str, end: &str| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        format!("0\x03{head}{:x}\r\n{lines}\r\n{end}", lines.len())
    };
    let annotations = "\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}";
    let annotated = format!("\"metadata\":{{\"resourceVersion\":\"7\",{annotations}}}");
    let end = line("BOOKMARK", &format!("{{{annotated}}}"));
    let added = line("ADDED", &object("a", 5));
    let gone = whole("410 X", "") + "\x02\x02";
    let stream_end = stream(&end, "0\r\n\r\n").split_off(2);
    let page = "{\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"x\"},\"items\":[]}";
    let (a, b) = (line("MODIFIED", &object("a", 8)), line("DELETED", &object("a", 9)));
    let seeds = [
        ("a_list", format!("0{listed}")),
        ("modified_and_deleted", watch(&(a.clone() + &b), "0\r\n\r\n")),
        ("added", watch(&line("ADDED", &object("b", 8)), "")),
        ("expired", watch(&line("ERROR", "{\"code\":410}"), "")),
        ("expired_and_listed", watch(&line("ERROR", "{\"code\":410}"), "\x02\x02") + &listed),
        ("no_json", watch("<html>\n{}\nnull\n", "5\r\n{\"a\":\r\n")),
        ("bookmark", watch(&line("BOOKMARK", &format!("{{{metadata}}}")), "0\r\n\r\n")),
        ("bookmark_without_version", watch(&line("BOOKMARK", "{}"), "0\r\n\r\n")),
        ("cut_short", watch(&a, "ff\r\n{\"type\":\"ADDED\",\"object\":{\"meta")),
        ("forbidden", format!("0{}", whole("403 No", "{}"))),
        ("html", format!("0{}", whole("200 OK", "<html>"))),
        (
            "a_page_that_is_gone",
            format!("0{}\x02\x02{}", whole("200 OK", page), whole("410 X", "")),
        ),
        ("two_answers_at_once", format!("0{listed}{listed}")),
        ("stream", stream(&(added.clone() + &end + &b), "0\r\n\r\n")),
        ("stream_without_an_end", stream(&added, "0\r\n\r\n")),
        ("stream_that_lacks_an_object", stream(&(added + &end), "\x02\x02") + &gone + &stream_end),
    ];
    seeds.into_iter().map(|(name, text)| (name, text.into_bytes())).collect()
}
