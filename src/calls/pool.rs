//! A pool of persistent HTTP client connections. A request takes an idle connection to one of its
//! target's addresses, opens a new one, or waits. Without I/O: events and `now` in, [`Order`]s and
//! outcomes out. `balancer` chooses the address. A request is repeated only if no byte of it can
//! have been sent, or once if it is safe to repeat (RFC 9110 §9.2.2).

mod connecting;
mod reply;
mod waiting;
mod written;

use core::net::IpAddr;
use std::collections::VecDeque;

use super::balancer::{AddressId, Balancer, Choice, Outage};
pub use super::call::{Call, Class, Failure, Full, Lane, Order, Rules};
use crate::engine::{HangUp, Id, NameFault, Now, Target};
use crate::heap;
use crate::proto::http::Persistence;
use crate::proto::http_client::{Answer, Asked, Event, Fault};
use crate::slab::Slab;
use crate::time;
use crate::timers::Timers;
pub use reply::Reply;
use waiting::Waiting;
use written::Written;

/// Repetitions of a request of which nothing was sent.
const RETRIES_MAX: u8 = 3;
/// An attempt to connect that takes longer makes us try the next address as well (RFC 8305 §5).
const ATTEMPT_MS: u64 = 250;
/// The same with TLS, whose handshake is part of the attempt.
const ATTEMPT_TLS_MS: u64 = 1_000;
/// How long a connection to a single address is used, and how much is added at most: the address
/// may be a virtual one, behind which servers come and go without the connection's knowledge.
const LIFE_MS: u64 = 8_000;
const LIFE_SPREAD_MS: u64 = 4_000;
/// Requests over such a connection.
const LIFE_REQUESTS: u32 = 1_000;

/// Identifies a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub(super) Id);

/// Identifies a target that was registered with [`Pool::target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetId(usize);

/// Connections, and requests that wait for one. `A` is what the owner remembers a request by.
#[derive(Debug)]
pub struct Pool<A> {
    rules: Rules,
    targets: Vec<Group>,
    lanes: Slab<Connection>,
    requests: Slab<Request<A>>,
    lane_timers: Timers,
    /// Of requests that are not sent.
    request_timers: Timers,
    orders: VecDeque<Order>,
    outcomes: VecDeque<(A, Result<Reply, Failure>)>,
    /// Bytes of requests and their responses.
    bytes: usize,
    /// Requests that are not sent.
    unsent: usize,
    /// Connections so far.
    opened: u32,
}

/// A target with the requests that wait for it.
#[derive(Debug)]
struct Group {
    balancer: Balancer,
    queues: [Waiting; Class::COUNT],
    /// Requests and connections.
    users: usize,
    /// Connections.
    lanes: usize,
    /// When to try again, while requests wait and no address can be reached.
    retry_ns: Option<u64>,
}

#[derive(Debug)]
struct Request<A> {
    asker: A,
    target: TargetId,
    call: Call,
    place: Place,
    reply: Reply,
    asked_ns: u64,
    retries: u8,
    /// It was sent a second time, since that is safe.
    is_repeated: bool,
    /// Addresses that could not be reached.
    tried: Vec<AddressId>,
    /// Why not the last of them.
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the queue of its target.
    Waiting,
    /// So many connections are being opened for it; the first one carries it.
    Connecting(u8),
    /// This connection carries it.
    Sent(Lane),
}

#[derive(Debug)]
struct Connection {
    target: TargetId,
    address: AddressId,
    state: State,
    requests: u32,
    /// When it is too old, if its address is the only one.
    old_ns: u64,
}

#[derive(Debug)]
enum State {
    Connecting(Attempt),
    Idle,
    Busy(Box<Busy>),
    /// Waits for [`Pool::closed`].
    Closing,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    /// For this request, unless another connection was faster.
    request: CallId,
    class: Class,
    is_trial: bool,
    /// It takes so long that other addresses are tried.
    is_slow: bool,
    /// `None`: the owner has not begun.
    until_ns: Option<u64>,
}

