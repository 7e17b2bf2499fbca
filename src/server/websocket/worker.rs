//! The one worker of the process (`work=`): messages of all connections, strictly one after the
//! other in the order in which they came, each for its time. It does not stop the loop: pings,
//! pushes and probes go on.
//!
//! A message is kept by its connection. The worker has one entry for each connection that waits,
//! for its oldest message: what a connection has in here is bounded and leaves with it.

use std::collections::BTreeMap;

use crate::engine::{Id, Now};
use crate::{heap, time};

/// What a connection that waits costs in here.
pub(in crate::server) const ENTRY_BYTES: usize = heap::tree_entry::<(u64, Job)>();

/// The oldest message of a connection, and how long it takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::server) struct Job {
    whose: Id,
    ms: u64,
}

#[derive(Debug, Default)]
pub(in crate::server) struct Worker {
    /// The oldest message of each connection that waits.
    waiting: BTreeMap<u64, Job>,
    current: Option<Current>,
    turns: u64,
}

/// What is being worked on, and until when. Its connection may have left meanwhile.
#[derive(Clone, Copy, Debug)]
struct Current {
    turn: u64,
    done_ns: u64,
}

impl Worker {
    /// The turn of a message that came just now.
    pub(in crate::server) fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Takes in the oldest message of a connection that has none in here.
    pub(in crate::server) fn enter(&mut self, turn: u64, whose: Id, ms: u64, now: Now) {
        self.waiting.insert(turn, Job { whose, ms });
        self.current.get_or_insert_with(|| Current { turn, done_ns: now.mono_ns + time::ms(ms) });
    }

    /// The connection has left. What is being worked on for it takes its time all the same.
    pub(in crate::server) fn leave(&mut self, turn: u64) {
        self.waiting.remove(&turn);
    }

    pub(in crate::server) fn next_deadline(&self) -> Option<u64> {
        self.current.map(|current| current.done_ns)
    }

    /// Whose message is done by now. The next one was begun at that very moment, however late this
    /// is asked; `next` takes note that a connection's message is done, and tells its next one.
    pub(in crate::server) fn finish(
        &mut self,
        now: Now,
        mut next: impl FnMut(Id) -> Option<(u64, u64)>,
    ) -> Option<Id> {
        loop {
            let Current { turn, done_ns } =
                self.current.filter(|current| current.done_ns <= now.mono_ns)?;
            let done = self.waiting.remove(&turn).map(|job| job.whose);
            if let Some(whose) = done
                && let Some((turn, ms)) = next(whose)
            {
                self.waiting.insert(turn, Job { whose, ms });
            }
            let first = self.waiting.first_key_value();
            self.current = first
                .map(|(turn, job)| Current { turn: *turn, done_ns: done_ns + time::ms(job.ms) });
            if done.is_some() {
                return done;
            }
        }
    }
}
