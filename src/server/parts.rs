//! The parts that a server was given: who is called, and what becomes of their orders. None of
//! them is called in a turn in which nothing concerned it.

use super::Server;
use super::conn::Conn;
use super::drain::Phase;
use super::part::{Order, Part, PartId};
use super::pressure::Account;
use super::shared::Shared;
use crate::engine::{Action, File, Now, Source};
use crate::time::Moment;

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

    fn note_deadline(&mut self) {
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
}

impl Server {
    /// Carries out what parts want, after anything that may have made them want something.
    pub(super) fn tend(&mut self, now: Now) {
        if !std::mem::take(&mut self.shared.parts.is_dirty) {
            return;
        }
        for at in 0..self.shared.parts.all.len() {
            while let Some(order) = self.shared.parts.all[at].part.poll(now) {
                self.follow(now, PartId(at as u8), order);
            }
            let Shared { parts, account, .. } = &mut self.shared;
            let Slot { part, counted } = &mut parts.all[at];
            let memory = part.cost();
            if memory != counted.memory {
                account.update(counted, Account { memory, queued: 0 });
            }
        }
        self.shared.parts.note_deadline();
        if self.shared.drain.phase == Phase::Closing {
            self.exit_if_empty(now);
        }
    }

    fn follow(&mut self, now: Now, part: PartId, order: Order) {
        let action = match order {
            Order::Connect(target) => {
                let id = self.conns.insert(Conn::upstream(part, Moment::at(now.mono_ns)));
                self.shared.parts.call(part).opened_connection(id);
                let Some(id) = id else { return };
                self.shared.open.upstream += 1;
                Action::Connect(id, target)
            }
            Order::Write(id) => Action::Write(id),
            Order::Close(id) => {
                let waits = self.conns.find(id).is_some_and(|conn| !conn.unsent().is_empty());
                // Output that is not wanted any more is not worth waiting for.
                if waits { Action::Reset(id) } else { Action::Close(id) }
            }
            Order::Reset(id) => Action::Reset(id),
            Order::Read(paths) => Action::Fetch(Source::Files(paths)),
            Order::Answer(id, response) => return self.shared.answer(id, response),
            Order::Exit(status) => Action::Exit(status),
        };
        self.shared.actions.push_back(action);
    }

    /// What a part says that it knows: for tests.
    #[must_use]
    pub fn contents(&self, part: &str) -> Vec<(String, String, String)> {
        let part = self.shared.parts.find(part).map(|id| self.shared.parts.get(id));
        part.map_or_else(Vec::new, Part::contents)
    }
}
