//! One WebSocket frame (RFC 6455 §5.2): parsing and writing headers, masks, and the payload of a
//! Close. It does not know the frames before and after it; `message` does.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::mask::Charset;

/// The longest header of a client's frame.
pub const CLIENT_HEADER_MAX: usize = 14;
/// Header bytes of a client's frame with at most 125 bytes.
pub const SHORT_HEADER: usize = 6;
/// The longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_MAX: usize = 125;
/// The longest close reason: what a control frame has space for beside the code.
pub const REASON_BYTES_MAX: usize = CONTROL_MAX - 2;
/// Set on the first frame of a compressed message (RFC 7692 §6).
const RSV1: u8 = 0x40;
/// Set beside the length if the payload is masked.
const MASKED: u8 = 0x80;

/// The type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// Arbitrary bytes.
    Binary,
}

impl Kind {
    fn opcode(self) -> u8 {
        match self {
            Self::Text => 1,
            Self::Binary => 2,
        }
    }

    /// The name used in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}

/// The opcode, reserved ones excluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// The first frame of a message.
    Start(Kind),
    /// A later frame of a message.
    Continuation,
    /// The last frame that an endpoint sends.
    Close,
    /// Must be answered with a Pong of the same payload.
    Ping,
    /// The answer to a Ping, or unsolicited.
    Pong,
}

/// Why a WebSocket is failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// RFC 6455 §5.1: a client must mask its frames.
    Unmasked,
    /// RFC 6455 §5.1: a server must not mask its frames.
    Masked,
    /// RFC 6455 §5.2: reserved bits are 0 unless an extension defines them.
    ReservedBits,
    /// RFC 6455 §5.2: opcodes 3–7 and 11–15 are reserved.
    ReservedOpcode,
    /// RFC 6455 §5.5: control frames must not be fragmented.
    ControlFragmented,
    /// RFC 6455 §5.5: control frames have at most 125 bytes.
    ControlTooLong,
    /// RFC 6455 §5.2: a length uses as few bytes as possible, and its top bit is 0.
    LengthInvalid,
    /// RFC 6455 §5.4: a continuation without a message.
    ContinuationAlone,
    /// RFC 6455 §5.4: a new message inside a fragmented one.
    MessageInsideMessage,
    /// RFC 6455 §5.5.1: a Close of one byte.
    CloseTruncated,
    /// RFC 6455 §7.4: a code that must not be sent.
    CloseCodeInvalid,
    /// RFC 6455 §8.1: text that is not UTF-8.
    Utf8,
    /// RFC 7692 §7.2.2: compressed data that cannot be inflated.
    Inflate,
    /// The message exceeds the limit.
    TooBig,
    /// More than [`crate::limits::EMPTY_FRAGMENTS`] in a message.
    EmptyFragments,
    /// The connection ended without a Close frame.
    NoClose,
    /// Memory is short, though the message is within its limit.
    MemoryShort,
}

impl Fault {
    /// The close code to send (RFC 6455 §7.4.1).
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::Unmasked
            | Self::Masked
            | Self::ReservedBits
            | Self::ReservedOpcode
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::LengthInvalid
            | Self::ContinuationAlone
            | Self::MessageInsideMessage
            | Self::CloseTruncated
            | Self::CloseCodeInvalid
            | Self::NoClose => 1002,
            Self::Utf8 | Self::Inflate => 1007,
            Self::EmptyFragments => 1008,
            Self::TooBig => 1009,
            Self::MemoryShort => 1013,
        }
    }

    /// The close reason to send: short, for the author of the peer.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unmasked => "frame is not masked",
            Self::Masked => "frame is masked",
            Self::ReservedBits => "reserved bits are set",
            Self::ReservedOpcode => "reserved opcode",
            Self::ControlFragmented => "control frame is fragmented",
            Self::ControlTooLong => "control frame is longer than 125 bytes",
            Self::LengthInvalid => "length is not minimal",
            Self::ContinuationAlone => "continuation without a message",
            Self::MessageInsideMessage => "new message inside a fragmented one",
            Self::CloseTruncated => "close frame of one byte",
            Self::CloseCodeInvalid => "invalid close code",
            Self::Utf8 => "text is not UTF-8",
            Self::Inflate => "compressed data is damaged",
            Self::TooBig => "message too big",
            Self::EmptyFragments => "too many empty fragments",
            Self::NoClose => "ended without a close frame",
            Self::MemoryShort => "memory is short",
        }
    }
}

