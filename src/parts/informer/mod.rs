//! Watches objects of a cluster: list, watch, and list again if a watch cannot be resumed. A state
//! machine without I/O: bytes and `now` in, requests and steps out. One of them watches one kind of
//! objects ([`Resource`]), on one connection for any number of viewers ([`Feed`]).

pub mod access;
mod backoff;
mod encode;
mod error;
mod exchange;
mod feed;
pub mod flags;
pub mod kubeconfig;
mod limits;
mod lines;
mod list_parser;
mod object;
pub mod part;
pub mod resource;
mod responses;
mod secrets;
mod store;
mod yaml;

pub use encode::{Encoded, Format};
pub use feed::{Feed, Filter, Then};
pub(crate) use flags::Settings as Draft;
pub use part::Kube;
pub use resource::Resource;

use std::collections::VecDeque;

use super::Manifest;
use crate::engine::{HangUp, Now, Target};
use crate::options::proxies::Proxies;
use crate::options::read::{Environment, Filled};
use crate::options::{Usage, serve as options};
use crate::rng::Rng;
use crate::time;
use access::{Access, Secrets};
use backoff::Backoff;
use error::{Error, Told};
use exchange::{Body, Course, Exchange, RequestKind};

pub(super) const MANIFEST: Manifest = Manifest {
    behaviour: Some(&part::BEHAVIOUR),
    mounts: part::MOUNTS,
    routes: &[],
    metrics: part::METRICS,
    flags: flags::GROUPS,
    command: None,
};

#[expect(clippy::unnecessary_wraps, reason = "all parts have this form")]
pub(super) fn settle(filled: &mut Filled<options::Draft>, env: &Environment) -> Result<(), Usage> {
    flags::settle(&mut filled.draft, env);
    Ok(())
}

/// Viewers that are woken in one turn.
pub const WOKEN_PER_TURN: usize = limits::WOKEN_PER_TURN;
/// Bytes sent to one viewer at a time.
pub const OUTPUT_BYTES: usize = limits::OUTPUT_BYTES;

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The API server.
    pub access: Access,
    /// The kind of objects.
    pub resource: Resource,
    /// The namespace; empty: all.
    pub namespace: String,
    /// Whether to watch even without viewers.
    pub always: bool,
    /// Where `access` came from, if it can be re-read.
    pub origin: Option<Kubeconfig>,
    /// How API servers are reached.
    pub proxies: Proxies,
}

/// The source of an [`Access`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Paths in the order of `$KUBECONFIG`; not all need to exist.
    pub files: Vec<String>,
    /// The context; empty: the current one.
    pub context: String,
}

/// What the owner must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a connection.
    Connect(Target),
    /// Close the connection immediately.
    HangUp,
    /// Read these files, then call [`Informer::fetched`].
    Read(Vec<String>),
}

/// Counters for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Lists taken because a watch could not be resumed.
    pub relists: u64,
    /// Failed watches, and objects or events that could not be parsed.
    pub watch_errors: u64,
    /// Requests to the API server.
    pub requests: u64,
}

/// The state machine.
#[derive(Debug)]
pub struct Informer {
    plan: Plan,
    /// The known objects and the viewers.
    pub feed: Feed,
    /// Counters for metrics.
    pub figures: Figures,
    phase: Phase,
    progress: Progress,
    secrets: Secrets,
    reread_ns: u64,
    backoff: Backoff,
    rng: Rng,
    /// When the last viewer left.
    unwatched_ns: Option<u64>,
    steps: VecDeque<Step>,
}

/// How far lists and watches have come.
#[derive(Debug)]
struct Progress {
    next: NextRequest,
    streams: Streams,
    /// The resource version up to which the store is complete.
    version: String,
    /// The continue token of the list's next page.
    page: String,
    /// The resource version of the list; empty until its first page is complete.
    list_version: String,
    pages: u32,
    /// The pages of the last list expired while they were read: take the next one as a whole.
    unpaged: bool,
    /// An event could not be parsed, so the store may lack a change: list again after this watch.
    incomplete: bool,
    /// Errors of watches since the last event.
    errors: u32,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            next: NextRequest::List,
            streams: Streams::Try,
            version: String::new(),
            page: String::new(),
            list_version: String::new(),
            pages: 0,
            unpaged: false,
            incomplete: false,
            errors: 0,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextRequest {
    List,
    Watch,
}

/// Whether to ask for a list as a stream (`WatchList`), which takes one request instead of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Streams {
    Try,
    /// The last one did not reach its end: take this list in pages.
    Failed,
    /// The server does not offer them.
    Unsupported,
}

