//! Tracks a request body as it arrives: which bytes belong to it and when it ends (RFC 9112 §6,
//! §7.1). It stores no bytes; [`payload`] decodes a complete body.

use std::borrow::Cow;

use super::chunks::{Bounds, ChunkError, Chunks, Found};
use super::http::Framing;
use super::refusal::Refusal;

/// Most digits of a chunk size: 4 GiB is more than any body may have.
const SIZE_DIGITS: u8 = 8;
/// Most bytes of chunk sizes, extensions and line ends together.
const OVERHEAD_BYTES: u16 = 8 * 1024;
/// Most bytes of the trailer, which also count as overhead.
const TRAILER_BYTES: u32 = 4 * 1024;

/// The state of a body that is arriving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Chunks(Chunks),
    Done,
}

impl Body {
    /// A body with this framing and at most `allowed` bytes.
    pub fn new(framing: Framing, allowed: u64) -> Result<Self, Refusal> {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) if length > allowed => return Err(Refusal::BodyTooLarge),
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunks(chunks(allowed)),
        };
        Ok(Self { state })
    }

    /// Whether it is complete.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Consumes the body's bytes at the front; returns how many there are, and if it is complete.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        match &mut self.state {
            State::Length(left) => {
                let n = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                Ok((n, self.is_done()))
            }
            State::Chunks(chunks) => {
                let mut at = 0;
                loop {
                    match chunks.take(&bytes[at..]).map_err(refusal)? {
                        Found::Data { skip, len } => at += skip + len,
                        Found::Nothing => return Ok((bytes.len(), false)),
                        Found::End { skip } => {
                            self.state = State::Done;
                            return Ok((at + skip, true));
                        }
                    }
                }
            }
            State::Done => Ok((0, true)),
        }
    }
}

/// Trailer fields are discarded (RFC 9112 §7.1.2): a `Host` or a `Content-Length` among them must
/// never be mistaken for one in the head.
fn chunks(allowed: u64) -> Chunks {
    Chunks::new(Bounds {
        data: allowed,
        overhead: OVERHEAD_BYTES,
        trailer: TRAILER_BYTES,
        digits: SIZE_DIGITS,
    })
}

fn refusal(error: ChunkError) -> Refusal {
    match error {
        ChunkError::Malformed => Refusal::ChunkInvalid,
        ChunkError::TooLong | ChunkError::Trailer => Refusal::BodyTooLarge,
    }
}

/// The payload of a complete body: the data without the chunk framing.
#[must_use]
pub fn payload(framing: Framing, whole: &[u8]) -> Cow<'_, [u8]> {
    if framing != Framing::Chunked {
        return Cow::Borrowed(whole);
    }
    let mut chunks = chunks(whole.len() as u64);
    let mut payload = Vec::new();
    let mut rest = whole;
    while let Ok(Found::Data { skip, len }) = chunks.take(rest) {
        payload.extend_from_slice(&rest[skip..skip + len]);
        rest = &rest[skip + len..];
    }
    Cow::Owned(payload)
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
            b"0\r\nHost h\r\n\r\n",
            b"0\r\nX: a\r\n b\r\n\r\n",
            b"0\r\nX : a\r\n\r\n",
            b"0\r\n: a\r\n\r\n",
            b"0\r\nX: a\n\r\n",
            b"0\r\nX: a\0\r\n\r\n",
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
        let trailed = b"2\r\nhi\r\n0\r\nHost: evil\r\nX:\r\n\r\n";
        assert_eq!(chunked(&[&trailed[..], b"GET"].concat()), Ok((trailed.len(), true)));
        assert_eq!(&*payload(Framing::Chunked, trailed), b"hi");
        let long = [b"0\r\nX: ", &[b'y'; 5_000][..], b"\r\n\r\n"].concat();
        assert_eq!(chunked(&long), Err(Refusal::BodyTooLarge));
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
