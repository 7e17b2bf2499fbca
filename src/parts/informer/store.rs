//! The latest state of each object, and deleted ones until every viewer has been told. Changes
//! are numbered, and each object is ordered by its latest change. So a reader that knows everything
//! up to a number finds what it lacks after it, each object once, however often it changed.

use std::collections::{BTreeMap, VecDeque};

use super::limits;
use super::object::{Key, Object};

/// An object, from creation to deletion. A new one with the same name gets another slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) state: Object,
    /// The number of its latest change.
    pub(super) number: u64,
    /// The number of the change that created it.
    created: u64,
    /// The list in which, or after which, it was last seen.
    round: u32,
    pub(super) is_alive: bool,
}

#[derive(Debug)]
pub(super) struct Change {
    pub(super) number: u64,
    pub(super) slot: u32,
    pub(super) kind: ChangeKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Added,
    /// With the previous state.
    Modified(Object),
    Deleted,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_key: BTreeMap<Key, u32>,
    by_number: BTreeMap<u64, u32>,
    /// Slots of deleted objects, oldest first.
    deleted: VecDeque<u32>,
    latest: u64,
    /// The latest deletion that was forgotten before all viewers were told.
    lost: u64,
    round: u32,
    bytes: usize,
    /// Whether an object was not stored since the last list began, since there was no room.
    overflowed: bool,
}

impl Store {
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// A reader whose cursor is before this number has missed a deletion.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(super) fn cost(&self) -> usize {
        // Tree nodes are about half full.
        let entry = size_of::<Slot>() + 2 * (size_of::<(Key, u32)>() + size_of::<(u64, u32)>());
        self.bytes + self.slots.len() * entry
    }

    pub(super) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The first object whose latest change is after this number.
    pub(super) fn after(&self, number: u64) -> Option<(u32, &Slot)> {
        let (_, slot) = self.by_number.range(number + 1..).next()?;
        Some((*slot, self.slot(*slot)?))
    }

    /// The objects that existed at this number, one bit per slot.
    pub(super) fn known_at(&self, number: u64) -> Vec<u64> {
        let mut known = vec![0; self.slots.len().div_ceil(64)];
        for (at, slot) in self.slots.iter().enumerate() {
            if slot
                .as_ref()
                .is_some_and(|s| s.created <= number && (s.is_alive || s.number > number))
            {
                known[at / 64] |= 1 << (at % 64);
            }
        }
        known
    }

    pub(super) fn living(&self) -> impl Iterator<Item = &Slot> {
        self.by_key.values().filter_map(|slot| self.slot(*slot))
    }

    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
        self.overflowed = false;
    }

    /// Whether an object is missing since there was no room for it.
    pub(super) fn has_overflowed(&self) -> bool {
        self.overflowed
    }

    /// Whether there is room for what is missing.
    pub(super) fn has_room_again(&self) -> bool {
        self.overflowed && self.by_key.len() < limits::OBJECTS
    }

    /// The list is complete: returns the objects that were not in it.
    pub(super) fn missing(&self) -> Vec<Key> {
        let missing = self.living().filter(|slot| slot.round != self.round);
        missing.map(|slot| slot.key.clone()).collect()
    }

    /// Stores an object. One with the same name and another uid was deleted before.
    pub(super) fn put(
        &mut self,
        key: Key,
        state: Object,
        mut on_change: impl FnMut(&Self, Change),
    ) {
        let found = self.by_key.get(&key).copied();
        let same = found.and_then(|slot| self.slot(slot)).map(|old| old.state.uid == state.uid);
        if same == Some(false)
            && let Some(change) = self.delete(&key, None)
        {
            on_change(self, change);
        }
        if let (Some(true), Some(number)) = (same, found) {
            if let Some(change) = self.modify(number, state) {
                on_change(self, change);
            }
        } else if let Some(change) = self.add(key, state) {
            on_change(self, change);
        }
    }

    fn modify(&mut self, number: u32, state: Object) -> Option<Change> {
        let slot = self.slots.get_mut(number as usize)?.as_mut()?;
        slot.round = self.round;
        if slot.state.version == state.version {
            return None;
        }
        self.latest += 1;
        self.by_number.remove(&slot.number);
        slot.number = self.latest;
        self.by_number.insert(self.latest, number);
        self.bytes = self.bytes + state.cost() - slot.state.cost();
        let before = std::mem::replace(&mut slot.state, state);
        Some(Change { number: self.latest, slot: number, kind: ChangeKind::Modified(before) })
    }

    fn add(&mut self, key: Key, state: Object) -> Option<Change> {
        if self.by_key.len() >= limits::OBJECTS {
            self.overflowed = true;
            return None;
        }
        self.latest += 1;
        self.bytes += state.cost() + 2 * key.text().len();
        let slot = Slot {
            key: key.clone(),
            state,
            number: self.latest,
            created: self.latest,
            round: self.round,
            is_alive: true,
        };
        let number = if let Some(number) = self.free.pop() {
            self.slots[number as usize] = Some(slot);
            number
        } else {
            self.slots.push(Some(slot));
            u32::try_from(self.slots.len() - 1).ok()?
        };
        self.by_key.insert(key, number);
        self.by_number.insert(self.latest, number);
        Some(Change { number: self.latest, slot: number, kind: ChangeKind::Added })
    }

    /// Marks an object as deleted; `last` is its last state, if the server sent it.
    pub(super) fn delete(&mut self, key: &Key, last: Option<Object>) -> Option<Change> {
        let number = self.by_key.remove(key)?;
        let slot = self.slots.get_mut(number as usize)?.as_mut()?;
        self.latest += 1;
        self.by_number.remove(&slot.number);
        self.by_number.insert(self.latest, number);
        slot.number = self.latest;
        slot.is_alive = false;
        if let Some(last) = last {
            self.bytes = self.bytes + last.cost() - slot.state.cost();
            slot.state = last;
        }
        self.deleted.push_back(number);
        Some(Change { number: self.latest, slot: number, kind: ChangeKind::Deleted })
    }

    /// Frees deleted objects that all viewers know about, and the oldest beyond the limit.
    pub(super) fn forget(&mut self, seen: u64) {
        while let Some(&number) = self.deleted.front() {
            let Some(slot) = self.slot(number) else { break };
            let (at, cost) = (slot.number, slot.state.cost() + 2 * slot.key.text().len());
            if at > seen && self.deleted.len() <= limits::DELETED {
                break;
            }
            if at > seen {
                self.lost = at;
            }
            self.bytes -= cost;
            self.deleted.pop_front();
            self.by_number.remove(&at);
            self.slots[number as usize] = None;
            self.free.push(number);
        }
    }
}
