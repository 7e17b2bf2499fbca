//! A watch, taken apart into its lines as it arrives. A line counts when its end has come: what
//! is cut short is nothing. One that is too long is dropped, and said to have been.

use super::limits::OBJECT_BYTES;

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line.
    kept: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Within,
    /// What was kept was a whole line, which has been told.
    Told,
    /// This line is too long.
    Dropping,
}

/// A line, or the loss of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

impl Lines {
    /// The next line in `bytes`, which it takes off their front; `None`: more bytes are needed.
    pub(super) fn next<'l, 'b: 'l>(&'l mut self, bytes: &mut &'b [u8]) -> Option<Line<'l>> {
        if self.state == State::Told {
            self.state = State::Within;
            // A long line's memory is not kept for the short ones that follow.
            self.kept = Vec::new();
        }
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            if self.kept.len() + bytes.len() > OBJECT_BYTES {
                self.state = State::Dropping;
                self.kept = Vec::new();
            }
            if self.state == State::Within {
                self.kept.extend_from_slice(bytes);
            }
            *bytes = &[];
            return None;
        };
        let line = &bytes[..end];
        *bytes = &bytes[end + 1..];
        if self.state == State::Dropping || self.kept.len() + line.len() > OBJECT_BYTES {
            self.state = State::Told;
            return Some(Line::TooLong);
        }
        if self.kept.is_empty() {
            return Some(Line::Whole(line));
        }
        self.kept.extend_from_slice(line);
        self.state = State::Told;
        Some(Line::Whole(&self.kept))
    }

    /// What it holds.
    pub(super) fn cost(&self) -> usize {
        self.kept.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        let mut lines = Lines::default();
        let mut said = Vec::new();
        for mut bytes in parts {
            while let Some(line) = lines.next(&mut bytes) {
                said.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::TooLong => "too long".to_owned(),
                });
            }
        }
        said
    }

    #[test]
    fn lines_are_the_same_wherever_they_are_cut() {
        let text = b"one\n\ntwo two\nthr";
        let want = ["one", "", "two two"];
        for size in 1..=text.len() {
            assert_eq!(lines(text.chunks(size)), want, "in pieces of {size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped() {
        let text = [&b"a\n"[..], &vec![b'x'; 9_000_000], b"\nb\n"].concat();
        for size in [1000, 64 * 1024, text.len()] {
            assert_eq!(lines(text.chunks(size)), ["a", "too long", "b"]);
        }
    }
}
