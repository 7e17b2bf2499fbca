//! Compression of the clients' messages, and inflation of the answers.

use super::Shared;
use super::payloads::{MessageId, Payloads, Prefix};
use crate::behaviours::Kind;
use crate::outbox::Blocks;
use crate::proto::deflate::{self, Agreed, Inflated, Level, WINDOW_BITS_MAX};
use crate::proto::frame;
use crate::proto::upgrade::Fault;

/// The longest unsolicited message.
const UNASKED_BYTES_MAX: usize = 64 * 1024;

/// What `Sec-WebSocket-Extensions` offers: neither side may refer to an earlier message, since a
/// context for each connection would take 32 KiB or more.
pub const OFFER: &str = "permessage-deflate; server_no_context_takeover; \
                         client_no_context_takeover; client_max_window_bits";

/// The parameters that the upgrade response accepts.
pub(super) fn agreed(answer: &str) -> Result<Agreed, Fault> {
    let mut parts = answer.split(';').map(str::trim);
    if parts.next() != Some("permessage-deflate") {
        return Err(Fault::Extension);
    }
    // RFC 7692 §7.1.1.1: who accepts the offer confirms this.
    if !parts.clone().any(|part| part == "server_no_context_takeover") {
        return Err(Fault::ContextTakeover);
    }
    let bits = parts.find_map(|part| part.strip_prefix("client_max_window_bits="));
    let bits = bits.map_or(Ok(WINDOW_BITS_MAX), |bits| bits.trim_matches('"').parse());
    let known = |bits: &u8| (deflate::WINDOW_BITS_MIN..=WINDOW_BITS_MAX).contains(bits);
    let bits = bits.ok().filter(known).ok_or(Fault::Extension)?;
    Ok(Agreed::new(Level::DEFAULT, bits))
}

impl Shared {
    /// The compressed payload of a message, if it is smaller.
    pub(super) fn compress(&mut self, agreed: Agreed, id: &MessageId) -> Option<Vec<u8>> {
        let length = self.payloads.length(id);
        let (mut message, mut frame) = (Vec::new(), Vec::new());
        self.payloads.append(&mut message, id, 0, length);
        if !self.codec.compress(agreed, self.plan.kind, &message, &mut frame) {
            return None;
        }
        // The header's size depends on the length of the payload.
        let size = [2, 4, 10].into_iter().find(|size| {
            let length = frame.len() - size;
            frame::message_header(Kind::Text, length).1 == *size
        })?;
        frame.drain(..size);
        Some(frame)
    }

    /// The longest message to expect.
    fn message_max(&self) -> usize {
        self.payloads.size().max(UNASKED_BYTES_MAX)
    }

    /// Its longest compressed form.
    pub(super) fn compressed_max(&self) -> usize {
        deflate::wire_limit(self.message_max())
    }

    /// Inflates an answer: `None` if it is the message with this id, else its first bytes.
    /// The error is an invalid or too long message.
    pub(super) fn inflate(
        &mut self,
        compressed: &[u8],
        id: &MessageId,
    ) -> Result<Option<Prefix>, ()> {
        let limit = self.message_max();
        let inflated = self.codec.inflate(Kind::Binary, compressed, limit, &mut Blocks::default());
        let classify = |payloads: &Payloads, message: &[u8]| {
            let ours = message.len() == payloads.length(id) && payloads.matches(message, id, 0);
            (!ours).then(|| Prefix::of(message))
        };
        match inflated.map_err(|_| ())? {
            Inflated::Long(block) => Ok(classify(&self.payloads, block.bytes())),
            Inflated::Short(scratch) => {
                let classified = classify(&self.payloads, scratch.bytes());
                self.codec.give_back(scratch);
                Ok(classified)
            }
        }
    }
}
