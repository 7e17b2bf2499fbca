//! `WebSockets` in front, plain HTTP behind: what API Gateway's WebSocket APIs do, as a state
//! machine without I/O. Messages and answers go in; requests, pushes and verdicts come out.
//! It knows ids of connections, not connections; who opens and closes those is the server's
//! business.

mod callbacks;
mod circuit;
pub mod flags;
mod flights;
pub mod names;
pub mod part;
pub mod plan;
mod request;
mod select;
mod session;

use std::collections::{BTreeMap, VecDeque};

use super::Manifest;
use crate::behaviours::Close;
use crate::calls::pool::{Call, Failure};
use crate::engine::{Id, Now};
use crate::options::read::{Environment, Filled};
use crate::options::{Usage, serve as options};
use crate::outbox::{Block, Blocks};
use crate::proto::frame::Kind;
use crate::queue::{Queue, Waiting};
use crate::rng::Rng;
use crate::time;
use circuit::Circuit;
pub(crate) use flags::Settings as Draft;
use names::Name;
pub use plan::{Format, Plan};
pub use request::ConnectRequest;
use request::Notice;
pub use select::Expression;
use session::{Flight, Session, Stage};

/// What the part brings.
pub(super) const MANIFEST: Manifest = Manifest {
    behaviour: Some(&part::BEHAVIOUR),
    mounts: &[],
    routes: part::ROUTES,
    metrics: part::METRICS,
    flags: flags::GROUPS,
    command: None,
};

/// Makes the part's plan of its flags.
pub(super) fn settle(filled: &mut Filled<options::Draft>, _: &Environment) -> Result<(), Usage> {
    flags::settle(filled)
}

/// A message, all of its frames together, as API Gateway has it; also one that is pushed.
pub const MESSAGE_BYTES: usize = 128 * 1024;
/// One frame of it.
pub const FRAME_BYTES: u64 = 32 * 1024;
/// Messages of one connection that wait for their turn; beyond, it is not read.
pub const WAITING_MESSAGES: usize = 32;
/// The same in bytes.
pub const WAITING_BYTES: usize = 256 * 1024;
/// From a request to its answer.
pub const TIMEOUT_MS: u64 = 29_000;
/// A connection without messages, before the time scale.
pub const IDLE_MS: u64 = 600_000;
/// A connection's whole life, before the time scale.
pub const LIFE_MS: u64 = 7_200_000;
/// Connections that have ended and whose last requests have not.
pub const ENDING_MAX: usize = 1_000;
/// Pushes of one connection that its client has not taken: beyond, callbacks get 429.
pub const PUSHED_BYTES: usize = 256 * 1024;
/// So many, and its next message waits: an answer to it would have to wait as well.
const PUSHED_BEFORE_NEXT: usize = 64 * 1024;

/// What the owner has to do.
#[derive(Debug)]
pub enum Step {
    /// Send this; [`Gateway::answered`] tells what became of it.
    Ask(u64, Call),
    /// The answer is not wanted any more.
    Forget(u64),
    /// Something waits for this connection: a verdict, a push, room for more messages.
    Wake(Id),
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// What the pool says.
    Failed(Failure),
    /// Too many requests wait.
    Busy,
    /// The backend could not be reached lately.
    Circuit,
    /// It is a request that nobody can send.
    Unsendable,
}

/// What becomes of a client that wants to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is let in, and the backend may have chosen a subprotocol.
    Welcome(Option<String>),
    /// It is not, with this status.
    Refused(u16),
}

/// What a callback gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The message is queued.
    Queued,
    /// The connection is told to close.
    Closing,
    /// Since when it is there, who it is, and when it was last active.
    Seen {
        /// Milliseconds since 1970.
        connected_at_ms: i64,
        /// The client's address.
        source_ip: String,
        /// What it calls itself.
        user_agent: String,
        /// Milliseconds since 1970.
        last_active_ms: i64,
    },
    /// There is no such connection.
    Gone,
    /// Its client does not take what waits for it.
    Full,
}

/// What a callback wants.
#[derive(Clone, Copy, Debug)]
pub enum CallbackRequest<'b> {
    /// To send this.
    Post(Kind, &'b [u8]),
    /// To know of it.
    Look,
    /// To have it closed.
    Close,
}

