//! Clients that reconnect: when each tries again, how long it was disconnected, and the highest
//! rate of attempts of all clients.

use super::backlog::Backlog;
use crate::engine::Now;
use crate::rng::Rng;
use crate::time;
use crate::timers::Timers;

/// The first attempt is within this time, the second within twice as much, and so on.
const BACKOFF_MIN_MS: u64 = 250;
/// The longest time between two attempts.
const BACKOFF_MAX_MS: u64 = 5_000;

#[derive(Debug, Default)]
pub(super) struct Reconnects {
    clients: Vec<Record>,
    /// Keyed by the client's number.
    timers: Timers,
    waiting: usize,
    /// A client that was disconnected for longer gives up.
    patience_ns: u64,
    rate: AttemptRate,
}

#[derive(Clone, Debug, Default)]
struct Record {
    state: State,
    attempts: u32,
    /// Where the next connection continues.
    backlog: Backlog,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Not connected yet.
    #[default]
    New,
    Up,
    Down {
        since_ns: u64,
    },
    /// Will not reconnect.
    Done,
}

impl Reconnects {
    pub(super) fn new(clients: usize, patience_ns: u64) -> Self {
        Self { clients: vec![Record::default(); clients], patience_ns, ..Self::default() }
    }

    fn record(&mut self, number: u64) -> Option<&mut Record> {
        self.clients.get_mut(usize::try_from(number).ok()?)
    }

    /// Records a connection. Returns how long the client was disconnected; `None` the first time.
    pub(super) fn opened(&mut self, number: u64, now: Now) -> Option<u64> {
        let record = self.record(number)?;
        let since = std::mem::replace(&mut record.state, State::Up);
        record.attempts = 0;
        match since {
            State::Down { since_ns } => Some(now.mono_ns.saturating_sub(since_ns)),
            State::New | State::Up | State::Done => None,
        }
    }

    /// What earlier connections of this client left.
    pub(super) fn take_backlog(&mut self, number: u64) -> Backlog {
        self.record(number).map_or_else(Backlog::default, |r| std::mem::take(&mut r.backlog))
    }

    /// What the clients left that wait for their next attempt.
    pub(super) fn backlogs(&mut self) -> impl Iterator<Item = Backlog> {
        self.clients.iter_mut().map(|record| std::mem::take(&mut record.backlog))
    }

    /// A connection ended or an attempt failed. Schedules the next attempt, unless the client was
    /// never connected, is done, or gives up: then it returns the backlog.
    pub(super) fn lost(
        &mut self,
        number: u64,
        backlog: Backlog,
        since_ns: u64,
        now: Now,
        rng: &mut Rng,
    ) -> Option<Backlog> {
        let patience_ns = self.patience_ns;
        let Some(record) = self.record(number) else { return Some(backlog) };
        match record.state {
            State::New | State::Done => return Some(backlog),
            State::Up => record.state = State::Down { since_ns },
            State::Down { since_ns } if now.mono_ns - since_ns > patience_ns => {
                return Some(backlog);
            }
            State::Down { .. } => {}
        }
        record.backlog = backlog;
        let within_ms = (BACKOFF_MIN_MS << record.attempts.min(10)).min(BACKOFF_MAX_MS);
        record.attempts += 1;
        let at_ns = now.mono_ns + time::ms(rng.below(within_ms));
        // A client's number is less than their count, which a timer's key has room for.
        if let Ok(key) = u32::try_from(number) {
            self.timers.set(key, at_ns);
            self.waiting += 1;
        }
        None
    }

    /// Whether the client was connected and is not now.
    pub(super) fn is_down(&self, number: u64) -> bool {
        let record = usize::try_from(number).ok().and_then(|number| self.clients.get(number));
        record.is_some_and(|record| matches!(record.state, State::Down { .. }))
    }

    pub(super) fn done(&mut self, number: u64) {
        if let Some(record) = self.record(number) {
            record.state = State::Done;
        }
    }

    /// The next client whose attempt is due.
    pub(super) fn due(&mut self, now: Now) -> Option<u64> {
        let key = self.timers.expire(now.mono_ns)?;
        self.waiting -= 1;
        self.rate.count(now);
        Some(u64::from(key))
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    /// The highest number of attempts within one second.
    pub(super) fn peak(&self) -> u64 {
        self.rate.peak
    }

    /// Since when each client that is still disconnected has been so.
    pub(super) fn still_down(&self) -> impl Iterator<Item = u64> {
        self.clients.iter().filter_map(|record| match record.state {
            State::Down { since_ns } => Some(since_ns),
            State::New | State::Up | State::Done => None,
        })
    }
}

/// Attempts in the last second, in tenths.
#[derive(Debug, Default)]
struct AttemptRate {
    tenths: [u64; 10],
    tenth: u64,
    peak: u64,
}

impl AttemptRate {
    fn count(&mut self, now: Now) {
        let tenth = now.mono_ms() / 100;
        for passed in (self.tenth + 1..=tenth).rev().take(10) {
            self.tenths[(passed % 10) as usize] = 0;
        }
        self.tenth = tenth;
        self.tenths[(tenth % 10) as usize] += 1;
        self.peak = self.peak.max(self.tenths.iter().sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    #[test]
    fn backoff_grows_and_is_random() {
        let mut reconnects = Reconnects::new(200, u64::MAX);
        let mut rng = Rng::new(1);
        let mut now_ms = 1_000;
        let backlog = || Backlog { answered: 3, ..Backlog::default() };
        let new = reconnects.lost(0, backlog(), time::ms(now_ms), at(now_ms), &mut rng);
        assert!(new.is_some(), "it was never connected");
        for number in 0..200 {
            assert_eq!(reconnects.opened(number, at(now_ms)), None);
        }
        for within_ms in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            for number in 0..200 {
                let since_ns = time::ms(now_ms);
                let kept = reconnects.lost(number, backlog(), since_ns, at(now_ms), &mut rng);
                assert!(kept.is_none());
            }
            let early = std::iter::from_fn(|| reconnects.due(at(now_ms + within_ms / 2))).count();
            assert!((60..140).contains(&early), "{early} of 200 in half of {within_ms} ms");
            now_ms += within_ms + 16;
            let late = std::iter::from_fn(|| reconnects.due(at(now_ms))).count();
            assert_eq!((early + late, reconnects.waiting()), (200, 0));
        }
        let left = (reconnects.take_backlog(7).answered, reconnects.still_down().count());
        assert_eq!(left, (3, 200));
        assert_eq!(reconnects.opened(7, at(now_ms)), Some(time::ms(now_ms - 1_000)));
        assert_eq!(reconnects.still_down().count(), 199);
        reconnects.done(7);
        let done = reconnects.lost(7, backlog(), 0, at(now_ms), &mut rng);
        assert!(done.is_some(), "it is done");
    }

    #[test]
    fn the_peak_is_that_of_any_second() {
        let mut rate = AttemptRate::default();
        for ms in [0, 900, 999, 1_050, 1_850, 30_000, 30_001] {
            rate.count(at(ms));
        }
        assert_eq!(rate.peak, 4, "900 to 1850 ms");
    }
}
