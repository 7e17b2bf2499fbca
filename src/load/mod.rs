//! Many WebSocket clients on the same contract as the server: connect, upgrade, keep so many
//! messages in flight, compare every answer, close. It generates the benchmark's load and is the
//! population of the simulation. It knows no socket and no clock.

mod client;
mod plan;
mod pressed;
mod report;
mod words;

pub use plan::{Life, Partner, Plan};
pub use report::{Outcome, Report, Why};
pub use words::padding;

use std::collections::VecDeque;

use crate::engine::{
    Action, Door, Engine, File, HangUp, Id, Now, Out, Peer, Shortage, Signal, Source, Standing,
    Target,
};
use crate::limits;
use crate::proto::deflate::Codec;
use crate::rng::Rng;
use crate::slab::Slab;
use crate::time;
use crate::timers::Timers;
use client::{Client, Cx};
use words::Words;

/// Connections begun in one go; the rest follow as these stand.
const CONNECTS_AT_ONCE: usize = 64;

/// Many clients.
#[derive(Debug)]
pub struct Load {
    clients: Slab<Client>,
    /// The number of the next client: its name in its payloads.
    next_number: u64,
    connecting: usize,
    began_ns: Option<u64>,
    /// When a time limit has told all clients to close.
    stopped: bool,
    shared: Shared,
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    words: Words,
    codec: Codec,
    rng: Rng,
    timers: Timers,
    actions: VecDeque<Action>,
    report: Report,
}

impl Load {
    /// Clients that carry out this plan. The seed is for masks and keys.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let words = Words::new(&plan);
        let shared = Shared {
            plan,
            words,
            codec: Codec::default(),
            rng: Rng::new(seed),
            timers: Timers::default(),
            actions: VecDeque::new(),
            report: Report::default(),
        };
        let mut load = Self {
            clients: Slab::default(),
            next_number: 0,
            connecting: 0,
            began_ns: None,
            stopped: false,
            shared,
        };
        load.connect_more();
        load
    }

    /// What came of it so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.shared.report
    }

    /// Clients that are connected or about to be.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Timers that are set.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.shared.timers.armed()
    }

    /// Begins connections while the plan wants more.
    fn connect_more(&mut self) {
        while self.connecting < CONNECTS_AT_ONCE
            && self.clients.len() < self.shared.plan.clients
            && self.next_number < self.shared.plan.connections()
            && !self.stopped
        {
            let Some(id) = self.clients.insert(Client::new(self.next_number)) else { return };
            self.next_number += 1;
            self.connecting += 1;
            self.shared
                .actions
                .push_back(Action::Connect(id, Target::Tcp(self.shared.plan.target)));
        }
    }

    fn with<'s>(
        &'s mut self,
        now: Now,
        id: Id,
        out: &'s mut Out,
    ) -> Option<(&'s mut Client, Cx<'s>)> {
        let client = self.clients.find_mut(id)?;
        Some((client, Cx { now, id, shared: &mut self.shared, out }))
    }

    /// Time is up: everyone says goodbye.
    fn stop(&mut self) {
        self.stopped = true;
        for (id, _) in self.clients.iter() {
            self.shared.actions.push_back(Action::Write(id));
        }
        self.exit_if_done();
    }

    fn exit_if_done(&mut self) {
        let all_begun = self.stopped || self.next_number >= self.shared.plan.connections();
        if self.clients.is_empty() && all_begun {
            self.shared.actions.push_back(Action::Exit(0));
        }
    }
}

impl Engine for Load {
    fn accepted(&mut self, _: Now, _: Door, _: Peer) -> Option<Id> {
        None
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        self.connecting -= 1;
        self.began_ns.get_or_insert(now.mono_ns);
        if let Some((client, mut cx)) = self.with(now, id, out) {
            client.connected(how, &mut cx);
        }
        self.connect_more();
    }

    fn turned_away(&mut self, _: Now, _: Shortage) -> &[u8] {
        &[]
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        self.clients.find_mut(id).map_or(&mut [], |client| client.room(shared))
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        let stopped = self.stopped;
        if let Some((client, mut cx)) = self.with(now, id, out) {
            client.received(n, shared, &mut cx);
            if stopped {
                client.say_goodbye(&mut cx);
            }
        }
    }

    fn resume(&mut self, _: Now, _: Id, _: &mut [u8], _: &mut Out) {}

    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out) {
        if let Some((client, mut cx)) = self.with(now, id, out) {
            client.ended(how, &mut cx);
        }
    }

    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        if let Some((client, mut cx)) = self.with(now, id, out) {
            client.keep(shared, taken, &mut cx);
        }
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.clients.find(id).map_or(&[], Client::unsent)
    }

    fn sent(&mut self, _: Now, id: Id, n: usize) {
        if let Some(client) = self.clients.find_mut(id) {
            client.sent(n);
        }
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        let stopped = self.stopped;
        if let Some((client, mut cx)) = self.with(now, id, out) {
            if stopped {
                client.say_goodbye(&mut cx);
            }
            client.wake(&mut cx);
        }
    }

    fn closed(&mut self, now: Now, id: Id) {
        let Some(client) = self.clients.remove(id) else { return };
        self.shared.timers.cancel(id.key);
        self.shared.report.count_end(client.outcome());
        log::debug!(
            target: "client", client = client.number(), outcome:? = client.outcome(),
            at_ms = now.mono_ms();
            "ended"
        );
        self.connect_more();
        self.exit_if_done();
    }

    fn fire(&mut self, now: Now) {
        if self.deadline().is_some_and(|due| due <= now.mono_ns) {
            self.stop();
        }
        for _ in 0..limits::TIMERS_PER_TURN {
            let Some(key) = self.shared.timers.expire(now.mono_ns) else { break };
            if let Some(id) = self.clients.id_at(key) {
                self.shared.actions.push_back(Action::Write(id));
            }
        }
    }

    fn signal(&mut self, _: Now, signal: Signal) {
        match signal {
            Signal::Stop => self.stop(),
            Signal::Report | Signal::Reload => {}
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        self.shared.timers.next_deadline().into_iter().chain(self.deadline()).min()
    }

    fn doors_closed(&mut self, _: Now) {}

    fn fetched(&mut self, _: Now, _: Source, _: Vec<File>) {}

    fn standing(&self) -> Standing {
        Standing { connections: self.clients.len(), ..Standing::default() }
    }

    fn poll(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }
}

impl Load {
    fn deadline(&self) -> Option<u64> {
        if self.stopped {
            return None;
        }
        Some(self.began_ns? + time::ms(self.shared.plan.time_limit_ms()?))
    }
}
