//! Many WebSocket clients on the same contract as the server: connect, upgrade, keep so many
//! messages in flight, compare every answer, close. It generates the benchmark's load and is the
//! population of the simulation. It knows no socket and no clock.

mod client;
mod histogram;
mod page;
mod plan;
mod pressed;
mod reconnect;
mod report;
mod words;

pub use histogram::Histogram;
pub use page::{json, page};
pub use plan::{Answers, Life, Pace, Partner, Plan, Thresholds, WhenLost};
pub use report::{Missed, Outcome, Report, Served, Why};
pub use words::padding;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::engine::{Action, Engine, HangUp, Id, Now, Out, Signal, Status};
use crate::limits;
use crate::proto::deflate::Codec;
use crate::rng::Rng;
use crate::slab::Slab;
use crate::time;
use crate::timers::Timers;
use client::{Client, Cx};
use reconnect::Returns;
use words::Words;

/// Connections begun in one go; the rest follow as these stand.
const CONNECTS_AT_ONCE: usize = 64;

/// A client that has something left to say tries to come back for so long.
const GONE_MS: u64 = 60_000;

/// Many clients.
#[derive(Debug)]
pub struct Load {
    clients: Slab<Client>,
    /// The number of the next client: its name in its payloads.
    next_number: u64,
    phase: Phase,
    progress: Progress,
    shared: Shared,
}

/// How far all of them together are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has told the time.
    New,
    Going {
        began_ns: u64,
        /// When the last client had its turn to begin: from then on time limits count.
        all_ns: Option<u64>,
    },
    /// All clients are told to close.
    Stopping,
}

/// The line of progress.
#[derive(Debug, Default)]
struct Progress {
    due_ns: Option<u64>,
    /// Answers at the last line.
    answered: u64,
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    words: Words,
    codec: Codec,
    rng: Rng,
    timers: Timers,
    /// When messages are due, if a clock sets the pace. The wheel's ticks are too long for that.
    schedule: BinaryHeap<Reverse<(u64, Id)>>,
    returns: Returns,
    /// Connections that are begun and do not stand.
    connecting: usize,
    /// The target that somebody was found at.
    target: usize,
    actions: VecDeque<Action>,
    report: Report,
}

impl Shared {
    /// A client's connection is open; returns who serves, by their place in the report.
    fn count_open(&mut self, number: u64, served_by: Option<String>, now: Now) -> usize {
        let report = &mut self.report;
        report.opened += 1;
        report.last_ns = now.mono_ns;
        if let Some(gone_ns) = self.returns.opened(number, now) {
            report.downtime.record(gone_ns);
        } else {
            report.connected += 1;
            report.opened_ns = now.mono_ns;
        }
        report.count_server(served_by)
    }
}

