//! Hostile compressed messages: bombs, streams that end too early, too late or too often, and valid
//! messages that resemble these.

use wspulse::behaviours::Kind;

use super::{Client, end, others_are_served};
use crate::compression;
use crate::harness::Harness;
use crate::peer::{self, frame};

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate";
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

fn agreed(harness: &mut Harness) -> Client {
    let mut client = Client::connect(harness);
    let lines = client.exchange(harness, &peer::upgrade("/echo", &[OFFER]));
    assert!(lines.len() == 1 && lines[0].contains("permessage-deflate"), "{lines:?}");
    client
}

/// The answer to a compressed binary message, and the state of the connection.
fn answer(wire: &[u8]) -> (Vec<String>, &'static str) {
    let mut harness = Harness::new(&[]);
    let mut client = agreed(&mut harness);
    let output = client.exchange(&mut harness, &frame(0xc2, wire));
    let how = end(&harness, client.wire);
    assert_eq!(harness.driver.engine().memory(), 0, "memory is left behind");
    others_are_served(&mut harness);
    (output, how)
}

fn refused(wire: &[u8], close: &str) {
    let (output, how) = answer(wire);
    assert!(output.len() == 1 && output[0].starts_with(close) && how == "fin", "{output:?} {how}");
}

fn echoed(wire: &[u8], length: usize) {
    let (output, how) = answer(wire);
    let fits = |line: &str| line.ends_with(&format!("binary ({length} bytes)"));
    assert!(output.len() == 1 && fits(&output[0]) && how == "open", "{output:?} {how}");
}

/// Complete blocks, with the empty block of the flush left in, so that more can follow.
fn flushed(payload: &[u8]) -> Vec<u8> {
    [&compression::compressed(9, payload)[..], &[0, 0, 0xff, 0xff]].concat()
}

/// Incompressible bytes.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// 64 MiB of zeros in about 64 KiB.
fn bomb() -> Vec<u8> {
    flushed(&vec![0; MIB]).repeat(64)
}

#[test]
fn bombs_are_rejected_without_being_stored() {
    let bomb = bomb();
    assert!(bomb.len() < 80 * KIB, "{} bytes are no bomb", bomb.len());
    refused(&bomb, "close 1009 ");
    // Incompressible data first.
    let late = [&flushed(&noise(100 * KIB))[..], &bomb].concat();
    refused(&late, "close 1009 ");
    // One byte too many.
    refused(&compression::compressed(9, &vec![0; MIB + 1]), "close 1009 ");
    echoed(&compression::compressed(9, &vec![0; MIB]), MIB);
}

#[test]
fn a_fragmented_bomb_is_stored_compressed() {
    let mut harness = Harness::new(&[]);
    let mut client = agreed(&mut harness);
    let bomb = bomb();
    let parts: Vec<&[u8]> = bomb.chunks(1000).collect();
    for (at, part) in parts.iter().enumerate() {
        let first = if at == 0 { 0x42 } else { 0 };
        assert!(client.exchange(&mut harness, &frame(first, part)).is_empty());
        let memory = harness.driver.engine().memory();
        assert!(memory <= 2 * bomb.len() + 8 * KIB, "{memory} bytes for {}", (at + 1) * 1000);
    }
    let output = client.exchange(&mut harness, &frame(0x80, b""));
    assert_eq!(output, ["close 1009 \"message too big\""]);
    others_are_served(&mut harness);
}

#[test]
fn dense_messages_within_the_limit_are_accepted() {
    // So dense at first that it seems to exceed the limit.
    let payload = [vec![0; 200 * KIB], noise(300 * KIB)].concat();
    echoed(&compression::compressed(9, &payload), payload.len());
    // Around the size of an inflate step.
    for length in [64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 128 * KIB] {
        echoed(&compression::compressed(9, &noise(length)), length);
        echoed(&compression::compressed(9, &vec![7; length]), length);
    }
    // A message of the maximum size that is longer than that when compressed.
    let wire = compression::compressed(0, &noise(MIB));
    assert!(wire.len() > MIB);
    echoed(&wire, MIB);
}

#[test]
fn streams_that_end_too_often() {
    let ended = compression::compressed_final(9, b"x");
    echoed_short(&ended.repeat(64), &"x".repeat(64));
    refused(&ended.repeat(66), "close 1007 ");
    refused(&compression::compressed_final(9, b"").repeat(MIB / 4), "close 1007 ");
    // RFC 7692 §7.2.3.4: a final block, then an empty one.
    echoed_short(&[&ended[..], &[0]].concat(), "x");
    refused(&[&ended[..], &[0, 0]].concat(), "close 1007 ");
}

fn echoed_short(wire: &[u8], message: &str) {
    let (output, how) = answer(wire);
    assert_eq!((output, how), (vec![format!("binary {message:?}")], "open"));
}

#[test]
fn streams_that_end_too_early() {
    let whole = compression::compressed(9, b"a message, a message, and one more message");
    for length in 0..whole.len() {
        refused(&whole[..length], "close 1007 ");
    }
    let large = compression::compressed(6, &noise(200 * KIB));
    for length in [2, 1000, 64 * KIB, large.len() - 1] {
        refused(&large[..length], "close 1007 ");
    }
}

#[test]
fn a_damaged_message_does_not_affect_later_ones() {
    let mut harness = Harness::new(&[]);
    let mut harmless = agreed(&mut harness);
    let message = "all is well ".repeat(100);
    for damage in [&b"\x06"[..], b"\xf2\x48\xcd", &bomb(), &flushed(&noise(70 * KIB))[..KIB]] {
        let mut harmful = agreed(&mut harness);
        let output = harmful.exchange(&mut harness, &frame(0xc1, damage));
        assert!(output[0].starts_with("close 100"), "{output:?}");
        let output =
            harmless.exchange(&mut harness, &peer::compressed(Kind::Text, message.as_bytes()));
        assert_eq!(output, [format!("compressed text ({} bytes)", message.len())]);
    }
}

#[test]
fn utf8_is_checked_across_inflate_steps() {
    let mut harness = Harness::new(&[]);
    let mut client = agreed(&mut harness);
    // Characters of three bytes: one spans the end of each step of 64 KiB.
    let text = "€".repeat(100_000);
    let output = client.exchange(&mut harness, &peer::compressed(Kind::Text, text.as_bytes()));
    // The echo is too long to be compressed in one step.
    assert_eq!(output, ["text (300000 bytes)"]);
    let cut = &text.as_bytes()[..text.len() - 1];
    let output = client.exchange(&mut harness, &peer::compressed(Kind::Text, cut));
    assert_eq!(output, ["close 1007 \"text is not UTF-8\""]);
}

#[test]
fn incompressible_messages_are_sent_uncompressed() {
    let mut harness = Harness::new(&[]);
    let mut client = agreed(&mut harness);
    for length in [511, 512, 10_000, 200_000] {
        let output = client.exchange(&mut harness, &frame(0x82, &noise(length)));
        assert_eq!(output, [format!("binary ({length} bytes)")]);
    }
}
