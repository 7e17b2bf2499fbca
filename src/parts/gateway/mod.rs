//! Forwards WebSocket messages to an HTTP backend like the WebSocket APIs of Amazon API Gateway. A
//! state machine without I/O: messages and responses in; requests, pushes and verdicts out. It
//! identifies connections by id; the server opens and closes them.

mod callbacks;
mod connect;
pub mod connection_id;
mod dispatch;
pub mod flags;
mod in_flight;
pub mod part;
pub mod peers;
pub mod plan;
mod request;
mod request_id;
mod select;
mod session;
mod sessions;
pub mod traceparent;

use std::collections::{BTreeMap, VecDeque};

use super::Manifest;
use crate::behaviours::{Close, State as SocketState};
use crate::calls::pool::{Call, CallId, Failure};
use crate::engine::{Id, Now};
use crate::heap;
use crate::id_map::IdMap;
use crate::options::read::{Environment, Filled};
use crate::options::{Usage, serve as options};
use crate::outbox::Blocks;
use crate::proto::frame::Kind;
use crate::queue::{Queue, Waiting};
use crate::rng::Rng;
use crate::time;
pub use connect::ConnectRequest;
use connection_id::ConnectionId;
pub(crate) use flags::Settings as Draft;
use plan::Route;
pub use plan::{Format, Plan};
use request::BackendEvent;
pub use select::Expression;
use session::{Session, State};
use sessions::Sessions;

pub(super) const MANIFEST: Manifest = Manifest {
    behaviour: Some(&part::BEHAVIOUR),
    mounts: &[],
    routes: part::ROUTES,
    metrics: part::METRICS,
    flags: flags::GROUPS,
    command: None,
};

pub(super) fn settle(filled: &mut Filled<options::Draft>, env: &Environment) -> Result<(), Usage> {
    flags::settle(filled, env)
}

/// Maximum message, as in API Gateway; also of a callback.
pub const MESSAGE_BYTES: usize = 128 * 1024;
/// Maximum frame.
pub const FRAME_BYTES: u64 = 32 * 1024;
/// Queued messages of a connection beyond which it is not read.
pub const WAITING_MESSAGES: usize = 32;
/// Queued bytes of a connection beyond which it is not read.
pub const WAITING_BYTES: usize = 256 * 1024;
/// Timeout of a response from when the request is sent, and of waiting for a connection.
pub const TIMEOUT_MS: u64 = 29_000;
/// Idle timeout of a connection, before the time scale.
pub const IDLE_MS: u64 = 600_000;
/// Maximum lifetime of a connection, before the time scale.
pub const LIFE_MS: u64 = 7_200_000;
/// Closed connections that still have requests to send.
pub const ENDING_MAX: usize = 1_000;
/// Ended connections whose ids are remembered.
const ENDED_MAX: usize = 1_024;
/// Unsent pushes of a connection beyond which callbacks get 429.
pub const PUSHED_BYTES: usize = 256 * 1024;
/// Unsent pushes beyond which the next message waits, since its reply would have to wait too.
const PUSHED_BEFORE_NEXT: usize = 64 * 1024;

/// What the owner must do.
#[derive(Debug)]
pub enum Step {
    /// Send this request to the backend with this index, the default one first, then call
    /// [`Gateway::asked`], and [`Gateway::answered`] once it is over.
    Ask(Asker, usize, Call),
    /// Cancel this request, which is this call once it is in the pool of connections.
    Forget(Asker, Option<CallId>),
    /// Cancel this request unless it was sent; then call [`Gateway::withdrawn`].
    Withdraw(Asker),
    /// Wake this connection: for a verdict, a push, or room for more messages.
    Wake(Id),
}

/// What a request is remembered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    connection: ConnectionId,
    ticket: u64,
}

impl Asker {
    /// Counts the requests.
    #[must_use]
    pub fn ticket(self) -> u64 {
        self.ticket
    }
}

/// Why a request has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoResponse {
    /// Failed in the connection pool.
    Failed(Failure),
    /// Too many requests are waiting.
    Busy,
    /// The request is not valid HTTP.
    Unsendable,
}

