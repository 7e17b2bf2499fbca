//! The sample REST service behind a gateway, without I/O: requests in, calls and responses out.
//! Each message is counted in its session and answered through the gateway, concurrently; the
//! response to the request follows when both have completed or failed.

mod callback;
pub mod command;
mod figures;
pub mod flags;
mod message;
pub mod part;
mod pending;
mod requests;
pub mod sessions;

pub use callback::{Auth, CallbackApi};
pub use figures::{Figures, Rate};
pub use message::{InvalidMessage, Message};

use std::collections::VecDeque;

use super::Manifest;
use crate::aws::call::Authorization;
use crate::aws::credentials::{CredentialsError, Keyring, Provider};
use crate::aws::dynamodb::Operation;
use crate::aws::secret::Secret;
use crate::aws::sigv4::Scope;
use crate::calls::pool::{Call, Failure};
use crate::engine::{Id, Now, Target};
use crate::options::Usage;
use crate::options::read::{Environment, Filled};
use crate::options::serve as options;
use crate::server::part::Part;
use crate::time;
pub(crate) use flags::Settings as Draft;
use pending::{PendingMessage, PendingMessages, Task};
use sessions::{Event, Memory, SessionStorage, Table};

pub(super) const MANIFEST: Manifest = Manifest {
    behaviour: None,
    mounts: &[],
    routes: part::ROUTES,
    metrics: part::METRICS,
    flags: &[],
    command: Some(command::COMMAND),
};

/// Nothing: the plan is made by the command `wspulse backend`, not by `wspulse serve`.
#[expect(clippy::unnecessary_wraps, reason = "all parts have this form")]
pub(super) fn settle(_: &mut Filled<options::Draft>, _: &Environment) -> Result<(), Usage> {
    Ok(())
}

/// Maximum messages in progress; beyond, requests get 503.
pub const MESSAGES_MAX: usize = 4_096;
/// Interval for re-reading the gateway's token.
const TOKEN_MS: u64 = 60_000;
/// Minimum interval for re-reading a token that was rejected.
const TOKEN_MIN_MS: u64 = 1_000;
/// Maximum length of a token.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The configuration of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where answers are sent.
    pub gateway: CallbackApi,
    /// Where sessions are kept.
    pub sessions: SessionStorage,
    /// Where AWS credentials come from, if any are needed.
    pub provider: Option<Provider>,
}

impl super::Plan for Plan {
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part> {
        part::new(*self, seed)
    }
}

impl Plan {
    /// Files with tokens, re-read while running.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let provider = self.provider.as_ref().and_then(Provider::token_file).map(str::to_owned);
        let token = match &self.gateway.auth {
            Auth::Token(path) => Some(path.clone()),
            Auth::None | Auth::SigV4(_) => None,
        };
        provider.into_iter().chain(token).collect()
    }
}

/// The purpose of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Answer the client of this message.
    Callback(u64),
    /// Count this message in the table.
    Count(u64),
    /// Delete a session from the table.
    Forget,
    /// Check or create the table.
    Table(Operation),
    /// Get credentials.
    Credentials,
}

/// What the owner must do.
#[derive(Debug)]
pub enum Step {
    /// Send this call, then call [`Backend::heard`].
    Call(Ask, Target, Box<Call>),
    /// Read [`Backend::files`], then call [`Backend::fetched`] for each and [`Backend::read`].
    Read,
    /// Send the response on this connection.
    Answer(Id),
    /// Log this error and exit with a failure.
    Fail(String),
}

/// Why a call has no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Failed in the connection pool.
    Failed(Failure),
    /// Too many requests are waiting.
    Full,
}

impl Silence {
    /// Whether the request cannot have reached the server.
    fn was_not_sent(self) -> bool {
        match self {
            Self::Full => true,
            Self::Failed(failure) => failure.is_unsent(),
        }
    }
}

impl core::fmt::Display for Silence {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Full => f.write_str("too many requests are waiting"),
            Self::Failed(failure) => failure.fmt(f),
        }
    }
}

/// The result of [`Backend::posted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// No message: respond immediately.
    Nothing,
    /// [`Step::Answer`] follows.
    InHand,
    /// Too many messages are in progress.
    Full,
}

