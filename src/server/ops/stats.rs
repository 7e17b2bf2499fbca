//! `/metrics` for Prometheus (text format 0.0.4), written from one table, and `/stats`, a summary
//! as JSON for people and KEDA.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::{Action, Now, Source};
use crate::proto::http::Request;
use crate::proto::response::Response;
use crate::server::ops::admin::Ops;
use crate::server::ops::metrics::{Metric, MetricKind, Page};
use crate::server::route::{Deferred, Reply, json};
use crate::server::shared::Shared;

/// Requests the kernel's figures; the response follows immediately.
pub(crate) fn ask_metrics(_: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    ops.actions.push_back(Action::Fetch(Source::Process));
    Reply::Later { after_ms: 0, what: Deferred::Metrics }
}

pub(crate) fn ask_stats(_: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    ops.actions.push_back(Action::Fetch(Source::Process));
    Reply::Later { after_ms: 0, what: Deferred::Stats }
}

const fn metric(
    name: &'static str,
    labels: &'static str,
    about: &'static str,
    kind: MetricKind,
    show: Show,
) -> (Metric, Show) {
    (Metric::new(name, labels, about, kind), show)
}

/// Writes the samples of a metric.
type Show = fn(&Shared, &mut Page<'_>);

/// The server's own metrics.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    ROWS.iter().map(|(metric, _)| metric)
}

#[rustfmt::skip]
const ROWS: &[(Metric, Show)] = {
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
            "WebSockets that ended, by close code and initiator; a broken one is 1006, none",
            Counter,
            |s, p| for ((code, initiator), count) in &s.metrics.closes {
                p.row(&[("code", &code.name()), ("initiator", initiator.name())], *count);
            }),
        metric("websocket_connection_duration_seconds", "", "Lifetime of WebSockets", Histogram,
            |s, p| p.histogram(&s.metrics.durations)),
        metric("websocket_messages_received_total", "opcode", "Messages from peers", Counter,
            |s, p| by_kind(p, s.metrics.traffic.messages_in)),
        metric("websocket_messages_sent_total", "opcode", "Messages to peers", Counter,
            |s, p| by_kind(p, s.metrics.traffic.messages_out)),
        metric("websocket_received_bytes_total", "", "Payload bytes from peers", Counter,
            |s, p| p.value(s.metrics.traffic.bytes_in)),
        metric("websocket_sent_bytes_total", "", "Payload bytes to peers", Counter,
            |s, p| p.value(s.metrics.traffic.bytes_out)),
        metric("websocket_ping_rtt_seconds", "", "Round trip time of pings", Histogram,
            |s, p| p.histogram(&s.metrics.ping_rtt)),
        metric("websocket_pong_timeouts_total", "", "Pings that were not answered in time", Counter,
            |s, p| p.value(s.metrics.pong_timeouts)),
        metric("websocket_send_queue_bytes", "", "Unsent output", Gauge,
            |s, p| p.value(s.account.queued as u64)),
        metric("http_requests_total", "method, path, status", "Requests that were answered",
            Counter, |s, p| for ((method, path, status), count) in &s.metrics.requests {
                let status = status.to_string();
                p.row(&[("method", method.name()), ("path", path), ("status", &status)], *count);
            }),
        metric("http_request_duration_seconds", "",
            "Time from a request's first byte to its response, without upgrades", Histogram,
            |s, p| p.histogram(&s.metrics.request_time)),
        metric("event_loop_lag_seconds", "", "Delay of timers", Histogram,
            |s, p| p.histogram(&s.metrics.lag)),
        metric("server_draining", "", "1 while draining, from the announcement on", Gauge,
            |s, p| p.value(u64::from(s.drain.is_under_way()))),
        metric("server_memory_stage", "",
            "0 normal; 1 rejects upgrades, 2 closes the largest connections, 3 refuses connections \
            at accept", Gauge,
            |s, p| p.value(s.pressure.stage() as u64)),
        metric("server_accounted_bytes", "", "Accounted memory of connections", Gauge,
            |s, p| p.value(s.account.memory as u64)),
        metric("accept_errors_total", "error", "Connections that were refused at accept",
            Counter, |s, p| {
                p.row(&[("error", "descriptors")], s.metrics.accept_errors);
                p.row(&[("error", "places")], s.metrics.refused_at_accept);
                p.row(&[("error", "evicted")], s.metrics.evicted);
            }),
        metric("process_open_fds", "", "Open descriptors", Gauge,
            |s, p| of_process(s, p, "open_fds")),
        metric("process_max_fds", "", "Limit of open descriptors", Gauge,
            |s, p| of_process(s, p, "max_fds")),
        metric("process_resident_memory_bytes", "", "Resident memory", Gauge,
            |s, p| of_process(s, p, "resident_memory_bytes")),
        metric("process_cpu_seconds_total", "", "CPU time", Counter,
            |s, p| of_process(s, p, "cpu_seconds")),
        metric("process_start_time_seconds", "", "Start time of the process, since 1970", Gauge,
            |s, p| of_process(s, p, "start_time_seconds")),
        metric("build_info", "version", "Always 1", Gauge,
            |_, p| p.row(&[("version", env!("CARGO_PKG_VERSION"))], 1_u64)),
    ]
};

fn by_kind(page: &mut Page<'_>, [text, binary]: [u64; 2]) {
    page.row(&[("opcode", "text")], text);
    page.row(&[("opcode", "binary")], binary);
}

/// A figure of the kernel; omitted if it is not available.
fn of_process(shared: &Shared, page: &mut Page<'_>, name: &str) {
    if let Some(value) = shared.process.get(name) {
        page.row(&[], value);
    }
}

fn each_mount(
    shared: &Shared,
    page: &mut Page<'_>,
    show: fn(&crate::server::ops::metrics::MountCount) -> u64,
) {
    for (mount, count) in shared.config.mounts.iter().zip(&shared.metrics.mounts) {
        page.row(&[("mount", &mount.path)], show(count));
    }
}

/// `/metrics`
pub(crate) fn metrics_page(shared: &Shared) -> Response<'static> {
    let mut text = String::new();
    for (metric, show) in ROWS {
        show(shared, &mut Page::begin(&mut text, metric));
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
    #[serde(flatten, serialize_with = "crate::server::websocket::extras::entries")]
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
pub(crate) fn stats_page(shared: &Shared, now: Now) -> Response<'static> {
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
