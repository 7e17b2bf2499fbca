//! Deployments of a cluster, as they change: list, watch, and list again when the thread is lost.
//! A state machine without I/O: bytes and `now` in, requests and steps out. It speaks to one API
//! server over one connection at a time, for any number of viewers ([`Feed`]).

pub mod access;
mod asking;
mod backoff;
mod deployment;
mod feed;
pub mod flags;
pub mod kubeconfig;
mod limits;
mod lines;
pub mod part;
mod pieces;
mod secrets;
mod store;
mod talk;
mod trouble;
mod words;
mod yaml;

pub use feed::{Feed, Filter, Then};
pub(crate) use flags::Settings as Draft;
pub use part::Kube;
pub use words::{Encoded, Format};

use std::collections::VecDeque;

use super::Manifest;
use crate::engine::{HangUp, Now, Target};
use crate::options::read::{Environment, Filled};
use crate::options::{Usage, serve as options};
use crate::rng::Rng;
use crate::time;
use access::{Access, Secrets};
use asking::{Asking, Question};
use backoff::Backoff;
use trouble::Trouble;

/// What the part brings.
pub(super) const MANIFEST: Manifest = Manifest {
    behaviour: Some(&part::BEHAVIOUR),
    mounts: part::MOUNTS,
    routes: &[],
    metrics: part::METRICS,
    flags: flags::GROUPS,
    command: None,
};

/// Makes the part's plan of its flags.
#[expect(clippy::unnecessary_wraps, reason = "all parts have this form")]
pub(super) fn settle(filled: &mut Filled<options::Draft>, env: &Environment) -> Result<(), Usage> {
    flags::settle(&mut filled.draft, env);
    Ok(())
}

/// Viewers that are woken in one turn.
pub const WOKEN_PER_TURN: usize = limits::WOKEN_PER_TURN;
/// Said to one viewer in one go.
pub const SAID_BYTES: usize = limits::SAID_BYTES;

/// What is watched, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The API server.
    pub access: Access,
    /// Only this namespace; empty: all of them.
    pub namespace: String,
    /// Whether it goes on when nobody watches.
    pub always: bool,
    /// What `access` was made of, if it can be made again.
    pub origin: Option<Kubeconfig>,
}

/// Files that say where an API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Those that there may be, the first before the others.
    pub files: Vec<String>,
    /// Which context of theirs; empty: the current one.
    pub context: String,
}

/// What the informer asks of whoever has connections and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a connection.
    Connect(Target),
    /// End the present one, at once.
    HangUp,
    /// Read these files, for [`Informer::fetched`].
    Read(Vec<String>),
}

/// For metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lists that were begun because the thread was lost.
    pub relists: u64,
    /// Watches that failed, and lines that could not be used.
    pub watch_errors: u64,
    /// Questions that were asked.
    pub requests: u64,
}

/// One list and one watch, for all who want to see.
#[derive(Debug)]
pub struct Informer {
    plan: Plan,
    /// Those who watch, and what they see.
    pub feed: Feed,
    /// For metrics.
    pub figures: Figures,
    phase: Phase,
    /// What is asked for next.
    next: Question,
    /// Up to where everything is known.
    version: String,
    /// The list's next page; none of it has come while `version_of_list` is empty.
    page: String,
    version_of_list: String,
    pages: u32,
    /// Something could not be read: what is known may lack it.
    doubtful: bool,
    secrets: Secrets,
    /// When they are read again.
    reread_ns: u64,
    backoff: Backoff,
    rng: Rng,
    /// Since when nobody watches.
    alone_ns: Option<u64>,
    steps: VecDeque<Step>,
}

#[derive(Debug)]
enum Phase {
    /// Nobody wants to know.
    Off,
    /// Until then the server is left alone.
    Resting {
        until_ns: u64,
    },
    Connecting {
        until_ns: u64,
    },
    Asking(Box<Asking>),
}

