//! The state of a stream between two events.

/// Flags of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u16);

impl Marks {
    /// On the ready list.
    pub(super) const QUEUED: u16 = 1;
    /// The kernel may have more bytes.
    pub(super) const READABLE: u16 = 2;
    /// Writable again after [`Marks::BLOCKED`].
    pub(super) const WRITABLE: u16 = 4;
    /// End of file follows the readable bytes; no further event reports it.
    pub(super) const ENDED: u16 = 8;
    /// The engine wants to continue with input that it holds.
    pub(super) const RESUME: u16 = 16;
    /// A write was short: the engine keeps the rest until the stream is writable.
    pub(super) const BLOCKED: u16 = 32;
    /// Shut down the writing side once everything is written.
    pub(super) const FINISH: u16 = 64;
    /// Close once everything is written.
    pub(super) const CLOSE: u16 = 128;
    /// Broken in both directions; bytes received before can still be read.
    pub(super) const BROKEN: u16 = 512;
    /// An outgoing connection that is not established yet.
    pub(super) const CONNECTING: u16 = 256;
    /// The TLS handshake is in progress: nothing can be written yet.
    pub(super) const HANDSHAKING: u16 = 1024;
    /// The operating system also reports when it is writable.
    pub(super) const WRITES_WATCHED: u16 = 4096;
    /// The engine has a request, which is written once the stream is read.
    pub(super) const RENDER: u16 = 2048;

    pub(super) fn has(self, mark: u16) -> bool {
        self.0 & mark != 0
    }

    pub(super) fn set(&mut self, mark: u16) {
        self.0 |= mark;
    }

    /// Clears a mark; returns whether it was set.
    pub(super) fn take(&mut self, mark: u16) -> bool {
        let had = self.has(mark);
        self.0 &= !mark;
        had
    }
}
