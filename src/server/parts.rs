//! The parts that a server was given: who is called, and what becomes of their orders. None of
//! them is called in a turn in which nothing concerned it.

use crate::engine::{File, Now};
use crate::server::ops::pressure::Account;
use crate::server::part::{Connections, Order, Part, PartId};

/// The parts.
#[derive(Debug, Default)]
pub(super) struct Parts {
    all: Vec<Slot>,
    /// A part was called since its orders were last asked for.
    is_dirty: bool,
    /// The earliest of their deadlines.
    next_deadline: Option<u64>,
}

#[derive(Debug)]
struct Slot {
    part: Box<dyn Part>,
    /// What the account knows of it.
    counted: Account,
}

impl Parts {
    pub(super) fn new(parts: Vec<Box<dyn Part>>) -> Self {
        let slot = |part| Slot { part, counted: Account::default() };
        let mut parts = Self { all: parts.into_iter().map(slot).collect(), ..Self::default() };
        parts.is_dirty = !parts.all.is_empty();
        parts.note_deadline();
        parts
    }

    /// All of them, to be looked at.
    pub(super) fn iter(&self) -> impl Iterator<Item = (PartId, &dyn Part)> {
        (0..).zip(&self.all).map(|(at, slot)| (PartId(at), &*slot.part))
    }

    pub(super) fn find(&self, name: &str) -> Option<PartId> {
        self.iter().find(|(_, part)| part.name() == name).map(|(id, _)| id)
    }

    pub(super) fn get(&self, id: PartId) -> &dyn Part {
        &*self.all[usize::from(id.0)].part
    }

    /// One of them, to be called: its orders are asked for afterwards.
    pub(super) fn call(&mut self, id: PartId) -> &mut dyn Part {
        self.is_dirty = true;
        &mut *self.all[usize::from(id.0)].part
    }

    /// The connections of one of them.
    pub(super) fn connections(&mut self, id: Option<PartId>) -> Option<&mut dyn Connections> {
        self.call(id?).connections()
    }

    /// What they own, as the account has it.
    pub(super) fn memory(&self) -> usize {
        self.all.iter().map(|slot| slot.counted.memory).sum()
    }

    pub(super) fn table_cost(&self) -> usize {
        self.all.iter().map(|slot| slot.part.table_cost()).sum()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.all.iter().any(|slot| slot.part.is_busy())
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.next_deadline
    }

    pub(super) fn note_deadline(&mut self) {
        self.next_deadline = self.all.iter().filter_map(|slot| slot.part.next_deadline()).min();
    }

    /// Calls those of which something is due.
    pub(super) fn fire(&mut self, now: Now) {
        if self.next_deadline.is_none_or(|due_ns| due_ns > now.mono_ns) {
            return;
        }
        for slot in &mut self.all {
            if slot.part.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
                slot.part.fire(now);
                self.is_dirty = true;
            }
        }
    }

    pub(super) fn reload(&mut self, now: Now) {
        self.each(|part| part.reload(now));
    }

    pub(super) fn fetched(&mut self, now: Now, paths: &[String], files: &[File]) {
        self.each(|part| part.fetched(now, paths, files));
    }

    fn each(&mut self, mut call: impl FnMut(&mut dyn Part)) {
        for slot in &mut self.all {
            call(&mut *slot.part);
            self.is_dirty = true;
        }
    }

    /// Whether a part was called since this was last asked.
    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = PartId> + use<> {
        (0..self.all.len() as u8).map(PartId)
    }

    /// What it wants next.
    pub(super) fn poll(&mut self, now: Now, id: PartId) -> Option<Order> {
        self.all[usize::from(id.0)].part.poll(now)
    }

    /// Takes down what it owns now.
    pub(super) fn settle(&mut self, id: PartId, account: &mut Account) {
        let Slot { part, counted } = &mut self.all[usize::from(id.0)];
        let memory = part.cost();
        if memory != counted.memory {
            account.update(counted, Account { memory, queued: 0 });
        }
    }
}
