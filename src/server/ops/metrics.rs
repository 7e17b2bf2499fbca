//! Counters and histograms: plain integers, updated where events happen. `stats` formats them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::behaviours::Traffic;
use crate::proto::http::Method;
use crate::server::end::{End, Initiator};

/// Typical idle timeouts of load balancers and proxies, which cut connections after these times.
const DURATION_S: [u64; 12] = [1, 5, 15, 30, 60, 100, 240, 300, 600, 1800, 3600, 7200];
const MS: u64 = 1_000_000;
const LATENCY_MS: [u64; 12] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000];

#[derive(Debug)]
pub(crate) struct Metrics {
    /// In the order of the mounts.
    pub(crate) mounts: Vec<MountCount>,
    pub(crate) handshake_failures: BTreeMap<&'static str, u64>,
    pub(crate) closes: BTreeMap<(CodeClass, Initiator), u64>,
    pub(crate) durations: Histogram,
    pub(crate) traffic: Traffic,
    pub(crate) ping_rtt: Histogram,
    pub(crate) pong_timeouts: u64,
    /// By method, route and status.
    pub(crate) requests: BTreeMap<(Method, &'static str, u16), u64>,
    pub(crate) request_time: Histogram,
    pub(crate) lag: Histogram,
    pub(crate) accept_errors: u64,
    pub(crate) refused_at_accept: u64,
    pub(crate) evicted: u64,
}

/// The `WebSockets` of one mount.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountCount {
    pub(crate) active: u64,
    pub(crate) total: u64,
}

/// The label of a close code. Codes from 3000 on are grouped: peers choose them freely, and must
/// not be able to create any number of time series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CodeClass {
    Code(u16),
    /// 3000 to 3999: registered.
    Registered,
    /// 4000 to 4999: private.
    Private,
}

impl CodeClass {
    fn of(code: u16) -> Self {
        match code {
            ..3000 => Self::Code(code),
            3000..4000 => Self::Registered,
            4000.. => Self::Private,
        }
    }

    pub(crate) fn name(self) -> String {
        match self {
            Self::Code(code) => code.to_string(),
            Self::Registered => "3xxx".to_owned(),
            Self::Private => "4xxx".to_owned(),
        }
    }
}

impl Metrics {
    pub(crate) fn new(mounts: usize) -> Self {
        Self {
            mounts: vec![MountCount::default(); mounts],
            handshake_failures: BTreeMap::new(),
            closes: BTreeMap::new(),
            durations: Histogram::new(DURATION_S.map(|s| s * 1000 * MS)),
            traffic: Traffic::default(),
            ping_rtt: Histogram::new(LATENCY_MS.map(|ms| ms * MS)),
            pong_timeouts: 0,
            requests: BTreeMap::new(),
            request_time: Histogram::new(LATENCY_MS.map(|ms| ms * MS)),
            lag: Histogram::new(LATENCY_MS.map(|ms| ms * MS)),
            accept_errors: 0,
            refused_at_accept: 0,
            evicted: 0,
        }
    }

    pub(crate) fn opened(&mut self, mount: u16) {
        if let Some(count) = self.mounts.get_mut(usize::from(mount)) {
            count.active += 1;
            count.total += 1;
        }
    }

    pub(crate) fn closed(&mut self, mount: u16, end: End, duration_ms: u64) {
        if let Some(count) = self.mounts.get_mut(usize::from(mount)) {
            count.active -= 1;
        }
        *self.closes.entry((CodeClass::of(end.code), end.initiator)).or_default() += 1;
        self.durations.observe_ns(duration_ms * MS);
    }

    pub(crate) fn handshake_failed(&mut self, reason: &'static str) {
        *self.handshake_failures.entry(reason).or_default() += 1;
    }

