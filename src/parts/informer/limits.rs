//! What the informer takes at most, in one place.

/// Deployments on a page of a list: a page of 500 would be megabytes of JSON.
pub(super) const PAGE: u32 = 50;
/// One object, in a list or a watch: what etcd can hold, as JSON.
pub(super) const OBJECT_BYTES: usize = 2 * 1024 * 1024;
/// A list's own fields: its version, and the token of its next page.
pub(super) const FIELD_BYTES: usize = 64 * 1024;
/// A page of a list, all in all.
pub(super) const PAGE_BYTES: u64 = 128 * 1024 * 1024;
/// The head of an answer.
pub(super) const HEAD_BYTES: usize = 32 * 1024;
/// Pages of a list: as many as all that are kept would need, and some more.
pub(super) const PAGES: u32 = 2_000;
/// A namespace or a name; Kubernetes allows 63 and 253.
pub(super) const NAME_BYTES: usize = 253;
/// A version or a uid.
pub(super) const VERSION_BYTES: usize = 128;
/// The images of one Deployment.
pub(super) const IMAGES_BYTES: usize = 1024;
/// Deployments that are kept; what is beyond is left out.
pub(super) const DEPLOYMENTS: usize = 50_000;
/// Deleted ones that are kept until the slowest viewer has heard of them.
pub(super) const DELETED: usize = 8_192;
/// Changes that are kept, encoded, for viewers who are a little behind.
pub(super) const RING_CHANGES: usize = 1_024;
/// Bytes of those.
pub(super) const RING_BYTES: usize = 512 * 1024;
/// Said to one viewer in one go.
pub(super) const SAID_BYTES: usize = 16 * 1024;
/// Viewers that are woken in one turn.
pub(super) const WOKEN_PER_TURN: usize = 128;

/// The connection must stand by then.
pub(super) const CONNECT_MS: u64 = 10_000;
/// A page must be there by then, or the head of a watch.
pub(super) const ANSWER_MS: u64 = 60_000;
/// A watch is asked to end by itself, after a random time from here …
pub(super) const WATCH_S_MIN: u64 = 300;
/// … to here.
pub(super) const WATCH_S_MAX: u64 = 600;
/// When it has not ended so long after that, its connection is half open.
pub(super) const WATCH_GRACE_MS: u64 = 5_000;
/// A watch that ends sooner than this and said nothing is not asked for again at once.
pub(super) const SHORT_WATCH_MS: u64 = 1_000;
/// Back-off after the first failure …
pub(super) const BACKOFF_MS_MIN: u64 = 800;
/// … and at most.
pub(super) const BACKOFF_MS_MAX: u64 = 30_000;
/// A watch that has lasted so long was healthy.
pub(super) const HEALTHY_MS: u64 = 120_000;
/// A server's own filter to be left alone counts up to this.
pub(super) const RETRY_AFTER_S_MAX: u64 = 300;
/// After the last viewer has left.
pub(super) const LEFT_ALONE_MS: u64 = 60_000;
/// Token and authority are read again.
pub(super) const REREAD_MS: u64 = 60_000;
