//! What a server said on a WebSocket, read by somebody who forgives nothing.

use crate::compression;

/// A frame of the server's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    /// A message that is compressed, as it was before.
    Squeezed(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
    /// The code is 1005 when there is none.
    Close(u16, Vec<u8>),
}

/// What follows the answer to an upgrade; `None` if that is not the first that was said, or not
/// all of it was.
pub fn after_upgrade(said: &[u8]) -> Option<&[u8]> {
    let head = said.starts_with(b"HTTP/1.1 101 ").then_some(said)?;
    let end = head.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&said[end + 4..])
}

/// All messages and control frames, and how many bytes follow the last whole frame. Panics when a
/// frame breaks RFC 6455.
pub fn frames(mut bytes: &[u8]) -> (Vec<Said>, usize) {
    let mut all = Vec::new();
    // The first byte of a message that came in parts so far, and its payload.
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
        let said = said(first, &payload);
        assert!(!matches!(all.last(), Some(Said::Close(..))), "a frame follows a Close: {said:?}");
        all.push(said);
    }
    (all, bytes.len())
}

/// The first byte of a frame, its payload, and what follows.
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
            usize::try_from(u64::from_be_bytes(*wide)).expect("a length that memory can have")
        }
        small => usize::from(small),
    };
    assert!(first & 8 == 0 || length <= 125, "a control frame of {length} bytes");
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first, payload, rest))
}

fn said(first: u8, payload: &[u8]) -> Said {
    match first {
        0x81 => {
            assert!(std::str::from_utf8(payload).is_ok(), "text that is no text");
            Said::Text(payload.to_vec())
        }
        0x82 => Said::Binary(payload.to_vec()),
        0xc1 | 0xc2 => {
            let message = compression::inflated(payload).expect("what is compressed can be read");
            assert!(first == 0xc2 || std::str::from_utf8(&message).is_ok(), "text that is no text");
            Said::Squeezed(message)
        }
        0x88 => match payload {
            [] => Said::Close(1005, Vec::new()),
            [high, low, reason @ ..] => {
                assert!(std::str::from_utf8(reason).is_ok(), "a reason that is no text");
                Said::Close(u16::from_be_bytes([*high, *low]), reason.to_vec())
            }
            [_] => panic!("a Close of one byte"),
        },
        0x89 => Said::Ping,
        0x8a => Said::Pong(payload.to_vec()),
        other => panic!("no such frame: {other:02x}"),
    }
}
