//! Distributes changes to viewers: one store, one ring of encoded changes, and a cursor for each
//! viewer. A viewer that is new or has fallen out of the ring gets the latest state of each object
//! from the store instead, once, however often it changed. So a slow viewer costs a cursor and a
//! bit per object, and delays no other viewer.

use std::collections::{BTreeMap, VecDeque};

use super::deployment::{Deployment, Key};
use super::encode::{self, ChangeEvent, Encoded, Format};
use super::limits;
use super::store::{Change, ChangeKind, Store};
use crate::engine::{Id, Now};
use crate::heap;

/// What a viewer wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The message format.
    pub format: Format,
    /// The namespace; empty: all.
    pub namespace: String,
    /// The name; empty: all.
    pub name: String,
}

impl Filter {
    fn covers(&self, key: &Key) -> bool {
        let fits = |filter: &str, part: &str| filter.is_empty() || filter == part;
        fits(&self.namespace, key.namespace()) && fits(&self.name, key.name())
    }
}

/// The result of [`Feed::speak`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The viewer becomes due again when there is more.
    Wait,
    /// The viewer has missed a deletion that is no longer stored.
    Lost,
}

#[derive(Debug)]
struct Viewer {
    filter: Filter,
    position: Position,
    /// The value of [`Feed::sync_changes`] that it was told.
    seen_sync: u64,
    /// Whether it is in [`Feed::due`].
    due: bool,
}

impl Viewer {
    fn cost(&self) -> usize {
        let known = match &self.position {
            Position::CatchingUp { known, .. } => heap::table::<u64>(known.capacity()),
            Position::Waiting | Position::Following { .. } => 0,
        };
        let Filter { namespace, name, .. } = &self.filter;
        heap::tree_entry::<(Id, Self)>()
            + heap::cost(namespace.capacity())
            + heap::cost(name.capacity())
            + known
    }
}

#[derive(Debug)]
enum Position {
    /// Until the first list is complete.
    Waiting,
    /// Reads the store; the bits of `known` are the slots of objects that the viewer has seen.
    CatchingUp { cursor: u64, known: Vec<u64> },
    /// Reads the ring.
    Following { cursor: u64 },
}

#[derive(Debug)]
struct RingEntry {
    number: u64,
    key: Key,
    text: Encoded,
    json: Encoded,
}

impl RingEntry {
    fn cost(&self) -> usize {
        size_of::<Self>() + heap::cost(self.key.text().len()) + self.text.cost() + self.json.cost()
    }
}

/// Whether the store is up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SyncState {
    Unknown,
    Synced { version: String },
    Stale { since_ms: i64, reason: String },
}

/// The Deployments and their viewers.
#[derive(Debug)]
pub struct Feed {
    store: Store,
    ring: VecDeque<RingEntry>,
    ring_bytes: usize,
    viewers: BTreeMap<Id, Viewer>,
    viewers_bytes: usize,
    due: VecDeque<Id>,
    sync_state: SyncState,
    /// Counts changes of `sync_state`.
    sync_changes: u64,
    /// Whether a list was ever complete.
    complete: bool,
    scratch: Encoded,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            store: Store::default(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            viewers: BTreeMap::new(),
            viewers_bytes: 0,
            due: VecDeque::new(),
            sync_state: SyncState::Unknown,
            sync_changes: 0,
            complete: false,
            scratch: Encoded::default(),
        }
    }
}

/// For viewers.
impl Feed {
    /// Adds a viewer, which is due immediately.
    pub fn join(&mut self, id: Id, filter: Filter) {
        let position = self.initial_position();
        let viewer = Viewer { filter, position, seen_sync: 0, due: false };
        self.viewers_bytes += viewer.cost();
        self.viewers.insert(id, viewer);
        self.mark_due(id);
    }

    /// Removes a viewer.
    pub fn leave(&mut self, id: Id) {
        let Some(viewer) = self.viewers.remove(&id) else { return };
        self.viewers_bytes -= viewer.cost();
        if self.viewers.is_empty() {
            self.ring.clear();
            self.ring_bytes = 0;
            self.due.clear();
            self.store.forget(u64::MAX);
        }
    }

