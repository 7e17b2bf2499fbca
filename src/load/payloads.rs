//! The payloads of the clients: `<client>:<i>`, padded to the plan's size, and their comparison
//! with answers.

use std::fmt::Write;

use super::plan::Plan;
use crate::behaviours;

/// The longest `<client>:<i>` of two 64-bit numbers.
const ID_MAX: usize = 41;

/// What a gateway sends if the backend did not answer a message: AWS' texts, in a frame that names
/// the connection and the request.
const FAILURE: &[u8] = br#"{"message":""#;
const FAILURE_TEXTS: [&str; 4] =
    ["Internal server error", "Endpoint request timed out", "Forbidden", "Limit Exceeded"];
const FAILURE_REST: &[u8] = br#"","connectionId":"#;

/// The bytes that tell all of these apart.
const PREFIX_MAX: usize = 64;

/// JSON records, which compress about as well as real traffic.
#[must_use]
pub fn padding(size: usize) -> Vec<u8> {
    let mut text = String::with_capacity(size + 128);
    for i in 0_u64.. {
        if text.len() >= size {
            break;
        }
        let (id, cents) = (i.wrapping_mul(2_654_435_761) % 100_000, i.wrapping_mul(40_503) % 9_973);
        let (city, second) = (["Kyoto", "Oslo", "Lima", "Accra"][id as usize % 4], cents % 60);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "{{\"id\":{id},\"at\":\"2026-11-21T09:41:{second:02}Z\",\"city\":\"{city}\",\
             \"price\":{cents}.{:02},\"open\":{}}},",
            id % 100,
            id % 3 == 0
        );
    }
    text.truncate(size);
    text.into_bytes()
}

/// Generates payloads on demand.
#[derive(Debug)]
pub(super) struct Payloads {
    padding: Vec<u8>,
    size: usize,
}

/// `<client>:<i>`.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageId {
    bytes: [u8; ID_MAX],
    length: usize,
}

impl MessageId {
    pub(super) fn new(client: u64, index: u64) -> Self {
        let mut id = Self { bytes: [0; ID_MAX], length: 0 };
        id.number(client);
        id.push(b':');
        id.number(index);
        id
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn number(&mut self, number: u64) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.push(b'0' + (number % 10) as u8);
    }
}

impl Payloads {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { padding: padding(plan.size), size: plan.size }
    }

    pub(super) fn length(&self, id: &MessageId) -> usize {
        id.length.max(self.size)
    }

    /// An upper bound of the length of any message.
    pub(super) fn size(&self) -> usize {
        self.size.max(ID_MAX)
    }

    /// Appends bytes `from..to` of the payload.
    pub(super) fn append(&self, out: &mut Vec<u8>, id: &MessageId, from: usize, to: usize) {
        let head = &id.bytes[..id.length];
        if from < head.len() {
            out.extend_from_slice(&head[from..to.min(head.len())]);
        }
        if to > head.len() {
            out.extend_from_slice(&self.padding[from.max(head.len())..to]);
        }
    }

    /// Whether `bytes` equals the payload from `from` on.
    pub(super) fn matches(&self, bytes: &[u8], id: &MessageId, from: usize) -> bool {
        let head = &id.bytes[..id.length];
        let split = head.len().saturating_sub(from).min(bytes.len());
        let (front, back) = bytes.split_at(split);
        let padding_from = from.max(head.len());
        front == &head[from.min(head.len())..][..split]
            && (back.is_empty()
                || self.padding.get(padding_from..padding_from + back.len()) == Some(back))
    }
}

/// The first bytes of a message: enough to recognize an unsolicited one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    bytes: [u8; PREFIX_MAX],
    length: usize,
}

impl Default for Prefix {
    fn default() -> Self {
        Self { bytes: [0; PREFIX_MAX], length: 0 }
    }
}

impl Prefix {
    pub(super) fn of(message: &[u8]) -> Self {
        let mut prefix = Self::default();
        prefix.extend(message);
        prefix
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let wanted = room.len().min(bytes.len());
        room[..wanted].copy_from_slice(&bytes[..wanted]);
        self.length += wanted;
    }

    /// Whether this is the prefix of an unsolicited message.
    pub(super) fn is_unasked(&self) -> bool {
        behaviours::is_unasked(&self.bytes[..self.length])
    }

    /// Whether this is the prefix of a gateway's error frame.
    pub(super) fn is_failure(&self) -> bool {
        let Some(text) = self.bytes[..self.length].strip_prefix(FAILURE) else { return false };
        FAILURE_TEXTS
            .iter()
            .filter_map(|known| text.strip_prefix(known.as_bytes()))
            .any(|rest| rest.starts_with(FAILURE_REST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_frames_of_gateways_are_recognized() {
        let whole = |text: &str, after: &str| format!("{{\"message\":\"{text}\"{after}");
        for text in FAILURE_TEXTS {
            let frame = whole(text, ",\"connectionId\":\"ZGVmZ2hpamtsbW4=\",\"requestId\":\"x\"}");
            assert!(Prefix::of(frame.as_bytes()).is_failure(), "{frame}");
        }
        for other in
            [whole("Forbidden", "}"), whole("Hello", ",\"connectionId\":\"x\"}"), "{}".into()]
        {
            assert!(!Prefix::of(other.as_bytes()).is_failure(), "{other}");
        }
    }

    #[test]
    fn any_part_of_a_message_is_that_part() {
        for size in [0, 3, 30] {
            let padding = (0..size).map(|at| at as u8 + b' ').collect();
            let payloads = Payloads { padding, size };
            let id = MessageId::new(12, 345);
            let length = payloads.length(&id);
            let mut whole = Vec::new();
            payloads.append(&mut whole, &id, 0, length);
            assert!(whole.starts_with(b"12:345"));
            for from in 0..length {
                for to in from..=length {
                    let mut part = Vec::new();
                    payloads.append(&mut part, &id, from, to);
                    assert_eq!(part, whole[from..to]);
                    assert!(payloads.matches(&part, &id, from));
                    if let Some(byte) = part.last_mut() {
                        *byte ^= 1;
                        assert!(!payloads.matches(&part, &id, from));
                    }
                }
            }
        }
    }
}
