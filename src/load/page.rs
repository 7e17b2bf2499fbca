//! The report as text.

use std::fmt::Write;

use super::histogram::Histogram;
use super::report::{Report, ServerStats};
use super::summary::Summary;
use crate::proto::frame::close_name;
use crate::units::{counted, per_second, show_duration, show_time};

/// Length of the longest bar.
const BAR_COLUMNS: u64 = 40;
/// Maximum rows of the histogram.
const ROWS_MAX: usize = 14;
/// Servers listed individually.
const SERVERS_SHOWN: usize = 20;
/// Bounds of the histogram's rows within a power of ten: coarse and fine.
const STEPS: [&[u64]; 2] = [&[10, 20, 50], &[10, 12, 15, 20, 25, 30, 40, 50, 60, 80]];
/// Generators that started within this time, or within a tenth of the test, ran together.
const TOGETHER_MS: f64 = 1_000.0;

impl Summary {
    /// The report as text.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::new();
        let Self { url, task, generators, .. } = self;
        let several = format!("{} with ", counted(*generators, "generator"));
        let several = if *generators > 1 { &several } else { "" };
        let _ = writeln!(page, "{url}   {several}{task}\n");
        started(&mut page, self);
        connections(&mut page, self);
        if self.connected > 0 {
            messages(&mut page, self);
        }
        ideal(&mut page, self);
        latency(&mut page, &self.latency);
        generator(&mut page, self);
        downtime(&mut page, self);
        closes(&mut page, self);
        errors(&mut page, self);
        servers(&mut page, self);
        for missed in &self.missed {
            line(&mut page, "missed", missed);
        }
        page
    }
}

/// Appends a labelled line; writing to a String cannot fail.
fn line(page: &mut String, label: &str, text: &str) {
    let _ = writeln!(page, "{label:<12}{text}");
}

#[expect(clippy::cast_sign_loss, reason = "times are not negative")]
fn show_ms(ms: f64) -> String {
    show_time((ms * 1e6).round() as u64)
}

/// Whether it was the whole test, and whether generators ran together.
fn started(page: &mut String, summary: &Summary) {
    let Summary { interrupted, generators, apart_ms, elapsed_ms, .. } = *summary;
    if interrupted {
        line(page, "interrupted", "a signal ended the test before its time");
    }
    if generators > 1 {
        line(page, "started", &format!("within {} of each other", show_ms(apart_ms)));
        if apart_ms > TOGETHER_MS.max(elapsed_ms / 10.0) {
            line(
                page,
                "",
                "they did not run together: the rate is that of the time from the first",
            );
            line(page, "", "start to the last end, and each may have had the server to itself");
        }
    }
}

fn connections(page: &mut String, summary: &Summary) {
    let Summary { connected, clients, opened, connect_ms, not_yet_connected, .. } = *summary;
    let took = show_ms(connect_ms);
    let how = match (connected, opened.saturating_sub(connected)) {
        (0, _) => "none".to_owned(),
        (_, 0) => format!("{connected} of {clients} clients, the last after {took}"),
        (_, again) => {
            format!("{connected} of {clients} clients, and {}", counted(again, "reconnect"))
        }
    };
    line(page, "connected", &how);
    if not_yet_connected > 0 {
        let text = format!("{} still connecting at the end", counted(not_yet_connected, "client"));
        line(page, "", &text);
    }
    let failed = clients.saturating_sub(connected.saturating_add(not_yet_connected));
    if failed > 0 {
        line(page, "failed", &format!("{} never connected", counted(failed, "client")));
    }
}

fn messages(page: &mut String, summary: &Summary) {
    let Summary { due, sent, answered, repeated, unasked, .. } = *summary;
    let (rate, took) = (per_second(summary.rate), show_ms(summary.elapsed_ms));
    let due = if due == sent { String::new() } else { format!("{due} due, ") };
    line(page, "messages", &format!("{due}{sent} sent, {answered} answered in {took}: {rate}/s"));
    if repeated > 0 {
        line(page, "", &format!("{repeated} of them sent again after a reconnect"));
    }
    if unasked > 0 {
        line(page, "", &format!("{unasked} unsolicited"));
    }
}

/// The time that servers would need that process one message at a time and are never idle.
fn ideal(page: &mut String, summary: &Summary) {
    let Summary { ideal_ms: Some(ideal_ms), busiest_ms: Some(busiest_ms), .. } = *summary else {
        return;
    };
    let (count, servers, took_ms) = (summary.answered, summary.servers.len(), summary.elapsed_ms);
    let each = show_ms(ideal_ms * servers as f64 / count.max(1) as f64);
    let over = if servers == 1 { String::new() } else { format!(" over {servers} servers") };
    let (ideal, took, ratio) = (show_ms(ideal_ms), show_ms(took_ms), took_ms / ideal_ms.max(1e-6));
    let what = format!("{count} messages{over}, one at a time, {each} each");
    line(page, "ideal", &format!("{ideal} for {what}; actual {took}, {ratio:.2} ×"));
    if let Some(busiest) = summary.servers.iter().max_by_key(|server| server.answers)
        && servers > 1
    {
        let ServerStats { name, connections, answers, .. } = busiest;
        let with = format!("{name} has {connections} clients and {answers} messages");
        line(page, "", &format!("{} for the busiest server: {with}", show_ms(busiest_ms)));
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
            if to > times.most() || scale >= 100_000_000_000_000 {
                return rows;
            }
            from = to;
        }
        scale *= 10;
    }
}

