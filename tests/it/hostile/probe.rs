//! Hostile clients of `?probe=1`: every client may open the far end of `wspulse probe`.

use wspulse::engine::Signal;
use wspulse::limits::{PROBE_HEAD_BYTES, PROBE_MS, PROBES};

use super::{Client, end, others_are_served};
use crate::harness::Harness;
use crate::peer::{self, close, frame, text};

const PROBE: &str = "/echo?probe=1";
/// The output limit of a client, the answers of a turn, allocated in steps, and a read that is held
/// back.
const HELD: usize = 3 * 64 * 1024;

fn held(harness: &Harness) -> usize {
    harness.driver.engine().memory()
}

/// Opens a probe; returns the response, too.
fn open(harness: &mut Harness) -> (Client, String) {
    let mut client = Client::connect(harness);
    let mut lines = client.exchange(harness, &peer::upgrade(PROBE, &[]));
    (client, lines.swap_remove(0))
}

fn probe(harness: &mut Harness) -> Client {
    let (client, response) = open(harness);
    assert!(response.starts_with("101 "), "{response}");
    client
}

/// What `probe:count` says of these fields.
fn counts<const N: usize>(harness: &mut Harness, client: &Client, names: [&str; N]) -> [u64; N] {
    harness.output(client.wire);
    harness.send(client.wire, &text("probe:count"));
    let counts = message(&harness.output(client.wire));
    names.map(|name| counts[name].as_u64().unwrap())
}

/// The JSON of a text message, the only one in this output.
fn message(output: &[u8]) -> serde_json::Value {
    let (first, length) = (output[0], output[1]);
    assert_eq!(first, 0x81);
    let start = if length == 126 { 4 } else { 2 };
    serde_json::from_slice(&output[start..]).unwrap()
}

#[test]
fn commands() {
    let command = |rest: &str| text(&format!("probe:{rest}"));
    let long = "x".repeat(200);
    let in_parts = [frame(0x01, b"probe:clo"), frame(0x00, b"se 40"), frame(0x80, b"00 x")];
    for (input, want) in [
        (command("close 1005"), "a server may send"),
        (command("close 1006 bye"), "a server may send"),
        (command("close 5000"), "a server may send"),
        (command("close"), "a server may send"),
        (command(&format!("close 1000 {long}")), "a server may send"),
        (command("fragments 17"), "from 1 to 16"),
        (command("fragments 18446744073709551616"), "from 1 to 16"),
        (command(&long.repeat(300)), "commands are"),
        (command(&"close 1000 \u{1d11e}".repeat(10_000)), "a server may send"),
        (command("\0\0"), "commands are"),
        (command(""), "commands are"),
        (frame(0x81, b"probe:\xff"), "close 1007"),
        (in_parts.concat(), "close 4000 \"x\""),
        ([frame(0x01, b"a"), command("count")].concat(), "close 1002"),
        (frame(0xc1, b"probe:count"), "close 1002"),
    ] {
        for cut in [input.len(), 1] {
            let mut harness = Harness::new(&[]);
            let mut client = probe(&mut harness);
            client.receive(&mut harness);
            let parts = input.chunks(cut).take(1_000);
            let lines: Vec<String> =
                parts.flat_map(|part| client.exchange(&mut harness, part)).collect();
            let whole = input.len() <= 1_000 || cut > 1;
            assert!(!whole || lines.len() == 1, "{lines:?}");
            assert!(!whole || lines[0].contains(want), "{lines:?} instead of {want}");
            harness.net.reset(client.wire);
            harness.settle();
            assert_eq!((harness.driver.engine().connections(), held(&harness)), (0, 0));
        }
    }
}

#[test]
fn ten_thousand_probes() {
    let mut harness = Harness::new(&["--max-connections", "12000"]);
    harness.net.server().descriptors = 20_000;
    let (mut opened, mut refused) = (Vec::new(), 0);
    for _ in 0..10_000 {
        let (client, response) = open(&mut harness);
        if response.starts_with("101 ") {
            opened.push(client);
        } else {
            assert!(response.starts_with("503 ") && response.contains("retry-after"));
            assert!(response.contains("probe=1"), "{response}");
            refused += 1;
            harness.net.fin(client.wire);
        }
    }
    assert_eq!((opened.len(), refused), (PROBES, 10_000 - PROBES));
    others_are_served(&mut harness);
    assert!(held(&harness) <= PROBES * 1_024, "{} bytes are held", held(&harness));
    assert_eq!(held(&harness), harness.driver.engine().memory_counted());
    for client in &opened {
        harness.net.reset(client.wire);
    }
    harness.settle();
    assert_eq!((harness.driver.engine().connections(), held(&harness)), (0, 0));
}