/// Requests by route and outcome, and how long they took.
#[derive(Debug, Default)]
pub struct Figures {
    /// By route and outcome.
    pub requests: BTreeMap<(String, &'static str), u64>,
    /// Those that ended just now, in nanoseconds.
    pub took_ns: Vec<u64>,
    /// `$disconnect`s that were not sent.
    pub dropped: u64,
}

/// The gateway.
#[derive(Debug)]
pub struct Gateway {
    plan: Plan,
    rng: Rng,
    sessions: BTreeMap<Name, Session>,
    names: BTreeMap<Id, Name>,
    flights: BTreeMap<u64, Name>,
    /// One for each backend of the plan.
    circuits: Vec<Circuit>,
    steps: VecDeque<Step>,
    next_ticket: u64,
    ending: usize,
    bytes: usize,
    blocks: Blocks,
    /// For the metrics.
    pub figures: Figures,
}

impl Gateway {
    /// A gateway without connections. The seed is for ids of requests.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let circuits = plan.backends().map(|_| Circuit::default()).collect();
        Self {
            plan,
            rng: Rng::new(seed),
            sessions: BTreeMap::new(),
            names: BTreeMap::new(),
            flights: BTreeMap::new(),
            circuits,
            steps: VecDeque::new(),
            next_ticket: 0,
            ending: 0,
            bytes: 0,
            blocks: Blocks::without_idle(),
            figures: Figures::default(),
        }
    }

