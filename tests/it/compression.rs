//! Compression by `miniz_oxide`, which shares no code with `zlib-rs`: each inflates what the other
//! has compressed.

use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

/// What RFC 7692 §7.2.1 leaves out at the end of a message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A message as a sender without context takeover puts it on the wire.
pub(crate) fn compressed(level: i32, payload: &[u8]) -> Vec<u8> {
    let mut wire = stream(level, payload, MZFlush::Sync);
    assert!(wire.ends_with(&TAIL), "a flush ends with an empty block");
    wire.truncate(wire.len() - TAIL.len());
    wire
}

/// The same, with the final bit set in the last block.
#[cfg(feature = "deflate")]
pub(crate) fn compressed_final(level: i32, payload: &[u8]) -> Vec<u8> {
    stream(level, payload, MZFlush::Finish)
}

fn stream(level: i32, payload: &[u8], flush: MZFlush) -> Vec<u8> {
    // Window bits below zero: no zlib header.
    let mut state = CompressorOxide::new(create_comp_flags_from_zip_params(level, -15, 0));
    let mut wire = vec![0; payload.len() * 2 + 64];
    let done = deflate(&mut state, payload, &mut wire, flush);
    assert_eq!(done.bytes_consumed, payload.len());
    wire.truncate(done.bytes_written);
    wire
}

/// The message in this payload; `None` if the data is invalid.
pub(crate) fn inflated(wire: &[u8]) -> Option<Vec<u8>> {
    let mut state = InflateState::new_boxed(DataFormat::Raw);
    let wire = [wire, &TAIL].concat();
    let (mut rest, mut message) = (&wire[..], Vec::new());
    let mut room = vec![0; 64 * 1024];
    loop {
        let done = inflate(&mut state, rest, &mut room, MZFlush::None);
        message.extend_from_slice(&room[..done.bytes_written]);
        rest = &rest[done.bytes_consumed..];
        match done.status {
            Ok(MZStatus::Ok) if done.bytes_written + done.bytes_consumed > 0 => {}
            Ok(MZStatus::Ok) | Err(MZError::Buf) if rest.is_empty() => return Some(message),
            _ => return None,
        }
    }
}
