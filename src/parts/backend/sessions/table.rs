//! The state of the session table: whether it exists and responds, and when to check it again
//! after failures. `aws::dynamodb` has the requests.

use super::TableConfig;
use crate::aws::dynamodb::{self, Fault, Operation};
use crate::rng::Rng;
use crate::time::{self, Now};

/// Consecutive failures after which messages are not counted until a check succeeds.
const FAILURES_MAX: u32 = 5;
/// Initial interval between checks while the table fails; doubled each time.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 30_000;
/// Interval between checks while the table is being created.
const CREATING_MS: u64 = 500;

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) config: TableConfig,
    state: State,
    /// Whether the table was ever ready.
    seen: Seen,
    /// Why the table is degraded, as a metric label.
    degraded: Option<&'static str>,
    failures: u32,
    pauses: u32,
    rng: Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No check is needed.
    Idle,
    /// This request is due.
    ToSend(Operation),
    Sent(Operation),
    Waiting {
        until_ns: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Never,
    Yes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Ready,
    /// `CreateTable` was accepted.
    Created,
    /// The credentials do not permit a check.
    Unknown(String),
    /// The table has become unavailable.
    Degraded(String),
    /// The table is available again.
    Recovered,
    /// Expiry of items could not be enabled.
    NoExpiry(String),
    /// The process must exit.
    Fatal(String),
}

impl Table {
    pub(crate) fn new(config: TableConfig, seed: u64) -> Self {
        Self {
            config,
            state: State::ToSend(Operation::DescribeTable),
            seen: Seen::Never,
            degraded: None,
            failures: 0,
            pauses: 0,
            rng: Rng::new(seed),
        }
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded.is_some()
    }

    /// Whether to count no messages until a check succeeds.
    pub(crate) fn is_down(&self) -> bool {
        self.failures >= FAILURES_MAX && self.state != State::Idle
    }

    /// The next request about the table itself.
    pub(crate) fn poll(&mut self) -> Option<Operation> {
        let State::ToSend(operation) = self.state else { return None };
        self.state = State::Sent(operation);
        Some(operation)
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ns } => Some(until_ns),
            State::Idle | State::ToSend(_) | State::Sent(_) => None,
        }
    }

    pub(crate) fn fire(&mut self, now: Now) {
        if self.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.state = State::ToSend(Operation::DescribeTable);
        }
    }

    pub(crate) fn counted(&mut self) -> Option<Event> {
        self.failures = 0;
        self.recovered()
    }

    pub(crate) fn not_counted(&mut self, now: Now, why: &str, name: &'static str) -> Option<Event> {
        self.failures = self.failures.saturating_add(1);
        // Checking the table would not show whether permissions or requests have been fixed.
        let can_check = !matches!(name, "denied" | "invalid");
        if !can_check {
            self.failures = self.failures.min(FAILURES_MAX - 1);
        }
        if self.state == State::Idle && can_check {
            self.back_off(now);
        }
        self.degrade(name, why)
    }

    /// There are no credentials to sign requests with.
    pub(crate) fn no_credentials(&mut self, why: &str) -> Option<Event> {
        self.degrade("credentials", why)
    }

    /// The response to a request of [`Table::poll`]; `Err` if there is none.
    pub(crate) fn received(
        &mut self,
        now: Now,
        operation: Operation,
        how: Result<(u16, &[u8]), String>,
    ) -> Option<Event> {
        if self.state != State::Sent(operation) {
            return None;
        }
        let (status, body) = match how {
            Ok(answer) => answer,
            Err(why) => {
                self.back_off(now);
                return self.degrade("unanswered", &why);
            }
        };
        match operation {
            Operation::CreateTable => self.created(now, dynamodb::done(status, body)),
            Operation::UpdateTimeToLive => {
                self.state = State::Idle;
                // `ValidationException` means that expiry is already enabled.
                let fault = dynamodb::done(status, body).err()?;
                let is_enabled = fault == Fault::Invalid("ValidationException".to_owned());
                (!is_enabled).then(|| Event::NoExpiry(fault.to_string()))
            }
            Operation::DescribeTable => self.described(now, dynamodb::described(status, body)),
            Operation::UpdateItem | Operation::DeleteItem => None,
        }
    }

    fn created(&mut self, now: Now, how: Result<(), Fault>) -> Option<Event> {
        match how {
            // Busy: another backend is creating it.
            Ok(()) | Err(Fault::Busy) => {
                self.state = State::Waiting { until_ns: now.mono_ns + time::ms(CREATING_MS) };
                how.is_ok().then_some(Event::Created)
            }
            Err(fault @ (Fault::Denied(_) | Fault::Invalid(_))) => {
                let name = &self.config.name;
                Some(Event::Fatal(format!("--create-table: cannot create table {name}: {fault}")))
            }
            Err(fault) => {
                self.back_off(now);
                self.degrade(fault.name(), &fault.to_string())
            }
        }
    }

    fn described(&mut self, now: Now, how: Result<dynamodb::TableState, Fault>) -> Option<Event> {
        let TableConfig { name, region, endpoint, create } = &self.config;
        match how {
            Ok(dynamodb::TableState::Ready) => {
                let first = self.seen == Seen::Never;
                self.seen = Seen::Yes;
                let expiry = first && *create;
                let next = State::ToSend(Operation::UpdateTimeToLive);
                self.state = if expiry { next } else { State::Idle };
                self.failures = 0;
                if matches!(self.degraded, Some("denied" | "invalid")) {
                    return None;
                }
                let recovered = self.recovered();
                if first { Some(Event::Ready) } else { recovered }
            }
            Ok(dynamodb::TableState::Busy) => {
                self.state = State::Waiting { until_ns: now.mono_ns + time::ms(CREATING_MS) };
                None
            }
            Ok(dynamodb::TableState::OtherKey) => Some(Event::Fatal(format!(
                "--sessions: table {name} has a different primary key: it needs the partition key \
                 {} of type S and no sort key",
                dynamodb::KEY
            ))),
            Err(Fault::NoTable) if *create => {
                self.state = State::ToSend(Operation::CreateTable);
                None
            }
            Err(Fault::NoTable) if self.seen == Seen::Never => Some(Event::Fatal(format!(
                "--sessions: table {name} does not exist in {region} at {}: create it or use \
                 --create-table",
                endpoint.host
            ))),
            Err(fault @ Fault::Denied(_)) => {
                self.state = State::Idle;
                (self.seen == Seen::Never).then(|| Event::Unknown(fault.to_string()))
            }
            Err(fault) => {
                self.back_off(now);
                self.degrade(fault.name(), &fault.to_string())
            }
        }
    }

    fn back_off(&mut self, now: Now) {
        let most_ms = (PAUSE_MS << self.pauses.min(5)).min(PAUSE_MAX_MS);
        self.pauses = self.pauses.saturating_add(1);
        // Half of the delay is jitter, so that not all backends retry at once.
        let pause_ms = most_ms / 2 + self.rng.below(most_ms / 2);
        self.state = State::Waiting { until_ns: now.mono_ns + time::ms(pause_ms) };
    }

    fn degrade(&mut self, name: &'static str, why: &str) -> Option<Event> {
        let first = self.degraded.replace(name).is_none();
        first.then(|| Event::Degraded(why.to_owned()))
    }

    fn recovered(&mut self) -> Option<Event> {
        self.pauses = 0;
        self.degraded.take().map(|_| Event::Recovered)
    }
}
