//! Distributes changes to viewers: one store, one ring of encoded changes, and a cursor for each
//! viewer. A viewer that is new or has fallen out of the ring gets the latest state of each object
//! from the store instead, once, however often it changed. So a slow viewer costs a cursor and a
//! bit per object, and delays no other viewer. A viewer that comes back continues in the ring, if
//! it knows a version that is still there.

use std::collections::{BTreeMap, VecDeque};

use super::encode::{self, ChangeEvent, Encoded, Format};
use super::limits;
use super::object::{Key, Object};
use super::resource::Resource;
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
    /// It must be told that it may have missed changes, before the objects.
    gap: bool,
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
    version: Box<str>,
    text: Encoded,
    json: Encoded,
}

impl RingEntry {
    fn cost(&self) -> usize {
        size_of::<Self>()
            + heap::cost(self.key.text().len())
            + heap::cost(self.version.len())
            + self.text.cost()
            + self.json.cost()
    }
}

/// Whether the store is up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
enum SyncState {
    Unknown,
    Synced,
    Stale { since_ms: i64, reason: String },
}

/// The objects of one kind and their viewers.
#[derive(Debug)]
pub struct Feed {
    resource: Resource,
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
    /// The resource version of the latest change, or of the latest list if that is newer.
    version: Box<str>,
    /// The versions of the latest lists, and the numbers of the changes before their ends.
    lists: VecDeque<(Box<str>, u64)>,
    /// Whether there are objects that are not stored.
    truncated: bool,
    /// The same of the list that is being read, if there is one.
    list_truncated: Option<bool>,
    scratch: Encoded,
}

impl Feed {
    pub(super) fn new(resource: Resource) -> Self {
        Self {
            resource,
            store: Store::default(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            viewers: BTreeMap::new(),
            viewers_bytes: 0,
            due: VecDeque::new(),
            sync_state: SyncState::Unknown,
            sync_changes: 0,
            complete: false,
            version: Box::default(),
            lists: VecDeque::new(),
            truncated: false,
            list_truncated: None,
            scratch: Encoded::default(),
        }
    }
}

/// For viewers.
impl Feed {
    /// Adds a viewer, which is due immediately.
    pub fn join(&mut self, id: Id, filter: Filter) {
        let position = self.initial_position();
        self.add(id, Viewer { filter, position, gap: false, seen_sync: 0, due: false });
    }

    /// Adds a viewer that knows everything up to this resource version. If that is not in the ring,
    /// it is told so, and begins anew.
    pub fn join_since(&mut self, id: Id, filter: Filter, version: &str) {
        let found = self.find(version).map(|cursor| Position::Following { cursor });
        let gap = found.is_none();
        let position = found.unwrap_or_else(|| self.initial_position());
        self.add(id, Viewer { filter, position, gap, seen_sync: 0, due: false });
    }

    /// The number of the change that had this version. The same version at different numbers, as
    /// after a new list, says nothing.
    fn find(&self, version: &str) -> Option<u64> {
        let oldest = self.oldest();
        let changes = self.ring.iter().map(|entry| (&entry.version, entry.number));
        let lists = self.lists.iter().map(|(version, number)| (version, *number));
        let mut numbers = changes
            .chain(lists)
            .filter(|(known, number)| ***known == *version && *number + 1 >= oldest)
            .map(|(_, number)| number);
        let first = numbers.next()?;
        numbers.all(|number| number == first).then_some(first)
    }

    /// The number of the oldest change in the ring, or of the next one.
    fn oldest(&self) -> u64 {
        self.ring.front().map_or_else(|| self.store.latest() + 1, |entry| entry.number)
    }

    fn add(&mut self, id: Id, viewer: Viewer) {
        self.viewers_bytes += viewer.cost();
        self.viewers.insert(id, viewer);
        self.mark_due(id);
    }

    /// Removes a viewer.
    pub fn leave(&mut self, id: Id) {
        let Some(viewer) = self.viewers.remove(&id) else { return };
        self.viewers_bytes -= viewer.cost();
        if self.viewers.is_empty() {
            self.due.clear();
            self.trim();
            self.store.forget(self.forgettable());
        }
    }