    /// The number of viewers.
    #[must_use]
    pub fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// The next viewer to call [`Feed::speak`] for.
    pub fn next_due(&mut self) -> Option<Id> {
        let id = self.due.pop_front()?;
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.due = false;
        }
        Some(id)
    }

    /// Whether a viewer is due.
    #[must_use]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Passes pending changes to `send`, which returns how many more bytes it can take. At 0 the
    /// viewer becomes due again.
    pub fn speak(&mut self, now: Now, id: Id, send: &mut dyn FnMut(&Encoded) -> usize) -> Then {
        let Some(mut viewer) = self.viewers.remove(&id) else { return Then::Wait };
        self.viewers_bytes -= viewer.cost();
        let then = self.send_pending(now, &mut viewer, send);
        let room = then == Some(Then::Wait);
        if then != Some(Then::Lost) {
            self.viewers_bytes += viewer.cost();
            self.viewers.insert(id, viewer);
        }
        if then.is_none() {
            self.mark_due(id);
        }
        if room || then.is_none() { Then::Wait } else { Then::Lost }
    }

    /// `None`: there are more changes.
    fn send_pending(
        &mut self,
        now: Now,
        viewer: &mut Viewer,
        send: &mut dyn FnMut(&Encoded) -> usize,
    ) -> Option<Then> {
        let json = viewer.filter.format == Format::Json;
        if let SyncState::Stale { since_ms, reason } = &self.sync_state
            && json
            && viewer.seen_sync != self.sync_changes
        {
            viewer.seen_sync = self.sync_changes;
            self.scratch.clear();
            encode::stale(&mut self.scratch, *since_ms, reason);
            if send(&self.scratch) == 0 {
                return None;
            }
        }
        if matches!(viewer.position, Position::Waiting) {
            viewer.position = self.initial_position();
        }
        loop {
            match &mut viewer.position {
                Position::Waiting => return Some(Then::Wait),
                Position::CatchingUp { cursor, known } => {
                    if *cursor < self.store.lost() && *cursor > 0 {
                        return Some(Then::Lost);
                    }
                    if let Some(next) = self.catch_up(now, &viewer.filter, *cursor, known) {
                        *cursor = next;
                        if !self.scratch.bytes().is_empty() && send(&self.scratch) == 0 {
                            return None;
                        }
                    } else {
                        viewer.position = Position::Following { cursor: self.store.latest() };
                    }
                }
                Position::Following { cursor } if *cursor == self.store.latest() => break,
                Position::Following { cursor } => {
                    let first = self.ring.front().map_or(u64::MAX, |entry| entry.number);
                    let Some(at) = (*cursor + 1).checked_sub(first) else {
                        let (cursor, known) = (*cursor, self.store.known_at(*cursor));
                        viewer.position = Position::CatchingUp { cursor, known };
                        continue;
                    };
                    let Some(entry) = self.ring.get(at as usize) else { break };
                    *cursor = entry.number;
                    let encoded = if json { &entry.json } else { &entry.text };
                    if viewer.filter.covers(&entry.key) && send(encoded) == 0 {
                        return None;
                    }
                }
            }
        }
        if let SyncState::Synced { version } = &self.sync_state
            && json
            && viewer.seen_sync != self.sync_changes
        {
            viewer.seen_sync = self.sync_changes;
            self.scratch.clear();
            encode::synced(&mut self.scratch, version);
            send(&self.scratch);
        }
        Some(Then::Wait)
    }

    /// Encodes the next object after `cursor` into `scratch`, unless the filter excludes it.
    /// Returns the new cursor; `None` if there is no object left.
    fn catch_up(
        &mut self,
        now: Now,
        filter: &Filter,
        cursor: u64,
        known: &mut Vec<u64>,
    ) -> Option<u64> {
        self.scratch.clear();
        let (slot, object) = self.store.after(cursor)?;
        let (word, bit) = (slot as usize / 64, 1 << (slot % 64));
        if known.len() <= word {
            known.resize(word + 1, 0);
        }
        let was_known = known[word] & bit != 0;
        known[word] = (known[word] & !bit) | if object.is_alive { bit } else { 0 };
        let kind = match (was_known, object.is_alive) {
            (false, false) => return Some(object.number),
            (true, false) => ChangeKind::Deleted,
            (false, true) => ChangeKind::Added,
            // The viewer's version is no longer known, so no difference is reported.
            (true, true) => ChangeKind::Modified(object.state.clone()),
        };
        if filter.covers(&object.key) {
            let (key, state) = (&object.key, &object.state);
            let event = ChangeEvent { key, state, kind: &kind, wall_ms: now.wall_ms };
            encode::write(&mut self.scratch, filter.format, event);
        }
        Some(object.number)
    }

    fn initial_position(&self) -> Position {
        if self.complete {
            Position::CatchingUp { cursor: 0, known: Vec::new() }
        } else {
            Position::Waiting
        }
    }

    fn mark_due(&mut self, id: Id) {
        if let Some(viewer) = self.viewers.get_mut(&id)
            && !std::mem::replace(&mut viewer.due, true)
        {
            self.due.push_back(id);
        }
    }

    fn mark_all_due(&mut self) {
        for (id, viewer) in &mut self.viewers {
            if !std::mem::replace(&mut viewer.due, true) {
                self.due.push_back(*id);
            }
        }
    }
}

