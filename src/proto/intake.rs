//! Collects a request as it arrives, in time linear in its bytes and with the same result wherever
//! they are split. `http` and `body` interpret the bytes.

use super::body::Body;
use super::http::is_token;
use super::refusal::Refusal;
use super::words::has_below;
use crate::limits::{HEAD_BYTES, REQUEST_LINE_BYTES};

/// How much of a request has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Waiting,
    /// The head is complete and ends here. Call [`Intake::expect_body`] next.
    Head(usize),
    /// The request is complete and ends here.
    Whole(usize),
}

/// The state of one arriving request. Each call gets all of its bytes so far, but examines only
/// new ones.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// Bytes already examined.
    seen: usize,
    line_start: usize,
    part: Part,
}

#[derive(Clone, Debug, Default)]
enum Part {
    #[default]
    RequestLine,
    Fields,
    Body(Body),
}

impl Intake {
    /// Whether the head is complete and the body is not.
    #[must_use]
    pub fn awaits_body(&self) -> bool {
        matches!(self.part, Part::Body(_))
    }

    /// Where the head ends, once it is complete.
    #[must_use]
    pub fn head_end(&self) -> usize {
        self.line_start
    }

    /// Sets the body that the head announced.
    pub fn expect_body(&mut self, body: Body) {
        self.part = Part::Body(body);
    }

    /// Examines the bytes that arrived since the last call. `bytes` begins with the request.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<Progress, Refusal> {
        if let Part::Body(body) = &mut self.part {
            let (taken, done) = body.take(&bytes[self.seen..])?;
            self.seen += taken;
            return Ok(if done { Progress::Whole(self.seen) } else { Progress::Waiting });
        }
        while self.seen < bytes.len() {
            let start = self.seen;
            if start > 0 && bytes[start - 1] == b'\r' {
                // RFC 9112 §2.2 allows a server to accept a bare LF. Servers that disagree about
                // line ends enable request smuggling, so neither CR nor LF is accepted alone.
                if bytes[start] != b'\n' {
                    return Err(Refusal::BareLineEnd);
                }
                if start >= HEAD_BYTES {
                    return Err(Refusal::HeadTooLarge);
                }
                self.seen += 1;
                if self.end_line(bytes, start)? {
                    return Ok(Progress::Head(self.seen));
                }
                continue;
            }
            let new = &bytes[start..];
            let text = text_before_line_end(new);
            let has_cr = new.get(text) == Some(&b'\r');
            self.seen = start + text + usize::from(has_cr);
            self.check_line(&bytes[..self.seen], start)?;
            if new.get(text) == Some(&b'\n') {
                return Err(Refusal::BareLineEnd);
            }
        }
        Ok(Progress::Waiting)
    }

    /// Checks the bytes from `start`, which belong to one line.
    fn check_line(&self, bytes: &[u8], start: usize) -> Result<(), Refusal> {
        if matches!(self.part, Part::RequestLine) {
            // A ClientHello and other protocols are detected by their first byte.
            if let Some(&first) = bytes.get(self.line_start)
                && start == self.line_start
                && first != b'\r'
                && !is_token(&[first])
            {
                return Err(Refusal::NotHttp);
            }
            if bytes.len() - self.line_start > REQUEST_LINE_BYTES + 1 {
                return Err(Refusal::LineTooLong);
            }
        }
        if bytes.len() > HEAD_BYTES { Err(Refusal::HeadTooLarge) } else { Ok(()) }
    }

    /// Ends the line whose LF is at `at`; returns true for the last line of the head.
    fn end_line(&mut self, bytes: &[u8], at: usize) -> Result<bool, Refusal> {
        let line = &bytes[self.line_start..at - 1];
        let start = std::mem::replace(&mut self.line_start, at + 1);
        match self.part {
            // RFC 9112 §2.2: one empty line before the request is ignored.
            Part::RequestLine if line.is_empty() && start == 0 => Ok(false),
            Part::RequestLine => {
                check_version(line)?;
                self.part = Part::Fields;
                Ok(false)
            }
            Part::Fields => Ok(line.is_empty()),
            Part::Body(_) => Ok(false),
        }
    }
}

/// The length of the text before the first CR or LF.
fn text_before_line_end(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        if has_below(u64::from_le_bytes(*word), b'\r' + 1)
            && let Some(within) = word.iter().position(|byte| is_line_end(*byte))
        {
            return 8 * at + within;
        }
    }
    8 * words.len() + rest.iter().position(|byte| is_line_end(*byte)).unwrap_or(rest.len())
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

