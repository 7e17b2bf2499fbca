//! The sample REST service behind a gateway, without I/O: requests in, calls and answers out. Each
//! message is counted in its session and answered through the gateway, both at once; the request
//! is answered when both are over, whatever became of them.

mod callback;
pub mod command;
mod figures;
pub mod flags;
mod hand;
mod message;
pub mod part;
pub mod sessions;
mod steps;

pub use callback::{Auth, Gateway};
pub use figures::{Figures, Rate};
pub use message::{Message, Wrong};

use std::collections::VecDeque;

use super::Manifest;
use crate::aws::call::Authorization;
use crate::aws::credentials::{CredentialsError, Keyring, Provider};
use crate::aws::dynamodb::Operation;
use crate::aws::secret::Secret;
use crate::aws::sigv4::Scope;
use crate::calls::pool::{Call, Failure};
use crate::engine::{Id, Now};
use crate::options::Usage;
use crate::options::read::{Environment, Filled};
use crate::options::serve as options;
use crate::server::part::Part;
use crate::time;
pub(crate) use flags::Settings as Draft;
use hand::{Half, Hand, Hands};
use sessions::{Event, Memory, Place, Table};

/// What the part brings.
pub(super) const MANIFEST: Manifest = Manifest {
    behaviour: None,
    mounts: &[],
    routes: part::ROUTES,
    metrics: part::METRICS,
    flags: &[],
    command: Some(command::COMMAND),
};

/// `wspulse serve` is no backend: the command of that name makes the plan.
#[expect(clippy::unnecessary_wraps, reason = "all parts have this form")]
pub(super) fn settle(_: &mut Filled<options::Draft>, _: &Environment) -> Result<(), Usage> {
    Ok(())
}

/// Messages in hand at once; who comes then is told to come later.
pub const IN_HAND_MAX: usize = 4_096;
/// The gateway's token is read again when it is that old.
const TOKEN_MS: u64 = 60_000;
/// A token that was refused is read again, but not more often.
const TOKEN_MIN_MS: u64 = 1_000;
/// A token that is longer is none.
const TOKEN_BYTES: usize = 16 * 1024;

/// Everything that a backend is told at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where clients are answered.
    pub gateway: Gateway,
    /// Where sessions are kept.
    pub sessions: Place,
    /// Who gives credentials, if any are needed.
    pub provider: Option<Provider>,
}

impl super::Plan for Plan {
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part> {
        part::new(*self, seed)
    }
}

impl Plan {
    /// Files that are read, and read again.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let provider = self.provider.as_ref().and_then(Provider::token_file).map(str::to_owned);
        let token = match &self.gateway.auth {
            Auth::Token(path) => Some(path.clone()),
            Auth::Nobody | Auth::Signed(_) => None,
        };
        provider.into_iter().chain(token).collect()
    }
}

/// Something that is asked of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The gateway, to give a message's client its answer.
    Callback(u64),
    /// The table, to count this message.
    Count(u64),
    /// The table, to forget a session.
    Forget,
    /// The table, about itself.
    Table(Operation),
    /// Whoever gives credentials.
    Credentials,
}

/// What is to be done.
#[derive(Debug)]
pub enum Step {
    /// Send this; [`Backend::heard`] tells what came of it.
    Call(Ask, Box<Call>),
    /// Read the files again; then [`Backend::fetched`] for each and [`Backend::read`].
    Read,
    /// Answer the request on this connection: it is done.
    Answer(Id),
    /// Log this, and end with a failure.
    Fail(String),
}

/// Why nobody answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Something went wrong on the way.
    Failed(Failure),
    /// Too much else is being asked.
    Full,
}

impl Silence {
    /// Whether the question cannot have been heard.
    fn is_unheard(self) -> bool {
        matches!(self, Self::Full | Self::Failed(Failure::NotConnected(_) | Failure::NoConnection))
    }
}

impl core::fmt::Display for Silence {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => f.write_str("too many requests wait already"),
            Self::Failed(Failure::NotConnected(how)) => how.fmt(f),
            Self::Failed(Failure::Answer(fault)) => fault.fmt(f),
            Self::Failed(Failure::NoConnection) => f.write_str("no connection in time"),
            Self::Failed(Failure::TimedOut) => f.write_str("no answer in time"),
        }
    }
}

