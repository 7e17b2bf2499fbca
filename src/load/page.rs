//! The report as text and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::histogram::Histogram;
use super::plan::{Life, Pace, Plan, WhenLost};
use super::report::{Missed, Report, ServerStats};
use crate::proto::frame::close_name;
use crate::units::{show_duration, show_time};

/// Length of the longest bar.
const BAR_COLUMNS: u64 = 40;
/// Maximum rows of the histogram.
const ROWS_MAX: usize = 14;
/// Servers listed individually.
const SERVERS_SHOWN: usize = 20;
/// Bounds of the histogram's rows within a power of ten: coarse and fine.
const STEPS: [&[u64]; 2] = [&[10, 20, 50], &[10, 12, 15, 20, 25, 30, 40, 50, 60, 80]];
/// Shorter processing times cannot be told from the network's.
const WORK_MIN_NS: u64 = 1_000_000;

/// The report as text.
#[must_use]
pub fn page(title: &str, plan: &Plan, report: &Report, missed: &[Missed]) -> String {
    let mut page = String::new();
    let _ = writeln!(page, "{title}   {}\n", task(plan));
    connections(&mut page, report);
    if report.connected > 0 {
        messages(&mut page, report);
    }
    if let Some(ideal) = ideal(plan, report) {
        line(&mut page, "ideal", &ideal.text());
    }
    latency(&mut page, &report.latency);
    downtime(&mut page, plan, report);
    closes(&mut page, report);
    errors(&mut page, plan, report);
    servers(&mut page, &report.servers);
    for missed in missed {
        line(&mut page, "missed", &sentence(missed));
    }
    page
}

/// Appends a labelled line; writing to a String cannot fail.
fn line(page: &mut String, label: &str, text: &str) {
    let _ = writeln!(page, "{label:<12}{text}");
}

fn connections(page: &mut String, report: &Report) {
    let Report { connected, begun, opened, .. } = *report;
    let took = show_time(report.opened_ns.saturating_sub(report.began_ns));
    let how = match (connected, opened - connected.min(opened)) {
        (0, _) => "none".to_owned(),
        (_, 0) => format!("{connected} of {begun} clients, the last after {took}"),
        (_, again) => {
            format!("{connected} of {begun} clients, and {}", counted(again, "reconnect"))
        }
    };
    line(page, "connected", &how);
    if connected < begun {
        line(page, "failed", &format!("{} never connected", counted(begun - connected, "client")));
    }
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
        Pace::Open { interval_ns } => format!(", {}/s a client", per_second(1, interval_ns)),
    };
    format!("{}, {each}{pace}", counted(plan.clients as u64, "client"))
}

/// `1 message`, `2 messages`.
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// A rate, with a decimal only below 100.
fn per_second(count: u64, ns: u64) -> String {
    let rate = count as f64 * 1e9 / ns.max(1) as f64;
    if rate < 100.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn messages(page: &mut String, report: &Report) {
    let took_ns = report.until_ns.saturating_sub(report.began_ns);
    let (rate, took) = (per_second(report.answered, took_ns), show_time(took_ns));
    let Report { due, sent, answered, .. } = *report;
    let due = if due == sent { String::new() } else { format!("{due} due, ") };
    line(page, "messages", &format!("{due}{sent} sent, {answered} answered in {took}: {rate}/s"));
    if report.repeated > 0 {
        line(page, "", &format!("{} sent again after a reconnect", report.repeated));
    }
    if report.unasked > 0 {
        line(page, "", &format!("{} unsolicited", report.unasked));
    }
}

/// The time that servers would need that process one message at a time and are never idle.
struct Ideal<'r> {
    least_ns: u64,
    busiest_ns: u64,
    took_ns: u64,
    each_ns: u64,
    report: &'r Report,
    busiest: &'r ServerStats,
}

