//! The configuration of the server, read once at start. `options` knows where the values come from.

use crate::behaviours::Mount;
use crate::proto::deflate::Compression;
use crate::proto::forwarded::Range;

/// Memory of the process before its first connection.
pub(super) const BASE_BYTES: u64 = 3 * 1024 * 1024;
/// An idle connection: its slot in the table; its socket, file and poll entry in the kernel, and a
/// page of data in transit.
const CONNECTION_BYTES: u64 = 8 * 1024;
/// Kernel memory of a stalled peer if the socket buffers are not limited.
const UNLIMITED_PINNED: usize = 4 * 1024 * 1024;

/// The configuration of a [`Server`](super::Server).
#[derive(Clone, Debug)]
pub struct Config {
    /// Paths that accept WebSockets.
    pub mounts: Vec<Mount>,
    /// Which origins may open a WebSocket.
    pub origins: Origins,
    /// Host names, in addition to addresses and `localhost`, under which browsers may use the admin
    /// listener.
    pub admin_hosts: Vec<String>,
    /// Proxies whose `X-Forwarded-For` names the client of a request to the main listeners.
    pub trusted_proxies: Vec<Range>,
    /// Enables fault endpoints, fault parameters and unbounded query parameters.
    pub faults: bool,
    /// Prefix of every path: `""` or `/x`, without a final slash.
    pub base_path: String,
    /// Compression, if the client offers it and the mount does not override it.
    pub deflate: Compression,
    /// Whether to log message payloads, escaped and truncated.
    pub log_payloads: bool,
    /// The identity that this server reports.
    pub identity: Identity,
    /// Limits with a flag.
    pub limits: Limits,
    /// Maximum age of a WebSocket.
    pub max_age: MaxAge,
    /// The memory limit.
    pub memory: MemoryPlan,
    /// How the server stops.
    pub drain: DrainPlan,
    /// What is served in addition to the routes of parts.
    pub surface: Surface,
}

/// What is served in addition to the routes of parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything.
    Full,
    /// Health and metrics on the main listener: no page, no WebSockets.
    Bare,
}

/// Maximum age of a WebSocket, so that load spreads again after a scale-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxAge {
    /// 0 means no limit.
    pub ms: u64,
    /// Jitter in both directions, so that not all end at once.
    pub jitter_percent: u64,
}

/// The memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Limit for the whole process, if any.
    pub limit: Option<u64>,
    /// Size of each of a socket's two buffers, if set.
    pub socket_buffer: Option<u32>,
    /// Memory of TLS for each connection, which the server cannot see.
    pub tls_bytes: u64,
}

/// Which origins may open a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Only the origin of the requested host.
    Same,
    /// The same and these origins (`https://app.example`), in lower case.
    Listed(Vec<String>),
    /// Every origin.
    Any,
}

/// The identity of a server, from the variables of the downward API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `POD_NAME`, by default the host name.
    pub pod: String,
    /// `POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// `NODE_NAME`.
    pub node: Option<String>,
    /// `ZONE`.
    pub zone: Option<String>,
}

/// Limits with a flag; the others are constants in `limits.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum message, all fragments together.
    pub max_message: usize,
    /// Maximum connections of the main listener.
    pub max_connections: usize,
    /// Maximum connections beyond those, which only get 503.
    pub refused_connections: usize,
    /// Timeout for a request head, from accept or its first byte.
    pub head_timeout_ms: u64,
    /// Timeout between two requests of a connection.
    pub keepalive_timeout_ms: u64,
    /// Timeout for a peer that accepts no output.
    pub send_timeout_ms: u64,
    /// Interval between pings, ± 20 %; 0 disables them.
    pub ping_interval_ms: u64,
    /// Timeout after a ping until any byte is received.
    pub pong_timeout_ms: u64,
}

impl Config {
    /// Chooses socket buffers that fit the memory limit.
    pub fn fit_memory(&mut self) {
        self.memory.socket_buffer = self.memory.limit.and_then(small_buffer);
    }
}

/// In a small container, a peer that never reads must not pin megabytes of kernel memory, which
/// count against the limit. With much memory, large buffers make distant peers fast.
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
    /// Memory of an idle connection.
    #[must_use]
    pub fn connection_bytes(&self) -> u64 {
        CONNECTION_BYTES + self.tls_bytes
    }

    /// How many idle connections fit into half of the limit.
    #[must_use]
    pub fn max_connections(&self) -> Option<usize> {
        let room = (self.limit? / 2).saturating_sub(BASE_BYTES);
        usize::try_from(room / self.connection_bytes()).ok().map(|count| count.max(16))
    }

    /// Kernel memory of a peer that sends but does not read. The kernel doubles the configured size
    /// of both buffers; three quarters of that were measured.
    #[must_use]
    pub fn pinned(&self) -> usize {
        match (self.limit, self.socket_buffer) {
            (None, _) => 0,
            (Some(_), Some(bytes)) => 3 * bytes as usize,
            (Some(_), None) => UNLIMITED_PINNED,
        }
    }
}

/// Settings of a drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainPlan {
    /// Readiness fails, everything is still served.
    pub delay_ms: u64,
    /// The time over which connections are closed.
    pub window_ms: u64,
    /// From the announcement to the hard stop.
    pub timeout_ms: u64,
    /// Close code sent to each WebSocket.
    pub code: u16,
    /// Close reason sent to each WebSocket.
    pub reason: String,
    /// Whether `/readyz` fails while draining.
    pub ready: DrainReady,
    /// Whether a server without connections may exit before the delay is over.
    pub leaves_early: bool,
}

/// The response of `/readyz` while draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainReady {
    /// 503 `draining`.
    Fail,
    /// 200: keeps a single replica in kube-proxy's fallback.
    Keep,
}