#[derive(Debug)]
enum Store {
    Memory(Memory),
    Table(Box<Table>),
}

/// The state machine.
#[derive(Debug)]
pub struct Backend {
    gateway: CallbackApi,
    files: Vec<String>,
    keyring: Option<Keyring>,
    /// The last valid token for the gateway.
    token: Option<Secret>,
    token_read_ns: Option<u64>,
    store: Store,
    pending: PendingMessages,
    steps: VecDeque<Step>,
    /// Counters for metrics.
    pub figures: Figures,
}

impl Backend {
    /// The seed is for jitter.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let files = plan.files();
        let store = match plan.sessions {
            SessionStorage::Memory => Store::Memory(Memory::default()),
            SessionStorage::Table(config) => Store::Table(Box::new(Table::new(config, seed))),
        };
        Self {
            files,
            gateway: plan.gateway,
            keyring: plan.provider.map(|provider| Keyring::new(provider, seed)),
            token: None,
            token_read_ns: None,
            store,
            pending: PendingMessages::new(seed),
            steps: VecDeque::new(),
            figures: Figures::default(),
        }
    }

    /// The files of [`Step::Read`].
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Re-reads the files, after SIGHUP.
    pub fn reload(&mut self) {
        if !self.files.is_empty() {
            self.steps.push_back(Step::Read);
        }
    }

    /// Counts a request without a message.
    pub fn greeted(&mut self, now: Now) {
        self.figures.rate.count(now);
    }

    /// Handles a request of the gateway; `named` is the header field `ConnectionId`.
    ///
    /// # Errors
    /// Why the request is invalid.
    pub fn posted(
        &mut self,
        now: Now,
        requester: Id,
        named: Option<&str>,
        body: &[u8],
    ) -> Result<Taken, InvalidMessage> {
        self.figures.rate.count(now);
        let Some(message) = message::read(named, body)? else { return Ok(Taken::Nothing) };
        if self.pending.len() >= MESSAGES_MAX {
            return Ok(Taken::Full);
        }
        self.figures.messages += 1;
        self.refresh_token(now, TOKEN_MS);
        let number = self.pending.begin(now, requester, &message.connection);
        self.answer_client(now, number, &message);
        self.count(now, number);
        Ok(Taken::InHand)
    }

    /// The next step for the owner.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Step> {
        self.refresh_token_at_start(now);
        self.poll_needs(now);
        self.steps.pop_front()
    }

    /// When to call [`Backend::fire`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        let store = match &self.store {
            Store::Memory(memory) => memory.next_deadline(),
            Store::Table(table) => table.next_deadline(),
        };
        let keyring = self.keyring.as_ref().and_then(Keyring::next_deadline);
        [store, keyring, self.pending.next_deadline()].into_iter().flatten().min()
    }

    /// Runs timers that are due.
    pub fn fire(&mut self, now: Now) {
        match &mut self.store {
            Store::Memory(memory) => memory.forget_old(now),
            Store::Table(table) => table.fire(now),
        }
        while let Some(number) = self.pending.next_due(now) {
            self.count(now, number);
        }
    }

    /// Content of a file of [`Step::Read`].
    pub fn fetched(&mut self, path: &str, bytes: &[u8]) {
        if let Some(keyring) = &mut self.keyring {
            keyring.fetched(path, bytes);
        }
        let token = std::str::from_utf8(bytes).map(str::trim).unwrap_or_default();
        // An empty or invalid token, as in a half-written file, does not replace the old one.
        let valid = !token.is_empty()
            && token.len() <= TOKEN_BYTES_MAX
            && token.bytes().all(|b| b.is_ascii_graphic());
        if matches!(&self.gateway.auth, Auth::Token(file) if file == path) && valid {
            self.token = Some(Secret::new(token));
        }
    }

    /// Completes [`Step::Read`].
    pub fn read(&mut self, now: Now) {
        if let Some(keyring) = &mut self.keyring
            && let Err(error) = keyring.read(now)
        {
            self.without_credentials(&error);
        }
    }

    /// The result of a call.
    pub fn heard(&mut self, now: Now, ask: Ask, how: Result<(u16, &[u8]), Silence>) {
        match ask {
            Ask::Callback(number) => {
                self.callback_result(now, number, how);
            }
            Ask::Count(number) => self.count_result(now, number, how),
            Ask::Forget => self.session_deleted(how),
            Ask::Table(operation) => {
                let how = how.map_err(|silence| silence.to_string());
                if let Store::Table(table) = &mut self.store {
                    let event = table.heard(now, operation, how);
                    self.log_event(event);
                }
            }
            Ask::Credentials => self.heard_of_credentials(now, how),
        }
    }

    /// Whether the session table is unavailable.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        matches!(&self.store, Store::Table(table) if table.is_degraded())
    }

    /// Sessions in memory; `None` if they are in a table.
    #[must_use]
    pub fn sessions(&self) -> Option<usize> {
        match &self.store {
            Store::Memory(memory) => Some(memory.len()),
            Store::Table(_) => None,
        }
    }

    /// Messages in progress.
    #[must_use]
    pub fn in_hand(&self) -> usize {
        self.pending.len()
    }

    /// Memory of sessions and messages.
    #[must_use]
    pub fn memory(&self) -> usize {
        let sessions = match &self.store {
            Store::Memory(memory) => memory.bytes(),
            Store::Table(_) => 0,
        };
        sessions + self.pending.bytes()
    }

    fn heard_of_credentials(&mut self, now: Now, how: Result<(u16, &[u8]), Silence>) {
        let Some(keyring) = &mut self.keyring else { return };
        let error = if let Ok((status, body)) = how {
            keyring.answered(now, status, body).err()
        } else {
            keyring.failed(now);
            Some(CredentialsError::Unanswered)
        };
        match error {
            None => log::info!(target: "credentials", "credentials renewed"),
            Some(error) => self.without_credentials(&error),
        }
    }

    fn without_credentials(&mut self, error: &CredentialsError) {
        log::warn!(target: "credentials", why:% = error; "cannot renew the credentials");
        if let Store::Table(table) = &mut self.store {
            let event = table.no_credentials("no credentials");
            self.log_event(event);
        }
    }

    fn log_event(&mut self, event: Option<Event>) {
        let (Some(event), Store::Table(table)) = (event, &self.store) else { return };
        let name = &*table.config.name;
        match event {
            Event::Ready => log::info!(target: "sessions", table = name; "table is ready"),
            Event::Created => log::info!(target: "sessions", table = name; "creating the table"),
            Event::Unknown(why) => log::warn!(
                target: "sessions", table = name, why;
                "cannot check whether the table exists"
            ),
            Event::Degraded(why) => log::warn!(
                target: "sessions", table = name, why;
                "sessions degraded: messages are answered but may not be counted"
            ),
            Event::Recovered => log::info!(target: "sessions", table = name; "sessions recovered"),
            Event::NoExpiry(why) => log::warn!(
                target: "sessions", table = name, why; "cannot enable expiry of old sessions"
            ),
            Event::Fatal(why) => self.steps.push_back(Step::Fail(why)),
        }
    }

    /// Re-reads the gateway's token if it is older than `age_ms`.
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

    /// The authorization for the gateway; `None` without a token or credentials.
    fn authorization(&self, now: Now) -> Option<Authorization<'_>> {
        match &self.gateway.auth {
            Auth::None => Some(Authorization::None),
            Auth::Token(_) => self.token.as_ref().map(Authorization::Bearer),
            Auth::SigV4(region) => self.signed(now, Scope { region, service: "execute-api" }),
        }
    }

    fn signed<'s>(&'s self, now: Now, scope: Scope<'s>) -> Option<Authorization<'s>> {
        let credentials = self.keyring.as_ref()?.credentials(now)?;
        Some(Authorization::SigV4(credentials, scope, now.wall_ms))
    }

    /// Completes a task of a message; responds to the request if it was the last one.
    fn finish(&mut self, now: Now, number: u64, task: Task) {
        let Some(PendingMessage { requester, connection, gone, .. }) =
            self.pending.finish(number, task)
        else {
            return;
        };
        self.steps.push_back(Step::Answer(requester));
        if gone {
            self.delete_session(now, &connection);
        }
    }
}

#[cfg(test)]
mod tests;
