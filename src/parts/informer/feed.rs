//! Whom the changes reach: one store, one ring of encoded changes, and a cursor a viewer. Whoever
//! falls out of the ring, or has just come, is told each object's latest state instead, once,
//! however much happened; so a slow viewer costs a cursor and a bit an object, and waits for
//! nobody but itself.

use std::collections::{BTreeMap, VecDeque};

use super::deployment::{Deployment, Key};
use super::limits;
use super::store::{Change, Store, What};
use super::words::{self, Encoded, Format, News};
use crate::engine::{Id, Now};
use crate::heap;

/// What a viewer wants to see; empty parts match everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// How it reads.
    pub format: Format,
    /// Only this namespace.
    pub namespace: String,
    /// Only this name.
    pub name: String,
}

impl Filter {
    fn covers(&self, key: &Key) -> bool {
        let fits = |filter: &str, part: &str| filter.is_empty() || filter == part;
        fits(&self.namespace, key.namespace()) && fits(&self.name, key.name())
    }
}

/// What becomes of a viewer after it was told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is woken when there is more.
    Wait,
    /// What it has missed is not there any more.
    Lost,
}

#[derive(Debug)]
struct Viewer {
    filter: Filter,
    place: Place,
    /// The state of affairs that it was told.
    told: u64,
    /// It is among those that are to be woken.
    due: bool,
}

impl Viewer {
    /// What it costs, its place in the table included.
    fn cost(&self) -> usize {
        let known = match &self.place {
            Place::Behind { known, .. } => heap::table::<u64>(known.capacity()),
            Place::Waiting | Place::Following { .. } => 0,
        };
        let Filter { namespace, name, .. } = &self.filter;
        heap::tree_entry::<(Id, Self)>()
            + heap::cost(namespace.capacity())
            + heap::cost(name.capacity())
            + known
    }
}

#[derive(Debug)]
enum Place {
    /// Nothing is known yet.
    Waiting,
    /// Reads the store; knows these objects.
    Behind { cursor: u64, known: Vec<u64> },
    /// Reads the ring.
    Following { cursor: u64 },
}

/// One change in the ring.
#[derive(Debug)]
struct Told {
    number: u64,
    key: Key,
    text: Encoded,
    json: Encoded,
}

impl Told {
    fn cost(&self) -> usize {
        size_of::<Self>() + heap::cost(self.key.text().len()) + self.text.cost() + self.json.cost()
    }
}

/// Whether what is known is what the server has.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Unknown,
    Synced { version: String },
    Stale { since_ms: i64, reason: String },
}

/// Deployments, and those who watch them.
#[derive(Debug)]
pub struct Feed {
    store: Store,
    ring: VecDeque<Told>,
    ring_bytes: usize,
    viewers: BTreeMap<Id, Viewer>,
    viewers_bytes: usize,
    due: VecDeque<Id>,
    standing: Standing,
    /// Counts the changes of standing.
    standings: u64,
    /// A list was whole at least once, so there is something to show.
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
            standing: Standing::Unknown,
            standings: 0,
            complete: false,
            scratch: Encoded::default(),
        }
    }
}

/// For viewers.
impl Feed {
    /// Somebody wants to watch; told from now on when [`Feed::speak`] is called.
    pub fn join(&mut self, id: Id, filter: Filter) {
        let place = self.beginning();
        let viewer = Viewer { filter, place, told: 0, due: false };
        self.viewers_bytes += viewer.cost();
        self.viewers.insert(id, viewer);
        self.call(id);
    }

    /// Nobody listens there any more.
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

    /// How many watch.
    #[must_use]
    pub fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// The next one that has something to hear.
    pub fn next_due(&mut self) -> Option<Id> {
        let id = self.due.pop_front()?;
        if let Some(viewer) = self.viewers.get_mut(&id) {
            viewer.due = false;
        }
        Some(id)
    }