/// Servers process serially if the time between two answers is about the latency of the first
/// message, which did not have to wait.
fn ideal<'r>(plan: &Plan, report: &'r Report) -> Option<Ideal<'r>> {
    let busiest = report.servers.iter().max_by_key(|server| server.answers)?;
    let servers = report.servers.len() as u64;
    let (first_ns, gap_ns) = (report.latency.least(), report.gaps.quantile(500));
    let serial = gap_ns >= WORK_MIN_NS && (gap_ns * 4 / 5..=gap_ns * 2).contains(&first_ns);
    let counted = matches!((plan.life, plan.pace), (Life::Messages(_), Pace::Closed { .. }));
    let crowded = plan.clients as u64 >= 3 * servers;
    let each_ns = first_ns.min(gap_ns);
    (counted && crowded && serial).then(|| Ideal {
        least_ns: report.answered.saturating_mul(each_ns) / servers,
        busiest_ns: busiest.answers.saturating_mul(each_ns),
        took_ns: report.until_ns.saturating_sub(report.began_ns),
        each_ns,
        report,
        busiest,
    })
}

impl Ideal<'_> {
    fn ratio(&self) -> f64 {
        self.took_ns as f64 / self.least_ns.max(1) as f64
    }

    fn text(&self) -> String {
        let (ideal, took) = (show_time(self.least_ns), show_time(self.took_ns));
        let (each, count) = (show_time(self.each_ns), self.report.answered);
        let servers = self.report.servers.len();
        let over = if servers == 1 { String::new() } else { format!(" over {servers} servers") };
        let mut text = format!(
            "{ideal} for {count} messages{over}, one at a time, {each} each; actual {took}, \
             {:.2} ×",
            self.ratio()
        );
        if servers > 1 {
            let ServerStats { name, connections, answers, .. } = self.busiest;
            let busiest = show_time(self.busiest_ns);
            let _ = write!(
                text,
                "\n            {busiest} for the busiest server: {name} has {connections} clients \
                 and {answers} messages"
            );
        }
        text
    }
}

fn latency(page: &mut String, latency: &Histogram) {
    if latency.total() == 0 {
        return;
    }
    line(page, "latency", &quantiles(latency));
    for (from, to, count) in rows(latency) {
        let bar = bar(count, latency.total());
        let percent = count as f64 * 100.0 / latency.total() as f64;
        let (from, to) = (show_time(from), show_time(to));
        let _ = writeln!(page, "  {from:>7} – {to:>7}  {bar:<40} {count:>9} {percent:>5.1} %");
    }
}

fn quantiles(times: &Histogram) -> String {
    let at = |per_mille: u64| show_time(times.quantile(per_mille));
    let most = show_time(times.most());
    let (p50, p90, p99, p999) = (at(500), at(900), at(990), at(999));
    format!("p50 {p50}   p90 {p90}   p99 {p99}   p99.9 {p999}   max {most}")
}

fn bar(count: u64, of: u64) -> String {
    let length = usize::try_from(count.saturating_mul(BAR_COLUMNS) / of.max(1)).unwrap_or(0);
    match (length, count) {
        (0, 0) => String::new(),
        (0, _) => "▏".to_owned(),
        (length, _) => "█".repeat(length),
    }
}

/// Rows of the histogram: from, to, number of values.
fn rows(times: &Histogram) -> Vec<(u64, u64, u64)> {
    let coarse = rows_by(times, STEPS[0]);
    let fine = rows_by(times, STEPS[1]);
    let mut rows = if fine.len() <= ROWS_MAX { fine } else { coarse };
    // Merge the slowest rows.
    while rows.len() > ROWS_MAX {
        if let (Some((_, to, count)), Some(last)) = (rows.pop(), rows.last_mut()) {
            (last.1, last.2) = (to, last.2 + count);
        }
    }
    rows
}

fn rows_by(times: &Histogram, steps: &[u64]) -> Vec<(u64, u64, u64)> {
    let mut rows = Vec::new();
    let (mut from, mut scale) = (0, 100);
    loop {
        for step in steps {
            let to = step * scale;
            if to > times.least() {
                rows.push((from, to, times.below(to) - times.below(from)));
            }
            if to > times.most() || scale >= 1_000_000_000_000 {
                return rows;
            }
            from = to;
        }
        scale *= 10;
    }
}