type EndIt = fn(&mut Harness, usize);

/// However a probe ends, another can be opened.
#[test]
fn each_end_makes_room() {
    let mut harness = Harness::new(&["--ping-interval", "1s", "--pong-timeout", "1s"]);
    let _others: Vec<Client> = (1..PROBES).map(|_| probe(&mut harness)).collect();
    let ends: [(&str, EndIt); 8] = [
        ("a Close", |harness, wire| harness.send(wire, &close(1000, ""))),
        ("probe:close", |harness, wire| {
            harness.send(wire, &[text("probe:close 1000"), close(1000, "")].concat());
        }),
        ("probe:close without an answer", |harness, wire| {
            harness.send(wire, &text("probe:close 1000"));
            harness.pass(10_100);
        }),
        ("a protocol error", |harness, wire| harness.send(wire, &frame(0x83, b""))),
        ("a message that is too long", |harness, wire| {
            harness.send(wire, &[0x82, 0xff, 0, 0, 0, 0, 0xff, 0, 0, 0, 1, 2, 3, 4]);
        }),
        ("FIN", |harness, wire| harness.net.fin(wire)),
        ("RST", |harness, wire| harness.net.reset(wire)),
        ("a peer that does not read", |harness, wire| {
            harness.net.window(wire, 0);
            harness.send(wire, &text("probe:count").repeat(50_000));
            harness.pass(31_000);
        }),
    ];
    for (how, end_it) in ends {
        let client = probe(&mut harness);
        let (_, response) = open(&mut harness);
        assert!(response.starts_with("503 "), "{how}: {response}");
        end_it(&mut harness, client.wire);
        harness.settle();
    }
    probe(&mut harness);
}

/// No ping and no answer keeps it: the limit would otherwise be reached for ever.
#[test]
fn a_probe_has_a_maximum_age() {
    let mut harness = Harness::new(&["--ping-interval", "1s", "--pong-timeout", "1s"]);
    let mut clients: Vec<Client> = (0..PROBES).map(|_| probe(&mut harness)).collect();
    harness.pass(PROBE_MS - 100);
    assert!(open(&mut harness).1.starts_with("503 "));
    for client in &mut clients {
        assert_eq!((client.receive(&mut harness).len(), end(&harness, client.wire)), (0, "open"));
    }
    harness.pass(200);
    for client in &mut clients {
        assert_eq!(client.receive(&mut harness), ["close 1000 \"probe ended\""]);
    }
    harness.pass(10_100);
    assert!(open(&mut harness).1.starts_with("101 "));
}

#[test]
fn the_counters_are_accounted() {
    let mut harness = Harness::new(&[]);
    Client::upgraded(&mut harness, "/echo?ping=10s");
    let before = held(&harness);
    probe(&mut harness);
    let reason = "probe ended".len();
    let own = held(&harness) - before;
    // Nine numbers of 8 bytes, and the reason of its end.
    assert!(own >= before + 9 * 8 + reason, "{own} bytes beside {before}");
}

#[test]
fn a_drain_ends_probes() {
    let mut harness = Harness::new(&["--drain-delay", "0", "--drain-window", "1s"]);
    let mut clients: Vec<Client> = (0..PROBES).map(|_| probe(&mut harness)).collect();
    harness.signal(Signal::Stop);
    harness.pass(1_100);
    for client in &mut clients {
        let lines = client.receive(&mut harness);
        assert!(lines.last().is_some_and(|line| line.starts_with("close 1001 ")), "{lines:?}");
        harness.send(client.wire, &close(1001, ""));
        harness.net.fin(client.wire);
    }
    harness.pass(1_000);
    assert_eq!(harness.exit, Some(0));
}

