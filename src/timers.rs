//! A hierarchical timer wheel: four rings of 64 slots, ticks of 16 ms, one timer per key.
//! Setting and cancelling take constant time; each ring has a bitmap of occupied slots, so an idle
//! process needs no wake-ups. It knows no clock.

use crate::heap;

/// One tick. A timer fires up to one tick late, never early.
pub const TICK_NS: u64 = 16_000_000;

const RINGS: usize = 4;
const SLOTS: u64 = 64;
const NIL: u32 = u32::MAX;
const NO_SLOT: u16 = u16::MAX;
/// The farthest a timer can be set (74 h); one beyond that is linked here and moved on later.
const HORIZON: u64 = (SLOTS * SLOTS * SLOTS * SLOTS) - 1;

/// A key's timer and its neighbours in the slot's list.
#[derive(Clone, Copy, Debug)]
struct Node {
    at: u64,
    next: u32,
    previous: u32,
    slot: u16,
}

const UNSET: Node = Node { at: 0, next: NIL, previous: NIL, slot: NO_SLOT };

/// Timers by key, at most one per key.
#[derive(Debug)]
pub struct Timers {
    nodes: Vec<Node>,
    heads: [u32; RINGS * SLOTS as usize],
    occupied: [u64; RINGS],
    /// Every tick before this one has been processed.
    position: u64,
    armed: usize,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            heads: [NIL; RINGS * SLOTS as usize],
            occupied: [0; RINGS],
            position: 0,
            armed: 0,
        }
    }
}

