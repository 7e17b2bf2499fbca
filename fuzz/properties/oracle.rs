//! Reference reader of a client's frames: the faults of the frame that ends the stream. Slow,
//! simple, and written from RFC 6455 alone; it decides which of two readers is right.

use std::collections::BTreeSet;

/// Faults, by close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wrong {
    /// 1002
    Protocol,
    /// 1007
    Utf8,
    /// 1009
    TooBig,
    /// 1008, our own limit.
    EmptyFragments,
}

/// The frame that ends a stream.
#[derive(Debug, Default)]
pub struct Last {
    /// All faults in the received part of the frame.
    pub wrong: BTreeSet<Wrong>,
    /// A length that is not minimal, or with its top bit set.
    pub wasteful_length: bool,
    /// It is a Close with this code.
    pub close_code: Option<u16>,
    /// At least this many bytes are missing.
    pub missing: usize,
}

#[derive(Debug)]
struct Frame<'b> {
    first: u8,
    second: u8,
    /// Present once the header is complete.
    header: Option<Header>,
    masked_payload: &'b [u8],
    len: usize,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    length: u64,
    mask: [u8; 4],
    wasteful: bool,
}

/// The message that further fragments belong to.
#[derive(Debug, Default)]
struct Message {
    text: bool,
    bytes: Vec<u8>,
    empty_fragments: usize,
}

/// The limits of all readers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub message: usize,
    pub empty_fragments: usize,
}

/// Reads up to the frame that ends the stream: a Close, an invalid or an incomplete one.
pub fn last_frame(mut bytes: &[u8], limits: Limits) -> Last {
    let mut message: Option<Message> = None;
    loop {
        let frame = match read(bytes) {
            Ok(frame) => frame,
            Err(missing) => return Last { missing, ..Last::default() },
        };
        let payload = frame.payload();
        let mut last = Last { missing: frame.missing(), ..Last::default() };
        wrong_at_first_sight(&frame, &mut last.wrong);
        if let Some(header) = frame.header {
            last.wasteful_length = header.wasteful;
            wrong_header(&frame, header, message.as_ref(), limits, &mut last.wrong);
        }
        if frame.first & 8 != 0 {
            if frame.first & 15 == 8 && last.missing == 0 {
                wrong_close(&payload, &mut last);
                return last;
            }
        } else if frame.first & 15 <= 2 && last.wrong.is_empty() {
            let begun = Message { text: frame.first & 15 == 1, ..Message::default() };
            let message = message.get_or_insert(begun);
            message.bytes.extend_from_slice(&payload);
            let whole = last.missing == 0 && frame.first & 0x80 != 0;
            wrong_text(message, whole, &mut last.wrong);
        }
        if !last.wrong.is_empty() || last.missing > 0 {
            return last;
        }
        if frame.first & 8 == 0 {
            let empty = frame.first & 0x8f == 0 && payload.is_empty();
            message = message.filter(|_| frame.first & 0x80 == 0);
            if let Some(message) = &mut message {
                message.empty_fragments += usize::from(empty);
            }
        }
        bytes = &bytes[frame.len..];
    }
}

/// A frame, complete or not; `Err`: bytes missing for its first two.
fn read(bytes: &[u8]) -> Result<Frame<'_>, usize> {
    let &[first, second, ref rest @ ..] = bytes else { return Err(2 - bytes.len()) };
    let (wide, short) = match second & 0x7f {
        126 => (2, 126_u64),
        127 => (8, 0x1_0000),
        _ => (0, 0),
    };
    let mask_len = if second & 0x80 == 0 { 0 } else { 4 };
    let unfinished = Frame { first, second, header: None, masked_payload: &[], len: bytes.len() };
    let Some((header, payload)) = rest.split_at_checked(wide + mask_len) else {
        return Ok(unfinished);
    };
    let length = match wide {
        0 => u64::from(second & 0x7f),
        _ => header[..wide].iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
    };
    let mut mask = [0; 4];
    mask[..mask_len].copy_from_slice(&header[wide..]);
    let header = Header { length, mask, wasteful: length < short || length >> 63 != 0 };
    let have = usize::try_from(length).unwrap_or(usize::MAX).min(payload.len());
    let len = 2 + wide + mask_len + have;
    Ok(Frame { first, second, header: Some(header), masked_payload: &payload[..have], len })
}

impl Frame<'_> {
    fn payload(&self) -> Vec<u8> {
        let mask = self.header.map_or([0; 4], |header| header.mask);
        self.masked_payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key).collect()
    }

    fn missing(&self) -> usize {
        match self.header {
            // At least one byte of the header is missing.
            None => 1,
            Some(header) => usize::try_from(header.length)
                .unwrap_or(usize::MAX)
                .saturating_sub(self.masked_payload.len()),
        }
    }
}

/// RFC 6455 §5.1, §5.2, §5.5: faults in the first two bytes.
fn wrong_at_first_sight(frame: &Frame<'_>, wrong: &mut BTreeSet<Wrong>) {
    let Frame { first, second, .. } = *frame;
    let control = first & 8 != 0;
    let reserved = first & 0x30 != 0 || matches!(first & 15, 3..=7 | 11..=15);
    let bad_control = control && (first & 0x80 == 0 || second & 0x7f > 125);
    if reserved || bad_control || second & 0x80 == 0 {
        wrong.insert(Wrong::Protocol);
    }
}

/// RFC 6455 §5.2, §5.4, and the limits.
fn wrong_header(
    frame: &Frame<'_>,
    header: Header,
    message: Option<&Message>,
    limits: Limits,
    wrong: &mut BTreeSet<Wrong>,
) {
    let opcode = frame.first & 15;
    let alone = opcode == 0 && message.is_none();
    let inside = matches!(opcode, 1 | 2) && message.is_some();
    // RSV1 is checked last, since an extension may use it.
    if header.wasteful || alone || inside || frame.first & 0x40 != 0 {
        wrong.insert(Wrong::Protocol);
    }
    let before = if opcode == 0 { message.map_or(0, |message| message.bytes.len()) } else { 0 };
    if header.length > (limits.message - before) as u64 {
        wrong.insert(Wrong::TooBig);
    }
    let empty = header.length == 0 && frame.first & 0x8f == 0;
    if empty && message.is_some_and(|message| message.empty_fragments >= limits.empty_fragments) {
        wrong.insert(Wrong::EmptyFragments);
    }
}

/// RFC 6455 §8.1: text that cannot become valid UTF-8, or ends inside a character.
fn wrong_text(message: &Message, whole: bool, wrong: &mut BTreeSet<Wrong>) {
    if message.text
        && let Err(error) = std::str::from_utf8(&message.bytes)
        && (whole || error.error_len().is_some())
    {
        wrong.insert(Wrong::Utf8);
    }
}

/// RFC 6455 §5.5.1, §7.4; 1014 is in IANA's registry.
fn wrong_close(payload: &[u8], last: &mut Last) {
    match payload {
        [] => last.close_code = Some(1005),
        [_] => {
            last.wrong.insert(Wrong::Protocol);
        }
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            last.close_code = Some(code);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                last.wrong.insert(Wrong::Protocol);
            }
            if std::str::from_utf8(reason).is_err() {
                last.wrong.insert(Wrong::Utf8);
            }
        }
    }
}