/// A parsed frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the frame.
    pub opcode: Opcode,
    /// Whether it is the last frame of its message.
    pub fin: bool,
    /// RSV1: the message is compressed (RFC 7692 §6).
    pub compressed: bool,
    /// The masking key; zeros from a server.
    pub mask: [u8; 4],
    /// Payload bytes.
    pub length: u64,
    /// Bytes of the header itself.
    pub size: usize,
}

/// Parses a client's header at the front of `bytes`; `None` while it is incomplete. Faults in the
/// first two bytes are reported at once, so that the peer gets its Close without delay.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    let opcode = check_first_bytes(first, second)?;
    let (fin, compressed) = (first & 0x80 != 0, first & RSV1 != 0);
    if second & MASKED == 0 {
        return Err(Fault::Unmasked);
    }
    // The fast path: most frames are short, with a header of six bytes.
    if let length @ 0..=125 = second & 0x7f {
        let mask = bytes.get(2..6).and_then(|mask| mask.try_into().ok());
        let length = u64::from(length);
        let size = SHORT_HEADER;
        return Ok(mask.map(|mask| Header { opcode, fin, compressed, mask, length, size }));
    }
    let Some((header, length, size)) = parse_long(bytes)? else { return Ok(None) };
    let mask = header.mask.ok_or(Fault::Unmasked)?;
    Ok(Some(Header { opcode, fin, compressed, mask, length, size }))
}

/// Parses a server's header at the front of `bytes`; `None` while it is incomplete. A server must
/// not mask (RFC 6455 §5.1).
pub fn parse_server(bytes: &[u8]) -> Result<Option<Header>, Fault> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    let opcode = check_first_bytes(first, second)?;
    if second & MASKED != 0 {
        return Err(Fault::Masked);
    }
    let Some((_, length, size)) = parse_long(bytes)? else { return Ok(None) };
    let (fin, compressed) = (first & 0x80 != 0, first & RSV1 != 0);
    Ok(Some(Header { opcode, fin, compressed, mask: [0; 4], length, size }))
}

/// Checks of both directions: no reserved bits (RFC 6455 §5.2), and control frames that are
/// neither fragmented nor too long (§5.5).
fn check_first_bytes(first: u8, second: u8) -> Result<Opcode, Fault> {
    if first & 0x30 != 0 {
        return Err(Fault::ReservedBits);
    }
    let opcode = opcode(first)?;
    if matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong) {
        if first & 0x80 == 0 {
            return Err(Fault::ControlFragmented);
        }
        if usize::from(second & 0x7f) > CONTROL_MAX {
            return Err(Fault::ControlTooLong);
        }
    }
    Ok(opcode)
}

/// Parses a header of any size; returns it, the payload bytes and the header bytes.
fn parse_long(bytes: &[u8]) -> Result<Option<(FrameHeader, u64, usize)>, Fault> {
    let mut cursor = Cursor::new(&bytes[..bytes.len().min(CLIENT_HEADER_MAX)]);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Fault::ReservedOpcode)?;
    let Some((header, length)) = parsed else { return Ok(None) };
    let size = header.len(length);
    // The length is not minimal, or its top bit is set.
    if cursor.position() != size as u64 || length >> 63 != 0 {
        return Err(Fault::LengthInvalid);
    }
    Ok(Some((header, length, size)))
}

/// Whether an unfragmented message of at most 125 bytes may begin here, see [`short_message`].
#[must_use]
pub fn begins_short(bytes: &[u8]) -> bool {
    matches!(bytes, [0x81 | 0x82, 0x80..=0xfd, ..])
}