    pub(crate) fn response_sent(
        &mut self,
        (method, path, status): (Method, &'static str, u16),
        elapsed_ms: u64,
    ) {
        *self.requests.entry((method, path, status)).or_default() += 1;
        self.request_time.observe_ns(elapsed_ms * MS);
    }
}

/// Durations.
#[derive(Debug)]
pub struct Histogram {
    bounds_ns: [u64; 12],
    /// One count for each bound, and one for values beyond the last.
    counts: [u64; 13],
    sum_ns: u64,
}

impl Histogram {
    /// With bounds for the duration of requests.
    #[must_use]
    pub fn latency() -> Self {
        Self::new(LATENCY_MS.map(|ms| ms * MS))
    }

    fn new(bounds_ns: [u64; 12]) -> Self {
        Self { bounds_ns, counts: [0; 13], sum_ns: 0 }
    }

    /// Adds a value.
    pub fn observe_ns(&mut self, ns: u64) {
        let at = self.bounds_ns.partition_point(|bound| *bound < ns);
        self.counts[at] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn sum_s(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Bounds in seconds, with cumulative counts.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut so_far = 0;
        self.bounds_ns.iter().zip(&self.counts).map(move |(bound, count)| {
            so_far += count;
            (*bound as f64 / 1e9, so_far)
        })
    }

    /// The smallest bound that covers this share of the values, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let wanted = self.count() as f64 * share;
        let last_s = self.bounds_ns[11] as f64 / 1e9;
        if self.count() == 0 {
            return None;
        }
        let found = self.buckets().find(|(_, so_far)| *so_far as f64 >= wanted);
        Some(found.map_or(last_s, |(bound_s, _)| bound_s) * 1000.0)
    }
}

/// The declaration of a metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its labels, for documents.
    pub labels: &'static str,
    /// The HELP text.
    pub about: &'static str,
    kind: MetricKind,
}

/// The Prometheus type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Never decreases.
    Counter,
    /// Can decrease.
    Gauge,
    /// Durations.
    Histogram,
}

impl Metric {
    /// A metric; its owner writes the samples.
    #[must_use]
    pub const fn new(
        name: &'static str,
        labels: &'static str,
        about: &'static str,
        kind: MetricKind,
    ) -> Self {
        Self { name, labels, about, kind }
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

/// The page being written, at the samples of one metric.
#[derive(Debug)]
pub struct Page<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl<'a> Page<'a> {
    /// Writes HELP and TYPE.
    pub(crate) fn begin(text: &'a mut String, metric: &Metric) -> Self {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {} {}.", metric.name, metric.about);
        let _ = writeln!(text, "# TYPE {} {}", metric.name, metric.kind.name());
        Self { text, name: metric.name }
    }

    /// Writes the only sample of a metric without labels.
    pub fn value(&mut self, value: u64) {
        self.row(&[], value);
    }

    /// Writes a sample. Label values are ours or validated: none contains a quote or newline.
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

    /// Writes the samples of a histogram.
    pub fn histogram(&mut self, times: &Histogram) {
        for (bound_s, count) in times.buckets() {
            self.line("_bucket", &[("le", &bound_s.to_string())], count);
        }
        self.line("_bucket", &[("le", "+Inf")], times.count());
        self.line("_sum", &[], times.sum_s());
        self.line("_count", &[], times.count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_on_a_bound_is_no_longer_than_it() {
        let mut times = Histogram::new(LATENCY_MS.map(|ms| ms * MS));
        for ms in [1, 2, 3, 6_000] {
            times.observe_ns(ms * MS);
        }
        let counts: Vec<u64> = times.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]);
        assert_eq!(times.count(), 4);
        assert_eq!((times.quantile_ms(0.5), times.quantile_ms(0.99)), (Some(2.0), Some(5_000.0)));
    }

    #[test]
    fn peers_cannot_make_rows() {
        assert_eq!(CodeClass::of(1006).name(), "1006");
        assert_eq!(CodeClass::of(3999), CodeClass::of(3000));
        assert_eq!(CodeClass::of(4999).name(), "4xxx");
    }
}
