//! How long to leave an API server alone that does not serve us: longer each time, and not all
//! of its clients at once.

use super::limits::{BACKOFF_MS_MAX, BACKOFF_MS_MIN};
use crate::rng::Rng;

/// The shortest pause: jitter must not make a failure free.
const PAUSE_MS_MIN: u64 = 50;

#[derive(Debug)]
pub(super) struct Backoff {
    next_ms: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next_ms: BACKOFF_MS_MIN }
    }
}

impl Backoff {
    /// The next pause, somewhere below what it has grown to.
    pub(super) fn pause_ms(&mut self, rng: &mut Rng) -> u64 {
        let most = self.next_ms;
        self.next_ms = (most * 2).min(BACKOFF_MS_MAX);
        rng.below(most + 1).max(PAUSE_MS_MIN)
    }

    /// Whether nothing has failed for a while.
    pub(super) fn is_fresh(&self) -> bool {
        self.next_ms == BACKOFF_MS_MIN
    }

    /// It served us well for a while.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
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
