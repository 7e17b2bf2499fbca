//! Every limit that no flag changes. `--print-config` prints [`table`].

use crate::units::{show_duration, show_size};

/// Longest request line, without its line end.
pub const REQUEST_LINE_BYTES: usize = 4_096;
/// Longest request head, including its blank line.
pub const HEAD_BYTES: usize = 8_192;
/// Most fields in a request head.
pub const HEAD_FIELDS: usize = 100;
/// Longest body where none is expected: it is read and discarded, and the request answered.
pub const DROPPED_BODY_BYTES: u64 = 8 * 1024;
/// How long a body may take after its head.
pub const BODY_TIMEOUT_MS: u64 = 10_000;
/// After a refusal, how many bytes are read and discarded so that the peer sees the response.
pub const LINGER_BYTES: u32 = 8 * 1024 * 1024;
/// After a refusal or a close, how long to wait for the peer to close.
pub const LINGER_MS: u64 = 2_000;
/// Extra time for a connection that is to close but still has work.
pub const BUSY_WAIT_MS: u64 = 3_000;
/// From sending a Close to receiving the peer's.
pub const CLOSE_WAIT_MS: u64 = 10_000;
/// The same while draining.
pub const DRAIN_CLOSE_WAIT_MS: u64 = 5_000;
/// Above this much unsent output the peer is not read.
pub const HIGH_WATER_BYTES: usize = 64 * 1024;
/// Below this much unsent output it is read again.
pub const LOW_WATER_BYTES: usize = 32 * 1024;
/// Most unsent output, unless one message may be longer.
pub const HARD_CAP_BYTES: usize = 256 * 1024;
/// Most unsent output if messages may have this many bytes.
#[must_use]
pub const fn output_cap(max_message: usize) -> usize {
    let message = max_message + HEADERS_BYTES + HIGH_WATER_BYTES;
    if message > HARD_CAP_BYTES { message } else { HARD_CAP_BYTES }
}
/// Allowance for frame headers and control frames beside a message.
pub const HEADERS_BYTES: usize = 1_024;
/// From a Close for too much unsent output to the reset of the connection.
pub const OVERLOAD_WAIT_MS: u64 = 2_000;
/// Most empty fragments in one message.
pub const EMPTY_FRAGMENTS: u16 = 1_024;
/// Most messages held back by `delay` and `work`.
pub const DELAYED_MESSAGES: usize = 1_024;
/// Most bytes held back by them.
pub const DELAYED_BYTES: usize = 256 * 1024;
/// Keep-alive timeout once three quarters of the connections are in use.
pub const CROWDED_KEEPALIVE_MS: u64 = 5_000;
/// While connections are scarce, the age from which one that is no WebSocket may be evicted.
pub const EVICTION_AGE_MS: u64 = 1_000;
/// Frames processed per connection and turn.
pub const FRAMES_PER_TURN: usize = 256;
/// Bytes inflated, produced and copied per connection before others get their turn.
pub const WORK_PER_TURN: u64 = 256 * 1024;
/// Work that a HTTP request counts as, beside its response.
pub const REQUEST_WORK: u64 = 4 * 1024;
/// Work that each compressed byte counts as.
pub const COMPRESSING_WORK: u64 = 8;
/// Longest message that is compressed: a longer one would block the loop too long.
pub const COMPRESSED_BYTES_MAX: usize = 128 * 1024;
/// Bytes read per connection and turn: the size of the read buffer.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Most bytes in one write call: during a call with 1 MiB the peer's acknowledgements pile up, and
/// it costs a fifth more than two calls with half of it.
pub const WRITE_BYTES_MAX: usize = 512 * 1024;
/// Connections accepted per turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// How long waiting connections are still accepted before the listeners close: a queue that
/// clients keep filling never becomes empty.
pub const FINAL_ACCEPT_MS: u64 = 1_000;
/// Steps of TLS handshakes per turn: each costs as much as hundreds of messages.
pub const HANDSHAKES_PER_TURN: usize = 16;
/// Most TLS handshakes in progress.
pub const HANDSHAKES_AT_ONCE: usize = 1_024;
/// Most bytes of a client's TLS handshake. A `ClientHello` has half a KiB, 2 KiB with post-quantum
/// keys; `rustls` alone would buffer 64 KiB of one that never ends.
pub const HANDSHAKE_BYTES: usize = 12 * 1024;
/// Memory of a TLS connection beyond that of a plain one. Half of it when idle (`cargo bench --
/// tls`), and in a handshake that does not go on.
pub const TLS_BYTES: u64 = 8 * 1024;
/// Bytes read, inflated, produced and copied for main connections per turn.
pub const WORK_OF_A_TURN: usize = 1024 * 1024;
/// Timers fired per turn.
pub const TIMERS_PER_TURN: usize = 256;
/// Timers fired before the actions that they cause are carried out.
pub const TIMERS_AT_ONCE: usize = 16;
/// Main connections served or accepted before the admin side is polled again.
pub const SERVED_BEFORE_ADMIN: usize = 8;
/// Bytes read, inflated, produced and copied for main connections before the admin side is polled
/// again.
pub const READ_BEFORE_ADMIN: usize = 256 * 1024;
/// Most connections of the admin listener.
pub const ADMIN_CONNECTIONS: usize = 64;
/// Further admin connections for callbacks of a gateway's backends, each of which keeps many open.
pub const CALLBACK_CONNECTIONS: usize = 512;
/// Connections beyond the limit that only receive a 503.
pub const REFUSED_CONNECTIONS: usize = 64;
/// The listen backlog: connections that the kernel queues.
pub const BACKLOG: i32 = 4_096;
/// Maximum connections accepted at the listeners of parts.
pub const PART_CONNECTIONS: usize = 256;
/// Largest file of `--assets`.
pub const ASSET_BYTES: u64 = 1024 * 1024;
/// Most bytes in all files of `--assets`.
pub const ASSETS_BYTES: u64 = 8 * 1024 * 1024;
/// Requests in flight to one address of a server, unless a flag says otherwise.
pub const OUTBOUND_PER_ADDRESS: usize = 128;
/// Most outgoing requests that wait for a connection.
pub const OUTBOUND_REQUESTS_WAITING: usize = 65_536;
/// How long an outgoing connection may take, name resolution and TLS included.
pub const OUTBOUND_CONNECT_MS: u64 = 2_000;
/// How long an idle outgoing connection is kept: shorter than servers keep theirs, which is 5 s for
/// some.
pub const OUTBOUND_IDLE_MS: u64 = 4_000;
/// Most WebSockets with `probe=1`: they are not pinged, so that they may outlive their clients.
pub const PROBES: usize = 256;
/// Longest life of a WebSocket with `probe=1`. Clients ask for at most 20 minutes.
pub const PROBE_MS: u64 = 25 * 60_000;
/// What follows the path of a mount in upgrades with `probe=1` whose path may go on with anything.
pub const PROBE_BELOW: &str = "/wspulse-probe/";
/// Longest first message of a WebSocket with `probe=1`.
pub const PROBE_HEAD_BYTES: usize = 16 * 1024;
/// Most frames that `probe:fragments` may request.
pub const PROBE_FRAGMENTS: usize = 16;
/// Most bytes of a forwarded-for field in the log.
pub const FORWARDED_BYTES: usize = 64;