impl Load {
    /// Clients that carry out this plan. The seed is for masks, keys and jitter.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let words = Words::new(&plan);
        // Without a time limit it must end nevertheless when the server never comes back.
        let patience_ms = plan.time_limit_ms().map_or(GONE_MS, |_| u64::MAX);
        let returns = match plan.when_lost {
            WhenLost::Leave => Returns::default(),
            WhenLost::Reconnect => Returns::new(plan.clients, time::ms(patience_ms)),
        };
        let shared = Shared {
            plan,
            words,
            codec: Codec::default(),
            rng: Rng::new(seed),
            timers: Timers::default(),
            schedule: BinaryHeap::new(),
            returns,
            connecting: 0,
            target: 0,
            actions: VecDeque::new(),
            report: Report::default(),
        };
        Self {
            clients: Slab::default(),
            next_number: 0,
            phase: Phase::New,
            progress: Progress::default(),
            shared,
        }
    }

    /// What came of it so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.shared.report
    }

    /// What the clients do.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.shared.plan
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

    fn is_stopping(&self) -> bool {
        self.phase == Phase::Stopping
    }

    /// Clients that should have begun by now, and when the next one should.
    fn ramp(&self, now_ns: u64) -> (u64, Option<u64>) {
        let all = self.shared.plan.connections();
        let (Some(per_second), Phase::Going { began_ns, .. }) = (self.shared.plan.ramp, self.phase)
        else {
            return (all, None);
        };
        let gone_ns = u128::from(now_ns.saturating_sub(began_ns));
        let begun = 1 + gone_ns * u128::from(per_second) / 1_000_000_000;
        let begun = u64::try_from(begun).unwrap_or(u64::MAX).min(all);
        let next_ns = u128::from(self.next_number) * 1_000_000_000;
        let next_ns = next_ns.div_ceil(u128::from(per_second.max(1)));
        let next_ns = began_ns.saturating_add(u64::try_from(next_ns).unwrap_or(u64::MAX));
        (begun, (self.next_number < all).then_some(next_ns))
    }

    /// Begins connections while the plan wants more.
    fn connect_more(&mut self, now: Now) {
        let (begun, _) = self.ramp(now.mono_ns);
        while self.shared.connecting < CONNECTS_AT_ONCE
            && self.clients.len() < self.shared.plan.clients
            && self.next_number < begun
            && !self.is_stopping()
        {
            let target = self.shared.target;
            if !self.connect(now, Client::new(self.next_number, target, 0)) {
                return;
            }
            self.next_number += 1;
            self.shared.report.begun += 1;
        }
        if let Phase::Going { all_ns, .. } = &mut self.phase
            && self.next_number >= self.shared.plan.connections()
        {
            all_ns.get_or_insert(now.mono_ns);
        }
    }

    /// Begins a connection; false when there is no place for it.
    fn connect(&mut self, now: Now, client: Client) -> bool {
        let target = self.shared.plan.targets.get(client.target()).cloned();
        let (Some(target), Some(id)) = (target, self.clients.insert(client)) else { return false };
        if let Some((client, mut cx)) = self.with(now, id, &mut Out::default()) {
            client.begin(&mut cx);
        }
        self.shared.actions.push_back(Action::Connect(id, target));
        true
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
    fn stop(&mut self, now: Now) {
        self.phase = Phase::Stopping;
        for (id, _) in self.clients.iter() {
            self.shared.actions.push_back(Action::Write(id));
        }
        self.exit_if_done(now);
    }

    fn exit_if_done(&mut self, now: Now) {
        let all_begun = self.next_number >= self.shared.plan.connections();
        let all_back = self.shared.returns.waiting() == 0;
        if self.clients.is_empty() && (self.is_stopping() || all_begun && all_back) {
            self.exit(now);
        }
    }

    fn exit(&mut self, now: Now) {
        let Shared { report, returns, .. } = &mut self.shared;
        report.storm_peak = returns.peak();
        report.still_down = 0;
        for since_ns in returns.still_down() {
            report.still_down += 1;
            report.downtime.record(now.mono_ns.saturating_sub(since_ns));
        }
        self.shared.actions.push_back(Action::Exit(0));
    }

    /// A connection is over: the next target is tried, or the client comes back, or it is done.
    fn conclude(&mut self, now: Now, client: &Client) {
        let (number, outcome) = (client.number(), client.outcome());
        let nobody = matches!(
            outcome,
            Outcome::NotConnected(Why::Refused | Why::Unreachable | Why::TimedOut | Why::Exhausted)
        );
        let next = client.target() + 1;
        if nobody && !self.is_stopping() && next < self.shared.plan.targets.len() {
            self.connect(now, Client::new(number, next, client.answered()));
            return;
        }
        let Shared { report, returns, rng, plan, .. } = &mut self.shared;
        report.lost += client.lost();
        let was_there = returns.is_down(number);
        let said_all = client.answered() >= plan.messages() && plan.ends_with_the_last_answer();
        if said_all || matches!(outcome, Outcome::Closed(_)) {
            returns.done(number);
        } else {
            let since_ns = client.ended_ns().unwrap_or(now.mono_ns);
            returns.lost(number, client.answered(), since_ns, now, rng);
        }
        if was_there && outcome.code().is_none() {
            report.count_attempt(outcome);
        } else {
            report.count_end(outcome);
        }
    }

    fn show_progress(&mut self, now: Now) {
        let Some(every_ms) = self.shared.plan.progress_ms else { return };
        let due_ns = *self.progress.due_ns.get_or_insert_with(|| now.mono_ns + time::ms(every_ms));
        if due_ns > now.mono_ns {
            return;
        }
        let report = &self.shared.report;
        let text = page::progress(report, self.clients.len(), now.mono_ns, self.progress.answered);
        self.progress.answered = report.answered;
        self.progress.due_ns = Some(now.mono_ns + time::ms(every_ms));
        self.shared.actions.push_back(Action::Show(text));
    }

    /// The first turn: from here on time counts.
    fn begin(&mut self, now: Now) {
        if self.phase == Phase::New {
            self.phase = Phase::Going { began_ns: now.mono_ns, all_ns: None };
            let report = &mut self.shared.report;
            (report.began_ns, report.opened_ns) = (now.mono_ns, now.mono_ns);
            report.last_ns = now.mono_ns;
        }
    }
}

