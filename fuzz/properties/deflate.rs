//! Compression both ways. Inflating has the verdict of a reference inflater; compressed output is
//! read back by it and by another implementation, has no distance beyond the agreed window, and
//! does not depend on earlier messages.

use wspulse::outbox::Blocks;
use wspulse::proto::deflate::{self, Agreed, COMPRESSED_MIN, Codec, Inflated, Level};
use wspulse::proto::frame::{Fault, Kind};

use super::input::{self, Source};
use super::puff::{self, Wrong};
use crate::compression;

const INPUT_MAX: usize = 4 * 1024;
const PAYLOAD_MAX: usize = 200 * 1024;
/// Limits of a message, below and above the size of one inflate step.
const LIMITS: [usize; 4] = [125, 4_000, 70_000, 300_000];

/// See the module's head. The low bits of the first byte choose what is done with the rest.
pub fn deflate(data: &[u8]) {
    if !deflate::BUILT {
        return;
    }
    let mut source = Source(&data[..data.len().min(INPUT_MAX)]);
    let style = source.byte();
    let limit = LIMITS[usize::from(style >> 2 & 3)];
    let codec = &mut Codec::default();
    match style & 3 {
        0 => inflated(codec, &input::expanded(source.0, PAYLOAD_MAX), limit),
        1 => others(codec, &mut source, limit),
        _ => ours(codec, &mut source),
    }
}

/// A raw message from the wire.
fn inflated(codec: &mut Codec, wire: &[u8], limit: usize) {
    let wanted = puff::message(wire, limit);
    match (inflate(codec, Kind::Binary, wire, limit), &wanted) {
        (Ok(bytes), Ok(puffed)) => {
            assert!(bytes == puffed.bytes, "{} and {} bytes", bytes.len(), puffed.bytes.len());
            if puffed.last_blocks == 0 {
                assert_eq!(compression::inflated(wire).as_ref(), Some(&bytes), "another reader");
            }
        }
        (Err(Fault::TooBig), Err(Wrong::TooBig)) | (Err(Fault::Inflate), Err(Wrong::Damaged)) => {}
        (ours, wanted) => panic!("{:?}, expected {wanted:?}", ours.map(|bytes| bytes.len())),
    }
    let text = inflate(codec, Kind::Text, wire, limit);
    match wanted {
        Ok(puffed) => {
            let valid = std::str::from_utf8(&puffed.bytes).is_ok();
            assert_eq!(text.is_ok(), valid, "{text:?}");
            assert!(valid || text == Err(Fault::Utf8), "{text:?}");
        }
        // Which of two faults is reported depends on the position of the invalid text.
        Err(_) => assert!(text.is_err()),
    }
}

fn inflate(codec: &mut Codec, kind: Kind, wire: &[u8], limit: usize) -> Result<Vec<u8>, Fault> {
    match codec.inflate(kind, wire, limit, &mut Blocks::default())? {
        Inflated::Long(block) => Ok(block.bytes().to_vec()),
        Inflated::Short(scratch) => {
            let bytes = scratch.bytes().to_vec();
            codec.give_back(scratch);
            Ok(bytes)
        }
    }
}

/// A message that another implementation compressed: whole, then with changed bytes.
fn others(codec: &mut Codec, source: &mut Source<'_>, limit: usize) {
    let level = i32::from(source.byte() % 11);
    let (cut, change) = (usize::from(source.word()), source.byte());
    let payload = input::expanded(source.0, PAYLOAD_MAX);
    let mut wire = compression::compressed(level, &payload);
    let whole = inflate(codec, Kind::Binary, &wire, PAYLOAD_MAX);
    assert!(whole.as_ref() == Ok(&payload), "{:?}", whole.map(|bytes| bytes.len()));
    inflated(codec, &wire, limit);
    let at = cut % wire.len();
    wire[at] ^= change;
    inflated(codec, &wire, limit);
    wire.truncate(at);
    inflated(codec, &wire, limit);
}

/// Messages of ours, one after the other.
fn ours(codec: &mut Codec, source: &mut Source<'_>) {
    while !source.is_empty() {
        let how = source.byte();
        let level = Level::new(1 + how % 9).expect("there is such a level");
        let window_bits = 9 + (how / 9) % 7;
        let length = usize::from(source.byte()) * 8;
        let payload = input::expanded(source.take(length), PAYLOAD_MAX);
        let agreed = Agreed::new(level, window_bits);
        let mut frame = b"before".to_vec();
        let compressed = codec.compress(agreed, Kind::Binary, &payload, &mut frame);
        let mut alone = b"before".to_vec();
        Codec::default().compress(agreed, Kind::Binary, &payload, &mut alone);
        assert!(
            frame == alone,
            "earlier messages change the output: {} {}",
            frame.len(),
            alone.len()
        );
        let frame = frame.strip_prefix(b"before").expect("earlier bytes are kept");
        if !compressed {
            assert!(frame.is_empty());
            continue;
        }
        let wire = payload_of(frame);
        assert!(wire.len() < payload.len() && payload.len() >= COMPRESSED_MIN);
        let puffed = puff::message(wire, PAYLOAD_MAX).expect("the reference inflates it");
        assert!(puffed.bytes == payload, "the reference reads something else");
        assert!(puffed.farthest <= 1 << window_bits, "{} bytes back", puffed.farthest);
        assert_eq!(puffed.last_blocks, 0);
        assert!(compression::inflated(wire) == Some(payload), "another reader");
        inflated(codec, wire, PAYLOAD_MAX);
    }
}

/// The payload of one compressed frame.
fn payload_of(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0xc2);
    let (size, length) = match frame[1] {
        126 => (4, usize::from(u16::from_be_bytes([frame[2], frame[3]]))),
        127 => (10, frame[2..10].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
        short => (2, usize::from(short)),
    };
    assert_eq!(frame.len(), size + length, "the header has the length");
    &frame[size..]
}
