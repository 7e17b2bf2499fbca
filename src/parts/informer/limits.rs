//! Limits and timeouts of the informer.

/// Objects per page of a list: 500 would be megabytes of JSON.
pub(super) const PAGE: u32 = 50;
/// One object in a list or watch: the limit of etcd, as JSON.
pub(super) const OBJECT_BYTES: usize = 2 * 1024 * 1024;
/// The metadata of a list.
pub(super) const FIELD_BYTES: usize = 64 * 1024;
/// A whole page, or a list without pages.
pub(super) const LIST_BYTES: u64 = 1024 * 1024 * 1024;
pub(super) const HEAD_BYTES: usize = 32 * 1024;
/// Pages of a list: more than [`OBJECTS`] needs.
pub(super) const PAGES: u32 = 2_000;
/// A namespace or a name; Kubernetes allows 63 and 253.
pub(super) const NAME_BYTES: usize = 253;
/// A resource version or uid.
pub(super) const VERSION_BYTES: usize = 128;
/// The images of one object.
pub(super) const IMAGES_BYTES: usize = 1024;
/// Stored objects of one kind; that there are more is reported.
pub(super) const OBJECTS: usize = 50_000;
/// Deleted objects stored until all viewers have been told.
pub(super) const DELETED: usize = 8_192;
/// Encoded changes stored for viewers that are slightly behind.
pub(super) const RING_CHANGES: usize = 1_024;
/// The same in bytes.
pub(super) const RING_BYTES: usize = 512 * 1024;
/// The same while there are no viewers, for those that come back.
pub(super) const KEPT_BYTES: usize = 64 * 1024;
/// Remembered versions of lists, for viewers that come back.
pub(super) const LIST_MARKS: usize = 16;
/// Bytes sent to one viewer at a time.
pub(super) const OUTPUT_BYTES: usize = 16 * 1024;
pub(super) const WOKEN_PER_TURN: usize = 128;

pub(super) const CONNECT_MS: u64 = 10_000;
/// Timeout of a page, and of the head of any response.
pub(super) const ANSWER_MS: u64 = 60_000;
/// Timeout of a list without pages.
pub(super) const WHOLE_LIST_MS: u64 = 300_000;
/// A streamed list that adds no object for this long, and has not ended either, is none: servers
/// before 1.19 ignore the parameter and send an ordinary watch.
pub(super) const STREAM_IDLE_MS: u64 = 10_000;
/// An open watch without events counts as working after this time.
pub(super) const PROOF_MS: u64 = 1_000;
/// A watch that ends within this time of its timeout has run to its end.
pub(super) const WATCH_END_MS: u64 = 10_000;
/// Errors of watches in a row until a new list is taken.
pub(super) const ERRORS_UNTIL_LIST: u32 = 2;
/// The server ends each watch after a random time in this range.
pub(super) const WATCH_S_MIN: u64 = 300;
pub(super) const WATCH_S_MAX: u64 = 600;
/// If the server has not ended the watch this much later, the connection is dead.
pub(super) const WATCH_GRACE_MS: u64 = 5_000;
/// After a shorter watch, the next one waits for the backoff: if it had no events, or if it was not
/// the first of them.
pub(super) const SHORT_WATCH_MS: u64 = 1_000;
/// Upper bound of the pause after the first failure.
pub(super) const BACKOFF_MS_MIN: u64 = 800;
/// Upper bound of all pauses.
pub(super) const BACKOFF_MS_MAX: u64 = 30_000;
/// A watch that lasted this long resets the backoff.
pub(super) const HEALTHY_MS: u64 = 120_000;
/// Longest accepted `Retry-After`.
pub(super) const RETRY_AFTER_S_MAX: u64 = 300;
/// How long the watch continues without viewers.
pub(super) const LINGER_MS: u64 = 60_000;
/// Interval for re-reading token and certificates.
pub(super) const REREAD_MS: u64 = 60_000;
