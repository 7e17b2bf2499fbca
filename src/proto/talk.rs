//! Frames of a WebSocket client: writes masked frames, and reads a server's frames into complete
//! messages. It knows no connection and no time.

use super::frame::{self, Fault, Kind, Opcode};
use super::mask;

/// The longest message accepted from a server.
pub const MESSAGE_MAX: usize = 16 << 20;

/// Bytes of Pongs that may wait for a server to read.
const PONGS_MAX: usize = 16 * 1024;

/// First bytes of unfragmented messages and of control frames (RFC 6455 §5.2).
pub const TEXT: u8 = 0x81;
/// See [`TEXT`].
pub const BINARY: u8 = 0x82;
/// See [`TEXT`].
pub const CLOSE: u8 = 0x88;
/// See [`TEXT`].
pub const PING: u8 = 0x89;
/// See [`TEXT`].
pub const PONG: u8 = 0x8a;
/// The header of a Pong, and its mask.
const PONG_HEADER: usize = 6;

/// Appends a masked frame (RFC 6455 §5.3); `payload` appends what is in it.
pub fn write(
    out: &mut Vec<u8>,
    first: u8,
    mask: [u8; 4],
    length: usize,
    payload: impl FnOnce(&mut Vec<u8>),
) {
    let (mut header, size) = frame::message_header(Kind::Text, length);
    header[0] = first;
    header[1] |= 0x80;
    out.extend_from_slice(&header[..size]);
    out.extend_from_slice(&mask);
    let start = out.len();
    payload(out);
    debug_assert_eq!(out.len() - start, length, "the payload has the announced length");
    mask::unmask(&mut out[start..], mask, 0);
}

/// Limits the Pongs that are queued for a server: one that pings and does not read would take all
/// memory otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pongs {
    /// Bytes of Pongs since nothing was unsent.
    queued: usize,
}

impl Pongs {
    /// The connection has taken everything.
    pub fn none_unsent(&mut self) {
        self.queued = 0;
    }

    /// Whether a Ping with a payload of this length is to be answered.
    pub fn has_room(&mut self, length: usize) -> bool {
        let room = self.queued < PONGS_MAX;
        if room {
            self.queued += PONG_HEADER + length;
        }
        room
    }
}

/// The payload of a Close.
#[must_use]
pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}

/// A complete message or control frame from a server.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A complete message.
    Message(Kind, Vec<u8>),
    /// Must be answered with a Pong of the same payload.
    Ping(Vec<u8>),
    /// The answer to our Ping.
    Pong(Vec<u8>),
    /// A Close: code and reason.
    Close(u16, String),
}

/// Reads a server's frames as they arrive.
#[derive(Debug, Default)]
pub struct Hearing {
    /// Bytes of an incomplete frame.
    bytes: Vec<u8>,
    /// How many of `bytes` are consumed.
    taken: usize,
    /// The type of a fragmented message and its bytes so far.
    message: Option<(Kind, Vec<u8>)>,
}