#[derive(Debug)]
struct Busy {
    request: CallId,
    class: Class,
    written: Written,
    answer: Answer,
}

impl<A: Copy> Request<A> {
    fn cost(&self) -> usize {
        self.call.bytes.cost()
            + self.reply.cost()
            + heap::cost(size_of::<Busy>())
            + heap::table::<AddressId>(self.tried.capacity())
    }
}

impl<A: Copy> Pool<A> {
    /// A pool without connections.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            targets: Vec::new(),
            lanes: Slab::default(),
            requests: Slab::default(),
            lane_timers: Timers::default(),
            request_timers: Timers::default(),
            orders: VecDeque::new(),
            outcomes: VecDeque::new(),
            bytes: 0,
            unsent: 0,
            opened: 0,
        }
    }

    /// Registers a target; equal ones share their connections.
    pub fn target(&mut self, target: &Target) -> TargetId {
        let known = self.targets.iter().position(|group| group.balancer.target() == target);
        TargetId(known.unwrap_or_else(|| {
            let balancer = Balancer::new(target.clone(), self.rules.hold_ms > 0);
            self.targets.push(Group {
                balancer,
                queues: Default::default(),
                users: 0,
                lanes: 0,
                retry_ns: None,
            });
            self.targets.len() - 1
        }))
    }

    /// Connections in any state.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lanes.len()
    }

    /// Requests that wait for a connection.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.unsent
    }

    /// Bytes of requests and their responses.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.bytes
    }

    /// Memory of the tables.
    #[must_use]
    pub fn table_cost(&self) -> usize {
        let group = |group: &Group| {
            group.balancer.cost() + group.queues.iter().map(Waiting::cost).sum::<usize>()
        };
        self.lanes.cost()
            + self.requests.cost()
            + self.lane_timers.cost()
            + self.request_timers.cost()
            + heap::table::<Group>(self.targets.capacity())
            + self.targets.iter().map(group).sum::<usize>()
            + heap::table::<Order>(self.orders.capacity())
            + heap::table::<(A, Result<Reply, Failure>)>(self.outcomes.capacity())
    }

    /// Sends a request as soon as a connection is available. [`Pool::outcome`] reports the result.
    ///
    /// # Errors
    /// Too many requests are waiting.
    pub fn ask(
        &mut self,
        now: Now,
        target: TargetId,
        call: Call,
        asker: A,
    ) -> Result<CallId, Full> {
        if self.unsent >= self.rules.waiting {
            return Err(Full);
        }
        let class = call.class;
        let request = Request {
            asker,
            target,
            call,
            place: Place::Waiting,
            reply: Reply::default(),
            asked_ns: now.mono_ns,
            retries: 0,
            is_repeated: false,
            tried: Vec::new(),
            failure: None,
        };
        let cost = request.cost();
        let id = CallId(self.requests.insert(request).ok_or(Full)?);
        self.bytes += cost;
        self.unsent += 1;
        self.targets[target.0].users += 1;
        self.look_up(now, target);
        // Not before those that came earlier.
        let is_first = self.first_waiting(target, class).is_none();
        if !is_first || !self.start(now, id) {
            self.wait(now, id, false);
        }
        Ok(id)
    }

    /// Cancels a request; nothing more is reported for it.
    pub fn forget(&mut self, id: CallId) {
        if let Some(request) = self.remove(id)
            && let Place::Sent(lane) = request.place
        {
            self.close(lane);
        }
    }

    /// Cancels a request that is not being sent; false if it is, or is over.
    pub fn withdraw(&mut self, id: CallId) -> bool {
        let request = self.requests.find(id.0);
        let is_unsent = request.is_some_and(|request| !matches!(request.place, Place::Sent(_)));
        is_unsent && self.remove(id).is_some()
    }

    /// What happened next to one of the requests. Each is reported once.
    pub fn outcome(&mut self) -> Option<(A, Result<Reply, Failure>)> {
        self.outcomes.pop_front()
    }

    /// Whether [`Pool::outcome`] has one.
    #[must_use]
    pub fn has_outcome(&self) -> bool {
        !self.outcomes.is_empty()
    }

    /// Requests do not wait any more for targets that cannot be reached.
    pub fn stop_holding(&mut self, now: Now) {
        self.rules.hold_ms = 0;
        for (id, request) in self.requests.iter() {
            if request.place == Place::Waiting {
                let until_ns = request.asked_ns + time::ms(self.rules.connect_ms);
                self.request_timers.set(id.key, until_ns.max(now.mono_ns));
            }
        }
        for at in 0..self.targets.len() {
            self.targets[at].balancer.stop_holding();
            self.start_more(now, TargetId(at));
        }
    }

    /// The next thing to do. The connect timeout starts when [`Order::Connect`] is returned.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Order> {
        let order = self.orders.pop_front()?;
        if let Order::Connect(lane, target) = &order
            && let Some(connection) = self.lanes.find_mut(lane.0)
            && let State::Connecting(attempt) = &mut connection.state
        {
            attempt.until_ns = Some(now.mono_ns + time::ms(self.rules.connect_ms));
            let is_tls = matches!(target, Target::Tls(_));
            let slow_ms = if is_tls { ATTEMPT_TLS_MS } else { ATTEMPT_MS };
            self.lane_timers.set(lane.0.key, now.mono_ns + time::ms(slow_ms));
        }
        Some(order)
    }

    /// Appends the request of this connection to `out`, once.
    pub fn render(&mut self, lane: Lane, out: &mut Vec<u8>) {
        if let Some(Connection { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0)
            && busy.written == Written::No
            && let Some(request) = self.requests.find(busy.request.0)
        {
            busy.written = Written::Whole;
            out.extend_from_slice(request.call.bytes.bytes());
        }
    }

    /// The kernel took `taken` bytes of the rendered request; the owner buffers the other `left`.
    pub fn held(&mut self, lane: Lane, taken: usize, left: usize) {
        let written = if taken == 0 { Written::Buffered } else { Written::up_to(left) };
        self.set_written(lane, written);
    }

    /// The kernel took some of the buffered request; `left` bytes of it are still buffered.
    pub fn sent(&mut self, lane: Lane, left: usize) {
        self.set_written(lane, Written::up_to(left));
    }

    fn set_written(&mut self, lane: Lane, written: Written) {
        if let Some(Connection { state: State::Busy(busy), .. }) = self.lanes.find_mut(lane.0) {
            busy.written = written;
        }
    }

    /// Bytes from the server.
    pub fn received(&mut self, now: Now, lane: Lane, mut bytes: &[u8]) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let State::Busy(busy) = &mut connection.state else {
            // Unsolicited bytes belong to no request.
            return self.ended(now, lane, HangUp::Reset);
        };
        if busy.written.is_nothing() {
            // Such as the 408 of a server that closes an idle connection.
            return self.ended(now, lane, HangUp::Reset);
        }
        let id = busy.request;
        let Some(request) = self.requests.find_mut(id.0) else { return self.close(lane) };
        let persistence = loop {
            match busy.answer.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(Event::Head(head))) => {
                    request.reply.take_head(&head);
                    self.bytes += request.reply.cost();
                }
                Ok(Some(Event::Body(_))) if request.call.asked == Asked::Status => {}
                Ok(Some(Event::Body(part))) => {
                    self.bytes -= request.reply.cost();
                    request.reply.body.extend_from_slice(part);
                    self.bytes += request.reply.cost();
                }
                Ok(Some(Event::End(persistence))) => break persistence,
                Err(fault) => {
                    self.close(lane);
                    return self.end(id, Err(Failure::Answer(fault)));
                }
            }
        };
        // A response to a half-sent request: the server would read the other half as the next one.
        let whole = busy.written == Written::Whole && bytes.is_empty();
        let (class, address, target) = (busy.class, connection.address, connection.target);
        self.end(id, Ok(()));
        if persistence == Persistence::KeepAlive && whole {
            self.targets[target.0].balancer.done(address, class);
            self.rest(now, lane);
            self.start_next(now, target);
        } else {
            self.close(lane);
        }
    }

    /// The server closed the connection, or it failed.
    pub fn ended(&mut self, now: Now, lane: Lane, how: HangUp) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        match &mut connection.state {
            State::Closing => {}
            State::Idle => self.close(lane),
            State::Connecting(_) => self.connected(now, lane, Err(how)),
            State::Busy(busy) => {
                let (id, written) = (busy.request, busy.written);
                let end = busy.answer.ended();
                self.close(lane);
                let Some(request) = self.requests.find_mut(id.0) else { return };
                let is_unsent = written.is_nothing() && request.retries < RETRIES_MAX;
                let is_safe =
                    end == Err(Fault::NoAnswer) && !request.is_repeated && request.call.is_safe();
                if is_unsent || is_safe {
                    request.retries += u8::from(is_unsent);
                    request.is_repeated |= !is_unsent;
                    request.place = Place::Waiting;
                    self.unsent += 1;
                    self.bytes -= request.reply.cost();
                    request.reply = Reply::default();
                    // To the front: it has already waited for its turn.
                    if !self.start(now, id) {
                        self.wait(now, id, true);
                    }
                    return;
                }
                let end = match (end, how) {
                    (Ok(()), HangUp::Eof) => Ok(()),
                    (Ok(()), _) => Err(Failure::Answer(Fault::CutOff)),
                    (Err(fault), _) => Err(Failure::Answer(fault)),
                };
                self.end(id, end);
            }
        }
    }

    /// The connection is closed and its lane can be reused.
    pub fn closed(&mut self, now: Now, lane: Lane) {
        self.ended(now, lane, HangUp::Reset);
        let Some(connection) = self.lanes.remove(lane.0) else { return };
        self.lane_timers.cancel(lane.0.key);
        let group = &mut self.targets[connection.target.0];
        group.users -= 1;
        group.lanes -= 1;
        group.balancer.closed(connection.address);
        debug_assert!(group.lanes > 0 || group.balancer.attempts() == 0, "an attempt leaked");
        if self.unsent > 0 {
            // Others may wait for any connection at all.
            self.start_all(now, None);
        }
    }

    /// The result of [`Order::Resolve`].
    pub fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        for at in 0..self.targets.len() {
            for lane in self.targets[at].balancer.resolved(now, host, found) {
                self.close(lane);
            }
            self.start_more(now, TargetId(at));
        }
    }

    /// When to call [`Pool::fire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let timers = [self.lane_timers.next_deadline(), self.request_timers.next_deadline()];
        let used = self.targets.iter().filter(|group| group.users > 0);
        let names = used.clone().filter_map(|group| group.balancer.refresh_ns());
        let retries = used.filter_map(|group| group.retry_ns);
        timers.into_iter().flatten().chain(names).chain(retries).min()
    }

    /// Applies the timeouts of requests and connections.
    pub fn fire(&mut self, now: Now) {
        while let Some(key) = self.lane_timers.expire(now.mono_ns) {
            if let Some(id) = self.lanes.id_at(key) {
                self.lane_expired(now, Lane(id));
            }
        }
        while let Some(key) = self.request_timers.expire(now.mono_ns) {
            if let Some(id) = self.requests.id_at(key) {
                self.request_expired(now, CallId(id));
            }
        }
        for at in 0..self.targets.len() {
            let group = &mut self.targets[at];
            if group.users > 0 {
                let is_due = group.retry_ns.is_some_and(|at_ns| at_ns <= now.mono_ns);
                self.look_up(now, TargetId(at));
                if is_due {
                    self.start_more(now, TargetId(at));
                }
            }
        }
    }

    fn lane_expired(&mut self, now: Now, lane: Lane) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        match &mut connection.state {
            State::Closing => {}
            State::Idle => self.close(lane),
            State::Busy(busy) => {
                let id = busy.request;
                self.close(lane);
                self.end(id, Err(Failure::TimedOut));
            }
            State::Connecting(attempt) => {
                let attempt = *attempt;
                let Some(until_ns) = attempt.until_ns else { return };
                if until_ns <= now.mono_ns {
                    self.close(lane);
                    return self.not_connected(now, lane, attempt, Failure::NoConnection);
                }
                self.try_another(now, lane, attempt, until_ns);
            }
        }
    }

    /// Starts a request, or fails it; false if it must wait.
    fn start(&mut self, now: Now, id: CallId) -> bool {
        match self.choose_or(now, id) {
            Ok(choice) => {
                self.take(now, id, choice);
                true
            }
            Err(None) => false,
            Err(Some(failure)) => {
                self.end(id, Err(failure));
                true
            }
        }
    }

    fn choose(&mut self, now: Now, id: CallId) -> Option<Choice> {
        let request = self.requests.find(id.0)?;
        let (target, class) = (request.target, request.call.class);
        let most = self.rules.per_address[class as usize];
        let has_its_share = self.targets[target.0].lanes >= self.share();
        let balancer = &mut self.targets[target.0].balancer;
        match balancer.choose(now, class, most, &request.tried) {
            Choice::Connect(address, is_trial) if has_its_share => {
                balancer.withdraw(address, class, is_trial);
                None
            }
            Choice::Connect(address, is_trial) if self.lanes.len() >= self.rules.connections => {
                balancer.withdraw(address, class, is_trial);
                // The slot is free after `closed`.
                if let Some(lane) = self.idle_for(target) {
                    self.close(lane);
                }
                None
            }
            choice @ (Choice::Idle(..) | Choice::Connect(..)) => Some(choice),
            Choice::Full | Choice::Unresolved | Choice::Down => None,
        }
    }

    /// Maximum connections of a target: servers that hang must not take those of all others.
    fn share(&self) -> usize {
        let most = self.rules.connections;
        if self.targets.len() > 1 {
            (most - most / 4).min(most.saturating_sub(1)).max(1)
        } else {
            most
        }
    }

    /// The idle connection to close for one to this target. The last one of another target stays,
    /// unless this one has none.
    fn idle_for(&self, target: TargetId) -> Option<Lane> {
        let has_none = self.targets[target.0].lanes == 0;
        let may = |at: usize, group: &Group| at == target.0 || group.lanes > 1 || has_none;
        let groups = self.targets.iter().enumerate().filter(|(at, group)| may(*at, group));
        let idle = groups
            .filter_map(|(_, group)| Some((group.lanes, group.balancer.oldest_idle()?)))
            .max_by_key(|(lanes, _)| *lanes);
        idle.map(|(_, lane)| lane)
    }

    /// A connection for a request. The error says why it fails, or that it waits.
    fn choose_or(&mut self, now: Now, id: CallId) -> Result<Choice, Option<Failure>> {
        if let Some(choice) = self.choose(now, id) {
            return Ok(choice);
        }
        let Some(request) = self.requests.find_mut(id.0) else { return Err(None) };
        let group = &mut self.targets[request.target.0];
        let Some(outage) = group.balancer.outage(now, &request.tried) else { return Err(None) };
        let failure = match (outage, request.failure) {
            (_, Some(failure)) => failure,
            (Outage::NoAddress, None) => Failure::NotConnected(HangUp::NoSuchName),
            (Outage::Circuit | Outage::Tried, None) => Failure::Circuit,
        };
        // Waiting does not help against these.
        let is_final = matches!(failure, Failure::NotConnected(HangUp::Tls(_) | HangUp::Exhausted));
        if is_final || request.held_until_ns(self.rules.hold_ms) <= now.mono_ns {
            return Err(Some(failure));
        }
        request.tried.clear();
        group.retry_ns = group.balancer.retry_ns(now);
        Err(None)
    }

    /// Uses the connection that was chosen for a request.
    fn take(&mut self, now: Now, id: CallId, choice: Choice) {
        match choice {
            Choice::Idle(lane) => self.send(now, lane, id),
            Choice::Connect(address, is_trial) => self.connect(id, address, is_trial),
            Choice::Full | Choice::Unresolved | Choice::Down => {}
        }
    }

    /// Sends a request over an established connection.
    fn send(&mut self, now: Now, lane: Lane, id: CallId) {
        let Some(request) = self.requests.find_mut(id.0) else { return };
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        if connection.old_ns == u64::MAX {
            self.opened = self.opened.wrapping_add(1);
            connection.old_ns = now.mono_ns + life_ns(self.opened);
        }
        let call = &request.call;
        let until_ns = match call.answer_ms {
            Some(answer_ms) => now.mono_ns + time::ms(answer_ms),
            None => call.deadline_ns,
        };
        let answer = Answer::new(call.asked, call.limits);
        let busy = Busy { request: id, class: call.class, written: Written::No, answer };
        connection.state = State::Busy(Box::new(busy));
        connection.requests += 1;
        request.place = Place::Sent(lane);
        self.unsent -= 1;
        self.request_timers.cancel(id.0.key);
        self.lane_timers.set(lane.0.key, until_ns);
        self.orders.push_back(Order::Write(lane));
    }

    /// A connection has nothing to do: it is kept for the next request, unless it is too old.
    fn rest(&mut self, now: Now, lane: Lane) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let balancer = &mut self.targets[connection.target.0].balancer;
        let is_old = connection.requests >= LIFE_REQUESTS || connection.old_ns <= now.mono_ns;
        connection.state = State::Idle;
        if (is_old && balancer.is_single()) || !balancer.keep(connection.address, lane) {
            return self.close(lane);
        }
        self.lane_timers.set(lane.0.key, now.mono_ns + time::ms(self.rules.idle_ms));
    }

    /// Reports the result of a request.
    fn end(&mut self, id: CallId, how: Result<(), Failure>) {
        if let Some(request) = self.remove(id) {
            self.outcomes.push_back((request.asker, how.map(|()| request.reply)));
        }
    }

    fn remove(&mut self, id: CallId) -> Option<Request<A>> {
        let request = self.requests.remove(id.0)?;
        self.bytes -= request.cost();
        self.targets[request.target.0].users -= 1;
        self.request_timers.cancel(id.0.key);
        match request.place {
            Place::Waiting | Place::Connecting(_) => self.unsent -= 1,
            Place::Sent(_) => {}
        }
        Some(request)
    }

    fn close(&mut self, lane: Lane) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let balancer = &mut self.targets[connection.target.0].balancer;
        match std::mem::replace(&mut connection.state, State::Closing) {
            State::Closing => return,
            State::Idle => balancer.discard(connection.address, lane),
            State::Busy(busy) => balancer.done(connection.address, busy.class),
            // Its request learns of it in `not_connected`.
            State::Connecting(attempt) => balancer.attempted(connection.address, attempt.class),
        }
        self.lane_timers.cancel(lane.0.key);
        self.orders.push_back(Order::Close(lane));
    }

    /// Asks for the addresses of a target, if that is due.
    fn look_up(&mut self, now: Now, target: TargetId) {
        if let Some(host) = self.targets[target.0].balancer.poll(now) {
            self.orders.push_back(Order::Resolve(host));
        }
    }
}

/// How long a connection is used: spread evenly, whatever the number of connections.
fn life_ns(opened: u32) -> u64 {
    const GOLDEN: u32 = 0x9e37_79b9;
    let share = u64::from(opened.wrapping_mul(GOLDEN));
    time::ms(LIFE_MS) + ((share * LIFE_SPREAD_MS) >> 32) * 1_000_000
}

#[cfg(test)]
mod tests;
