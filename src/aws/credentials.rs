//! Credentials from the environment, EKS Pod Identity or ECS, or an assumed role with a web
//! identity (IRSA). Temporary credentials are renewed before they expire. Without I/O: the owner
//! carries out each [`Need`] and reports the result.

mod answer;
mod config;

use super::secret::{Credentials, Secret};
use crate::aws::endpoint::Endpoint;
use crate::rng::Rng;
use crate::time::{self, Now};
pub use answer::CredentialsError;
pub use config::{Config, ConfigError, Provider, endpoint};

/// Credentials are renewed this long before they expire, or at half their lifetime if later.
const MARGIN_MS: i64 = 5 * 60 * 1000;
/// Initial retry delay; doubled after each failure.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;
/// Timeout of a request to a provider.
pub const TIMEOUT_MS: u64 = 5_000;

/// What the owner must do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Read the token file, pass it to [`Keyring::fetched`], then call [`Keyring::read`].
    Read,
    /// Send this request, then call [`Keyring::answered`] or [`Keyring::failed`].
    Ask(ProviderRequest),
}

/// A request to a credential provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderRequest {
    /// The provider.
    pub endpoint: Endpoint,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// Header fields; their values are secret.
    pub fields: Vec<(&'static str, Secret)>,
    /// The body, which contains the web identity token.
    pub body: Secret,
}

/// Holds the current credentials and renews them.
#[derive(Debug)]
pub struct Keyring {
    provider: Provider,
    current: Option<Current>,
    /// The last valid content of the token file.
    token: Option<Secret>,
    state: State,
    failures: u32,
    rng: Rng,
}

#[derive(Debug)]
struct Current {
    credentials: Credentials,
    /// `None` for credentials that do not expire.
    expires_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until the next renewal or retry; `None`: no renewal.
    Waiting {
        until_ns: Option<u64>,
    },
    /// [`Need::Read`] is due, if the provider has a token file.
    NeedsToken,
    Reading,
    /// [`Need::Ask`] is due.
    NeedsRequest,
    Requesting,
}

impl Keyring {
    /// The seed is for retry jitter.
    #[must_use]
    pub fn new(provider: Provider, seed: u64) -> Self {
        let (current, state) = match &provider {
            Provider::Static(credentials) => {
                let credentials = credentials.clone();
                let current = Current { credentials, expires_ms: None };
                (Some(current), State::Waiting { until_ns: None })
            }
            Provider::Container { .. } | Provider::Web { .. } => (None, State::NeedsToken),
        };
        Self { provider, current, token: None, state, failures: 0, rng: Rng::new(seed) }
    }

    /// The current credentials; `None` if there are none yet or they have expired.
    #[must_use]
    pub fn credentials(&self, now: Now) -> Option<&Credentials> {
        let current = self.current.as_ref()?;
        let good = current.expires_ms.is_none_or(|expires_ms| now.wall_ms < expires_ms);
        good.then_some(&current.credentials)
    }

    /// A service rejected the credentials: renews them early, as newer ones may be available.
    pub fn rejected(&mut self, now: Now) {
        if let State::Waiting { until_ns: Some(until_ns) } = self.state {
            // Rate-limited like retries after failures.
            let soon_ns = now.mono_ns + time::ms(self.pause_ms());
            self.state = State::Waiting { until_ns: Some(until_ns.min(soon_ns)) };
        }
    }

    /// The next [`Need`].
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Need> {
        if let State::Waiting { until_ns: Some(until_ns) } = self.state
            && until_ns <= now.mono_ns
        {
            self.state = State::NeedsToken;
        }
        if self.state == State::NeedsToken {
            if self.provider.token_file().is_some() {
                self.state = State::Reading;
                return Some(Need::Read);
            }
            self.state = State::NeedsRequest;
        }
        if self.state == State::NeedsRequest {
            self.state = State::Requesting;
            return Some(Need::Ask(self.provider.request(self.token.as_ref())?));
        }
        None
    }

    /// When to call [`Keyring::poll`] again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ns } => until_ns,
            State::NeedsToken | State::Reading | State::NeedsRequest | State::Requesting => None,
        }
    }

    /// Content of a file; ignored unless it is the token file and the token is valid.
    pub fn fetched(&mut self, path: &str, bytes: &[u8]) {
        if self.provider.token_file() == Some(path)
            && let Some(token) = answer::token(bytes)
        {
            self.token = Some(token);
        }
    }

    /// Completes [`Need::Read`].
    ///
    /// # Errors
    /// There is no token; a retry is scheduled.
    pub fn read(&mut self, now: Now) -> Result<(), CredentialsError> {
        if self.state != State::Reading {
            return Ok(());
        }
        if self.token.is_none() {
            return Err(self.back_off(now, CredentialsError::NoToken));
        }
        self.state = State::NeedsRequest;
        Ok(())
    }

    /// Completes [`Need::Ask`] with the provider's response.
    ///
    /// # Errors
    /// The response has no valid credentials; a retry is scheduled.
    pub fn answered(&mut self, now: Now, status: u16, body: &[u8]) -> Result<(), CredentialsError> {
        if self.state != State::Requesting {
            return Ok(());
        }
        let given = match self.provider.parse_response(status, body) {
            Ok(given) => given,
            Err(error) => return Err(self.back_off(now, error)),
        };
        let left_ms = given.expires_ms - now.wall_ms;
        if left_ms <= 0 {
            return Err(self.back_off(now, CredentialsError::Expired));
        }
        let rest_ms = (left_ms - MARGIN_MS).max(left_ms / 2).max(1).unsigned_abs();
        self.failures = 0;
        // Some providers return an expiration a thousand years ahead.
        let until_ns = now.mono_ns.saturating_add(time::ms(rest_ms));
        self.state = State::Waiting { until_ns: Some(until_ns) };
        let expires_ms = Some(given.expires_ms);
        self.current = Some(Current { credentials: given.credentials, expires_ms });
        Ok(())
    }

    /// Completes [`Need::Ask`] without a response; a retry is scheduled.
    pub fn failed(&mut self, now: Now) {
        if self.state == State::Requesting {
            self.back_off(now, CredentialsError::Unanswered);
        }
    }

    fn back_off(&mut self, now: Now, error: CredentialsError) -> CredentialsError {
        let pause_ns = time::ms(self.pause_ms());
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until_ns: Some(now.mono_ns + pause_ns) };
        error
    }

    /// Half of the delay is jitter, so that not all pods retry at once.
    fn pause_ms(&mut self) -> u64 {
        let most_ms = (PAUSE_MS << self.failures.min(6)).min(PAUSE_MAX_MS);
        most_ms / 2 + self.rng.below(most_ms / 2)
    }
}

#[cfg(test)]
mod tests;
