//! A request to the API server and the parsing of its response.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Access;
use super::error::Error;
use super::limits;
use super::lines::Lines;
use super::list_parser::ListParser;
use super::object;
use super::resource::Resource;
use crate::proto::http_client::{Answer, Asked, Head, Limits, Request, Unsendable};
use crate::time;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A page of the objects, or all of them.
    List,
    /// All objects as events, up to a marked bookmark; then it is a [`RequestKind::Watch`].
    Stream,
    /// Changes after a resource version.
    Watch,
}

/// A request that was sent, and the response so far.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) answer: Answer,
    pub(super) body: Body,
    pub(super) course: Course,
}

/// How far an exchange has come, which decides what comes next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) kind: RequestKind,
    pub(super) since_ns: u64,
    /// When the exchange times out.
    pub(super) until_ns: u64,
    /// When the server must have ended the response.
    pub(super) ends_ns: u64,
    /// An open watch without events: from then on it counts as working.
    pub(super) proven_ns: Option<u64>,
    /// Whether the connection was idle before, so that the server may just be closing it.
    pub(super) reused: bool,
    /// Valid events of a watch.
    pub(super) events: u64,
}

impl Course {
    /// When there is something to do for it.
    pub(super) fn due_ns(&self) -> u64 {
        self.proven_ns.map_or(self.until_ns, |proven_ns| proven_ns.min(self.until_ns))
    }
}

#[derive(Debug)]
pub(super) enum Body {
    /// Before the head.
    Unknown,
    List(ListParser),
    Watch(Lines),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadStatus {
    Ok,
    /// The resource version or page has expired.
    Expired,
    /// With the seconds of `Retry-After`.
    Failed(Error, Option<u64>),
}

/// Redirects are errors, since following them could leak the token.
pub(super) fn check_head(head: &Head<'_>) -> HeadStatus {
    let seconds = || {
        let value = std::str::from_utf8(head.value("retry-after")?).ok()?;
        Some(value.trim().parse::<u64>().ok()?.min(limits::RETRY_AFTER_S_MAX))
    };
    let encoded = head
        .value("content-encoding")
        .is_some_and(|value| !value.eq_ignore_ascii_case(b"identity"));
    match head.status() {
        200 if encoded => HeadStatus::Failed(Error::Encoded, None),
        200 => HeadStatus::Ok,
        401 => HeadStatus::Failed(Error::Unauthorized, None),
        403 => HeadStatus::Failed(Error::Forbidden, seconds()),
        410 => HeadStatus::Expired,
        429 => HeadStatus::Failed(Error::Busy, seconds()),
        300..=399 => HeadStatus::Failed(Error::Redirect, None),
        status => HeadStatus::Failed(Error::Status(status), seconds()),
    }
}

impl Exchange {
    /// The server has `most_ms` for the response, and for its head no longer than
    /// [`limits::ANSWER_MS`].
    pub(super) fn new(kind: RequestKind, since_ns: u64, most_ms: u64, reused: bool) -> Self {
        let body_bytes = match kind {
            RequestKind::List => limits::LIST_BYTES,
            RequestKind::Stream | RequestKind::Watch => u64::MAX,
        };
        let limits = Limits { head_bytes: limits::HEAD_BYTES, body_bytes };
        let course = Course {
            kind,
            since_ns,
            until_ns: since_ns + time::ms(limits::ANSWER_MS),
            ends_ns: since_ns + time::ms(most_ms),
            proven_ns: None,
            reused,
            events: 0,
        };
        Self { answer: Answer::new(Asked::Ordinary, limits), body: Body::Unknown, course }
    }

    /// Whether a list is complete.
    pub(super) fn is_whole(&self) -> bool {
        matches!(&self.body, Body::List(parser) if parser.is_over())
    }

    pub(super) fn cost(&self) -> usize {
        match &self.body {
            Body::Watch(lines) => lines.cost(),
            Body::List(parser) => parser.cost(),
            Body::Unknown => 0,
        }
    }
}

pub(super) fn write(
    out: &mut Vec<u8>,
    access: &Access,
    resource: Resource,
    namespace: &str,
    query: &str,
    token: Option<&str>,
) -> Result<(), Unsendable> {
    let within = if namespace.is_empty() {
        String::new()
    } else {
        format!("/namespaces/{}", escaped(namespace))
    };
    let (api, name) = (resource.api(), resource.name());
    let target = format!("{}{api}{within}/{name}?{query}", access.prefix);
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

/// Percent-encodes a value for a query (RFC 3986 §2.1).
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

/// An event of a watch.
#[derive(Debug)]
pub(super) enum Event<'a> {
    Added(&'a [u8]),
    Modified(&'a [u8]),
    Deleted(&'a [u8]),
    /// With its resource version, and whether it ends the initial events of a streamed list.
    Bookmark(String, bool),
    /// With its code; 0 if it has none.
    Error(u16),
    /// Invalid or of an unknown type.
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

/// The metadata of a list or bookmark.
#[derive(Deserialize)]
pub(super) struct ListMetadata<'a> {
    #[serde(borrow, default, rename = "resourceVersion")]
    pub(super) version: Cow<'a, str>,
    #[serde(borrow, default, rename = "continue")]
    pub(super) more: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    annotations: Option<Annotations<'a>>,
}

#[derive(Deserialize)]
struct Annotations<'a> {
    #[serde(borrow, default, rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Failure<'a> {
    #[serde(default)]
    code: Option<u16>,
    #[serde(borrow, default)]
    reason: Option<Cow<'a, str>>,
}

/// Parses a line of a watch.
pub(super) fn event(line: &[u8]) -> Event<'_> {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(line) else { return Event::Unknown };
    let object = envelope.object.get();
    match &*envelope.r#type {
        "ADDED" => Event::Added(object.as_bytes()),
        "MODIFIED" => Event::Modified(object.as_bytes()),
        "DELETED" => Event::Deleted(object.as_bytes()),
        "BOOKMARK" => {
            let Ok(OnlyMetadata { metadata }) = serde_json::from_str(object) else {
                return Event::Unknown;
            };
            let end = metadata.annotations.and_then(|annotations| annotations.initial_events_end);
            if object::is_version(&metadata.version) {
                Event::Bookmark(metadata.version.into_owned(), end.as_deref() == Some("true"))
            } else {
                Event::Unknown
            }
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
