//! A table whose slots are reused. Each has a generation, so ids of earlier values do not match.

use crate::engine::Id;
use crate::heap;

/// Slots are added this many at a time: doubling would hold up to twice what is used.
const GROWTH: usize = 4096;
const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Occupied(T),
    /// The next free slot, or [`NIL`].
    Vacant(u32),
}

/// A table of `T` by [`Id`].
#[derive(Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: NIL, len: 0 }
    }
}

impl<T> Slab<T> {
    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The cost of the table, free slots included. Slots never used cost address space only.
    #[must_use]
    pub fn cost(&self) -> usize {
        heap::table::<Slot<T>>(self.slots.capacity())
    }

    /// Whether the table holds no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value. `None` once 2³² − 1 slots are in use.
    pub fn insert(&mut self, value: T) -> Option<Id> {
        if self.free == NIL {
            self.add_slot()?;
        }
        let key = self.free;
        let slot = &mut self.slots[key as usize];
        let State::Vacant(next) = slot.state else { unreachable!("a free slot has no value") };
        self.free = next;
        self.len += 1;
        slot.state = State::Occupied(value);
        Some(Id { key, generation: slot.generation })
    }

    fn add_slot(&mut self) -> Option<()> {
        let key = u32::try_from(self.slots.len()).ok().filter(|&key| key != NIL)?;
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(GROWTH);
        }
        self.slots.push(Slot { generation: 0, state: State::Vacant(NIL) });
        self.free = key;
        Some(())
    }

    /// The value with this id; `None` if it was removed, even if its slot is in use again.
    #[must_use]
    pub fn find(&self, id: Id) -> Option<&T> {
        match self.slots.get(id.key as usize) {
            Some(Slot { generation, state: State::Occupied(value) })
                if *generation == id.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// As [`Slab::find`].
    #[must_use]
    pub fn find_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.slots.get_mut(id.key as usize) {
            Some(Slot { generation, state: State::Occupied(value) })
                if *generation == id.generation =>
            {
                Some(value)
            }
            _ => None,
        }
    }

    /// The id of the value in this slot.
    #[must_use]
    pub fn id_at(&self, key: u32) -> Option<Id> {
        match self.slots.get(key as usize) {
            Some(Slot { generation, state: State::Occupied(_) }) => {
                Some(Id { key, generation: *generation })
            }
            _ => None,
        }
    }

    /// Removes a value; its id is stale from now on.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.find(id)?;
        let slot = &mut self.slots[id.key as usize];
        let left = std::mem::replace(&mut slot.state, State::Vacant(self.free));
        slot.generation = slot.generation.wrapping_add(1);
        self.free = id.key;
        self.len -= 1;
        match left {
            State::Occupied(value) => Some(value),
            State::Vacant(_) => None,
        }
    }

    /// All values in the order of their slots.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.slots.iter().enumerate().filter_map(|(key, slot)| match &slot.state {
            State::Occupied(value) => {
                let key = u32::try_from(key).ok()?;
                Some((Id { key, generation: slot.generation }, value))
            }
            State::Vacant(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_id_misses() {
        let mut slab = Slab::default();
        let a = slab.insert('a').unwrap();
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert('b').unwrap();
        assert_eq!(a.key, b.key, "slots are used again");
        assert_eq!(slab.find(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.find(b), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }
}
