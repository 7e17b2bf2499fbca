//! `wspulse probe`: finds out by experiment what a path does to WebSockets, and which hop does it.
//! An [`Engine`](crate::engine::Engine) that knows no socket and no clock. Each experiment is one
//! file in `experiments/`: a script that collects evidence, and a function that judges it.
//! `habits` is the table of what hops do and how to change it; `report` prints the outcome.

mod driven;
mod experiments;
mod facts;
mod h2;
mod habits;
mod path;
mod report;
mod wire;

use std::collections::VecDeque;

use crate::engine::{Action, Id, Now, Target};
use crate::proto::deflate::Codec;
use crate::proto::upgrade::Ask;
use crate::rng::Rng;
use crate::slab::Slab;
use crate::time;
use experiments::{Experiment, Wave};
use facts::Facts;
pub use path::Hop;
pub use report::{Finding, Outcome, Report, Severity, Verdict};
use wire::{Event, Purpose, Wire};

const INTERRUPTED: &str = "interrupted";
/// How often this process checks how late it is.
const BEAT_MS: u64 = 50;

/// What to ask, and of whom.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The server; further ones are not tried.
    pub target: Target,
    /// The URL, for the report.
    pub url: String,
    /// The upgrade request of the user.
    pub ask: Ask,
    /// The host name, if it is to be resolved by us: not through a proxy, and no address.
    pub name: Option<(Box<str>, u16)>,
    /// Only experiments that need no waiting.
    pub quick: bool,
    /// How long idle sockets are watched.
    pub patience_ms: u64,
    /// The far end is some echo server.
    pub any: bool,
    /// Sockets that are opened at once.
    pub sockets: usize,
    /// The admin listener to drain.
    pub drain: Option<Drain>,
    /// Whether standard error is a terminal.
    pub live: bool,
}

/// Where to begin a drain.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The admin listener.
    pub target: Target,
    /// The `Host` field.
    pub host: String,
    /// The path.
    pub path: String,
}

/// The probe.
#[derive(Debug)]
pub struct Probe {
    slots: Vec<Slot>,
    shared: Shared,
    interrupted: bool,
    ended: bool,
    /// When this process wants to run next only to see whether it can.
    beat_ns: u64,
}

/// An experiment and how far it is.
#[derive(Debug)]
struct Slot {
    experiment: Box<dyn Experiment>,
    stage: Stage,
    wake_ns: Option<u64>,
    /// How late this process was at most while it ran.
    lag_ns: u64,
}

impl Slot {
    fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done { .. } | Stage::Skipped(_))
    }

    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running { .. })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Running {
        since_ns: u64,
    },
    Done {
        took_ns: u64,
    },
    /// It could not run.
    Skipped(&'static str),
}

/// What experiments share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    facts: Facts,
    wires: Slab<Wire>,
    codec: Codec,
    rng: Rng,
    actions: VecDeque<Action>,
    /// Requests and upgrades so far.
    requests: u32,
}

/// What an experiment may do.
struct Cx<'a> {
    now: Now,
    me: usize,
    shared: &'a mut Shared,
    wake_ns: &'a mut Option<u64>,
    /// How late this process was at most since the experiment began. Times that it measured may be
    /// longer by so much.
    lag_ns: u64,
    done: bool,
}

impl Cx<'_> {
    /// Opens a connection to the server.
    fn open(&mut self, purpose: Purpose) -> Option<Id> {
        let target = self.shared.target();
        self.open_to(target, purpose)
    }

    fn open_to(&mut self, target: Target, purpose: Purpose) -> Option<Id> {
        let wire = Wire::new(self.me, purpose, self.now.mono_ns);
        let id = self.shared.wires.insert(wire)?;
        self.shared.requests += 1;
        self.shared.actions.push_back(Action::Connect(id, target));
        Some(id)
    }

    /// Opens a WebSocket like the user's, with these further parameters in the query.
    fn socket(&mut self, query: &str) -> Option<Id> {
        let ask = self.shared.ask(query);
        self.open(Purpose::Socket(ask))
    }

    /// Opens a WebSocket whose far end counts instead of echoing.
    fn sink(&mut self, query: &str) -> Option<Id> {
        self.socket(&sink_query(query))
    }

    fn send(&mut self, id: Id, first: u8, payload: &[u8]) {
        if let Some(wire) = self.shared.wires.find_mut(id) {
            wire.write(first, payload);
            self.shared.actions.push_back(Action::Write(id));
        }
    }

    /// Sends bytes of another protocol.
    fn send_raw(&mut self, id: Id, bytes: &[u8]) {
        if let Some(wire) = self.shared.wires.find_mut(id) {
            wire.output.extend_from_slice(bytes);
            self.shared.actions.push_back(Action::Write(id));
        }
    }

    /// Ends the connection: FIN.
    fn drop_wire(&mut self, id: Id) {
        self.shared.actions.push_back(Action::Close(id));
    }

    /// Calls [`Experiment::fire`] then.
    fn wake_in(&mut self, ms: u64) {
        self.wake_at(self.now.mono_ns + time::ms(ms));
    }

    fn wake_at(&mut self, at_ns: u64) {
        *self.wake_ns = Some(at_ns);
    }

    fn done(&mut self) {
        self.done = true;
    }

    fn facts(&mut self) -> &mut Facts {
        &mut self.shared.facts
    }
}

impl Shared {
    /// The server, without certificate verification once it has failed.
    fn target(&self) -> Target {
        let mut target = self.plan.target.clone();
        if self.facts.distrust.is_some() {
            target.set_trust(crate::engine::Trust::unverified());
        }
        target
    }

    /// The user's upgrade request with further parameters in its query.
    fn ask(&self, query: &str) -> Ask {
        let mut ask = self.plan.ask.clone();
        ask.path = with_query(&ask.path, query);
        ask
    }
}

