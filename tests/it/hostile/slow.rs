//! Rows that need time, or a peer that hangs up: deadlines, half-closes, resets.

use super::{Client, end, get, others_are_served};
use crate::house::House;
use crate::peer::{self, close, frame, text};

#[test]
fn in_8193_writes_costs_no_more() {
    let mut house = House::new(&[]);
    let client = Client::connect(&mut house);
    let head = get(format!("X: {}", "a".repeat(8_192 - get("X: ").len())));
    assert_eq!(head.len(), 8_192);
    let before = house.wires.state().calls;
    for byte in &head[..head.len() - 1] {
        house.send(client.wire, &[*byte]);
        let memory = house.driver.engine().memory();
        assert!(memory <= 2 * 8_192, "{memory} bytes for one head");
    }
    let calls = house.wires.state().calls - before;
    assert!(calls <= 2 * 8_192, "{calls} calls for as many bytes");
}

#[test]
fn a_byte_a_second() {
    let mut house = House::new(&[]);
    let mut client = Client::connect(&mut house);
    let head = get("X: never ends");
    let mut said = Vec::new();
    for (second, byte) in head.iter().enumerate().take(12) {
        said.extend(client.say(&mut house, &[*byte]));
        assert_eq!(said.is_empty(), second < 10, "after {second} s: {said:?}");
        house.pass(1_000);
        said.extend(client.hear(&mut house));
        if second == 9 {
            house.pass(16);
            said.extend(client.hear(&mut house));
        }
    }
    assert!(said.len() == 1 && said[0].starts_with("408 "), "{said:?}");
    assert!(said[0].contains("connection=\"close\""), "{said:?}");
}

#[test]
fn of_a_later_request_from_its_first_byte() {
    let mut house = House::new(&[]);
    let mut client = Client::connect(&mut house);
    assert_eq!(client.say(&mut house, &get("")).len(), 1);
    house.pass(60_000);
    client.say(&mut house, b"GET");
    house.pass(9_900);
    assert_eq!(end(&house, client.wire), "open");
    house.pass(200);
    let said = client.hear(&mut house);
    assert!(said.len() == 1 && said[0].starts_with("408 "), "{said:?}");
}

#[test]
fn nothing_sent() {
    let mut house = House::new(&[]);
    let mut client = Client::connect(&mut house);
    house.pass(9_900);
    assert_eq!(end(&house, client.wire), "open");
    house.pass(200);
    assert_eq!(end(&house, client.wire), "closed");
    assert_eq!(client.hear(&mut house), [""; 0], "a silent peer is left in silence");
}

#[test]
fn half_a_request_and_the_end() {
    for half in [&b"G"[..], b"GET / HTTP/1.1\r\nHo", b"GET / HTTP/1.1\r\nHost: h\r\n\r"] {
        let mut house = House::new(&[]);
        let mut client = Client::connect(&mut house);
        client.say(&mut house, half);
        house.wires.fin(client.wire);
        house.settle();
        assert_eq!(end(&house, client.wire), "closed");
        assert_eq!(client.hear(&mut house), [""; 0]);
        assert_eq!(house.driver.engine().connections(), 0);
    }
}

#[test]
fn half_a_request_and_a_reset() {
    let mut house = House::new(&[]);
    let mut client = Client::connect(&mut house);
    client.say(&mut house, b"GET / HTTP/1.1\r\nHo");
    house.wires.reset(client.wire);
    house.settle();
    assert_eq!(client.hear(&mut house), [""; 0]);
    assert_eq!(house.driver.engine().connections(), 0);
    others_are_served(&mut house);
}

#[test]
fn head_has_no_body() {
    let mut house = House::new(&[]);
    let wire = house.connect();
    for path in ["/healthz", "/version", "/", "/nope"] {
        let ask = |method: &str| format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        house.send(wire, ask("GET").as_bytes());
        let get = String::from_utf8(house.output(wire)).unwrap();
        house.send(wire, ask("HEAD").as_bytes());
        let head = String::from_utf8(house.output(wire)).unwrap();
        let (fields, body) = get.split_once("\r\n\r\n").unwrap();
        assert_eq!(head, format!("{fields}\r\n\r\n"), "{path}");
        assert!(fields.contains(&format!("Content-Length: {}", body.len())), "{path}");
    }
}

