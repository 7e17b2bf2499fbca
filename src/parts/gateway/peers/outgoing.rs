//! Callbacks forwarded to other replicas, over one connection to each owner, which is kept. Each
//! has exactly one outcome; a POST is sent at most once.

use std::collections::{BTreeMap, VecDeque};

use super::channel::{ChannelFault, Dialler, Random};
use super::keys::{PeerKey, PeerKeys};
use super::message::{Answer, Request};
use super::sealed_id::{Owner, SealedId};
use crate::engine::{HangUp, Id, Now, Target};
use crate::limits::OUTBOUND_CONNECT_MS;
use crate::parts::gateway::connection_id::ConnectionId;
use crate::parts::gateway::traceparent::Traceparent;
use crate::parts::gateway::{CallbackOutcome, CallbackRequest};
use crate::server::part::Order;
use crate::{heap, time};

/// Timeout of the handshake, and of a request.
const ANSWER_MS: u64 = 5_000;
/// Maximum time from a request to its outcome, including a second connection.
pub const OUTCOME_MS: u64 = 2 * (OUTBOUND_CONNECT_MS + 2 * ANSWER_MS);
/// After a failed attempt, requests fail for this long without another attempt. Doubles.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 8_000;
/// The connections of an owner that has not answered SYNs for this long count as gone.
const UNREACHABLE_MS: u64 = 60_000;
/// How long an idle connection is kept.
const IDLE_MS: u64 = 60_000;
/// Maximum owners with a connection or a request.
pub const OWNERS_MAX: usize = 256;
/// Maximum requests in flight to an owner.
const REQUESTS_MAX: usize = 1_024;
/// Maximum bytes of all requests in flight.
const REQUESTS_BYTES: usize = 8 * 1024 * 1024;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerOutcome {
    /// The owner's answer.
    Answered(CallbackOutcome),
    /// The owner is gone, and with it the connection.
    Gone(&'static str),
    /// The owner has not been reachable for a long time.
    Unreachable,
    /// Not executed; the caller may try again.
    Unavailable(&'static str),
    /// A POST that may have been executed.
    Cut,
    /// Too many requests are in flight.
    Busy,
}

impl PeerOutcome {
    /// The metric label `outcome`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answered(CallbackOutcome::Gone | CallbackOutcome::Unknown) => "gone",
            Self::Answered(CallbackOutcome::Full) => "full",
            Self::Answered(CallbackOutcome::Overloaded) => "overloaded",
            Self::Answered(
                CallbackOutcome::Queued | CallbackOutcome::Closing | CallbackOutcome::Found { .. },
            ) => "ok",
            Self::Gone(why) | Self::Unavailable(why) => why,
            Self::Unreachable => "unreachable",
            Self::Cut => "cut",
            Self::Busy => "busy",
        }
    }
}

/// A request that has an outcome.
#[derive(Debug)]
pub struct Completed {
    /// The connection of the caller.
    pub caller: Id,
    /// The outcome.
    pub outcome: PeerOutcome,
    /// Time from the request to its outcome.
    pub took_ns: u64,
    /// The caller's `traceparent`.
    pub trace: Option<Traceparent>,
}

#[derive(Debug)]
struct Call {
    caller: Id,
    connection: ConnectionId,
    operation: Operation,
    trace: Option<Traceparent>,
    began_ns: u64,
    /// Whether it was already repeated on another connection.
    is_repeated: bool,
}

#[derive(Debug)]
enum Operation {
    Get,
    Close,
    /// Kind and message, which is empty once it is sealed.
    Post(crate::behaviours::Kind, Box<[u8]>),
}

impl Operation {
    fn bytes(&self) -> usize {
        match self {
            Self::Get | Self::Close => 0,
            Self::Post(_, body) => heap::cost(body.len()),
        }
    }
}

#[derive(Debug)]
struct Sent {
    call: Call,
    number: u32,
    /// Accounted size of the request.
    bytes: usize,
    until_ns: u64,
}

