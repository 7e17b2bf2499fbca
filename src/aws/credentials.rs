//! Where credentials come from: the environment itself, EKS Pod Identity (or ECS), or a role that
//! is assumed with a web identity (IRSA); those that expire are renewed before. Without I/O: it
//! says what it needs, and is told what came of it.

mod answer;
mod plan;

use super::secret::{Credentials, Secret};
use crate::aws::endpoint::Endpoint;
use crate::rng::Rng;
use crate::time::{self, Now};
pub use answer::Trouble;
pub use plan::{Missing, Plan, Provider};

/// So long before they expire, they are renewed; when they live shorter, at half their time.
const MARGIN_MS: i64 = 5 * 60 * 1000;
/// Between two failures; doubled each time.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 60_000;
/// An answer that has not come by then never comes.
pub const TIMEOUT_MS: u64 = 5_000;

/// What it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Its files again; then [`Keyring::read`].
    Read,
    /// The answer to this question; then [`Keyring::answered`] or [`Keyring::failed`].
    Ask(Question),
}

/// A request to whoever gives credentials away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whom.
    pub endpoint: Endpoint,
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub target: String,
    /// Its fields; what they say is secret.
    pub fields: Vec<(&'static str, Secret)>,
    /// Its body, which is secret as well.
    pub body: Secret,
}

/// Credentials, kept fresh.
#[derive(Debug)]
pub struct Keyring {
    provider: Provider,
    current: Option<Current>,
    /// What the token's file had last.
    token: Option<Secret>,
    step: Step,
    failures: u32,
    rng: Rng,
}

#[derive(Debug)]
struct Current {
    credentials: Credentials,
    /// `None`: never.
    expires_ms: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing is needed before then.
    Resting {
        until_ns: Option<u64>,
    },
    /// The token is to be read, and that was not said yet.
    Wanting,
    Reading,
    /// The question is to be asked, and that was not said yet.
    Ready,
    Asking,
}

impl Keyring {
    /// One that has asked nobody yet.
    #[must_use]
    pub fn new(provider: Provider, seed: u64) -> Self {
        let (current, step) = match &provider {
            Provider::Given(credentials) => {
                let credentials = credentials.clone();
                let current = Current { credentials, expires_ms: None };
                (Some(current), Step::Resting { until_ns: None })
            }
            Provider::Container { .. } | Provider::Web { .. } => (None, Step::Wanting),
        };
        Self { provider, current, token: None, step, failures: 0, rng: Rng::new(seed) }
    }

    /// The credentials, unless there are none yet or they have expired.
    #[must_use]
    pub fn credentials(&self, now: Now) -> Option<&Credentials> {
        let current = self.current.as_ref()?;
        let good = current.expires_ms.is_none_or(|expires_ms| now.wall_ms < expires_ms);
        good.then_some(&current.credentials)
    }

    /// Somebody did not take them: perhaps there are newer ones.
    pub fn rejected(&mut self, now: Now) {
        if let Step::Resting { until_ns: Some(until_ns) } = self.step {
            // Not more often than after failures.
            let soon_ns = now.mono_ns + time::ms(self.pause_ms());
            self.step = Step::Resting { until_ns: Some(until_ns.min(soon_ns)) };
        }
    }

    /// What it needs now.
    #[must_use]
    pub fn poll(&mut self, now: Now) -> Option<Need> {
        if let Step::Resting { until_ns: Some(until_ns) } = self.step
            && until_ns <= now.mono_ns
        {
            self.step = Step::Wanting;
        }
        if self.step == Step::Wanting {
            if self.provider.token_file().is_some() {
                self.step = Step::Reading;
                return Some(Need::Read);
            }
            self.step = Step::Ready;
        }
        if self.step == Step::Ready {
            self.step = Step::Asking;
            return Some(Need::Ask(self.provider.question(self.token.as_ref())?));
        }
        None
    }

    /// When [`Keyring::poll`] has something new to say.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        match self.step {
            Step::Resting { until_ns } => until_ns,
            Step::Wanting | Step::Reading | Step::Ready | Step::Asking => None,
        }
    }

    /// A file was read.
    pub fn fetched(&mut self, path: &str, bytes: &[u8]) {
        if self.provider.token_file() == Some(path)
            && let Some(token) = answer::token(bytes)
        {
            self.token = Some(token);
        }
    }

    /// All files were read that can be.
    ///
    /// # Errors
    /// There is no token: it tries again later.
    pub fn read(&mut self, now: Now) -> Result<(), Trouble> {
        if self.step != Step::Reading {
            return Ok(());
        }
        if self.token.is_none() {
            return Err(self.retreat(now, Trouble::NoToken));
        }
        self.step = Step::Ready;
        Ok(())
    }

    /// The question was answered.
    ///
    /// # Errors
    /// Not with credentials: it tries again later.
    pub fn answered(&mut self, now: Now, status: u16, body: &[u8]) -> Result<(), Trouble> {
        if self.step != Step::Asking {
            return Ok(());
        }
        let given = match self.provider.given(status, body) {
            Ok(given) => given,
            Err(trouble) => return Err(self.retreat(now, trouble)),
        };
        let left_ms = given.expires_ms - now.wall_ms;
        if left_ms <= 0 {
            return Err(self.retreat(now, Trouble::Expired));
        }
        let rest_ms = (left_ms - MARGIN_MS).max(left_ms / 2).max(1).unsigned_abs();
        self.failures = 0;
        // Some live for a thousand years.
        let until_ns = now.mono_ns.saturating_add(time::ms(rest_ms));
        self.step = Step::Resting { until_ns: Some(until_ns) };
        let expires_ms = Some(given.expires_ms);
        self.current = Some(Current { credentials: given.credentials, expires_ms });
        Ok(())
    }

    /// The question was not answered.
    pub fn failed(&mut self, now: Now) {
        if self.step == Step::Asking {
            self.retreat(now, Trouble::Unanswered);
        }
    }

    fn retreat(&mut self, now: Now, trouble: Trouble) -> Trouble {
        let pause_ns = time::ms(self.pause_ms());
        self.failures = self.failures.saturating_add(1);
        self.step = Step::Resting { until_ns: Some(now.mono_ns + pause_ns) };
        trouble
    }

    /// Half of it is chance: not all pods at once.
    fn pause_ms(&mut self) -> u64 {
        let most_ms = (PAUSE_MS << self.failures.min(6)).min(PAUSE_MAX_MS);
        most_ms / 2 + self.rng.below(most_ms / 2)
    }
}

#[cfg(test)]
mod tests;
