//! `/metrics` for Prometheus (text format 0.0.4), from one table; and `/stats`, the same in short
//! for people and KEDA.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::metrics::Histogram;
use super::routes::{Later, Reply, json};
use super::shared::{Cx, Shared};
use crate::engine::{Action, Now, Source};
use crate::proto::http::Request;
use crate::proto::response::Response;

/// Asks the kernel for what only it knows; the answer follows at once.
pub(super) fn metrics(_: &Request<'_, '_>, cx: &mut Cx<'_>) -> Reply {
    cx.act(Action::Fetch(Source::Process));
    Reply::Later { after_ms: 0, what: Later::Metrics }
}

/// The same for `/stats`.
pub(super) fn stats(_: &Request<'_, '_>, cx: &mut Cx<'_>) -> Reply {
    cx.act(Action::Fetch(Source::Process));
    Reply::Later { after_ms: 0, what: Later::Stats }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its labels, for the README.
    pub labels: &'static str,
    /// What it tells.
    pub about: &'static str,
    kind: MetricKind,
    show: Show,
}

/// Who fills it in.
#[derive(Debug)]
enum Show {
    Server(fn(&Shared, &mut Page<'_>)),
    Part,
}

/// What Prometheus may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Times, by how long they were.
    Histogram,
}

impl Metric {
    /// One that a part fills in.
    #[must_use]
    pub const fn of_part(
        name: &'static str,
        labels: &'static str,
        about: &'static str,
        kind: MetricKind,
    ) -> Self {
        Self { name, labels, about, kind, show: Show::Part }
    }
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const fn metric(
    name: &'static str,
    labels: &'static str,
    about: &'static str,
    kind: MetricKind,
    show: fn(&Shared, &mut Page<'_>),
) -> Metric {
    Metric { name, labels, about, kind, show: Show::Server(show) }
}

/// The server's own metrics.
#[rustfmt::skip]
pub const METRICS: &[Metric] = {
    use MetricKind::{Counter, Gauge, Histogram};
    &[
        metric("websocket_connections_active", "mount", "Open WebSockets", Gauge,
            |s, p| each_mount(s, p, |count| count.active)),
        metric("websocket_connections_total", "mount", "WebSockets that were opened", Counter,
            |s, p| each_mount(s, p, |count| count.total)),
        metric("websocket_handshake_failures_total", "reason", "Upgrades that were refused",
            Counter, |s, p| for (reason, count) in &s.metrics.handshake_failures {
                p.row(&[("reason", reason)], *count);
            }),
        metric("websocket_closes_total", "code, initiator",
            "WebSockets that ended, by code and who began; a broken one is 1006, none", Counter,
            |s, p| for ((code, initiator), count) in &s.metrics.closes {
                p.row(&[("code", &code.name()), ("initiator", initiator.name())], *count);
            }),
        metric("websocket_connection_duration_seconds", "", "How long WebSockets lived", Histogram,
            |s, p| p.histogram(&s.metrics.lives)),
        metric("websocket_messages_received_total", "opcode", "Messages from peers", Counter,
            |s, p| p.by_kind(s.metrics.traffic.messages_in)),
        metric("websocket_messages_sent_total", "opcode", "Messages to peers", Counter,
            |s, p| p.by_kind(s.metrics.traffic.messages_out)),
        metric("websocket_received_bytes_total", "", "Payload bytes from peers", Counter,
            |s, p| p.value(s.metrics.traffic.bytes_in)),
        metric("websocket_sent_bytes_total", "", "Payload bytes to peers", Counter,
            |s, p| p.value(s.metrics.traffic.bytes_out)),
        metric("websocket_ping_rtt_seconds", "", "From a ping to its pong", Histogram,
            |s, p| p.histogram(&s.metrics.ping_rtt)),
        metric("websocket_pong_timeouts_total", "", "Peers that did not answer a ping", Counter,
            |s, p| p.value(s.metrics.pong_timeouts)),
        metric("websocket_send_queue_bytes", "", "Output that peers have not taken", Gauge,
            |s, p| p.value(s.account.queued as u64)),
        metric("http_requests_total", "method, path, status", "Requests that were answered",
            Counter, |s, p| for ((method, path, status), count) in &s.metrics.requests {
                let status = status.to_string();
                p.row(&[("method", method.name()), ("path", path), ("status", &status)], *count);
            }),
        metric("http_request_duration_seconds", "",
            "From a request's first byte to its answer, WebSockets not among them", Histogram,
            |s, p| p.histogram(&s.metrics.request_time)),
        metric("event_loop_lag_seconds", "", "How late timers were", Histogram,
            |s, p| p.histogram(&s.metrics.lag)),
        metric("server_draining", "", "1 from the moment that readiness fails", Gauge,
            |s, p| p.value(u64::from(s.drain.is_under_way()))),
        metric("server_memory_stage", "",
            "0 at ease; 1 refuses upgrades, 2 closes the largest, 3 turns everyone away", Gauge,
            |s, p| p.value(s.pressure.stage() as u64)),
        metric("server_accounted_bytes", "", "Memory that connections own", Gauge,
            |s, p| p.value(s.account.memory as u64)),
        metric("accept_errors_total", "error", "Clients that were turned away at the door",
            Counter, |s, p| {
                p.row(&[("error", "descriptors")], s.metrics.accept_errors);
                p.row(&[("error", "places")], s.metrics.turned_away);
                p.row(&[("error", "evicted")], s.metrics.evicted);
            }),
        metric("process_open_fds", "", "Open descriptors", Gauge,
            |s, p| p.process(s, "open_fds")),
        metric("process_max_fds", "", "Descriptors that may be open", Gauge,
            |s, p| p.process(s, "max_fds")),
        metric("process_resident_memory_bytes", "", "Resident memory", Gauge,
            |s, p| p.process(s, "resident_memory_bytes")),
        metric("process_cpu_seconds_total", "", "CPU time", Counter,
            |s, p| p.process(s, "cpu_seconds")),
        metric("process_start_time_seconds", "", "When the process began, since 1970", Gauge,
            |s, p| p.process(s, "start_time_seconds")),
        metric("build_info", "version", "Always 1", Gauge,
            |_, p| p.row(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64)),
    ]
};

fn each_mount(shared: &Shared, page: &mut Page<'_>, show: fn(&super::metrics::MountCount) -> u64) {
    for (mount, count) in shared.config.mounts.iter().zip(&shared.metrics.mounts) {
        page.row(&[("mount", &mount.path)], show(count));
    }
}

/// The page in the making, at one metric's rows.
#[derive(Debug)]
pub struct Page<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl<'a> Page<'a> {
    fn begin(text: &'a mut String, metric: &Metric) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {} {}.", metric.name, metric.about);
        let _ = writeln!(text, "# TYPE {} {}", metric.name, metric.kind.name());
        Self { text, name: metric.name }
    }

    /// The only row.
    pub fn value(&mut self, value: u64) {
        self.row(&[], value);
    }

    /// A row. Label values are ours or were checked: none has a quote or a line end.
    pub fn row(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.line("", labels, value);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}{suffix}{labels} {value}", self.name);
    }

    fn by_kind(&mut self, [text, binary]: [u64; 2]) {
        self.row(&[("opcode", "text")], text);
        self.row(&[("opcode", "binary")], binary);
    }

    /// The rows of a histogram.
    pub fn histogram(&mut self, times: &Histogram) {
        for (bound_s, count) in times.buckets() {
            self.line("_bucket", &[("le", &bound_s.to_string())], count);
        }
        self.line("_bucket", &[("le", "+Inf")], times.count());
        self.line("_sum", &[], times.sum_s());
        self.line("_count", &[], times.count());
    }

    /// What the kernel told; a row that it did not tell is left out.
    fn process(&mut self, shared: &Shared, name: &str) {
        if let Some(value) = shared.process.get(name) {
            self.row(&[], value);
        }
    }
}

/// `/metrics`
pub(super) fn metrics_page(shared: &Shared) -> Response<'static> {
    let mut text = String::new();
    for metric in METRICS {
        let mut page = Page::begin(&mut text, metric);
        if let Show::Server(show) = metric.show {
            show(shared, &mut page);
        }
    }
    for (_, part) in shared.parts.iter() {
        for metric in part.metrics() {
            part.show(metric.name, &mut Page::begin(&mut text, metric));
        }
    }
    let mut response = Response::text(200, text);
    response.fields = vec![("Content-Type", "text/plain; version=0.0.4; charset=utf-8".into())];
    response
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats<'a> {
    connections: Connections<'a>,
    messages: Both,
    bytes: Both,
    lag_ms: Quantiles,
    draining: bool,
    memory: Memory,
    process: &'a BTreeMap<String, f64>,
    #[serde(flatten, serialize_with = "super::extras::entries")]
    of_parts: Vec<(&'static str, serde_json::Value)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Connections<'a> {
    active: usize,
    max: usize,
    websockets: usize,
    by_mount: BTreeMap<&'a str, u64>,
}

#[derive(Serialize)]
struct Both {
    received: u64,
    sent: u64,
}

#[derive(Serialize)]
struct Quantiles {
    p50: Option<f64>,
    p99: Option<f64>,
}

#[derive(Serialize)]
struct Memory {
    accounted: usize,
    queued: usize,
    limit: Option<u64>,
    stage: u8,
}

/// `/stats`
pub(super) fn stats_page(shared: &Shared, now: Now) -> Response<'static> {
    let traffic = &shared.metrics.traffic;
    let lag = &shared.metrics.lag;
    let mounts = shared.config.mounts.iter().zip(&shared.metrics.mounts);
    json(&Stats {
        connections: Connections {
            active: shared.open.main,
            max: shared.config.limits.max_connections,
            websockets: shared.open.websockets,
            by_mount: mounts.map(|(mount, count)| (mount.path.as_str(), count.active)).collect(),
        },
        messages: Both {
            received: traffic.messages_in.iter().sum(),
            sent: traffic.messages_out.iter().sum(),
        },
        bytes: Both { received: traffic.bytes_in, sent: traffic.bytes_out },
        lag_ms: Quantiles { p50: lag.quantile_ms(0.5), p99: lag.quantile_ms(0.99) },
        draining: shared.drain.is_under_way(),
        memory: Memory {
            accounted: shared.account.memory,
            queued: shared.account.queued,
            limit: shared.pressure.limit(),
            stage: shared.pressure.stage() as u8,
        },
        process: &shared.process,
        of_parts: shared.parts.iter().flat_map(|(_, part)| part.stats(now)).collect(),
    })
}
