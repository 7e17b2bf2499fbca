//! What a report says: `page.rs` writes it as text, `json.rs` as JSON, from which `merge.rs` adds
//! the reports of several generators. It refers to no plan.

use std::collections::BTreeMap;

use super::histogram::Histogram;
use super::plan::{Answers, Life, Pace, Plan, Thresholds, WhenLost};
use super::report::{Report, ServerStats, Usage};
use crate::units::{counted, per_second, show_duration, show_span, show_time};

/// Shorter processing times cannot be told from the network's.
const WORK_MIN_NS: u64 = 1_000_000;
/// A generator is late from here on; below, it is the accuracy of timers.
const LATE_MIN_NS: u64 = 1_000_000;
/// In a closed loop, a generator that uses this share of a core had no time to wait for answers.
const BUSY_SHARE: f64 = 0.98;
/// It lacked a core if it waited for one for this share of the time, and for no answers.
const WAITING_SHARE: f64 = 0.1;
/// Shorter runs say nothing about that.
const BUSY_MIN_NS: u64 = 1_000_000_000;

/// The report of one generator, or of several.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub(super) url: String,
    pub(super) task: String,
    pub(super) generators: u64,
    /// Milliseconds between the first generator's start and the last one's.
    pub(super) apart_ms: f64,
    pub(super) interrupted: bool,
    /// Since 1970.
    pub(super) began_ms: f64,
    pub(super) elapsed_ms: f64,
    pub(super) clients: u64,
    pub(super) connected: u64,
    /// Clients that were still connecting when a signal ended the test.
    pub(super) not_yet_connected: u64,
    pub(super) connect_ms: f64,
    pub(super) opened: u64,
    pub(super) due: u64,
    pub(super) sent: u64,
    pub(super) repeated: u64,
    pub(super) answered: u64,
    pub(super) unsent: u64,
    pub(super) unanswered: u64,
    pub(super) failed: u64,
    pub(super) lost: u64,
    pub(super) unasked: u64,
    pub(super) rate: f64,
    pub(super) latency: Histogram,
    pub(super) verify: bool,
    pub(super) reconnect: bool,
    pub(super) downtime: Histogram,
    pub(super) still_down: u64,
    pub(super) storm_peak: u64,
    /// Connections by close code.
    pub(super) closes: BTreeMap<u16, u64>,
    /// Those of them that the server closed first.
    pub(super) closed_by_server: BTreeMap<u16, u64>,
    pub(super) errors: u64,
    pub(super) causes: Causes,
    pub(super) failed_attempts: Causes,
    pub(super) servers: Vec<ServerStats>,
    pub(super) imbalance: f64,
    pub(super) ideal_ms: Option<f64>,
    pub(super) busiest_ms: Option<f64>,
    /// CPU time per time while messages were sent, of the busiest generator.
    pub(super) cpu_share: Option<f64>,
    /// The share of the time that a generator waited for a core.
    pub(super) waiting_share: Option<f64>,
    /// How late messages were sent that the server did not hold up.
    pub(super) lag: Histogram,
    /// Generators that were the limit, not the server.
    pub(super) limited: u64,
    /// Generators that may have been the limit, as they waited for a core.
    pub(super) starved: u64,
    /// The thresholds that were exceeded.
    pub(super) missed: Vec<String>,
}

/// By code.
pub(super) type Causes = BTreeMap<String, Cause>;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) count: u64,
    pub(super) text: String,
}

