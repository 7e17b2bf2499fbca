//! Connections from other replicas, accepted at the peer listener. Strangers may reach the port as
//! well: they get no response, and are limited in memory and time.

use std::collections::{BTreeMap, BTreeSet};

use super::channel::{Acceptor, ChannelFault, Random};
use super::keys::PeerKeys;
use super::message::{Answer, Request};
use super::sealed_id::Boot;
use crate::engine::{Id, Now};
use crate::parts::gateway::CallbackOutcome;
use crate::{heap, time};

/// Timeout of authentication.
const AUTHENTICATION_MS: u64 = 2_000;

#[derive(Debug)]
struct Connection {
    acceptor: Acceptor,
    since_ns: u64,
    active_ns: u64,
}

/// Connections from other replicas.
#[derive(Debug, Default)]
pub struct Incoming {
    connections: BTreeMap<Id, Connection>,
    /// Connections that are not authenticated yet, the oldest first.
    unauthenticated: BTreeSet<(u64, Id)>,
    held_bytes: usize,
}

impl Incoming {
    /// A connection was accepted.
    pub fn accepted(&mut self, now: Now, id: Id, boot: Boot, random: Random) {
        let acceptor = Acceptor::new(boot, random);
        self.connections
            .insert(id, Connection { acceptor, since_ns: now.mono_ns, active_ns: now.mono_ns });
        self.unauthenticated.insert((now.mono_ns, id));
    }

    /// Whether this is a connection from another replica.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.connections.contains_key(&id)
    }

    /// Bytes were received. `serve` executes callbacks.
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
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.active_ns = now.mono_ns;
        self.held_bytes -= heap::cost(connection.acceptor.held_bytes());
        let how = connection.acceptor.received(keys, bytes, out, &mut |message| {
            let request = Request::read(message)?;
            Some(Answer { number: request.number, outcome: serve(&request) }.bytes())
        });
        self.held_bytes += heap::cost(connection.acceptor.held_bytes());
        if connection.acceptor.is_authenticated() {
            self.unauthenticated.remove(&(connection.since_ns, id));
        }
        how
    }

    /// Gives up a connection in favour of another: the oldest one that is not authenticated, or the
    /// one that has been idle longest. The caller resets it.
    pub fn evict(&mut self) -> Option<Id> {
        let unauthenticated = self.unauthenticated.first().map(|(_, id)| *id);
        let idle = || self.connections.iter().min_by_key(|(_, connection)| connection.active_ns);
        let id = unauthenticated.or_else(|| idle().map(|(id, _)| *id))?;
        self.closed(id);
        Some(id)
    }

    /// A connection is closed.
    pub fn closed(&mut self, id: Id) {
        if let Some(connection) = self.connections.remove(&id) {
            self.held_bytes -= heap::cost(connection.acceptor.held_bytes());
            self.unauthenticated.remove(&(connection.since_ns, id));
        }
    }

    /// The connections that use other keys than these.
    pub fn stale<'k>(&'k self, keys: &'k PeerKeys) -> impl Iterator<Item = Id> + 'k {
        let is_stale =
            |connection: &Connection| connection.acceptor.key().is_some_and(|key| !keys.has(key));
        self.connections
            .iter()
            .filter(move |(_, connection)| is_stale(connection))
            .map(|(id, _)| *id)
    }

    /// When the next authentication times out.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let (since_ns, _) = self.unauthenticated.first()?;
        Some(since_ns + time::ms(AUTHENTICATION_MS))
    }

    /// The next connection whose authentication has timed out. The caller resets it.
    pub fn overdue(&mut self, now: Now) -> Option<Id> {
        let due_ns = self.next_deadline()?;
        let is_due = due_ns <= now.mono_ns;
        if is_due { self.unauthenticated.pop_first().map(|(_, id)| id) } else { None }
    }

    /// Number of connections.
    #[must_use]
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    /// Bytes owned on behalf of one connection.
    #[must_use]
    pub fn cost_of(&self, id: Id) -> usize {
        self.connections.get(&id).map_or(0, |connection| {
            Self::entry_cost() + heap::cost(connection.acceptor.held_bytes())
        })
    }

    fn entry_cost() -> usize {
        heap::tree_entry::<(Id, Connection)>()
    }

    /// Accounted bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.connections.len() * Self::entry_cost()
            + self.unauthenticated.len() * heap::tree_entry::<(u64, Id)>()
            + self.held_bytes
    }
}