#[derive(Debug)]
enum Link {
    Closed,
    /// A connection was ordered.
    Ordered,
    Connecting {
        id: Id,
        until_ns: u64,
    },
    Greeting {
        id: Id,
        dialler: Box<Dialler>,
        until_ns: u64,
    },
    Open {
        id: Id,
        dialler: Box<Dialler>,
        idle_until_ns: u64,
    },
}

impl Link {
    fn id(&self) -> Option<Id> {
        match self {
            Self::Closed | Self::Ordered => None,
            Self::Connecting { id, .. } | Self::Greeting { id, .. } | Self::Open { id, .. } => {
                Some(*id)
            }
        }
    }

    fn dialler(&self) -> Option<&Dialler> {
        match self {
            Self::Closed | Self::Ordered | Self::Connecting { .. } => None,
            Self::Greeting { dialler, .. } | Self::Open { dialler, .. } => Some(dialler),
        }
    }
}

#[derive(Debug)]
struct Peer {
    /// The key of the last id, which the owner has.
    key: PeerKey,
    link: Link,
    waiting: VecDeque<Call>,
    /// Requests without an answer, the oldest first.
    sent: VecDeque<Sent>,
    /// Sealed output that is not rendered yet.
    out: Vec<u8>,
    next_number: u32,
    /// Until then, requests fail immediately.
    paused_until_ns: u64,
    pause_ms: u64,
    /// Since when SYNs have not been answered.
    unreachable_since_ns: Option<u64>,
    /// Whether this is the connection of [`Outgoing::test_self`].
    is_self_test: bool,
}

impl Peer {
    fn new(key: PeerKey) -> Self {
        Self {
            key,
            link: Link::Closed,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
            out: Vec::new(),
            next_number: 0,
            paused_until_ns: 0,
            pause_ms: PAUSE_MS,
            unreachable_since_ns: None,
            is_self_test: false,
        }
    }

    /// The outcome of requests that cannot be sent.
    fn unreachable(&self, now: Now, why: &'static str) -> PeerOutcome {
        let long_ago = |since_ns: u64| now.mono_ns >= since_ns + time::ms(UNREACHABLE_MS);
        let is_gone = self.unreachable_since_ns.is_some_and(long_ago);
        if is_gone { PeerOutcome::Unreachable } else { PeerOutcome::Unavailable(why) }
    }

    fn requests(&self) -> usize {
        self.waiting.len() + self.sent.len()
    }

    fn is_idle(&self) -> bool {
        matches!(self.link, Link::Closed) && self.requests() == 0
    }

    fn deadline(&self) -> Option<u64> {
        let of_link = match &self.link {
            Link::Closed | Link::Ordered => None,
            Link::Connecting { until_ns, .. } | Link::Greeting { until_ns, .. } => Some(*until_ns),
            Link::Open { idle_until_ns, .. } => self.sent.is_empty().then_some(*idle_until_ns),
        };
        of_link.into_iter().chain(self.sent.front().map(|sent| sent.until_ns)).min()
    }

    fn cost(&self) -> usize {
        let held = self.link.dialler().map_or(0, |dialler| {
            heap::cost(size_of::<Dialler>()) + heap::cost(dialler.held_bytes())
        });
        heap::tree_entry::<(Owner, Self)>()
            + heap::table::<Call>(self.waiting.capacity())
            + heap::table::<Sent>(self.sent.capacity())
            + heap::cost(self.out.capacity())
            + held
    }
}

/// Why a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Refused,
    /// SYNs were not answered.
    Silent,
    /// No port or descriptor is free.
    Exhausted,
    /// The handshake timed out.
    NoGreeting,
    OtherBoot,
    Forged,
    Broken,
    /// The oldest request timed out.
    NoAnswer,
}