impl Summary {
    /// The report of one generator. The title is its URL.
    #[must_use]
    pub fn new(title: &str, plan: &Plan, report: &Report) -> Self {
        let took_ns = report.until_ns.saturating_sub(report.began_ns);
        let ideal = ideal(plan, report);
        let mut summary = Self {
            url: title.to_owned(),
            task: task(plan),
            generators: 1,
            interrupted: report.interrupted,
            began_ms: report.began_ms as f64,
            elapsed_ms: ms(took_ns),
            clients: report.begun,
            connected: report.connected,
            connect_ms: ms(report.opened_ns.saturating_sub(report.began_ns)),
            opened: report.opened,
            due: report.due,
            sent: report.sent,
            repeated: report.repeated,
            answered: report.answered,
            unsent: report.unsent,
            unanswered: report.unanswered,
            failed: report.failed,
            lost: report.lost,
            unasked: report.unasked,
            latency: report.latency.clone(),
            lag: report.lag.clone(),
            verify: plan.answers == Answers::Same,
            reconnect: plan.when_lost == WhenLost::Reconnect,
            downtime: report.downtime.clone(),
            still_down: report.still_down,
            storm_peak: report.storm_peak,
            servers: report.servers.clone(),
            ideal_ms: ideal.map(|(least_ns, _)| ms(least_ns)),
            busiest_ms: ideal.map(|(_, busiest_ns)| ms(busiest_ns)),
            ..Self::default()
        };
        summary.count_ends(plan, report);
        summary.judge_generator(plan, report.usage);
        summary.derive();
        summary
    }

    fn count_ends(&mut self, plan: &Plan, report: &Report) {
        for (outcome, count) in &report.ends {
            if let Some(code) = outcome.code() {
                *self.closes.entry(code).or_default() += count;
            }
            if let super::Outcome::ClosedEarly(code) = outcome {
                *self.closed_by_server.entry(*code).or_default() += count;
            }
            if !outcome.is_clean(plan.when_lost, report.interrupted) {
                add(&mut self.causes, &outcome.cause(), &outcome.to_string(), *count);
            } else if outcome.code().is_none() {
                self.not_yet_connected += count;
            }
        }
        for (outcome, count) in &report.attempts {
            add(&mut self.failed_attempts, &outcome.cause(), &outcome.to_string(), *count);
        }
    }

    /// Computes what follows from the other fields.
    pub(super) fn derive(&mut self) {
        self.rate = self.answered as f64 * 1e3 / self.elapsed_ms.max(1e-6);
        let messages = [self.failed, self.lost, self.unsent, self.unanswered];
        let counts = self.causes.values().map(|cause| cause.count).chain(messages);
        self.errors = counts.fold(0, u64::saturating_add);
        let most = self.servers.iter().map(|server| server.connections).max().unwrap_or(0);
        let all = self.connections();
        self.imbalance = most as f64 * self.servers.len() as f64 / all.max(1) as f64;
    }

    /// Connections to all servers.
    pub(super) fn connections(&self) -> u64 {
        let counts = self.servers.iter().map(|server| server.connections);
        counts.fold(0, u64::saturating_add)
    }

    /// Compares it with the thresholds; returns the exit code: 4 if a signal ended the test, 1 if
    /// no client was connected, 3 if a threshold was exceeded.
    pub fn judge(&mut self, wanted: &Thresholds) -> u8 {
        self.missed.clear();
        let p99_ns = self.latency.quantile(990);
        match wanted.p99_ns.map(|limit| (limit, show_span(limit))) {
            Some((_, limit)) if self.answered == 0 => {
                self.missed.push(format!("--max-p99 {limit}: no answers"));
            }
            Some((limit_ns, limit)) if p99_ns > limit_ns => {
                self.missed.push(format!("--max-p99 {limit}: was {}", show_time(p99_ns)));
            }
            _ => {}
        }
        // A wrong answer is never acceptable to someone who asks for a check.
        let (flag, limit) = match wanted.errors {
            Some(limit) => (format!("--max-errors {limit}"), limit),
            None => ("--verify".to_owned(), if self.verify { 0 } else { u64::MAX }),
        };
        if self.errors > limit {
            self.missed.push(format!("{flag}: was {}", counted(self.errors, "error")));
        }
        // Clients that are still disconnected are in `downtime`, with their time so far.
        let gone_ns = self.downtime.most();
        if let Some(limit_ns) = wanted.downtime_ns.filter(|limit_ns| gone_ns > *limit_ns) {
            let limit = show_span(limit_ns);
            self.missed.push(format!("--max-downtime {limit}: was {}", show_time(gone_ns)));
        }
        match (self.interrupted, self.connected, &self.missed[..]) {
            (true, ..) => 4,
            (_, 0, _) => 1,
            (.., []) => 0,
            (.., [_, ..]) => 3,
        }
    }