/// The fast path: an unfragmented message of at most 125 bytes, complete at the front of `bytes`.
/// Returns its kind, mask and payload; on `None` use [`parse`].
#[inline]
#[must_use]
pub fn short_message(bytes: &[u8]) -> Option<(Kind, [u8; 4], &[u8])> {
    let (&[first, second, a, b, c, d], rest) = bytes.split_first_chunk::<SHORT_HEADER>()?;
    let kind = match first {
        0x81 => Kind::Text,
        0x82 => Kind::Binary,
        _ => return None,
    };
    let length = usize::from(second.checked_sub(MASKED)?);
    let payload = rest.get(..length).filter(|_| length <= CONTROL_MAX)?;
    Some((kind, [a, b, c, d], payload))
}

fn opcode(first: u8) -> Result<Opcode, Fault> {
    match OpCode::from(first & 0x0f) {
        OpCode::Data(Data::Continue) => Ok(Opcode::Continuation),
        OpCode::Data(Data::Text) => Ok(Opcode::Start(Kind::Text)),
        OpCode::Data(Data::Binary) => Ok(Opcode::Start(Kind::Binary)),
        OpCode::Control(Control::Close) => Ok(Opcode::Close),
        OpCode::Control(Control::Ping) => Ok(Opcode::Ping),
        OpCode::Control(Control::Pong) => Ok(Opcode::Pong),
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            Err(Fault::ReservedOpcode)
        }
    }
}

/// A server's frame header: a buffer and the number of bytes used.
fn header(opcode: u8, length: usize) -> ([u8; 10], usize) {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode;
    let size = match length {
        0..=125 => {
            bytes[1] = length as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    (bytes, size)
}

/// The header of an unfragmented message: a buffer and the number of bytes used.
#[must_use]
pub fn message_header(kind: Kind, length: usize) -> ([u8; 10], usize) {
    header(kind.opcode(), length)
}

/// The same for a compressed message (RFC 7692 §6).
#[must_use]
pub fn compressed_header(kind: Kind, length: usize) -> ([u8; 10], usize) {
    header(RSV1 | kind.opcode(), length)
}

/// Appends an unfragmented message.
pub fn write_message(out: &mut Vec<u8>, kind: Kind, payload: &[u8]) {
    write(out, kind.opcode(), payload);
}

/// The header of an unfragmented message of at most 125 bytes.
#[must_use]
pub fn short_header(kind: Kind, length: usize) -> [u8; 2] {
    short(kind.opcode(), length)
}

fn short(opcode: u8, length: usize) -> [u8; 2] {
    debug_assert!(length <= CONTROL_MAX, "a short frame");
    [0x80 | opcode, length as u8]
}

/// Appends a message in this many fragments, some of them empty if it is short.
pub fn write_fragmented(out: &mut Vec<u8>, kind: Kind, payload: &[u8], fragments: usize) {
    const FIN: u8 = 0x80;
    for i in 0..fragments {
        let border = |i| payload.len() * i / fragments;
        let start = out.len();
        let opcode = if i == 0 { kind.opcode() } else { 0 };
        write(out, opcode, &payload[border(i)..border(i + 1)]);
        if i + 1 < fragments {
            out[start] &= !FIN;
        }
    }
}

/// Appends a Ping of at most 125 bytes.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, 9, payload);
}

/// Appends a Pong of at most 125 bytes.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, 10, payload);
}

/// Appends a Close; 1005 stands for one without code and reason.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    if code == 1005 {
        return write(out, 8, &[]);
    }
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    debug_assert!(payload.len() <= CONTROL_MAX, "a reason has at most 123 bytes");
    write(out, 8, &payload);
}

fn write(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.reserve(payload.len() + 10);
    if payload.len() <= CONTROL_MAX {
        out.extend_from_slice(&short(opcode, payload.len()));
    } else {
        let (bytes, size) = header(opcode, payload.len());
        out.extend_from_slice(&bytes[..size]);
    }
    out.extend_from_slice(payload);
}

