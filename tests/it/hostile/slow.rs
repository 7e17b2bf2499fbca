//! Slow and vanishing clients: deadlines, half-closes, resets.

use super::{Client, end, get, others_are_served};
use crate::harness::Harness;
use crate::peer::{self, close, frame, text};

#[test]
fn a_head_in_8192_writes_costs_no_more() {
    let mut harness = Harness::new(&[]);
    let client = Client::connect(&mut harness);
    let head = get(format!("X: {}", "a".repeat(8_192 - get("X: ").len())));
    assert_eq!(head.len(), 8_192);
    let before = harness.net.state().calls;
    for byte in &head[..head.len() - 1] {
        harness.send(client.wire, &[*byte]);
        let memory = harness.driver.engine().memory();
        assert!(memory <= 2 * 8_192, "{memory} bytes for one head");
    }
    let calls = harness.net.state().calls - before;
    assert!(calls <= 2 * 8_192, "{calls} calls for as many bytes");
}

#[test]
fn a_head_of_a_byte_a_second() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    let head = get("X: never ends");
    let mut output = Vec::new();
    for (second, byte) in head.iter().enumerate().take(12) {
        output.extend(client.exchange(&mut harness, &[*byte]));
        assert_eq!(output.is_empty(), second < 10, "after {second} s: {output:?}");
        harness.pass(1_000);
        output.extend(client.receive(&mut harness));
        if second == 9 {
            harness.pass(16);
            output.extend(client.receive(&mut harness));
        }
    }
    assert!(output.len() == 1 && output[0].starts_with("408 "), "{output:?}");
    assert!(output[0].contains("connection=\"close\""), "{output:?}");
}

#[test]
fn the_head_timeout_of_a_later_request_starts_at_its_first_byte() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    assert_eq!(client.exchange(&mut harness, &get("")).len(), 1);
    harness.pass(60_000);
    client.exchange(&mut harness, b"GET");
    harness.pass(9_900);
    assert_eq!(end(&harness, client.wire), "open");
    harness.pass(200);
    let output = client.receive(&mut harness);
    assert!(output.len() == 1 && output[0].starts_with("408 "), "{output:?}");
}

#[test]
fn a_silent_client_is_closed() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    harness.pass(9_900);
    assert_eq!(end(&harness, client.wire), "open");
    harness.pass(200);
    assert_eq!(end(&harness, client.wire), "closed");
    assert_eq!(client.receive(&mut harness), [""; 0], "a silent client gets no response");
}

#[test]
fn half_a_request_and_a_fin() {
    for half in [&b"G"[..], b"GET / HTTP/1.1\r\nHo", b"GET / HTTP/1.1\r\nHost: h\r\n\r"] {
        let mut harness = Harness::new(&[]);
        let mut client = Client::connect(&mut harness);
        client.exchange(&mut harness, half);
        harness.net.fin(client.wire);
        harness.settle();
        assert_eq!(end(&harness, client.wire), "closed");
        assert_eq!(client.receive(&mut harness), [""; 0]);
        assert_eq!(harness.driver.engine().connections(), 0);
    }
}

#[test]
fn half_a_request_and_a_reset() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::connect(&mut harness);
    client.exchange(&mut harness, b"GET / HTTP/1.1\r\nHo");
    harness.net.reset(client.wire);
    harness.settle();
    assert_eq!(client.receive(&mut harness), [""; 0]);
    assert_eq!(harness.driver.engine().connections(), 0);
    others_are_served(&mut harness);
}

#[test]
fn head_has_no_body() {
    let mut harness = Harness::new(&[]);
    let wire = harness.connect();
    for path in ["/healthz", "/version", "/", "/nope"] {
        let ask = |method: &str| format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        harness.send(wire, ask("GET").as_bytes());
        let get = String::from_utf8(harness.output(wire)).unwrap();
        harness.send(wire, ask("HEAD").as_bytes());
        let head = String::from_utf8(harness.output(wire)).unwrap();
        let (fields, body) = get.split_once("\r\n\r\n").unwrap();
        assert_eq!(head, format!("{fields}\r\n\r\n"), "{path}");
        assert!(fields.contains(&format!("Content-Length: {}", body.len())), "{path}");
    }
}