    /// In an open loop a generator is the limit if it was late, and if half of the latency is due
    /// to that. In a closed loop it cannot be late: it is the limit if it never waited for answers.
    fn judge_generator(&mut self, plan: &Plan, usage: Option<Usage>) {
        let share = |part_ns: u64, of: Usage| part_ns as f64 / of.wall_ns.max(1) as f64;
        self.cpu_share = usage.map(|usage| share(usage.cpu_ns, usage));
        self.waiting_share = usage.map(|usage| share(usage.waiting_ns, usage));
        let (lag, latency) = (self.lag.quantile(990), self.latency.quantile(990));
        let (limited, starved) = match plan.pace {
            Pace::Open { .. } => (lag >= LATE_MIN_NS && lag.saturating_mul(2) >= latency, false),
            Pace::Closed { .. } if usage.is_none_or(|usage| usage.wall_ns < BUSY_MIN_NS) => {
                (false, false)
            }
            Pace::Closed { .. } => {
                let cpu = self.cpu_share.unwrap_or(0.0);
                let waiting = self.waiting_share.unwrap_or(0.0);
                (cpu >= BUSY_SHARE, waiting >= WAITING_SHARE && cpu + waiting >= BUSY_SHARE)
            }
        };
        (self.limited, self.starved) = (limited.into(), starved.into());
    }
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

pub(super) fn add(causes: &mut Causes, code: &str, text: &str, count: u64) {
    let cause = causes.entry(code.to_owned()).or_default();
    text.clone_into(&mut cause.text);
    cause.count += count;
}

fn task(plan: &Plan) -> String {
    let each = match plan.life {
        Life::Messages(messages) => format!("{} each", counted(messages, "message")),
        Life::Time { ms } => format!("messages for {}", show_duration(ms)),
        Life::Hold { messages, ms } => {
            let held = show_duration(ms);
            format!("{} each, then held for {held}", counted(messages, "message"))
        }
        Life::Churn { connections } => format!("{connections} in total, one message each"),
    };
    let pace = match plan.pace {
        Pace::Closed { depth: 1 } => String::new(),
        Pace::Closed { depth } => format!(", {depth} in flight"),
        Pace::Open { interval_ns } => {
            format!(", {}/s a client", per_second(1e9 / interval_ns.max(1) as f64))
        }
    };
    format!("{}, {each}{pace}", counted(plan.clients as u64, "client"))
}

/// The time that servers would need that process one message at a time and are never idle, if they
/// are so, and that of the busiest one. Servers process serially if the time between two answers is
/// about the latency of the first message, which did not have to wait.
fn ideal(plan: &Plan, report: &Report) -> Option<(u64, u64)> {
    let busiest = report.servers.iter().max_by_key(|server| server.answers)?;
    let servers = report.servers.len() as u64;
    let (first_ns, gap_ns) = (report.latency.least(), report.gaps.quantile(500));
    let serial = gap_ns >= WORK_MIN_NS && (gap_ns * 4 / 5..=gap_ns * 2).contains(&first_ns);
    let is_counted = matches!((plan.life, plan.pace), (Life::Messages(_), Pace::Closed { .. }));
    let crowded = plan.clients as u64 >= 3 * servers;
    let each_ns = first_ns.min(gap_ns);
    (is_counted && crowded && serial).then(|| {
        let all_ns = report.answered.saturating_mul(each_ns);
        (all_ns / servers, busiest.answers.saturating_mul(each_ns))
    })
}