/// RFC 6455 §8.1: text must be UTF-8; ASCII is known to be valid.
pub fn check_text(kind: Kind, charset: Charset, payload: &[u8]) -> Result<(), Fault> {
    let checked = kind == Kind::Text && charset == Charset::Other;
    if checked && simdutf8::basic::from_utf8(payload).is_err() { Err(Fault::Utf8) } else { Ok(()) }
}

/// Parses the unmasked payload of a Close into its code (1005 if there is none) and its reason.
pub fn parse_close(payload: &[u8]) -> Result<(u16, &str), Fault> {
    let (code, reason) = match payload {
        [] => return Ok((1005, "")),
        [_] => return Err(Fault::CloseTruncated),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !may_be_sent(code) {
        return Err(Fault::CloseCodeInvalid);
    }
    std::str::from_utf8(reason).map(|reason| (code, reason)).map_err(|_| Fault::Utf8)
}

/// The meaning of a close code (RFC 6455 §7.4.1, and codes registered since).
#[must_use]
pub fn close_name(code: u16) -> &'static str {
    match code {
        1000 => "OK",
        1001 => "going away",
        1002 => "protocol error",
        1003 => "unsupported data",
        1005 => "no code given",
        1006 => "broken without a Close",
        1007 => "invalid data",
        1008 => "policy violation",
        1009 => "message too big",
        1010 => "extension missing",
        1011 => "internal error",
        1012 => "service restart",
        1013 => "try again later",
        1014 => "bad gateway",
        3000..=3999 => "a library's own",
        4000..=4999 => "the application's own",
        _ => "unknown",
    }
}

/// Whether a Close frame may carry this code (RFC 6455 §7.4).
#[must_use]
pub fn may_be_sent(code: u16) -> bool {
    // 1014 (bad gateway) is in IANA's registry but not in the crate's list.
    CloseCode::from(code).is_allowed() || code == 1014
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_at_the_borders_of_their_lengths() {
        for length in
            [0_u64, 1, 125, 126, 127, 65_535, 65_536, 1 << 31, (1 << 32) + 1, i64::MAX as u64]
        {
            let mut bytes = Vec::new();
            let header = FrameHeader {
                opcode: OpCode::Data(Data::Binary),
                mask: Some([1, 2, 3, 4]),
                ..FrameHeader::default()
            };
            header.format(length, &mut bytes).unwrap();
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{length} cut at {cut}");
            }
            let parsed = parse(&bytes).unwrap().unwrap();
            assert_eq!((parsed.length, parsed.size), (length, bytes.len()));
            if let Ok(length) = usize::try_from(length) {
                let (ours, size) = message_header(Kind::Binary, length);
                assert_eq!(ours[0], bytes[0]);
                assert_eq!(ours[1], bytes[1] & 0x7f);
                assert_eq!(ours[2..size], bytes[2..bytes.len() - 4]);
            }
        }
    }

    #[test]
    fn faults_of_a_header() {
        for (bytes, fault) in [
            (&[0x81, 0x05][..], Fault::Unmasked),
            (&[0xa1, 0x80], Fault::ReservedBits),
            (&[0x91, 0x80], Fault::ReservedBits),
            (&[0x83, 0x80], Fault::ReservedOpcode),
            (&[0x8b, 0x80], Fault::ReservedOpcode),
            (&[0x09, 0x80], Fault::ControlFragmented),
            (&[0x89, 0xfe], Fault::ControlTooLong),
            (&[0x82, 0xfe, 0, 125, 1, 2, 3, 4], Fault::LengthInvalid),
            (&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4], Fault::LengthInvalid),
            (&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], Fault::LengthInvalid),
        ] {
            assert_eq!(parse(bytes), Err(fault), "{bytes:02x?}");
        }
    }

    #[test]
    fn close_codes() {
        for code in
            [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999]
        {
            assert!(may_be_sent(code), "{code}");
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert!(!may_be_sent(code), "{code}");
        }
    }
}
