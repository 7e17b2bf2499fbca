//! Connections of other replicas to our peer listener. Strangers may reach the port as well: they
//! get no answer, little memory and little time.

use std::collections::{BTreeMap, BTreeSet};

use super::channel::{Acceptor, ChannelFault, Random};
use super::keys::PeerKeys;
use super::message::{Answer, Request};
use super::sealed_id::Boot;
use crate::engine::{Id, Now};
use crate::parts::gateway::CallbackOutcome;
use crate::{heap, time};

/// Until a dialler has proven that it is a peer.
const PROOF_MS: u64 = 2_000;

#[derive(Debug)]
struct Served {
    acceptor: Acceptor,
    since_ns: u64,
    heard_ns: u64,
}

/// Connections of other replicas.
#[derive(Debug, Default)]
pub struct Serving {
    served: BTreeMap<Id, Served>,
    /// Those that have proven nothing, in the order in which they came.
    unproven: BTreeSet<(u64, Id)>,
    held_bytes: usize,
}

impl Serving {
    /// A connection was accepted.
    pub fn accepted(&mut self, now: Now, id: Id, boot: Boot, random: Random) {
        let acceptor = Acceptor::new(boot, random);
        self.served.insert(id, Served { acceptor, since_ns: now.mono_ns, heard_ns: now.mono_ns });
        self.unproven.insert((now.mono_ns, id));
    }

    /// Whether this connection is one of these.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.served.contains_key(&id)
    }

    /// Bytes came. `serve` carries out callbacks.
    ///
    /// # Errors
    /// The connection must be reset.
    pub fn received(
        &mut self,
        now: Now,
        (id, bytes): (Id, &[u8]),
        keys: &PeerKeys,
        out: &mut Vec<u8>,
        serve: &mut dyn FnMut(&Request<'_>) -> CallbackOutcome,
    ) -> Result<(), ChannelFault> {
        let Some(served) = self.served.get_mut(&id) else { return Ok(()) };
        served.heard_ns = now.mono_ns;
        self.held_bytes -= heap::cost(served.acceptor.held_bytes());
        let how = served.acceptor.received(keys, bytes, out, &mut |message| {
            let request = Request::read(message)?;
            Some(Answer { number: request.number, outcome: serve(&request) }.bytes())
        });
        self.held_bytes += heap::cost(served.acceptor.held_bytes());
        if served.acceptor.is_proven() {
            self.unproven.remove(&(served.since_ns, id));
        }
        how
    }

    /// Gives up a connection in favour of another: the oldest unproven one, else the one that has
    /// been idle longest. The caller resets it.
    pub fn evict(&mut self) -> Option<Id> {
        let unproven = self.unproven.first().map(|(_, id)| *id);
        let idle = || self.served.iter().min_by_key(|(_, served)| served.heard_ns);
        let id = unproven.or_else(|| idle().map(|(id, _)| *id))?;
        self.closed(id);
        Some(id)
    }

    /// A connection is closed.
    pub fn closed(&mut self, id: Id) {
        if let Some(served) = self.served.remove(&id) {
            self.held_bytes -= heap::cost(served.acceptor.held_bytes());
            self.unproven.remove(&(served.since_ns, id));
        }
    }

    /// The connections that use other keys than these.
    pub fn stale<'k>(&'k self, keys: &'k PeerKeys) -> impl Iterator<Item = Id> + 'k {
        let is_stale = |served: &Served| served.acceptor.key().is_some_and(|key| !keys.has(key));
        self.served.iter().filter(move |(_, served)| is_stale(served)).map(|(id, _)| *id)
    }

    /// When the next connection must have proven that it is a peer.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let (since_ns, _) = self.unproven.first()?;
        Some(since_ns + time::ms(PROOF_MS))
    }

    /// A connection that must be reset now.
    pub fn overdue(&mut self, now: Now) -> Option<Id> {
        let due_ns = self.next_deadline()?;
        let is_due = due_ns <= now.mono_ns;
        if is_due { self.unproven.pop_first().map(|(_, id)| id) } else { None }
    }

    /// Connections.
    #[must_use]
    pub fn count(&self) -> usize {
        self.served.len()
    }

    /// Bytes that it owns for one connection.
    #[must_use]
    pub fn cost_of(&self, id: Id) -> usize {
        self.served
            .get(&id)
            .map_or(0, |served| Self::entry_cost() + heap::cost(served.acceptor.held_bytes()))
    }

    fn entry_cost() -> usize {
        heap::tree_entry::<(Id, Served)>()
    }

    /// Bytes that it owns.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.served.len() * Self::entry_cost()
            + self.unproven.len() * heap::tree_entry::<(u64, Id)>()
            + self.held_bytes
    }
}