impl Informer {
    /// An informer that has asked nothing yet. The seed is for jitter.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        Self {
            secrets: Secrets::new(&plan.access),
            plan,
            feed: Feed::default(),
            figures: Figures::default(),
            phase: Phase::Off,
            next: Question::List,
            version: String::new(),
            page: String::new(),
            version_of_list: String::new(),
            pages: 0,
            doubtful: false,
            reread_ns: 0,
            backoff: Backoff::default(),
            rng: Rng::new(seed),
            alone_ns: None,
            steps: VecDeque::new(),
        }
    }

    /// The API server.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.plan.access
    }

    /// What it owns, nearly.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.feed.cost() + if let Phase::Asking(asking) = &self.phase { asking.cost() } else { 0 }
    }

    /// The next thing to carry out.
    #[must_use]
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// After anything that may have brought or taken a viewer: begins with the first, and notes
    /// when the last has left.
    pub fn tend(&mut self, now: Now) {
        let wanted = self.plan.always || self.feed.viewers() > 0;
        match (&self.phase, wanted) {
            (Phase::Off, true) => self.begin(now),
            (Phase::Off, false) => {}
            (_, true) => self.alone_ns = None,
            (_, false) => {
                self.alone_ns.get_or_insert(now.mono_ns);
            }
        }
    }

    fn begin(&mut self, now: Now) {
        self.alone_ns = None;
        self.next = Question::List;
        self.page.clear();
        self.doubtful = false;
        if self.reread(now) {
            // What is read comes before the pause is over.
            self.phase = Phase::Resting { until_ns: now.mono_ns };
        } else {
            self.connect(now);
        }
    }

    /// Nobody has watched for a while: everything is given back.
    fn end(&mut self) {
        log::info!(target: "informer", deployments = self.feed.deployments(); "nobody watches");
        if !matches!(self.phase, Phase::Off | Phase::Resting { .. }) {
            self.steps.push_back(Step::HangUp);
        }
        self.feed.clear();
        self.phase = Phase::Off;
        self.alone_ns = None;
        self.backoff.reset();
    }

    fn connect(&mut self, now: Now) {
        let target = match self.plan.access.target(&self.secrets) {
            Ok(target) => target,
            Err(missing) => return self.fail(now, Trouble::Missing(missing), None),
        };
        let until_ns = now.mono_ns + time::ms(limits::CONNECT_MS);
        self.phase = Phase::Connecting { until_ns };
        self.steps.push_back(Step::Connect(target));
    }

    /// The connection stands, or never will; appends what is asked first.
    pub fn connected(&mut self, now: Now, how: Result<(), HangUp>, out: &mut Vec<u8>) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        match how {
            Ok(()) => self.ask(now, false, out),
            Err(how) => self.fail(now, Trouble::NotConnected(how), None),
        }
    }

    /// Bytes of the server; appends what is asked next.
    pub fn received(&mut self, now: Now, bytes: &[u8], out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.phase, Phase::Off) {
            Phase::Asking(asking) => self.hear(now, asking, bytes, out),
            // Of a connection that is about to be ended.
            phase @ (Phase::Off | Phase::Resting { .. } | Phase::Connecting { .. }) => {
                self.phase = phase;
            }
        }
    }

    /// The server sends no more.
    pub fn ended(&mut self, now: Now, how: HangUp) {
        match std::mem::replace(&mut self.phase, Phase::Off) {
            Phase::Asking(asking) => self.cut_off(now, *asking, how),
            Phase::Connecting { .. } => self.fail(now, Trouble::NotConnected(how), None),
            phase @ (Phase::Off | Phase::Resting { .. }) => self.phase = phase,
        }
    }

    /// When to call [`Informer::fire`] next.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let phase = match &self.phase {
            Phase::Off => self.plan.always.then_some(0),
            Phase::Resting { until_ns } | Phase::Connecting { until_ns } => Some(*until_ns),
            Phase::Asking(asking) => Some(asking.until_ns),
        };
        let alone = self.alone_ns.map(|since| since + time::ms(limits::LEFT_ALONE_MS));
        phase.into_iter().chain(alone).chain(self.secrets_due_ns()).min()
    }

    /// Something may be due.
    pub fn fire(&mut self, now: Now) {
        if let Some(since) = self.alone_ns
            && since + time::ms(limits::LEFT_ALONE_MS) <= now.mono_ns
        {
            return self.end();
        }
        if self.secrets_due_ns().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            // What else is due follows once they are read.
            self.reread(now);
            return;
        }
        let due = |until_ns: u64| until_ns <= now.mono_ns;
        match std::mem::replace(&mut self.phase, Phase::Off) {
            Phase::Resting { until_ns } if due(until_ns) => self.connect(now),
            Phase::Connecting { until_ns } if due(until_ns) => {
                self.steps.push_back(Step::HangUp);
                self.fail(now, Trouble::Silent, None);
            }
            Phase::Asking(asking) if due(asking.until_ns) => {
                self.steps.push_back(Step::HangUp);
                self.note_health(now, &asking);
                self.fail(now, Trouble::Silent, None);
            }
            phase @ (Phase::Off
            | Phase::Resting { .. }
            | Phase::Connecting { .. }
            | Phase::Asking(_)) => self.phase = phase,
        }
    }

    /// A pause, longer each time; viewers learn why at once.
    fn fail(&mut self, now: Now, trouble: Trouble, retry_after_s: Option<u64>) {
        if self.next == Question::Watch {
            self.figures.watch_errors += 1;
        }
        if self.next == Question::Watch && self.doubtful {
            self.list_again();
        }
        let pause_ms = self.backoff.pause_ms(&mut self.rng);
        let pause_ms = pause_ms.max(retry_after_s.unwrap_or(0) * 1000);
        log::warn!(
            target: "informer", host = self.plan.access.authority(), pause_ms;
            "{trouble}"
        );
        self.feed.stale(now, &trouble.to_string());
        // A list is whole or it is none: pages of two lists do not go together.
        self.page.clear();
        let until_ns = now.mono_ns + time::ms(pause_ms);
        if trouble.may_be_ours() {
            self.reread_ns = self.reread_ns.min(until_ns);
        }
        self.phase = Phase::Resting { until_ns };
    }

    /// The thread is lost.
    fn list_again(&mut self) {
        self.next = Question::List;
        self.figures.relists += 1;
    }

    fn note_health(&mut self, now: Now, asking: &Asking) {
        let lasted_ns = now.mono_ns.saturating_sub(asking.since_ns);
        if asking.question == Question::Watch && lasted_ns >= time::ms(limits::HEALTHY_MS) {
            self.backoff.reset();
        }
    }
}