/// The backend's decision about a new connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted, with the subprotocol that the backend chose.
    Welcome(Option<String>),
    /// Refused with this status and body.
    Refused(u16, Vec<u8>),
}

/// The result of a callback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallbackOutcome {
    /// The message is queued.
    Queued,
    /// The connection is being closed.
    Closing,
    /// Properties of the connection.
    Found {
        /// Milliseconds since 1970.
        connected_at_ms: i64,
        /// The client's address.
        source_ip: String,
        /// The client's `User-Agent`.
        user_agent: String,
        /// Milliseconds since 1970.
        last_active_ms: i64,
    },
    /// The connection has ended.
    Gone,
    /// No connection with this id is open here. It may be open elsewhere.
    Unknown,
    /// The client does not read its messages.
    Full,
    /// Memory is short.
    Overloaded,
}

/// A callback.
#[derive(Clone, Copy, Debug)]
pub enum CallbackRequest<'b> {
    /// Send a message.
    Post(Kind, &'b [u8]),
    /// Get properties of the connection.
    Get,
    /// Close the connection.
    Close,
}

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Completed requests by route and outcome.
    requests: BTreeMap<(Route, &'static str), u64>,
    /// Durations since they were last drained.
    pub took_ns: Vec<u64>,
    /// `$disconnect` events that were not sent.
    pub dropped: u64,
    /// Callbacks, by where their connection is.
    pub callbacks: BTreeMap<&'static str, u64>,
}

impl Counts {
    pub(super) fn count_callback(&mut self, place: &'static str) {
        *self.callbacks.entry(place).or_default() += 1;
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Gateway {
    plan: Plan,
    rng: Rng,
    sessions: Sessions,
    connections: IdMap<ConnectionId>,
    /// Requests in flight or waiting for a connection.
    in_flight: usize,
    steps: VecDeque<Step>,
    next_ticket: u64,
    ending: usize,
    /// Random ids of connections that ended, the latest last: an id that is not in any table may
    /// be another replica's.
    ended: VecDeque<ConnectionId>,
    memory_is_short: bool,
    bytes: usize,
    blocks: Blocks,
    /// Counters for metrics.
    pub counts: Counts,
}

impl Gateway {
    /// The seed is for request ids.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        Self {
            plan,
            rng: Rng::new(seed),
            sessions: Sessions::default(),
            connections: IdMap::default(),
            in_flight: 0,
            steps: VecDeque::new(),
            next_ticket: 0,
            ending: 0,
            ended: VecDeque::new(),
            memory_is_short: false,
            bytes: 0,
            blocks: Blocks::without_idle(),
            counts: Counts::default(),
        }
    }

