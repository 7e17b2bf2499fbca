//! Encodes messages for viewers: text, whose wording is fixed to the byte, and JSON.

use core::fmt::Write as _;

use serde::Serialize;

use super::object::{Fields, Key, Object, Replicas};
use super::resource::Resource;
use super::store::ChangeKind;
use crate::heap;
use crate::proto::frame::{self, Kind};
use crate::time;

/// The message format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Sentences in English.
    #[default]
    Text,
    /// An object per message; also reports whether the objects are up to date.
    Json,
}

/// Encoded frames, shared by all viewers.
#[derive(Debug, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// The ranges of the payloads.
    payloads: Vec<(u32, u32)>,
}

impl Encoded {
    /// Heap memory.
    #[must_use]
    pub fn cost(&self) -> usize {
        heap::cost(self.bytes.capacity()) + heap::table::<(u32, u32)>(self.payloads.capacity())
    }

    /// All frames.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The payloads of the frames.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let range = |&(from, to): &(u32, u32)| &self.bytes[from as usize..to as usize];
        self.payloads.iter().map(range)
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.payloads.clear();
    }

    fn push(&mut self, payload: &[u8]) {
        frame::write_message(&mut self.bytes, Kind::Text, payload);
        let end = self.bytes.len();
        // Messages are at most a few KiB, so the casts are lossless.
        self.payloads.push(((end - payload.len()) as u32, end as u32));
    }

    /// As Go's `encoding/json` writes it, which is also safe within HTML.
    fn go_json(&mut self, value: &impl Serialize) {
        let json = serde_json::to_string(value).unwrap_or_default();
        let mut escaped = String::with_capacity(json.len());
        for c in json.chars() {
            // Outside of strings there are none of these.
            if matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            } else {
                escaped.push(c);
            }
        }
        self.push(escaped.as_bytes());
    }

    fn json(&mut self, value: &impl Serialize) {
        // Strings and numbers always serialize.
        self.push(&serde_json::to_vec(value).unwrap_or_default());
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct ChangeEvent<'a> {
    pub(super) resource: Resource,
    pub(super) key: &'a Key,
    pub(super) state: &'a Object,
    pub(super) kind: &'a ChangeKind,
    pub(super) wall_ms: i64,
}

