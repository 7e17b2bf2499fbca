//! What the server is told once, at start: one small struct for each owner.
//! It does not know where a value came from; `options` does.

use crate::behaviours::Mount;

/// Everything that a [`Server`](super::Server) is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Paths that answer an upgrade, and what each says.
    pub mounts: Vec<Mount>,
    /// Which `Origin` fields may open a WebSocket.
    pub origins: Origins,
    /// Fault endpoints, fault parameters and unbounded query parameters.
    pub faults: bool,
    /// Prefix of every path, `""` or `/x`: no slash at its end.
    pub base_path: String,
    /// Write message payloads to the log, escaped and cut.
    pub log_payloads: bool,
    /// Who this server says it is.
    pub identity: Identity,
    /// Limits that a flag can change.
    pub limits: Limits,
    /// How the server stops.
    pub drain: DrainPlan,
}

/// Which `Origin` fields may open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Only pages of the host that they connect to.
    Same,
    /// Pages of that host, and these origins (`https://app.example`), in lower case.
    Listed(Vec<String>),
    /// Every page.
    Any,
}

/// Who served: from the downward API's variables, else the host name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `POD_NAME`, else the host name.
    pub pod: String,
    /// `POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// `NODE_NAME`.
    pub node: Option<String>,
    /// `ZONE`.
    pub zone: Option<String>,
}

/// Limits that a flag can change; those that none can are constants in `limits.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A message, all of its fragments together.
    pub max_message: usize,
    /// Connections of the main listener at once.
    pub max_connections: usize,
    /// A whole request head, counted from accept or from its first byte.
    pub head_timeout_ms: u64,
    /// An HTTP connection between two requests.
    pub keepalive_timeout_ms: u64,
    /// A peer that takes not one byte of what waits for it.
    pub send_timeout_ms: u64,
    /// Gap between two pings, ± 20 %; 0 sends none.
    pub ping_interval_ms: u64,
    /// How long after a ping any byte must have come.
    pub pong_timeout_ms: u64,
}

/// How the server stops, phase by phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Announce: readiness fails, everything is still served.
    pub delay_ms: u64,
    /// Over which the connections are closed.
    pub window_ms: u64,
    /// From the signal to the hard stop.
    pub timeout_ms: u64,
    /// Close code sent to each WebSocket.
    pub code: u16,
    /// Close reason sent to each WebSocket.
    pub reason: String,
    /// Whether `/readyz` fails while draining.
    pub ready: DrainReady,
    /// Whether an empty server may leave before the delay is over.
    pub leaves_early: bool,
}

/// What `/readyz` says while draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReady {
    /// 503 `draining`.
    Fail,
    /// 200: keeps a single replica in kube-proxy's fallback.
    Keep,
}
