//! A chunked body as it arrives (RFC 9112 §7.1): where its data lie, for requests and for answers.
//! Extensions are read past, and so is the trailer, of which nothing here may depend. How much of
//! each is borne is said by whoever reads.

use super::http::{is_text, is_token};

/// Bytes of a chunk's extensions.
const EXTENSION_BYTES: u16 = 256;

/// As [`Bounds::frames`]: as many as come, for a body that never ends.
pub(super) const ENDLESS: u16 = u16::MAX;

/// How much of a body is borne, in bytes. Small: each connection may hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Its data.
    pub(super) data: u64,
    /// Sizes, extensions, line ends and trailer together: a peer can make many more of those.
    pub(super) frames: u16,
    /// The trailer.
    pub(super) trailer: u32,
    /// Digits of one chunk's size, at most 15: more would be no size that anyone takes.
    pub(super) digits: u8,
}

/// What is wrong with a chunked body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// A frame that is malformed.
    Frame,
    /// More data than is borne, or than would be worth their frames.
    Long,
    /// A trailer beyond its bound.
    Trailer,
}

/// Where a chunked body has got to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    place: Place,
    /// What may still come.
    left: Bounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
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

/// What lies at the front of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Behind so many bytes, so many of data.
    Data { skip: usize, len: usize },
    /// The end, behind so many bytes.
    End { skip: usize },
    /// Nothing but frames.
    Nothing,
}

impl Chunks {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { place: Place::Size { digits: 0, value: 0 }, left: bounds }
    }

    /// Reads up to the next data; the bytes up to their end are not to be given again.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Found, Broken> {
        let mut at = 0;
        loop {
            match &mut self.place {
                Place::End => return Ok(Found::End { skip: at }),
                _ if at == bytes.len() => return Ok(Found::Nothing),
                Place::Data(left) => {
                    let len = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= len as u64;
                    if *left == 0 {
                        self.place = Place::DataCr;
                    }
                    return Ok(Found::Data { skip: at, len });
                }
                _ => {
                    if self.left.frames != ENDLESS {
                        let left = self.left.frames.checked_sub(1);
                        self.left.frames = left.ok_or(Broken::Long)?;
                    }
                    self.place = self.step(bytes[at])?;
                    at += 1;
                }
            }
        }
    }

    /// One byte of a frame or of the trailer.
    fn step(&mut self, byte: u8) -> Result<Place, Broken> {
        let bad = Err(Broken::Frame);
        match (self.place, byte) {
            (Place::Size { digits, value }, _) if byte.is_ascii_hexdigit() => {
                if digits == self.left.digits {
                    return bad;
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                Ok(Place::Size { digits: digits + 1, value: value << 4 | u64::from(digit) })
            }
            (Place::Size { digits: 1.., value } | Place::Extension { value, .. }, b'\r') => {
                Ok(Place::SizeLf { value })
            }
            (Place::Size { digits: 1.., value }, b';') => Ok(Place::Extension { seen: 1, value }),
            (Place::Extension { seen, value }, _) if is_text(byte) && seen < EXTENSION_BYTES => {
                Ok(Place::Extension { seen: seen + 1, value })
            }
            (Place::SizeLf { value: 0 }, b'\n') => Ok(Place::TrailerStart),
            (Place::SizeLf { value }, b'\n') => {
                self.left.data = self.left.data.checked_sub(value).ok_or(Broken::Long)?;
                Ok(Place::Data(value))
            }
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => Ok(Place::Size { digits: 0, value: 0 }),
            (Place::TrailerStart, b'\r') => Ok(Place::LastLf),
            (Place::LastLf, b'\n') => Ok(Place::End),
            (
                Place::TrailerStart | Place::TrailerName | Place::TrailerValue | Place::TrailerLf,
                _,
            ) => {
                let left = self.left.trailer.checked_sub(1);
                self.left.trailer = left.ok_or(Broken::Trailer)?;
                self.trailer_step(byte)
            }
            _ => bad,
        }
    }

    fn trailer_step(&self, byte: u8) -> Result<Place, Broken> {
        match (self.place, byte) {
            (Place::TrailerStart | Place::TrailerName, _) if is_token(&[byte]) => {
                Ok(Place::TrailerName)
            }
            (Place::TrailerName, b':') => Ok(Place::TrailerValue),
            (Place::TrailerValue, b'\r') => Ok(Place::TrailerLf),
            (Place::TrailerValue, _) if is_text(byte) => Ok(Place::TrailerValue),
            (Place::TrailerLf, b'\n') => Ok(Place::TrailerStart),
            _ => Err(Broken::Frame),
        }
    }
}
