//! Messages of clients that have agreed to compression: made, and read again.

use super::words::{Beginning, Name};
use super::{Shared, Words};
use crate::behaviours::Kind;
use crate::outbox::Blocks;
use crate::proto::deflate::{self, Agreed, Inflated, Level, WINDOW_BITS_MAX};
use crate::proto::frame;

/// Nothing that a server says on its own is longer.
const UNASKED_BYTES: usize = 64 * 1024;

/// What the answer to an upgrade agrees to; `None` when that is nothing that was offered.
pub(super) fn agreed(answer: &[u8]) -> Option<Agreed> {
    let answer = std::str::from_utf8(answer).ok()?;
    let mut parts = answer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return None;
    }
    let bits = parts.find_map(|part| part.strip_prefix("client_max_window_bits="));
    let bits = bits.map_or(Some(WINDOW_BITS_MAX), |bits| bits.parse().ok())?;
    let known = (deflate::WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(&bits);
    known.then(|| Agreed::new(Level::DEFAULT, bits))
}

impl Shared {
    /// A message without its header, if compression makes it smaller.
    pub(super) fn pressed(&mut self, agreed: Agreed, name: &Name) -> Option<Vec<u8>> {
        let length = self.words.length(name);
        let (mut message, mut whole) = (Vec::new(), Vec::new());
        self.words.append(&mut message, name, 0, length);
        if !self.codec.compress(agreed, self.plan.kind, &message, &mut whole) {
            return None;
        }
        // How long a header is follows from the payload behind it.
        let size = [2, 4, 10].into_iter().find(|size| {
            let behind = whole.len() - size;
            frame::message_header(Kind::Text, behind).1 == *size
        })?;
        whole.drain(..size);
        Some(whole)
    }

    /// The longest message that can be expected.
    fn longest(&self) -> usize {
        self.words.size().max(UNASKED_BYTES)
    }

    /// The longest that it can be while it is compressed.
    pub(super) fn longest_pressed(&self) -> usize {
        deflate::wire_limit(self.longest())
    }

    /// What a compressed answer says: the message of this name (`None`), or how another begins.
    /// An error is no message at all.
    pub(super) fn unpressed(
        &mut self,
        pressed: &[u8],
        name: &Name,
    ) -> Result<Option<Beginning>, ()> {
        let limit = self.longest();
        let inflated = self.codec.inflate(Kind::Binary, pressed, limit, &mut Blocks::default());
        let judge = |words: &Words, message: &[u8]| {
            let ours = message.len() == words.length(name) && words.are(message, name, 0);
            (!ours).then(|| Beginning::of(message))
        };
        match inflated.map_err(|_| ())? {
            Inflated::Long(block) => Ok(judge(&self.words, block.bytes())),
            Inflated::Short(scratch) => {
                let said = judge(&self.words, scratch.bytes());
                self.codec.give_back(scratch);
                Ok(said)
            }
        }
    }
}