    /// What it was told.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes that it owns.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.bytes
    }

    /// What it owns for this connection.
    #[must_use]
    pub fn cost_of(&self, id: Id) -> usize {
        self.find(id).map_or(0, |session| {
            // A request is there twice while its backend does not take it.
            let flight = session.flight.as_ref().map_or(0, |flight| 2 * flight.bytes);
            session.cost() + flight
        })
    }

    /// Connections, and those whose last requests are under way.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        (self.names.len(), self.ending)
    }

    /// Requests under way.
    #[must_use]
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// A client wants to connect: asks the backend. [`Gateway::verdict`] tells what it says.
    pub fn ask_to_connect(&mut self, now: Now, id: Id, client: &ConnectRequest<'_>) {
        let Some(name) = (self.plan.draw)(self.next_ticket).map(Name) else {
            // The kernel has no randomness: a guessable id would be worse than none.
            return self.steps.push_back(Step::Wake(id));
        };
        let session = Session::new(now, id, client, self.plan.domain.as_deref());
        self.bytes += session.cost();
        self.names.insert(id, name);
        self.sessions.insert(name, session);
        self.ask(now, name, &Notice::Connect(client));
    }

    /// Whether a verdict has come.
    #[must_use]
    pub fn has_verdict(&self, id: Id) -> bool {
        self.find(id).is_none_or(|session| matches!(session.stage, Stage::Judged(_)))
    }

    /// The verdict. Who is welcome is connected from now on; who is not, or has waited for too
    /// long, is forgotten.
    pub fn verdict(&mut self, now: Now, id: Id) -> Verdict {
        let refused = Verdict::Refused(502);
        let Some(name) = self.names.get(&id).copied() else { return refused };
        let Some(session) = self.sessions.get_mut(&name) else { return refused };
        match std::mem::replace(&mut session.stage, Stage::Open) {
            Stage::Judged(Verdict::Welcome(protocol)) => {
                (session.opened_ns, session.active_ns) = (now.mono_ns, now.mono_ns);
                Verdict::Welcome(protocol)
            }
            Stage::Judged(verdict) => {
                self.remove(name);
                verdict
            }
            Stage::Connecting | Stage::Open | Stage::Closing(..) | Stage::Ending(..) => {
                self.abandon(name);
                refused
            }
        }
    }

    /// A message came.
    pub fn message(&mut self, now: Now, id: Id, kind: Kind, payload: &[u8]) {
        let Some(name) = self.names.get(&id).copied() else { return };
        let Some(session) = self.sessions.get_mut(&name) else { return };
        session.active(now);
        self.bytes -= session.cost();
        let message = Waiting { due_ns: 0, turn: None, kind, payload };
        session.waiting.push(message, &mut self.blocks);
        self.bytes += session.cost();
        self.go_on(now, name);
    }

    /// Whether so much waits that the client is not read.
    #[must_use]
    pub fn is_full(&self, id: Id) -> bool {
        self.find(id).is_some_and(Session::is_full)
    }

    /// Whether a message of it is under way, or waits for that.
    #[must_use]
    pub fn is_busy(&self, id: Id) -> bool {
        self.find(id).is_some_and(|session| session.flight.is_some() || !session.waiting.is_empty())
    }

    /// The next push for a client that takes it.
    pub fn take_push(&mut self, now: Now, id: Id) -> Option<(Kind, Block)> {
        let name = self.names.get(&id).copied()?;
        let session = self.sessions.get_mut(&name)?;
        let first = session.pushed.first()?;
        let (kind, bytes) = (first.kind, self.blocks.with(first.payload));
        self.bytes -= session.cost();
        session.pushed.pop(&mut self.blocks, now);
        self.bytes += session.cost();
        session.active(now);
        self.go_on(now, name);
        Some((kind, bytes))
    }

    /// It took what it could of its pushes, and there are more.
    pub fn wake(&mut self, id: Id) {
        self.steps.push_back(Step::Wake(id));
    }

    /// The Close frame that is due: a callback asked for it, or the session's time is over.
    pub fn close_due(&mut self, now: Now, id: Id) -> Option<Close> {
        let (idle_ns, life_ns) = (self.scaled_ns(IDLE_MS), self.scaled_ns(LIFE_MS));
        let session = self.find_mut(id)?;
        if let Some(close) = session.close.take() {
            return Some(close);
        }
        let over = session.stage == Stage::Open
            && (now.mono_ns >= session.active_ns + idle_ns
                || now.mono_ns >= session.opened_ns + life_ns);
        over.then(|| Close { code: 1001, reason: "Going away".to_owned() })
    }

    /// When [`Gateway::close_due`] has something to say of itself.
    #[must_use]
    pub fn deadline_ns(&self, id: Id) -> Option<u64> {
        let session = self.find(id)?;
        let idle_ns = session.active_ns + self.scaled_ns(IDLE_MS);
        Some(idle_ns.min(session.opened_ns + self.scaled_ns(LIFE_MS)))
    }

    fn scaled_ns(&self, ms: u64) -> u64 {
        time::ms(ms) / self.plan.time_scale.max(1)
    }

    /// A Close was said, by either side: nobody can reach it any more.
    pub fn closing(&mut self, id: Id, code: u16, reason: &str) {
        if let Some(session) = self.find_mut(id)
            && matches!(session.stage, Stage::Open)
        {
            session.stage = Stage::Closing(code, reason.to_owned());
        }
    }

    /// A WebSocket is over. What it sent before a Close is delivered still; of one that broke
    /// nothing is. Then `$disconnect` goes out.
    pub fn left(&mut self, now: Now, id: Id, code: u16, is_broken: bool) {
        let Some(name) = self.names.remove(&id) else { return };
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let reason = match std::mem::replace(&mut session.stage, Stage::Connecting) {
            Stage::Closing(_, reason) => reason,
            Stage::Connecting | Stage::Judged(_) | Stage::Open | Stage::Ending(..) => String::new(),
        };
        session.stage = Stage::Ending(code, reason);
        self.bytes -= session.cost();
        session.pushed = Queue::default();
        if is_broken {
            session.waiting = Queue::default();
        }
        self.bytes += session.cost();
        if is_broken {
            self.abort(name);
        }
        self.end(now, name);
    }

    /// A connection is gone that may have been no WebSocket yet.
    pub fn gone(&mut self, id: Id) {
        if let Some(name) = self.names.get(&id).copied() {
            self.abandon(name);
        }
    }

    /// Who knocked is not there any more, and the backend may let it in or have let it in.
    fn abandon(&mut self, name: Name) {
        let Some(session) = self.sessions.get_mut(&name) else { return };
        self.names.remove(&session.id);
        let welcome = matches!(session.stage, Stage::Judged(Verdict::Welcome(_)));
        if session.flight.is_none() && !welcome {
            return self.remove(name);
        }
        session.stage = Stage::Ending(1006, String::new());
        self.ending += 1;
        if self.ending > ENDING_MAX {
            self.drop_last(name);
        } else if welcome {
            self.ask_last(name);
        }
    }

    fn end(&mut self, now: Now, name: Name) {
        self.ending += 1;
        if self.ending > ENDING_MAX {
            return self.drop_last(name);
        }
        self.go_on(now, name);
    }

    /// Too many have ended: the backend will not hear of this one.
    fn drop_last(&mut self, name: Name) {
        self.figures.dropped += 1;
        self.abort(name);
        self.remove(name);
    }

    fn find(&self, id: Id) -> Option<&Session> {
        self.sessions.get(self.names.get(&id)?)
    }

    fn find_mut(&mut self, id: Id) -> Option<&mut Session> {
        self.sessions.get_mut(self.names.get(&id)?)
    }
}
