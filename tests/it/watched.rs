//! Checks on every call to the server: each id is used only while its connection lives, and ends
//! once; and all allocations are in its account.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;

use allocation_counter::measure;
use wspulse::engine::{
    Action, Engine, File, HangUp, Id, NameFault, Now, Out, Peer, Shortage, Side, Signal, Source,
    Status, TlsFacts,
};
use wspulse::server::{Server, TRANSITIONS};

/// The allowance for allocations besides its tables and its connections.
const BASE_BYTES: i64 = 64 * 1024;
/// Memory of a process without connections.
pub(crate) const PROCESS_BYTES: u64 = 5_900 * 1024;
/// The allowance for a connection besides its account: its entries in the tables, at the maximum
/// number of connections so far.
const PLACE_BYTES: i64 = 256;

/// A server with checks around every call.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) server: Server,
    living: BTreeSet<Id>,
    ended: BTreeSet<Id>,
    pub(crate) accepted: usize,
    /// The held bytes that streams have reported, by id.
    pub(crate) held: Vec<usize>,
    /// Bytes that its calls have allocated and not freed.
    allocated: i64,
    most_connections: usize,
    /// The process' memory as a kernel would report it.
    pub(crate) used: Rc<Cell<u64>>,
    /// The stage of each connection after the last call.
    stages: BTreeMap<Id, &'static str>,
    /// The stream whose room was asked for, until the next call about it.
    reading: Option<Id>,
    /// Every change of a stage so far.
    pub(crate) transitions: BTreeSet<Transition>,
}

