//! The gateway's clients by their ids. A message looks its client up about ten times.

#![expect(clippy::disallowed_types, reason = "nothing depends on the order of a HashMap here")]

use core::hash::{BuildHasherDefault, Hash, Hasher};
use std::collections::HashMap;

use super::connection_id::ConnectionId;
use super::session::Session;
use crate::heap;

/// A table of clients. Entries are boxes, so that it stays small while it grows.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    by_id: HashMap<ConnectionId, Box<Session>, BuildHasherDefault<Random>>,
}

impl Sessions {
    pub(super) fn get(&self, id: ConnectionId) -> Option<&Session> {
        self.by_id.get(&id).map(Box::as_ref)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id).map(Box::as_mut)
    }

    pub(super) fn insert(&mut self, id: ConnectionId, session: Session) {
        self.by_id.insert(id, Box::new(session));
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Session> {
        let session = self.by_id.remove(&id)?;
        if self.by_id.len() < self.by_id.capacity() / 4 {
            self.by_id.shrink_to(2 * self.by_id.len());
        }
        Some(*session)
    }

    /// Memory of the table, without its entries.
    pub(super) fn cost(&self) -> usize {
        // A table is at most seven eighths full, and has a byte of its own for each slot.
        let slots = (self.by_id.capacity() * 8 / 7).next_power_of_two();
        let slot = size_of::<(ConnectionId, Box<Session>)>() + 1;
        if self.by_id.capacity() == 0 { 0 } else { heap::cost(slots * slot + 16) }
    }
}

/// At least half of an id is random, and no client chooses any of it, so it serves as the hash.
impl Hash for ConnectionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let bits = u128::from_be_bytes(self.0);
        state.write_u64((bits >> 64) as u64 ^ bits as u64);
    }
}

/// A hash of what is random already.
#[derive(Debug, Default)]
struct Random(u64);

impl Hasher for Random {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
