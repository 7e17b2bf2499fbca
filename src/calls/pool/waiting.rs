//! Requests that wait for a connection, the oldest first.

use std::collections::VecDeque;

use super::{CallId, Class, Failure, Place, Pool, Request, TargetId};
use crate::engine::{HangUp, Now};
use crate::{heap, time};

/// Requests that have left are removed when there are more of them than of the others, and this.
const LEFT_MAX: usize = 64;

/// A queue. Requests that were cancelled stay in it until their turn.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<CallId>);

impl Waiting {
    pub(super) fn cost(&self) -> usize {
        heap::table::<CallId>(self.0.capacity())
    }
}

impl<A> Request<A> {
    /// Until when it waits for a target that cannot be reached.
    pub(super) fn held_until_ns(&self, hold_ms: u64) -> u64 {
        self.asked_ns + time::ms(hold_ms).saturating_sub(self.call.held_ns)
    }
}

impl<A: Copy> Pool<A> {
    /// The request of this class that waits for longest.
    pub(super) fn first_waiting(&mut self, target: TargetId, class: Class) -> Option<CallId> {
        let queue = &mut self.targets[target.0].queues[class as usize].0;
        while let Some(id) = queue.front() {
            let request = self.requests.find(id.0);
            if request.is_some_and(|request| request.place == Place::Waiting) {
                return Some(*id);
            }
            queue.pop_front();
        }
        // A burst must not keep its memory.
        if queue.capacity() > LEFT_MAX {
            *queue = VecDeque::new();
        }
        None
    }

    /// Puts a request into its queue, at the front if it has waited before. It waits for any
    /// address, also one that it has tried: those behind it may be able to use that one.
    pub(super) fn wait(&mut self, now: Now, id: CallId, is_first: bool) {
        let Some(request) = self.requests.find_mut(id.0) else { return };
        request.place = Place::Waiting;
        // Without descriptors, the same would happen again at once.
        if request.failure != Some(Failure::NotConnected(HangUp::Exhausted)) {
            request.tried.clear();
        }
        let patience_ns = request.asked_ns + time::ms(self.rules.connect_ms);
        let first_ns = request.held_until_ns(self.rules.hold_ms).max(patience_ns).max(now.mono_ns);
        let hold_ns = time::ms(self.rules.hold_ms);
        let until_ns = first_ns.min(request.call.deadline_ns.saturating_add(hold_ns));
        self.request_timers.set(id.0.key, until_ns);
        let (target, class) = (request.target, request.call.class);
        let queue = &mut self.targets[target.0].queues[class as usize].0;
        if queue.len() > 2 * self.unsent + LEFT_MAX {
            queue.retain(|id| self.requests.find(id.0).is_some());
        }
        if is_first {
            queue.push_front(id);
        } else {
            queue.push_back(id);
        }
    }

    /// Starts requests that wait for this target, as far as possible.
    pub(super) fn start_more(&mut self, now: Now, target: TargetId) {
        self.targets[target.0].retry_ns = None;
        for class in Class::ALL {
            while let Some(id) = self.first_waiting(target, class) {
                if !self.start(now, id) {
                    break;
                }
                // It is not waiting any more, so the queue drops it.
            }
        }
    }

    /// Starts requests after a connection of this target became idle. If there are no more
    /// connections, it may be closed for a target that has fewer.
    pub(super) fn start_next(&mut self, now: Now, target: TargetId) {
        if self.unsent > 0 && self.lanes.len() >= self.rules.connections {
            self.start_all(now, Some(target));
        } else {
            self.start_more(now, target);
        }
    }

    /// Starts requests of all targets, first those of targets with the fewest connections; the
    /// idle one of `target` does not count.
    pub(super) fn start_all(&mut self, now: Now, target: Option<TargetId>) {
        let mut order: Vec<(usize, bool, usize)> = Vec::with_capacity(self.targets.len());
        for (at, group) in self.targets.iter().enumerate() {
            let is_own = target == Some(TargetId(at));
            order.push((group.lanes.saturating_sub(usize::from(is_own)), !is_own, at));
        }
        order.sort_unstable();
        for (_, _, at) in order {
            self.start_more(now, TargetId(at));
        }
    }

    /// A request has waited for as long as it may, either at all or for a target that cannot be
    /// reached.
    pub(super) fn request_expired(&mut self, now: Now, id: CallId) {
        let Some(request) = self.requests.find(id.0) else { return };
        if request.place != Place::Waiting {
            return;
        }
        let hold_ns = time::ms(self.rules.hold_ms);
        let until_ns = request.call.deadline_ns.saturating_add(hold_ns);
        let balancer = &self.targets[request.target.0].balancer;
        let failure = if !balancer.is_known(now) {
            Some(request.failure.unwrap_or(Failure::NoConnection))
        } else if balancer.outage(now, &[]).is_some() {
            Some(request.failure.unwrap_or(Failure::Circuit))
        } else {
            (until_ns <= now.mono_ns).then_some(Failure::Unsent)
        };
        match failure {
            Some(failure) => self.end(id, Err(failure)),
            None => self.request_timers.set(id.0.key, until_ns),
        }
    }
}
