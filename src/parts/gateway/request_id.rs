//! Ids of requests to backends.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

use crate::rng::Rng;

/// Unique, but not secret.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestId([u8; 11]);

impl RequestId {
    pub(super) fn new(rng: &mut Rng) -> Self {
        let mut bytes = [0; 11];
        bytes[..8].copy_from_slice(&rng.below(u64::MAX).to_be_bytes());
        bytes[8..].copy_from_slice(&rng.below(1 << 24).to_be_bytes()[5..]);
        Self(bytes)
    }

    pub(super) fn text(self) -> String {
        URL_SAFE.encode(self.0)
    }
}
