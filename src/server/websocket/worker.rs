//! The single worker of the process (`work=`): handles messages of all connections one after the
//! other in order of arrival, each for its time. It does not block the loop: pings, pushes and
//! probes continue.
//!
//! Messages are queued by their connections. The worker has at most one entry for each connection,
//! for its oldest message, so its size is bounded and entries leave with their connections.

use std::collections::BTreeMap;

use crate::engine::{Id, Now};
use crate::{heap, time};

/// Memory of an entry.
pub(crate) const ENTRY_BYTES: usize = heap::tree_entry::<(u64, Job)>();

#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    id: Id,
    ms: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Worker {
    /// By turn, one for each waiting connection.
    waiting: BTreeMap<u64, Job>,
    current: Option<Current>,
    turns: u64,
}

/// The current message and when it is done. Its connection may be closed meanwhile.
#[derive(Clone, Copy, Debug)]
struct Current {
    turn: u64,
    done_ns: u64,
}

impl Worker {
    /// Assigns a turn to a new message.
    pub(crate) fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    /// Adds the oldest message of a connection without an entry.
    pub(crate) fn add(&mut self, turn: u64, id: Id, ms: u64, now: Now) {
        self.waiting.insert(turn, Job { id, ms });
        self.current.get_or_insert_with(|| Current { turn, done_ns: now.mono_ns + time::ms(ms) });
    }

    /// The connection was closed. If its message is the current one, the worker stays busy.
    pub(crate) fn cancel(&mut self, turn: u64) {
        self.waiting.remove(&turn);
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.current.map(|current| current.done_ns)
    }

    /// Returns a connection whose message is done. The next one counts as begun at that very time,
    /// however late this is called. `next` marks the message as done and returns the next one of
    /// its connection.
    pub(crate) fn finish(
        &mut self,
        now: Now,
        mut next: impl FnMut(Id) -> Option<(u64, u64)>,
    ) -> Option<Id> {
        loop {
            let Current { turn, done_ns } =
                self.current.filter(|current| current.done_ns <= now.mono_ns)?;
            let done = self.waiting.remove(&turn).map(|job| job.id);
            if let Some(id) = done
                && let Some((turn, ms)) = next(id)
            {
                self.waiting.insert(turn, Job { id, ms });
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
