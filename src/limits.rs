//! Every limit that no flag changes, in one place. `--print-config` prints the table below.

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

/// Name, value, and what happens beyond it: for `--print-config` and the README.
pub const TABLE: &[(&str, &str, &str)] = &[
    ("request line", "4096 B", "414"),
    ("request head", "8192 B", "431"),
    ("header fields", "100", "431"),
    ("body where none is expected", "8 KiB, 10s", "413 and close; 408"),
    ("linger after the last byte is taken", "256 KiB, 2s", "close"),
    ("close handshake", "10s, while draining 5s", "close"),
    ("output waiting, high / low water", "64 KiB / 32 KiB", "stop reading that peer / go on"),
    ("output waiting, hard cap", "256 KiB, or one message + 64 KiB", "1013, reset after 2s"),
    ("empty fragments of a message", "1024", "1008"),
    ("messages held by delay, work", "1024, 256 KiB", "stop reading that peer"),
    ("keep-alive above 75 % of the connections", "5s", "close"),
    ("not upgraded above 75 % of the connections", "25 % of them, 1s", "the oldest is evicted"),
    ("memory, of its limit", "75 % / 92 % / 97 %", "503 / close the largest, 1013 / turn away"),
    ("read per connection and turn", "64 KiB or 256 frames", "next turn"),
    ("inflated, produced and copied per connection and turn", "256 KiB", "next turn"),
    ("message that is compressed", "128 KiB", "sent uncompressed"),
    ("accepted per turn", "64", "next turn"),
    ("main connections before the admin side", "8, or 256 KiB", "admin is asked again"),
    ("accepting at the stop", "1s", "the kernel resets"),
    ("TLS handshake of a client", "12 KiB", "close"),
    ("TLS handshakes, steps per turn", "16", "next turn"),
    ("TLS handshakes under way", "1024", "wait; the oldest ends after 1s"),
    ("timers per turn", "256", "next turn"),
    ("admin connections", "64, with a gateway 576", "503"),
    ("connecting to a backend, a gateway or AWS", "2s", "it fails"),
    ("listen backlog", "4096", "the kernel drops"),
    ("served file / all files", "1 MiB / 8 MiB", "refused at start"),
];