    /// The configuration.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Memory of all connections.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.bytes
    }

    /// Memory of tables, which stay allocated.
    #[must_use]
    pub fn table_cost(&self) -> usize {
        let ended = heap::table::<ConnectionId>(self.ended.capacity());
        ended + self.connections.cost() + self.sessions.cost()
    }

    /// While memory is short, messages of callbacks are refused.
    pub fn set_memory_short(&mut self, is_short: bool) {
        self.memory_is_short = is_short;
    }

    /// Memory of one connection.
    #[must_use]
    pub fn cost_of(&self, id: Id) -> usize {
        self.find(id).map_or(0, |session| {
            // Until the backend reads it, a request is in memory twice.
            session.cost() + 2 * session.in_flight.bytes()
        })
    }

    /// Connected clients, and closed ones that still have requests to send.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        (self.connections.len(), self.ending)
    }

    /// Requests in flight or waiting for a connection.
    #[must_use]
    pub fn flights(&self) -> usize {
        self.in_flight
    }

    /// The next step for the owner.
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Asks the backend whether to accept a client. [`Gateway::verdict`] returns its decision.
    pub fn ask_to_connect(&mut self, now: Now, id: Id, client: &ConnectRequest<'_>) {
        match (self.plan.draw)(self.next_ticket).map(ConnectionId::drawn) {
            Some(connection) => self.ask_to_connect_as(now, id, client, (connection, None)),
            // The kernel has no randomness: refuse rather than use a guessable id.
            None => self.wake(id),
        }
    }

    /// The same for a connection with this key in the table, and this sealed id.
    pub fn ask_to_connect_as(
        &mut self,
        now: Now,
        id: Id,
        client: &ConnectRequest<'_>,
        (connection, sealed_id): (ConnectionId, Option<Box<str>>),
    ) {
        let mut session = Session::new(now, id, client, self.plan.domain.name());
        session.sealed_id = sealed_id;
        self.bytes += session.cost();
        self.connections.insert(id, connection);
        self.sessions.insert(connection, session);
        self.send_request(now, connection, &BackendEvent::Connect(client), now.mono_ns);
    }

    /// Whether [`Gateway::verdict`] can be called.
    #[must_use]
    pub fn has_verdict(&self, id: Id) -> bool {
        self.find(id).is_none_or(|session| matches!(session.state, State::Decided(_)))
    }

    /// The decision. An accepted client is connected from now on; a refused one, or one whose
    /// decision has not come yet, is removed.
    pub fn verdict(&mut self, now: Now, id: Id) -> Verdict {
        let refused = Verdict::Refused(502, request::NOT_ASKED.to_vec());
        let Some(connection) = self.connections.get(id).copied() else { return refused };
        let Some(session) = self.sessions.get_mut(connection) else { return refused };
        match std::mem::replace(&mut session.state, State::Open) {
            State::Decided(Verdict::Welcome(protocol)) => {
                (session.opened_ns, session.active_ns) = (now.mono_ns, now.mono_ns);
                Verdict::Welcome(protocol)
            }
            State::Decided(verdict) => {
                self.remove(connection);
                verdict
            }
            State::Connecting | State::Open | State::Closing(..) | State::Ending(..) => {
                self.abandon(now, connection);
                refused
            }
        }
    }

    /// A message of a client: sends it, or queues it behind others.
    pub fn message(&mut self, now: Now, id: Id, kind: Kind, payload: &[u8]) {
        let Some(connection) = self.connections.get(id).copied() else { return };
        let Some(session) = self.sessions.get_mut(connection) else { return };
        session.active(now);
        if session.is_next(self.plan.in_flight_of_one()) {
            let event = BackendEvent::Message(kind, payload);
            return self.send_request(now, connection, &event, now.mono_ns);
        }
        self.bytes -= session.waiting.cost();
        let message = Waiting { due_ns: now.mono_ns, turn: None, kind, payload };
        session.waiting.push(message, &mut self.blocks);
        self.bytes += session.waiting.cost();
    }

    /// When the connection times out, whether to stop reading from it, and whether a message of it
    /// is queued or in flight.
    #[must_use]
    pub fn socket_state(&self, id: Id) -> SocketState {
        let Some(session) = self.find(id) else { return SocketState::default() };
        let idle_ns = session.active_ns + self.scaled_ns(IDLE_MS);
        let life_ns = session.opened_ns + self.scaled_ns(LIFE_MS);
        SocketState {
            due_ns: Some(idle_ns.min(life_ns)),
            is_full: session.is_full(),
            is_busy: !session.in_flight.is_empty() || !session.waiting.is_empty(),
        }
    }

    /// Sends the next push with `send`; false if there is none.
    pub fn take_push(&mut self, now: Now, id: Id, send: impl FnOnce(Kind, &[u8])) -> bool {
        let Some(connection) = self.connections.get(id).copied() else { return false };
        let Some(session) = self.sessions.get_mut(connection) else { return false };
        let Some(first) = session.pushed.first() else { return false };
        send(first.kind, first.payload);
        self.bytes -= session.pushed.cost();
        session.pushed.pop(&mut self.blocks, now);
        self.bytes += session.pushed.cost();
        session.active(now);
        self.send_next(now, connection);
        true
    }

    /// Requests another wake-up, unless there will be one.
    pub fn wake(&mut self, id: Id) {
        if !matches!(self.steps.back(), Some(Step::Wake(last)) if *last == id) {
            self.steps.push_back(Step::Wake(id));
        }
    }

    /// The Close frame to send, after a callback or a timeout.
    pub fn close_due(&mut self, now: Now, id: Id) -> Option<Close> {
        let (idle_ns, life_ns) = (self.scaled_ns(IDLE_MS), self.scaled_ns(LIFE_MS));
        let session = self.find_mut(id)?;
        if let Some(close) = session.close.take() {
            return Some(close);
        }
        let over = session.state == State::Open
            && (now.mono_ns >= session.active_ns + idle_ns
                || now.mono_ns >= session.opened_ns + life_ns);
        over.then(|| Close { code: 1001, reason: "Going away".to_owned() })
    }

    fn scaled_ns(&self, ms: u64) -> u64 {
        time::ms(ms) / self.plan.time_scale.max(1)
    }

    /// The close handshake has started, by either side: callbacks get 410 from now on.
    pub fn closing(&mut self, id: Id, code: u16, reason: &str) {
        if let Some(session) = self.find_mut(id)
            && matches!(session.state, State::Open)
        {
            session.state = State::Closing(code, reason.to_owned());
        }
    }

    /// The WebSocket is closed. Queued messages are still sent, unless the connection broke; then
    /// `$disconnect`.
    pub fn left(&mut self, now: Now, id: Id, code: u16, is_broken: bool) {
        let Some(connection) = self.connections.remove(id) else { return };
        let Some(session) = self.sessions.get_mut(connection) else { return };
        let reason = match &mut session.state {
            State::Closing(_, reason) => std::mem::take(reason),
            State::Connecting | State::Decided(_) | State::Open | State::Ending(..) => {
                String::new()
            }
        };
        session.state = State::Ending(code, reason);
        self.bytes -= session.cost();
        session.pushed = Queue::default();
        if is_broken {
            session.waiting = Queue::default();
        }
        self.bytes += session.cost();
        if is_broken {
            self.abort(connection);
        }
        self.finish(now, connection);
    }

    /// The connection is gone, possibly before it became a WebSocket.
    pub fn gone(&mut self, now: Now, id: Id) {
        if let Some(connection) = self.connections.get(id).copied() {
            self.abandon(now, connection);
        }
    }

    /// The client left during `$connect`. If the backend accepts it or has done so, it gets a
    /// `$disconnect`; if it was not asked yet, it is not notified.
    fn abandon(&mut self, now: Now, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(connection) else { return };
        self.connections.remove(session.id);
        let welcome = matches!(session.state, State::Decided(Verdict::Welcome(_)));
        let ticket = session.in_flight.iter().next().map(|in_flight| in_flight.ticket);
        if ticket.is_none() && !welcome {
            return self.remove(connection);
        }
        session.state = State::Ending(1006, String::new());
        self.ending += 1;
        if self.ending > ENDING_MAX {
            self.drop_disconnect(connection);
        } else if welcome {
            self.send_disconnect(now, connection);
        } else if let Some(ticket) = ticket {
            self.steps.push_back(Step::Withdraw(Asker { connection, ticket }));
        }
    }

    fn finish(&mut self, now: Now, connection: ConnectionId) {
        self.ending += 1;
        if self.ending > ENDING_MAX {
            return self.drop_disconnect(connection);
        }
        self.send_next(now, connection);
    }

    /// Too many closed connections are waiting: this one gets no `$disconnect`.
    fn drop_disconnect(&mut self, connection: ConnectionId) {
        self.counts.dropped += 1;
        self.abort(connection);
        self.remove(connection);
    }

    fn find(&self, id: Id) -> Option<&Session> {
        self.sessions.get(*self.connections.get(id)?)
    }

    fn find_mut(&mut self, id: Id) -> Option<&mut Session> {
        self.sessions.get_mut(*self.connections.get(id)?)
    }
}
