//! Several replicas: an id names the replica that owns the connection, and any replica forwards
//! callbacks to the owner. Without I/O: it orders connections, and `now` is an argument.

pub mod channel;
pub mod incoming;
pub mod keys;
pub mod message;
pub mod outgoing;
pub mod sealed_id;

use std::collections::{BTreeMap, VecDeque};

use super::connection_id::ConnectionId;
use super::traceparent::Traceparent;
use super::{CallbackOutcome, CallbackRequest};
use crate::engine::{File, HangUp, Id, Now};
use crate::parts::DrawId;
use crate::server::part::Order;
use crate::server::tokens::REREAD_MS;
use crate::time;
use channel::{ChannelFault, Random};
use incoming::Incoming;
use keys::PeerKeys;
use message::Request;
use outgoing::{Completed, Outgoing};
use sealed_id::{Boot, IdFault, Minter, Owner, SealedId};

/// Interval for repeating the same warning.
const WARN_MS: u64 = 60_000;

/// The configuration of a replica.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The keys of the key file.
    pub keys: PeerKeys,
    /// Its path.
    pub key_file: String,
    /// This process: the address at which other replicas reach it, and its random boot.
    pub owner: Owner,
    /// The first nonce.
    pub start: u64,
    /// The stage, which ids are bound to.
    pub stage: String,
    /// The scaled lifetime of a connection.
    pub life_ms: u64,
    /// Draws random bytes for peer connections.
    pub draw: DrawId,
}

/// The replica that an id refers to.
#[derive(Debug)]
pub enum Holder {
    /// The id is not sealed.
    Unsealed,
    /// This one. The connection may have ended.
    Local(ConnectionId),
    /// Another one.
    Remote(SealedId),
    /// None any more: the connection must have ended.
    Expired,
    /// The id cannot be opened.
    Invalid,
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct PeerCounts {
    /// Requests to other replicas, by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Durations since they were last drained.
    pub took_ns: Vec<u64>,
}

/// The connections between this replica and the others.
#[derive(Debug)]
pub struct Peers {
    setup: Setup,
    minter: Minter,
    outgoing: Outgoing,
    incoming: Incoming,
    orders: VecDeque<Order>,
    /// Number of draws of random bytes.
    draws: u64,
    read_ns: Option<u64>,
    /// Whether the key file was invalid when it was last read.
    is_file_bad: bool,
    warned: BTreeMap<&'static str, u64>,
    /// Whether the self-test was started.
    is_tested: bool,
    next_ns: Option<u64>,
    /// Counters for metrics.
    pub counts: PeerCounts,
}

impl Peers {
    /// `None` if no key can be derived.
    #[must_use]
    pub fn new(setup: Setup) -> Option<Self> {
        let minter = Minter::new(setup.owner, &setup.stage, &setup.keys, setup.start)?;
        Some(Self {
            setup,
            minter,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            orders: VecDeque::new(),
            draws: 0,
            read_ns: None,
            is_file_bad: false,
            warned: BTreeMap::new(),
            is_tested: false,
            // For the self-test.
            next_ns: Some(0),
            counts: PeerCounts::default(),
        })
    }

    /// A new id for a local connection: its key in the table of connections, and its text.
    pub fn mint(&mut self, now: Now) -> Option<(ConnectionId, Box<str>)> {
        self.read_when_old(now);
        self.minter.mint(now.wall_ms)
    }

    /// Finds the owner of a connection.
    pub fn find(&mut self, now: Now, id: &str) -> Holder {
        self.read_when_old(now);
        if !SealedId::has_length(id) {
            return Holder::Unsealed;
        }
        match SealedId::open(id, &self.setup.stage, &self.setup.keys) {
            Ok(id) if id.owner.boot == self.setup.owner.boot => Holder::Local(id.connection),
            Ok(id) if id.is_expired(now.wall_ms, self.setup.life_ms) => Holder::Expired,
            Ok(id) => Holder::Remote(id),
            Err(IdFault::Forged) => Holder::Invalid,
            Err(IdFault::UnknownKey) => {
                if self.may_warn(now, "unknown key") {
                    log::warn!(
                        target: "peer-key",
                        "a callback has an id of an unknown key: check that all replicas have the \
                         same --gateway-peer-key-file"
                    );
                }
                Holder::Invalid
            }
        }
    }