impl Engine for Load {
    const MEASURES: bool = true;

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        if let Some((client, mut cx)) = self.with(now, id, out) {
            client.connected(how, &mut cx);
        }
        self.connect_more(now);
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        self.clients.find_mut(id).map_or(&mut [], |client| client.room(shared))
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        let stopped = self.is_stopping();
        if let Some((client, mut cx)) = self.with(now, id, out) {
            client.received(n, shared, &mut cx);
            if stopped {
                client.say_goodbye(&mut cx);
            }
        }
    }

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
        let stopped = self.is_stopping();
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
        log::debug!(
            target: "client", client = client.number(), outcome:? = client.outcome(),
            at_ms = now.mono_ms();
            "ended"
        );
        self.conclude(now, &client);
        self.connect_more(now);
        self.exit_if_done(now);
    }

    fn fire(&mut self, now: Now) {
        self.begin(now);
        if self.deadline().is_some_and(|due| due <= now.mono_ns) {
            self.stop(now);
        }
        for _ in 0..limits::TIMERS_AT_ONCE {
            let Some(key) = self.shared.timers.expire(now.mono_ns) else { break };
            if let Some(id) = self.clients.id_at(key) {
                self.shared.actions.push_back(Action::Write(id));
            }
        }
        for _ in 0..limits::TIMERS_AT_ONCE {
            let Some(Reverse((due_ns, id))) = self.shared.schedule.peek().copied() else { break };
            if due_ns > now.mono_ns {
                break;
            }
            self.shared.schedule.pop();
            self.shared.actions.push_back(Action::Write(id));
        }
        for _ in 0..limits::TIMERS_AT_ONCE {
            let Some(number) = self.shared.returns.due(now) else { break };
            if !self.is_stopping() {
                let answered = self.shared.returns.answered(number);
                self.connect(now, Client::new(number, self.shared.target, answered));
            }
        }
        self.connect_more(now);
        self.show_progress(now);
        self.exit_if_done(now);
    }

    fn signal(&mut self, now: Now, signal: Signal) {
        match signal {
            // Whoever asks twice does not want to wait for the servers' goodbyes.
            Signal::Stop if self.is_stopping() => self.exit(now),
            Signal::Stop => self.stop(now),
            Signal::Report | Signal::Reload => {}
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let Phase::Going { began_ns, .. } = self.phase else {
            let first = if self.phase == Phase::New { Some(0) } else { None };
            return first.into_iter().chain(self.shared.timers.next_deadline()).min();
        };
        let room = self.shared.connecting < CONNECTS_AT_ONCE
            && self.clients.len() < self.shared.plan.clients;
        let ramp = self.ramp(began_ns).1.filter(|_| room);
        let due = self.shared.schedule.peek().map(|Reverse((due_ns, _))| *due_ns);
        let others = [self.deadline(), self.shared.returns.next_deadline(), ramp, due];
        let others = others.into_iter().chain([self.progress.due_ns]).flatten();
        others.chain(self.shared.timers.next_deadline()).min()
    }

    fn status(&self) -> Status {
        Status { connections: self.clients.len(), ..Status::default() }
    }

    fn poll(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }
}

impl Load {
    /// When all are told to close.
    fn deadline(&self) -> Option<u64> {
        let Phase::Going { all_ns, .. } = self.phase else { return None };
        Some(all_ns? + time::ms(self.shared.plan.time_limit_ms()?))
    }
}