    /// Whether anybody has something to hear.
    #[must_use]
    pub fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// What this viewer has not heard, as far as it takes it now: `say` is given one change after
    /// the other and answers how many bytes of its room are left.
    pub fn speak(&mut self, now: Now, id: Id, say: &mut dyn FnMut(&Encoded) -> usize) -> Then {
        let Some(mut viewer) = self.viewers.remove(&id) else { return Then::Wait };
        self.viewers_bytes -= viewer.cost();
        let then = self.tell(now, &mut viewer, say);
        let room = then == Some(Then::Wait);
        if then != Some(Then::Lost) {
            self.viewers_bytes += viewer.cost();
            self.viewers.insert(id, viewer);
        }
        if then.is_none() {
            self.call(id);
        }
        if room || then.is_none() { Then::Wait } else { Then::Lost }
    }

    /// `None`: there is more.
    fn tell(
        &mut self,
        now: Now,
        viewer: &mut Viewer,
        say: &mut dyn FnMut(&Encoded) -> usize,
    ) -> Option<Then> {
        let json = viewer.filter.format == Format::Json;
        if let Standing::Stale { since_ms, reason } = &self.standing
            && json
            && viewer.told != self.standings
        {
            viewer.told = self.standings;
            self.scratch.clear();
            words::stale(&mut self.scratch, *since_ms, reason);
            if say(&self.scratch) == 0 {
                return None;
            }
        }
        if matches!(viewer.place, Place::Waiting) {
            viewer.place = self.beginning();
        }
        loop {
            match &mut viewer.place {
                Place::Waiting => return Some(Then::Wait),
                Place::Behind { cursor, known } => {
                    if *cursor < self.store.lost() && *cursor > 0 {
                        return Some(Then::Lost);
                    }
                    if let Some(next) = self.catch_up(now, &viewer.filter, *cursor, known) {
                        *cursor = next;
                        if !self.scratch.bytes().is_empty() && say(&self.scratch) == 0 {
                            return None;
                        }
                    } else {
                        viewer.place = Place::Following { cursor: self.store.latest() };
                    }
                }
                Place::Following { cursor } if *cursor == self.store.latest() => break,
                Place::Following { cursor } => {
                    let first = self.ring.front().map_or(u64::MAX, |told| told.number);
                    let Some(at) = (*cursor + 1).checked_sub(first) else {
                        let (cursor, known) = (*cursor, self.store.known_at(*cursor));
                        viewer.place = Place::Behind { cursor, known };
                        continue;
                    };
                    let Some(told) = self.ring.get(at as usize) else { break };
                    *cursor = told.number;
                    let said = if json { &told.json } else { &told.text };
                    if viewer.filter.covers(&told.key) && say(said) == 0 {
                        return None;
                    }
                }
            }
        }
        if let Standing::Synced { version } = &self.standing
            && json
            && viewer.told != self.standings
        {
            viewer.told = self.standings;
            self.scratch.clear();
            words::synced(&mut self.scratch, version);
            say(&self.scratch);
        }
        Some(Then::Wait)
    }

