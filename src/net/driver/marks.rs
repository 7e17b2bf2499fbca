//! What the loop remembers of a stream between two events.

/// What is known of a stream, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u16);

impl Marks {
    /// On the ready list.
    pub(super) const QUEUED: u16 = 1;
    /// The kernel may have more bytes.
    pub(super) const READABLE: u16 = 2;
    /// Writable again since it was [`Marks::BLOCKED`].
    pub(super) const WRITABLE: u16 = 4;
    /// The end follows; no event will tell.
    pub(super) const ENDED: u16 = 8;
    /// The engine wants to go on with input that it holds.
    pub(super) const RESUME: u16 = 16;
    /// It did not take all bytes: the rest is the engine's until it is writable.
    pub(super) const BLOCKED: u16 = 32;
    /// To be finished once all is written.
    pub(super) const FINISH: u16 = 64;
    /// To be closed once all is written.
    pub(super) const CLOSE: u16 = 128;
    /// Dead in both directions: what it has sent before can still be read.
    pub(super) const BROKEN: u16 = 512;
    /// Begun by us, and it does not stand yet.
    pub(super) const CONNECTING: u16 = 256;

    /// Its TLS handshake goes on: what is said to it could not be read.
    pub(super) const SHAKING: u16 = 512;

    pub(super) fn has(self, mark: u16) -> bool {
        self.0 & mark != 0
    }

    pub(super) fn set(&mut self, mark: u16) {
        self.0 |= mark;
    }

    /// Takes a mark off; says whether it was there.
    pub(super) fn take(&mut self, mark: u16) -> bool {
        let had = self.has(mark);
        self.0 &= !mark;
        had
    }
}
