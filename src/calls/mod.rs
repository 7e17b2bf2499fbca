//! HTTP requests of our own: a [`pool`] of connections, and whole answers for the part that asked.
//! What is asked and why is not known here. `A` is what the part remembers a request by.

mod balancer;
mod call;
mod circuit;
pub mod pool;

use core::net::IpAddr;

use crate::engine::{HangUp, Id, NameFault, Now, Target};
use crate::id_map::IdMap;
use crate::limits;
use crate::server::part::{Connections, Order};
use pool::{Call, CallId, Failure, Full, Lane, Pool, Reply, Rules, TargetId};

/// Requests that are under way, and the connections that carry them.
#[derive(Debug)]
pub struct Calls<A> {
    pool: Pool<A>,
    lanes: IdMap<Lane>,
    ids: IdMap<Id>,
    /// The lane whose connection was asked for and has no id yet.
    connecting: Option<Lane>,
}

/// For a part that asks a few servers.
pub const RULES: Rules = Rules {
    per_address: [limits::OUTBOUND_PER_ADDRESS; 2],
    connections: 2 * limits::OUTBOUND_PER_ADDRESS,
    waiting: limits::OUTBOUND_REQUESTS_WAITING,
    connect_ms: limits::OUTBOUND_CONNECT_MS,
    idle_ms: limits::OUTBOUND_IDLE_MS,
    hold_ms: 0,
};

impl<A: Copy> Calls<A> {
    /// No request, and no connection.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let (lanes, ids) = (IdMap::default(), IdMap::default());
        Self { pool: Pool::new(rules), lanes, ids, connecting: None }
    }

    /// Registers a target; equal ones share their connections. They are not forgotten: a part has
    /// only those of its configuration.
    pub fn target(&mut self, target: &Target) -> TargetId {
        self.pool.target(target)
    }

    /// Sends a request. [`Calls::outcome`] reports its answer, or why there is none.
    ///
    /// # Errors
    /// When too many requests wait already.
    pub fn ask(
        &mut self,
        now: Now,
        target: TargetId,
        call: Call,
        asker: A,
    ) -> Result<CallId, Full> {
        self.pool.ask(now, target, call, asker)
    }

    /// The answer is not wanted any more: nothing is reported.
    pub fn forget(&mut self, id: CallId) {
        self.pool.forget(id);
    }

    /// The same for a request that was not sent; false if it was.
    pub fn withdraw(&mut self, id: CallId) -> bool {
        self.pool.withdraw(id)
    }

    /// The result of one of the requests; each is reported once.
    pub fn outcome(&mut self) -> Option<(A, Result<Reply, Failure>)> {
        self.pool.outcome()
    }

    /// Whether [`Calls::outcome`] has one.
    #[must_use]
    pub fn has_outcome(&self) -> bool {
        self.pool.has_outcome()
    }

    /// Requests do not wait any more for targets that cannot be reached.
    pub fn stop_holding(&mut self, now: Now) {
        self.pool.stop_holding(now);
    }

    /// Requests that wait for a connection.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pool.waiting()
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
                pool::Order::Resolve(host) => return Some(Order::Resolve(host)),
                pool::Order::Write(lane) => (lane, Order::Request),
                pool::Order::Close(lane) => (lane, Order::Close),
            };
            if let Some(id) = self.ids.get(lane.0) {
                return Some(order(*id));
            }
        }
        None
    }

    /// Bytes of requests and answers.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.pool.cost()
    }

    /// Bytes of the tables of connections.
    #[must_use]
    pub fn table_cost(&self) -> usize {
        self.pool.table_cost() + self.lanes.cost() + self.ids.cost()
    }

    /// When [`Calls::fire`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        self.pool.next_deadline()
    }

    /// Does what is due.
    pub fn fire(&mut self, now: Now) {
        if self.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.pool.fire(now);
        }
    }

    /// A name was resolved, perhaps for another part.
    pub fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        self.pool.resolved(now, host, found);
    }

    /// The connection is closed.
    pub fn closed(&mut self, now: Now, id: Id) {
        if let Some(lane) = self.lanes.remove(id) {
            self.ids.remove(lane.0);
            self.pool.closed(now, lane);
        }
    }
}

impl<A: Copy> Connections for Calls<A> {
    fn opened(&mut self, now: Now, id: Option<Id>) {
        let Some(lane) = self.connecting.take() else { return };
        if let Some(id) = id {
            self.lanes.insert(id, lane);
            self.ids.insert(lane.0, id);
        } else {
            self.pool.connected(now, lane, Err(HangUp::Exhausted));
            self.pool.closed(now, lane);
        }
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, _: &mut Vec<u8>) {
        if let Some(&lane) = self.lanes.get(id) {
            self.pool.connected(now, lane, how);
        }
    }

    fn received(&mut self, now: Now, id: Id, bytes: &[u8], _: &mut Vec<u8>) {
        if let Some(&lane) = self.lanes.get(id) {
            self.pool.received(now, lane, bytes);
        }
    }

    fn render(&mut self, id: Id, out: &mut Vec<u8>) {
        if let Some(&lane) = self.lanes.get(id) {
            self.pool.render(lane, out);
        }
    }

    fn kept(&mut self, id: Id, taken: usize, left: usize) {
        if let Some(&lane) = self.lanes.get(id) {
            self.pool.held(lane, taken, left);
        }
    }

    fn sent(&mut self, id: Id, left: usize) {
        if let Some(&lane) = self.lanes.get(id) {
            self.pool.sent(lane, left);
        }
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp) {
        if let Some(&lane) = self.lanes.get(id) {
            self.pool.ended(now, lane, how);
        }
    }
}
