//! The load generator: many WebSocket clients as one [`Engine`]. Clients connect, upgrade, send
//! messages, check the answers, and close. Also used by the benchmark and the simulation. It knows
//! no socket and no clock.

mod backlog;
mod client;
mod deflate;
mod hdr;
mod histogram;
mod json;
mod merge;
mod outcome;
mod page;
mod payloads;
mod plan;
mod reconnect;
mod report;
mod summary;

pub use deflate::OFFER;
pub use histogram::Histogram;
pub use merge::{NoReport, merge};
pub use outcome::{ConnectError, Outcome};
pub use payloads::padding;
pub use plan::{Answers, Life, Pace, Plan, ServerKind, Thresholds, WhenLost};
pub use report::{Report, ServerStats, Usage};
pub use summary::Summary;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::engine::{Action, Engine, HangUp, Id, Now, Out, Signal, Status};
use crate::limits;
use crate::proto::deflate::Codec;
use crate::rng::Rng;
use crate::slab::Slab;
use crate::time;
use crate::timers::Timers;
use backlog::Backlog;
use client::{Client, Cx};
use payloads::Payloads;
use reconnect::Reconnects;

/// Connection attempts in progress at a time.
const CONNECTING_MAX: usize = 64;

/// How long a client that still has messages to send tries to reconnect, without a time limit.
const RECONNECT_MS: u64 = 60_000;

/// How long answers are awaited after the last message; less if `--timeout` is shorter.
const LAST_ANSWERS_MS: u64 = 10_000;

/// How long after the end messages are sent that were due before it and are late.
const LATE_MS: u64 = 1_000;

/// The load generator.
#[derive(Debug)]
pub struct Load {
    clients: Slab<Client>,
    /// The number of the next client; payloads contain it.
    next_number: u64,
    phase: Phase,
    progress: Progress,
    shared: Shared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No input yet, so the time is unknown.
    New,
    /// The start is at a given time.
    Waiting {
        start_ns: u64,
    },
    Going {
        began_ns: u64,
        /// When the last client was started: time limits count from then on.
        all_ns: Option<u64>,
    },
    /// No further messages; clients close once they have all answers.
    Concluding {
        /// Then all of them close.
        until_ns: u64,
    },
    /// All clients close.
    Stopping,
    Ended,
}

#[derive(Debug, Default)]
struct Progress {
    due_ns: Option<u64>,
    /// Answers at the last line.
    answered: u64,
}

/// State that all clients share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    payloads: Payloads,
    codec: Codec,
    rng: Rng,
    timers: Timers,
    /// When messages are due with `Pace::Open`: the ticks of the timer wheel are too long for it.
    schedule: BinaryHeap<Reverse<(u64, Id)>>,
    /// When the test ends and no message is due any more, as far as that is known.
    until_ns: u64,
    /// Messages of each client; 0 once the test has ended.
    messages: u64,
    /// Whether a client closes when all of its messages are answered.
    ends_with_answers: bool,
    reconnects: Reconnects,
    /// What clients left that will not reconnect.
    left: Vec<Backlog>,
    /// Connection attempts in progress.
    connecting: usize,
    /// The index of the target that accepted a connection last.
    target: usize,
    actions: VecDeque<Action>,
    report: Report,
}

impl Shared {
    /// Counts an open connection; returns the index of its server in the report.
    fn count_open(&mut self, number: u64, served_by: Option<String>, now: Now) -> usize {
        let report = &mut self.report;
        report.opened += 1;
        report.last_ns = now.mono_ns;
        if let Some(gone_ns) = self.reconnects.opened(number, now) {
            report.downtime.record(gone_ns);
        } else {
            report.connected += 1;
            report.opened_ns = now.mono_ns;
        }
        report.count_server(served_by)
    }
}

impl Load {
    /// The seed is for masks, keys and jitter.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let payloads = Payloads::new(&plan);
        // Without a time limit, the run must still end when the server never comes back.
        let patience_ms = plan.time_limit_ms().map_or(RECONNECT_MS, |_| u64::MAX);
        let reconnects = match plan.when_lost {
            WhenLost::Leave => Reconnects::default(),
            WhenLost::Reconnect => Reconnects::new(plan.clients, time::ms(patience_ms)),
        };
        let shared = Shared {
            until_ns: u64::MAX,
            messages: plan.messages(),
            ends_with_answers: plan.ends_with_the_last_answer(),
            left: Vec::new(),
            plan,
            payloads,
            codec: Codec::default(),
            rng: Rng::new(seed),
            timers: Timers::default(),
            schedule: BinaryHeap::new(),
            reconnects,
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

    /// The measurements so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.shared.report
    }

