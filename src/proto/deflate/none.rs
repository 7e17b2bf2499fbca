//! What stands for compression in a build without it: nothing is ever agreed to.

use super::{Agreed, Inflated, Scratch};
use crate::outbox::Blocks;
use crate::proto::frame::{Fault, Kind};

/// Compresses nothing.
#[derive(Debug, Default)]
pub struct Codec(());

impl Codec {
    /// It owns nothing.
    #[must_use]
    pub fn cost(&self) -> usize {
        0
    }

    /// Nothing is compressed.
    pub fn compress(&mut self, _: Agreed, _: Kind, _: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }

    /// Nothing that is compressed is understood.
    pub fn inflate(
        &mut self,
        _: Kind,
        _: &[u8],
        _: usize,
        _: &mut Blocks,
    ) -> Result<Inflated, Fault> {
        Err(Fault::ReservedBits)
    }

    /// Nothing is kept.
    pub fn give_back(&mut self, _: Scratch) {}
}

/// Files are served as they are.
#[must_use]
pub fn gzip(_: &[u8]) -> Option<Vec<u8>> {
    None
}
