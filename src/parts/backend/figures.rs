//! What a backend counts, and how many requests there were lately.

use std::collections::BTreeMap;

use crate::time::Now;

/// What is counted.
#[derive(Debug, Default)]
pub struct Figures {
    /// Messages of clients.
    pub messages: u64,
    /// Answers to clients, by what the gateway said; `None`: nothing.
    pub callbacks: BTreeMap<Option<u16>, u64>,
    /// Sessions that began.
    pub created: u64,
    /// Sessions that ended, since the gateway does not know the connection any more.
    pub deleted: u64,
    /// Messages that were not counted in their session, and sessions that were not deleted.
    pub errors: BTreeMap<&'static str, u64>,
    /// Requests lately.
    pub rate: Rate,
}

/// Seconds over which a rate is taken.
const WINDOW_S: u64 = 10;

/// Requests of the last seconds: for an autoscaler, which looks every few of them.
#[derive(Debug, Default)]
pub struct Rate {
    /// By second, round and round; the present one is not over.
    counts: [u32; WINDOW_S as usize + 1],
    second: u64,
    total: u64,
}

impl Rate {
    /// One more.
    pub fn count(&mut self, now: Now) {
        self.advance(now);
        self.counts[place(self.second)] += 1;
        self.total += 1;
    }

    /// Since the start.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// In a second, over those that are over.
    #[must_use]
    pub fn per_second(&self, now: Now) -> f64 {
        let present = now.mono_ns / 1_000_000_000;
        let over = (present.saturating_sub(WINDOW_S)..present)
            .filter(|second| *second <= self.second && self.second - second <= WINDOW_S);
        let count: u64 = over.map(|second| u64::from(self.counts[place(second)])).sum();
        count as f64 / WINDOW_S as f64
    }

    fn advance(&mut self, now: Now) {
        let present = now.mono_ns / 1_000_000_000;
        let passed = present.saturating_sub(self.second).min(WINDOW_S + 1);
        for ago in 0..passed {
            self.counts[place(present - ago)] = 0;
        }
        self.second = self.second.max(present);
    }
}

fn place(second: u64) -> usize {
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
