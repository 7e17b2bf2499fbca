//! Splits a watch into lines as it arrives. A line without its end is never returned; one that is
//! too long is reported as soon as it is, and skipped.

use super::limits::OBJECT_BYTES;

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of an incomplete line.
    kept: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Within,
    /// `kept` is a line that was returned.
    Returned,
    /// Within a line that was reported as too long.
    Dropping,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

impl Lines {
    /// Takes the next line off the front of `bytes`; `None`: more bytes are needed.
    pub(super) fn next<'l, 'b: 'l>(&'l mut self, bytes: &mut &'b [u8]) -> Option<Line<'l>> {
        if self.state == State::Returned {
            self.state = State::Within;
            // Free the memory of a long line.
            self.kept = Vec::new();
        }
        let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
            let rest = std::mem::take(bytes);
            if self.state == State::Dropping {
                return None;
            }
            if self.kept.len() + rest.len() > OBJECT_BYTES {
                self.state = State::Dropping;
                self.kept = Vec::new();
                return Some(Line::TooLong);
            }
            self.kept.extend_from_slice(rest);
            return None;
        };
        let line = &bytes[..end];
        *bytes = &bytes[end + 1..];
        if self.state == State::Dropping {
            self.state = State::Within;
            return self.next(bytes);
        }
        if self.kept.len() + line.len() > OBJECT_BYTES {
            self.state = State::Returned;
            return Some(Line::TooLong);
        }
        if self.kept.is_empty() {
            return Some(Line::Whole(line));
        }
        self.kept.extend_from_slice(line);
        self.state = State::Returned;
        Some(Line::Whole(&self.kept))
    }

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
        let endless = vec![b'x'; 9_000_000];
        assert_eq!(lines(endless.chunks(1000)), ["too long"], "reported before its end");
    }
}