#[derive(Serialize)]
struct TextChange<'a> {
    timestamp: &'a str,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonChange<'a> {
    r#type: &'static str,
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    resource_version: &'a str,
    #[serde(flatten)]
    fields: JsonFields<'a>,
    images: &'a [Box<str>],
    /// There are more images than these.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    images_truncated: bool,
    changed: Vec<&'static str>,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum JsonFields<'a> {
    Workload { replicas: Replicas },
    Pod { phase: &'a str, reason: &'a str, node: &'a str, containers: Containers, restarts: u32 },
}

#[derive(Serialize)]
struct Containers {
    ready: u32,
    total: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSynced<'a> {
    r#type: &'static str,
    kind: &'static str,
    resource_version: &'a str,
    /// There are more objects than were sent.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    truncated: bool,
}

#[derive(Serialize)]
struct JsonStale<'a> {
    r#type: &'static str,
    kind: &'static str,
    since: String,
    reason: &'a str,
}

#[derive(Serialize)]
struct JsonGap {
    r#type: &'static str,
    kind: &'static str,
}

pub(super) fn write(out: &mut Encoded, format: Format, event: ChangeEvent<'_>) {
    match format {
        Format::Text => text(out, event),
        Format::Json => json(out, event),
    }
}

fn text(out: &mut Encoded, event: ChangeEvent<'_>) {
    let (name, noun) = (event.key.name(), event.resource.noun());
    match event.kind {
        ChangeKind::Deleted => {
            out.push(format!("{noun} {name} deleted").as_bytes());
            out.push(format!("{noun} {} has been deleted", event.key.text()).as_bytes());
            return;
        }
        ChangeKind::Added => {}
        ChangeKind::Modified(before) => {
            // RFC 3339 in whole seconds, as Go formats it.
            let timestamp = time::rfc3339(event.wall_ms);
            let timestamp = format!("{}Z", &timestamp[..19]);
            let mut change = |kind: &str, now: &str| {
                let message = format!("{noun} {name} updated - {kind} changed: {now}");
                out.go_json(&TextChange { timestamp: &timestamp, message });
            };
            match (&before.fields, &event.state.fields) {
                (Fields::Workload(before), Fields::Workload(now)) => {
                    if before.desired != now.desired {
                        change("Replicas", &now.desired.to_string());
                    }
                }
                (Fields::Pod(before), Fields::Pod(now)) => {
                    if before.phase != now.phase {
                        change("Phase", &now.phase);
                    }
                }
                (Fields::Workload(_), Fields::Pod(_)) | (Fields::Pod(_), Fields::Workload(_)) => {}
            }
            if before.first_image() != event.state.first_image() {
                change("Image", event.state.first_image());
            }
        }
    }
    let singular = event.resource.singular();
    out.push(format!("Successfully processed {singular}: {name}").as_bytes());
}

fn json(out: &mut Encoded, event: ChangeEvent<'_>) {
    let Object { version, fields, images, .. } = event.state;
    let (r#type, changed) = match event.kind {
        ChangeKind::Added => ("added", Vec::new()),
        ChangeKind::Deleted => ("deleted", Vec::new()),
        ChangeKind::Modified(before) => ("modified", changed(before, event.state)),
    };
    let fields = match fields {
        Fields::Workload(replicas) => JsonFields::Workload { replicas: *replicas },
        Fields::Pod(pod) => JsonFields::Pod {
            phase: &pod.phase,
            reason: &pod.reason,
            node: &pod.node,
            containers: Containers { ready: pod.ready, total: pod.containers },
            restarts: pod.restarts,
        },
    };
    out.json(&JsonChange {
        r#type,
        kind: event.resource.name(),
        namespace: event.key.namespace(),
        name: event.key.name(),
        resource_version: version,
        fields,
        images: &images.shown,
        images_truncated: images.rest.is_some(),
        changed,
        timestamp: time::rfc3339(event.wall_ms),
    });
}

/// The names of the fields that differ.
fn changed(before: &Object, now: &Object) -> Vec<&'static str> {
    let image = ("image", before.images != now.images);
    let fields = match (&before.fields, &now.fields) {
        (Fields::Workload(old), Fields::Workload(new)) => vec![
            ("replicas", old.desired != new.desired),
            image,
            ("ready", old.ready != new.ready),
            ("updated", old.updated != new.updated),
            ("available", old.available != new.available),
        ],
        (Fields::Pod(old), Fields::Pod(new)) => vec![
            ("phase", old.phase != new.phase),
            ("reason", old.reason != new.reason),
            ("node", old.node != new.node),
            ("containers", (old.ready, old.containers) != (new.ready, new.containers)),
            ("restarts", old.restarts != new.restarts),
            image,
        ],
        (Fields::Workload(_), Fields::Pod(_)) | (Fields::Pod(_), Fields::Workload(_)) => vec![],
    };
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

pub(super) fn synced(out: &mut Encoded, resource: Resource, version: &str, truncated: bool) {
    let kind = resource.name();
    out.json(&JsonSynced { r#type: "synced", kind, resource_version: version, truncated });
}

pub(super) fn stale(out: &mut Encoded, resource: Resource, since_ms: i64, reason: &str) {
    let (kind, since) = (resource.name(), time::rfc3339(since_ms));
    out.json(&JsonStale { r#type: "stale", kind, since, reason });
}

pub(super) fn gap(out: &mut Encoded, resource: Resource) {
    out.json(&JsonGap { r#type: "gap", kind: resource.name() });
}
