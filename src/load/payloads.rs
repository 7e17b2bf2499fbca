//! What a client says: `<client>:<i>`, padded to the plan's size; and whether an answer is that.

use std::fmt::Write;

use super::plan::Plan;

/// The longest `<client>:<i>` of two 64-bit numbers.
const NAME_MAX: usize = 41;

/// What a server may say without being asked, by how it begins.
const UNASKED: [&[u8]; 5] =
    [b"randping", b"Welcome!", b"Connection is alive", b"tick ", b"{\"pod\""];

/// As long as the longest of these.
const BEGINNING: usize = 19;

/// Records as JSON: compression finds in it what it finds in the field.
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

/// Payloads, made when they are needed.
#[derive(Debug)]
pub(super) struct Words {
    padding: Vec<u8>,
    size: usize,
}

/// `<client>:<i>`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    bytes: [u8; NAME_MAX],
    length: usize,
}

impl Name {
    pub(super) fn new(client: u64, index: u64) -> Self {
        let mut name = Self { bytes: [0; NAME_MAX], length: 0 };
        name.number(client);
        name.push(b':');
        name.number(index);
        name
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

impl Words {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { padding: padding(plan.size), size: plan.size }
    }

    pub(super) fn length(&self, name: &Name) -> usize {
        name.length.max(self.size)
    }

    /// What a message has at least.
    pub(super) fn size(&self) -> usize {
        self.size.max(NAME_MAX)
    }

    /// Appends bytes `from..to` of a message.
    pub(super) fn append(&self, out: &mut Vec<u8>, name: &Name, from: usize, to: usize) {
        let named = &name.bytes[..name.length];
        if from < named.len() {
            out.extend_from_slice(&named[from..to.min(named.len())]);
        }
        if to > named.len() {
            out.extend_from_slice(&self.padding[from.max(named.len())..to]);
        }
    }

    /// Whether these are the bytes of that message from `from` on.
    pub(super) fn are(&self, bytes: &[u8], name: &Name, from: usize) -> bool {
        let named = &name.bytes[..name.length];
        let split = named.len().saturating_sub(from).min(bytes.len());
        let (front, back) = bytes.split_at(split);
        let padding_from = from.max(named.len());
        front == &named[from.min(named.len())..][..split]
            && (back.is_empty()
                || self.padding.get(padding_from..padding_from + back.len()) == Some(back))
    }
}

/// As much of a message's beginning as tells whether somebody asked for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beginning {
    bytes: [u8; BEGINNING],
    length: usize,
}

impl Beginning {
    pub(super) fn of(message: &[u8]) -> Self {
        let mut beginning = Self::default();
        beginning.extend(message);
        beginning
    }

    /// More of the message.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let room = &mut self.bytes[self.length..];
        let wanted = room.len().min(bytes.len());
        room[..wanted].copy_from_slice(&bytes[..wanted]);
        self.length += wanted;
    }

    /// Whether a message that begins so is one that nobody asked for.
    pub(super) fn is_unasked(&self) -> bool {
        UNASKED.iter().any(|unasked| self.bytes[..self.length].starts_with(unasked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_message_is_that_part() {
        for size in [0, 3, 30] {
            let padding = (0..size).map(|at| at as u8 + b' ').collect();
            let words = Words { padding, size };
            let name = Name::new(12, 345);
            let length = words.length(&name);
            let mut whole = Vec::new();
            words.append(&mut whole, &name, 0, length);
            assert!(whole.starts_with(b"12:345"));
            for from in 0..length {
                for to in from..=length {
                    let mut part = Vec::new();
                    words.append(&mut part, &name, from, to);
                    assert_eq!(part, whole[from..to]);
                    assert!(words.are(&part, &name, from));
                    if let Some(byte) = part.last_mut() {
                        *byte ^= 1;
                        assert!(!words.are(&part, &name, from));
                    }
                }
            }
        }
    }
}
