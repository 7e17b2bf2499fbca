//! The report as one line of JSON, schema 2, and back. Times are in milliseconds; a histogram has
//! quantiles for readers, and all counts (`hdr.rs`), from which it is read. What is read may be
//! damaged, or come from elsewhere.

use serde_json::{Map, Value, json};

use super::hdr;
use super::histogram::COUNT_MAX;
use super::histogram::Histogram;
use super::report::ServerStats;
use super::summary::{Cause, Causes, Summary};
use crate::units::is_plain;

/// Incremented when a field gets another meaning or another place.
const SCHEMA: u64 = 2;
/// No time in milliseconds is as long as this.
const NUMBER_MAX: f64 = 1e15;

/// Fields by name.
type Fields<'s, T, const N: usize> = [(&'static str, &'s mut T); N];

impl Summary {
    /// Counts that are added when reports are merged.
    pub(super) fn counts(&mut self) -> Fields<'_, u64, 18> {
        [
            ("generators", &mut self.generators),
            ("clients", &mut self.clients),
            ("connected", &mut self.connected),
            ("not_yet_connected", &mut self.not_yet_connected),
            ("opened", &mut self.opened),
            ("due", &mut self.due),
            ("sent", &mut self.sent),
            ("repeated", &mut self.repeated),
            ("answered", &mut self.answered),
            ("unsent", &mut self.unsent),
            ("unanswered", &mut self.unanswered),
            ("failed", &mut self.failed),
            ("lost", &mut self.lost),
            ("unasked", &mut self.unasked),
            ("still_down", &mut self.still_down),
            ("storm_peak", &mut self.storm_peak),
            ("limited", &mut self.limited),
            ("starved", &mut self.starved),
        ]
    }

    fn numbers(&mut self) -> Fields<'_, f64, 4> {
        [
            ("began_ms", &mut self.began_ms),
            ("elapsed_ms", &mut self.elapsed_ms),
            ("apart_ms", &mut self.apart_ms),
            ("connect_ms", &mut self.connect_ms),
        ]
    }

    pub(super) fn shares(&mut self) -> Fields<'_, Option<f64>, 2> {
        [("cpu_share", &mut self.cpu_share), ("waiting_share", &mut self.waiting_share)]
    }

    pub(super) fn flags(&mut self) -> Fields<'_, bool, 3> {
        [
            ("interrupted", &mut self.interrupted),
            ("verify", &mut self.verify),
            ("reconnect", &mut self.reconnect),
        ]
    }

    fn texts(&mut self) -> Fields<'_, String, 2> {
        [("url", &mut self.url), ("task", &mut self.task)]
    }

    pub(super) fn times(&mut self) -> Fields<'_, Histogram, 3> {
        [("latency", &mut self.latency), ("downtime", &mut self.downtime), ("lag", &mut self.lag)]
    }

    /// The report as one line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let mut copy = self.clone();
        let mut map = Map::new();
        let mut put = |name: &str, value: Value| map.insert(name.to_owned(), value);
        put("schema", json!(SCHEMA));
        copy.counts().into_iter().for_each(|(name, count)| drop(put(name, json!(*count))));
        copy.numbers().into_iter().for_each(|(name, number)| drop(put(name, json!(*number))));
        copy.shares().into_iter().for_each(|(name, share)| drop(put(name, json!(*share))));
        copy.flags().into_iter().for_each(|(name, flag)| drop(put(name, json!(*flag))));
        copy.texts().into_iter().for_each(|(name, text)| drop(put(name, json!(*text))));
        copy.times().into_iter().for_each(|(name, times)| drop(put(name, of_times(times))));
        put("rate", json!(self.rate));
        put("errors", json!(self.errors));
        put("imbalance", json!(self.imbalance));
        put("ideal_ms", json!(self.ideal_ms));
        put("busiest_ms", json!(self.busiest_ms));
        put("missed", json!(self.missed));
        for (name, codes) in
            [("closes", &self.closes), ("closed_by_server", &self.closed_by_server)]
        {
            let codes = codes.iter().map(|(code, count)| (code.to_string(), json!(count)));
            put(name, Value::Object(codes.collect()));
        }
        for (name, causes) in [("causes", &self.causes), ("failed_attempts", &self.failed_attempts)]
        {
            let cause = |Cause { count, text }: &Cause| json!({ "count": count, "text": text });
            let causes = causes.iter().map(|(code, found)| (code.clone(), cause(found)));
            put(name, Value::Object(causes.collect()));
        }
        let servers = self.servers.iter().map(|server| {
            let ServerStats { name, connections, answers, .. } = server;
            json!({ "name": name, "connections": connections, "answers": answers })
        });
        put("servers", Value::Array(servers.collect()));
        format!("{}\n", Value::Object(map))
    }

    /// Reads a line. The error is a clause or two.
    pub(super) fn from_json(line: &str) -> Result<Self, String> {
        let none = "it is not a report of wspulse load --json";
        let value: Value = serde_json::from_str(line).map_err(|error| {
            if error.is_eof() {
                format!("{none}: it was cut off")
            } else {
                format!("{none}: {error}")
            }
        })?;
        match value.get("schema") {
            Some(schema) if schema.as_u64() == Some(SCHEMA) => {}
            Some(other) => {
                let other = if other.is_number() { &other.to_string() } else { "another" };
                return Err(format!("it has schema {other}, and only {SCHEMA} can be read"));
            }
            None => return Err(format!("{none}: it has no schema")),
        }
        let report = Self::from_value(&value);
        let mut report = report.map_err(|(name, fault)| format!("{name} {fault}"))?;
        report.check()?;
        Ok(report)
    }

    fn from_value(value: &Value) -> Result<Self, (&'static str, &'static str)> {
        let mut report = Self::default();
        for (name, count) in report.counts() {
            *count = value[name].as_u64().ok_or((name, "is missing, or no count"))?;
        }
        for (name, number) in report.numbers() {
            *number = value[name].as_f64().ok_or((name, "is missing, or no number"))?;
        }
        for (name, share) in report.shares() {
            *share = value[name].as_f64();
        }
        for (name, flag) in report.flags() {
            *flag = value[name].as_bool().ok_or((name, "is missing, or neither true nor false"))?;
        }
        for (name, text) in report.texts() {
            value[name].as_str().ok_or((name, "is missing, or no text"))?.clone_into(text);
        }
        for (name, times) in report.times() {
            *times = to_times(&value[name]).map_err(|fault| (name, fault))?;
        }
        report.ideal_ms = value["ideal_ms"].as_f64();
        report.busiest_ms = value["busiest_ms"].as_f64();
        for (name, codes) in
            [("closes", &mut report.closes), ("closed_by_server", &mut report.closed_by_server)]
        {
            for (code, count) in entries(value, name)? {
                let pair = code.parse().ok().zip(count.as_u64());
                codes.extend([pair.ok_or((name, "has something else than codes and counts"))?]);
            }
        }
        report.causes = to_causes(value, "causes")?;
        report.failed_attempts = to_causes(value, "failed_attempts")?;
        for server in value["servers"].as_array().ok_or(("servers", "are missing, or no list"))? {
            let parts = (server["name"].as_str(), server["connections"].as_u64());
            let ((Some(name), Some(connections)), Some(answers)) =
                (parts, server["answers"].as_u64())
            else {
                return Err(("servers", "lack a name or a count"));
            };
            let name = name.to_owned();
            report.servers.push(ServerStats { name, connections, answers, ..Default::default() });
        }
        report.derive();
        Ok(report)
    }

    /// Finds numbers beyond any measurement, and characters that would control a terminal.
    pub(super) fn check(&mut self) -> Result<(), &'static str> {
        let counts = self.counts().map(|(_, count)| *count).into_iter();
        let numbers = self.numbers().map(|(_, number)| Some(*number)).into_iter();
        let numbers = numbers.chain(self.shares().map(|(_, share)| *share));
        let causes = [&self.causes, &self.failed_attempts].into_iter().flatten();
        let counts = counts.chain(causes.clone().map(|(_, cause)| cause.count));
        let counts = counts.chain(self.closes.values().copied());
        let counts = counts.chain(self.closed_by_server.values().copied());
        let servers = self.servers.iter();
        let mut counts = counts.chain(servers.clone().flat_map(|s| [s.connections, s.answers]));
        // Sums of these fit, however many there are.
        if counts.any(|count| count > COUNT_MAX) {
            return Err("it has an absurd count");
        }
        let mut numbers = numbers.chain([self.ideal_ms, self.busiest_ms]).flatten();
        if !numbers.all(|number| (0.0..NUMBER_MAX).contains(&number)) {
            return Err("it has an absurd time");
        }
        let texts = causes.flat_map(|(code, cause)| [code, &cause.text]);
        let texts = texts.chain(servers.map(|server| &server.name)).chain([&self.url, &self.task]);
        if texts.into_iter().any(|text| !text.chars().all(is_plain)) {
            return Err("it has control or invisible characters");
        }
        Ok(())
    }
}