#[derive(Debug)]
enum Phase {
    /// There are no viewers.
    Idle,
    /// Pause before the next connection.
    Waiting {
        until_ns: u64,
    },
    Connecting {
        until_ns: u64,
    },
    Exchanging(Box<Exchange>),
}

impl Informer {
    /// The seed is for jitter.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        Self {
            secrets: Secrets::new(&plan.access),
            feed: Feed::new(plan.resource),
            plan,
            figures: Figures::default(),
            phase: Phase::Idle,
            progress: Progress::default(),
            reread_ns: 0,
            backoff: Backoff::default(),
            rng: Rng::new(seed),
            unwatched_ns: None,
            steps: VecDeque::new(),
        }
    }

    /// The API server.
    #[must_use]
    pub fn access(&self) -> &Access {
        &self.plan.access
    }

    /// Approximate memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        let exchange = match &self.phase {
            Phase::Exchanging(exchange) => exchange.cost(),
            Phase::Idle | Phase::Waiting { .. } | Phase::Connecting { .. } => 0,
        };
        self.feed.cost() + exchange
    }

    /// The next step for the owner.
    #[must_use]
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// Call this after viewers may have joined or left: starts with the first viewer, and notes
    /// when the last one has left.
    pub fn update_demand(&mut self, now: Now) {
        let wanted = self.plan.always || self.feed.viewers() > 0;
        match (&self.phase, wanted) {
            (Phase::Idle, true) => self.begin(now),
            (Phase::Idle, false) => {}
            (_, true) => self.unwatched_ns = None,
            (_, false) => {
                self.unwatched_ns.get_or_insert(now.mono_ns);
            }
        }
    }

    fn begin(&mut self, now: Now) {
        self.unwatched_ns = None;
        self.progress = Progress { streams: self.progress.streams, ..Progress::default() };
        if self.reread(now) {
            // Connect in the next turn, after the files have been read.
            self.phase = Phase::Waiting { until_ns: now.mono_ns };
        } else {
            self.connect(now);
        }
    }

    /// There have been no viewers for a while: disconnects and frees the store.
    fn end(&mut self) {
        log::info!(
            target: "informer",
            kind = self.plan.resource.name(), objects = self.feed.objects();
            "no viewers, watch stopped"
        );
        if !matches!(self.phase, Phase::Idle | Phase::Waiting { .. }) {
            self.steps.push_back(Step::HangUp);
        }
        self.feed.clear();
        self.phase = Phase::Idle;
        self.unwatched_ns = None;
        self.backoff.reset();
    }

    fn connect(&mut self, now: Now) {
        let Plan { access, proxies, .. } = &self.plan;
        let Ok(to) = proxies.route(&access.place, access.scheme()) else {
            return self.fail(now, Error::Proxy, None);
        };
        let target = match access.target(to, &self.secrets) {
            Ok(target) => target,
            Err(missing) => return self.fail(now, Error::MissingFile(missing), None),
        };
        let until_ns = now.mono_ns + time::ms(limits::CONNECT_MS);
        self.phase = Phase::Connecting { until_ns };
        self.steps.push_back(Step::Connect(target));
    }

    /// The result of [`Step::Connect`]; appends the first request to `out`.
    pub fn connected(&mut self, now: Now, how: Result<(), HangUp>, out: &mut Vec<u8>) {
        if !matches!(self.phase, Phase::Connecting { .. }) {
            return;
        }
        match how {
            Ok(()) => self.ask(now, false, out),
            Err(how) => self.fail(now, Error::NotConnected(how), None),
        }
    }

    /// Bytes from the server; appends the next request to `out`.
    pub fn received(&mut self, now: Now, bytes: &[u8], out: &mut Vec<u8>) {
        // In the other phases the connection is about to be closed.
        if matches!(self.phase, Phase::Exchanging(_)) {
            self.read_response(now, bytes, out);
        }
    }

    /// The server has closed the connection, or it broke.
    pub fn ended(&mut self, now: Now, how: HangUp) {
        match &mut self.phase {
            Phase::Idle | Phase::Waiting { .. } => {}
            Phase::Connecting { .. } => self.fail(now, Error::NotConnected(how), None),
            Phase::Exchanging(exchange) => {
                let (ended, whole) = (exchange.answer.ended(), exchange.is_whole());
                let course = exchange.course;
                self.cut_off(now, course, whole, ended, how);
            }
        }
    }

    /// When to call [`Informer::fire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let phase = match &self.phase {
            Phase::Idle => self.plan.always.then_some(0),
            Phase::Waiting { until_ns } | Phase::Connecting { until_ns } => Some(*until_ns),
            Phase::Exchanging(exchange) => Some(exchange.course.due_ns()),
        };
        let linger = self.unwatched_ns.map(|since_ns| since_ns + time::ms(limits::LINGER_MS));
        phase.into_iter().chain(linger).chain(self.secrets_due_ns()).min()
    }

    /// Runs timers that are due.
    pub fn fire(&mut self, now: Now) {
        let due = |at_ns: u64| at_ns <= now.mono_ns;
        if self.unwatched_ns.is_some_and(|since_ns| due(since_ns + time::ms(limits::LINGER_MS))) {
            return self.end();
        }
        if self.secrets_due_ns().is_some_and(due) {
            // Anything else that is due follows after the files have been read.
            self.reread(now);
            return;
        }
        match &mut self.phase {
            Phase::Waiting { until_ns } if due(*until_ns) => self.connect(now),
            Phase::Connecting { until_ns } if due(*until_ns) => {
                self.steps.push_back(Step::HangUp);
                self.fail(now, Error::Silent, None);
            }
            Phase::Exchanging(exchange) if due(exchange.course.due_ns()) => {
                if exchange.course.proven_ns.take().is_some_and(due) {
                    return self.feed.synced();
                }
                let (course, body) = (exchange.course, &exchange.body);
                let is_open = matches!(body, Body::Watch(_));
                self.steps.push_back(Step::HangUp);
                self.note_health(now, course);
                if course.kind == RequestKind::Stream && is_open {
                    self.progress.streams = Streams::Unsupported;
                    return self.connect(now);
                }
                self.fail(now, Error::Silent, None);
            }
            Phase::Idle
            | Phase::Waiting { .. }
            | Phase::Connecting { .. }
            | Phase::Exchanging(_) => {}
        }
    }

    /// Pauses with backoff, and reports the error to viewers immediately.
    fn fail(&mut self, now: Now, error: Error, retry_after_s: Option<u64>) {
        if self.progress.next == NextRequest::Watch {
            self.figures.watch_errors += 1;
            self.progress.errors += u32::from(error.may_be_version());
            if self.progress.incomplete || self.progress.errors >= limits::ERRORS_UNTIL_LIST {
                self.list_again();
            }
        }
        let pause_ms = self.backoff.pause_ms(&mut self.rng);
        let pause_ms = pause_ms.max(retry_after_s.unwrap_or(0) * 1000);
        let (kind, reason) = (self.plan.resource, Told(error, self.plan.resource).to_string());
        log::warn!(
            target: "informer",
            kind = kind.name(), host = self.plan.access.authority(), pause_ms;
            "{reason}"
        );
        self.feed.stale(now, &reason);
        // Start over: pages of two lists cannot be combined.
        self.progress.page.clear();
        if error.may_be_credentials() {
            self.reread_ns = self.reread_ns.min(now.mono_ns + time::ms(pause_ms));
        }
        self.wait(now, pause_ms);
    }

    /// Connects again after this pause.
    fn wait(&mut self, now: Now, pause_ms: u64) {
        self.phase = Phase::Waiting { until_ns: now.mono_ns + time::ms(pause_ms) };
    }

    /// The watch cannot be resumed without missing changes.
    fn list_again(&mut self) {
        self.progress.next = NextRequest::List;
        self.progress.errors = 0;
        self.figures.relists += 1;
    }

    /// Resets the backoff after a watch that lasted.
    fn note_health(&mut self, now: Now, exchange: Course) {
        let lasted_ns = now.mono_ns.saturating_sub(exchange.since_ns);
        if exchange.kind == RequestKind::Watch && lasted_ns >= time::ms(limits::HEALTHY_MS) {
            self.backoff.reset();
        }
    }
}