    /// Writes the next object behind `cursor` to the scratch, unless it is none of this viewer's;
    /// answers where it stands. `None`: there is none.
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
        known[word] = (known[word] & !bit) | if object.lives { bit } else { 0 };
        let what = match (was_known, object.lives) {
            (false, false) => return Some(object.number),
            (true, false) => What::Deleted,
            (false, true) => What::Added,
            // What has changed since is not known, only that it has.
            (true, true) => What::Modified(object.state.clone()),
        };
        if filter.covers(&object.key) {
            let (key, state) = (&object.key, &object.state);
            let news = News { key, state, what: &what, wall_ms: now.wall_ms };
            words::write(&mut self.scratch, filter.format, news);
        }
        Some(object.number)
    }

    fn beginning(&self) -> Place {
        if self.complete { Place::Behind { cursor: 0, known: Vec::new() } } else { Place::Waiting }
    }

    /// Has this viewer woken.
    fn call(&mut self, id: Id) {
        if let Some(viewer) = self.viewers.get_mut(&id)
            && !std::mem::replace(&mut viewer.due, true)
        {
            self.due.push_back(id);
        }
    }

    fn call_all(&mut self) {
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

    /// An object is in this state.
    pub(super) fn put(&mut self, now: Now, key: Key, state: Deployment) {
        let mut changes = Vec::new();
        self.store.put(key, state, |_, change| changes.push(change));
        for change in changes {
            self.publish(now, &change);
        }
    }

    /// An object is gone.
    pub(super) fn delete(&mut self, now: Now, key: &Key, last: Option<Deployment>) {
        if let Some(change) = self.store.delete(key, last) {
            self.publish(now, &change);
        }
    }

    /// The list is whole: what it did not have is gone.
    pub(super) fn end_list(&mut self, now: Now) {
        for key in self.store.missing() {
            self.delete(now, &key, None);
        }
        self.complete = true;
    }

    /// What is known is what the server had at this version.
    pub(super) fn synced(&mut self, version: &str) {
        let was_synced = self.is_synced();
        self.standing = Standing::Synced { version: version.to_owned() };
        if !was_synced {
            self.standings += 1;
            self.call_all();
        }
    }

    /// Nothing is heard of the server.
    pub(super) fn stale(&mut self, now: Now, reason: &str) {
        let since_ms = match &self.standing {
            Standing::Stale { reason: known, .. } if known == reason => return,
            Standing::Stale { since_ms, .. } => *since_ms,
            Standing::Unknown | Standing::Synced { .. } => now.wall_ms,
        };
        self.standing = Standing::Stale { since_ms, reason: reason.to_owned() };
        self.standings += 1;
        self.call_all();
    }

    /// Nobody wants to know any more.
    pub(super) fn clear(&mut self) {
        debug_assert!(self.viewers.is_empty(), "somebody watches");
        *self = Self { standings: self.standings + 1, ..Self::default() };
    }

    /// Whether what is known is what the server has.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        matches!(self.standing, Standing::Synced { .. })
    }

    /// How many Deployments there are.
    #[must_use]
    pub fn deployments(&self) -> usize {
        self.store.len()
    }

    /// What it owns, nearly.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.store.cost() + self.ring_bytes + self.viewers_bytes
    }

    /// `namespace/name`, uid and version of each Deployment: for tests.
    #[must_use]
    pub fn contents(&self) -> Vec<(String, String, String)> {
        let shown = self.store.living().map(|slot| {
            let Deployment { uid, version, .. } = &slot.state;
            (slot.key.text().to_owned(), uid.to_string(), version.to_string())
        });
        shown.collect()
    }

    /// Encodes a change, once for all who follow.
    fn publish(&mut self, now: Now, change: &Change) {
        if self.viewers.is_empty() || !self.complete {
            // Whoever comes reads the store.
            self.ring.clear();
            self.ring_bytes = 0;
            if self.viewers.is_empty() {
                self.store.forget(u64::MAX);
            }
            return;
        }
        let Some(slot) = self.store.slot(change.slot) else { return };
        let news =
            News { key: &slot.key, state: &slot.state, what: &change.what, wall_ms: now.wall_ms };
        let mut told = Told {
            number: change.number,
            key: slot.key.clone(),
            text: Encoded::default(),
            json: Encoded::default(),
        };
        for (format, encoded) in [(Format::Text, &mut told.text), (Format::Json, &mut told.json)] {
            if self.viewers.values().any(|viewer| viewer.filter.format == format) {
                words::write(encoded, format, news);
            }
        }
        self.ring_bytes += told.cost();
        self.ring.push_back(told);
        while self.ring.len() > limits::RING_CHANGES || self.ring_bytes > limits::RING_BYTES {
            let Some(oldest) = self.ring.pop_front() else { break };
            self.ring_bytes -= oldest.cost();
        }
        if change.what == What::Deleted {
            self.store.forget(self.heard_by_all());
        }
        self.call_all();
    }

    /// What the slowest viewer has heard.
    fn heard_by_all(&self) -> u64 {
        let heard = self.viewers.values().map(|viewer| match &viewer.place {
            Place::Waiting => 0,
            Place::Behind { cursor, .. } | Place::Following { cursor } => *cursor,
        });
        heard.min().unwrap_or(u64::MAX)
    }
}
