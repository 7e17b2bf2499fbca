//! Encodes messages for viewers: text, whose wording is fixed to the byte, and JSON.

use core::fmt::Write as _;

use serde::Serialize;

use super::deployment::{Deployment, Key, Replicas};
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
    /// An object per message; also reports whether the Deployments are up to date.
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
    pub(super) key: &'a Key,
    pub(super) state: &'a Deployment,
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
    namespace: &'a str,
    name: &'a str,
    resource_version: &'a str,
    replicas: Counts,
    images: &'a [Box<str>],
    changed: Vec<&'static str>,
    timestamp: String,
}

#[derive(Serialize)]
struct Counts {
    desired: u32,
    ready: u32,
    updated: u32,
    available: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonSynced<'a> {
    r#type: &'static str,
    resource_version: &'a str,
}

#[derive(Serialize)]
struct JsonStale<'a> {
    r#type: &'static str,
    since: String,
    reason: &'a str,
}

pub(super) fn write(out: &mut Encoded, format: Format, event: ChangeEvent<'_>) {
    match format {
        Format::Text => text(out, event),
        Format::Json => json(out, event),
    }
}

fn text(out: &mut Encoded, event: ChangeEvent<'_>) {
    let name = event.key.name();
    match event.kind {
        ChangeKind::Deleted => {
            out.push(format!("Deployment {name} deleted").as_bytes());
            out.push(format!("Deployment {} has been deleted", event.key.text()).as_bytes());
            return;
        }
        ChangeKind::Added => {}
        ChangeKind::Modified(before) => {
            // RFC 3339 in whole seconds, as Go formats it.
            let timestamp = time::rfc3339(event.wall_ms);
            let timestamp = format!("{}Z", &timestamp[..19]);
            let mut change = |kind: &str, now: &str| {
                let message = format!("Deployment {name} updated - {kind} changed: {now}");
                out.go_json(&TextChange { timestamp: &timestamp, message });
            };
            let desired = event.state.replicas.desired;
            if before.replicas.desired != desired {
                change("Replicas", &desired.to_string());
            }
            if before.first_image() != event.state.first_image() {
                change("Image", event.state.first_image());
            }
        }
    }
    out.push(format!("Successfully processed deployment: {name}").as_bytes());
}

fn json(out: &mut Encoded, event: ChangeEvent<'_>) {
    let Deployment { version, replicas, images, .. } = event.state;
    let Replicas { desired, ready, updated, available } = *replicas;
    let (r#type, changed) = match event.kind {
        ChangeKind::Added => ("added", Vec::new()),
        ChangeKind::Deleted => ("deleted", Vec::new()),
        ChangeKind::Modified(before) => ("modified", changed(before, event.state)),
    };
    out.json(&JsonChange {
        r#type,
        namespace: event.key.namespace(),
        name: event.key.name(),
        resource_version: version,
        replicas: Counts { desired, ready, updated, available },
        images,
        changed,
        timestamp: time::rfc3339(event.wall_ms),
    });
}

fn changed(before: &Deployment, now: &Deployment) -> Vec<&'static str> {
    let (old, new) = (before.replicas, now.replicas);
    let fields = [
        ("replicas", old.desired != new.desired),
        ("image", before.images != now.images),
        ("ready", old.ready != new.ready),
        ("updated", old.updated != new.updated),
        ("available", old.available != new.available),
    ];
    fields.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

pub(super) fn synced(out: &mut Encoded, version: &str) {
    out.json(&JsonSynced { r#type: "synced", resource_version: version });
}

pub(super) fn stale(out: &mut Encoded, since_ms: i64, reason: &str) {
    out.json(&JsonStale { r#type: "stale", since: time::rfc3339(since_ms), reason });
}
