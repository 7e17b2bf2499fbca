//! The fast path of an echo sends the same bytes as the general path. A server that logs payloads
//! always takes the general path.

use wspulse::rng::Rng;

use crate::harness::Harness;
use crate::os::End;
use crate::peer::{close, frame, upgrade};

/// More frames in one read than a turn handles, and more than the fast path has room for.
const FRAMES: u64 = 600;

/// Random frames, most of them short and valid.
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

/// What a client receives, how its connection ends, and the traffic metrics.
fn outcome(args: &[&str], parts: &[&[u8]]) -> (Vec<u8>, Option<End>, Vec<String>) {
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
fn the_fast_path_sends_what_the_general_path_sends() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut frames = Vec::new();
        for _ in 0..rng.below(FRAMES) {
            next(&mut rng, &mut frames);
        }
        let (front, back) = frames.split_at(rng.below(frames.len() as u64 + 1) as usize);
        let fast = outcome(&[], &[front, back]);
        assert_eq!(fast, outcome(&["--log-payloads"], &[front, back]), "seed {seed}");
        assert!(fast.2.len() >= 6, "traffic is counted: {:?}", fast.2);
    }
}
