//! The requests of a connection that are not answered yet: one, or several if their order does not
//! matter.

use super::plan::Route;
use super::request_id::RequestId;
use crate::calls::pool::CallId;
use crate::heap;

#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) ticket: u64,
    /// Known once the request is in the pool of connections.
    pub(super) call: Option<CallId>,
    pub(super) route: Route,
    pub(super) backend: usize,
    pub(super) request: RequestId,
    pub(super) bytes: usize,
    pub(super) began_ns: u64,
    /// The same, or since when it was held behind others.
    pub(super) since_ns: u64,
}

/// Most connections have at most one, for which there is no allocation.
#[derive(Debug, Default)]
pub(super) struct Requests {
    first: Option<InFlight>,
    others: Vec<InFlight>,
}

impl Requests {
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    /// Bytes of the requests.
    pub(super) fn bytes(&self) -> usize {
        self.iter().map(|request| request.bytes).sum()
    }

    /// Memory for more than one.
    pub(super) fn cost(&self) -> usize {
        heap::table::<InFlight>(self.others.capacity())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.first.iter().chain(&self.others)
    }

    pub(super) fn push(&mut self, request: InFlight) {
        if self.first.is_none() {
            self.first = Some(request);
        } else {
            self.others.push(request);
        }
    }

    pub(super) fn get_mut(&mut self, ticket: u64) -> Option<&mut InFlight> {
        self.first.iter_mut().chain(&mut self.others).find(|request| request.ticket == ticket)
    }

    pub(super) fn take(&mut self, ticket: u64) -> Option<InFlight> {
        let is_it = |request: &InFlight| request.ticket == ticket;
        if let Some(request) = self.first.take_if(|request| is_it(request)) {
            return Some(request);
        }
        let at = self.others.iter().position(is_it)?;
        let request = self.others.swap_remove(at);
        if self.others.is_empty() {
            self.others = Vec::new();
        }
        Some(request)
    }

    /// Takes any of them.
    pub(super) fn pop(&mut self) -> Option<InFlight> {
        self.first.take().or_else(|| self.others.pop())
    }
}
