//! The parts of a server: calls them, tracks which ones have to be polled, and accounts their
//! memory. A part is not called in a turn without an event for it.

use core::net::IpAddr;

use crate::engine::{File, NameFault, Now};
use crate::server::ops::pressure::Account;
use crate::server::part::{Connections, Order, Part, PartId};
use crate::time::earlier;

#[derive(Debug, Default)]
pub(super) struct Parts {
    all: Vec<Slot>,
    /// Whether a part was called since the last poll.
    is_dirty: bool,
}

#[derive(Debug)]
struct Slot {
    part: Box<dyn Part>,
    /// The accounted memory of the part.
    counted: Account,
}

impl Parts {
    pub(super) fn new(parts: Vec<Box<dyn Part>>) -> Self {
        let slot = |part| Slot { part, counted: Account::default() };
        let mut parts = Self { all: parts.into_iter().map(slot).collect(), ..Self::default() };
        parts.is_dirty = !parts.all.is_empty();
        parts
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PartId, &dyn Part)> {
        (0..).zip(&self.all).map(|(at, slot)| (PartId(at), &*slot.part))
    }

    pub(super) fn find(&self, name: &str) -> Option<PartId> {
        self.iter().find(|(_, part)| part.name() == name).map(|(id, _)| id)
    }

    pub(super) fn get(&self, id: PartId) -> &dyn Part {
        &*self.all[usize::from(id.0)].part
    }

    /// Mutable access to a part; it is polled afterwards.
    pub(super) fn call(&mut self, id: PartId) -> &mut dyn Part {
        self.is_dirty = true;
        &mut *self.all[usize::from(id.0)].part
    }

    pub(super) fn connections(&mut self, id: Option<PartId>) -> Option<&mut dyn Connections> {
        self.call(id?).connections()
    }

    /// Accounted memory of all parts.
    pub(super) fn memory(&self) -> usize {
        self.all.iter().map(|slot| slot.counted.memory).sum()
    }

    pub(super) fn table_cost(&self) -> usize {
        self.all.iter().map(|slot| slot.part.table_cost()).sum()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.all.iter().any(|slot| slot.part.is_busy())
    }

    /// Not cached: it is asked once a turn of the loop, in which many messages may change it.
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.all.iter().fold(None, |due, slot| earlier(due, slot.part.next_deadline()))
    }

    /// Calls the parts whose deadline has passed.
    pub(super) fn fire(&mut self, now: Now) {
        for slot in &mut self.all {
            if slot.part.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
                slot.part.fire(now);
                self.is_dirty = true;
            }
        }
    }

    pub(super) fn reload(&mut self, now: Now) {
        self.call_all(|part| part.reload(now));
    }

    pub(super) fn draining(&mut self, now: Now) {
        self.call_all(|part| part.draining(now));
    }

    pub(super) fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        self.call_all(|part| part.resolved(now, host, found));
    }

    pub(super) fn fetched(&mut self, now: Now, paths: &[String], files: &[File]) {
        self.call_all(|part| part.fetched(now, paths, files));
    }

    pub(super) fn memory_changed(&mut self, is_short: bool) {
        self.call_all(|part| part.memory_changed(is_short));
    }

    fn call_all(&mut self, mut call: impl FnMut(&mut dyn Part)) {
        for slot in &mut self.all {
            call(&mut *slot.part);
            self.is_dirty = true;
        }
    }

    /// Whether to poll the parts; resets the flag.
    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PartId> + use<> {
        (0..self.all.len() as u8).map(PartId)
    }

    pub(super) fn poll(&mut self, now: Now, id: PartId) -> Option<Order> {
        self.all[usize::from(id.0)].part.poll(now)
    }

    pub(super) fn update_account(&mut self, id: PartId, account: &mut Account) {
        let Slot { part, counted } = &mut self.all[usize::from(id.0)];
        let memory = part.cost();
        if memory != counted.memory {
            account.update(counted, Account { memory, queued: 0 });
        }
    }
}
