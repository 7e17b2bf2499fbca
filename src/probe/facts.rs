//! What is known about the path and its ends: found by the first experiments, read by the others
//! and by the judges.

use core::net::IpAddr;

use serde_json::Value;

use super::Plan;
use super::wire::Response;
use crate::engine::{HangUp, NameFault, TlsFacts, TlsFault};
use crate::units::{is_plain, prefix, show_time};

/// Most characters of a value from elsewhere that are shown.
const SHOWN_BYTES: usize = 80;

/// Facts about the path.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// Whether anything answered.
    pub(super) reached: bool,
    /// The response to the first upgrade.
    pub(super) response: Response,
    /// Whether WebSockets open.
    pub(super) opens: bool,
    /// The first request as a wspulse at the far end received it.
    pub(super) hello: Option<Hello>,
    pub(super) tls: Option<TlsFacts>,
    /// Why the certificate was rejected; it has not been verified since.
    pub(super) distrust: Option<TlsFault>,
    /// Why no connection could be established.
    pub(super) tls_failure: Option<HangUp>,
    /// The addresses of the host name.
    pub(super) addresses: Option<Result<Vec<IpAddr>, NameFault>>,
    /// How a socket ended that was never idle, and after how long.
    pub(super) age: Option<Cut>,
    /// How old this socket has become, while it is watched or if it could not be watched longer.
    pub(super) busy_for_ns: Option<u64>,
    /// How long a message and its answer take, once one was answered.
    pub(super) round_trip_ns: Option<u64>,
}

/// How and when a socket was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) how: How,
    pub(super) after_ns: u64,
}

/// How a socket was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Fin,
    Rst,
    /// Nothing arrives any more.
    Hole,
    /// With this code.
    Close(u16),
}

impl How {
    /// For finding ids.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Hole => "hole",
            Self::Close(_) => "close",
        }
    }

    /// For sentences: "the socket was …".
    pub(super) fn verb(self) -> String {
        match self {
            Self::Fin => "ended with FIN, without a Close frame".to_owned(),
            Self::Rst => "reset (RST)".to_owned(),
            Self::Hole => "silently dropped: packets were no longer delivered".to_owned(),
            Self::Close(code) => format!("closed with code {code}"),
        }
    }
}

/// The request head as the far end received it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) pod: String,
    pub(super) peer: String,
    pub(super) target: String,
    pub(super) http_version: String,
    /// What the far end answered about compression.
    pub(super) extensions: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Hello {
    /// Parses the first message of a far end; `None` if it is no wspulse.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        value.get("probe")?.as_u64()?;
        let text =
            |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let fields = value.get("headers").and_then(Value::as_object);
        let fields = fields.into_iter().flatten();
        let fields = fields
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
        Some(Self {
            pod: text("pod"),
            peer: text("peer"),
            target: text("target"),
            http_version: text("httpVersion"),
            extensions: text("extensions"),
            fields: fields.collect(),
        })
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

impl Facts {
    /// Whether an answer that does not come means that nothing arrives any more.
    pub(super) fn answers(&self) -> bool {
        self.round_trip_ns.is_some() || self.hello.is_some()
    }
}

impl Hello {
    /// Names of fields that we did not send.
    pub(super) fn added(&self, plan: &Plan) -> Vec<&str> {
        const OURS: [&str; 8] = [
            "host",
            "upgrade",
            "connection",
            "origin",
            "sec-websocket-version",
            "sec-websocket-key",
            "sec-websocket-protocol",
            "sec-websocket-extensions",
        ];
        let sent = |name: &str| {
            OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
                || plan.ask.fields.iter().any(|(ours, _)| name.eq_ignore_ascii_case(ours))
        };
        self.fields.iter().map(|(name, _)| name.as_str()).filter(|name| !sent(name)).collect()
    }
}

/// Text from elsewhere, short, and without characters that could control a terminal, are invisible
/// or change the direction of what follows.
pub(super) fn shown(text: &str) -> String {
    let plain = |c: char| if is_plain(c) { c } else { '\u{fffd}' };
    prefix(text, SHOWN_BYTES).chars().map(plain).collect()
}

/// A time for a sentence.
pub(super) fn shown_ns(ns: u64) -> String {
    match ns {
        0..10_000_000_000 => show_time(ns),
        _ => format!("{:.0} s", ns as f64 / 1e9),
    }
}