#[test]
fn a_byte_a_second_of_a_declared_mebibyte() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    let message = frame(0x82, &vec![b'x'; 1 << 20]);
    client.say(&mut house, &message[..14]);
    for byte in &message[14..74] {
        client.say(&mut house, &[*byte]);
        let held = house.driver.engine().memory();
        assert!(held <= 4_096 + 512, "{held} bytes are held for 60 that came");
        house.pass(1_000);
    }
    assert_eq!(end(&house, client.wire), "open", "any byte answers a ping");
    client.say(&mut house, &message[74..]);
    assert_eq!(house.driver.engine().memory(), 0);
}

#[test]
fn a_mebibyte_and_no_more() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    let said = client.say(&mut house, &frame(0x82, &vec![b'x'; 1 << 20]));
    assert_eq!(said, ["binary (1048576 bytes)"]);
    let said = client.say(&mut house, &frame(0x02, &vec![b'x'; 1 << 20]));
    assert_eq!(said, [""; 0]);
    // Refused at the header: its one byte of payload need not come.
    let said = client.say(&mut house, &frame(0x80, b"x")[..6]);
    assert!(said.len() == 1 && said[0].starts_with("close 1009 "), "{said:?}");
    assert_eq!(house.driver.engine().memory(), 0);
}

#[test]
fn at_the_first_bad_byte() {
    for (good, bad) in [
        (&b"ok"[..], 0xff),
        (b"", 0x80),
        (b"\xe2\x98", b'x'),
        (b"\xed", 0xa0),
        (b"\xf4", 0x90),
        (b"\xe0", 0x80),
        (b"", 0xc0),
    ] {
        let mut house = House::new(&[]);
        let mut client = Client::upgraded(&mut house, "/echo");
        let sent = [good, &[bad], &[b' '; 100]].concat();
        // The first of three frames, and most of it never comes.
        let first = frame(0x01, &sent);
        let said = client.say(&mut house, &first[..6 + good.len()]);
        assert_eq!(said, [""; 0], "{good:02x?} is the beginning of something");
        let said = client.say(&mut house, &first[6 + good.len()..=6 + good.len()]);
        assert!(said.len() == 1 && said[0].starts_with("close 1007 "), "{good:02x?}: {said:?}");
        assert_eq!(end(&house, client.wire), "fin");
    }
}

/// The list has 10 s; here the end is sent at once, and the peer has 2 s for its own.
#[test]
fn a_close_and_no_end() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    let said = client.say(&mut house, &close(1000, ""));
    assert_eq!(said, ["close 1000 \"\""]);
    assert_eq!(end(&house, client.wire), "fin");
    house.pass(1_950);
    assert_eq!(end(&house, client.wire), "fin");
    house.pass(100);
    assert_eq!(end(&house, client.wire), "closed");
    assert_eq!(house.driver.engine().connections(), 0);
}

#[test]
fn a_ping_without_an_answer() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    let start_ns = house.now_ns();
    let mut heard = Vec::new();
    for _ in 0..4_800 {
        house.pass(10);
        let at_ms = (house.now_ns() - start_ns) / 1_000_000;
        heard.extend(client.hear(&mut house).into_iter().map(|line| (at_ms, line)));
        if end(&house, client.wire) == "fin" && heard.len() == 2 {
            heard.push((at_ms, "fin".to_owned()));
        }
    }
    let [(ping_ms, ping), (close_ms, close), (fin_ms, _)] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert!(ping.starts_with("ping ") && (16_000..=24_020).contains(ping_ms), "{heard:?}");
    assert_eq!(close, "close 1011 \"keepalive ping timeout\"");
    assert!((20_000..=20_040).contains(&(close_ms - ping_ms)) && *fin_ms <= 44_060, "{heard:?}");
    assert_eq!(end(&house, client.wire), "closed");
}