#[test]
fn commands_of_a_peer_that_does_not_read() {
    let mut harness = Harness::new(&[]);
    for command in ["probe:count", "probe:", "probe:fragments 16"] {
        let client = probe(&mut harness);
        harness.net.window(client.wire, 0);
        for _ in 0..50 {
            harness.send(client.wire, &text(command).repeat(1_000));
            assert!(held(&harness) <= HELD, "{command}: {} bytes are held", held(&harness));
        }
        others_are_served(&mut harness);
        harness.pass(30_100);
        assert_eq!((end(&harness, client.wire), held(&harness)), ("reset", 0));
    }
}

#[test]
fn large_messages_and_many_fragments() {
    let mut harness = Harness::new(&[]);
    let client = probe(&mut harness);
    harness.output(client.wire);
    for _ in 0..20 {
        harness.send(client.wire, &frame(0x82, &vec![7; 1 << 20]));
    }
    let fields = ["messages", "frames", "bytes", "fragments"];
    assert_eq!(counts(&mut harness, &client, fields), [20, 20, 20 << 20, 1]);
    harness.send(client.wire, &frame(0x02, b""));
    for _ in 0..100 {
        harness.send(client.wire, &[frame(0x00, b"x"), frame(0x89, b"")].concat().repeat(1_000));
        assert!(held(&harness) <= 2 * 100_000 + HELD, "{} bytes are held", held(&harness));
    }
    harness.send(client.wire, &frame(0x80, b""));
    assert_eq!(counts(&mut harness, &client, fields), [21, 100_022, (20 << 20) + 100_000, 100_002]);
    assert_eq!(counts(&mut harness, &client, ["pings", "pongs"]), [100_000, 0]);
    // An incomplete message is not counted.
    harness.send(client.wire, &[frame(0x01, b"a"), frame(0x00, b"b"), frame(0x8a, b"")].concat());
    harness.send(client.wire, &frame(0x80, b""));
    assert_eq!(counts(&mut harness, &client, ["messages", "fragments", "pongs"]), [22, 3, 1]);
    harness.net.reset(client.wire);
    harness.settle();
    assert_eq!(held(&harness), 0);
}

/// A request head of 8 KiB grows in JSON, since quotation marks are escaped and bytes that are not
/// UTF-8 become three.
#[test]
fn long_heads() {
    let fields = |value: &[u8], n: usize| -> Vec<u8> {
        (0..n).flat_map(|i| [format!("X{i}: ").as_bytes(), value, b"\r\n"].concat()).collect()
    };
    let long_names: Vec<u8> =
        (0..90).flat_map(|i| format!("{}{i}: \"\"\r\n", "N".repeat(70)).into_bytes()).collect();
    for (target, more) in [
        (PROBE.to_owned(), fields(&[b'a'; 7_000], 1)),
        (PROBE.to_owned(), fields(&[b'"'; 7_000], 1)),
        (PROBE.to_owned(), fields(&[0xff; 7_000], 1)),
        (PROBE.to_owned(), fields(&[0xff; 70], 90)),
        (PROBE.to_owned(), fields(b"\"", 94)),
        (PROBE.to_owned(), long_names),
        (format!("{PROBE}&x={}", "\"".repeat(4_000)), fields(&[0xff; 37], 84)),
        (format!("{PROBE}&x={}", "y".repeat(4_000)), Vec::new()),
    ] {
        let mut harness = Harness::new(&[]);
        let wire = harness.connect();
        let head = peer::upgrade(&target, &[]);
        harness.send(wire, &[&head[..head.len() - 2], &more, b"\r\n"].concat());
        let output = harness.output(wire);
        assert!(output.starts_with(b"HTTP/1.1 101 "), "{}", output.escape_ascii());
        let end = output.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let shown = message(&output[end..]);
        assert!(output.len() - end <= PROBE_HEAD_BYTES + 4, "{} bytes", output.len() - end);
        let in_head = more.split(|byte| *byte == b'\n').count() - 1;
        assert_eq!(shown["headers"].as_object().unwrap().len(), 5 + in_head);
        assert!(shown["target"].as_str().unwrap().starts_with(PROBE));
        assert!(held(&harness) <= 1_024, "{} bytes are held", held(&harness));
    }
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    let field = format!("X: {}", "a".repeat(64 * 1024));
    let lines = client.exchange(&mut harness, &peer::upgrade(PROBE, &[&field]));
    assert!(lines[0].starts_with("431 "), "{lines:?}");
    assert_eq!(end(&harness, client.wire), "fin");
}
