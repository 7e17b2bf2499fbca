//! What is known of the table: whether it is there, whether it answers, and when it is asked next
//! after it did not. The questions themselves are `aws::dynamodb`'s.

use super::Wanted;
use crate::aws::dynamodb::{self, Fault, Operation};
use crate::rng::Rng;
use crate::time::{self, Now};

/// So many failures in a row, and messages are no longer counted until it answers again.
const FAILURES_MAX: u32 = 5;
/// Between two looks at it while it fails; doubled each time.
const PAUSE_MS: u64 = 1_000;
const PAUSE_MAX_MS: u64 = 30_000;
/// Between two looks while it is being made.
const MAKING_MS: u64 = 500;

/// A table.
#[derive(Debug)]
pub(in crate::parts::backend) struct Table {
    pub(in crate::parts::backend) wanted: Wanted,
    step: Step,
    /// Whether it was ever seen.
    seen: Seen,
    /// Why it does not do what it should.
    ails: Option<&'static str>,
    failures: u32,
    pauses: u32,
    rng: Rng,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is nothing to find out.
    Idle,
    /// This is to be asked.
    Wants(Operation),
    Asked(Operation),
    Rests {
        until_ns: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Never,
    Yes,
}

/// What an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::parts::backend) enum Event {
    /// It is there.
    Ready,
    /// It was made.
    Made,
    /// Nobody knows, but it may be.
    Unknown(String),
    /// It does not answer, or not as it should: for the first time.
    Ails(String),
    /// It does again.
    Well,
    /// Its items do not expire by themselves.
    NoExpiry(String),
    /// There is no use in going on.
    Hopeless(String),
}

impl Table {
    pub(in crate::parts::backend) fn new(wanted: Wanted, seed: u64) -> Self {
        Self {
            wanted,
            step: Step::Wants(Operation::DescribeTable),
            seen: Seen::Never,
            ails: None,
            failures: 0,
            pauses: 0,
            rng: Rng::new(seed),
        }
    }

    /// Whether messages are counted, as far as anybody knows.
    pub(in crate::parts::backend) fn ails(&self) -> bool {
        self.ails.is_some()
    }

    /// Whether it is not worth asking before somebody has looked.
    pub(in crate::parts::backend) fn is_down(&self) -> bool {
        self.failures >= FAILURES_MAX && self.step != Step::Idle
    }

    /// What is to be asked now.
    pub(in crate::parts::backend) fn poll(&mut self) -> Option<Operation> {
        let Step::Wants(operation) = self.step else { return None };
        self.step = Step::Asked(operation);
        Some(operation)
    }

    pub(in crate::parts::backend) fn next_deadline(&self) -> Option<u64> {
        match self.step {
            Step::Rests { until_ns } => Some(until_ns),
            Step::Idle | Step::Wants(_) | Step::Asked(_) => None,
        }
    }