/// Percentages of the memory limit from which upgrades are refused, the largest connections are
/// closed, and clients are refused at accept.
pub const MEMORY_PERCENT: [u64; 3] = [75, 92, 97];

/// A limit for people: its name, its value, and what happens beyond it.
pub type Row = (&'static str, String, &'static str);

/// The limits that no flag changes, for `--print-config` and the reference.
#[must_use]
pub fn table() -> Vec<Row> {
    let mut rows = of_a_connection();
    rows.extend(of_the_process());
    rows
}

fn of_a_connection() -> Vec<Row> {
    let both = |one: String, other: String| format!("{one}, {other}");
    vec![
        ("request line", bytes(REQUEST_LINE_BYTES), "414"),
        ("request head", bytes(HEAD_BYTES), "431"),
        ("header fields", HEAD_FIELDS.to_string(), "431"),
        (
            "body where none is expected",
            both(show_size(DROPPED_BODY_BYTES), show_duration(BODY_TIMEOUT_MS)),
            "413 and close; 408",
        ),
        (
            "linger after the last byte is taken",
            both(show_size(u64::from(LINGER_BYTES)), show_duration(LINGER_MS)),
            "close",
        ),
        ("close handshake", show_duration(CLOSE_WAIT_MS), "close"),
        ("close handshake while draining", show_duration(DRAIN_CLOSE_WAIT_MS), "close"),
        ("output waiting, high water", bytes(HIGH_WATER_BYTES), "stop reading that peer"),
        ("output waiting, low water", bytes(LOW_WATER_BYTES), "read that peer again"),
        (
            "output waiting, hard cap",
            format!("{}, or one message + {}", bytes(HARD_CAP_BYTES), bytes(HIGH_WATER_BYTES)),
            "1013, reset after 2s",
        ),
        ("empty fragments of a message", EMPTY_FRAGMENTS.to_string(), "1008"),
        (
            "messages held by delay, work",
            both(DELAYED_MESSAGES.to_string(), bytes(DELAYED_BYTES)),
            "stop reading that peer",
        ),
        ("WebSocket with probe=1", show_duration(PROBE_MS), "close, 1000"),
    ]
}