    /// Forwards a callback to the owner of its connection. [`Peers::completed`] reports its
    /// outcome.
    pub fn forward(
        &mut self,
        now: Now,
        id: &SealedId,
        caller: Id,
        callback: (CallbackRequest<'_>, Option<Traceparent>),
    ) {
        // `find` opened the id with this key.
        if let Some(key) = self.setup.keys.find(id.key) {
            self.outgoing.forward(now, (id, key), caller, callback);
        }
        self.update_deadline();
    }

    /// The next forwarded callback that has an outcome.
    pub fn completed(&mut self) -> Option<Completed> {
        let completed = self.outgoing.completed()?;
        *self.counts.requests.entry(completed.outcome.label()).or_default() += 1;
        self.counts.took_ns.push(completed.took_ns);
        Some(completed)
    }

    /// The next order.
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        if !std::mem::replace(&mut self.is_tested, true) {
            let key = self.setup.keys.first().clone();
            self.outgoing.test_self(now, self.setup.owner, &key);
        }
        self.orders.pop_front().or_else(|| self.outgoing.poll())
    }

    /// The id of the connection that was ordered first; `None` if there are too many.
    pub fn opened(&mut self, now: Now, id: Option<Id>) {
        self.outgoing.opened(now, id);
        self.update_deadline();
    }

    /// Whether this is a connection to or from another replica.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.outgoing.has(id) || self.incoming.has(id)
    }