fn of_times(times: &Histogram) -> Value {
    let ms = |ns: u64| ns as f64 / 1e6;
    let at = |per_mille: u64| ms(times.quantile(per_mille));
    json!({
        "count": times.total(),
        "min_ms": ms(times.least()),
        "p50_ms": at(500),
        "p90_ms": at(900),
        "p99_ms": at(990),
        "p999_ms": at(999),
        "max_ms": ms(times.most()),
        "histogram": hdr::encode(times),
    })
}

fn to_times(value: &Value) -> Result<Histogram, &'static str> {
    let encoded = value["histogram"].as_str().ok_or("has no histogram")?;
    let mut times = hdr::decode(encoded)?;
    #[expect(clippy::cast_sign_loss, reason = "a negative number becomes 0")]
    let ns = |name: &str| value[name].as_f64().map(|ms| (ms * 1e6).round() as u64);
    let range = ns("min_ms").zip(ns("max_ms")).ok_or("has no minimum or maximum")?;
    times.set_range(range.0, range.1)?;
    Ok(times)
}

fn entries<'v>(
    value: &'v Value,
    name: &'static str,
) -> Result<&'v Map<String, Value>, (&'static str, &'static str)> {
    value[name].as_object().ok_or((name, "are missing, or no object"))
}

fn to_causes(value: &Value, name: &'static str) -> Result<Causes, (&'static str, &'static str)> {
    let mut causes = Causes::new();
    for (code, cause) in entries(value, name)? {
        let count = cause["count"].as_u64().ok_or((name, "have something else than a count"))?;
        let text = cause["text"].as_str().ok_or((name, "have no text"))?.to_owned();
        causes.insert(code.clone(), Cause { count, text });
    }
    Ok(causes)
}
