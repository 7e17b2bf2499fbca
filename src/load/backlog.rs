//! What a client has left to do when it has no connection: for its next one, or for the report,
//! since a message that was never sent or answered must not vanish from the latency.

use std::collections::VecDeque;

use super::plan::{Pace, Plan};
use super::report::Report;

/// Messages are numbered from 0 over all connections of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Backlog {
    /// Messages that were answered, or that a gateway reported as failed.
    pub(super) answered: u64,
    /// Messages that were sent at least once. Those that were not answered are sent again.
    pub(super) sent: u64,
    /// With `Pace::Closed`: when each of these was first sent.
    pub(super) sent_ns: VecDeque<u64>,
    /// With `Pace::Open`: when the first message was due; `None` before the first connection.
    pub(super) first_ns: Option<u64>,
}

impl Backlog {
    /// When a message is due, whether earlier ones were answered or not.
    pub(super) fn due(&self, index: u64, interval_ns: u64) -> u64 {
        self.first_ns.unwrap_or(u64::MAX).saturating_add(index.saturating_mul(interval_ns))
    }

    /// How many messages were due before `until_ns`.
    fn due_before(&self, until_ns: u64, interval_ns: u64, messages: u64) -> Option<u64> {
        let sending_ns = until_ns.checked_sub(self.first_ns?)?;
        Some(sending_ns.div_ceil(interval_ns.max(1)).min(messages))
    }

    /// Sending has ended: what was due before `until_ns` and was not sent, though the server let
    /// us, is recorded as late.
    pub(super) fn settle_lag(&self, plan: &Plan, until_ns: u64, now_ns: u64, report: &mut Report) {
        let Pace::Open { interval_ns } = plan.pace else { return };
        let due = self.due_before(until_ns, interval_ns, plan.messages());
        if let Some(due) = due.filter(|due| *due > self.sent) {
            let age_ns = now_ns.saturating_sub(self.due(due - 1, interval_ns));
            report.lag.record_series(age_ns, interval_ns, due - self.sent);
        }
    }

    /// The test has ended: what was due before `until_ns` and has no answer is recorded with its
    /// age now.
    pub(super) fn settle(
        &self,
        pace: Pace,
        messages: u64,
        until_ns: u64,
        now_ns: u64,
        report: &mut Report,
    ) {
        let Pace::Open { interval_ns } = pace else {
            for since_ns in &self.sent_ns {
                report.latency.record(now_ns.saturating_sub(*since_ns));
            }
            report.due_ns = report.due_ns.max(self.sent_ns.back().copied().unwrap_or(0));
            return;
        };
        let Some(due) = self.due_before(until_ns, interval_ns, messages) else { return };
        let due = due.max(self.sent);
        report.unsent += due - self.sent;
        if due > self.answered {
            let last_ns = self.due(due - 1, interval_ns);
            let age_ns = now_ns.saturating_sub(last_ns);
            report.latency.record_series(age_ns, interval_ns, due - self.answered);
            report.due_ns = report.due_ns.max(last_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_is_recorded_with_its_age() {
        let pace = Pace::Open { interval_ns: 10 };
        let left =
            |sent, answered| Backlog { answered, sent, first_ns: Some(100), ..Backlog::default() };
        // Due at 100, 110, … 190; 7 sent, 4 answered. Ages at 250: 60 to 110.
        let mut report = Report::default();
        left(7, 4).settle(pace, u64::MAX, 200, 250, &mut report);
        assert_eq!((report.unsent, report.latency.total(), report.due_ns), (3, 6, 190));
        assert_eq!((report.latency.least(), report.latency.most()), (60, 110));
        // Fewer messages were planned.
        let mut report = Report::default();
        left(7, 7).settle(pace, 8, 200, 250, &mut report);
        assert_eq!((report.unsent, report.latency.total(), report.latency.most()), (1, 1, 80));
        // All of it was answered, it ended before the first was due, or it never connected.
        let mut report = Report::default();
        left(10, 10).settle(pace, u64::MAX, 200, 250, &mut report);
        left(0, 0).settle(pace, u64::MAX, 100, 250, &mut report);
        left(0, 0).settle(pace, u64::MAX, 99, 250, &mut report);
        Backlog::default().settle(pace, u64::MAX, 200, 250, &mut report);
        assert_eq!((report.unsent, report.latency.total()), (0, 0));
        let closed = Backlog { sent: 2, sent_ns: [100, 120].into(), ..Backlog::default() };
        closed.settle(Pace::Closed { depth: 2 }, u64::MAX, 200, 250, &mut report);
        assert_eq!((report.unsent, report.latency.least(), report.latency.most()), (0, 130, 150));
    }
}
