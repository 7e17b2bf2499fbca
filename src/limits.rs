//! Every limit that no flag changes, in one place. `--print-config` prints the table below.

use crate::units::{show_duration, show_size};

/// A request line, without its line end.
pub const REQUEST_LINE_BYTES: usize = 4_096;
/// A request head, its blank line included.
pub const HEAD_BYTES: usize = 8_192;
/// Fields of a request head.
pub const HEAD_FIELDS: usize = 100;
/// A body where none is expected: read, dropped, and the request answered.
pub const DROPPED_BODY_BYTES: u64 = 8 * 1024;
/// A body, from its head on.
pub const BODY_TIMEOUT_MS: u64 = 10_000;
/// An upgrade that waits for a backend's word, which has 29 s for it.
pub const VERDICT_MS: u64 = 31_000;
/// After a refusal, bytes of the peer that are read and dropped so that it sees the answer.
pub const LINGER_BYTES: u32 = 256 * 1024;
/// After a refusal or a close, how long the peer's end is waited for.
pub const LINGER_MS: u64 = 2_000;
/// What a connection that is to end still works on gets so much longer.
pub const BUSY_WAIT_MS: u64 = 3_000;
/// From our Close to the peer's.
pub const CLOSE_WAIT_MS: u64 = 10_000;
/// From our Close to the peer's, while draining.
pub const DRAIN_CLOSE_WAIT_MS: u64 = 5_000;
/// Output that waits: above this, that peer is not read.
pub const HIGH_WATER_BYTES: usize = 64 * 1024;
/// Output that waits: below this, it is read again.
pub const LOW_WATER_BYTES: usize = 32 * 1024;
/// Output that waits, at most, if a message is no longer than that.
pub const HARD_CAP_BYTES: usize = 256 * 1024;
/// The longest output that may wait beside what waits already, if a message may have so many bytes.
#[must_use]
pub const fn output_cap(max_message: usize) -> usize {
    let message = max_message + HEADERS_BYTES + HIGH_WATER_BYTES;
    if message > HARD_CAP_BYTES { message } else { HARD_CAP_BYTES }
}
/// Headers and control frames beside a message: they do not count against its share.
pub const HEADERS_BYTES: usize = 1_024;
/// After a Close for too much output, until the connection is reset.
pub const OVERLOAD_WAIT_MS: u64 = 2_000;
/// Fragments without a byte, of one message.
pub const EMPTY_FRAGMENTS: u16 = 1_024;
/// Messages that `delay` and `work` hold back.
pub const DELAYED_MESSAGES: usize = 1_024;
/// Bytes that they hold back.
pub const DELAYED_BYTES: usize = 256 * 1024;
/// Keep-alive once three quarters of the connections are in use.
pub const CROWDED_KEEPALIVE_MS: u64 = 5_000;
/// While places are scarce, who has not become a WebSocket for so long may be evicted.
pub const EVICTION_AGE_MS: u64 = 1_000;
/// Frames of one connection in one turn.
pub const FRAMES_PER_TURN: usize = 256;
/// Bytes that one connection may have inflated, produced and copied before others have their turn.
pub const WORK_PER_TURN: u64 = 256 * 1024;
/// What an HTTP request counts as, beside its answer.
pub const REQUEST_WORK: u64 = 4 * 1024;
/// What a byte counts as that is compressed.
pub const COMPRESSING_WORK: u64 = 8;
/// A longer message is sent as it is: to compress it would take too long in one go.
pub const COMPRESSED_BYTES_MAX: usize = 128 * 1024;
/// Bytes of one connection in one turn: the size of the read buffer.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Handed to the kernel in one call: while one call of 1 MiB goes on, the peer's acknowledgements
/// pile up behind it, and it costs a fifth more than two halves.
pub const WRITE_AT_ONCE: usize = 512 * 1024;
/// Connections accepted in one turn.
pub const ACCEPTS_PER_TURN: usize = 64;
/// Once no more connections are wanted, those that wait are accepted for so long: a queue into
/// which others come all the while never becomes empty.
pub const LAST_ACCEPTS_MS: u64 = 1_000;
/// Steps of TLS handshakes in one turn: each costs as much as hundreds of messages.
pub const HANDSHAKES_PER_TURN: usize = 16;
/// TLS handshakes under way.
pub const HANDSHAKES_AT_ONCE: usize = 1_024;
/// What a client says before its handshake is over. Its first message has half a KiB, 2 KiB with
/// keys against quantum computers; `rustls` alone would keep 64 KiB of one that never ends.
pub const HANDSHAKE_BYTES: usize = 12 * 1024;
/// What a TLS connection costs beside what every connection costs.
pub const TLS_BYTES: u64 = 12 * 1024;
/// Bytes read, inflated, produced and copied for main connections in one turn.
pub const WORK_OF_A_TURN: usize = 1024 * 1024;
/// Timers in one turn.
pub const TIMERS_PER_TURN: usize = 256;
/// Timers that fire before what they cause is carried out.
pub const TIMERS_AT_ONCE: usize = 16;
/// Main connections served, or accepted, before the admin side is asked again.
pub const SERVED_BEFORE_ADMIN: usize = 8;
/// Bytes read, inflated, produced and copied for main connections before the admin side is asked
/// again.
pub const READ_BEFORE_ADMIN: usize = 256 * 1024;
/// Connections of the admin listener at once.
pub const ADMIN_CONNECTIONS: usize = 64;
/// The same beside those, for the callbacks of a gateway's backends: each of them keeps many.
pub const CALLBACK_CONNECTIONS: usize = 512;
/// Places beyond the cap for connections that only hear 503.
pub const REFUSED_CONNECTIONS: usize = 64;
/// Connections that wait in the kernel to be accepted.
pub const BACKLOG: i32 = 4_096;
/// A file of `--assets`.
pub const ASSET_BYTES: u64 = 1024 * 1024;
/// All files of `--assets`.
pub const ASSETS_BYTES: u64 = 8 * 1024 * 1024;
/// Connections of our own that carry requests, all of them.
pub const OWN_CONNECTIONS: usize = 256;
/// The same, to one target.
pub const OWN_CONNECTIONS_PER_TARGET: usize = 128;
/// Requests of our own that wait for a connection.
pub const OWN_REQUESTS_WAITING: usize = 4_096;
/// Until such a connection stands, its name and TLS included.
pub const OWN_CONNECT_MS: u64 = 2_000;
/// How long such a connection is kept that nobody uses: shorter than servers keep theirs, which
/// are 5 s in some.
pub const OWN_IDLE_MS: u64 = 4_000;
/// A forwarded-for field, in the log.
pub const FORWARDED_BYTES: usize = 64;

