//! Several replicas: an id names the replica that owns its connection, and any replica passes
//! callbacks on to the owner. Without I/O: connections are orders, and `now` comes in.

pub mod channel;
pub mod keys;
pub mod message;
pub mod outgoing;
pub mod sealed_id;
pub mod serving;

use std::collections::{BTreeMap, VecDeque};

use super::connection_id::ConnectionId;
use super::{CallbackOutcome, CallbackRequest};
use crate::engine::{File, HangUp, Id, Now};
use crate::parts::DrawId;
use crate::server::part::Order;
use crate::time;
use channel::{ChannelFault, Random};
use keys::PeerKeys;
use message::Request;
use outgoing::{Done, Outgoing};
use sealed_id::{Boot, IdFault, Minter, Owner, SealedId};
use serving::Serving;

/// How often the key file is read.
const REREAD_MS: u64 = 60_000;
/// How often a fault of the same kind is logged.
const WARN_MS: u64 = 60_000;

/// What a replica needs to work with the others.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The keys of the key file.
    pub keys: PeerKeys,
    /// Its path.
    pub key_file: String,
    /// This process: the address at which other replicas reach it, and its random boot.
    pub owner: Owner,
    /// Where nonces start.
    pub start: u64,
    /// The stage, which ids are bound to.
    pub stage: String,
    /// The scaled lifetime of a connection.
    pub life_ms: u64,
    /// Randomness for peer connections.
    pub draw: DrawId,
}

/// Whose connection an id names.
#[derive(Debug)]
pub enum Place {
    /// The id is not sealed.
    Unsealed,
    /// A connection of ours, perhaps a former one.
    Here(ConnectionId),
    /// A connection of another replica.
    There(SealedId),
    /// Nobody's.
    Nowhere,
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct PeerFigures {
    /// Requests to other replicas, by outcome.
    pub requests: BTreeMap<&'static str, u64>,
    /// Durations since they were last drained.
    pub took_ns: Vec<u64>,
}

/// The other replicas, and what this one is to them.
#[derive(Debug)]
pub struct Peers {
    setup: Setup,
    minter: Minter,
    outgoing: Outgoing,
    serving: Serving,
    orders: VecDeque<Order>,
    /// How often randomness was drawn.
    draws: u64,
    read_ns: Option<u64>,
    /// The key file was unusable when it was last read.
    is_file_bad: bool,
    warned: BTreeMap<&'static str, u64>,
    is_tested: bool,
    next_ns: Option<u64>,
    /// Counters for metrics.
    pub figures: PeerFigures,
}

impl Peers {
    /// `None`: the keys cannot be used.
    #[must_use]
    pub fn new(setup: Setup) -> Option<Self> {
        let minter = Minter::new(setup.owner, &setup.stage, &setup.keys, setup.start)?;
        Some(Self {
            setup,
            minter,
            outgoing: Outgoing::default(),
            serving: Serving::default(),
            orders: VecDeque::new(),
            draws: 0,
            read_ns: None,
            is_file_bad: false,
            warned: BTreeMap::new(),
            is_tested: false,
            // For the self-test.
            next_ns: Some(0),
            figures: PeerFigures::default(),
        })
    }

    /// A new id for a connection of ours: what it is called in our table, and its text.
    pub fn mint(&mut self, now: Now) -> Option<(ConnectionId, Box<str>)> {
        self.read_when_old(now);
        self.minter.mint(now.wall_ms)
    }

    /// Whose connection this id names.
    pub fn find(&mut self, now: Now, id: &str) -> Place {
        self.read_when_old(now);
        if !SealedId::has_form(id) {
            return Place::Unsealed;
        }
        match SealedId::open(id, &self.setup.stage, &self.setup.keys) {
            // The table of connections alone decides.
            Ok(id) if id.owner.boot == self.setup.owner.boot => Place::Here(id.connection),
            Ok(id) if id.is_over(now.wall_ms, self.setup.life_ms) => Place::Nowhere,
            Ok(id) => Place::There(id),
            Err(IdFault::Forged) => Place::Nowhere,
            Err(IdFault::UnknownKey) => {
                if self.may_warn(now, "unknown key") {
                    log::warn!(
                        target: "peer-key",
                        "a callback has an id of an unknown key: do all replicas have the same \
                         --gateway-peer-key-file?"
                    );
                }
                Place::Nowhere
            }
        }
    }

    /// Sends a callback to the owner of its connection. [`Peers::done`] reports its outcome.
    pub fn ask(&mut self, now: Now, id: &SealedId, caller: Id, asked_for: CallbackRequest<'_>) {
        // It was opened with this key just now.
        if let Some(key) = self.setup.keys.find(id.key) {
            self.outgoing.ask(now, (id, key), caller, asked_for);
        }
        self.note();
    }

    /// The next callback that has an outcome.
    pub fn done(&mut self) -> Option<Done> {
        let done = self.outgoing.done()?;
        *self.figures.requests.entry(done.outcome.label()).or_default() += 1;
        self.figures.took_ns.push(done.took_ns);
        Some(done)
    }