    pub(in crate::parts::backend) fn fire(&mut self, now: Now) {
        if self.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            self.step = Step::Wants(Operation::DescribeTable);
        }
    }

    /// A message was counted.
    pub(in crate::parts::backend) fn counted(&mut self) -> Option<Event> {
        self.failures = 0;
        self.recovered()
    }

    /// A message was not.
    pub(in crate::parts::backend) fn not_counted(
        &mut self,
        now: Now,
        why: &str,
        name: &'static str,
    ) -> Option<Event> {
        self.failures = self.failures.saturating_add(1);
        // A look at it says nothing about what its credentials may do, or about our questions.
        let tells = !matches!(name, "denied" | "invalid");
        if !tells {
            self.failures = self.failures.min(FAILURES_MAX - 1);
        }
        if self.step == Step::Idle && tells {
            self.rest(now);
        }
        self.fell_ill(name, why)
    }

    /// There are no credentials to ask it with.
    pub(in crate::parts::backend) fn locked_out(&mut self, why: &str) -> Option<Event> {
        self.fell_ill("credentials", why)
    }

    /// What came of what was asked; `Err` also when nobody answered.
    pub(in crate::parts::backend) fn heard(
        &mut self,
        now: Now,
        operation: Operation,
        how: Result<(u16, &[u8]), String>,
    ) -> Option<Event> {
        if self.step != Step::Asked(operation) {
            return None;
        }
        let (status, body) = match how {
            Ok(answer) => answer,
            Err(why) => {
                self.rest(now);
                return self.fell_ill("unanswered", &why);
            }
        };
        match operation {
            Operation::CreateTable => self.created(now, dynamodb::done(status, body)),
            Operation::UpdateTimeToLive => {
                self.step = Step::Idle;
                // It is on already, says whoever is asked a second time.
                let told = dynamodb::done(status, body).err()?;
                let on = told == Fault::Invalid("ValidationException".to_owned());
                (!on).then(|| Event::NoExpiry(told.to_string()))
            }
            Operation::DescribeTable => self.described(now, dynamodb::described(status, body)),
            Operation::UpdateItem | Operation::DeleteItem => None,
        }
    }

    fn created(&mut self, now: Now, how: Result<(), Fault>) -> Option<Event> {
        match how {
            // Somebody else was faster.
            Ok(()) | Err(Fault::Busy) => {
                self.step = Step::Rests { until_ns: now.mono_ns + time::ms(MAKING_MS) };
                how.is_ok().then_some(Event::Made)
            }
            Err(fault @ (Fault::Denied(_) | Fault::Invalid(_))) => {
                let name = &self.wanted.name;
                Some(Event::Hopeless(format!("--create-table: cannot make {name}: {fault}")))
            }
            Err(fault) => {
                self.rest(now);
                self.fell_ill(fault.name(), &fault.to_string())
            }
        }
    }

    fn described(&mut self, now: Now, how: Result<dynamodb::TableState, Fault>) -> Option<Event> {
        let Wanted { name, region, endpoint, create } = &self.wanted;
        match how {
            Ok(dynamodb::TableState::Ready) => {
                let first = self.seen == Seen::Never;
                self.seen = Seen::Yes;
                let expiry = first && *create;
                let next = Step::Wants(Operation::UpdateTimeToLive);
                self.step = if expiry { next } else { Step::Idle };
                self.failures = 0;
                if matches!(self.ails, Some("denied" | "invalid")) {
                    return None;
                }
                let well = self.recovered();
                if first { Some(Event::Ready) } else { well }
            }
            Ok(dynamodb::TableState::Busy) => {
                self.step = Step::Rests { until_ns: now.mono_ns + time::ms(MAKING_MS) };
                None
            }
            Ok(dynamodb::TableState::OtherKey) => Some(Event::Hopeless(format!(
                "--sessions: the table {name} has another key: it needs the partition key {} \
                 of type S, and no sort key",
                dynamodb::KEY
            ))),
            Err(Fault::NoTable) if *create => {
                self.step = Step::Wants(Operation::CreateTable);
                None
            }
            Err(Fault::NoTable) if self.seen == Seen::Never => Some(Event::Hopeless(format!(
                "--sessions: there is no table {name} in {region} at {}: create it, or let \
                 --create-table do that",
                endpoint.host
            ))),
            Err(fault @ Fault::Denied(_)) => {
                self.step = Step::Idle;
                (self.seen == Seen::Never).then(|| Event::Unknown(fault.to_string()))
            }
            Err(fault) => {
                self.rest(now);
                self.fell_ill(fault.name(), &fault.to_string())
            }
        }
    }

    fn rest(&mut self, now: Now) {
        let most_ms = (PAUSE_MS << self.pauses.min(5)).min(PAUSE_MAX_MS);
        self.pauses = self.pauses.saturating_add(1);
        // Half of it is chance: not all backends at once.
        let pause_ms = most_ms / 2 + self.rng.below(most_ms / 2);
        self.step = Step::Rests { until_ns: now.mono_ns + time::ms(pause_ms) };
    }

    fn fell_ill(&mut self, name: &'static str, why: &str) -> Option<Event> {
        let first = self.ails.replace(name).is_none();
        first.then(|| Event::Ails(why.to_owned()))
    }

    fn recovered(&mut self) -> Option<Event> {
        self.pauses = 0;
        self.ails.take().map(|_| Event::Well)
    }
}
