//! The short way of an echo says what the usual way says. A server that logs payloads takes only
//! the usual way.

use wspulse::rng::Rng;

use crate::harness::Harness;
use crate::os::End;
use crate::peer::{close, frame, upgrade};

/// One read has more than a turn takes of them, and more than the short way has room for.
const FRAMES: u64 = 600;

/// What a client may send next; most of it is short and in order.
fn next(rng: &mut Rng, frames: &mut Vec<u8>) {
    let length = rng.below(126) as usize;
    let letters = vec![b'a' + rng.below(26) as u8; length];
    match rng.below(400) {
        0 => frames.extend(frame(0x81, &[b"\xff", &letters[..]].concat())),
        1 => frames.extend(close(1000, "done")),
        2 => frames.extend(frame(0x83, &letters)),
        3..10 => frames.extend(frame(0x89, &letters)),
        10..20 => frames.extend(frame(0x82, &letters.repeat(3))),
        20..30 => {
            frames.extend(frame(0x01, &letters));
            frames.extend(frame(0x80, &letters));
        }
        30..130 => frames.extend(frame(0x81, "\u{2603}".repeat(length / 3).as_bytes())),
        130..230 => frames.extend(frame(0x82, &letters)),
        _ => frames.extend(frame(0x81, &letters)),
    }
}

/// What is said to a client, how it ends, and what is counted.
fn said(args: &[&str], parts: &[&[u8]]) -> (Vec<u8>, Option<End>, Vec<String>) {
    let mut harness = Harness::new(args);
    let wire = harness.connect();
    harness.send(wire, &upgrade("/echo", &[]));
    for part in parts {
        harness.send(wire, part);
    }
    let (output, end) = (harness.output(wire), harness.end(wire));
    let admin = harness.net.connect(1);
    harness.send(admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
    let metrics = String::from_utf8(harness.output(admin)).unwrap();
    let counts = ["_messages_", "_received_bytes_", "_sent_bytes_"];
    let traffic = metrics.lines().filter(|line| counts.iter().any(|count| line.contains(count)));
    (output, end, traffic.map(str::to_owned).collect())
}

#[test]
fn the_short_way_says_what_the_usual_way_says() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut frames = Vec::new();
        for _ in 0..rng.below(FRAMES) {
            next(&mut rng, &mut frames);
        }
        let (front, back) = frames.split_at(rng.below(frames.len() as u64 + 1) as usize);
        let short = said(&[], &[front, back]);
        assert_eq!(short, said(&["--log-payloads"], &[front, back]), "seed {seed}");
        assert!(short.2.len() >= 6, "traffic is counted: {:?}", short.2);
    }
}
