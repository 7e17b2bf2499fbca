//! Counters of a backend, and its request rate.

use std::collections::BTreeMap;

use crate::time::Now;

/// Counters for metrics.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages received.
    pub messages: u64,
    /// Callbacks by status of the gateway; `None`: no response.
    pub callbacks: BTreeMap<Option<u16>, u64>,
    /// Sessions created.
    pub created: u64,
    /// Sessions deleted since their connection ended.
    pub deleted: u64,
    /// Messages not counted and sessions not deleted, by reason.
    pub errors: BTreeMap<&'static str, u64>,
    /// The request rate.
    pub rate: Rate,
}

const WINDOW_S: u64 = 10;

/// Requests per second over the last 10 seconds, for autoscalers.
#[derive(Debug, Default)]
pub struct Rate {
    /// A ring of counts by second, including the current one.
    counts: [u32; WINDOW_S as usize + 1],
    second: u64,
    total: u64,
}

impl Rate {
    /// Counts a request.
    pub fn count(&mut self, now: Now) {
        self.advance(now);
        self.counts[slot(self.second)] += 1;
        self.total += 1;
    }

    /// Requests since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The rate over the complete seconds of the window.
    #[must_use]
    pub fn per_second(&self, now: Now) -> f64 {
        let present = now.mono_ns / 1_000_000_000;
        let over = (present.saturating_sub(WINDOW_S)..present)
            .filter(|second| *second <= self.second && self.second - second <= WINDOW_S);
        let count: u64 = over.map(|second| u64::from(self.counts[slot(second)])).sum();
        count as f64 / WINDOW_S as f64
    }

    fn advance(&mut self, now: Now) {
        let present = now.mono_ns / 1_000_000_000;
        let passed = present.saturating_sub(self.second).min(WINDOW_S + 1);
        for ago in 0..passed {
            self.counts[slot(present - ago)] = 0;
        }
        self.second = self.second.max(present);
    }
}

fn slot(second: u64) -> usize {
    (second % (WINDOW_S + 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_ten_seconds() {
        let at = |s: u64| Now { mono_ns: s * 1_000_000_000 + 5, wall_ms: 0 };
        let mut rate = Rate::default();
        for second in 100..130 {
            for _ in 0..20 {
                rate.count(at(second));
            }
        }
        let shown = |rate: &Rate, second| format!("{:.1}", rate.per_second(at(second)));
        assert_eq!(rate.total(), 600);
        assert_eq!([shown(&rate, 129), shown(&rate, 130)], ["20.0", "20.0"]);
        assert_eq!([135, 139, 140].map(|second| shown(&rate, second)), ["10.0", "2.0", "0.0"]);
        rate.count(at(1000));
        assert_eq!([shown(&rate, 1000), shown(&rate, 1001)], ["0.0", "0.1"]);
    }
}
