//! A pool of persistent HTTP client connections. A request takes an idle connection, opens a new
//! one, or waits. Without I/O: events and `now` in, [`Order`]s out, responses through a callback.
//! A request is retried only if no byte of it can have been sent.

mod reply;

use core::fmt;
use std::collections::VecDeque;

use crate::engine::{HangUp, Id, Now, Target};
use crate::heap;
use crate::outbox::Block;
use crate::proto::http::Persistence;
use crate::proto::http_client::{Answer, Asked, Event, Fault, Limits};
use crate::slab::Slab;
use crate::time;
pub use reply::Reply;

/// Retries after finding that the server has closed the connection.
const RETRIES_MAX: u8 = 3;

/// Memory of a request besides its bytes: its queue entry, or the state of its connection.
pub const CALL_BYTES: usize =
    2 * size_of::<Pending>() + size_of::<Connection>() + heap::cost(size_of::<Busy>());

/// Limits of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Maximum connections to one target.
    pub per_target: usize,
    /// Maximum connections to all targets.
    pub connections: usize,
    /// Maximum requests that wait for a connection.
    pub waiting: usize,
    /// Connect timeout, for DNS, TCP and TLS together.
    pub connect_ms: u64,
    /// How long an idle connection is kept; shorter than what servers use.
    pub idle_ms: u64,
}

/// A request, with limits for its response.
#[derive(Clone)]
pub struct Call {
    /// The server; connections are shared between requests with equal targets.
    pub target: Target,
    /// The output of [`Request::write`](crate::proto::http_client::Request::write).
    pub bytes: Block,
    /// What the response parser must know of the request.
    pub asked: Asked,
    /// Size limits of the response.
    pub limits: Limits,
    /// When the request times out.
    pub deadline_ns: u64,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens and messages must not be logged.
        let Self { target, bytes, deadline_ns, .. } = self;
        let mut shown = f.debug_struct("Call");
        shown.field("target", target).field("bytes", &bytes.len());
        shown.field("deadline_ns", deadline_ns).finish_non_exhaustive()
    }
}

/// Identifies a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

/// Identifies a connection of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(Id);

/// What the owner must do; each is an [`Action`](crate::engine::Action) for the owner's own id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Open a connection, then call [`Pool::connected`].
    Connect(Lane, Target),
    /// Write the output of [`Pool::render`].
    Write(Lane),
    /// Close the connection, then call [`Pool::closed`].
    Close(Lane),
}

/// Progress of a request. Ends with [`Event::End`] or [`News::Failed`].
#[derive(Debug)]
pub enum News<'n> {
    /// A part of the response.
    Answer(Event<'n>),
    /// There is no complete response.
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Connecting failed.
    NotConnected(HangUp),
    /// The response is invalid or was cut off.
    Answer(Fault),
    /// Connecting timed out: nothing was sent.
    NoConnection,
    /// No complete response by the deadline.
    TimedOut,
}

/// Too many requests are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Receives the progress of requests.
pub type Sink<'s> = &'s mut dyn FnMut(CallId, News<'_>);

/// Connections, and requests that wait for one.
#[derive(Debug)]
pub struct Pool {
    rules: Rules,
    lanes: Slab<Connection>,
    waiting: VecDeque<Pending>,
    orders: VecDeque<Order>,
    next_call: u64,
}

#[derive(Debug)]
struct Pending {
    id: CallId,
    call: Call,
    retries: u8,
}

#[derive(Debug)]
struct Connection {
    target: Target,
    state: State,
}

#[derive(Debug)]
enum State {
    Connecting {
        pending: Box<Pending>,
        until_ns: u64,
    },
    Idle {
        until_ns: u64,
    },
    Busy(Box<Busy>),
    /// Waits for [`Pool::closed`].
    Closing,
}

#[derive(Debug)]
struct Busy {
    pending: Pending,
    written: Written,
    answer: Answer,
}

/// How much of a request may have reached the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Nothing: [`Pool::render`] was not called.
    No,
    /// Nothing: it was rendered, but the kernel took no byte of it.
    Buffered,
    Maybe,
}

