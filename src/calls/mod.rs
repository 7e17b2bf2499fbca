//! HTTP requests of our own: a [`pool`] of connections, and whole answers for the part that asked.
//! What is asked and why is not known here. `A` is what the part remembers a request by.

pub mod pool;

use std::collections::{BTreeMap, VecDeque};

use crate::engine::{HangUp, Id, Now};
use crate::proto::http_client::Event;
use crate::server::part::{Connections, Order};
use crate::{heap, limits};
use pool::{CALL_BYTES, Call, CallId, Failure, Full, Lane, News, Pool, Reply, Rules};

/// Requests that are under way, and the connections that carry them.
#[derive(Debug)]
pub struct Calls<A> {
    pool: Pool,
    lanes: BTreeMap<Id, Lane>,
    ids: BTreeMap<Lane, Id>,
    /// The lane whose connection was asked for and has no id yet.
    connecting: Option<Lane>,
    asked: BTreeMap<CallId, Asked<A>>,
    outcomes: VecDeque<(A, Outcome)>,
    /// Bytes of requests and answers.
    bytes: usize,
}

#[derive(Debug)]
struct Asked<A> {
    asker: A,
    reply: Reply,
    /// What its request costs.
    request_bytes: usize,
}

impl<A> Asked<A> {
    fn cost(&self) -> usize {
        CALL_BYTES + heap::tree_entry::<(CallId, Self)>() + self.request_bytes + self.reply.cost()
    }
}

/// What happened to a request.
#[derive(Debug)]
pub enum Outcome {
    /// The connection that was opened for it is established.
    Connected,
    /// It was answered, or it failed. Reported exactly once.
    Ended(Result<Reply, Failure>),
}

impl<A: Copy> Calls<A> {
    /// No request, and no connection.
    #[must_use]
    pub fn new() -> Self {
        let rules = Rules {
            per_target: limits::OUTBOUND_CONNECTIONS_PER_TARGET,
            connections: limits::OUTBOUND_CONNECTIONS,
            waiting: limits::OUTBOUND_REQUESTS_WAITING,
            connect_ms: limits::OUTBOUND_CONNECT_MS,
            idle_ms: limits::OUTBOUND_IDLE_MS,
        };
        Self {
            pool: Pool::new(rules),
            lanes: BTreeMap::new(),
            ids: BTreeMap::new(),
            connecting: None,
            asked: BTreeMap::new(),
            outcomes: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Sends a request. [`Calls::outcome`] reports its answer, or why there is none.
    ///
    /// # Errors
    /// When too many requests wait already.
    pub fn ask(&mut self, call: Call, asker: A) -> Result<CallId, Full> {
        let request_bytes = call.bytes.cost();
        let id = self.pool.ask(call)?;
        let known = Asked { asker, reply: Reply::default(), request_bytes };
        self.bytes += known.cost();
        self.asked.insert(id, known);
        Ok(id)
    }

    /// The answer is not wanted any more: nothing is reported.
    pub fn forget(&mut self, id: CallId) {
        if let Some(asked) = self.asked.remove(&id) {
            self.bytes -= asked.cost();
            self.pool.forget(id);
        }
    }

    /// What happened next to one of the requests.
    pub fn outcome(&mut self) -> Option<(A, Outcome)> {
        self.outcomes.pop_front()
    }

    /// What the server is to do next; nothing while a connection that was asked for has no id,
    /// since what follows may concern it.
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        while self.connecting.is_none() {
            let (lane, order): (_, fn(Id) -> Order) = match self.pool.poll(now)? {
                pool::Order::Connect(lane, target) => {
                    self.connecting = Some(lane);
                    return Some(Order::Connect(target));
                }
                pool::Order::Write(lane) => (lane, Order::Write),
                pool::Order::Close(lane) => (lane, Order::Close),
            };
            if let Some(id) = self.ids.get(&lane) {
                return Some(order(*id));
            }
        }
        None
    }

    /// Bytes of requests and answers.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.bytes
    }

    /// Bytes of the tables of connections.
    #[must_use]
    pub fn table_cost(&self) -> usize {
        let names = heap::tree_entry::<(Id, Lane)>() + heap::tree_entry::<(Lane, Id)>();
        self.pool.table_cost() + self.lanes.len() * names
    }

    /// When [`Calls::fire`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.pool.next_deadline()
    }

    /// Does what is due.
    pub fn fire(&mut self, now: Now) {
        if self.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.with_sink(|pool, sink| pool.fire(now, sink));
        }
    }

    /// The connection is closed.
    pub fn closed(&mut self, id: Id) {
        if let Some(lane) = self.lanes.remove(&id) {
            self.with_sink(|pool, sink| pool.ended(lane, HangUp::Reset, sink));
            self.ids.remove(&lane);
            self.pool.closed(lane);
        }
    }

    /// Calls the pool, and queues what it reports.
    fn with_sink(&mut self, with: impl FnOnce(&mut Pool, &mut dyn FnMut(CallId, News<'_>))) {
        let Self { pool, asked, outcomes, bytes, .. } = self;
        with(pool, &mut |id, news| {
            let Some(known) = asked.get_mut(&id) else { return };
            *bytes -= known.cost();
            let how = match news {
                News::Answer(Event::Head(head)) => {
                    known.reply.take_head(&head);
                    return *bytes += known.cost();
                }
                News::Answer(Event::Body(part)) => {
                    known.reply.body.extend_from_slice(part);
                    return *bytes += known.cost();
                }
                News::Answer(Event::End(_)) => Ok(()),
                News::Failed(failure) => Err(failure),
            };
            if let Some(Asked { asker, reply, .. }) = asked.remove(&id) {
                outcomes.push_back((asker, Outcome::Ended(how.map(|()| reply))));
            }
        });
    }
}

impl<A: Copy> Connections for Calls<A> {
    fn opened(&mut self, _: Now, id: Option<Id>) {
        let Some(lane) = self.connecting.take() else { return };
        if let Some(id) = id {
            self.lanes.insert(id, lane);
            self.ids.insert(lane, id);
        } else {
            self.with_sink(|pool, sink| pool.connected(lane, Err(HangUp::Exhausted), sink));
            self.pool.closed(lane);
        }
    }

    fn connected(&mut self, _: Now, id: Id, how: Result<(), HangUp>, _: &mut Vec<u8>) {
        let Some(&lane) = self.lanes.get(&id) else { return };
        let call = self.pool.call_of(lane).and_then(|call| self.asked.get(&call));
        if let Some(asked) = call.filter(|_| how.is_ok()) {
            self.outcomes.push_back((asked.asker, Outcome::Connected));
        }
        self.with_sink(|pool, sink| pool.connected(lane, how, sink));
    }

    fn received(&mut self, now: Now, id: Id, bytes: &[u8], _: &mut Vec<u8>) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.with_sink(|pool, sink| pool.received(now, lane, bytes, sink));
        }
    }

    fn render(&mut self, id: Id, out: &mut Vec<u8>) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.pool.render(lane, out);
        }
    }

    fn kept(&mut self, id: Id, taken: usize) {
        if let Some(&lane) = self.lanes.get(&id).filter(|_| taken == 0) {
            self.pool.held(lane);
        }
    }

    fn sent(&mut self, id: Id) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.pool.sent(lane);
        }
    }

    fn ended(&mut self, _: Now, id: Id, how: HangUp) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.with_sink(|pool, sink| pool.ended(lane, how, sink));
        }
    }
}

impl<A: Copy> Default for Calls<A> {
    fn default() -> Self {
        Self::new()
    }
}
