//! What the server is told once, at start: one small struct for each owner.
//! It does not know where a value came from; `options` does.

use crate::behaviours::Mount;
use crate::proto::deflate::Compression;

/// What the process has before its first connection.
pub(super) const BASE_BYTES: u64 = 3 * 1024 * 1024;
/// A connection: its place with us; its socket, file and poll entry in the kernel, and a page of
/// what is on its way.
const CONNECTION_BYTES: u64 = 8 * 1024;
/// What a stalled peer pins where buffers grow as far as the kernel lets them.
const UNLIMITED_PINNED: usize = 4 * 1024 * 1024;

/// Everything that a [`Server`](super::Server) is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Paths that answer an upgrade, and what each says.
    pub mounts: Vec<Mount>,
    /// Which `Origin` fields may open a WebSocket.
    pub origins: Origins,
    /// Names, beside addresses and `localhost`, under which browsers may use the admin listener.
    pub admin_hosts: Vec<String>,
    /// Fault endpoints, fault parameters and unbounded query parameters.
    pub faults: bool,
    /// Prefix of every path, `""` or `/x`: no slash at its end.
    pub base_path: String,
    /// Whether messages are compressed, if the peer asks for it and its mount says nothing else.
    pub deflate: Compression,
    /// Write message payloads to the log, escaped and cut.
    pub log_payloads: bool,
    /// Who this server says it is.
    pub identity: Identity,
    /// Limits that a flag can change.
    pub limits: Limits,
    /// How old a WebSocket gets.
    pub max_age: MaxAge,
    /// How much memory there is.
    pub memory: MemoryPlan,
    /// How the server stops.
    pub drain: DrainPlan,
    /// What is served beside the paths of parts.
    pub surface: Surface,
}

/// What is served beside the paths of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything.
    Full,
    /// Health and figures, on the main listener: no page, and no WebSockets.
    Bare,
}

/// How old a WebSocket gets, so that load spreads again after a scale-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxAge {
    /// 0 lets it grow as old as it likes.
    pub ms: u64,
    /// Some end so much earlier or later: not all at once.
    pub jitter_percent: u64,
}

/// How much memory there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What the whole process may have; none: nobody set a limit.
    pub limit: Option<u64>,
    /// Bytes of each of a socket's two buffers, when they are made small.
    pub socket_buffer: Option<u32>,
    /// What each connection has that the server does not see: TLS.
    pub unseen_bytes: u64,
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
    /// Beyond them, at once, those who only hear 503.
    pub refused_connections: usize,
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

impl Config {
    /// Makes what is set by default fit into little memory.
    pub fn fit_memory(&mut self) {
        self.memory.socket_buffer = self.memory.limit.and_then(small_buffer);
    }
}

/// In a small container a peer that never reads must not pin megabytes of the kernel's memory,
/// which counts as ours; in a large one, large buffers make distant peers fast.
fn small_buffer(limit: u64) -> Option<u32> {
    match limit >> 20 {
        ..=16 => Some(8 * 1024),
        17..=64 => Some(16 * 1024),
        65..=256 => Some(32 * 1024),
        257..=1024 => Some(256 * 1024),
        _ => None,
    }
}

impl MemoryPlan {
    /// What a connection costs that does nothing.
    #[must_use]
    pub fn connection_bytes(&self) -> u64 {
        CONNECTION_BYTES + self.unseen_bytes
    }

    /// How many idle connections fit into half of it, beside the process itself.
    #[must_use]
    pub fn places(&self) -> Option<usize> {
        let room = (self.limit? / 2).saturating_sub(BASE_BYTES);
        usize::try_from(room / self.connection_bytes()).ok().map(|places| places.max(16))
    }

    /// What the kernel holds for a peer that takes nothing and sends on. It doubles what it is
    /// told of either buffer; three quarters of that were measured.
    #[must_use]
    pub fn pinned(&self) -> usize {
        match (self.limit, self.socket_buffer) {
            (None, _) => 0,
            (Some(_), Some(bytes)) => 3 * bytes as usize,
            (Some(_), None) => UNLIMITED_PINNED,
        }
    }
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