#[test]
fn any_byte_is_an_answer() {
    let mut house = House::new(&[]);
    let mut client = Client::upgraded(&mut house, "/echo");
    let message = text(&"x".repeat(100));
    for byte in &message[..20] {
        house.pass(15_000);
        client.say(&mut house, &[*byte]);
        assert_eq!(end(&house, client.wire), "open");
    }
}

#[test]
fn never_reads_its_echoes() {
    let mut house = House::new(&[]);
    let client = Client::upgraded(&mut house, "/echo");
    house.wires.window(client.wire, 0);
    let message = frame(0x82, &[b'x'; 1_000]);
    for _ in 0..1_000 {
        house.send(client.wire, &message);
        let held = house.driver.engine().memory();
        assert!(held <= 2 * 64 * 1024 + 1_004, "{held} bytes for a peer that reads nothing");
    }
    house.pass(29_900);
    assert_eq!(end(&house, client.wire), "open");
    others_are_served(&mut house);
    house.pass(2_100);
    assert_eq!(end(&house, client.wire), "reset");
    assert_eq!((house.driver.engine().connections(), house.driver.engine().memory()), (0, 0));
}

#[test]
fn reads_a_byte_now_and_then() {
    let mut house = House::new(&[]);
    let client = Client::upgraded(&mut house, "/echo");
    house.wires.window(client.wire, 0);
    house.send(client.wire, &frame(0x82, &vec![b'x'; 50_000]));
    for _ in 0..20 {
        house.pass(20_000);
        assert_eq!(end(&house, client.wire), "open", "each byte starts the time anew");
        house.wires.window(client.wire, 1);
        house.settle();
    }
    house.pass(29_900);
    assert_eq!(end(&house, client.wire), "open");
    house.pass(200);
    assert_eq!(end(&house, client.wire), "reset");
}

#[test]
fn a_reset_in_the_middle_of_our_write() {
    let mut house = House::new(&[]);
    let client = Client::upgraded(&mut house, "/echo");
    house.wires.window(client.wire, 1_000);
    house.send(client.wire, &frame(0x82, &vec![b'x'; 300_000]));
    assert!(house.driver.engine().memory() > 250_000);
    house.wires.reset(client.wire);
    house.settle();
    assert_eq!((house.driver.engine().connections(), house.driver.engine().memory()), (0, 0));
    others_are_served(&mut house);
}

#[test]
fn half_closed_while_echoes_wait() {
    // A few that all wait to be written, and so many that some are not even read.
    for n in [3, 300] {
        let mut house = House::new(&[]);
        let mut client = Client::upgraded(&mut house, "/echo");
        house.wires.window(client.wire, 0);
        house.send(client.wire, &frame(0x82, &[b'x'; 1_000]).repeat(n));
        house.wires.fin(client.wire);
        house.settle();
        assert_eq!(end(&house, client.wire), "open", "{n} echoes wait");
        house.wires.window(client.wire, usize::MAX);
        house.settle();
        let said = client.hear(&mut house);
        let (last, echoes) = said.split_last().unwrap();
        assert_eq!(echoes.len(), n, "of {n}, then {last}");
        assert!(echoes.iter().all(|echo| echo == "binary (1000 bytes)"));
        assert_eq!(last, "close 1002 \"ended without a close frame\"");
        assert_eq!(end(&house, client.wire), "closed");
    }
}

#[test]
fn the_same_key_from_one_address() {
    let mut house = House::new(&["--max-connections", "1000"]);
    house.wires.state().descriptors = 20_000;
    let upgrade = peer::upgrade("/echo", &[]);
    for n in 0..1_010 {
        let mut client = Client::connect(&mut house);
        let said = client.say(&mut house, &upgrade);
        let want = if n < 1_000 { "101 " } else { "503 " };
        assert!(said.len() == 1 && said[0].starts_with(want), "connection {n}: {said:?}");
    }
}
