//! HTTP requests of the server's own: a pool of connections among those of the table, and whole
//! answers for whoever asked. What is asked and why is not known here.

use std::collections::{BTreeMap, VecDeque};

use super::Server;
use super::conn::Conn;
use super::pressure::Account;
use super::shared::Shared;
use crate::backend::Ask;
use crate::engine::{Action, HangUp, Id, Now};
use crate::pool::{CALL_BYTES, Call, CallId, Failure, Full, Lane, News, Order, Pool, Reply, Rules};
use crate::proto::http_client::Event;
use crate::time::Moment;
use crate::{heap, limits};

/// Who is told what became of a request. A new one is a row here and a line in
/// [`Server::tell_asker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// The gateway, by its ticket.
    Gateway(u64),
    /// `wspulse backend`.
    Backend(Ask),
}

/// Requests under way.
#[derive(Debug)]
pub(super) struct Calls {
    pool: Pool,
    lanes: BTreeMap<Id, Lane>,
    ids: BTreeMap<Lane, Id>,
    asked: BTreeMap<CallId, Asked>,
    told: VecDeque<Told>,
    /// Bytes of questions and answers.
    bytes: usize,
    counted: Account,
}

#[derive(Debug)]
struct Asked {
    asker: Asker,
    reply: Reply,
    /// What its request costs.
    question_bytes: usize,
}

impl Asked {
    fn cost(&self) -> usize {
        CALL_BYTES + heap::tree_entry::<(CallId, Self)>() + self.question_bytes + self.reply.cost()
    }
}

/// What became of a request, for who asked.
#[derive(Debug)]
struct Told {
    asker: Asker,
    /// None: it is on its way, on a connection that was opened for it.
    how: Option<Result<Reply, Failure>>,
}

impl Calls {
    pub(super) fn new() -> Self {
        let rules = Rules {
            per_target: limits::OWN_CONNECTIONS_PER_TARGET,
            connections: limits::OWN_CONNECTIONS,
            waiting: limits::OWN_REQUESTS_WAITING,
            connect_ms: limits::OWN_CONNECT_MS,
            idle_ms: limits::OWN_IDLE_MS,
        };
        Self {
            pool: Pool::new(rules),
            lanes: BTreeMap::new(),
            ids: BTreeMap::new(),
            asked: BTreeMap::new(),
            told: VecDeque::new(),
            bytes: 0,
            counted: Account::default(),
        }
    }

    /// Sends a request; the asker is told of its answer, or why there is none, exactly once.
    pub(super) fn ask(&mut self, call: Call, asker: Asker) -> Result<CallId, Full> {
        let question_bytes = call.bytes.cost();
        let id = self.pool.ask(call)?;
        let known = Asked { asker, reply: Reply::default(), question_bytes };
        self.bytes += known.cost();
        self.asked.insert(id, known);
        Ok(id)
    }

    /// Nobody wants the answer any more: its connection ends, and nobody is told.
    pub(super) fn forget(&mut self, id: CallId) {
        if let Some(asked) = self.asked.remove(&id) {
            self.bytes -= asked.cost();
            self.pool.forget(id);
        }
    }

    /// What it owns, as the account has it.
    pub(super) fn memory(&self) -> usize {
        self.counted.memory
    }

    /// What its tables of connections cost.
    pub(super) fn table_memory(&self) -> usize {
        let names = heap::tree_entry::<(Id, Lane)>() + heap::tree_entry::<(Lane, Id)>();
        self.pool.table_cost() + self.lanes.len() * names
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.pool.next_deadline()
    }

    pub(super) fn connected(&mut self, id: Id, how: Result<(), HangUp>) {
        if let Some(&lane) = self.lanes.get(&id) {
            let call = self.pool.call_of(lane).and_then(|call| self.asked.get(&call));
            if let Some(asked) = call.filter(|_| how.is_ok()) {
                self.told.push_back(Told { asker: asked.asker, how: None });
            }
            self.with_sink(|pool, sink| pool.connected(lane, how, sink));
        }
    }

