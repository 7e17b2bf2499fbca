//! What viewers read: the text frames that have always been so, to the byte, and JSON.

use serde::Serialize;

use super::deployment::{Deployment, Key, Replicas};
use super::store::What;
use crate::heap;
use crate::proto::frame::{self, Kind};
use crate::time;

/// Which of the two a viewer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Sentences.
    #[default]
    Text,
    /// One object a message, and whether what is shown is up to date.
    Json,
}

/// Messages as they go over the wire: framed once, whoever reads them.
#[derive(Debug, Default)]
pub struct Encoded {
    bytes: Vec<u8>,
    /// Where each payload lies.
    payloads: Vec<(u32, u32)>,
}

impl Encoded {
    /// What it owns.
    #[must_use]
    pub fn cost(&self) -> usize {
        heap::cost(self.bytes.capacity()) + heap::table::<(u32, u32)>(self.payloads.capacity())
    }

    /// All of it, frame after frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the frames say.
    pub fn payloads(&self) -> impl Iterator<Item = &[u8]> {
        let range = |&(from, to): &(u32, u32)| &self.bytes[from as usize..to as usize];
        self.payloads.iter().map(range)
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.payloads.clear();
    }

    fn say(&mut self, payload: &[u8]) {
        frame::write_message(&mut self.bytes, Kind::Text, payload);
        let end = self.bytes.len();
        // Nothing that we say is longer than a few KiB.
        self.payloads.push(((end - payload.len()) as u32, end as u32));
    }

    fn json(&mut self, value: &impl Serialize) {
        // Strings and numbers always serialize.
        self.say(&serde_json::to_vec(value).unwrap_or_default());
    }
}

/// One object's change, for whoever it is news to.
#[derive(Clone, Copy, Debug)]
pub(super) struct News<'a> {
    pub(super) key: &'a Key,
    pub(super) state: &'a Deployment,
    pub(super) what: &'a What,
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

/// Says a change.
pub(super) fn write(out: &mut Encoded, format: Format, news: News<'_>) {
    match format {
        Format::Text => text(out, news),
        Format::Json => json(out, news),
    }
}

fn text(out: &mut Encoded, news: News<'_>) {
    let name = news.key.name();
    match news.what {
        What::Deleted => {
            out.say(format!("Deployment {name} deleted").as_bytes());
            out.say(format!("Deployment {} has been deleted", news.key.text()).as_bytes());
            return;
        }
        What::Added => {}
        What::Modified(before) => {
            // As Go writes RFC 3339: whole seconds.
            let timestamp = time::rfc3339(news.wall_ms);
            let timestamp = format!("{}Z", &timestamp[..19]);
            let mut change = |what: &str, now: &str| {
                let message = format!("Deployment {name} updated - {what} changed: {now}");
                out.json(&TextChange { timestamp: &timestamp, message });
            };
            let desired = news.state.replicas.desired;
            if before.replicas.desired != desired {
                change("Replicas", &desired.to_string());
            }
            if before.first_image() != news.state.first_image() {
                change("Image", news.state.first_image());
            }
        }
    }
    out.say(format!("Successfully processed deployment: {name}").as_bytes());
}

fn json(out: &mut Encoded, news: News<'_>) {
    let Deployment { version, replicas, images, .. } = news.state;
    let Replicas { desired, ready, updated, available } = *replicas;
    let (r#type, changed) = match news.what {
        What::Added => ("added", Vec::new()),
        What::Deleted => ("deleted", Vec::new()),
        What::Modified(before) => ("modified", changed(before, news.state)),
    };
    out.json(&JsonChange {
        r#type,
        namespace: news.key.namespace(),
        name: news.key.name(),
        resource_version: version,
        replicas: Counts { desired, ready, updated, available },
        images,
        changed,
        timestamp: time::rfc3339(news.wall_ms),
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

/// What is shown is what the server has.
pub(super) fn synced(out: &mut Encoded, version: &str) {
    out.json(&JsonSynced { r#type: "synced", resource_version: version });
}

/// What is shown may be old.
pub(super) fn stale(out: &mut Encoded, since_ms: i64, reason: &str) {
    out.json(&JsonStale { r#type: "stale", since: time::rfc3339(since_ms), reason });
}
