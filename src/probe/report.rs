//! The outcome of a probe: as a page, as JSON (schema 1), as `JUnit` XML, and as an exit code.

use std::fmt::Write;

use serde_json::Value;

use super::Plan;
use super::facts::Facts;
use super::path::{self, Hop};
use crate::proto::secrets::masked_url;

/// Incremented when a field gets another meaning or another place.
const SCHEMA: u32 = 1;
/// Width of the page.
const COLUMNS: usize = 96;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing needs to change.
    Info,
    /// WebSockets work, but something is changed on the way.
    Warning,
    /// WebSockets do not work, or will be cut.
    Error,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Something that the path does to WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name of the cause.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it means, in a sentence.
    pub title: String,
    /// What was seen.
    pub evidence: String,
    /// The products that are known to do this, the most likely first.
    pub hops: Vec<&'static str>,
    /// What to change; lines to paste.
    pub remedy: String,
}

/// The judgement of an experiment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// Why its question is not answered.
    pub unknown: Option<String>,
    /// What was found out, in a few words.
    pub note: String,
    /// Measurements.
    pub figures: Vec<(&'static str, Value)>,
    /// Empty: passed.
    pub findings: Vec<Finding>,
}

impl Verdict {
    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self { unknown: Some(why.into()), ..Self::default() }
    }

    pub(super) fn passed(note: impl Into<String>) -> Self {
        Self { note: note.into(), ..Self::default() }
    }

    pub(super) fn figure(&mut self, name: &'static str, value: impl Into<Value>) {
        self.figures.push((name, value.into()));
    }

    /// What it comes to, in a few words: of findings their ids.
    fn summary(&self) -> String {
        let bad = self.findings.iter().filter(|found| found.severity > Severity::Info);
        match (self.result(), &self.unknown) {
            ("finding", _) => bad.map(|found| found.id.as_str()).collect::<Vec<_>>().join(", "),
            (_, Some(why)) => why.clone(),
            _ => self.note.clone(),
        }
    }

    fn result(&self) -> &'static str {
        match self {
            Self { findings, .. } if findings.iter().any(|f| f.severity > Severity::Info) => {
                "finding"
            }
            Self { unknown: Some(_), .. } => "unknown",
            _ => "passed",
        }
    }
}

/// An experiment in the report.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Its name.
    pub id: &'static str,
    /// How long it took.
    pub took_ns: u64,
    /// Its judgement.
    pub verdict: Verdict,
}

/// The outcome of a probe.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    url: String,
    far_end: &'static str,
    path: Vec<Hop>,
    outcomes: Vec<Outcome>,
    /// Whether it ended early.
    pub(super) interrupted: bool,
    /// Requests and upgrades.
    pub(super) requests: u32,
    reached: bool,
}

impl Report {
    pub(super) fn new(plan: &Plan, facts: &Facts) -> Self {
        Self {
            // It ends up in the artifacts of CI.
            url: masked_url(&plan.url).into_owned(),
            far_end: if facts.hello.is_some() { "wspulse" } else { "other" },
            path: path::stations(facts, plan),
            outcomes: Vec::new(),
            interrupted: false,
            requests: 0,
            reached: facts.reached,
        }
    }

    pub(super) fn add(&mut self, id: &'static str, verdict: Verdict, took_ns: u64) {
        self.outcomes.push(Outcome { id, took_ns, verdict });
    }

    /// All findings with the experiment that made them, the worst first.
    #[must_use]
    pub fn findings(&self) -> Vec<(&'static str, &Finding)> {
        let mut all = Vec::new();
        for severity in [Severity::Error, Severity::Warning, Severity::Info] {
            for of in &self.outcomes {
                let found = of.verdict.findings.iter().filter(|found| found.severity == severity);
                all.extend(found.map(|found| (of.id, found)));
            }
        }
        all
    }

    /// The exit code: 3 if a finding is at least this bad, 1 if nothing answered, 4 if it was
    /// interrupted before it could know.
    #[must_use]
    pub fn exit_code(&self, fail_on: Severity) -> u8 {
        let is_bad = self.findings().iter().any(|(_, finding)| finding.severity >= fail_on);
        match (self.reached, is_bad) {
            (false, _) => 1,
            (true, true) => 3,
            (true, false) if self.interrupted => 4,
            (true, false) => 0,
        }
    }