fn of_the_process() -> Vec<Row> {
    let [refuse, close, full] = MEMORY_PERCENT;
    let admin = ADMIN_CONNECTIONS + CALLBACK_CONNECTIONS;
    vec![
        ("keep-alive above 75 % of the connections", show_duration(CROWDED_KEEPALIVE_MS), "close"),
        (
            "not upgraded above 75 % of the connections",
            format!("25 % of them, {}", show_duration(EVICTION_AGE_MS)),
            "the oldest is evicted",
        ),
        ("memory, of its limit", format!("{refuse} %"), "503 to upgrades"),
        ("memory, of its limit", format!("{close} %"), "close the largest, 1013"),
        ("memory, of its limit", format!("{full} %"), "refuse at accept"),
        (
            "read per connection and turn",
            format!("{} or {FRAMES_PER_TURN} frames", bytes(READ_BYTES_PER_TURN)),
            "next turn",
        ),
        (
            "inflated, produced and copied per connection and turn",
            show_size(WORK_PER_TURN),
            "next turn",
        ),
        ("message that is compressed", bytes(COMPRESSED_BYTES_MAX), "sent uncompressed"),
        ("accepted per turn", ACCEPTS_PER_TURN.to_string(), "next turn"),
        (
            "main connections before the admin side",
            format!("{SERVED_BEFORE_ADMIN}, or {}", bytes(READ_BEFORE_ADMIN)),
            "admin is asked again",
        ),
        ("accepting at the stop", show_duration(FINAL_ACCEPT_MS), "the kernel resets"),
        ("TLS handshake of a client", bytes(HANDSHAKE_BYTES), "close"),
        ("TLS handshakes, steps per turn", HANDSHAKES_PER_TURN.to_string(), "next turn"),
        (
            "TLS handshakes under way",
            HANDSHAKES_AT_ONCE.to_string(),
            "wait; the oldest ends after 1s",
        ),
        ("timers per turn", TIMERS_PER_TURN.to_string(), "next turn"),
        ("admin connections", format!("{ADMIN_CONNECTIONS}, with a gateway {admin}"), "503"),
        ("WebSockets with probe=1", PROBES.to_string(), "503"),
        ("connections of other replicas", PART_CONNECTIONS.to_string(), "the oldest is reset"),
        (
            "connecting to a backend, a gateway or AWS",
            show_duration(OUTBOUND_CONNECT_MS),
            "it fails",
        ),
        ("listen backlog", BACKLOG.to_string(), "the kernel drops"),
        ("served file", show_size(ASSET_BYTES), "refused at start"),
        ("served files together", show_size(ASSETS_BYTES), "refused at start"),
    ]
}

fn bytes(count: usize) -> String {
    show_size(count as u64)
}
