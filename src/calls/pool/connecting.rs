//! Opening connections: which address is tried next, and what becomes of the request meanwhile.

use super::{ATTEMPT_MS, Attempt, CallId, Connection, Failure, Lane, Order, Place, Pool, State};
use crate::calls::balancer::AddressId;
use crate::engine::{HangUp, Now};
use crate::time;

impl<A: Copy> Pool<A> {
    pub(super) fn connect(&mut self, id: CallId, address: AddressId, is_trial: bool) {
        let Some(request) = self.requests.find_mut(id.0) else { return };
        let (target, class) = (request.target, request.call.class);
        let attempts = if let Place::Connecting(attempts) = request.place { attempts } else { 0 };
        request.place = Place::Connecting(attempts.saturating_add(1));
        self.request_timers.cancel(id.0.key);
        let attempt = Attempt { request: id, class, is_trial, is_slow: false, until_ns: None };
        let state = State::Connecting(attempt);
        let connection = Connection { target, address, state, requests: 0, old_ns: u64::MAX };
        let group = &mut self.targets[target.0];
        // `None` only if the slab is full, far beyond any configured limit.
        let Some(lane) = self.lanes.insert(connection) else {
            group.balancer.withdraw(address, class, is_trial);
            return self.end(id, Err(Failure::NotConnected(HangUp::Exhausted)));
        };
        group.users += 1;
        group.lanes += 1;
        self.orders.push_back(Order::Connect(Lane(lane), group.balancer.target_of(address)));
    }

    /// The result of [`Order::Connect`].
    pub fn connected(&mut self, now: Now, lane: Lane, how: Result<(), HangUp>) {
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let State::Connecting(attempt) = connection.state else { return };
        let (target, address) = (connection.target, connection.address);
        match how {
            Ok(()) => {
                let balancer = &mut self.targets[target.0].balancer;
                balancer.attempted(address, attempt.class);
                balancer.reached(address);
                if self.is_wanted(attempt.request) {
                    self.send(now, lane, attempt.request);
                } else {
                    self.targets[target.0].balancer.done(address, attempt.class);
                    self.rest(now, lane);
                }
                self.start_next(now, target);
            }
            Err(how) => {
                self.close(lane);
                self.not_connected(now, lane, attempt, Failure::NotConnected(how));
            }
        }
    }

    /// Whether a request still needs the connection that is opened for it.
    fn is_wanted(&self, request: CallId) -> bool {
        let request = self.requests.find(request.0);
        request.is_some_and(|request| matches!(request.place, Place::Connecting(_)))
    }

    /// A connection could not be opened, or not in time: its request tries the next address.
    pub(super) fn not_connected(
        &mut self,
        now: Now,
        lane: Lane,
        attempt: Attempt,
        failure: Failure,
    ) {
        let Some(connection) = self.lanes.find(lane.0) else { return };
        let (target, address) = (connection.target, connection.address);
        let how = match failure {
            Failure::NotConnected(how) => how,
            _ => HangUp::Unreachable,
        };
        let balancer = &mut self.targets[target.0].balancer;
        balancer.failed(now, address, how, attempt.is_trial);
        balancer.done(address, attempt.class);
        self.look_up(now, target);
        let Some(request) = self.requests.find_mut(attempt.request.0) else { return };
        let Place::Connecting(attempts) = &mut request.place else { return };
        *attempts = attempts.saturating_sub(1);
        let is_last = *attempts == 0;
        request.failure = Some(failure);
        self.exclude(attempt.request, address);
        if is_last && !self.start(now, attempt.request) {
            self.wait(now, attempt.request, true);
        }
    }

    /// This address is not tried again for this request.
    fn exclude(&mut self, id: CallId, address: AddressId) {
        let Some(request) = self.requests.find_mut(id.0) else { return };
        let before = request.cost();
        if !request.tried.contains(&address) {
            request.tried.push(address);
        }
        self.bytes = self.bytes + request.cost() - before;
    }

    /// Connecting takes long: tries another address at the same time, if there is one. If all of
    /// them are busy, it does so again later.
    pub(super) fn try_another(&mut self, now: Now, lane: Lane, attempt: Attempt, until_ns: u64) {
        self.lane_timers.set(lane.0.key, until_ns);
        let is_wanted = self.is_wanted(attempt.request);
        let Some(connection) = self.lanes.find_mut(lane.0) else { return };
        let (target, address) = (connection.target, connection.address);
        let balancer = &mut self.targets[target.0].balancer;
        if balancer.is_single() || !is_wanted {
            return;
        }
        if !attempt.is_slow {
            connection.state = State::Connecting(Attempt { is_slow: true, ..attempt });
            balancer.stalled(now, address, attempt.is_trial);
            self.exclude(attempt.request, address);
        }
        if let Some(choice) = self.choose(now, attempt.request) {
            self.take(now, attempt.request, choice);
        } else {
            let again_ns = now.mono_ns + time::ms(ATTEMPT_MS);
            self.lane_timers.set(lane.0.key, until_ns.min(again_ns));
        }
    }
}