/// Checks the version as soon as the request line is complete: a peer of another protocol may never
/// send a blank line.
fn check_version(line: &[u8]) -> Result<(), Refusal> {
    let version = line.rsplit(|&b| b == b' ').next().unwrap_or_default();
    let words = line.split(|&b| b == b' ').count();
    match version {
        b"HTTP/1.1" | b"HTTP/1.0" if words == 3 => Ok(()),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() && words == 3 =>
        {
            Err(Refusal::Version)
        }
        _ => Err(Refusal::NotHttp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Result<Progress, Refusal> {
        Intake::default().advance(bytes)
    }

    fn in_single_bytes(bytes: &[u8]) -> Result<Progress, Refusal> {
        let mut intake = Intake::default();
        for end in 1..=bytes.len() {
            match intake.advance(&bytes[..end])? {
                Progress::Waiting => {}
                done => return Ok(done),
            }
        }
        Ok(Progress::Waiting)
    }

    #[test]
    fn any_cut_gives_the_same() {
        for (bytes, want) in [
            (&b"GET / HTTP/1.1\r\nA: b\r\n\r\nrest"[..], Ok(Progress::Head(24))),
            (b"\r\nGET / HTTP/1.0\r\n\r\n", Ok(Progress::Head(20))),
            (b"GET / HTTP/1.1\r\nA: b\r\n", Ok(Progress::Waiting)),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Err(Refusal::NotHttp)),
            (b"GET / HTTP/1.1\n", Err(Refusal::BareLineEnd)),
            (b"GET / HTTP/1.1\rX", Err(Refusal::BareLineEnd)),
            (b"GET / HTTP/2.0\r\n", Err(Refusal::Version)),
            (b"GET /\r\n", Err(Refusal::NotHttp)),
            (b"\x16\x03\x01\x02", Err(Refusal::NotHttp)),
        ] {
            assert_eq!(whole(bytes), want, "{bytes:?}");
            assert_eq!(in_single_bytes(bytes), want, "{bytes:?}");
        }
    }

    /// What [`Intake::advance`] does, byte by byte.
    fn plainly(bytes: &[u8]) -> Result<Progress, Refusal> {
        let mut intake = Intake::default();
        for (at, &byte) in bytes.iter().enumerate() {
            if (at > 0 && bytes[at - 1] == b'\r') != (byte == b'\n') {
                return Err(Refusal::BareLineEnd);
            }
            if matches!(intake.part, Part::RequestLine) {
                if at == intake.line_start && byte != b'\r' && !is_token(&[byte]) {
                    return Err(Refusal::NotHttp);
                }
                if at - intake.line_start > REQUEST_LINE_BYTES && byte != b'\n' {
                    return Err(Refusal::LineTooLong);
                }
            }
            if at >= HEAD_BYTES {
                return Err(Refusal::HeadTooLarge);
            }
            if byte == b'\n' && intake.end_line(bytes, at)? {
                return Ok(Progress::Head(at + 1));
            }
        }
        Ok(Progress::Waiting)
    }

    #[test]
    fn lines_at_once_or_byte_by_byte() {
        let pieces: [&[u8]; 12] = [
            b"GET / HTTP/1.1\r\n",
            b"\r\n",
            b"A: b\r\n",
            b"\r",
            b"\n",
            b" ",
            b"\t",
            b"A",
            b"\x16",
            b"GET / HTTP/2.0\r\n",
            &[b'a'; REQUEST_LINE_BYTES - 3],
            &[b'b'; HEAD_BYTES / 2 - 9],
        ];
        let mut rng = crate::rng::Rng::new(1);
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            for _ in 0..=rng.below(7) {
                let most = if rng.below(8) == 0 { 12 } else { 10 };
                bytes.extend_from_slice(pieces[rng.below(most) as usize]);
            }
            let want = plainly(&bytes);
            assert_eq!(whole(&bytes), want, "{bytes:?}");
            let (mut intake, cut) = (Intake::default(), rng.below(bytes.len() as u64) as usize);
            let first = intake.advance(&bytes[..cut]);
            let got = if first == Ok(Progress::Waiting) { intake.advance(&bytes) } else { first };
            assert_eq!(got, want, "cut at {cut}: {bytes:?}");
        }
    }

    #[test]
    fn limits_at_their_edge() {
        let line = |n: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(n - 14)).into_bytes();
        assert!(whole(&line(REQUEST_LINE_BYTES)).is_ok());
        assert_eq!(whole(&line(REQUEST_LINE_BYTES + 1)), Err(Refusal::LineTooLong));
        let head =
            |n: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(n - 23)).into_bytes();
        assert_eq!(whole(&head(HEAD_BYTES)), Ok(Progress::Head(HEAD_BYTES)));
        assert_eq!(whole(&head(HEAD_BYTES + 1)), Err(Refusal::HeadTooLarge));
    }
}