impl Timers {
    /// The number of timers that are set.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.armed
    }

    /// The cost of the table.
    #[must_use]
    pub fn cost(&self) -> usize {
        heap::table::<Node>(self.nodes.capacity())
    }

    /// Whether the key's timer is set.
    #[must_use]
    pub fn is_set(&self, key: u32) -> bool {
        self.nodes.get(key as usize).is_some_and(|node| node.slot != NO_SLOT)
    }

    /// Sets the key's timer and replaces an earlier one.
    pub fn set(&mut self, key: u32, at_ns: u64) {
        let at = at_ns.div_ceil(TICK_NS).max(self.position + 1);
        if let Some(node) = self.nodes.get(key as usize)
            && node.slot != NO_SLOT
            && node.at == at
        {
            return;
        }
        self.cancel(key);
        if self.nodes.len() <= key as usize {
            self.nodes.resize(key as usize + 1, UNSET);
        }
        self.nodes[key as usize].at = at;
        self.link(key);
        self.armed += 1;
    }

    /// Cancels the key's timer, if it is set.
    pub fn cancel(&mut self, key: u32) {
        if self.nodes.get(key as usize).is_some_and(|node| node.slot != NO_SLOT) {
            self.unlink(key);
            self.armed -= 1;
        }
    }

    /// When to call [`Timers::expire`] next: when a timer expires, or when a slot of an outer ring
    /// must be redistributed over the inner ones. `None`: no timer is set.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_occupied_tick().map(|tick| tick * TICK_NS)
    }

    /// The next key whose timer has expired; it is no longer set.
    pub fn expire(&mut self, now_ns: u64) -> Option<u32> {
        let now = now_ns / TICK_NS;
        loop {
            let slot = (self.position % SLOTS) as usize;
            if self.heads[slot] != NIL {
                let key = self.heads[slot];
                self.unlink(key);
                self.armed -= 1;
                return Some(key);
            }
            match self.next_occupied_tick() {
                Some(tick) if tick <= now => self.advance_to(tick),
                Some(_) | None => {
                    self.position = self.position.max(now);
                    return None;
                }
            }
        }
    }

    /// The nearest tick at which an occupied slot begins.
    fn next_occupied_tick(&self) -> Option<u64> {
        if self.heads[(self.position % SLOTS) as usize] != NIL {
            return Some(self.position);
        }
        (0..RINGS)
            .filter(|&ring| self.occupied[ring] != 0)
            .map(|ring| {
                // Rotate the ring so that the slot after the current one comes first.
                let here = self.position >> (6 * ring);
                let turned = self.occupied[ring].rotate_right(((here + 1) % SLOTS) as u32);
                (here + 1 + u64::from(turned.trailing_zeros())) << (6 * ring)
            })
            .min()
    }

    /// Moves to a tick and redistributes the outer slots that begin there.
    fn advance_to(&mut self, tick: u64) {
        self.position = tick;
        for ring in (1..RINGS).rev() {
            if !tick.is_multiple_of(1 << (6 * ring)) {
                continue;
            }
            let slot = ring * SLOTS as usize + ((tick >> (6 * ring)) % SLOTS) as usize;
            let mut key = self.heads[slot];
            self.heads[slot] = NIL;
            self.occupied[ring] &= !(1 << (slot as u64 % SLOTS));
            while key != NIL {
                let next = self.nodes[key as usize].next;
                self.link(key);
                key = next;
            }
        }
    }

    /// Links a key into the slot for its tick, relative to the current position.
    fn link(&mut self, key: u32) {
        let at = self.nodes[key as usize].at;
        let ahead = at.saturating_sub(self.position).min(HORIZON);
        let ring = (0..RINGS - 1).find(|ring| ahead < SLOTS << (6 * ring)).unwrap_or(RINGS - 1);
        let place = ((self.position + ahead) >> (6 * ring)) % SLOTS;
        let slot = ring * SLOTS as usize + place as usize;
        let head = self.heads[slot];
        if head != NIL {
            self.nodes[head as usize].previous = key;
        }
        self.heads[slot] = key;
        self.occupied[ring] |= 1 << place;
        let node = &mut self.nodes[key as usize];
        (node.next, node.previous, node.slot) = (head, NIL, slot as u16);
    }

    fn unlink(&mut self, key: u32) {
        let node = self.nodes[key as usize];
        let slot = usize::from(node.slot);
        if node.previous == NIL {
            self.heads[slot] = node.next;
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        if node.next != NIL {
            self.nodes[node.next as usize].previous = node.previous;
        }
        if self.heads[slot] == NIL {
            self.occupied[slot / SLOTS as usize] &= !(1 << (slot as u64 % SLOTS));
        }
        self.nodes[key as usize].slot = NO_SLOT;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn agrees_with_a_sorted_map() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut timers = Timers::default();
            let mut model = BTreeMap::new();
            let mut now = 0;
            for _ in 0..500 {
                let key = u32::try_from(rng.below(50)).unwrap();
                if rng.below(4) == 0 {
                    timers.cancel(key);
                    model.remove(&key);
                } else {
                    let scale = [64, 4_096, 262_144, 40_000_000][rng.below(4) as usize];
                    let at = now + rng.below(scale * TICK_NS);
                    timers.set(key, at);
                    model.insert(key, at);
                }
                let leap = [10, 5_000, 300_000][rng.below(3) as usize];
                now += rng.below(leap * TICK_NS);
                while let Some(key) = timers.expire(now) {
                    let at = model.remove(&key).expect("an expired timer was set");
                    assert!(at <= now, "seed {seed}: {key} early");
                }
                let late = model.iter().find(|(_, at)| **at + 2 * TICK_NS <= now);
                assert_eq!(late, None, "seed {seed} at {now}");
                assert_eq!(timers.armed(), model.len());
                assert_eq!(timers.next_deadline().is_none(), model.is_empty());
            }
        }
    }

    #[test]
    fn an_expired_timer_may_be_set_again_at_once() {
        let mut timers = Timers::default();
        timers.set(3, 0);
        assert_eq!(timers.expire(5 * TICK_NS), Some(3));
        timers.set(3, 0);
        assert_eq!(
            timers.next_deadline(),
            Some(2 * TICK_NS),
            "never in the same tick: no spinning"
        );
    }
}