#[test]
fn a_byte_a_second_of_a_declared_mebibyte() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    let message = frame(0x82, &vec![b'x'; 1 << 20]);
    client.exchange(&mut harness, &message[..14]);
    for byte in &message[14..74] {
        client.exchange(&mut harness, &[*byte]);
        let held = harness.driver.engine().memory();
        assert!(held <= 4_096 + 512, "{held} bytes are held for 60 that came");
        harness.pass(1_000);
    }
    assert_eq!(end(&harness, client.wire), "open", "any byte answers a ping");
    client.exchange(&mut harness, &message[74..]);
    assert_eq!(harness.driver.engine().memory(), 0);
}

#[test]
fn a_message_of_the_maximum_size() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    let output = client.exchange(&mut harness, &frame(0x82, &vec![b'x'; 1 << 20]));
    assert_eq!(output, ["binary (1048576 bytes)"]);
    let output = client.exchange(&mut harness, &frame(0x02, &vec![b'x'; 1 << 20]));
    assert_eq!(output, [""; 0]);
    // Refused at the header, before any payload.
    let output = client.exchange(&mut harness, &frame(0x80, b"x")[..6]);
    assert!(output.len() == 1 && output[0].starts_with("close 1009 "), "{output:?}");
    assert_eq!(harness.driver.engine().memory(), 0);
}

#[test]
fn invalid_utf8_is_refused_at_the_first_bad_byte() {
    for (good, bad) in [
        (&b"ok"[..], 0xff),
        (b"", 0x80),
        (b"\xe2\x98", b'x'),
        (b"\xed", 0xa0),
        (b"\xf4", 0x90),
        (b"\xe0", 0x80),
        (b"", 0xc0),
    ] {
        let mut harness = Harness::new(&[]);
        let mut client = Client::upgraded(&mut harness, "/echo");
        let sent = [good, &[bad], &[b' '; 100]].concat();
        // The first of three frames, most of which is never sent.
        let first = frame(0x01, &sent);
        let output = client.exchange(&mut harness, &first[..6 + good.len()]);
        assert_eq!(output, [""; 0], "{good:02x?} is the beginning of something");
        let output = client.exchange(&mut harness, &first[6 + good.len()..=6 + good.len()]);
        assert!(
            output.len() == 1 && output[0].starts_with("close 1007 "),
            "{good:02x?}: {output:?}"
        );
        assert_eq!(end(&harness, client.wire), "fin");
    }
}

/// The server sends its FIN at once; the client has 2 s for its own.
#[test]
fn a_close_without_a_fin() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    let output = client.exchange(&mut harness, &close(1000, ""));
    assert_eq!(output, ["close 1000 \"\""]);
    assert_eq!(end(&harness, client.wire), "fin");
    harness.pass(1_950);
    assert_eq!(end(&harness, client.wire), "fin");
    harness.pass(100);
    assert_eq!(end(&harness, client.wire), "closed");
    assert_eq!(harness.driver.engine().connections(), 0);
}

#[test]
fn a_ping_without_an_answer() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    let start_ns = harness.now_ns();
    let mut output = Vec::new();
    for _ in 0..4_800 {
        harness.pass(10);
        let at_ms = (harness.now_ns() - start_ns) / 1_000_000;
        output.extend(client.receive(&mut harness).into_iter().map(|line| (at_ms, line)));
        if end(&harness, client.wire) == "fin" && output.len() == 2 {
            output.push((at_ms, "fin".to_owned()));
        }
    }
    let [(ping_ms, ping), (close_ms, close), (fin_ms, _)] = &output[..] else {
        panic!("{output:?}");
    };
    assert!(ping.starts_with("ping ") && (16_000..=24_020).contains(ping_ms), "{output:?}");
    assert_eq!(close, "close 1011 \"keepalive ping timeout\"");
    assert!((20_000..=20_040).contains(&(close_ms - ping_ms)) && *fin_ms <= 44_060, "{output:?}");
    assert_eq!(end(&harness, client.wire), "closed");
}