    /// What that connection is to say.
    pub(super) fn render(&mut self, id: Id, out: &mut Vec<u8>) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.pool.render(lane, out);
        }
    }

    /// The kernel took so many bytes of what was just rendered.
    pub(super) fn kept(&mut self, id: Id, taken: usize) {
        if let Some(&lane) = self.lanes.get(&id).filter(|_| taken == 0) {
            self.pool.held(lane);
        }
    }

    /// The kernel took some of what was kept.
    pub(super) fn sent(&mut self, id: Id) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.pool.sent(lane);
        }
    }

    pub(super) fn received(&mut self, now: Now, id: Id, bytes: &[u8]) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.with_sink(|pool, sink| pool.received(now, lane, bytes, sink));
        }
    }

    pub(super) fn ended(&mut self, id: Id, how: HangUp) {
        if let Some(&lane) = self.lanes.get(&id) {
            self.with_sink(|pool, sink| pool.ended(lane, how, sink));
        }
    }

    pub(super) fn closed(&mut self, id: Id) {
        self.ended(id, HangUp::Reset);
        if let Some(lane) = self.lanes.remove(&id) {
            self.ids.remove(&lane);
            self.pool.closed(lane);
        }
    }

    fn fire(&mut self, now: Now) {
        if self.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.with_sink(|pool, sink| pool.fire(now, sink));
        }
    }

    /// Does something with the pool, and takes down what it tells.
    fn with_sink(&mut self, with: impl FnOnce(&mut Pool, &mut dyn FnMut(CallId, News<'_>))) {
        let Self { pool, asked, told, bytes, .. } = self;
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
                told.push_back(Told { asker, how: Some(how.map(|()| reply)) });
            }
        });
    }
}

impl Server {
    /// What of it is due.
    pub(super) fn fire_calls(&mut self, now: Now) {
        self.shared.calls.fire(now);
        self.tend(now);
    }

    /// Carries out what the pool wants, and tells askers; whether there was anything to tell.
    pub(super) fn tend_calls(&mut self, now: Now) -> bool {
        let mut has_told = false;
        loop {
            while let Some(Told { asker, how }) = self.shared.calls.told.pop_front() {
                self.tell_asker(now, asker, how);
                has_told = true;
            }
            let Some(order) = self.shared.calls.pool.poll(now) else { break };
            self.follow(now, order);
        }
        let Shared { calls, account, .. } = &mut self.shared;
        if calls.bytes != calls.counted.memory {
            account.update(&mut calls.counted, Account { memory: calls.bytes, queued: 0 });
        }
        has_told
    }

    fn follow(&mut self, now: Now, order: Order) {
        match order {
            Order::Connect(lane, target) => {
                let Some(id) = self.conns.insert(Conn::upstream(Moment::at(now.mono_ns))) else {
                    // The table is full beyond any limit that it could have.
                    let calls = &mut self.shared.calls;
                    let how = HangUp::Exhausted;
                    calls.with_sink(|pool, sink| pool.connected(lane, Err(how), sink));
                    return calls.pool.closed(lane);
                };
                self.shared.open.upstream += 1;
                self.shared.calls.lanes.insert(id, lane);
                self.shared.calls.ids.insert(lane, id);
                self.shared.actions.push_back(Action::Connect(id, target));
            }
            Order::Write(lane) => {
                let id = self.shared.calls.ids.get(&lane).copied();
                self.shared.actions.extend(id.map(Action::Write));
            }
            Order::Close(lane) => {
                let Some(&id) = self.shared.calls.ids.get(&lane) else { return };
                let waits = self.conns.find(id).is_some_and(|conn| !conn.unsent().is_empty());
                // What nobody wants to hear any more is not worth waiting for.
                let action = if waits { Action::Reset(id) } else { Action::Close(id) };
                self.shared.actions.push_back(action);
            }
        }
    }

    /// Hands over what became of a request.
    fn tell_asker(&mut self, now: Now, asker: Asker, how: Option<Result<Reply, Failure>>) {
        match (asker, how) {
            (Asker::Gateway(ticket), Some(how)) => self.tell_gateway(now, ticket, how),
            (Asker::Gateway(ticket), None) => {
                if let Some(gateway) = &mut self.shared.gateway.inner {
                    gateway.reached(ticket);
                }
            }
            (Asker::Backend(ask), Some(how)) => self.tell_backend(now, ask, &how),
            // It does not matter to it when a connection comes about.
            (Asker::Backend(_), None) => {}
        }
    }
}
