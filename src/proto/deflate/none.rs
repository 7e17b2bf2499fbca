//! Replaces the codec in a build without compression, which declines every offer.

use super::{Agreed, Inflated, Scratch};
use crate::outbox::Blocks;
use crate::proto::frame::{Fault, Kind};

/// A codec that never compresses.
#[derive(Debug, Default)]
pub struct Codec(());

impl Codec {
    /// Always 0.
    #[must_use]
    pub fn cost(&self) -> usize {
        0
    }

    /// Appends nothing.
    pub fn compress(&mut self, _: Agreed, _: Kind, _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }

    /// Fails, since compression is never negotiated.
    pub fn inflate(
        &mut self,
        _: Kind,
        _: &[u8],
        _: usize,
        _: &mut Blocks,
    ) -> Result<Inflated, Fault> {
        Err(Fault::ReservedBits)
    }

    /// Never called with anything to keep.
    pub fn give_back(&mut self, _: Scratch) {}
}

/// Files are served uncompressed.
#[must_use]
pub fn gzip(_: &[u8]) -> Option<Vec<u8>> {
    None
}