    /// Whether this is a viewer.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.viewers.contains_key(&id)
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
            encode::stale(&mut self.scratch, self.resource, *since_ms, reason);
            if send(&self.scratch) == 0 {
                return None;
            }
        }
        if std::mem::take(&mut viewer.gap) {
            self.scratch.clear();
            encode::gap(&mut self.scratch, self.resource);
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
                    let Some(at) = (*cursor + 1).checked_sub(self.oldest()) else {
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
        if self.is_synced() && json && viewer.seen_sync != self.sync_changes {
            viewer.seen_sync = self.sync_changes;
            self.scratch.clear();
            encode::synced(&mut self.scratch, self.resource, &self.version, self.truncated);
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
            let (resource, wall_ms) = (self.resource, now.wall_ms);
            let (key, state) = (&object.key, &object.state);
            let event = ChangeEvent { resource, key, state, kind: &kind, wall_ms };
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
        self.list_truncated = Some(false);
    }

    /// There is an object that is not stored.
    pub(super) fn note_omitted(&mut self) {
        match &mut self.list_truncated {
            Some(truncated) => *truncated = true,
            None => self.set_truncated(true),
        }
    }

    pub(super) fn put(&mut self, now: Now, key: Key, state: Object) {
        let mut changes = Vec::new();
        self.store.put(key, state, |_, change| changes.push(change));
        for change in changes {
            self.publish(now, &change);
        }
        if self.store.has_overflowed() {
            self.note_omitted();
        }
    }

    fn set_truncated(&mut self, truncated: bool) {
        if std::mem::replace(&mut self.truncated, truncated) == truncated {
            return;
        }
        self.sync_changes += 1;
        self.mark_all_due();
        if truncated {
            log::warn!(
                target: "informer", kind = self.resource.name(), objects = self.store.len();
                "there are objects that are not shown: too many, too long, or invalid"
            );
        }
    }

    /// Whether a new list would show objects for which there was no room before.
    pub(super) fn has_room_again(&self) -> bool {
        self.store.has_room_again()
    }

    pub(super) fn delete(&mut self, now: Now, key: &Key, last: Option<Object>) {
        if let Some(change) = self.store.delete(key, last) {
            self.publish(now, &change);
        }
    }

    /// The list of this resource version is complete: objects that are not in it were deleted.
    pub(super) fn end_list(&mut self, now: Now, version: &str) {
        for key in self.store.missing() {
            self.delete(now, &key, None);
        }
        self.complete = true;
        self.version = version.into();
        self.lists.push_back((version.into(), self.store.latest()));
        if self.lists.len() > limits::LIST_MARKS {
            self.lists.pop_front();
        }
        let truncated = self.list_truncated.take().unwrap_or_default();
        self.set_truncated(truncated);
        self.mark_all_due();
    }

    /// The store is up to date.
    pub(super) fn synced(&mut self) {
        if !self.is_synced() {
            self.sync_state = SyncState::Synced;
            self.sync_changes += 1;
            self.mark_all_due();
        }
    }

    /// The watch has failed, so the store may be out of date.
    pub(super) fn stale(&mut self, now: Now, reason: &str) {
        let since_ms = match &self.sync_state {
            SyncState::Stale { reason: known, .. } if known == reason => return,
            SyncState::Stale { since_ms, .. } => *since_ms,
            SyncState::Unknown | SyncState::Synced => now.wall_ms,
        };
        self.sync_state = SyncState::Stale { since_ms, reason: reason.to_owned() };
        self.sync_changes += 1;
        self.mark_all_due();
    }

    /// Frees everything; there must be no viewers.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.viewers.is_empty(), "there are viewers");
        *self = Self { sync_changes: self.sync_changes + 1, ..Self::new(self.resource) };
    }

    /// Whether the store is up to date.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.sync_state == SyncState::Synced
    }

    /// Their kind.
    #[must_use]
    pub fn resource(&self) -> Resource {
        self.resource
    }

    /// The number of objects.
    #[must_use]
    pub fn objects(&self) -> usize {
        self.store.len()
    }

    /// Whether there are objects that are not stored.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// Approximate memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        let lists = self.lists.iter().map(|(version, _)| heap::cost(version.len()));
        self.store.cost()
            + self.ring_bytes
            + self.viewers_bytes
            + heap::table::<(Box<str>, u64)>(self.lists.capacity())
            + lists.sum::<usize>()
    }

    /// Key, uid and resource version of each object, for tests.
    #[must_use]
    pub fn contents(&self) -> Vec<(String, String, String)> {
        let shown = self.store.living().map(|slot| {
            let Object { uid, version, .. } = &slot.state;
            (slot.key.text().to_owned(), uid.to_string(), version.to_string())
        });
        shown.collect()
    }

    /// Encodes a change once for all viewers that follow the ring, and those that come back.
    fn publish(&mut self, now: Now, change: &Change) {
        if !self.complete {
            // All viewers will read the store.
            return;
        }
        let Some(slot) = self.store.slot(change.slot) else { return };
        self.version.clone_from(&slot.state.version);
        let event = ChangeEvent {
            resource: self.resource,
            key: &slot.key,
            state: &slot.state,
            kind: &change.kind,
            wall_ms: now.wall_ms,
        };
        let mut entry = RingEntry {
            number: change.number,
            key: slot.key.clone(),
            version: slot.state.version.clone(),
            text: Encoded::default(),
            json: Encoded::default(),
        };
        encode::write(&mut entry.json, Format::Json, event);
        if self.viewers.values().any(|viewer| viewer.filter.format == Format::Text) {
            encode::write(&mut entry.text, Format::Text, event);
        }
        self.ring_bytes += entry.cost();
        self.ring.push_back(entry);
        self.trim();
        if change.kind == ChangeKind::Deleted {
            self.store.forget(self.forgettable());
        }
        self.mark_all_due();
    }

    fn trim(&mut self) {
        let most = if self.viewers.is_empty() { limits::KEPT_BYTES } else { limits::RING_BYTES };
        while self.ring.len() > limits::RING_CHANGES || self.ring_bytes > most {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.cost();
        }
    }

    /// Deletions up to this number are known to every viewer, also to those that come back.
    fn forgettable(&self) -> u64 {
        self.slowest_cursor().min(self.oldest() - 1)
    }

    fn slowest_cursor(&self) -> u64 {
        let cursors = self.viewers.values().map(|viewer| match &viewer.position {
            Position::Waiting => 0,
            Position::CatchingUp { cursor, .. } | Position::Following { cursor } => *cursor,
        });
        cursors.min().unwrap_or(u64::MAX)
    }
}
