//! Randomness from a seed, so that a run can be repeated: for jitter and order, never for ids.

/// A seeded generator.
#[derive(Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number in `0..end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.u64(..end) }
    }

    /// `value` ± `percent` of it.
    pub fn around(&mut self, value: u64, percent: u64) -> u64 {
        let spread = value.saturating_mul(percent) / 100;
        value - spread + self.below(2 * spread + 1)
    }

    /// Puts the items into random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
