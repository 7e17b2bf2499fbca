//! Exponential backoff with full jitter.

use super::limits::{BACKOFF_MS_MAX, BACKOFF_MS_MIN};
use crate::rng::Rng;

/// Shortest pause, so that jitter never leads to an immediate retry.
const PAUSE_MS_MIN: u64 = 50;

#[derive(Debug)]
pub(super) struct Backoff {
    next_ms: u64,
    /// Whether a version has expired since the last reset.
    has_expired: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next_ms: BACKOFF_MS_MIN, has_expired: false }
    }
}

impl Backoff {
    /// A random pause up to the current maximum, which then doubles.
    pub(super) fn pause_ms(&mut self, rng: &mut Rng) -> u64 {
        let most = self.next_ms;
        self.next_ms = (most * 2).min(BACKOFF_MS_MAX);
        rng.below(most + 1).max(PAUSE_MS_MIN)
    }

    /// Whether this is the first failure since the last reset, which is no reason to wait.
    pub(super) fn forgives(&mut self, rng: &mut Rng) -> bool {
        let is_first = self.next_ms == BACKOFF_MS_MIN;
        if is_first {
            self.pause_ms(rng);
        }
        is_first
    }

    /// Whether this is the first version to expire since the last reset. That a server forgets
    /// versions while it is down is no reason to wait once it answers.
    pub(super) fn forgives_expiry(&mut self, rng: &mut Rng) -> bool {
        let is_first_failure = self.forgives(rng);
        !std::mem::replace(&mut self.has_expired, true) || is_first_failure
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let mut rng = Rng::new(7);
        let mut longest = [0; 10];
        for _ in 0..200 {
            let mut backoff = Backoff::default();
            for most in &mut longest {
                *most = backoff.pause_ms(&mut rng).max(*most);
            }
        }
        let bounds = [800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000, 30_000];
        for (longest, bound) in longest.into_iter().zip(bounds) {
            assert!(longest <= bound && longest > bound * 9 / 10, "{longest} of {bound}");
        }
    }
}
