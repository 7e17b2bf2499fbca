//! A body as it arrives: how many bytes belong to it, and when it ends (RFC 9112 §6, §7.1).
//! Nothing is kept here, and decoded only once all is there.

use std::borrow::Cow;

use super::http::Framing;
use super::refusal::Refusal;

/// Digits of a chunk size: 4 GiB is more than any body that we take.
const SIZE_DIGITS: u8 = 8;
/// Bytes of a chunk's extensions that are read past.
const EXTENSION_BYTES: u16 = 256;

/// Bytes of all chunks' sizes, extensions and line ends together.
const FRAME_BYTES: u16 = 8 * 1024;

/// Where a body has got to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    state: State,
    /// Payload bytes that may still come.
    allowed: u64,
    /// Bytes of chunks' frames that may still come: a peer can make many more of those.
    frame_allowed: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Size { digits: u8, value: u64 },
    Extension { seen: u16, value: u64 },
    SizeLf { value: u64 },
    Data(u64),
    DataCr,
    DataLf,
    LastCr,
    LastLf,
    Done,
}

impl Body {
    /// A body with this framing, of at most `allowed` bytes.
    pub fn new(framing: Framing, allowed: u64) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) if length > allowed => return Err(Refusal::BodyTooLarge),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size { digits: 0, value: 0 },
        };
        Ok(Self { state, allowed, frame_allowed: FRAME_BYTES })
    }

    /// Whether nothing of it is missing.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads past its bytes at the front; says how many they were and whether that was all.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < bytes.len() && self.state != State::Done {
            match &mut self.state {
                State::Length(left) | State::Data(left) => {
                    let n = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= n as u64;
                    at += n;
                    if *left == 0 {
                        let chunked = matches!(self.state, State::Data(_));
                        self.state = if chunked { State::DataCr } else { State::Done };
                    }
                }
                _ => {
                    let left = self.frame_allowed.checked_sub(1);
                    self.frame_allowed = left.ok_or(Refusal::BodyTooLarge)?;
                    self.state = self.step(bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok((at, self.is_done()))
    }

    /// One byte of a chunk's frame.
    fn step(&mut self, byte: u8) -> Result<State, Refusal> {
        let bad = Err(Refusal::ChunkInvalid);
        match (self.state.clone(), byte) {
            (State::Size { digits, value }, _) if byte.is_ascii_hexdigit() => {
                if digits == SIZE_DIGITS {
                    return bad;
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Ok(State::Size { digits: digits + 1, value: value << 4 | u64::from(digit) })
            }
            (State::Size { digits: 1.., value } | State::Extension { value, .. }, b'\r') => {
                Ok(State::SizeLf { value })
            }
            (State::Size { digits: 1.., value }, b';') => Ok(State::Extension { seen: 1, value }),
            (State::Extension { seen, value }, _) if is_text(byte) && seen < EXTENSION_BYTES => {
                Ok(State::Extension { seen: seen + 1, value })
            }
            (State::SizeLf { value: 0 }, b'\n') => Ok(State::LastCr),
            (State::SizeLf { value }, b'\n') => {
                self.allowed = self.allowed.checked_sub(value).ok_or(Refusal::BodyTooLarge)?;
                Ok(State::Data(value))
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, value: 0 }),
            // Trailer fields are refused: nobody needs one here, and a `Host` among them has
            // been taken for the head's by others.
            (State::LastCr, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::Done),
            _ => bad,
        }
    }
}

/// The payload of a body that was read past as a whole: without its chunks' frames.
#[must_use]
pub fn payload(framing: Framing, whole: &[u8]) -> Cow<'_, [u8]> {
    if framing != Framing::Chunked {
        return Cow::Borrowed(whole);
    }
    let mut payload = Vec::new();
    let mut rest = whole;
    while let Some(line_end) = rest.iter().position(|&b| b == b'\n') {
        let digits = rest.iter().map_while(|&b| char::from(b).to_digit(16));
        let size = digits.fold(0_usize, |size, digit| size << 4 | digit as usize);
        let data = line_end + 1;
        let Some(chunk) = rest.get(data..data + size).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        payload.extend_from_slice(chunk);
        rest = rest.get(data + size + 2..).unwrap_or_default();
    }
    Cow::Owned(payload)
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunked(bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let whole = Body::new(Framing::Chunked, 100)?.take(bytes);
        let mut body = Body::new(Framing::Chunked, 100)?;
        let mut taken = 0;
        let mut cut = Ok((0, false));
        for byte in bytes {
            cut = body.take(&[*byte]).map(|(n, done)| {
                taken += n;
                (taken, done)
            });
            if cut.is_err() {
                break;
            }
        }
        assert_eq!(whole, cut, "{bytes:?}");
        whole
    }

    #[test]
    fn chunks() {
        assert_eq!(chunked(b"0\r\n\r\nX"), Ok((5, true)));
        assert_eq!(chunked(b"5\r\nhello\r\n0\r\n\r\n"), Ok((15, true)));
        assert_eq!(chunked(b"A;x=y\r\n0123456789\r\n0\r\n\r\n"), Ok((24, true)));
        assert_eq!(chunked(b"5\r\nhel"), Ok((6, false)));
        for bad in [
            &b"\r\n"[..],
            b"g\r\n",
            b"-1\r\n",
            b"0x5\r\n",
            b"5 \r\n",
            b"5\n",
            b"5\r\nhelloX",
            b"5\r\nhello\n",
            b"100000004\r\n",
            b"5;a\n",
            b"5;a\rb",
            b"0\r\nHost: h\r\n\r\n",
            b"0\r\n\rX",
        ] {
            assert_eq!(chunked(bad), Err(Refusal::ChunkInvalid), "{bad:?}");
        }
        assert_eq!(chunked(b"65\r\n"), Err(Refusal::BodyTooLarge));
        assert_eq!(chunked(b"ffffffff\r\n"), Err(Refusal::BodyTooLarge));
    }

    #[test]
    fn chunks_become_a_payload() {
        let whole = b"5;x=y\r\nhello\r\n0A\r\n\r\n0\r\n\r\nabc\r\n0\r\n\r\n";
        assert_eq!(chunked(whole), Ok((whole.len(), true)));
        assert_eq!(&*payload(Framing::Chunked, whole), b"hello\r\n0\r\n\r\nabc");
        assert_eq!(&*payload(Framing::Chunked, b"0\r\n\r\n"), b"");
        assert_eq!(&*payload(Framing::Length(3), b"5\r\n"), b"5\r\n");
    }

    #[test]
    fn lengths() {
        let mut body = Body::new(Framing::Length(5), 5).unwrap();
        assert_eq!(body.take(b"hel"), Ok((3, false)));
        assert_eq!(body.take(b"lo GET"), Ok((2, true)));
        assert_eq!(Body::new(Framing::Length(6), 5), Err(Refusal::BodyTooLarge));
        assert!(Body::new(Framing::Length(0), 5).unwrap().is_done());
    }
}
