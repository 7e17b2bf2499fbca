//! The sample REST service behind a gateway, without I/O: requests in, calls and responses out.
//! Each message is counted in its session and answered through the gateway, concurrently; the
//! response to the request follows when both have completed or failed.

mod callback;
pub mod command;
mod counts;
pub mod flags;
mod message;
pub mod part;
mod pending;
mod requests;
pub mod sessions;
mod token;

pub use callback::{Auth, CallbackApi};
pub use counts::{Counts, Rate};
pub use message::{InvalidMessage, Message};

use std::collections::VecDeque;

use super::Manifest;
use crate::aws::call::Authorization;
use crate::aws::credentials::{CredentialsError, Keyring, Provider};
use crate::aws::dynamodb::Operation;
use crate::aws::sigv4::Scope;
use crate::calls::pool::{Call, Failure};
use crate::engine::{File, Id, Now, Target};
use crate::options::read::{Environment, Filled};
use crate::options::serve as options;
use crate::options::{Reach, Usage};
use crate::server::part::Part;
pub(crate) use flags::Settings as Draft;
use pending::{PendingMessage, PendingMessages, Task};
use sessions::{Event, Memory, SessionStorage, Table};
use token::{GatewayToken, Which};

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

/// The configuration of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where answers are sent.
    pub gateway: CallbackApi,
    /// Where sessions are kept.
    pub sessions: SessionStorage,
    /// Where AWS credentials come from, if any are needed.
    pub provider: Option<Provider>,
    /// Trusted certificate authorities.
    pub ca_files: CaFiles,
}

/// Files with trusted certificate authorities; `None`: Mozilla's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaFiles {
    /// For the gateway alone.
    pub gateway: Option<String>,
    /// For all connections, but for the gateway's own.
    pub all: Option<String>,
}

impl super::Plan for Plan {
    fn paths(&self) -> Vec<String> {
        self.ca_files.gateway.iter().chain(&self.ca_files.all).cloned().collect()
    }

    fn resolve(&mut self, files: &[File], _reach: Reach) -> Result<(), String> {
        let trust = |path: &Option<String>, flag: &str| {
            path.as_ref().map(|path| super::authorities(files, path, flag)).transpose()
        };
        let all = trust(&self.ca_files.all, "--ca-file")?;
        let own = trust(&self.ca_files.gateway, "--gateway-ca-file")?;
        if let Some(trust) = own.or_else(|| all.clone()) {
            self.gateway.endpoint.target.set_trust(trust);
        }
        let Some(trust) = all else { return Ok(()) };
        if let SessionStorage::Table(config) = &mut self.sessions {
            config.endpoint.target.set_trust(trust.clone());
        }
        if let Some(endpoint) = self.provider.as_mut().and_then(Provider::endpoint_mut) {
            endpoint.target.set_trust(trust);
        }
        Ok(())
    }

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
    /// Send this call, then call [`Backend::received`].
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
pub enum NoResponse {
    /// Failed in the connection pool.
    Failed(Failure),
    /// Too many requests are waiting.
    Full,
}

impl NoResponse {
    /// Whether the request cannot have reached the server.
    fn was_not_sent(self) -> bool {
        match self {
            Self::Full => true,
            Self::Failed(failure) => failure.is_unsent(),
        }
    }
}

impl core::fmt::Display for NoResponse {
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
    Pending,
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
    token: Option<GatewayToken>,
    /// Messages whose token was rejected, while the file is read.
    rejected: Vec<u64>,
    store: Store,
    pending: PendingMessages,
    steps: VecDeque<Step>,
    /// Counters for metrics.
    pub counts: Counts,
}

impl Backend {
    /// The seed is for jitter.
    #[must_use]
    pub fn new(plan: Plan, seed: u64) -> Self {
        let files = plan.files();
        let token = match &plan.gateway.auth {
            Auth::Token(path) => Some(GatewayToken::new(path)),
            Auth::None | Auth::SigV4(_) => None,
        };
        let store = match plan.sessions {
            SessionStorage::Memory => Store::Memory(Memory::default()),
            SessionStorage::Table(config) => Store::Table(Box::new(Table::new(config, seed))),
        };
        Self {
            files,
            gateway: plan.gateway,
            keyring: plan.provider.map(|provider| Keyring::new(provider, seed)),
            token,
            rejected: Vec::new(),
            store,
            pending: PendingMessages::new(seed),
            steps: VecDeque::new(),
            counts: Counts::default(),
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

    /// Handles `$connect` or `$disconnect`; `fields` are the header fields `ConnectionId` and
    /// `EventType`. The session of a connection that ended is deleted.
    pub fn notified(&mut self, now: Now, fields: (Option<&str>, Option<&str>), body: &[u8]) {
        self.counts.rate.count(now);
        let Some(connection) = message::ended(fields, body) else { return };
        // A message in progress could create the session again.
        if !self.pending.mark_gone(&connection) {
            self.delete_session(now, &connection);
        }
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
        self.counts.rate.count(now);
        let Some(message) = message::read(named, body)? else { return Ok(Taken::Nothing) };
        if self.pending.len() >= MESSAGES_MAX {
            return Ok(Taken::Full);
        }
        self.counts.messages += 1;
        self.refresh_token(now);
        let number = self.pending.begin(now, requester, &message.connection);
        self.answer_client(now, number, &message);
        self.count(now, number);
        Ok(Taken::Pending)
    }

    /// The next step for the owner.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Step> {
        if self.token.as_ref().is_some_and(|token| !token.was_read()) {
            self.refresh_token(now);
        }
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
    pub fn fetched(&mut self, now: Now, path: &str, bytes: &[u8]) {
        if let Some(keyring) = &mut self.keyring {
            keyring.fetched(path, bytes);
        }
        if let Some(token) = &mut self.token {
            token.fetched(now, path, bytes);
        }
    }

    /// Completes [`Step::Read`].
    pub fn read(&mut self, now: Now) {
        if let Some(keyring) = &mut self.keyring
            && let Err(error) = keyring.read(now)
        {
            self.without_credentials(&error);
        }
        if let Some(token) = &mut self.token {
            token.read(now);
            self.send_rejected_again(now);
        }
    }

    /// The result of a call.
    pub fn received(&mut self, now: Now, ask: Ask, how: Result<(u16, &[u8]), NoResponse>) {
        match ask {
            Ask::Callback(number) => {
                self.callback_result(now, number, how);
            }
            Ask::Count(number) => self.count_result(now, number, how),
            Ask::Forget => self.session_deleted(how),
            Ask::Table(operation) => {
                let how = how.map_err(|silence| silence.to_string());
                if let Store::Table(table) = &mut self.store {
                    let event = table.received(now, operation, how);
                    self.log_event(event);
                }
            }
            Ask::Credentials => self.credentials_received(now, how),
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

    fn credentials_received(&mut self, now: Now, how: Result<(u16, &[u8]), NoResponse>) {
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

    /// Re-reads the gateway's token if it is old.
    fn refresh_token(&mut self, now: Now) {
        if self.token.as_mut().is_some_and(|token| token.begin_reading(now)) {
            self.steps.push_back(Step::Read);
        }
    }

    /// The authorization for the gateway; `None` without a token or credentials.
    fn authorization(&self, now: Now, which: Which) -> Option<Authorization<'_>> {
        match &self.gateway.auth {
            Auth::None => Some(Authorization::None),
            Auth::Token(_) => self.token.as_ref()?.get(which).map(Authorization::Bearer),
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