impl Hearing {
    /// Adds received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
    }

    /// The next complete message or control frame.
    ///
    /// # Errors
    /// The protocol error; the connection must be failed.
    pub fn poll(&mut self) -> Result<Option<Heard>, Fault> {
        loop {
            let rest = &self.bytes[self.taken..];
            let Some(header) = frame::parse_server(rest)? else { return Ok(None) };
            // No extension was negotiated.
            if header.compressed {
                return Err(Fault::ReservedBits);
            }
            let size = header.size;
            let so_far = self.message.as_ref().map_or(0, |(_, bytes)| bytes.len());
            let length = usize::try_from(header.length).map_err(|_| Fault::TooBig)?;
            if so_far.saturating_add(length) > MESSAGE_MAX {
                return Err(Fault::TooBig);
            }
            let Some(payload) = rest.get(size..size + length) else { return Ok(None) };
            let payload = payload.to_vec();
            self.taken += size + length;
            let fragment = match header.opcode {
                Opcode::Start(kind) => self.fragment(Some(kind), header.fin, payload)?,
                Opcode::Continuation => self.fragment(None, header.fin, payload)?,
                Opcode::Ping => return Ok(Some(Heard::Ping(payload))),
                Opcode::Pong => return Ok(Some(Heard::Pong(payload))),
                Opcode::Close => {
                    let (code, reason) = frame::parse_close(&payload)?;
                    return Ok(Some(Heard::Close(code, reason.to_owned())));
                }
            };
            if fragment.is_some() {
                return Ok(fragment);
            }
        }
    }

    /// Adds a fragment; returns the message after the last one.
    fn fragment(
        &mut self,
        start: Option<Kind>,
        fin: bool,
        payload: Vec<u8>,
    ) -> Result<Option<Heard>, Fault> {
        let (kind, bytes) = match (start, self.message.take()) {
            (Some(kind), None) => (kind, payload),
            (None, Some((kind, mut bytes))) => {
                bytes.extend_from_slice(&payload);
                (kind, bytes)
            }
            (None, None) => return Err(Fault::ContinuationAlone),
            (Some(_), Some(_)) => return Err(Fault::MessageInsideMessage),
        };
        if !fin {
            self.message = Some((kind, bytes));
            return Ok(None);
        }
        if kind == Kind::Text && simdutf8::basic::from_utf8(&bytes).is_err() {
            return Err(Fault::Utf8);
        }
        Ok(Some(Heard::Message(kind, bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything in these bytes, which must not depend on where they are split.
    fn all(bytes: &[u8]) -> Result<Vec<Heard>, Fault> {
        let whole = cut(bytes, bytes.len().max(1));
        assert_eq!(whole, cut(bytes, 1));
        whole
    }

    fn cut(bytes: &[u8], at: usize) -> Result<Vec<Heard>, Fault> {
        let (mut hearing, mut all) = (Hearing::default(), Vec::new());
        for piece in bytes.chunks(at) {
            hearing.extend(piece);
            while let Some(heard) = hearing.poll()? {
                all.push(heard);
            }
        }
        Ok(all)
    }

    #[test]
    fn reading() {
        let mut bytes = Vec::new();
        frame::write_message(&mut bytes, Kind::Text, "h\u{e9}".as_bytes());
        bytes.extend_from_slice(b"\x02\x01a\x89\x01!\x80\x01b\x8a\x00");
        frame::write_close(&mut bytes, 1001, "draining");
        let want = [
            Heard::Message(Kind::Text, "h\u{e9}".into()),
            Heard::Ping(b"!".to_vec()),
            Heard::Message(Kind::Binary, b"ab".to_vec()),
            Heard::Pong(Vec::new()),
            Heard::Close(1001, "draining".to_owned()),
        ];
        assert_eq!(all(&bytes).unwrap(), want);
        for (bytes, fault) in [
            (&b"\x81\x81\0\0\0\0a"[..], Fault::Masked),
            (b"\xc1\x01a", Fault::ReservedBits),
            (b"\x80\x01a", Fault::ContinuationAlone),
            (b"\x01\x01a\x81\x01b", Fault::MessageInsideMessage),
            (b"\x81\x01\xff", Fault::Utf8),
            (b"\x09\x00", Fault::ControlFragmented),
            (b"\x88\x01a", Fault::CloseTruncated),
            (b"\x83\x00", Fault::ReservedOpcode),
            (b"\x82\x7f\x00\x00\x00\x00\xff\xff\xff\xff", Fault::TooBig),
        ] {
            assert_eq!(all(bytes), Err(fault), "{bytes:?}");
        }
    }

    #[test]
    fn writing() {
        let mut out = Vec::new();
        write(&mut out, TEXT, [1, 2, 3, 4], 2, |out| out.extend_from_slice(b"hi"));
        assert_eq!(out, [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]);
        assert_eq!(close_payload(1000, "x"), [3, 232, b'x']);
    }
}
