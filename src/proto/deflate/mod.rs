//! permessage-deflate (RFC 7692): negotiation, and (de)compression of messages. Neither side keeps
//! context between messages, so all connections share one codec and an idle one needs no memory.
//! A build without the feature `deflate` declines every offer.

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

/// Whether this build supports compression.
pub const BUILT: bool = cfg!(feature = "deflate");
/// The largest window, in bits (RFC 7692 §7.1.2).
pub const WINDOW_BITS_MAX: u8 = 15;
/// The smallest accepted window. zlib cannot create a stream for 8.
pub const WINDOW_BITS_MIN: u8 = 9;
/// Shorter messages are not compressed: that saves no packet and clears a table of 128 KiB.
pub const COMPRESSED_MIN: usize = 512;

/// The compression level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(NonZeroU8);

impl Level {
    /// The fastest level, which saves most of what others do: they cost up to ten times as much.
    pub const DEFAULT: Self = Self(NonZeroU8::MIN);

    /// From 1 (fast) to 9 (small).
    #[must_use]
    pub fn new(level: u8) -> Option<Self> {
        NonZeroU8::new(level).filter(|level| level.get() <= 9).map(Self)
    }

    /// The level from 1 to 9.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0.get()
    }
}

/// The value of the compression flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Decline every offer.
    Off,
    /// Accept offers, and compress at this level.
    On(Level),
}

impl Compression {
    /// The default of the flag.
    pub const DEFAULT: Self = if BUILT { Self::On(Level::DEFAULT) } else { Self::Off };

    /// Parses `on`, `off` or a level.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.as_bytes() {
            b"on" => Some(Self::On(Level::DEFAULT)),
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
            Self::On(Level::DEFAULT) => f.write_str("on"),
            Self::On(level) => write!(f, "{}", level.get()),
        }
    }
}

/// The negotiated parameters that messages depend on: the level (low four bits) and our window
/// size. One byte, since each connection stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed(NonZeroU8);

impl Agreed {
    /// This level and window size.
    #[must_use]
    pub fn new(level: Level, window_bits: u8) -> Self {
        assert!((WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&window_bits), "no such window");
        Self(level.0 | window_bits << 4)
    }

    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "nothing is compressed"))]
    fn level(self) -> Level {
        Level::new(self.0.get() & 15).unwrap_or(Level::DEFAULT)
    }

    #[cfg_attr(not(feature = "deflate"), expect(dead_code, reason = "nothing is compressed"))]
    fn window_bits(self) -> u8 {
        self.0.get() >> 4
    }
}

/// The limit for a compressed message of `limit` bytes: incompressible data grows a little.
#[must_use]
pub fn wire_limit(limit: usize) -> usize {
    limit + limit / 8 + 64
}

/// An inflated message.
#[derive(Debug)]
pub enum Inflated {
    /// In shared memory, to be returned with [`Codec::give_back`].
    Short(Scratch),
    /// In a block of its own.
    Long(Block),
}

/// A short message in the codec's shared memory.
#[derive(Debug)]
pub struct Scratch {
    memory: Vec<u8>,
    len: usize,
}

impl Scratch {
    /// The contents of the message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}