/// Whether the generator kept up: otherwise the report is about it, and not about the server.
fn generator(page: &mut String, summary: &Summary) {
    let mut parts = Vec::new();
    let busiest = if summary.generators > 1 { "the busiest " } else { "" };
    if let Some(share) = summary.cpu_share {
        parts.push(format!("{busiest}{:.0} % of a core", share * 100.0));
    }
    if let Some(share) = summary.waiting_share {
        parts.push(format!("waited for one {:.0} % of the time", share * 100.0));
    }
    if summary.lag.total() > 0 {
        let (p99, most) = (show_time(summary.lag.quantile(990)), summary.lag.most());
        parts.push(format!("sent late by p99 {p99}, max {}", show_time(most)));
    }
    if parts.is_empty() {
        return;
    }
    line(page, "generator", &parts.join(", "));
    let of = |count: u64, what: &str| match summary.generators {
        0 | 1 => format!("the generator{what}"),
        all => format!("{count} of {all} generators{what}"),
    };
    if summary.limited > 0 {
        line(
            page,
            "",
            &of(summary.limited, ", not the server, was the limit: more CPU or more generators"),
        );
    }
    if summary.starved > 0 {
        line(page, "", &of(summary.starved, " lacked a core, and may have been the limit"));
    }
}

fn downtime(page: &mut String, summary: &Summary) {
    if !summary.reconnect {
        return;
    }
    let times = &summary.downtime;
    let gone = match summary.still_down {
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
    let peak = counted(summary.storm_peak, "attempt");
    line(page, "", &format!("at most {peak} to reconnect within a second"));
    for cause in summary.failed_attempts.values() {
        line(page, "", &format!("{} failed: {}", counted(cause.count, "attempt"), cause.text));
    }
}

fn closes(page: &mut String, summary: &Summary) {
    let mut label = "closed";
    for (code, all) in &summary.closes {
        let server = summary.closed_by_server.get(code).copied().unwrap_or(0);
        let ours = if *code == 1006 { "no Close" } else { "by us" };
        for (who, count) in [(ours, all.saturating_sub(server)), ("by the server", server)] {
            if count > 0 {
                line(page, label, &format!("{code} {:<24}{who:<14}{count:>9}", close_name(*code)));
                label = "";
            }
        }
    }
}

fn errors(page: &mut String, summary: &Summary) {
    let mut causes: Vec<(u64, &str)> =
        summary.causes.values().map(|cause| (cause.count, &*cause.text)).collect();
    causes.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    causes.extend([
        (summary.failed, "message failed: the gateway sent an error"),
        (summary.lost, "message lost: its connection ended before the answer"),
        (summary.unanswered, "message unanswered when the client gave up"),
        (summary.unsent, "message due and never sent: too many unanswered, or no connection"),
    ]);
    let mut label = "errors";
    for (count, text) in causes.into_iter().filter(|(count, _)| *count > 0) {
        line(page, label, &format!("{count} × {text}"));
        label = "";
    }
    if !label.is_empty() {
        line(page, label, "none");
    }
}

fn servers(page: &mut String, summary: &Summary) {
    let mut servers: Vec<&ServerStats> = summary.servers.iter().collect();
    servers.sort_unstable_by(|one, other| {
        let rank = |server: &ServerStats| (server.connections, server.answers);
        rank(other).cmp(&rank(one)).then_with(|| one.name.cmp(&other.name))
    });
    let all = summary.connections();
    let width = servers.iter().map(|server| server.name.len()).max().unwrap_or(0).min(40);
    let mut label = "served by";
    for ServerStats { name, connections, answers, .. } in servers.iter().take(SERVERS_SHOWN) {
        let percent = *connections as f64 * 100.0 / all.max(1) as f64;
        let bar = bar(*connections, all);
        let text =
            format!("{name:<width$} {connections:>6} {percent:>5.1} % {answers:>9} answers  {bar}");
        line(page, label, text.trim_end());
        label = "";
    }
    if servers.len() > SERVERS_SHOWN {
        line(page, "", &format!("and {} others", servers.len() - SERVERS_SHOWN));
    }
    if servers.len() > 1 {
        let times = summary.imbalance;
        line(page, "imbalance", &format!("the busiest server has {times:.2} × its even share"));
    }
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