    /// What to do next.
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        if !std::mem::replace(&mut self.is_tested, true) {
            let key = self.setup.keys.first().clone();
            self.outgoing.test_self(now, self.setup.owner, &key);
        }
        self.orders.pop_front().or_else(|| self.outgoing.poll())
    }

    /// The connection that was ordered first has this id.
    pub fn opened(&mut self, now: Now, id: Option<Id>) {
        self.outgoing.opened(now, id);
        self.note();
    }

    /// Whether a connection is one of these.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.outgoing.has(id) || self.serving.has(id)
    }

    /// A connection to another replica is established, or not.
    pub fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Vec<u8>) {
        let how = how.map(|()| self.random());
        self.outgoing.connected(now, id, how, out);
        self.note();
    }

    /// A connection was accepted. It says whether it is wanted.
    pub fn accepted(&mut self, now: Now, id: Id) -> bool {
        self.read_when_old(now);
        let random = self.random();
        if let Some(random) = random {
            self.serving.accepted(now, id, self.setup.owner.boot, random);
        }
        self.note();
        random.is_some()
    }

    /// Gives up an accepted connection in favour of another. The caller resets it.
    pub fn evict(&mut self) -> Option<Id> {
        let evicted = self.serving.evict();
        self.note();
        evicted
    }

    /// Bytes came. `serve` carries out callbacks for our connections.
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
            self.serving.received(now, (id, bytes), &self.setup.keys, out, serve)
        {
            out.clear();
            self.refuse(now, id, fault);
        }
        self.note();
    }

    fn refuse(&mut self, now: Now, id: Id, fault: ChannelFault) {
        self.orders.push_back(Order::Reset(id));
        if self.may_warn(now, "refused") {
            log::warn!(
                target: "peer-refused", reason:? = fault;
                "a connection to --gateway-peer-listen was reset: it is not a replica with the \
                 same key and version"
            );
        }
    }

    /// A connection may be written to.
    pub fn render(&mut self, id: Id, out: &mut Vec<u8>) {
        self.outgoing.render(id, out);
        self.note();
    }

    /// A connection has ended.
    pub fn ended(&mut self, now: Now, id: Id) {
        self.outgoing.ended(now, id);
        self.serving.closed(id);
        self.note();
    }

    /// When [`Peers::fire`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_ns
    }

    /// Does what is due.
    pub fn fire(&mut self, now: Now) {
        if self.next_ns.is_none_or(|due_ns| due_ns > now.mono_ns) {
            return;
        }
        self.outgoing.fire(now);
        while let Some(id) = self.serving.overdue(now) {
            self.orders.push_back(Order::Reset(id));
        }
        self.note();
    }

    /// Files were read; rubbish keeps the keys that were read before.
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
                        "--gateway-peer-key-file cannot be used, the keys read before remain in use"
                    );
                }
            }
        }
    }

    fn set_keys(&mut self, now: Now, keys: PeerKeys) {
        if keys == self.setup.keys {
            return;
        }
        log::info!(target: "peer-key", "--gateway-peer-key-file has other keys");
        self.minter.set_keys(&keys);
        self.outgoing.set_keys(now, &keys);
        self.orders.extend(self.serving.stale(&keys).map(Order::Reset));
        self.setup.keys = keys;
        self.note();
    }

    /// Reads the key file again.
    pub fn reload(&mut self) {
        self.orders.push_back(Order::Read(vec![self.setup.key_file.clone()]));
    }

    /// The same, if it was read long ago. Whoever uses keys calls this, so that an idle process
    /// sleeps.
    fn read_when_old(&mut self, now: Now) {
        let is_old = |read_ns: u64| now.mono_ns >= read_ns + time::ms(REREAD_MS);
        if is_old(*self.read_ns.get_or_insert(now.mono_ns)) {
            self.read_ns = Some(now.mono_ns);
            self.reload();
        }
    }

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

    /// After each event: what is due next.
    fn note(&mut self) {
        let deadlines = [self.outgoing.next_deadline(), self.serving.next_deadline()];
        self.next_ns = deadlines.into_iter().flatten().min();
    }

    /// Bytes that it owns.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.outgoing.cost() + self.serving.cost()
    }

    /// Bytes that it owns for one connection.
    #[must_use]
    pub fn cost_of(&self, id: Id) -> usize {
        self.serving.cost_of(id)
    }

    /// Connections of other replicas to this one.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.serving.count()
    }

    /// The owners that this process sends requests to.
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
    /// The boot and where nonces start, from 16 random bytes.
    #[must_use]
    pub fn identity(random: [u8; 16]) -> (Boot, u64) {
        let (mut boot, mut start) = ([0; 8], [0; 8]);
        boot.copy_from_slice(&random[..8]);
        start.copy_from_slice(&random[8..]);
        (Boot(boot), u64::from_be_bytes(start))
    }
}