/// A stage, the cause of a change, the next stage.
pub(crate) type Transition = (&'static str, &'static str, &'static str);

/// With more connections than this only the connection of a call is checked.
const ALL_MAX: usize = 64;

impl Watched {
    pub(crate) fn new(server: Server) -> Self {
        Self {
            server,
            living: BTreeSet::new(),
            ended: BTreeSet::new(),
            accepted: 0,
            held: Vec::new(),
            allocated: 0,
            most_connections: 0,
            used: Rc::default(),
            stages: BTreeMap::new(),
            reading: None,
            transitions: BTreeSet::new(),
        }
    }

    /// Records the stage changes of a call, of its connection and of others.
    fn note(&mut self, about: Option<Id>, cause: &'static str) {
        if let Some(id) = about {
            self.note_one(id, cause);
        }
        if self.living.len() <= ALL_MAX {
            for id in self.living.clone() {
                self.note_one(id, "another");
            }
        }
    }

    fn note_one(&mut self, id: Id, cause: &'static str) {
        let Some(to) = self.server.stage(id) else { return };
        let Some(from) = self.stages.insert(id, to).filter(|from| *from != to) else { return };
        let is_known = |cause| TRANSITIONS.contains(&(from, cause, to));
        // The memory guard may close any connection, also that of the call.
        let of_guard = self.server.memory_limit().is_some() && is_known("memory");
        assert!(is_known(cause) || of_guard, "from {from} by {cause} to {to}");
        let cause = if is_known(cause) { cause } else { "memory" };
        self.transitions.insert((from, cause, to));
    }

    /// For every call about a stream but `received`: bytes that were read before it are lost.
    fn hears(&mut self, id: Id) {
        self.lives(id);
        self.reading = self.reading.filter(|reading| *reading != id);
    }

    fn lives(&self, id: Id) {
        assert!(self.living.contains(&id), "{id} is used after its end");
    }

    /// All allocations of the call belong to the server and must be in its account.
    fn call<T>(&mut self, call: impl FnOnce(&mut Server) -> T) -> T {
        let (server, mut result) = (&mut self.server, None);
        let counted = measure(|| result = Some(call(server)));
        self.allocated += counted.bytes_current;
        self.judge();
        result.expect("it was called")
    }

    /// The same for a call with output, whose buffer belongs to the driver.
    fn call_with_output(&mut self, out: &mut Out, call: impl FnOnce(&mut Server, &mut Out)) {
        let before = out.bytes.capacity();
        let server = &mut self.server;
        let counted = measure(|| call(server, out));
        let grown = i64::try_from(out.bytes.capacity()).unwrap() - i64::try_from(before).unwrap();
        self.allocated += counted.bytes_current - grown;
        self.judge();
    }

    /// The account covers at least 80 % of the allocations above the base.
    fn judge(&mut self) {
        self.used.set(PROCESS_BYTES + self.server.memory() as u64);
        self.most_connections = self.most_connections.max(self.server.connections());
        let places = i64::try_from(self.most_connections).unwrap() * PLACE_BYTES;
        let base = BASE_BYTES + i64::try_from(self.server.shared_memory()).unwrap();
        let owned = i64::try_from(self.server.memory()).unwrap();
        let above = self.allocated - base - places;
        assert!(
            above * 4 / 5 <= owned,
            "{} bytes are allocated, {above} of them above the base, and {owned} in the account",
            self.allocated
        );
    }
}

/// For tests that look at the server.
impl Deref for Watched {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl Engine for Watched {
    fn accepted(&mut self, now: Now, side: Side, peer: Peer) -> Option<Id> {
        let id = self.call(|server| server.accepted(now, side, peer))?;
        assert!(self.living.insert(id), "{id} is assigned twice");
        assert!(!self.ended.contains(&id), "{id} is assigned again");
        self.accepted += 1;
        self.note(Some(id), "accepted");
        Some(id)
    }

    fn ready(&mut self, now: Now, id: Id) {
        self.hears(id);
        self.call(|server| server.ready(now, id));
        self.note(Some(id), "ready");
    }

    fn held_outside(&mut self, now: Now, id: Id, bytes: usize) {
        self.hears(id);
        self.held.push(bytes);
        self.call(|server| server.held_outside(now, id, bytes));
        self.note(Some(id), "input");
    }

    fn secured(&mut self, now: Now, id: Id, facts: &TlsFacts) {
        self.hears(id);
        self.call(|server| server.secured(now, id, facts));
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        self.hears(id);
        self.call_with_output(out, |server, out| server.connected(now, id, how, out));
        self.note(Some(id), "connected");
    }

    fn refused_at_accept(&mut self, now: Now, why: Shortage) -> &[u8] {
        self.server.refused_at_accept(now, why)
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        self.lives(id);
        // An earlier connection's bytes must not be read as this one's.
        shared.fill(0xee);
        let room = self.server.room(id, shared);
        self.reading = Some(id);
        room
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        self.lives(id);
        let reading = self.reading.take();
        assert_eq!(reading, Some(id), "another call came between the room and its bytes");
        self.call_with_output(out, |server, out| server.received(now, id, n, shared, out));
        self.note(Some(id), "input");
    }

    fn resume(&mut self, now: Now, id: Id, shared: &mut [u8], out: &mut Out) {
        self.hears(id);
        self.call_with_output(out, |server, out| server.resume(now, id, shared, out));
        self.note(Some(id), "input");
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out) {
        self.hears(id);
        self.call_with_output(out, |server, out| server.ended(now, id, how, out));
        self.note(Some(id), "end");
    }

    fn hung_up(&mut self, now: Now, id: Id, out: &mut Out) {
        self.hears(id);
        self.call_with_output(out, |server, out| server.hung_up(now, id, out));
        self.note(Some(id), "end");
    }

    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        self.hears(id);
        self.call_with_output(out, |server, out| server.keep(now, id, shared, out, taken));
        self.note(Some(id), "overload");
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.server.unsent(id)
    }

    fn sent(&mut self, now: Now, id: Id, n: usize) {
        self.hears(id);
        self.call(|server| server.sent(now, id, n));
        self.note(Some(id), "sent");
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        self.reading = self.reading.filter(|reading| *reading != id);
        self.call_with_output(out, |server, out| server.render(now, id, out));
        self.note(Some(id), "wake");
    }

    fn closed(&mut self, now: Now, id: Id) {
        assert!(self.living.remove(&id), "{id} ends without a start");
        assert!(self.ended.insert(id), "{id} ends twice");
        self.stages.remove(&id);
        self.call(|server| server.closed(now, id));
    }

    fn fire(&mut self, now: Now) {
        self.call(|server| server.fire(now));
        self.note(None, "another");
    }

    fn signal(&mut self, now: Now, signal: Signal) {
        self.call(|server| server.signal(now, signal));
        self.note(None, "another");
    }

    fn next_deadline(&self) -> Option<u64> {
        self.server.next_deadline()
    }

    fn accepting_stopped(&mut self, now: Now) {
        self.call(|server| server.accepting_stopped(now));
        self.note(None, "another");
    }

    fn fetched(&mut self, now: Now, source: Source, files: Vec<File>) {
        // The argument was allocated elsewhere, and files belong to no connection.
        self.server.fetched(now, source, files);
    }

    fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        self.call(|server| server.resolved(now, host, found));
        self.note(None, "another");
    }

    fn weighed(&mut self, now: Now, used: u64) {
        self.call(|server| server.weighed(now, used));
        self.note(None, "another");
    }

    fn work(&self) -> u64 {
        self.server.work()
    }

    fn status(&self) -> Status {
        self.server.status()
    }

    fn poll(&mut self) -> Option<Action> {
        let action = self.call(Server::poll);
        // The action's own memory leaves the server with it.
        let (mut copy, owned) = (None, &action);
        let counted = measure(|| copy.clone_from(owned));
        self.allocated -= counted.bytes_current;
        if let Some(Action::Connect(id, _)) = &action {
            assert!(self.living.insert(*id), "{id} is assigned twice");
        }
        action
    }
}
