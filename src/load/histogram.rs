//! A latency histogram with a relative precision of 0.8 %: from 128 ns on, each octave has 128
//! buckets. A quantile is the middle of its bucket, clamped to the recorded minimum and maximum.

use core::fmt;

/// log2 of the buckets per octave.
const OCTAVE_BITS: u32 = 7;
const OCTAVE: usize = 1 << OCTAVE_BITS;
/// Up to 2^47 ns (39 hours); longer times are counted in the last bucket.
const OCTAVES: usize = END.trailing_zeros() as usize - OCTAVE_BITS as usize;
pub(super) const END: u64 = 1 << 47;
/// More counts than this are no measurement: JSON numbers are not exact beyond it.
pub(super) const COUNT_MAX: u64 = 1 << 53;

/// Counts of values in nanoseconds.
#[derive(Clone)]
pub struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    least: u64,
    most: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let counts = vec![0; OCTAVE * (OCTAVES + 1)].into_boxed_slice();
        Self { counts, total: 0, least: u64::MAX, most: 0 }
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [500, 990].map(|per_mille| self.quantile(per_mille));
        write!(
            f,
            "{} values from {} to {}, p50 {p50}, p99 {p99}",
            self.total,
            self.least(),
            self.most
        )
    }
}

/// Values below `OCTAVE` have a bucket each.
fn bucket(ns: u64) -> usize {
    let shift = (u64::BITS - ns.leading_zeros()).saturating_sub(OCTAVE_BITS + 1);
    (shift as usize * OCTAVE) + (ns >> shift) as usize
}

/// The lowest value of a bucket.
fn low(bucket: usize) -> u64 {
    let shift = (bucket / OCTAVE).saturating_sub(1);
    ((bucket - shift * OCTAVE) as u64) << shift
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    low(bucket) + ((low(bucket + 1) - low(bucket)) >> 1)
}

impl Histogram {
    /// Adds a value.
    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns).min(OCTAVE * (OCTAVES + 1) - 1)] += 1;
        self.total += 1;
        self.least = self.least.min(ns);
        self.most = self.most.max(ns);
    }

    /// Adds `count` values: `first_ns`, and each next one `step_ns` longer.
    pub(super) fn record_series(&mut self, first_ns: u64, step_ns: u64, count: u64) {
        let value = |at: u64| first_ns.saturating_add(at.saturating_mul(step_ns));
        let mut done = 0;
        while done < count {
            // As many as lie in the same bucket.
            let bucket = bucket(value(done)).min(self.counts.len() - 1);
            let end = if bucket + 1 < self.counts.len() { low(bucket + 1) } else { u64::MAX };
            let alike = (end - value(done)).div_ceil(step_ns.max(1)).clamp(1, count - done);
            let alike = if step_ns == 0 || end == u64::MAX { count - done } else { alike };
            self.counts[bucket] += alike;
            done += alike;
        }
        if count > 0 {
            self.total += count;
            self.least = self.least.min(first_ns);
            self.most = self.most.max(value(count - 1));
        }
    }

    /// Adds the values of another one.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    /// The number of values in each bucket.
    pub(super) fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Adds the count of a bucket of an encoded histogram. The error is a clause.
    pub(super) fn put(&mut self, bucket: u64, count: u64) -> Result<(), &'static str> {
        let at = usize::try_from(bucket).ok().filter(|at| *at < self.counts.len());
        let at = at.ok_or("has more buckets than there are")?;
        self.total = self.total.saturating_add(count);
        if self.total > COUNT_MAX {
            return Err("has an absurd number of values");
        }
        if count > 0 {
            self.counts[at] += count;
            self.least = self.least.min(low(at));
            self.most = self.most.max(low(at + 1) - 1);
        }
        Ok(())
    }

    /// Sets the exact minimum and maximum. The error is a clause.
    pub(super) fn set_range(&mut self, least: u64, most: u64) -> Result<(), &'static str> {
        let end = self.counts.len() - 1;
        let same = |one: u64, other: u64| bucket(one).min(end) == bucket(other).min(end);
        if self.total > 0 {
            let sound = least <= most && most <= COUNT_MAX;
            if !sound || !same(least, self.least) || !same(most, self.most) {
                return Err("contradicts its minimum or maximum");
            }
            (self.least, self.most) = (least, most);
        }
        Ok(())
    }

    /// The number of values.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest value; 0 if there is none.
    #[must_use]
    pub fn least(&self) -> u64 {
        self.least.min(self.most)
    }

    /// The largest value; 0 if there is none.
    #[must_use]
    pub fn most(&self) -> u64 {
        self.most
    }

    /// The value that `per_mille` of all values do not exceed; 0 if there is none.
    #[must_use]
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let rank = (u128::from(self.total) * u128::from(per_mille)).div_ceil(1000).max(1);
        let rank = rank as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle(bucket).clamp(self.least(), self.most);
            }
        }
        self.most
    }

    /// The number of values below this one, to the precision of its bucket.
    #[must_use]
    pub fn below(&self, ns: u64) -> u64 {
        self.counts[..bucket(ns).min(self.counts.len())].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn agrees_with_a_sorted_list() {
        let mut rng = Rng::new(7);
        for scale in [100, 1_000, 1_000_000, 40_000_000_000] {
            let mut values: Vec<u64> = (0..5_000).map(|_| rng.below(scale)).collect();
            let mut histogram = Histogram::default();
            for &ns in &values {
                histogram.record(ns);
            }
            values.sort_unstable();
            assert_eq!((histogram.least(), histogram.most()), (values[0], values[4_999]));
            for (per_mille, at) in [(500, 2_499), (900, 4_499), (990, 4_949), (999, 4_994)] {
                let (got, want) = (histogram.quantile(per_mille), values[at]);
                assert!(got.abs_diff(want) <= want / 100 + 1, "{per_mille}: {got}, not {want}");
            }
            let below = values.iter().filter(|&&ns| ns < scale / 2).count() as u64;
            assert!(histogram.below(scale / 2).abs_diff(below) <= 50, "{scale}");
        }
    }

    #[test]
    fn a_series_is_its_values() {
        let mut rng = Rng::new(9);
        for _ in 0..300 {
            let magnitude = rng.below(40);
            let step_magnitude = rng.below(40);
            let (first, step) = (rng.below(1 << magnitude), rng.below(1 << step_magnitude));
            let count = rng.below(200);
            let (mut series, mut each) = (Histogram::default(), Histogram::default());
            series.record_series(first, step, count);
            (0..count).for_each(|at| each.record(first + at * step));
            assert_eq!(series.counts, each.counts, "{first} {step} {count}");
            assert_eq!((series.total, series.most), (each.total, each.most));
            assert_eq!(series.least, each.least);
        }
        let mut endless = Histogram::default();
        endless.record_series(0, 1, u64::MAX / 2);
        endless.record_series(u64::MAX, u64::MAX, 7);
        assert_eq!((endless.total(), endless.most()), (u64::MAX / 2 + 7, u64::MAX));
    }

    #[test]
    fn borders() {
        let mut empty = Histogram::default();
        assert_eq!((empty.quantile(500), empty.least(), empty.most()), (0, 0, 0));
        empty.record(u64::MAX);
        assert_eq!((empty.quantile(500), empty.most()), (u64::MAX, u64::MAX));
        for ns in (0..70_000).chain([1 << 39, (1 << 40) - 1]) {
            let got = middle(bucket(ns));
            assert!(got.abs_diff(ns) <= ns / 128, "{ns}: {got}");
        }
    }
}
