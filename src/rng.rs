//! Seeded random numbers, so that a run can be repeated: for jitter and order, never for ids.

/// A generator of which equal seeds give equal sequences.
#[derive(Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Starts the sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number in `0..end`, or 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.0.u64(..end) }
    }

    /// `value` ± `percent` of it.
    pub fn around(&mut self, value: u64, percent: u64) -> u64 {
        let spread = value.saturating_mul(percent) / 100;
        value - spread + self.below(2 * spread + 1)
    }

    /// Shuffles the items in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
