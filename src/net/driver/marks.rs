//! What the loop remembers of a stream between two events.

/// What is known of a stream, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks(u8);

impl Marks {
    /// On the ready list.
    pub(super) const QUEUED: u8 = 1;
    /// The kernel may have more bytes.
    pub(super) const READABLE: u8 = 2;
    /// Writable again since it was [`Marks::BLOCKED`].
    pub(super) const WRITABLE: u8 = 4;
    /// The end follows; no event will tell.
    pub(super) const ENDED: u8 = 8;
    /// The engine wants to go on with input that it holds.
    pub(super) const RESUME: u8 = 16;
    /// It did not take all bytes: the rest is the engine's until it is writable.
    pub(super) const BLOCKED: u8 = 32;
    /// To be finished once all is written.
    pub(super) const FINISH: u8 = 64;
    /// To be closed once all is written.
    pub(super) const CLOSE: u8 = 128;

    pub(super) fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }

    pub(super) fn set(&mut self, mark: u8) {
        self.0 |= mark;
    }

    /// Takes a mark off; says whether it was there.
    pub(super) fn take(&mut self, mark: u8) -> bool {
        let had = self.has(mark);
        self.0 &= !mark;
        had
    }

    /// Takes all other marks off.
    pub(super) fn keep_only(&mut self, mark: u8) {
        self.0 &= mark;
    }
}
