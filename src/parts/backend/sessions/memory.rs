//! Sessions in memory: a bounded number, each for a bounded time.

use std::collections::BTreeMap;

use super::KEEP_MS;
use crate::time::{self, Now};

/// Maximum sessions; beyond, the least recently used one is removed.
pub const SESSIONS_MAX: usize = 32_768;
/// Memory of a session besides its name, which is stored twice.
const SESSION_BYTES: usize = 160;

/// The sessions of one process.
#[derive(Debug, Default)]
pub struct Memory {
    by_name: BTreeMap<Box<str>, Session>,
    /// Names by time of the last message and a unique number.
    by_age: BTreeMap<(u64, u64), Box<str>>,
    next: u64,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    messages: u64,
    age: (u64, u64),
}

impl Memory {
    /// Counts a message. Returns the session's message count.
    pub fn count(&mut self, now: Now, name: &str) -> u64 {
        self.forget_old(now);
        let age = (now.mono_ns, self.next);
        self.next += 1;
        if let Some(session) = self.by_name.get_mut(name) {
            session.messages += 1;
            if let Some(name) = self.by_age.remove(&session.age) {
                self.by_age.insert(age, name);
            }
            session.age = age;
            return session.messages;
        }
        if self.by_name.len() >= SESSIONS_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_name.remove(&oldest);
            self.bytes -= cost(&oldest);
        }
        self.bytes += cost(name);
        self.by_name.insert(name.into(), Session { messages: 1, age });
        self.by_age.insert(age, name.into());
        1
    }

    /// Removes a session.
    pub fn remove(&mut self, name: &str) {
        if let Some(session) = self.by_name.remove(name) {
            self.by_age.remove(&session.age);
            self.bytes -= cost(name);
        }
    }

    /// The number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are no sessions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Memory of all sessions.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest session expires.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let (&(heard_ns, _), _) = self.by_age.first_key_value()?;
        Some(heard_ns + time::ms(KEEP_MS))
    }

    pub(crate) fn forget_old(&mut self, now: Now) {
        while self.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            let Some((_, oldest)) = self.by_age.pop_first() else { return };
            self.by_name.remove(&oldest);
            self.bytes -= cost(&oldest);
        }
    }
}

fn cost(name: &str) -> usize {
    SESSION_BYTES + 2 * name.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    #[test]
    fn sessions_count_and_expire() {
        let mut sessions = Memory::default();
        assert_eq!(sessions.count(at(0), "a"), 1);
        assert_eq!(sessions.count(at(0), "b"), 1);
        assert_eq!(sessions.count(at(1_000), "a"), 2);
        assert_eq!(sessions.next_deadline(), Some(time::ms(KEEP_MS)));
        sessions.forget_old(at(KEEP_MS));
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions.count(at(KEEP_MS), "b"), 1);
        assert_eq!(sessions.count(at(KEEP_MS), "a"), 3);
        sessions.remove("a");
        sessions.remove("a");
        sessions.remove("b");
        assert!(sessions.is_empty());
        assert_eq!((sessions.bytes(), sessions.next_deadline()), (0, None));
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let mut sessions = Memory::default();
        for i in 0..SESSIONS_MAX + 10 {
            sessions.count(at(i as u64 / 100), &i.to_string());
            sessions.count(at(i as u64 / 100), "always");
        }
        assert_eq!(sessions.len(), SESSIONS_MAX);
        assert!(sessions.bytes() < SESSIONS_MAX * 200);
        assert_eq!(sessions.count(at(9_999), "0"), 1);
        assert!(sessions.count(at(9_999), "always") > SESSIONS_MAX as u64);
    }
}
