//! Strict reader of a server's output on a WebSocket.

use crate::compression;

/// A message or control frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A compressed message, inflated.
    Compressed(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    /// The code is 1005 if there is none.
    Close(u16, Vec<u8>),
}

/// The output after the 101; `None` if the output does not begin with a complete 101.
pub fn after_upgrade(output: &[u8]) -> Option<&[u8]> {
    let head = output.starts_with(b"HTTP/1.1 101 ").then_some(output)?;
    let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&output[end + 4..])
}

/// All messages and control frames, and the number of bytes after the last complete frame. Panics
/// if a frame violates RFC 6455.
pub fn frames(mut bytes: &[u8]) -> (Vec<Frame>, usize) {
    let mut all = Vec::new();
    // The first byte and the payload so far of a fragmented message.
    let mut parts: Option<(u8, Vec<u8>)> = None;
    while let Some((first, payload, rest)) = frame(bytes) {
        bytes = rest;
        let (first, payload) = match (first, parts.take()) {
            (0x01 | 0x02, None) => {
                parts = Some((first, payload.to_vec()));
                continue;
            }
            (0x00 | 0x80, Some((begun, mut message))) => {
                message.extend_from_slice(payload);
                if first == 0x00 {
                    parts = Some((begun, message));
                    continue;
                }
                (begun | 0x80, message)
            }
            (0x88..=0x8a, unfinished) => {
                parts = unfinished;
                (first, payload.to_vec())
            }
            (_, None) => (first, payload.to_vec()),
            (_, Some(_)) => panic!("frame {first:02x} inside a message"),
        };
        let frame = decoded(first, &payload);
        assert!(
            !matches!(all.last(), Some(Frame::Close(..))),
            "a frame follows a Close: {frame:?}"
        );
        all.push(frame);
    }
    (all, bytes.len())
}

/// The first byte of a frame, its payload, and the rest.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, second], mut rest) = bytes.split_first_chunk::<2>()?;
    assert!(second < 0x80, "a server does not mask");
    let length = match second {
        126 => {
            let (wide, after) = rest.split_first_chunk::<2>()?;
            rest = after;
            assert!(u16::from_be_bytes(*wide) > 125, "a length is not minimal");
            usize::from(u16::from_be_bytes(*wide))
        }
        127 => {
            let (wide, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            assert!(u64::from_be_bytes(*wide) > 0xffff, "a length is not minimal");
            usize::try_from(u64::from_be_bytes(*wide)).expect("a length that fits")
        }
        small => usize::from(small),
    };
    assert!(first & 8 == 0 || length <= 125, "a control frame of {length} bytes");
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first, payload, rest))
}

fn decoded(first: u8, payload: &[u8]) -> Frame {
    match first {
        0x81 => {
            assert!(std::str::from_utf8(payload).is_ok(), "text is not UTF-8");
            Frame::Text(payload.to_vec())
        }
        0x82 => Frame::Binary(payload.to_vec()),
        0xc1 | 0xc2 => {
            let message = compression::inflated(payload).expect("compressed data is valid");
            assert!(first == 0xc2 || std::str::from_utf8(&message).is_ok(), "text is not UTF-8");
            Frame::Compressed(message)
        }
        0x88 => match payload {
            [] => Frame::Close(1005, Vec::new()),
            [high, low, reason @ ..] => {
                assert!(std::str::from_utf8(reason).is_ok(), "a reason is not UTF-8");
                Frame::Close(u16::from_be_bytes([*high, *low]), reason.to_vec())
            }
            [_] => panic!("a Close of one byte"),
        },
        0x89 => Frame::Ping,
        0x8a => Frame::Pong(payload.to_vec()),
        other => panic!("invalid frame: {other:02x}"),
    }
}
