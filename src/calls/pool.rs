//! Connections that are kept for the next HTTP request: who asks gets an idle one, a new one, or
//! waits. Without I/O: events and `now` in, [`Order`]s out, answers through a callback. A request
//! is sent again only when not one byte of it can have been written.

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

/// A request finds connections that turn out to be closed; more of them are no accident.
const TRIES_MAX: u8 = 3;

/// What a request costs in here, beside its bytes: where it waits, or its connection's state.
pub const CALL_BYTES: usize =
    2 * size_of::<Waiting>() + size_of::<Held>() + heap::cost(size_of::<Busy>());

/// What a pool may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Connections to one target.
    pub per_target: usize,
    /// Connections to all targets.
    pub connections: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// How long a connection may take to come about: name, TCP and TLS together.
    pub connect_ms: u64,
    /// How long a connection is kept that nobody uses; shorter than servers keep theirs.
    pub idle_ms: u64,
}

/// A request, with what its answer may be.
#[derive(Clone)]
pub struct Call {
    /// Where it goes; only connections to an equal target are shared.
    pub target: Target,
    /// What [`Request::write`](crate::proto::http_client::Request::write) made of it.
    pub bytes: Block,
    /// What of the answer depends on the question.
    pub asked: Asked,
    /// How much of an answer is taken.
    pub limits: Limits,
    /// When it is given up.
    pub deadline_ns: u64,
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Tokens and messages must not get into a log.
        let Self { target, bytes, deadline_ns, .. } = self;
        let mut shown = f.debug_struct("Call");
        shown.field("target", target).field("bytes", &bytes.len());
        shown.field("deadline_ns", deadline_ns).finish_non_exhaustive()
    }
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

/// One connection of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane(Id);

/// What the owner has to do; each is an [`Action`](crate::engine::Action) for the owner's own id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Open it; [`Pool::connected`] tells how that went.
    Connect(Lane, Target),
    /// Write what [`Pool::render`] says.
    Write(Lane),
    /// Close it; then call [`Pool::closed`].
    Close(Lane),
}

/// What becomes of a request: events up to their end, or a failure, which is an end as well.
#[derive(Debug)]
pub enum News<'n> {
    /// A part of the answer.
    Answer(Event<'n>),
    /// There is no answer, or not the whole of it.
    Failed(Failure),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no connection.
    NotConnected(HangUp),
    /// The answer is none, or came to an end too early.
    Answer(Fault),
    /// A connection did not come about in time: nobody heard of the request.
    NoConnection,
    /// It took too long.
    TimedOut,
}

/// Too many requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Who is told what becomes of requests.
pub type Sink<'s> = &'s mut dyn FnMut(CallId, News<'_>);

/// Connections and those who wait for them.
#[derive(Debug)]
pub struct Pool {
    rules: Rules,
    lanes: Slab<Held>,
    waiting: VecDeque<Waiting>,
    orders: VecDeque<Order>,
    next_call: u64,
}

#[derive(Debug)]
struct Waiting {
    id: CallId,
    call: Call,
    tries: u8,
}

#[derive(Debug)]
struct Held {
    target: Target,
    state: State,
}

#[derive(Debug)]
enum State {
    Connecting {
        asking: Box<Waiting>,
        until_ns: u64,
    },
    Idle {
        until_ns: u64,
    },
    Busy(Box<Busy>),
    /// Only the owner's word is missing that it is gone.
    Leaving,
}

#[derive(Debug)]
struct Busy {
    asking: Waiting,
    written: Written,
    answer: Answer,
}

/// How much of a request has left us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Nothing: it was not even handed over.
    No,
    /// It was handed over, and nothing of it was taken.
    Held,
    /// Some of it, or nobody knows.
    Perhaps,
}