    /// The plan being run.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Clients that are connected or connecting.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Armed timers, for tests.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.shared.timers.armed()
    }

    /// Whether the test has begun, and its end is still to come.
    #[must_use]
    pub fn is_sending(&self) -> bool {
        matches!(self.phase, Phase::Going { .. })
    }

    /// Whether the test has ended, and clients only finish.
    fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Concluding { .. } | Phase::Stopping | Phase::Ended)
    }

    /// The number of clients that should have started by now, and when the next one should.
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

    /// Starts connections while the plan requires more.
    fn connect_more(&mut self, now: Now) {
        let (begun, _) = self.ramp(now.mono_ns);
        while self.shared.connecting < CONNECTING_MAX
            && self.clients.len() < self.shared.plan.clients
            && self.next_number < begun
            && self.is_sending()
        {
            let target = self.shared.target;
            if !self.connect(now, Client::new(self.next_number, target, Backlog::default())) {
                return;
            }
            self.next_number += 1;
            self.shared.report.begun += 1;
        }
        if let Phase::Going { all_ns, .. } = &mut self.phase
            && self.next_number >= self.shared.plan.connections()
            && all_ns.is_none()
        {
            *all_ns = Some(now.mono_ns);
            self.shared.until_ns = self.end().unwrap_or(u64::MAX);
        }
    }

    /// Starts a connection; false when the table of clients is full.
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

    /// The test ends: no further messages, and the last answers have a while to arrive.
    fn conclude(&mut self, now: Now) {
        let wait_ms = self.shared.plan.patience_ms.min(LAST_ANSWERS_MS);
        self.shared.until_ns = self.shared.until_ns.min(now.mono_ns);
        let Shared { plan, until_ns, report, .. } = &mut self.shared;
        for (_, client) in self.clients.iter().filter(|(_, client)| client.is_free()) {
            client.backlog().settle_lag(plan, *until_ns, now.mono_ns, report);
        }
        (self.shared.messages, self.shared.ends_with_answers) = (0, true);
        self.wake_all(now, Phase::Concluding { until_ns: now.mono_ns + time::ms(wait_ms) });
    }

    /// Each client acts as the next phase requires.
    fn wake_all(&mut self, now: Now, phase: Phase) {
        self.phase = phase;
        for (id, _) in self.clients.iter() {
            self.shared.actions.push_back(Action::Write(id));
        }
        self.exit_if_done(now);
    }

    fn exit_if_done(&mut self, now: Now) {
        let all_begun = self.next_number >= self.shared.plan.connections();
        let all_back = self.shared.reconnects.waiting() == 0;
        if self.clients.is_empty() && (self.is_ending() || all_begun && all_back) {
            self.exit(now);
        }
    }

    fn exit(&mut self, now: Now) {
        if self.phase == Phase::Ended {
            return;
        }
        self.phase = Phase::Ended;
        let Shared { report, reconnects, left, plan, until_ns, .. } = &mut self.shared;
        for (_, client) in self.clients.iter() {
            report.unanswered += client.in_flight();
            report.repeated += client.repeated();
            left.push(client.backlog());
        }
        left.extend(reconnects.backlogs());
        *until_ns = (*until_ns).min(now.mono_ns);
        for backlog in left.drain(..) {
            backlog.settle(plan.pace, plan.messages(), *until_ns, now.mono_ns, report);
        }
        report.due = report.sent - report.repeated + report.unsent;
        report.until_ns = match plan.life {
            Life::Time { .. } => *until_ns,
            Life::Messages(_) | Life::Hold { .. } | Life::Churn { .. } => {
                report.last_ns.max(report.due_ns)
            }
        };
        report.storm_peak = reconnects.peak();
        report.still_down = 0;
        for since_ns in reconnects.still_down() {
            report.still_down += 1;
            report.downtime.record(now.mono_ns.saturating_sub(since_ns));
        }
        self.shared.actions.push_back(Action::Exit(0));
    }

    /// A connection has ended: the client tries the next target, reconnects, or is done.
    fn count(&mut self, now: Now, client: &Client) {
        let (number, outcome) = (client.number(), client.outcome());
        let not_accepted = matches!(
            outcome,
            Outcome::NotConnected(
                ConnectError::Refused
                    | ConnectError::Unreachable
                    | ConnectError::TimedOut
                    | ConnectError::Exhausted
            )
        );
        let next = client.target() + 1;
        if not_accepted && !self.is_ending() && next < self.shared.plan.targets.len() {
            self.connect(now, Client::new(number, next, client.backlog()));
            return;
        }
        let Shared { report, reconnects, rng, plan, left, .. } = &mut self.shared;
        let ((lost, unanswered), backlog) = (client.missing(), client.backlog());
        report.lost += lost;
        report.unanswered += unanswered;
        report.repeated += client.repeated();
        let is_retry = reconnects.is_down(number);
        let all_answered = backlog.answered >= plan.messages() && plan.ends_with_the_last_answer();
        if all_answered || matches!(outcome, Outcome::Closed(_)) {
            reconnects.done(number);
            left.extend(Some(backlog).filter(|_| !all_answered));
        } else {
            let since_ns = client.ended_ns().unwrap_or(now.mono_ns);
            left.extend(reconnects.lost(number, backlog, since_ns, now, rng));
        }
        if is_retry && outcome.code().is_none() {
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

    /// The first turn, or the time to start: the test begins.
    fn begin(&mut self, now: Now) {
        let wait_ms = match (self.phase, self.shared.plan.start_ms) {
            (Phase::New, Some(start_ms)) => start_ms.saturating_sub(now.wall_ms),
            (Phase::New, None) => 0,
            (Phase::Waiting { start_ns }, _) if start_ns <= now.mono_ns => 0,
            _ => return,
        };
        let report = &mut self.shared.report;
        (report.began_ns, report.began_ms) = (now.mono_ns, now.wall_ms);
        (report.opened_ns, report.last_ns) = (now.mono_ns, now.mono_ns);
        self.phase = match u64::try_from(wait_ms) {
            Ok(ms @ 1..) => Phase::Waiting { start_ns: now.mono_ns.saturating_add(time::ms(ms)) },
            _ => Phase::Going { began_ns: now.mono_ns, all_ns: None },
        };
    }
}

impl Engine for Load {
    fn measures(&self) -> bool {
        true
    }

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
        let stopped = self.phase == Phase::Stopping;
        if let Some((client, mut cx)) = self.with(now, id, out) {
            client.received(n, shared, &mut cx);
            if stopped {
                client.close(&mut cx);
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
        if self.clients.find_mut(id).is_some_and(|client| client.sent(n)) {
            self.shared.actions.push_back(Action::Write(id));
        }
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        let phase = self.phase;
        if let Some((client, mut cx)) = self.with(now, id, out) {
            match phase {
                Phase::New | Phase::Waiting { .. } | Phase::Going { .. } => {}
                Phase::Concluding { .. } => client.conclude(&mut cx),
                Phase::Stopping | Phase::Ended => client.close(&mut cx),
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
        self.count(now, &client);
        self.connect_more(now);
        self.exit_if_done(now);
    }

    fn fire(&mut self, now: Now) {
        self.begin(now);
        match self.phase {
            Phase::Concluding { until_ns } if until_ns <= now.mono_ns => {
                self.wake_all(now, Phase::Stopping);
            }
            Phase::Going { .. } if self.end().is_some_and(|end_ns| self.is_over(end_ns, now)) => {
                self.conclude(now);
            }
            Phase::New
            | Phase::Waiting { .. }
            | Phase::Going { .. }
            | Phase::Concluding { .. }
            | Phase::Stopping
            | Phase::Ended => {}
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
            let Some(number) = self.shared.reconnects.due(now) else { break };
            if !self.is_ending() {
                let earlier = self.shared.reconnects.take_backlog(number);
                self.connect(now, Client::new(number, self.shared.target, earlier));
            }
        }
        self.connect_more(now);
        self.show_progress(now);
        self.exit_if_done(now);
    }

    fn signal(&mut self, now: Now, signal: Signal) {
        match signal {
            Signal::Stop => {
                self.shared.report.interrupted = true;
                if self.is_ending() {
                    // The second signal does not wait for answers and close handshakes.
                    self.exit(now);
                } else {
                    self.conclude(now);
                }
            }
            Signal::Report | Signal::Reload => {}
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let (began_ns, end_ns) = match self.phase {
            Phase::Going { began_ns, .. } => (began_ns, self.end()),
            Phase::New => return Some(0),
            Phase::Waiting { start_ns } => return Some(start_ns),
            Phase::Concluding { until_ns } => {
                return self.shared.timers.next_deadline().into_iter().chain([until_ns]).min();
            }
            Phase::Stopping | Phase::Ended => return self.shared.timers.next_deadline(),
        };
        let room = self.shared.connecting < CONNECTING_MAX
            && self.clients.len() < self.shared.plan.clients;
        let ramp = self.ramp(began_ns).1.filter(|_| room);
        let due = self.shared.schedule.peek().map(|Reverse((due_ns, _))| *due_ns);
        let others = [end_ns, self.shared.reconnects.next_deadline(), ramp, due];
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
    /// When the test ends.
    fn end(&self) -> Option<u64> {
        let Phase::Going { all_ns, .. } = self.phase else { return None };
        Some(all_ns? + time::ms(self.shared.plan.time_limit_ms()?))
    }

    /// Whether the end has come, and what was due before it was sent, unless that takes too long.
    fn is_over(&self, end_ns: u64, now: Now) -> bool {
        let late = self.shared.schedule.peek().is_some_and(|Reverse((due_ns, _))| *due_ns < end_ns);
        end_ns + if late { time::ms(LATE_MS) } else { 0 } <= now.mono_ns
    }
}

#[cfg(test)]
mod tests;