fn downtime(page: &mut String, plan: &Plan, report: &Report) {
    if plan.when_lost == WhenLost::Leave {
        return;
    }
    let times = &report.downtime;
    let gone = match report.still_down {
        0 => String::new(),
        gone => format!("; {gone} not back"),
    };
    let text = match times.total() {
        0 => format!("none{gone}"),
        count => format!(
            "{}: p50 {}   p99 {}   max {}{gone}",
            counted(count, "time"),
            show_time(times.quantile(500)),
            show_time(times.quantile(990)),
            show_time(times.most())
        ),
    };
    line(page, "downtime", &text);
    let peak = report.storm_peak;
    line(page, "", &format!("at most {} to reconnect within a second", counted(peak, "attempt")));
    for (outcome, count) in &report.attempts {
        line(page, "", &format!("{} failed: {outcome}", counted(*count, "attempt")));
    }
    line(page, "lost", &counted(report.lost, "message"));
}

fn closes(page: &mut String, report: &Report) {
    let mut label = "closed";
    for (outcome, count) in &report.ends {
        let Some(code) = outcome.code() else { continue };
        let who = match outcome {
            super::Outcome::Closed(_) => "by us",
            super::Outcome::ClosedEarly(_) => "by the server",
            _ => "no Close",
        };
        line(page, label, &format!("{code} {:<24}{who:<14}{count:>9}", close_name(code)));
        label = "";
    }
}

fn errors(page: &mut String, plan: &Plan, report: &Report) {
    let mut label = "errors";
    for (outcome, count) in report.causes(plan) {
        line(page, label, &format!("{count} × {outcome}"));
        label = "";
    }
    let messages = [
        (report.failed, "message failed: the gateway sent an error"),
        (report.lost, "message lost: its connection ended before the answer"),
        (report.unanswered, "message unanswered when the client gave up"),
        (report.unsent, "message due and never sent: too many were unanswered, or no connection"),
    ];
    for (count, text) in messages.iter().filter(|(count, _)| *count > 0) {
        line(page, label, &format!("{count} × {text}"));
        label = "";
    }
    if !label.is_empty() {
        line(page, label, "none");
    }
}

fn servers(page: &mut String, servers: &[ServerStats]) {
    let mut servers: Vec<&ServerStats> = servers.iter().collect();
    servers.sort_unstable_by(|one, other| {
        let rank = |server: &ServerStats| (server.connections, server.answers);
        rank(other).cmp(&rank(one)).then_with(|| one.name.cmp(&other.name))
    });
    let all: u64 = servers.iter().map(|server| server.connections).sum();
    let width = servers.iter().map(|server| server.name.len()).max().unwrap_or(0).min(40);
    let mut label = "served by";
    for ServerStats { name, connections, answers, .. } in servers.iter().take(SERVERS_SHOWN) {
        let (bar, percent) = (bar(*connections, all), *connections as f64 * 100.0 / all as f64);
        let text =
            format!("{name:<width$} {connections:>6} {percent:>5.1} % {answers:>9} answers  {bar}");
        line(page, label, text.trim_end());
        label = "";
    }
    if servers.len() > SERVERS_SHOWN {
        line(page, "", &format!("and {} others", servers.len() - SERVERS_SHOWN));
    }
    if servers.len() > 1 {
        let text = format!("the busiest server has {:.2} × its even share", imbalance(&servers));
        line(page, "imbalance", &text);
    }
}

/// The busiest server's connections relative to an even share.
fn imbalance(servers: &[&ServerStats]) -> f64 {
    let all: u64 = servers.iter().map(|server| server.connections).sum();
    let most = servers.iter().map(|server| server.connections).max().unwrap_or(0);
    most as f64 * servers.len() as f64 / all.max(1) as f64
}