impl Pool {
    /// An empty one.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let (lanes, waiting, orders) = (Slab::default(), VecDeque::new(), VecDeque::new());
        Self { rules, lanes, waiting, orders, next_call: 0 }
    }

    /// Connections, in whatever state.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lanes.len()
    }

    /// What the table of connections costs.
    #[must_use]
    pub fn table_cost(&self) -> usize {
        self.lanes.cost()
    }

    /// Sends a request as soon as there is a connection for it.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn ask(&mut self, call: Call) -> Result<CallId, Full> {
        let id = CallId(self.next_call);
        let asking = Waiting { id, call, tries: 0 };
        if let Some(asking) = self.start(asking) {
            if self.waiting.len() >= self.rules.waiting {
                return Err(Full);
            }
            self.waiting.push_back(asking);
        }
        self.next_call += 1;
        Ok(id)
    }

    /// Nobody wants the answer any more.
    pub fn forget(&mut self, id: CallId) {
        self.waiting.retain(|waiting| waiting.id != id);
        if let Some(lane) = self.lane_of(id) {
            self.leave(lane);
        }
    }

    /// Which request a connection is for.
    #[must_use]
    pub fn call_of(&self, lane: Lane) -> Option<CallId> {
        self.lanes.find(lane.0)?.asking().map(|asking| asking.id)
    }

    /// The next thing to do. What is to be opened has its time from now on.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        let order = self.orders.pop_front()?;
        if let Order::Connect(lane, _) = &order
            && let Some(held) = self.lanes.find_mut(lane.0)
            && let State::Connecting { until_ns, .. } = &mut held.state
        {
            *until_ns = now.mono_ns + time::ms(self.rules.connect_ms);
        }
        Some(order)
    }

    /// Asked for by [`Order::Connect`]: it stands, and something is to be written; or never will.
    pub fn connected(&mut self, lane: Lane, how: Result<(), HangUp>, sink: Sink<'_>) {
        let Some(held) = self.lanes.find_mut(lane.0) else { return };
        let asking = match std::mem::replace(&mut held.state, State::Leaving) {
            State::Connecting { asking, .. } => *asking,
            other => return held.state = other,
        };
        match how {
            Ok(()) => {
                held.state = State::busy(asking);
                self.orders.push_back(Order::Write(lane));
            }
            Err(how) => {
                self.orders.push_back(Order::Close(lane));
                sink(asking.id, News::Failed(Failure::NotConnected(how)));
            }
        }
    }

    /// Appends the request that this connection is to carry, once.
    pub fn render(&mut self, lane: Lane, out: &mut Vec<u8>) {
        if let Some(Held { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0)
            && busy.written == Written::No
        {
            busy.written = Written::Perhaps;
            out.extend_from_slice(busy.asking.call.bytes.bytes());
        }
    }

    /// The kernel took nothing yet of what was rendered, so the owner keeps it.
    pub fn held(&mut self, lane: Lane) {
        if let Some(Held { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0) {
            busy.written = Written::Held;
        }
    }

    /// The kernel took some of what the owner kept.
    pub fn sent(&mut self, lane: Lane) {
        if let Some(Held { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0) {
            busy.written = Written::Perhaps;
        }
    }

    /// Bytes came.
    pub fn received(&mut self, now: Now, lane: Lane, mut bytes: &[u8], sink: Sink<'_>) {
        let Some(held) = self.lanes.find_mut(lane.0) else { return };
        let State::Busy(busy) = &mut held.state else {
            // Nobody has asked: what a server says now belongs to no request.
            return self.leave(lane);
        };
        let id = busy.asking.id;
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
                    self.leave(lane);
                    return sink(id, News::Failed(Failure::Answer(fault)));
                }
            }
        };
        // An answer to half a request: the other half must not be taken for the next one.
        let whole = busy.written == Written::Perhaps && bytes.is_empty();
        if persistence == Persistence::KeepAlive && whole {
            held.state = State::Idle { until_ns: now.mono_ns + time::ms(self.rules.idle_ms) };
            self.start_more();
        } else {
            self.leave(lane);
        }
    }

    /// It ended. After [`HangUp::Eof`] the owner is asked to close it, else it is dead already.
    pub fn ended(&mut self, lane: Lane, how: HangUp, sink: Sink<'_>) {
        let Some(held) = self.lanes.find_mut(lane.0) else { return };
        let state = std::mem::replace(&mut held.state, State::Leaving);
        if !matches!(state, State::Leaving) {
            self.orders.push_back(Order::Close(lane));
        }
        match state {
            State::Idle { .. } | State::Leaving => {}
            State::Connecting { asking, .. } => {
                sink(asking.id, News::Failed(Failure::NotConnected(how)));
            }
            State::Busy(mut busy) => {
                let fresh = matches!(busy.written, Written::No | Written::Held);
                if fresh && busy.asking.tries < TRIES_MAX {
                    busy.asking.tries += 1;
                    // It has waited for its turn already.
                    return self.waiting.push_front(busy.asking);
                }
                let end = match (busy.answer.ended(), how) {
                    (Ok(()), HangUp::Eof) => News::Answer(Event::End(Persistence::Close)),
                    (Ok(()), _) => News::Failed(Failure::Answer(Fault::CutOff)),
                    (Err(fault), _) => News::Failed(Failure::Answer(fault)),
                };
                sink(busy.asking.id, end);
            }
        }
    }

    /// It is gone.
    pub fn closed(&mut self, lane: Lane) {
        self.lanes.remove(lane.0);
        self.start_more();
    }

    /// When [`Pool::fire`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let lanes = self.lanes.iter().filter_map(|(_, held)| held.deadline_ns());
        lanes.chain(self.waiting.iter().map(|waiting| waiting.call.deadline_ns)).min()
    }

    /// Ends what took too long, and what was kept for long enough.
    pub fn fire(&mut self, now: Now, sink: Sink<'_>) {
        let due = |at_ns: u64| at_ns <= now.mono_ns;
        self.waiting.retain(|waiting| {
            let late = due(waiting.call.deadline_ns);
            if late {
                sink(waiting.id, News::Failed(Failure::TimedOut));
            }
            !late
        });
        let late = self.lanes.iter().filter(|(_, held)| held.deadline_ns().is_some_and(due));
        let late: Vec<_> = late.map(|(id, held)| (id, held.lateness())).collect();
        for (lane, failed) in late {
            self.leave(Lane(lane));
            if let Some((call, failure)) = failed {
                sink(call, News::Failed(failure));
            }
        }
    }

    /// Puts a request on its way, or gives it back: nothing is free.
    fn start(&mut self, asking: Waiting) -> Option<Waiting> {
        let target = &asking.call.target;
        let (mut to_target, mut idle, mut other) = (0, None, None);
        for (id, held) in self.lanes.iter() {
            let same = held.target == *target;
            to_target += usize::from(same);
            if let State::Idle { until_ns } = held.state {
                // The one that was used last is the least likely to be stale.
                let best = if same { &mut idle } else { &mut other };
                if best.is_none_or(|(known_ns, _)| same == (known_ns < until_ns)) {
                    *best = Some((until_ns, id));
                }
            }
        }
        if let Some((_, id)) = idle
            && let Some(held) = self.lanes.find_mut(id)
        {
            held.state = State::busy(asking);
            self.orders.push_back(Order::Write(Lane(id)));
            return None;
        }
        if to_target >= self.rules.per_target {
            return Some(asking);
        }
        if self.lanes.len() >= self.rules.connections {
            // Its place is free once the owner says so.
            if let Some((_, id)) = other {
                self.leave(Lane(id));
            }
            return Some(asking);
        }
        let target = target.clone();
        let state = State::Connecting { asking: Box::new(asking), until_ns: u64::MAX };
        // The table is full beyond any limit that a pool could have.
        let id = self.lanes.insert(Held { target: target.clone(), state })?;
        self.orders.push_back(Order::Connect(Lane(id), target));
        None
    }

    /// Something has become free; who waits longest goes first.
    fn start_more(&mut self) {
        // Those whose target has nothing free need not be tried one by one.
        let mut taken: Vec<Target> = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() {
            if taken.contains(&self.waiting[at].call.target) {
                at += 1;
                continue;
            }
            let Some(asking) = self.waiting.remove(at) else { return };
            if let Some(asking) = self.start(asking) {
                taken.push(asking.call.target.clone());
                self.waiting.insert(at, asking);
                at += 1;
            }
        }
    }

    fn leave(&mut self, lane: Lane) {
        if let Some(held) = self.lanes.find_mut(lane.0)
            && !matches!(held.state, State::Leaving)
        {
            held.state = State::Leaving;
            self.orders.push_back(Order::Close(lane));
        }
    }

    fn lane_of(&self, id: CallId) -> Option<Lane> {
        let mut lanes = self.lanes.iter();
        let carries = |held: &Held| held.asking().is_some_and(|asking| asking.id == id);
        lanes.find(|(_, held)| carries(held)).map(|(id, _)| Lane(id))
    }
}

impl State {
    fn busy(asking: Waiting) -> Self {
        let answer = Answer::new(asking.call.asked, asking.call.limits);
        Self::Busy(Box::new(Busy { asking, written: Written::No, answer }))
    }
}

impl Held {
    /// The request that it carries.
    fn asking(&self) -> Option<&Waiting> {
        match &self.state {
            State::Connecting { asking, .. } => Some(asking),
            State::Busy(busy) => Some(&busy.asking),
            State::Idle { .. } | State::Leaving => None,
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        match &self.state {
            State::Idle { until_ns } => Some(*until_ns),
            State::Leaving => None,
            State::Connecting { asking, until_ns } => Some(asking.call.deadline_ns.min(*until_ns)),
            State::Busy(busy) => Some(busy.asking.call.deadline_ns),
        }
    }

    /// Whose time is over, if anybody's, and what that person is told.
    fn lateness(&self) -> Option<(CallId, Failure)> {
        match &self.state {
            State::Connecting { asking, .. } => Some((asking.id, Failure::NoConnection)),
            State::Busy(busy) => Some((busy.asking.id, Failure::TimedOut)),
            State::Idle { .. } | State::Leaving => None,
        }
    }
}

#[cfg(test)]
mod tests;
