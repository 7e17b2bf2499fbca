//! The server, watched: every id that it gives is used only while it lives, and ends once.

use std::collections::BTreeSet;

use wspulse::engine::{
    Action, Door, Engine, File, HangUp, Id, Now, Out, Peer, Shortage, Signal, Source, Standing,
};
use wspulse::server::Server;

/// A server whose driver is watched.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) server: Server,
    living: BTreeSet<Id>,
    ended: BTreeSet<Id>,
    pub(crate) accepted: usize,
    /// What it was told that streams keep, each time.
    pub(crate) held: Vec<usize>,
}

impl Watched {
    pub(crate) fn new(server: Server) -> Self {
        let (living, ended) = (BTreeSet::new(), BTreeSet::new());
        Self { server, living, ended, accepted: 0, held: Vec::new() }
    }

    fn lives(&self, id: Id) {
        assert!(self.living.contains(&id), "{id} is used, and does not live");
    }
}

impl Engine for Watched {
    fn accepted(&mut self, now: Now, door: Door, peer: Peer) -> Option<Id> {
        let id = self.server.accepted(now, door, peer)?;
        assert!(self.living.insert(id), "{id} is given twice");
        assert!(!self.ended.contains(&id), "{id} is given again");
        self.accepted += 1;
        Some(id)
    }

    fn ready(&mut self, now: Now, id: Id) {
        self.lives(id);
        self.server.ready(now, id);
    }

    fn held_outside(&mut self, now: Now, id: Id, bytes: usize) {
        self.lives(id);
        self.held.push(bytes);
        self.server.held_outside(now, id, bytes);
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        self.lives(id);
        self.server.connected(now, id, how, out);
    }

    fn turned_away(&mut self, now: Now, why: Shortage) -> &[u8] {
        self.server.turned_away(now, why)
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        self.lives(id);
        // Whatever an earlier connection left here must not be read as this one's.
        shared.fill(0xee);
        self.server.room(id, shared)
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        self.lives(id);
        self.server.received(now, id, n, shared, out);
    }

    fn resume(&mut self, now: Now, id: Id, shared: &mut [u8], out: &mut Out) {
        self.lives(id);
        self.server.resume(now, id, shared, out);
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out) {
        self.lives(id);
        self.server.ended(now, id, how, out);
    }

    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        self.lives(id);
        self.server.keep(now, id, shared, out, taken);
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.server.unsent(id)
    }

    fn sent(&mut self, now: Now, id: Id, n: usize) {
        self.lives(id);
        self.server.sent(now, id, n);
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        self.server.render(now, id, out);
    }

    fn closed(&mut self, now: Now, id: Id) {
        assert!(self.living.remove(&id), "{id} ends, and does not live");
        assert!(self.ended.insert(id), "{id} ends twice");
        self.server.closed(now, id);
    }

    fn fire(&mut self, now: Now) {
        self.server.fire(now);
    }

    fn signal(&mut self, now: Now, signal: Signal) {
        self.server.signal(now, signal);
    }

    fn next_deadline(&self) -> Option<u64> {
        self.server.next_deadline()
    }

    fn doors_closed(&mut self, now: Now) {
        self.server.doors_closed(now);
    }

    fn fetched(&mut self, now: Now, source: Source, files: Vec<File>) {
        self.server.fetched(now, source, files);
    }

    fn standing(&self) -> Standing {
        self.server.standing()
    }

    fn poll(&mut self) -> Option<Action> {
        self.server.poll()
    }
}
