//! What is typed, line by line, and what is shown so that nothing in it moves a cursor.

use std::fmt::Write;

/// A line has at most so many bytes.
const LINE_MAX: usize = 1 << 20;

/// More bytes without an end than a line may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Bytes that somebody typed.
#[derive(Debug, Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    /// How many of them have been taken.
    taken: usize,
}

impl Lines {
    /// More was typed.
    pub(super) fn extend(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.bytes.drain(..std::mem::take(&mut self.taken));
        self.bytes.extend_from_slice(bytes);
        let last = self.bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        if self.bytes.len() - last > LINE_MAX { Err(TooLong) } else { Ok(()) }
    }

    /// Nothing more will be: what is there is a line.
    pub(super) fn finish(&mut self) {
        if self.bytes.last().is_some_and(|&b| b != b'\n') {
            self.bytes.push(b'\n');
        }
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let rest = &self.bytes[self.taken..];
        let end = rest.iter().position(|&b| b == b'\n')?;
        let mut line = rest[..end].to_vec();
        self.taken += end + 1;
        line.pop_if(|last| *last == b'\r');
        Some(line)
    }
}

/// Text with whatever would move a cursor, or clear a screen, written out.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\t' {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Bytes as digits.
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
    fn lines_wherever_they_are_cut() {
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
        assert_eq!(lines.extend(&vec![b'x'; LINE_MAX + 1]), Err(TooLong));
    }

    #[test]
    fn what_is_shown() {
        assert_eq!(visible("h\u{e9}\t\x1b[2J\n"), "h\u{e9}\t\\u{1b}[2J\\n");
        assert_eq!(hex(b"\0\xff"), "00ff");
    }
}
