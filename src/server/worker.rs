//! The one worker of the process (`work=`): messages of all connections, strictly one after the
//! other, each for its time. What it works on stays with the connection; here stands whose turn
//! it is. It does not stop the loop: pings, pushes and probes go on.

use std::collections::VecDeque;

use crate::engine::{Id, Now};
use crate::time;

#[derive(Debug, Default)]
pub(super) struct Worker {
    /// The first is being worked on.
    jobs: VecDeque<Job>,
    /// When it will be done.
    done_ns: u64,
}

#[derive(Debug)]
struct Job {
    whose: Id,
    ms: u64,
}

impl Worker {
    pub(super) fn take_on(&mut self, whose: Id, ms: u64, now: Now) {
        if self.jobs.is_empty() {
            self.done_ns = now.mono_ns + time::ms(ms);
        }
        self.jobs.push_back(Job { whose, ms });
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        (!self.jobs.is_empty()).then_some(self.done_ns)
    }

    /// Whose message is done by now. The next one was begun at that very moment, however late
    /// this is asked; those whose connection is gone cost nothing.
    pub(super) fn finish(&mut self, now: Now, lives: impl Fn(Id) -> bool) -> Option<Id> {
        if self.next_deadline()? > now.mono_ns {
            return None;
        }
        let done = self.jobs.pop_front()?;
        while self.jobs.front().is_some_and(|next| !lives(next.whose)) {
            self.jobs.pop_front();
        }
        if let Some(next) = self.jobs.front() {
            self.done_ns += time::ms(next.ms);
        }
        Some(done.whose)
    }
}
