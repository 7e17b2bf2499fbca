//! Messages in progress. Each has two tasks and is complete when both are.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Id, Now};
use crate::rng::Rng;
use crate::time;

/// Attempts to count a message.
const ATTEMPTS_MAX: u8 = 5;
/// Delay of the first retry; doubled each time. Half of it is jitter.
const PAUSE_MS: u64 = 50;
/// Time after which counting a message is given up.
const GIVE_UP_MS: u64 = 2_000;
/// Memory of a message besides its connection id.
const MESSAGE_BYTES: usize = 128;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Callback,
    Count,
}

#[derive(Debug)]
pub(super) struct PendingMessage {
    /// The HTTP connection that waits for the response.
    pub(super) requester: Id,
    pub(super) connection: Box<str>,
    /// The gateway reported the connection as gone.
    pub(super) gone: bool,
    /// The answer, while it may have to be sent again with another token.
    pub(super) again: Option<Again>,
    began_ns: u64,
    attempts: u8,
    left: Remaining,
}

/// A callback that can be repeated.
#[derive(Debug)]
pub(super) struct Again {
    pub(super) text: Box<str>,
    /// The version of the token that it was sent with.
    pub(super) token: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remaining {
    Both,
    Only(Task),
}

/// All messages in progress, by number.
#[derive(Debug)]
pub(super) struct PendingMessages {
    by_number: BTreeMap<u64, PendingMessage>,
    /// Due time and number of scheduled retries.
    again: BTreeSet<(u64, u64)>,
    next: u64,
    bytes: usize,
    rng: Rng,
}

impl PendingMessages {
    pub(super) fn new(seed: u64) -> Self {
        let (by_number, again) = (BTreeMap::new(), BTreeSet::new());
        Self { by_number, again, next: 0, bytes: 0, rng: Rng::new(seed) }
    }

    pub(super) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn begin(&mut self, now: Now, requester: Id, connection: &str) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += MESSAGE_BYTES + connection.len();
        let message = PendingMessage {
            requester,
            connection: connection.into(),
            gone: false,
            again: None,
            began_ns: now.mono_ns,
            attempts: 0,
            left: Remaining::Both,
        };
        self.by_number.insert(number, message);
        number
    }

    pub(super) fn find(&mut self, number: u64) -> Option<&mut PendingMessage> {
        self.by_number.get_mut(&number)
    }

    /// Keeps the text of the answer for a second attempt.
    pub(super) fn keep_text(&mut self, number: u64, text: &str, token: u64) {
        if let Some(message) = self.by_number.get_mut(&number) {
            self.bytes += text.len();
            message.again = Some(Again { text: text.into(), token });
        }
    }

    /// Takes that text; no further attempt follows.
    pub(super) fn take_text(&mut self, number: u64) -> Option<Box<str>> {
        let Again { text, .. } = self.by_number.get_mut(&number)?.again.take()?;
        self.bytes -= text.len();
        Some(text)
    }

    /// Marks the messages of a connection that is gone; returns whether there are any.
    pub(super) fn mark_gone(&mut self, connection: &str) -> bool {
        let mut found = false;
        for message in self.by_number.values_mut().filter(|m| &*m.connection == connection) {
            (message.gone, found) = (true, true);
        }
        found
    }

    pub(super) fn began_ns(&self, number: u64) -> Option<u64> {
        self.by_number.get(&number).map(|message| message.began_ns)
    }

    /// When counting this message is given up.
    pub(super) fn deadline_ns(&self, number: u64) -> Option<u64> {
        self.began_ns(number).map(|began_ns| began_ns + time::ms(GIVE_UP_MS))
    }

    /// Schedules another attempt to count a message; false after too many or too late.
    pub(super) fn schedule_retry(&mut self, now: Now, number: u64) -> bool {
        let Some(message) = self.by_number.get_mut(&number) else { return false };
        let most_ms = PAUSE_MS << message.attempts;
        let due_ns = now.mono_ns + time::ms(most_ms / 2 + self.rng.below(most_ms / 2));
        message.attempts += 1;
        if message.attempts >= ATTEMPTS_MAX || due_ns >= message.began_ns + time::ms(GIVE_UP_MS) {
            return false;
        }
        self.again.insert((due_ns, number));
        true
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.again.first().map(|(due_ns, _)| *due_ns)
    }

    /// The next message whose retry is due.
    pub(super) fn next_due(&mut self, now: Now) -> Option<u64> {
        self.next_deadline().filter(|due_ns| *due_ns <= now.mono_ns)?;
        self.again.pop_first().map(|(_, number)| number)
    }

    /// Completes a task. Returns the message if it was the last one.
    pub(super) fn finish(&mut self, number: u64, task: Task) -> Option<PendingMessage> {
        let message = self.by_number.get_mut(&number)?;
        match (message.left, task) {
            (Remaining::Both, Task::Callback) => message.left = Remaining::Only(Task::Count),
            (Remaining::Both, Task::Count) => message.left = Remaining::Only(Task::Callback),
            (Remaining::Only(left), _) if left == task => {
                let message = self.by_number.remove(&number)?;
                let text = message.again.as_ref().map_or(0, |again| again.text.len());
                self.bytes -= MESSAGE_BYTES + message.connection.len() + text;
                return Some(message);
            }
            (Remaining::Only(_), _) => {}
        }
        None
    }
}
