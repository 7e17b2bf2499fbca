//! Answers each text reversed, as JSON. Also sends a welcome, and a message every 5 s that shows a
//! client how long its server was alive.

use super::{Answer, Behaviour, Close, Ctx, Kind};
use crate::time;

/// Interval of the unsolicited messages.
const ALIVE_MS: u64 = 5_000;

/// The time of the next unsolicited message.
#[derive(Debug, Default)]
pub(super) struct Reverse {
    alive_ns: u64,
}

/// An answer with an empty message, for its length.
const TEMPLATE: &str = r#"{"message":"","time":"2026-11-28T10:00:00.000Z"}"#;

/// Appends the answer. Not a serializer, since the length must be known in advance: escaped
/// control characters take six bytes each.
fn answer(answer: &mut Vec<u8>, message: &str, time: &str) {
    answer.extend_from_slice(br#"{"message":""#);
    if message.is_ascii() {
        reverse_ascii(answer, message.as_bytes());
    } else {
        for character in message.chars().rev() {
            match u8::try_from(character) {
                Ok(byte) if byte.is_ascii() => escape(answer, byte),
                _ => answer.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }
    answer.extend_from_slice(br#"","time":""#);
    answer.extend_from_slice(time.as_bytes());
    answer.extend_from_slice(br#""}"#);
}

/// Appends an ASCII character, escaped for a JSON string (RFC 8259 §7).
fn escape(json: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        0x00..0x20 => {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            let code = [b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)];
            return json.extend_from_slice(&code);
        }
        _ => return json.push(byte),
    };
    json.extend_from_slice(&[b'\\', short]);
}

/// Appends ASCII in reverse, eight bytes at a time where none needs escaping.
fn reverse_ascii(json: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.rchunks(8) {
        match chunk.try_into().map(u64::from_le_bytes) {
            Ok(word) if is_plain(word) => json.extend_from_slice(&word.to_be_bytes()),
            Ok(_) | Err(_) => chunk.iter().rev().for_each(|byte| escape(json, *byte)),
        }
    }
}

/// Whether none of these eight bytes needs escaping: no control character, quotation mark or
/// backslash. Compares all bytes of the word at once, by the borrow into each top bit.
fn is_plain(word: u64) -> bool {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = u64::from_le_bytes([0x80; 8]);
    let has_less = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word & TOPS;
    let has = |byte: u8| has_less(word ^ (ONES * u64::from(byte)), 1);
    has_less(word, 0x20) | has(b'"') | has(b'\\') == 0
}

/// The length of a text in a JSON string.
fn escaped_length(text: &str) -> usize {
    let length = |byte: &u8| match byte {
        b'"' | b'\\' | 0x08 | b'\t' | b'\n' | 0x0c | b'\r' => 2,
        0x00..0x20 => 6,
        _ => 1,
    };
    let lengths = text.as_bytes().chunks(8).map(|chunk| match chunk.try_into() {
        Ok(word) if is_plain(u64::from_le_bytes(word)) => 8,
        Ok(_) | Err(_) => chunk.iter().map(length).sum::<usize>(),
    });
    lengths.sum()
}

impl Behaviour for Reverse {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        self.alive_ns = ctx.now.mono_ns + time::ms(ALIVE_MS);
        let welcome = format!("Welcome! {}", time::http_date(ctx.now.wall_ms));
        ctx.send(Kind::Text, welcome.as_bytes());
        None
    }

    fn on_message(&mut self, kind: Kind, payload: &[u8], ctx: &mut Ctx<'_>) -> Answer {
        // Text messages have already been validated as UTF-8.
        let (Kind::Text, Ok(text)) = (kind, std::str::from_utf8(payload)) else {
            return Answer::Close(1003, "text only");
        };
        let length = TEMPLATE.len() + escaped_length(text);
        if let Err(refused) = ctx.check_size(length) {
            return refused;
        }
        let time = time::rfc3339(ctx.now.wall_ms);
        *ctx.work += length as u64;
        ctx.send_with(Kind::Text, length, |json| answer(json, text, &time));
        Answer::Nothing
    }

    fn next_deadline(&self) -> Option<u64> {
        Some(self.alive_ns)
    }

    fn on_wake(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        if self.alive_ns <= ctx.now.mono_ns {
            let alive = format!("Connection is alive {}", time::http_date(ctx.now.wall_ms));
            ctx.send(Kind::Text, alive.as_bytes());
            // Relative to the due time, so that delays do not accumulate; missed ones are skipped.
            self.alive_ns = (self.alive_ns + time::ms(ALIVE_MS)).max(ctx.now.mono_ns);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers have the bytes that a serializer would write and the predicted length.
    #[test]
    fn answers_are_json() {
        let ascii: String = (0..128).map(char::from).collect();
        let mixed: String = (0..0x1_f600).step_by(37).filter_map(char::from_u32).collect();
        let time = "2026-11-28T10:00:00.000Z";
        for text in ["", "abc", "twelve bytes", "eight by\u{1f}", "\u{0}", "é\"x\\", &ascii, &mixed]
        {
            let reversed: String = text.chars().rev().collect();
            let reversed = serde_json::to_string(&reversed).unwrap();
            let json = format!("{{\"message\":{reversed},\"time\":\"{time}\"}}");
            let mut written = Vec::new();
            answer(&mut written, text, time);
            assert_eq!(written.len(), TEMPLATE.len() + escaped_length(text));
            assert_eq!(String::from_utf8(written).unwrap(), json);
        }
    }
}
