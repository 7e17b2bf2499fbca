//! Values by the id of something in a table of others: looking one up is reading a slot, not a
//! search.

use crate::engine::Id;
use crate::heap;

/// A map with a slot for each key up to the largest.
#[derive(Debug)]
pub struct IdMap<T> {
    slots: Vec<Option<(u32, T)>>,
    len: usize,
}

impl<T> Default for IdMap<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), len: 0 }
    }
}

impl<T> IdMap<T> {
    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The cost of its slots.
    #[must_use]
    pub fn cost(&self) -> usize {
        heap::table::<Option<(u32, T)>>(self.slots.capacity())
    }

    /// The value of this id; an earlier or later one with the same key has none.
    #[must_use]
    pub fn get(&self, id: Id) -> Option<&T> {
        let (generation, value) = self.slots.get(id.key as usize)?.as_ref()?;
        (*generation == id.generation).then_some(value)
    }

    /// Sets the value of this id, in place of any other with the same key.
    pub fn insert(&mut self, id: Id, value: T) {
        let key = id.key as usize;
        if key >= self.slots.len() {
            self.slots.resize_with(key + 1, || None);
        }
        if self.slots[key].replace((id.generation, value)).is_none() {
            self.len += 1;
        }
    }

    /// Removes the value of this id.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.get(id)?;
        let (_, value) = self.slots[id.key as usize].take()?;
        self.len -= 1;
        if self.len == 0 {
            // The largest key may have been far above what comes next.
            self.slots = Vec::new();
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_the_same_key_differ() {
        let (old, new) = (Id { key: 7, generation: 0 }, Id { key: 7, generation: 1 });
        let mut map = IdMap::default();
        map.insert(old, 'a');
        assert_eq!((map.get(old), map.get(new), map.len()), (Some(&'a'), None, 1));
        assert_eq!(map.remove(new), None);
        map.insert(new, 'b');
        assert_eq!((map.get(old), map.get(new), map.len()), (None, Some(&'b'), 1));
        assert_eq!((map.remove(new), map.remove(new)), (Some('b'), None));
        assert_eq!((map.len(), map.cost()), (0, 0));
    }
}
