//! One question to the API server and its answer, from the first byte to the last: what is asked
//! for, and what the answer's parts mean before anyone acts on them.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Access;
use super::deployment;
use super::limits;
use super::lines::Lines;
use super::pieces::Pieces;
use super::trouble::Trouble;
use crate::proto::http_client::{Answer, Asked, Head, Limits, Request, Unsendable};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// A page of all Deployments.
    List,
    /// What changes from now on.
    Watch,
}

/// A question that was asked.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) question: Question,
    pub(super) answer: Answer,
    pub(super) body: Body,
    /// By then the answer, or a watch's end, must be there.
    pub(super) until_ns: u64,
    pub(super) since_ns: u64,
    /// The connection has served another question before, so it may end just now.
    pub(super) reused: bool,
    /// Lines of a watch that meant something.
    pub(super) heard: u64,
}

/// What the answer's bytes are.
#[derive(Debug)]
pub(super) enum Body {
    /// Not known: its head is not there.
    Unknown,
    List(Pieces),
    Watch(Lines),
}

/// What an answer's head means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// The version, or the page, is no longer there.
    Gone,
    Bad(Trouble, Option<u64>),
}

/// Judges a head; no redirect is followed, since the token would go along.
pub(super) fn judge(head: &Head<'_>) -> Verdict {
    let seconds = || {
        let value = std::str::from_utf8(head.value("retry-after")?).ok()?;
        Some(value.trim().parse::<u64>().ok()?.min(limits::RETRY_AFTER_S_MAX))
    };
    let encoded = head
        .value("content-encoding")
        .is_some_and(|value| !value.eq_ignore_ascii_case(b"identity"));
    match head.status() {
        200 if encoded => Verdict::Bad(Trouble::Encoded, None),
        200 => Verdict::Good,
        401 => Verdict::Bad(Trouble::Unauthorized, None),
        403 => Verdict::Bad(Trouble::Forbidden, seconds()),
        410 => Verdict::Gone,
        429 => Verdict::Bad(Trouble::Busy, seconds()),
        300..=399 => Verdict::Bad(Trouble::Redirect, None),
        status => Verdict::Bad(Trouble::Status(status), seconds()),
    }
}

impl Asking {
    pub(super) fn new(question: Question, since_ns: u64, reused: bool) -> Self {
        let body_bytes = match question {
            Question::List => limits::PAGE_BYTES,
            Question::Watch => u64::MAX,
        };
        let limits = Limits { head_bytes: limits::HEAD_BYTES, body_bytes };
        Self {
            question,
            answer: Answer::new(Asked::Ordinary, limits),
            body: Body::Unknown,
            until_ns: since_ns + crate::time::ms(limits::ANSWER_MS),
            since_ns,
            reused,
            heard: 0,
        }
    }

    /// Whether a list has come as a whole.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.body, Body::List(pieces) if pieces.is_over())
    }

    /// What it holds.
    pub(super) fn cost(&self) -> usize {
        match &self.body {
            Body::Watch(lines) => lines.cost(),
            Body::List(pieces) => pieces.cost(),
            Body::Unknown => 0,
        }
    }
}

/// Writes a question.
pub(super) fn write(
    out: &mut Vec<u8>,
    access: &Access,
    namespace: &str,
    query: &str,
    token: Option<&str>,
) -> Result<(), Unsendable> {
    let within = if namespace.is_empty() {
        String::new()
    } else {
        format!("/namespaces/{}", escaped(namespace))
    };
    let target = format!("{}/apis/apps/v1{within}/deployments?{query}", access.prefix);
    let authorization = token.map(|token| format!("Bearer {token}"));
    let mut fields = vec![
        ("Accept", "application/json"),
        ("User-Agent", concat!("wspulse/", env!("CARGO_PKG_VERSION"))),
    ];
    if let Some(authorization) = &authorization {
        fields.push(("Authorization", authorization));
    }
    let host = access.authority();
    Request { method: "GET", target: &target, host: &host, fields: &fields, body: b"" }.write(out)
}

/// As a value in a query (RFC 3986 §2.1).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// A line of a watch.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Is(&'a [u8]),
    Gone(&'a [u8]),
    Bookmark(String),
    /// With its code; none is 0.
    Error(u16),
    /// Nothing that we know.
    Unknown,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: ListMetadata<'a>,
}

/// What a list says of itself, and a bookmark.
#[derive(Deserialize)]
pub(super) struct ListMetadata<'a> {
    #[serde(borrow, default, rename = "resourceVersion")]
    pub(super) version: Cow<'a, str>,
    #[serde(borrow, default, rename = "continue")]
    pub(super) more: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(default)]
    code: Option<u16>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

/// Reads a line of a watch.
pub(super) fn event(line: &[u8]) -> Event<'_> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(line) else { return Event::Unknown };
    let object = envelope.object.get();
    match &*envelope.r#type {
        "ADDED" | "MODIFIED" => Event::Is(object.as_bytes()),
        "DELETED" => Event::Gone(object.as_bytes()),
        "BOOKMARK" => {
            let version = serde_json::from_str::<OnlyMetadata<'_>>(object)
                .ok()
                .map(|object| object.metadata.version)
                .filter(|version| deployment::is_version(version));
            version.map_or(Event::Unknown, |version| Event::Bookmark(version.into_owned()))
        }
        "ERROR" => {
            let failure = serde_json::from_str::<Failure<'_>>(object).ok();
            let expired = failure.as_ref().and_then(|failure| failure.reason.as_deref());
            let expired = matches!(expired, Some("Expired" | "Gone"));
            let code = failure.and_then(|failure| failure.code).unwrap_or(0);
            Event::Error(if expired { 410 } else { code })
        }
        _ => Event::Unknown,
    }
}