/// Percent of the memory limit from which upgrades are refused, the largest connections are
/// closed, and clients are refused at accept.
pub const MEMORY_PERCENT: [u64; 3] = [75, 92, 97];

/// A limit as people read it: its name, its value, and what happens beyond it.
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
        ("accepting at the stop", show_duration(LAST_ACCEPTS_MS), "the kernel resets"),
        ("TLS handshake of a client", bytes(HANDSHAKE_BYTES), "close"),
        ("TLS handshakes, steps per turn", HANDSHAKES_PER_TURN.to_string(), "next turn"),
        (
            "TLS handshakes under way",
            HANDSHAKES_AT_ONCE.to_string(),
            "wait; the oldest ends after 1s",
        ),
        ("timers per turn", TIMERS_PER_TURN.to_string(), "next turn"),
        ("admin connections", format!("{ADMIN_CONNECTIONS}, with a gateway {admin}"), "503"),
        ("connecting to a backend, a gateway or AWS", show_duration(OWN_CONNECT_MS), "it fails"),
        ("listen backlog", BACKLOG.to_string(), "the kernel drops"),
        ("served file", show_size(ASSET_BYTES), "refused at start"),
        ("served files together", show_size(ASSETS_BYTES), "refused at start"),
    ]
}

fn bytes(count: usize) -> String {
    show_size(count as u64)
}