    /// One line of JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let path = self.path.iter().map(|hop| {
            object(&[
                ("role", hop.role.into()),
                ("name", hop.name.as_str().into()),
                ("detail", hop.detail.as_str().into()),
            ])
        });
        let experiments = self.outcomes.iter().map(|of| {
            let verdict = &of.verdict;
            object(&[
                ("id", of.id.into()),
                ("result", verdict.result().into()),
                ("seconds", seconds(of.took_ns).into()),
                ("note", verdict.summary().into()),
                ("figures", object(&verdict.figures)),
            ])
        });
        let findings = self.findings().into_iter().map(|(id, finding)| {
            object(&[
                ("id", finding.id.as_str().into()),
                ("severity", finding.severity.name().into()),
                ("experiment", id.into()),
                ("title", finding.title.as_str().into()),
                ("evidence", finding.evidence.as_str().into()),
                ("hops", Value::Array(finding.hops.iter().map(|hop| (*hop).into()).collect())),
                ("remedy", finding.remedy.as_str().into()),
            ])
        });
        let report = object(&[
            ("schema", SCHEMA.into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("url", self.url.as_str().into()),
            ("farEnd", self.far_end.into()),
            ("interrupted", self.interrupted.into()),
            ("requests", self.requests.into()),
            ("path", Value::Array(path.collect())),
            ("experiments", Value::Array(experiments.collect())),
            ("findings", Value::Array(findings.collect())),
        ]);
        format!("{report}\n")
    }

    /// `JUnit` XML: one test case for each experiment.
    #[must_use]
    pub fn junit(&self) -> String {
        let failed = self.outcomes.iter().filter(|of| of.verdict.result() == "finding").count();
        let unknown = self.outcomes.iter().filter(|of| of.verdict.result() == "unknown").count();
        let mut text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"wspulse probe {}\" \
             tests=\"{}\" failures=\"{failed}\" skipped=\"{unknown}\">\n",
            xml(&self.url),
            self.outcomes.len()
        );
        for of in &self.outcomes {
            let verdict = &of.verdict;
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                "  <testcase classname=\"wspulse.probe\" name=\"{}\" time=\"{:.3}\">",
                of.id,
                seconds(of.took_ns)
            );
            match verdict.result() {
                "finding" => {
                    for finding in &verdict.findings {
                        let _ = write!(
                            text,
                            "\n    <failure type=\"{}\" message=\"{}\">{}\n{}</failure>",
                            xml(&finding.id),
                            xml(&finding.title),
                            xml(&finding.evidence),
                            xml(&finding.remedy)
                        );
                    }
                    text.push_str("\n  ");
                }
                "unknown" => {
                    let why = verdict.unknown.as_deref().unwrap_or_default();
                    let _ = write!(text, "<skipped message=\"{}\"/>", xml(why));
                }
                _ => {}
            }
            text.push_str("</testcase>\n");
        }
        text.push_str("</testsuite>\n");
        text
    }

    /// The report for people.
    #[must_use]
    pub fn page(&self) -> String {
        let mut page = String::new();
        let stations = self.path.iter().map(|hop| match &*hop.detail {
            "" => hop.name.clone(),
            detail => format!("{} ({detail})", hop.name),
        });
        wrap(&mut page, &stations.collect::<Vec<_>>().join(" → "), "", "    ");
        page.push('\n');
        let findings = self.findings();
        for (_, finding) in &findings {
            let head = format!("{}: {}", finding.severity.name(), finding.title);
            wrap(&mut page, &head, "", "         ");
            wrap(&mut page, &format!("seen:   {}", finding.evidence), "  ", "          ");
            if !finding.hops.is_empty() {
                wrap(
                    &mut page,
                    &format!("likely: {}", finding.hops.join(", ")),
                    "  ",
                    "          ",
                );
            }
            for (at, line) in finding.remedy.lines().enumerate() {
                let label = if at == 0 { "change: " } else { "        " };
                // Not wrapped: it is to be pasted.
                let _ = writeln!(page, "  {label}{line}");
            }
            let _ = writeln!(page, "  id:     {}\n", finding.id);
        }
        for of in &self.outcomes {
            let verdict = &of.verdict;
            let sign = match verdict.result() {
                "finding" => "FINDING",
                "passed" => "ok",
                unknown => unknown,
            };
            let line = format!("{:<11} {sign:<8} {}", of.id, verdict.summary());
            wrap(&mut page, &line, "", &" ".repeat(21));
        }
        let bad = findings.iter().filter(|(_, finding)| finding.severity > Severity::Info).count();
        let _ = match (self.reached, bad, self.interrupted) {
            (false, ..) => writeln!(page, "\nNothing could be asked."),
            (_, _, true) => writeln!(page, "\nInterrupted: only a part of the path was examined."),
            (_, 0, _) => {
                writeln!(page, "\nNo errors and no warnings: this path carries WebSockets.")
            }
            (_, 1, _) => writeln!(page, "\n1 finding."),
            (_, n, _) => writeln!(page, "\n{n} findings."),
        };
        page
    }
}

/// A function and not the macro `json!`, which writes the same code at each place.
fn object(fields: &[(&'static str, Value)]) -> Value {
    Value::Object(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
}

fn seconds(ns: u64) -> f64 {
    (ns as f64 / 1e6).round() / 1e3
}

/// Appends a paragraph, broken at blanks.
fn wrap(page: &mut String, text: &str, first: &str, others: &str) {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split(' ') {
        let width = line.chars().count() + 1 + word.chars().count();
        if width > COLUMNS && !is_empty {
            page.push_str(line.trim_end());
            page.push('\n');
            others.clone_into(&mut line);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    page.push_str(line.trim_end());
    page.push('\n');
}

/// Escapes text for XML; control characters are not allowed there.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            c if c.is_control() && c != '\n' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