    /// A connection to another replica is established, or connecting failed.
    pub fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Vec<u8>) {
        let how = how.map(|()| self.random());
        self.outgoing.connected(now, id, how, out);
        self.update_deadline();
    }

    /// A connection was accepted. The result says whether to keep it.
    pub fn accepted(&mut self, now: Now, id: Id) -> bool {
        self.read_when_old(now);
        let random = self.random();
        if let Some(random) = random {
            self.incoming.accepted(now, id, self.setup.owner.boot, random);
        }
        self.update_deadline();
        random.is_some()
    }

    /// Gives up an accepted connection in favour of another. The caller resets it.
    pub fn evict(&mut self) -> Option<Id> {
        let evicted = self.incoming.evict();
        self.update_deadline();
        evicted
    }

    /// Bytes were received. `serve` executes callbacks for local connections.
    pub fn received(
        &mut self,
        now: Now,
        (id, bytes): (Id, &[u8]),
        out: &mut Vec<u8>,
        serve: &mut dyn FnMut(&Request<'_>) -> CallbackOutcome,
    ) {
        if self.outgoing.has(id) {
            self.outgoing.received(now, id, bytes);
        } else if let Err(fault) =
            self.incoming.received(now, (id, bytes), &self.setup.keys, out, serve)
        {
            out.clear();
            self.refuse(now, id, fault);
        }
        self.update_deadline();
    }

    fn refuse(&mut self, now: Now, id: Id, fault: ChannelFault) {
        self.orders.push_back(Order::Reset(id));
        if self.may_warn(now, "refused") {
            log::warn!(
                target: "peer-refused", reason:? = fault;
                "connection to --gateway-peer-listen reset: not a replica with the same key and \
                 version"
            );
        }
    }

    /// Produces output, after [`Order::Write`].
    pub fn render(&mut self, id: Id, out: &mut Vec<u8>) {
        self.outgoing.render(id, out);
        self.update_deadline();
    }

    /// A connection has ended.
    pub fn ended(&mut self, now: Now, id: Id) {
        self.outgoing.ended(now, id);
        self.incoming.closed(id);
        self.update_deadline();
    }

    /// When [`Peers::fire`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_ns
    }

    /// The deadline has passed.
    pub fn fire(&mut self, now: Now) {
        if self.next_ns.is_none_or(|due_ns| due_ns > now.mono_ns) {
            return;
        }
        self.outgoing.fire(now);
        while let Some(id) = self.incoming.overdue(now) {
            self.orders.push_back(Order::Reset(id));
        }
        self.update_deadline();
    }

    /// Files were read. An invalid key file keeps the previous keys.
    pub fn fetched(&mut self, now: Now, paths: &[String], files: &[File]) {
        if !paths.contains(&self.setup.key_file) {
            return;
        }
        let file = files.iter().find(|file| file.name == self.setup.key_file);
        let read = file.map_or_else(
            || Err("cannot be read".to_owned()),
            |file| PeerKeys::parse(&file.bytes).map_err(|why| why.to_string()),
        );
        match read {
            Ok(keys) => {
                self.is_file_bad = false;
                self.set_keys(now, keys);
            }
            Err(why) => {
                if !std::mem::replace(&mut self.is_file_bad, true) {
                    log::warn!(
                        target: "peer-key", file = self.setup.key_file, reason = why;
                        "--gateway-peer-key-file cannot be used: keeping the previous keys"
                    );
                }
            }
        }
    }

    fn set_keys(&mut self, now: Now, keys: PeerKeys) {
        if keys == self.setup.keys {
            return;
        }
        log::info!(target: "peer-key", "--gateway-peer-key-file has changed");
        self.minter.set_keys(&keys);
        self.outgoing.set_keys(now, &keys);
        self.orders.extend(self.incoming.stale(&keys).map(Order::Reset));
        self.setup.keys = keys;
        self.update_deadline();
    }

    /// Reads the key file again.
    pub fn reload(&mut self) {
        self.orders.push_back(Order::Read(vec![self.setup.key_file.clone()]));
    }

    /// The same if the interval has passed. Called when keys are used, not by a timer, so that an
    /// idle process does not wake up.
    fn read_when_old(&mut self, now: Now) {
        let is_old = |read_ns: u64| now.mono_ns >= read_ns + time::ms(REREAD_MS);
        if is_old(*self.read_ns.get_or_insert(now.mono_ns)) {
            self.read_ns = Some(now.mono_ns);
            self.reload();
        }
    }

    /// Whether a warning may be logged now; true once per interval.
    fn may_warn(&mut self, now: Now, what: &'static str) -> bool {
        let last_ns = self.warned.get(what).copied();
        let may = last_ns.is_none_or(|last_ns| now.mono_ns >= last_ns + time::ms(WARN_MS));
        if may {
            self.warned.insert(what, now.mono_ns);
        }
        may
    }

    fn random(&mut self) -> Option<Random> {
        self.draws += 1;
        (self.setup.draw)(self.draws)
    }

    /// Call it after each event.
    fn update_deadline(&mut self) {
        let deadlines = [self.outgoing.next_deadline(), self.incoming.next_deadline()];
        self.next_ns = deadlines.into_iter().flatten().min();
    }

    /// Accounted bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.outgoing.cost() + self.incoming.cost()
    }

    /// Bytes owned on behalf of one connection.
    #[must_use]
    pub fn cost_of(&self, id: Id) -> usize {
        self.incoming.cost_of(id)
    }

    /// Number of connections from other replicas.
    #[must_use]
    pub fn incoming(&self) -> usize {
        self.incoming.count()
    }

    /// The connections to other replicas.
    #[must_use]
    pub fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    /// The address at which other replicas reach this process.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.setup.owner
    }
}

impl Setup {
    /// The boot and the first nonce, from 16 random bytes.
    #[must_use]
    pub fn identity(random: [u8; 16]) -> (Boot, u64) {
        let (mut boot, mut start) = ([0; 8], [0; 8]);
        boot.copy_from_slice(&random[..8]);
        start.copy_from_slice(&random[8..]);
        (Boot(boot), u64::from_be_bytes(start))
    }
}
