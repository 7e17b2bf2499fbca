//! Rate limit: at most ten lines a second of each kind, which is a record's target. It knows no
//! clock; the time is an argument.

/// Most lines of a kind per window.
const LINES_MAX: u32 = 10;
const WINDOW_NS: u64 = 1_000_000_000;
/// Most kinds counted apart; further ones share a limit. Kinds are static strings in our code and
/// in dependencies.
const KINDS_MAX: usize = 64;
const OTHERS: &str = "others";

#[derive(Default)]
pub(super) struct Ration {
    kinds: Vec<Kind>,
}

struct Kind {
    name: String,
    since_ns: u64,
    lines: u32,
    suppressed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// After a note on how many lines before it were suppressed.
    Write {
        suppressed: u64,
    },
    /// The first of its burst.
    SuppressFirst,
    Suppress,
}

impl Ration {
    /// Counts a line of this kind and decides on it.
    pub(super) fn weigh(&mut self, name: &str, now_ns: u64) -> Verdict {
        let kind = self.kind(name, now_ns);
        if now_ns.saturating_sub(kind.since_ns) < WINDOW_NS {
            if kind.lines < LINES_MAX {
                kind.lines += 1;
                return Verdict::Write { suppressed: 0 };
            }
            kind.suppressed += 1;
            return if kind.suppressed == 1 { Verdict::SuppressFirst } else { Verdict::Suppress };
        }
        kind.since_ns = now_ns;
        kind.lines = 1;
        Verdict::Write { suppressed: std::mem::take(&mut kind.suppressed) }
    }

    /// Takes the counts of windows that are over (or of all); returns whether others remain.
    pub(super) fn sweep(&mut self, now_ns: u64, all: bool) -> (Vec<(String, u64)>, bool) {
        let mut over = Vec::new();
        let mut more = false;
        for kind in self.kinds.iter_mut().filter(|kind| kind.suppressed > 0) {
            if all || now_ns.saturating_sub(kind.since_ns) >= WINDOW_NS {
                over.push((kind.name.clone(), std::mem::take(&mut kind.suppressed)));
            } else {
                more = true;
            }
        }
        (over, more)
    }

    fn kind(&mut self, name: &str, now_ns: u64) -> &mut Kind {
        let full = self.kinds.len() >= KINDS_MAX;
        let find = |kinds: &[Kind], name: &str| kinds.iter().position(|kind| kind.name == name);
        let at = match find(&self.kinds, name) {
            None if full => find(&self.kinds, OTHERS),
            found => found,
        };
        let at = at.unwrap_or_else(|| {
            let name = if full { OTHERS } else { name }.to_owned();
            self.kinds.push(Kind { name, since_ns: now_ns, lines: 0, suppressed: 0 });
            self.kinds.len() - 1
        });
        &mut self.kinds[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Verdict = Verdict::Write { suppressed: 0 };

    #[test]
    fn ten_lines_a_second_of_each_kind() {
        let mut ration = Ration::default();
        for i in 0..10 {
            assert_eq!(ration.weigh("close", i), WRITE);
        }
        assert_eq!(ration.weigh("close", 10), Verdict::SuppressFirst);
        assert_eq!(ration.weigh("close", 11), Verdict::Suppress);
        assert_eq!(ration.weigh("accept", 12), WRITE);
        assert_eq!(ration.sweep(13, false), (vec![], true));
        assert_eq!(ration.weigh("close", WINDOW_NS), Verdict::Write { suppressed: 2 });
        assert_eq!(ration.weigh("close", WINDOW_NS + 1), WRITE);
        assert_eq!(ration.sweep(WINDOW_NS + 2, false), (vec![], false));
    }

    #[test]
    fn a_burst_that_ends_is_reported_once() {
        let mut ration = Ration::default();
        for i in 0..25 {
            ration.weigh("close", i);
        }
        assert_eq!(ration.sweep(WINDOW_NS, false), (vec![("close".to_owned(), 15)], false));
        assert_eq!(ration.sweep(WINDOW_NS, true), (vec![], false));
        assert_eq!(ration.weigh("close", WINDOW_NS), WRITE);
    }

    #[test]
    fn the_last_flush_reports_bursts_in_progress() {
        let mut ration = Ration::default();
        for i in 0..11 {
            ration.weigh("close", i);
        }
        assert_eq!(ration.sweep(12, true), (vec![("close".to_owned(), 1)], false));
    }

    #[test]
    fn kinds_are_bounded() {
        let mut ration = Ration::default();
        for i in 0..1000 {
            ration.weigh(&format!("kind {i}"), 0);
        }
        assert_eq!(ration.kinds.len(), KINDS_MAX + 1);
        assert_eq!(ration.weigh("kind 0", 1), WRITE);
        assert_eq!(ration.weigh("kind 1000", 1), Verdict::Suppress);
    }
}