/// The connections to other replicas, and their requests.
#[derive(Debug, Default)]
pub struct Outgoing {
    peers: BTreeMap<Owner, Peer>,
    by_id: BTreeMap<Id, Owner>,
    orders: VecDeque<Order>,
    /// Owners whose connections were ordered, in order.
    ordered: VecDeque<Owner>,
    completed: VecDeque<Completed>,
    /// Accounted bytes of all requests.
    request_bytes: usize,
}

impl Outgoing {
    /// Sends a request to the owner of a connection. [`Outgoing::completed`] reports its outcome.
    pub fn forward(
        &mut self,
        now: Now,
        (id, key): (&SealedId, &PeerKey),
        caller: Id,
        (callback, trace): (CallbackRequest<'_>, Option<Traceparent>),
    ) {
        let operation = match callback {
            CallbackRequest::Get => Operation::Get,
            CallbackRequest::Close => Operation::Close,
            CallbackRequest::Post(kind, bytes) => Operation::Post(kind, bytes.into()),
        };
        let connection = id.connection;
        let began_ns = now.mono_ns;
        let call = Call { caller, connection, operation, trace, began_ns, is_repeated: false };
        let size = call.operation.bytes();
        let has_room = self.make_room(id.owner);
        let peer = self.peers.entry(id.owner).or_insert_with(|| Peer::new(key.clone()));
        if !has_room
            || peer.requests() >= REQUESTS_MAX
            || self.request_bytes + size > REQUESTS_BYTES
        {
            self.finish(now, &call, PeerOutcome::Busy);
        } else if matches!(peer.link, Link::Closed) && now.mono_ns < peer.paused_until_ns {
            let outcome = peer.unreachable(now, "circuit");
            self.finish(now, &call, outcome);
        } else {
            peer.key = key.clone();
            peer.waiting.push_back(call);
            self.request_bytes += size;
            self.advance(now, id.owner);
        }
        self.forget_if_idle(id.owner);
    }

    /// Connects to the address of this process as other replicas do, and logs whether that works.
    pub fn test_self(&mut self, now: Now, owner: Owner, key: &PeerKey) {
        let mut peer = Peer::new(key.clone());
        peer.is_self_test = true;
        self.peers.insert(owner, peer);
        self.dial(owner);
        self.advance(now, owner);
    }

    /// Whether there is room for this owner. Removes an idle one if necessary.
    fn make_room(&mut self, owner: Owner) -> bool {
        if self.peers.len() < OWNERS_MAX || self.peers.contains_key(&owner) {
            return true;
        }
        let idle = self.peers.iter().find(|(_, peer)| peer.is_idle()).map(|(owner, _)| *owner);
        idle.is_some_and(|idle| self.peers.remove(&idle).is_some())
    }

    fn forget_if_idle(&mut self, owner: Owner) {
        let is_over = |peer: &Peer| {
            peer.is_idle() && peer.unreachable_since_ns.is_none() && peer.paused_until_ns == 0
        };
        if self.peers.get(&owner).is_some_and(is_over) {
            self.peers.remove(&owner);
        }
    }

    fn finish(&mut self, now: Now, call: &Call, outcome: PeerOutcome) {
        let took_ns = now.mono_ns.saturating_sub(call.began_ns);
        self.completed.push_back(Completed {
            caller: call.caller,
            outcome,
            took_ns,
            trace: call.trace,
        });
    }

    fn dial(&mut self, owner: Owner) {
        if let Some(peer) = self.peers.get_mut(&owner) {
            peer.link = Link::Ordered;
            self.ordered.push_back(owner);
            self.orders.push_back(Order::Connect(Target::Tcp(owner.address)));
        }
    }

    /// Seals waiting requests, or opens a connection for them.
    fn advance(&mut self, now: Now, owner: Owner) {
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        if peer.waiting.is_empty() {
            return;
        }
        let (id, dialler) = match &mut peer.link {
            Link::Closed => return self.dial(owner),
            Link::Ordered | Link::Connecting { .. } | Link::Greeting { .. } => return,
            Link::Open { id, dialler, .. } => (*id, dialler),
        };
        while let Some(mut call) = peer.waiting.pop_front() {
            let number = peer.next_number;
            peer.next_number = number.wrapping_add(1);
            let callback = match &call.operation {
                Operation::Get => CallbackRequest::Get,
                Operation::Close => CallbackRequest::Close,
                Operation::Post(kind, body) => CallbackRequest::Post(*kind, body),
            };
            let request =
                Request { number, connection: call.connection, callback, trace: call.trace };
            let (head, trace, body) = request.pieces();
            dialler.seal(&[&head, trace, body], &mut peer.out);
            let bytes = call.operation.bytes();
            if let Operation::Post(_, body) = &mut call.operation {
                *body = Box::default();
            }
            let until_ns = now.mono_ns + time::ms(ANSWER_MS);
            peer.sent.push_back(Sent { call, number, bytes, until_ns });
        }
        self.orders.push_back(Order::Write(id));
    }

    /// The next order.
    pub fn poll(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// The next request that has an outcome.
    pub fn completed(&mut self) -> Option<Completed> {
        self.completed.pop_front()
    }

    /// The id of the connection that was ordered first; `None` if there are too many.
    pub fn opened(&mut self, now: Now, id: Option<Id>) {
        let Some(owner) = self.ordered.pop_front() else { return };
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        match id {
            Some(id) => {
                let until_ns = now.mono_ns + time::ms(OUTBOUND_CONNECT_MS);
                peer.link = Link::Connecting { id, until_ns };
                self.by_id.insert(id, owner);
            }
            None => self.fail(now, owner, Failure::Exhausted),
        }
    }

    /// Whether this is a connection to another replica.
    #[must_use]
    pub fn has(&self, id: Id) -> bool {
        self.by_id.contains_key(&id)
    }

    /// A connection is established, or connecting failed.
    pub fn connected(
        &mut self,
        now: Now,
        id: Id,
        how: Result<Option<Random>, HangUp>,
        out: &mut Vec<u8>,
    ) {
        let Some(owner) = self.by_id.get(&id).copied() else { return };
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        let failure = match how {
            Ok(Some(random)) => {
                peer.unreachable_since_ns = None;
                let dialler = Dialler::new(peer.key.clone(), owner.boot, random);
                dialler.hello(out);
                let until_ns = now.mono_ns + time::ms(ANSWER_MS);
                peer.link = Link::Greeting { id, dialler: Box::new(dialler), until_ns };
                return;
            }
            Ok(None) | Err(HangUp::Exhausted) => Failure::Exhausted,
            Err(HangUp::Refused) => Failure::Refused,
            Err(HangUp::Reset | HangUp::Eof) => Failure::Broken,
            Err(HangUp::Unreachable | HangUp::NoSuchName | HangUp::Tls(_) | HangUp::Proxy(_)) => {
                Failure::Silent
            }
        };
        self.fail(now, owner, failure);
    }

    /// Bytes were received.
    pub fn received(&mut self, now: Now, id: Id, bytes: &[u8]) {
        let Some(owner) = self.by_id.get(&id).copied() else { return };
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        let (Link::Greeting { dialler, .. } | Link::Open { dialler, .. }) = &mut peer.link else {
            return;
        };
        let mut answers = Vec::new();
        let how = dialler.received(bytes, &mut |message| {
            let answer = Answer::read(message);
            let is_answer = answer.is_some();
            answers.extend(answer);
            is_answer
        });
        for Answer { number, outcome } in answers {
            let place = peer.sent.iter().position(|sent| sent.number == number);
            if let Some(sent) = place.and_then(|place| peer.sent.remove(place)) {
                self.request_bytes -= sent.bytes;
                let took_ns = now.mono_ns.saturating_sub(sent.call.began_ns);
                let outcome = PeerOutcome::Answered(outcome);
                let Call { caller, trace, .. } = sent.call;
                self.completed.push_back(Completed { caller, outcome, took_ns, trace });
            }
        }
        match how {
            Ok(()) => self.after_input(now, owner),
            Err(ChannelFault::OtherBoot) => self.fail(now, owner, Failure::OtherBoot),
            Err(
                ChannelFault::Forged
                | ChannelFault::TooLong
                | ChannelFault::InvalidMessage
                | ChannelFault::Version(_)
                | ChannelFault::UnknownKey(_),
            ) => self.fail(now, owner, Failure::Forged),
        }
    }

    /// Sends requests after the owner's greeting, and restarts the idle timeout after each answer.
    fn after_input(&mut self, now: Now, owner: Owner) {
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        let idle_until_ns = now.mono_ns + time::ms(IDLE_MS);
        match std::mem::replace(&mut peer.link, Link::Closed) {
            Link::Greeting { id, mut dialler, .. } if dialler.is_open() => {
                dialler.confirm(&mut peer.out);
                peer.link = Link::Open { id, dialler, idle_until_ns };
                (peer.pause_ms, peer.paused_until_ns) = (PAUSE_MS, 0);
                if std::mem::take(&mut peer.is_self_test) {
                    log::info!(
                        target: "peer-self-test", address:% = owner.address;
                        "self-test: the advertised address can be reached"
                    );
                }
                self.orders.push_back(Order::Write(id));
                self.advance(now, owner);
            }
            Link::Open { id, dialler, .. } => peer.link = Link::Open { id, dialler, idle_until_ns },
            link @ (Link::Greeting { .. }
            | Link::Closed
            | Link::Ordered
            | Link::Connecting { .. }) => peer.link = link,
        }
    }

    /// Produces output, after [`Order::Write`].
    pub fn render(&mut self, id: Id, out: &mut Vec<u8>) {
        let peer = self.by_id.get(&id).and_then(|owner| self.peers.get_mut(owner));
        if let Some(peer) = peer {
            out.append(&mut peer.out);
            peer.out = Vec::new();
        }
    }

    /// A connection has ended.
    pub fn ended(&mut self, now: Now, id: Id) {
        if let Some(owner) = self.by_id.get(&id).copied() {
            self.fail(now, owner, Failure::Broken);
        }
    }

    /// Gives up a connection, and decides the outcome of its requests.
    fn fail(&mut self, now: Now, owner: Owner, failure: Failure) {
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        if let Some(id) = peer.link.id() {
            self.by_id.remove(&id);
            self.orders.push_back(Order::Reset(id));
        }
        peer.link = Link::Closed;
        peer.out = Vec::new();
        if std::mem::take(&mut peer.is_self_test) {
            log::warn!(
                target: "peer-self-test", address:% = owner.address, failure:? = failure;
                "self-test: the advertised address cannot be reached, so callbacks through other \
                 replicas will fail, see --gateway-advertise"
            );
        }
        match failure {
            Failure::Silent => {
                peer.unreachable_since_ns.get_or_insert(now.mono_ns);
                peer.pause(now);
            }
            Failure::NoGreeting | Failure::Forged => peer.pause(now),
            Failure::Refused | Failure::OtherBoot => {
                peer.unreachable_since_ns = None;
                (peer.pause_ms, peer.paused_until_ns) = (PAUSE_MS, 0);
            }
            Failure::Exhausted | Failure::Broken | Failure::NoAnswer => {}
        }
        let unreached = match failure {
            Failure::Refused => PeerOutcome::Gone("refused"),
            Failure::OtherBoot => PeerOutcome::Gone("other_boot"),
            Failure::Silent => peer.unreachable(now, "silent"),
            Failure::NoGreeting | Failure::NoAnswer => PeerOutcome::Unavailable("timeout"),
            Failure::Exhausted => PeerOutcome::Unavailable("exhausted"),
            Failure::Forged => PeerOutcome::Unavailable("forged"),
            Failure::Broken => PeerOutcome::Unavailable("broken"),
        };
        let sent: Vec<Sent> = peer.sent.drain(..).collect();
        let waiting: Vec<Call> = peer.waiting.drain(..).collect();
        for Sent { call, bytes, until_ns, .. } in sent {
            self.request_bytes -= bytes;
            let is_overdue = failure == Failure::NoAnswer && until_ns <= now.mono_ns;
            match call.operation {
                Operation::Post(..) => self.finish(now, &call, PeerOutcome::Cut),
                Operation::Get | Operation::Close if is_overdue => {
                    self.finish(now, &call, PeerOutcome::Unavailable("timeout"));
                }
                Operation::Get | Operation::Close => {
                    self.repeat(now, owner, (call, &unreached), failure);
                }
            }
        }
        for call in waiting {
            self.request_bytes -= call.operation.bytes();
            self.repeat(now, owner, (call, &unreached), failure);
        }
        self.advance(now, owner);
        self.forget_if_idle(owner);
    }

    /// Repeats a request once if its connection broke. It was not executed, or it may be executed
    /// twice.
    fn repeat(
        &mut self,
        now: Now,
        owner: Owner,
        (mut call, outcome): (Call, &PeerOutcome),
        failure: Failure,
    ) {
        let broke = matches!(failure, Failure::Broken | Failure::NoAnswer);
        match self.peers.get_mut(&owner) {
            Some(peer) if broke && !call.is_repeated => {
                call.is_repeated = true;
                self.request_bytes += call.operation.bytes();
                peer.waiting.push_back(call);
            }
            Some(_) | None => self.finish(now, &call, outcome.clone()),
        }
    }

    /// Resets the connections that use other keys than these.
    pub fn set_keys(&mut self, now: Now, keys: &PeerKeys) {
        let uses_other =
            |peer: &Peer| peer.link.dialler().is_some_and(|dialler| !keys.has(dialler.key()));
        let stale: Vec<Owner> =
            self.peers.iter().filter(|(_, peer)| uses_other(peer)).map(|(o, _)| *o).collect();
        for owner in stale {
            self.fail(now, owner, Failure::Broken);
        }
    }

    /// When [`Outgoing::fire`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.peers.values().filter_map(Peer::deadline).min()
    }

    /// The deadline has passed.
    pub fn fire(&mut self, now: Now) {
        let is_due = |peer: &Peer| peer.deadline().is_some_and(|due_ns| due_ns <= now.mono_ns);
        let due: Vec<Owner> =
            self.peers.iter().filter(|(_, peer)| is_due(peer)).map(|(o, _)| *o).collect();
        for owner in due {
            let Some(peer) = self.peers.get_mut(&owner) else { continue };
            match &peer.link {
                Link::Closed | Link::Ordered => {}
                Link::Connecting { .. } => self.fail(now, owner, Failure::Silent),
                Link::Greeting { .. } => self.fail(now, owner, Failure::NoGreeting),
                Link::Open { .. } if !peer.sent.is_empty() => {
                    self.fail(now, owner, Failure::NoAnswer);
                }
                Link::Open { id, .. } => {
                    self.by_id.remove(id);
                    self.orders.push_back(Order::Close(*id));
                    peer.link = Link::Closed;
                    self.forget_if_idle(owner);
                }
            }
        }
    }

    /// Accounted bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.peers.values().map(Peer::cost).sum::<usize>()
            + self.request_bytes
            + self.by_id.len() * heap::tree_entry::<(Id, Owner)>()
    }

    /// Owners, their requests in flight, and whether the connection is open.
    pub fn owners(&self) -> impl Iterator<Item = (Owner, usize, bool)> {
        let open = |peer: &Peer| matches!(peer.link, Link::Open { .. });
        self.peers.iter().map(move |(owner, peer)| (*owner, peer.requests(), open(peer)))
    }
}

impl Peer {
    fn pause(&mut self, now: Now) {
        self.paused_until_ns = now.mono_ns + time::ms(self.pause_ms);
        self.pause_ms = (2 * self.pause_ms).min(PAUSE_MS_MAX);
    }
}
