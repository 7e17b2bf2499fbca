//! A table whose places are used again, with a generation that tells their tenants apart.

use crate::engine::Id;
use crate::heap;

/// Places are added this many at a time: doubling would hold up to twice what is used.
const GROWTH: usize = 4096;
const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    tenant: Tenant<T>,
}

#[derive(Debug)]
enum Tenant<T> {
    Here(T),
    /// Free; the next free place follows, or [`NOBODY`].
    Free(u32),
}

/// A table of `T` by [`Id`].
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<Place<T>>,
    free: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: NOBODY, len: 0 }
    }
}

impl<T> Slab<T> {
    /// Tenants at present.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What the table costs, free places included: those that were never used only address space.
    #[must_use]
    pub fn cost(&self) -> usize {
        heap::table::<Place<T>>(self.places.capacity())
    }

    /// Whether there is no tenant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a tenant in. `None` once 2³² − 1 places are in use.
    pub fn insert(&mut self, tenant: T) -> Option<Id> {
        if self.free == NOBODY {
            self.add_place()?;
        }
        let key = self.free;
        let place = &mut self.places[key as usize];
        let Tenant::Free(next) = place.tenant else { unreachable!("a free place has no tenant") };
        self.free = next;
        self.len += 1;
        place.tenant = Tenant::Here(tenant);
        Some(Id { key, generation: place.generation })
    }

    fn add_place(&mut self) -> Option<()> {
        let key = u32::try_from(self.places.len()).ok().filter(|&key| key != NOBODY)?;
        if self.places.len() == self.places.capacity() {
            self.places.reserve_exact(GROWTH);
        }
        self.places.push(Place { generation: 0, tenant: Tenant::Free(NOBODY) });
        self.free = key;
        Some(())
    }

    /// The tenant, unless the id is of an earlier one.
    #[must_use]
    pub fn find(&self, id: Id) -> Option<&T> {
        match self.places.get(id.key as usize) {
            Some(Place { generation, tenant: Tenant::Here(tenant) })
                if *generation == id.generation =>
            {
                Some(tenant)
            }
            _ => None,
        }
    }

    /// The tenant, unless the id is of an earlier one.
    #[must_use]
    pub fn find_mut(&mut self, id: Id) -> Option<&mut T> {
        match self.places.get_mut(id.key as usize) {
            Some(Place { generation, tenant: Tenant::Here(tenant) })
                if *generation == id.generation =>
            {
                Some(tenant)
            }
            _ => None,
        }
    }

    /// The id of whoever is at this place.
    #[must_use]
    pub fn id_at(&self, key: u32) -> Option<Id> {
        match self.places.get(key as usize) {
            Some(Place { generation, tenant: Tenant::Here(_) }) => {
                Some(Id { key, generation: *generation })
            }
            _ => None,
        }
    }

    /// Sends the tenant away; the id is stale from now on.
    pub fn remove(&mut self, id: Id) -> Option<T> {
        self.find(id)?;
        let place = &mut self.places[id.key as usize];
        let left = std::mem::replace(&mut place.tenant, Tenant::Free(self.free));
        place.generation = place.generation.wrapping_add(1);
        self.free = id.key;
        self.len -= 1;
        match left {
            Tenant::Here(tenant) => Some(tenant),
            Tenant::Free(_) => None,
        }
    }

    /// All tenants in order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Id, &T)> {
        self.places.iter().enumerate().filter_map(|(key, place)| match &place.tenant {
            Tenant::Here(tenant) => {
                let key = u32::try_from(key).ok()?;
                Some((Id { key, generation: place.generation }, tenant))
            }
            Tenant::Free(_) => None,
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
        assert_eq!(a.key, b.key, "places are used again");
        assert_eq!(slab.find(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.find(b), Some(&'b'));
        assert_eq!(slab.len(), 1);
    }
}
