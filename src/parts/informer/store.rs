//! What the cluster has, as far as we have heard: each Deployment in its last state, and those
//! that are gone for as long as a viewer may not have heard of it. Every change has a number; an
//! object stands in their order at its latest one, so whoever knows everything up to a number
//! finds what it lacks behind it, once an object, however much happened.

use std::collections::{BTreeMap, VecDeque};

use super::deployment::{Deployment, Key};
use super::limits;

/// One Deployment from its creation to its end. A namesake that comes after it is another one.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) key: Key,
    pub(super) state: Deployment,
    /// Its latest change.
    pub(super) number: u64,
    born: u64,
    /// The list that had it last, or the watch behind that.
    round: u32,
    pub(super) lives: bool,
}

/// What has happened to one object.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) number: u64,
    pub(super) slot: u32,
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Added,
    /// With the state that it had before.
    Modified(Deployment),
    Deleted,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_key: BTreeMap<Key, u32>,
    by_number: BTreeMap<u64, u32>,
    /// Those that are gone, in the order of that.
    deleted: VecDeque<u32>,
    latest: u64,
    /// Whoever has not heard of this change will never hear of some deletion.
    lost: u64,
    round: u32,
    bytes: usize,
}

impl Store {
    /// The number of the latest change.
    pub(super) fn latest(&self) -> u64 {
        self.latest
    }

    /// Whoever stands before this has missed something for good.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// What it costs, nearly.
    pub(super) fn cost(&self) -> usize {
        // A tree's node has room to spare.
        let entry = size_of::<Slot>() + 2 * (size_of::<(Key, u32)>() + size_of::<(u64, u32)>());
        self.bytes + self.slots.len() * entry
    }

    pub(super) fn slot(&self, slot: u32) -> Option<&Slot> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The first object whose latest change comes after this number.
    pub(super) fn after(&self, number: u64) -> Option<(u32, &Slot)> {
        let (_, slot) = self.by_number.range(number + 1..).next()?;
        Some((*slot, self.slot(*slot)?))
    }

    /// The living ones that someone who has heard everything up to this number knows, and those
    /// that are gone since: one bit a slot.
    pub(super) fn known_at(&self, number: u64) -> Vec<u64> {
        let mut known = vec![0; self.slots.len().div_ceil(64)];
        for (at, slot) in self.slots.iter().enumerate() {
            if slot.as_ref().is_some_and(|s| s.born <= number && (s.lives || s.number > number)) {
                known[at / 64] |= 1 << (at % 64);
            }
        }
        known
    }

    pub(super) fn living(&self) -> impl Iterator<Item = &Slot> {
        self.by_key.values().filter_map(|slot| self.slot(*slot))
    }

    /// A list begins: whatever is not in it is gone.
    pub(super) fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// It is over: the living that were not in it.
    pub(super) fn missing(&self) -> Vec<Key> {
        let missing = self.living().filter(|slot| slot.round != self.round);
        missing.map(|slot| slot.key.clone()).collect()
    }

    /// An object is in this state. A namesake with another uid is gone before it came.
    pub(super) fn put(&mut self, key: Key, state: Deployment, mut told: impl FnMut(&Self, Change)) {
        let found = self.by_key.get(&key).copied();
        let same = found.and_then(|slot| self.slot(slot)).map(|old| old.state.uid == state.uid);
        if same == Some(false)
            && let Some(change) = self.delete(&key, None)
        {
            told(self, change);
        }
        if let (Some(true), Some(number)) = (same, found) {
            if let Some(change) = self.modify(number, state) {
                told(self, change);
            }
        } else if let Some(change) = self.add(key, state) {
            told(self, change);
        }
    }

    fn modify(&mut self, number: u32, state: Deployment) -> Option<Change> {
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
        Some(Change { number: self.latest, slot: number, what: What::Modified(before) })
    }

    fn add(&mut self, key: Key, state: Deployment) -> Option<Change> {
        if self.by_key.len() >= limits::DEPLOYMENTS {
            return None;
        }
        self.latest += 1;
        self.bytes += state.cost() + 2 * key.text().len();
        let slot = Slot {
            key: key.clone(),
            state,
            number: self.latest,
            born: self.latest,
            round: self.round,
            lives: true,
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
        Some(Change { number: self.latest, slot: number, what: What::Added })
    }

    /// An object is gone; with its last state, if that is told.
    pub(super) fn delete(&mut self, key: &Key, last: Option<Deployment>) -> Option<Change> {
        let number = self.by_key.remove(key)?;
        let slot = self.slots.get_mut(number as usize)?.as_mut()?;
        self.latest += 1;
        self.by_number.remove(&slot.number);
        self.by_number.insert(self.latest, number);
        slot.number = self.latest;
        slot.lives = false;
        if let Some(last) = last {
            self.bytes = self.bytes + last.cost() - slot.state.cost();
            slot.state = last;
        }
        self.deleted.push_back(number);
        Some(Change { number: self.latest, slot: number, what: What::Deleted })
    }

    /// Forgets those of whose end everyone has heard, and the oldest of too many.
    pub(super) fn forget(&mut self, heard: u64) {
        while let Some(&number) = self.deleted.front() {
            let Some(slot) = self.slot(number) else { break };
            let (at, cost) = (slot.number, slot.state.cost() + 2 * slot.key.text().len());
            if at > heard && self.deleted.len() <= limits::DELETED {
                break;
            }
            if at > heard {
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