#[test]
fn any_byte_answers_a_ping() {
    let mut harness = Harness::new(&[]);
    let mut client = Client::upgraded(&mut harness, "/echo");
    let message = text(&"x".repeat(100));
    for byte in &message[..20] {
        harness.pass(15_000);
        client.exchange(&mut harness, &[*byte]);
        assert_eq!(end(&harness, client.wire), "open");
    }
}

#[test]
fn never_reads_its_echoes() {
    let mut harness = Harness::new(&[]);
    let client = Client::upgraded(&mut harness, "/echo");
    harness.net.window(client.wire, 0);
    let message = frame(0x82, &[b'x'; 1_000]);
    for _ in 0..1_000 {
        harness.send(client.wire, &message);
        let held = harness.driver.engine().memory();
        assert!(held <= 2 * 64 * 1024 + 1_004, "{held} bytes for a peer that reads nothing");
    }
    harness.pass(29_900);
    assert_eq!(end(&harness, client.wire), "open");
    others_are_served(&mut harness);
    harness.pass(2_100);
    assert_eq!(end(&harness, client.wire), "reset");
    assert_eq!((harness.driver.engine().connections(), harness.driver.engine().memory()), (0, 0));
}

#[test]
fn reads_a_byte_now_and_then() {
    let mut harness = Harness::new(&[]);
    let client = Client::upgraded(&mut harness, "/echo");
    harness.net.window(client.wire, 0);
    harness.send(client.wire, &frame(0x82, &vec![b'x'; 50_000]));
    for _ in 0..20 {
        harness.pass(20_000);
        assert_eq!(end(&harness, client.wire), "open", "each byte restarts the timeout");
        harness.net.window(client.wire, 1);
        harness.settle();
    }
    harness.pass(29_900);
    assert_eq!(end(&harness, client.wire), "open");
    harness.pass(200);
    assert_eq!(end(&harness, client.wire), "reset");
}

#[test]
fn a_reset_in_the_middle_of_our_write() {
    let mut harness = Harness::new(&[]);
    let client = Client::upgraded(&mut harness, "/echo");
    harness.net.window(client.wire, 1_000);
    harness.send(client.wire, &frame(0x82, &vec![b'x'; 300_000]));
    assert!(harness.driver.engine().memory() > 250_000);
    harness.net.reset(client.wire);
    harness.settle();
    assert_eq!((harness.driver.engine().connections(), harness.driver.engine().memory()), (0, 0));
    others_are_served(&mut harness);
}

#[test]
fn half_closed_while_echoes_wait() {
    // Few echoes that all wait to be written, and so many that some are not read.
    for n in [3, 300] {
        let mut harness = Harness::new(&[]);
        let mut client = Client::upgraded(&mut harness, "/echo");
        harness.net.window(client.wire, 0);
        harness.send(client.wire, &frame(0x82, &[b'x'; 1_000]).repeat(n));
        harness.net.fin(client.wire);
        harness.settle();
        assert_eq!(end(&harness, client.wire), "open", "{n} echoes wait");
        harness.net.window(client.wire, usize::MAX);
        harness.settle();
        let output = client.receive(&mut harness);
        let (last, echoes) = output.split_last().unwrap();
        assert_eq!(echoes.len(), n, "of {n}, then {last}");
        assert!(echoes.iter().all(|echo| echo == "binary (1000 bytes)"));
        assert_eq!(last, "close 1002 \"ended without a close frame\"");
        assert_eq!(end(&harness, client.wire), "closed");
    }
}

#[test]
fn the_same_key_from_one_address() {
    let mut harness = Harness::new(&["--max-connections", "1000"]);
    harness.net.server().descriptors = 20_000;
    let upgrade = peer::upgrade("/echo", &[]);
    for n in 0..1_010 {
        let mut client = Client::connect(&mut harness);
        let output = client.exchange(&mut harness, &upgrade);
        let want = if n < 1_000 { "101 " } else { "503 " };
        assert!(output.len() == 1 && output[0].starts_with(want), "connection {n}: {output:?}");
    }
}
