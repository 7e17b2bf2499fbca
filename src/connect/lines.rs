//! Splits input into lines, and escapes output so that it cannot control the terminal.

use std::fmt::Write;

use crate::units::is_plain;

const LINE_BYTES_MAX: usize = 1 << 20;

/// A line is longer than `LINE_BYTES_MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// Bytes at the front that `next` has returned.
    taken: usize,
}

impl Lines {
    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
        let last = self.bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        if self.bytes.len() - last > LINE_BYTES_MAX { Err(TooLong) } else { Ok(()) }
    }

    /// The input has ended: the rest is the last line.
    pub(super) fn finish(&mut self) {
        if self.bytes.last().is_some_and(|&b| b != b'\n') {
            self.bytes.push(b'\n');
        }
    }

    /// The next complete line, without its line ending.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let rest = &self.bytes[self.taken..];
        let end = rest.iter().position(|&b| b == b'\n')?;
        let mut line = rest[..end].to_vec();
        self.taken += end + 1;
        line.pop_if(|last| *last == b'\r');
        Some(line)
    }
}

/// Escapes control characters other than tabs, and characters that are invisible or change the
/// direction of what follows.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\t' || is_plain(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_debug());
        }
    }
    shown
}

/// How many rows of a terminal this takes; one if the terminal's width is not known.
pub(super) fn rows(text: &str, columns: usize) -> usize {
    let (mut rows, mut at) = (1, 0);
    for c in text.chars().filter(|_| columns > 0) {
        let width = match c {
            // The cursor stops at the last column.
            '\t' => (8 - at % 8).min(columns.saturating_sub(at)),
            _ if is_wide(c) => 2,
            _ => 1,
        };
        if at + width > columns {
            (rows, at) = (rows + 1, 0);
        }
        at += width;
    }
    rows
}

/// Whether a terminal shows this in two columns (UAX #11). Characters without a width of their own
/// count as one, since a row too many harms less than one too few.
fn is_wide(c: char) -> bool {
    matches!(u32::from(c),
        0x1100..=0x115f | 0x231a..=0x231b | 0x23e9..=0x23f3 | 0x25fd..=0x27bf | 0x2b1b..=0x2b55
        | 0x2e80..=0xa4cf | 0xa960..=0xa97c | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe10..=0xfe6f
        | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x16fe0..=0x18df2 | 0x1aff0..=0x1b2fb
        | 0x1f000..=0x3fffd)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_from_any_chunks() {
        let text = b"one\ntwo\r\n\nlast";
        for cut in 1..=text.len() {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            for piece in text.chunks(cut) {
                assert_eq!(lines.extend(piece), Ok(()));
                seen.extend(std::iter::from_fn(|| lines.next()));
            }
            lines.finish();
            seen.extend(std::iter::from_fn(|| lines.next()));
            assert_eq!(seen, [&b"one"[..], b"two", b"", b"last"]);
        }
        let mut lines = Lines::default();
        assert_eq!(lines.extend(&vec![b'x'; LINE_BYTES_MAX + 1]), Err(TooLong));
    }

    #[test]
    fn rows_of_a_terminal() {
        for (text, columns, want) in [
            ("", 4, 1),
            ("abcd", 4, 1),
            ("abcde", 4, 2),
            ("abcdefghi", 4, 3),
            ("a\tb", 8, 2),
            ("a\tb", 9, 1),
            ("\t\t\t", 10, 1),
            ("\u{65e5}\u{672c}\u{8a9e}", 5, 2),
            ("\u{65e5}\u{672c}\u{8a9e}", 6, 1),
            ("abc", 0, 1),
            ("\u{65e5}a", 1, 3),
        ] {
            assert_eq!(rows(text, columns), want, "{text:?} {columns}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(visible("h\u{e9}\t\x1b[2J\n"), "h\u{e9}\t\\u{1b}[2J\\n");
        assert_eq!(visible("a\u{202e}b\u{200b}c"), "a\\u{202e}b\\u{200b}c");
        assert_eq!(hex(b"\0\xff"), "00ff");
    }
}
