//! Messages in hand: each has two halves of work, and is done when both are over.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::{Id, Now};
use crate::rng::Rng;
use crate::time;

/// How often a message is tried to be counted.
const TRIES_MAX: u8 = 5;
/// Before the second try; doubled each time. Half of it is chance.
const PAUSE_MS: u64 = 50;
/// After so long, a message is not tried again.
const PATIENCE_MS: u64 = 2_000;
/// What one costs beside its connection's name.
const HAND_BYTES: usize = 128;

/// A half of a message's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// Its client is answered.
    Callback,
    /// It is counted.
    Count,
}

/// A message in hand.
#[derive(Debug)]
pub(super) struct Hand {
    /// Whose request it was.
    pub(super) whose: Id,
    pub(super) connection: Box<str>,
    /// The gateway does not know the connection.
    pub(super) gone: bool,
    began_ns: u64,
    tries: u8,
    left: Left,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Both,
    Only(Half),
}

/// All of them.
#[derive(Debug)]
pub(super) struct Hands {
    by_number: BTreeMap<u64, Hand>,
    /// When which is to be counted once more.
    again: BTreeSet<(u64, u64)>,
    next: u64,
    bytes: usize,
    rng: Rng,
}

impl Hands {
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

    pub(super) fn begin(&mut self, now: Now, whose: Id, connection: &str) -> u64 {
        let number = self.next;
        self.next += 1;
        self.bytes += HAND_BYTES + connection.len();
        let hand = Hand {
            whose,
            connection: connection.into(),
            gone: false,
            began_ns: now.mono_ns,
            tries: 0,
            left: Left::Both,
        };
        self.by_number.insert(number, hand);
        number
    }

    pub(super) fn find(&mut self, number: u64) -> Option<&mut Hand> {
        self.by_number.get_mut(&number)
    }

    /// When it is given up to count a message, as long as it is in hand.
    pub(super) fn deadline_ns(&self, number: u64) -> Option<u64> {
        self.by_number.get(&number).map(|hand| hand.began_ns + time::ms(PATIENCE_MS))
    }

    /// Tries it again after a pause; false: it was tried often enough, or too late.
    pub(super) fn try_again(&mut self, now: Now, number: u64) -> bool {
        let Some(hand) = self.by_number.get_mut(&number) else { return false };
        let most_ms = PAUSE_MS << hand.tries;
        let due_ns = now.mono_ns + time::ms(most_ms / 2 + self.rng.below(most_ms / 2));
        hand.tries += 1;
        if hand.tries >= TRIES_MAX || due_ns >= hand.began_ns + time::ms(PATIENCE_MS) {
            return false;
        }
        self.again.insert((due_ns, number));
        true
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.again.first().map(|(due_ns, _)| *due_ns)
    }

    /// The next that is to be counted once more.
    pub(super) fn next_due(&mut self, now: Now) -> Option<u64> {
        self.next_deadline().filter(|due_ns| *due_ns <= now.mono_ns)?;
        self.again.pop_first().map(|(_, number)| number)
    }

    /// One half is over: the message, if that was the last one.
    pub(super) fn finish(&mut self, number: u64, half: Half) -> Option<Hand> {
        let hand = self.by_number.get_mut(&number)?;
        match (hand.left, half) {
            (Left::Both, Half::Callback) => hand.left = Left::Only(Half::Count),
            (Left::Both, Half::Count) => hand.left = Left::Only(Half::Callback),
            (Left::Only(left), _) if left == half => {
                let hand = self.by_number.remove(&number)?;
                self.bytes -= HAND_BYTES + hand.connection.len();
                return Some(hand);
            }
            (Left::Only(_), _) => {}
        }
        None
    }
}