/// For the informer.
impl Feed {
    pub(super) fn begin_list(&mut self) {
        self.store.begin_round();
    }

    pub(super) fn put(&mut self, now: Now, key: Key, state: Deployment) {
        let mut changes = Vec::new();
        self.store.put(key, state, |_, change| changes.push(change));
        for change in changes {
            self.publish(now, &change);
        }
    }

    pub(super) fn delete(&mut self, now: Now, key: &Key, last: Option<Deployment>) {
        if let Some(change) = self.store.delete(key, last) {
            self.publish(now, &change);
        }
    }

    /// The list is complete: objects that are not in it were deleted.
    pub(super) fn end_list(&mut self, now: Now) {
        for key in self.store.missing() {
            self.delete(now, &key, None);
        }
        self.complete = true;
        self.mark_all_due();
    }

    /// The store is complete up to this resource version.
    pub(super) fn synced(&mut self, version: &str) {
        let was_synced = self.is_synced();
        self.sync_state = SyncState::Synced { version: version.to_owned() };
        if !was_synced {
            self.sync_changes += 1;
            self.mark_all_due();
        }
    }

    /// The watch has failed, so the store may be out of date.
    pub(super) fn stale(&mut self, now: Now, reason: &str) {
        let since_ms = match &self.sync_state {
            SyncState::Stale { reason: known, .. } if known == reason => return,
            SyncState::Stale { since_ms, .. } => *since_ms,
            SyncState::Unknown | SyncState::Synced { .. } => now.wall_ms,
        };
        self.sync_state = SyncState::Stale { since_ms, reason: reason.to_owned() };
        self.sync_changes += 1;
        self.mark_all_due();
    }

    /// Frees everything; there must be no viewers.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.viewers.is_empty(), "there are viewers");
        *self = Self { sync_changes: self.sync_changes + 1, ..Self::default() };
    }

    /// Whether the store is up to date.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self.sync_state, SyncState::Synced { .. })
    }

    /// The number of Deployments.
    #[must_use]
    pub fn deployments(&self) -> usize {
        self.store.len()
    }

    /// Approximate memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.store.cost() + self.ring_bytes + self.viewers_bytes
    }

    /// Key, uid and resource version of each Deployment, for tests.
    #[must_use]
    pub fn contents(&self) -> Vec<(String, String, String)> {
        let shown = self.store.living().map(|slot| {
            let Deployment { uid, version, .. } = &slot.state;
            (slot.key.text().to_owned(), uid.to_string(), version.to_string())
        });
        shown.collect()
    }

    /// Encodes a change once for all viewers that follow the ring.
    fn publish(&mut self, now: Now, change: &Change) {
        if self.viewers.is_empty() || !self.complete {
            // New viewers read the store.
            self.ring.clear();
            self.ring_bytes = 0;
            if self.viewers.is_empty() {
                self.store.forget(u64::MAX);
            }
            return;
        }
        let Some(slot) = self.store.slot(change.slot) else { return };
        let event = ChangeEvent {
            key: &slot.key,
            state: &slot.state,
            kind: &change.kind,
            wall_ms: now.wall_ms,
        };
        let mut entry = RingEntry {
            number: change.number,
            key: slot.key.clone(),
            text: Encoded::default(),
            json: Encoded::default(),
        };
        for (format, encoded) in [(Format::Text, &mut entry.text), (Format::Json, &mut entry.json)]
        {
            if self.viewers.values().any(|viewer| viewer.filter.format == format) {
                encode::write(encoded, format, event);
            }
        }
        self.ring_bytes += entry.cost();
        self.ring.push_back(entry);
        while self.ring.len() > limits::RING_CHANGES || self.ring_bytes > limits::RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.cost();
        }
        if change.kind == ChangeKind::Deleted {
            self.store.forget(self.slowest_cursor());
        }
        self.mark_all_due();
    }

    fn slowest_cursor(&self) -> u64 {
        let cursors = self.viewers.values().map(|viewer| match &viewer.position {
            Position::Waiting => 0,
            Position::CatchingUp { cursor, .. } | Position::Following { cursor } => *cursor,
        });
        cursors.min().unwrap_or(u64::MAX)
    }
}
