//! permessage-deflate (RFC 7692): what is agreed in the handshake, and messages both ways.
//! Nothing is remembered from one message to the next, so that one state serves all connections
//! and an idle one keeps none. A build without the feature `deflate` agrees to nothing.

#[cfg(not(feature = "deflate"))]
#[path = "none.rs"]
mod codec;
#[cfg(feature = "deflate")]
#[path = "zlib.rs"]
mod codec;
mod offer;

use core::num::NonZeroU8;

pub use codec::{Codec, gzip};
pub use offer::{Offers, Terms};

use crate::outbox::Block;

/// Whether this build can compress.
pub const BUILT: bool = cfg!(feature = "deflate");
/// The widest window there is, in bits (RFC 7692 §7.1.2).
pub const WINDOW_BITS_MAX: u8 = 15;
/// The narrowest that is agreed to. zlib cannot make a stream for 8.
pub const WINDOW_BITS_MIN: u8 = 9;
/// A shorter message goes as it is: it saves no packet, and costs a cleared table of 128 KiB.
pub const COMPRESSED_MIN: usize = 512;

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(NonZeroU8);

impl Level {
    /// What most save is saved by the fastest level; the others cost up to ten times as much.
    pub const USUAL: Self = Self(NonZeroU8::MIN);

    /// From 1, fast, to 9, small.
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        NonZeroU8::new(level).filter(|level| level.get() <= 9).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

/// Whether to compress, as an operator says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not even if the peer asks for it.
    Off,
    /// If the peer asks for it.
    On(Level),
}

impl Compression {
    /// What holds when nobody says anything.
    pub const USUAL: Self = if BUILT { Self::On(Level::USUAL) } else { Self::Off };

    /// Reads `on`, `off` or a level.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            b"on" => Some(Self::On(Level::USUAL)),
            b"off" => Some(Self::Off),
            [digit @ b'1'..=b'9'] => Level::new(digit - b'0').map(Self::On),
            _ => None,
        }
    }
}

impl core::fmt::Display for Compression {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(Level::USUAL) => f.write_str("on"),
            Self::On(level) => write!(f, "{}", level.get()),
        }
    }
}

/// What was agreed with a peer, as far as messages depend on it: how hard to compress (the low
/// four bits) and how far back what we send may refer. One byte, since each connection has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed(NonZeroU8);

impl Agreed {
    /// This level, and a window of so many bits.
    #[must_use]
    pub fn new(level: Level, window_bits: u8) -> Self {
        assert!((WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&window_bits), "no such window");
        Self(level.0 | window_bits << 4)
    }

    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "nothing is compressed"))]
    fn level(self) -> Level {
        Level::new(self.0.get() & 15).unwrap_or(Level::USUAL)
    }

    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "nothing is compressed"))]
    fn window_bits(self) -> u8 {
        self.0.get() >> 4
    }
}

/// The most that a message of `limit` bytes may have while it is compressed: what cannot be made
/// smaller becomes a little larger.
#[must_use]
pub fn wire_limit(limit: usize) -> usize {
    limit + limit / 8 + 64
}

/// A message as it was before it was compressed.
#[derive(Debug)]
pub enum Inflated {
    /// In memory that is for the next one too: [`Codec::give_back`].
    Short(Scratch),
    /// In memory of its own.
    Long(Block),
}

/// A short message, in memory that all share.
#[derive(Debug)]
pub struct Scratch {
    memory: Vec<u8>,
    len: usize,
}

impl Scratch {
    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}