impl Pool {
    /// A pool without connections.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let (lanes, waiting, orders) = (Slab::default(), VecDeque::new(), VecDeque::new());
        Self { rules, lanes, waiting, orders, next_call: 0 }
    }

    /// Connections in any state.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lanes.len()
    }

    /// Memory of the connection table.
    #[must_use]
    pub fn table_cost(&self) -> usize {
        self.lanes.cost()
    }

    /// Sends a request as soon as a connection is available.
    ///
    /// # Errors
    /// Too many requests are waiting.
    pub fn ask(&mut self, call: Call) -> Result<CallId, Full> {
        let id = CallId(self.next_call);
        let pending = Pending { id, call, retries: 0 };
        if let Some(pending) = self.start(pending) {
            if self.waiting.len() >= self.rules.waiting {
                return Err(Full);
            }
            self.waiting.push_back(pending);
        }
        self.next_call += 1;
        Ok(id)
    }

    /// Cancels a request; nothing more is reported for it.
    pub fn forget(&mut self, id: CallId) {
        self.waiting.retain(|waiting| waiting.id != id);
        if let Some(lane) = self.lane_of(id) {
            self.close(lane);
        }
    }

    /// The request that a connection carries.
    #[must_use]
    pub fn call_of(&self, lane: Lane) -> Option<CallId> {
        self.lanes.find(lane.0)?.pending().map(|pending| pending.id)
    }

    /// The next thing to do. The connect timeout starts when [`Order::Connect`] is returned.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        let order = self.orders.pop_front()?;
        if let Order::Connect(lane, _) = &order
            && let Some(connection) = self.lanes.find_mut(lane.0)
            && let State::Connecting { until_ns, .. } = &mut connection.state
        {
            *until_ns = now.mono_ns + time::ms(self.rules.connect_ms);
        }
        Some(order)
    }

    /// The result of [`Order::Connect`].
    pub fn connected(&mut self, lane: Lane, how: Result<(), HangUp>, sink: Sink<'_>) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let pending = match std::mem::replace(&mut connection.state, State::Closing) {
            State::Connecting { pending, .. } => *pending,
            other => return connection.state = other,
        };
        match how {
            Ok(()) => {
                connection.state = State::busy(pending);
                self.orders.push_back(Order::Write(lane));
            }
            Err(how) => {
                self.orders.push_back(Order::Close(lane));
                sink(pending.id, News::Failed(Failure::NotConnected(how)));
            }
        }
    }

    /// Appends the request of this connection to `out`, once.
    pub fn render(&mut self, lane: Lane, out: &mut Vec<u8>) {
        if let Some(Connection { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0)
            && busy.written == Written::No
        {
            busy.written = Written::Maybe;
            out.extend_from_slice(busy.pending.call.bytes.bytes());
        }
    }

    /// The kernel has taken no byte of the rendered request; the owner buffers it.
    pub fn held(&mut self, lane: Lane) {
        if let Some(Connection { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0) {
            busy.written = Written::Buffered;
        }
    }

    /// The kernel took some of the buffered request.
    pub fn sent(&mut self, lane: Lane) {
        if let Some(Connection { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0) {
            busy.written = Written::Maybe;
        }
    }

    /// Bytes from the server.
    pub fn received(&mut self, now: Now, lane: Lane, mut bytes: &[u8], sink: Sink<'_>) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let State::Busy(busy) = &mut connection.state else {
            // Unsolicited bytes belong to no request.
            return self.close(lane);
        };
        let id = busy.pending.id;
        let persistence = loop {
            match busy.answer.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(event)) => {
                    let end = if let Event::End(persistence) = &event {
                        Some(*persistence)
                    } else {
                        None
                    };
                    sink(id, News::Answer(event));
                    if let Some(persistence) = end {
                        break persistence;
                    }
                }
                Err(fault) => {
                    self.close(lane);
                    return sink(id, News::Failed(Failure::Answer(fault)));
                }
            }
        };
        // A response to a half-sent request: the server would read the other half as the next one.
        let whole = busy.written == Written::Maybe && bytes.is_empty();
        if persistence == Persistence::KeepAlive && whole {
            connection.state = State::Idle { until_ns: now.mono_ns + time::ms(self.rules.idle_ms) };
            self.start_more();
        } else {
            self.close(lane);
        }
    }

    /// The server closed the connection, or it failed.
    pub fn ended(&mut self, lane: Lane, how: HangUp, sink: Sink<'_>) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let state = std::mem::replace(&mut connection.state, State::Closing);
        if !matches!(state, State::Closing) {
            self.orders.push_back(Order::Close(lane));
        }
        match state {
            State::Idle { .. } | State::Closing => {}
            State::Connecting { pending, .. } => {
                sink(pending.id, News::Failed(Failure::NotConnected(how)));
            }
            State::Busy(mut busy) => {
                let unsent = matches!(busy.written, Written::No | Written::Buffered);
                if unsent && busy.pending.retries < RETRIES_MAX {
                    busy.pending.retries += 1;
                    // To the front: it has already waited for its turn.
                    return self.waiting.push_front(busy.pending);
                }
                let end = match (busy.answer.ended(), how) {
                    (Ok(()), HangUp::Eof) => News::Answer(Event::End(Persistence::Close)),
                    (Ok(()), _) => News::Failed(Failure::Answer(Fault::CutOff)),
                    (Err(fault), _) => News::Failed(Failure::Answer(fault)),
                };
                sink(busy.pending.id, end);
            }
        }
    }

    /// The connection is closed and its lane can be reused.
    pub fn closed(&mut self, lane: Lane) {
        self.lanes.remove(lane.0);
        self.start_more();
    }

    /// When to call [`Pool::fire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let lanes = self.lanes.iter().filter_map(|(_, connection)| connection.deadline_ns());
        lanes.chain(self.waiting.iter().map(|waiting| waiting.call.deadline_ns)).min()
    }

    /// Applies the timeouts of requests and idle connections.
    pub fn fire(&mut self, now: Now, sink: Sink<'_>) {
        let due = |at_ns: u64| at_ns <= now.mono_ns;
        self.waiting.retain(|waiting| {
            let late = due(waiting.call.deadline_ns);
            if late {
                sink(waiting.id, News::Failed(Failure::TimedOut));
            }
            !late
        });
        let late =
            self.lanes.iter().filter(|(_, connection)| connection.deadline_ns().is_some_and(due));
        let late: Vec<_> = late.map(|(id, connection)| (id, connection.timeout())).collect();
        for (lane, failed) in late {
            self.close(Lane(lane));
            if let Some((call, failure)) = failed {
                sink(call, News::Failed(failure));
            }
        }
    }

    /// Assigns a connection to a request, or returns the request if none is available.
    fn start(&mut self, pending: Pending) -> Option<Pending> {
        let target = &pending.call.target;
        let (mut to_target, mut idle, mut other) = (0, None, None);
        for (id, connection) in self.lanes.iter() {
            let same = connection.target == *target;
            to_target += usize::from(same);
            if let State::Idle { until_ns } = connection.state {
                // Reuse the latest, which is least likely to be stale; evict the oldest.
                let best = if same { &mut idle } else { &mut other };
                if best.is_none_or(|(known_ns, _)| same == (known_ns < until_ns)) {
                    *best = Some((until_ns, id));
                }
            }
        }
        if let Some((_, id)) = idle
            && let Some(connection) = self.lanes.find_mut(id)
        {
            connection.state = State::busy(pending);
            self.orders.push_back(Order::Write(Lane(id)));
            return None;
        }
        if to_target >= self.rules.per_target {
            return Some(pending);
        }
        if self.lanes.len() >= self.rules.connections {
            // The slot is free after `closed`.
            if let Some((_, id)) = other {
                self.close(Lane(id));
            }
            return Some(pending);
        }
        let target = target.clone();
        let state = State::Connecting { pending: Box::new(pending), until_ns: u64::MAX };
        // `None` only if the slab is full, far beyond any configured limit.
        let id = self.lanes.insert(Connection { target: target.clone(), state })?;
        self.orders.push_back(Order::Connect(Lane(id), target));
        None
    }

    /// Starts waiting requests, oldest first.
    fn start_more(&mut self) {
        // Skip the other requests of a target that has no free connection.
        let mut taken: Vec<Target> = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() {
            if taken.contains(&self.waiting[at].call.target) {
                at += 1;
                continue;
            }
            let Some(pending) = self.waiting.remove(at) else { return };
            if let Some(pending) = self.start(pending) {
                taken.push(pending.call.target.clone());
                self.waiting.insert(at, pending);
                at += 1;
            }
        }
    }

    fn close(&mut self, lane: Lane) {
        if let Some(connection) = self.lanes.find_mut(lane.0)
            && !matches!(connection.state, State::Closing)
        {
            connection.state = State::Closing;
            self.orders.push_back(Order::Close(lane));
        }
    }

    fn lane_of(&self, id: CallId) -> Option<Lane> {
        let mut lanes = self.lanes.iter();
        let carries =
            |connection: &Connection| connection.pending().is_some_and(|pending| pending.id == id);
        lanes.find(|(_, connection)| carries(connection)).map(|(id, _)| Lane(id))
    }
}

impl State {
    fn busy(pending: Pending) -> Self {
        let answer = Answer::new(pending.call.asked, pending.call.limits);
        Self::Busy(Box::new(Busy { pending, written: Written::No, answer }))
    }
}

impl Connection {
    fn pending(&self) -> Option<&Pending> {
        match &self.state {
            State::Connecting { pending, .. } => Some(pending),
            State::Busy(busy) => Some(&busy.pending),
            State::Idle { .. } | State::Closing => None,
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        match &self.state {
            State::Idle { until_ns } => Some(*until_ns),
            State::Closing => None,
            State::Connecting { pending, until_ns } => {
                Some(pending.call.deadline_ns.min(*until_ns))
            }
            State::Busy(busy) => Some(busy.pending.call.deadline_ns),
        }
    }

    /// The request that times out with the connection, if any, and its failure.
    fn timeout(&self) -> Option<(CallId, Failure)> {
        match &self.state {
            State::Connecting { pending, .. } => Some((pending.id, Failure::NoConnection)),
            State::Busy(busy) => Some((busy.pending.id, Failure::TimedOut)),
            State::Idle { .. } | State::Closing => None,
        }
    }
}

#[cfg(test)]
mod tests;
