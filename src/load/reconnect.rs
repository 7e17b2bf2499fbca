//! Clients that lost their connection and come back: when each tries again, how long it was gone,
//! and how hard all of them together knocked.

use crate::engine::Now;
use crate::rng::Rng;
use crate::time;
use crate::timers::Timers;

/// The first attempt comes within this time, the second within twice as much, and so on.
const FIRST_WITHIN_MS: u64 = 250;
/// No attempt comes later than this after the one before.
const LAST_WITHIN_MS: u64 = 5_000;

/// Where each client that may come back is.
#[derive(Debug, Default)]
pub(super) struct Returns {
    members: Vec<Member>,
    /// By the client's number.
    timers: Timers,
    waiting: usize,
    /// Who has been gone for longer stays away.
    patience_ns: u64,
    storm: Storm,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    state: State,
    attempts: u32,
    /// Messages that were answered so far: the next connection goes on from there.
    answered: u64,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// It has not been connected yet.
    #[default]
    New,
    Up,
    Down {
        since_ns: u64,
    },
    /// It has done its part.
    Done,
}

impl Returns {
    pub(super) fn new(clients: usize, patience_ns: u64) -> Self {
        Self { members: vec![Member::default(); clients], patience_ns, ..Self::default() }
    }

    fn member(&mut self, number: u64) -> Option<&mut Member> {
        self.members.get_mut(usize::try_from(number).ok()?)
    }

    /// It is connected. Returns for how long it was not, unless this is the first time.
    pub(super) fn opened(&mut self, number: u64, now: Now) -> Option<u64> {
        let member = self.member(number)?;
        let since = std::mem::replace(&mut member.state, State::Up);
        member.attempts = 0;
        match since {
            State::Down { since_ns } => Some(now.mono_ns.saturating_sub(since_ns)),
            State::New | State::Up | State::Done => None,
        }
    }

    /// Messages of this client that were answered on earlier connections.
    pub(super) fn answered(&self, number: u64) -> u64 {
        let member = usize::try_from(number).ok().and_then(|number| self.members.get(number));
        member.map_or(0, |member| member.answered)
    }

    /// Its connection ended, or an attempt failed: it comes back later, unless it never was
    /// connected. Says whether it does.
    pub(super) fn lost(
        &mut self,
        number: u64,
        answered: u64,
        since_ns: u64,
        now: Now,
        rng: &mut Rng,
    ) -> bool {
        let patience_ns = self.patience_ns;
        let Some(member) = self.member(number) else { return false };
        match member.state {
            State::New | State::Done => return false,
            State::Up => member.state = State::Down { since_ns },
            State::Down { since_ns } if now.mono_ns - since_ns > patience_ns => return false,
            State::Down { .. } => {}
        }
        member.answered = answered;
        let within_ms = (FIRST_WITHIN_MS << member.attempts.min(10)).min(LAST_WITHIN_MS);
        member.attempts += 1;
        let at_ns = now.mono_ns + time::ms(rng.below(within_ms));
        // A client's number is less than their count, which a timer's key has room for.
        if let Ok(key) = u32::try_from(number) {
            self.timers.set(key, at_ns);
            self.waiting += 1;
        }
        true
    }

    /// Whether it was connected, and is not.
    pub(super) fn is_down(&self, number: u64) -> bool {
        let member = usize::try_from(number).ok().and_then(|number| self.members.get(number));
        member.is_some_and(|member| matches!(member.state, State::Down { .. }))
    }

    /// It will not come back.
    pub(super) fn done(&mut self, number: u64) {
        if let Some(member) = self.member(number) {
            member.state = State::Done;
        }
    }

    /// The next client whose turn it is.
    pub(super) fn due(&mut self, now: Now) -> Option<u64> {
        let key = self.timers.expire(now.mono_ns)?;
        self.waiting -= 1;
        self.storm.count(now);
        Some(u64::from(key))
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.timers.next_deadline()
    }

    /// The most attempts within one second.
    pub(super) fn peak(&self) -> u64 {
        self.storm.peak
    }

    /// Since when those have been gone that are not back.
    pub(super) fn still_down(&self) -> impl Iterator<Item = u64> {
        self.members.iter().filter_map(|member| match member.state {
            State::Down { since_ns } => Some(since_ns),
            State::New | State::Up | State::Done => None,
        })
    }
}

/// Attempts in the last second, by tenths of it.
#[derive(Debug, Default)]
struct Storm {
    tenths: [u64; 10],
    tenth: u64,
    peak: u64,
}

impl Storm {
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
    fn attempts_come_later_and_later_and_never_at_once() {
        let mut returns = Returns::new(200, u64::MAX);
        let mut rng = Rng::new(1);
        let mut now_ms = 1_000;
        assert!(!returns.lost(0, 0, time::ms(now_ms), at(now_ms), &mut rng), "it was never there");
        for number in 0..200 {
            assert_eq!(returns.opened(number, at(now_ms)), None);
        }
        for within_ms in [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000] {
            for number in 0..200 {
                assert!(returns.lost(number, 3, time::ms(now_ms), at(now_ms), &mut rng));
            }
            let early = std::iter::from_fn(|| returns.due(at(now_ms + within_ms / 2))).count();
            assert!((60..140).contains(&early), "{early} of 200 in half of {within_ms} ms");
            now_ms += within_ms + 16;
            let late = std::iter::from_fn(|| returns.due(at(now_ms))).count();
            assert_eq!((early + late, returns.waiting()), (200, 0));
        }
        assert_eq!((returns.answered(7), returns.still_down().count()), (3, 200));
        assert_eq!(returns.opened(7, at(now_ms)), Some(time::ms(now_ms - 1_000)));
        assert_eq!(returns.still_down().count(), 199);
        returns.done(7);
        assert!(!returns.lost(7, 3, 0, at(now_ms), &mut rng), "it has done its part");
    }

    #[test]
    fn the_peak_is_that_of_any_second() {
        let mut storm = Storm::default();
        for ms in [0, 900, 999, 1_050, 1_850, 30_000, 30_001] {
            storm.count(at(ms));
        }
        assert_eq!(storm.peak, 4, "900 to 1850 ms");
    }
}