fn sentence(missed: &Missed) -> String {
    match *missed {
        Missed::P99 { limit_ms, was_ns: 0 } => {
            format!("--max-p99 {}: no answers", show_duration(limit_ms))
        }
        Missed::P99 { limit_ms, was_ns } => {
            format!("--max-p99 {}: was {}", show_duration(limit_ms), show_time(was_ns))
        }
        Missed::Errors { limit, was } => format!("--max-errors {limit}: was {was}"),
        Missed::Downtime { limit_ms, was_ns } => {
            format!("--max-downtime {}: was {}", show_duration(limit_ms), show_time(was_ns))
        }
    }
}

/// The report as one line of JSON; times are in milliseconds.
#[must_use]
pub fn json(title: &str, plan: &Plan, report: &Report, missed: &[Missed]) -> String {
    let ms = |ns: u64| ns as f64 / 1e6;
    let times = |times: &Histogram| {
        json!({
            "count": times.total(),
            "min_ms": ms(times.least()),
            "p50_ms": ms(times.quantile(500)),
            "p90_ms": ms(times.quantile(900)),
            "p99_ms": ms(times.quantile(990)),
            "p999_ms": ms(times.quantile(999)),
            "max_ms": ms(times.most()),
        })
    };
    let servers: Vec<&ServerStats> = report.servers.iter().collect();
    let mut closes = serde_json::Map::new();
    for (outcome, count) in &report.ends {
        if let Some(code) = outcome.code() {
            let before = closes.get(&code.to_string()).and_then(Value::as_u64).unwrap_or(0);
            closes.insert(code.to_string(), json!(before + count));
        }
    }
    let causes = |list: &mut dyn Iterator<Item = (super::Outcome, u64)>| -> Value {
        let mut causes = serde_json::Map::new();
        causes.extend(list.map(|(outcome, count)| (outcome.to_string(), json!(count))));
        causes.into()
    };
    let took_ns = report.until_ns.saturating_sub(report.began_ns);
    let ideal = ideal(plan, report);
    let value = json!({
        "url": title,
        "clients": report.begun,
        "connected": report.connected,
        "connect_ms": ms(report.opened_ns.saturating_sub(report.began_ns)),
        "opened": report.opened,
        "due": report.due,
        "sent": report.sent,
        "repeated": report.repeated,
        "answered": report.answered,
        "unsent": report.unsent,
        "unanswered": report.unanswered,
        "failed": report.failed,
        "unasked": report.unasked,
        "lost": report.lost,
        "elapsed_ms": ms(took_ns),
        "rate": report.answered as f64 * 1e9 / took_ns.max(1) as f64,
        "ideal_ms": ideal.as_ref().map(|ideal| ms(ideal.least_ns)),
        "busiest_ms": ideal.as_ref().map(|ideal| ms(ideal.busiest_ns)),
        "latency": times(&report.latency),
        "downtime": times(&report.downtime),
        "still_down": report.still_down,
        "storm_peak": report.storm_peak,
        "closes": closes,
        "errors": report.errors(plan),
        "causes": causes(&mut report.causes(plan).into_iter()),
        "failed_attempts": causes(&mut report.attempts.iter().map(|(o, n)| (*o, *n))),
        "servers": servers.iter().map(|server| json!({
            "name": server.name, "connections": server.connections, "answers": server.answers,
        })).collect::<Vec<Value>>(),
        "imbalance": imbalance(&servers),
        "missed": missed.iter().map(sentence).collect::<Vec<String>>(),
    });
    format!("{value}\n")
}

/// The progress line.
pub(super) fn progress(report: &Report, open: usize, now_ns: u64, answered_before: u64) -> String {
    let time = show_duration((now_ns.saturating_sub(report.began_ns)) / 1_000_000_000 * 1_000);
    let (p50, p99) = (report.latency.quantile(500), report.latency.quantile(990));
    let recent = report.answered - answered_before;
    format!(
        "\r{time}  {open} open  {} answered, {recent} in the last second  p50 {}  p99 {}\x1b[K",
        report.answered,
        show_time(p50),
        show_time(p99)
    )
}

#[cfg(test)]
mod tests;