/// What comes of a request with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// There was none: it can be answered now.
    Nothing,
    /// [`Step::Answer`] will follow.
    InHand,
    /// Too many are in hand.
    Full,
}

/// Where sessions are.
#[derive(Debug)]
enum Store {
    Memory(Memory),
    Table(Box<Table>),
}

/// The service.
#[derive(Debug)]
pub struct Backend {
    gateway: Gateway,
    files: Vec<String>,
    keyring: Option<Keyring>,
    /// The gateway's, as its file had it last.
    token: Option<Secret>,
    token_read_ns: Option<u64>,
    store: Store,
    hands: Hands,
    steps: VecDeque<Step>,
    /// What is counted.
    pub figures: Figures,
}

impl Backend {
    /// One that has heard of nobody.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let files = plan.files();
        let store = match plan.sessions {
            Place::Memory => Store::Memory(Memory::default()),
            Place::Table(wanted) => Store::Table(Box::new(Table::new(wanted, seed))),
        };
        Self {
            files,
            gateway: plan.gateway,
            keyring: plan.provider.map(|provider| Keyring::new(provider, seed)),
            token: None,
            token_read_ns: None,
            store,
            hands: Hands::new(seed),
            steps: VecDeque::new(),
            figures: Figures::default(),
        }
    }

    /// Files that [`Step::Read`] is about.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The operator says that something may be another by now.
    pub fn reload(&mut self) {
        if !self.files.is_empty() {
            self.steps.push_back(Step::Read);
        }
    }

    /// A request whose work is done already: it only counts.
    pub fn greeted(&mut self, now: Now) {
        self.figures.rate.count(now);
    }

    /// A message that somebody posted; `named` is the field `ConnectionId`.
    ///
    /// # Errors
    /// Why it is none.
    pub fn posted(
        &mut self,
        now: Now,
        whose: Id,
        named: Option<&str>,
        body: &[u8],
    ) -> Result<Taken, Wrong> {
        self.figures.rate.count(now);
        let Some(message) = message::read(named, body)? else { return Ok(Taken::Nothing) };
        if self.hands.len() >= IN_HAND_MAX {
            return Ok(Taken::Full);
        }
        self.figures.messages += 1;
        self.refresh_token(now, TOKEN_MS);
        let hand = self.hands.begin(now, whose, &message.connection);
        self.answer_client(now, hand, &message);
        self.count(now, hand);
        Ok(Taken::InHand)
    }

    /// What there is to do next.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Step> {
        self.refresh_token_at_start(now);
        self.want(now);
        self.steps.pop_front()
    }

    /// When [`Backend::fire`] is to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let store = match &self.store {
            Store::Memory(memory) => memory.next_deadline(),
            Store::Table(table) => table.next_deadline(),
        };
        let keyring = self.keyring.as_ref().and_then(Keyring::next_deadline);
        [store, keyring, self.hands.next_deadline()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn fire(&mut self, now: Now) {
        match &mut self.store {
            Store::Memory(memory) => memory.forget_old(now),
            Store::Table(table) => table.fire(now),
        }
        while let Some(hand) = self.hands.next_due(now) {
            self.count(now, hand);
        }
    }

    /// A file was read.
    pub fn fetched(&mut self, path: &str, bytes: &[u8]) {
        if let Some(keyring) = &mut self.keyring {
            keyring.fetched(path, bytes);
        }
        let token = std::str::from_utf8(bytes).map(str::trim).unwrap_or_default();
        // One that is half written keeps the old one.
        let sound = !token.is_empty()
            && token.len() <= TOKEN_BYTES
            && token.bytes().all(|b| b.is_ascii_graphic());
        if matches!(&self.gateway.auth, Auth::Token(file) if file == path) && sound {
            self.token = Some(Secret::new(token));
        }
    }

    /// All files were read that can be.
    pub fn read(&mut self, now: Now) {
        if let Some(keyring) = &mut self.keyring
            && let Err(trouble) = keyring.read(now)
        {
            self.without_credentials(&trouble);
        }
    }

    /// What came of a call.
    pub fn heard(&mut self, now: Now, ask: Ask, how: Result<(u16, &[u8]), Silence>) {
        match ask {
            Ask::Callback(hand) => self.called_back(now, hand, how.map(|(status, _)| status)),
            Ask::Count(hand) => self.counted(now, hand, how),
            Ask::Forget => self.forgotten(how),
            Ask::Table(operation) => {
                let how = how.map_err(|silence| silence.to_string());
                if let Store::Table(table) = &mut self.store {
                    let event = table.heard(now, operation, how);
                    self.tell(event);
                }
            }
            Ask::Credentials => self.heard_of_credentials(now, how),
        }
    }

    /// Whether messages are not counted as they should be.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        matches!(&self.store, Store::Table(table) if table.ails())
    }

    /// Sessions that are kept here.
    #[must_use]
    pub fn sessions(&self) -> Option<usize> {
        match &self.store {
            Store::Memory(memory) => Some(memory.len()),
            Store::Table(_) => None,
        }
    }

    /// Messages in hand.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.hands.len()
    }

    /// What it owns.
    #[must_use]
    pub fn memory(&self) -> usize {
        let sessions = match &self.store {
            Store::Memory(memory) => memory.bytes(),
            Store::Table(_) => 0,
        };
        sessions + self.hands.bytes()
    }

    fn heard_of_credentials(&mut self, now: Now, how: Result<(u16, &[u8]), Silence>) {
        let Some(keyring) = &mut self.keyring else { return };
        let trouble = if let Ok((status, body)) = how {
            keyring.answered(now, status, body).err()
        } else {
            keyring.failed(now);
            Some(CredentialsError::Unanswered)
        };
        match trouble {
            None => log::info!(target: "credentials", "credentials renewed"),
            Some(trouble) => self.without_credentials(&trouble),
        }
    }

    fn without_credentials(&mut self, trouble: &CredentialsError) {
        log::warn!(target: "credentials", why:% = trouble; "no new credentials");
        if let Store::Table(table) = &mut self.store {
            let event = table.locked_out("there are no credentials");
            self.tell(event);
        }
    }

    /// What an operator wants to know of the table.
    fn tell(&mut self, event: Option<Event>) {
        let (Some(event), Store::Table(table)) = (event, &self.store) else { return };
        let name = &*table.wanted.name;
        match event {
            Event::Ready => log::info!(target: "sessions", table = name; "the table is there"),
            Event::Made => log::info!(target: "sessions", table = name; "the table is being made"),
            Event::Unknown(why) => log::warn!(
                target: "sessions", table = name, why;
                "cannot find out whether the table is there"
            ),
            Event::Ails(why) => log::warn!(
                target: "sessions", table = name, why;
                "sessions degraded: messages are answered, and may not be counted"
            ),
            Event::Well => log::info!(target: "sessions", table = name; "sessions are well again"),
            Event::NoExpiry(why) => log::warn!(
                target: "sessions", table = name, why; "old sessions stay in the table"
            ),
            Event::Hopeless(why) => self.steps.push_back(Step::Fail(why)),
        }
    }

    /// Reads the gateway's token again when it is older than that.
    fn refresh_token(&mut self, now: Now, age_ms: u64) {
        let due = |read_ns: u64| now.mono_ns >= read_ns + time::ms(age_ms);
        if matches!(self.gateway.auth, Auth::Token(_)) && self.token_read_ns.is_none_or(due) {
            self.token_read_ns = Some(now.mono_ns);
            self.steps.push_back(Step::Read);
        }
    }

    fn refresh_token_at_start(&mut self, now: Now) {
        if self.token_read_ns.is_none() {
            self.refresh_token(now, TOKEN_MS);
        }
    }

    /// Who we say we are to the gateway; `None`: nobody yet.
    fn known_as(&self, now: Now) -> Option<Authorization<'_>> {
        match &self.gateway.auth {
            Auth::Nobody => Some(Authorization::None),
            Auth::Token(_) => self.token.as_ref().map(Authorization::Bearer),
            Auth::Signed(region) => self.signed(now, Scope { region, service: "execute-api" }),
        }
    }

    fn signed<'s>(&'s self, now: Now, scope: Scope<'s>) -> Option<Authorization<'s>> {
        let credentials = self.keyring.as_ref()?.credentials(now)?;
        Some(Authorization::SigV4(credentials, scope, now.wall_ms))
    }

    /// One half of a message's work is over; perhaps all of it is.
    fn finish(&mut self, now: Now, hand: u64, half: Half) {
        let Some(Hand { whose, connection, gone, .. }) = self.hands.finish(hand, half) else {
            return;
        };
        self.steps.push_back(Step::Answer(whose));
        if gone {
            self.forget(now, &connection);
        }
    }
}

#[cfg(test)]
mod tests;
