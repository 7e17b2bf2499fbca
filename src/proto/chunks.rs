//! Locates the data in a chunked body as it arrives (RFC 9112 §7.1), for requests and responses.
//! Extensions and the trailer are skipped; nothing may depend on them. The caller sets the limits.

use super::http::{is_text, is_token};

/// Most bytes of a chunk's extensions.
const EXTENSION_BYTES: u16 = 256;

/// For [`Bounds::overhead`]: no limit, for a body that never ends.
pub(super) const UNLIMITED: u16 = u16::MAX;

/// Limits of a body, in bytes. Kept small, since each connection may hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) data: u64,
    /// Sizes, extensions, line ends and trailer together: a peer can send many of those per byte.
    pub(super) overhead: u16,
    pub(super) trailer: u32,
    /// Digits of a chunk size, at most 15 so that the value fits.
    pub(super) digits: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChunkError {
    /// The chunk framing is malformed.
    Malformed,
    /// More data or more overhead than allowed.
    TooLong,
    /// A longer trailer than allowed.
    Trailer,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    state: State,
    /// What is left of the limits.
    left: Bounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, value: u64 },
    Extension { seen: u16, value: u64 },
    SizeLf { value: u64 },
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    End,
}

/// What [`Chunks::take`] found at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// `len` bytes of data after `skip` bytes of framing.
    Data { skip: usize, len: usize },
    /// The end of the body after `skip` bytes.
    End { skip: usize },
    /// Only framing.
    Nothing,
}

impl Chunks {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { state: State::Size { digits: 0, value: 0 }, left: bounds }
    }

    /// Reads up to and including the next data, which the caller must not pass again.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Found, ChunkError> {
        let mut at = 0;
        loop {
            match &mut self.state {
                State::End => return Ok(Found::End { skip: at }),
                _ if at == bytes.len() => return Ok(Found::Nothing),
                State::Data(left) => {
                    let len = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= len as u64;
                    if *left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok(Found::Data { skip: at, len });
                }
                _ => {
                    if self.left.overhead != UNLIMITED {
                        let left = self.left.overhead.checked_sub(1);
                        self.left.overhead = left.ok_or(ChunkError::TooLong)?;
                    }
                    self.state = self.step(bytes[at])?;
                    at += 1;
                }
            }
        }
    }

    /// Processes one byte of the framing or the trailer.
    fn step(&mut self, byte: u8) -> Result<State, ChunkError> {
        let bad = Err(ChunkError::Malformed);
        match (self.state, byte) {
            (State::Size { digits, value }, _) if byte.is_ascii_hexdigit() => {
                if digits == self.left.digits {
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
            (State::SizeLf { value: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf { value }, b'\n') => {
                self.left.data = self.left.data.checked_sub(value).ok_or(ChunkError::TooLong)?;
                Ok(State::Data(value))
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, value: 0 }),
            (State::TrailerStart, b'\r') => Ok(State::LastLf),
            (State::LastLf, b'\n') => Ok(State::End),
            (
                State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf,
                _,
            ) => {
                let left = self.left.trailer.checked_sub(1);
                self.left.trailer = left.ok_or(ChunkError::Trailer)?;
                self.trailer_step(byte)
            }
            _ => bad,
        }
    }

    fn trailer_step(&self, byte: u8) -> Result<State, ChunkError> {
        match (self.state, byte) {
            (State::TrailerStart | State::TrailerName, _) if is_token(&[byte]) => {
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            _ => Err(ChunkError::Malformed),
        }
    }
}