/// A request target with further parameters.
fn with_query(target: &str, query: &str) -> String {
    match (query, target.contains('?')) {
        ("", _) => target.to_owned(),
        (query, true) => format!("{target}&{query}"),
        (query, false) => format!("{target}?{query}"),
    }
}

/// The parameters of a WebSocket whose far end counts instead of echoing.
fn sink_query(query: &str) -> String {
    if query.is_empty() { "probe=1".to_owned() } else { format!("probe=1&{query}") }
}

impl Probe {
    /// Starts with the next event.
    #[must_use]
    pub fn new(plan: Plan, seed: u64, now: Now) -> Self {
        let slots = experiments::all(&plan);
        let slots = slots.into_iter().map(|experiment| Slot {
            experiment,
            stage: Stage::Waiting,
            wake_ns: None,
            lag_ns: 0,
        });
        let mut probe = Self {
            slots: slots.collect(),
            shared: Shared {
                plan,
                facts: Facts::default(),
                wires: Slab::default(),
                codec: Codec::default(),
                rng: Rng::new(seed),
                actions: VecDeque::new(),
                requests: 0,
            },
            interrupted: false,
            ended: false,
            beat_ns: now.mono_ns + time::ms(BEAT_MS),
        };
        probe.advance(now);
        probe
    }

    /// Lets an experiment act.
    fn with(&mut self, now: Now, at: usize, act: impl FnOnce(&mut dyn Experiment, &mut Cx<'_>)) {
        let Some(slot) = self.slots.get_mut(at) else { return };
        let Stage::Running { since_ns } = slot.stage else { return };
        let shared = &mut self.shared;
        let (wake_ns, lag_ns) = (&mut slot.wake_ns, slot.lag_ns);
        let mut cx = Cx { now, me: at, shared, wake_ns, lag_ns, done: false };
        act(&mut *slot.experiment, &mut cx);
        if cx.done {
            self.finish(at, Stage::Done { took_ns: now.mono_ns - since_ns });
            self.advance(now);
        }
    }

    /// An experiment is over: its connections end.
    fn finish(&mut self, at: usize, stage: Stage) {
        let slot = &mut self.slots[at];
        (slot.stage, slot.wake_ns) = (stage, None);
        let ids = self.shared.wires.iter().filter(|(_, wire)| wire.owner == at);
        // A far end that reads nothing would keep the connection open.
        let end = |(id, wire): (Id, &Wire)| {
            if wire.outbox.is_empty() { Action::Close(id) } else { Action::Reset(id) }
        };
        self.shared.actions.extend(ids.map(end));
        self.show_live();
    }

    /// Starts the experiments whose wave has come; exits after the last one.
    fn advance(&mut self, now: Now) {
        while let Some(at) = self.slots.iter().position(|slot| self.is_ready(slot)) {
            if let Some(why) = self.slots[at].experiment.impossible(&self.shared) {
                self.finish(at, Stage::Skipped(why));
                continue;
            }
            self.slots[at].stage = Stage::Running { since_ns: now.mono_ns };
            self.show_live();
            self.with(now, at, |experiment, cx| experiment.begin(cx));
        }
        if self.slots.iter().all(Slot::is_over) {
            self.exit();
        }
    }

    /// Whether it waits, and all that it must wait for is over.
    fn is_ready(&self, slot: &Slot) -> bool {
        let wave = match slot.experiment.wave() {
            Wave::Beside => Wave::Timing,
            wave => wave,
        };
        let mut earlier = self.slots.iter().filter(|other| other.experiment.wave() < wave);
        slot.stage == Stage::Waiting && earlier.all(Slot::is_over)
    }

    fn exit(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            if self.shared.plan.live {
                self.shared.actions.push_back(Action::Show("\r\x1b[K".to_owned()));
            }
            self.shared.actions.push_back(Action::Exit(0));
        }
    }

    /// One line on the terminal: what is running.
    fn show_live(&mut self) {
        if !self.shared.plan.live || self.ended {
            return;
        }
        let running = self.slots.iter().filter(|slot| slot.is_running());
        let running: Vec<&str> = running.map(|slot| slot.experiment.id()).collect();
        let done =
            self.slots.iter().filter(|slot| matches!(slot.stage, Stage::Done { .. })).count();
        let line = format!(
            "\r\x1b[K{done} of {} experiments done; running: {}",
            self.slots.len(),
            running.join(", ")
        );
        self.shared.actions.push_back(Action::Show(line));
    }

    fn deliver(&mut self, now: Now, id: Id, owner: usize, events: Vec<Event>) {
        for event in events {
            self.with(now, owner, |experiment, cx| experiment.heard(id, event, cx));
        }
    }

    /// The outcome so far.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report::new(&self.shared.plan, &self.shared.facts);
        report.interrupted = self.interrupted;
        for slot in &self.slots {
            let id = slot.experiment.id();
            let (verdict, took_ns) = match slot.stage {
                Stage::Done { took_ns } => {
                    (slot.experiment.judge(&self.shared.facts, &self.shared.plan), took_ns)
                }
                Stage::Skipped(why) => (Verdict::unknown(why), 0),
                Stage::Running { .. } if slot.experiment.is_known_early() => {
                    let mut verdict = slot.experiment.judge(&self.shared.facts, &self.shared.plan);
                    verdict.unknown = Some(INTERRUPTED.to_owned());
                    (verdict, 0)
                }
                Stage::Waiting | Stage::Running { .. } => (Verdict::unknown(INTERRUPTED), 0),
            };
            report.add(id, verdict, took_ns);
        }
        report.requests = self.shared.requests;
        report
    }
}
