//! How much of a request may have reached the server.

/// How much of a request may have reached the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Nothing: [`Pool::render`](super::Pool::render) was not called.
    No,
    /// Nothing: it was rendered, but the kernel took no byte of it.
    Buffered,
    /// The kernel took some of it. The server would read the rest as part of it, whatever comes
    /// next: the connection cannot be used again.
    Partly,
    /// The kernel took all of it.
    Whole,
}

impl Written {
    /// The kernel took all but `left` bytes.
    pub(super) fn up_to(left: usize) -> Self {
        if left == 0 { Self::Whole } else { Self::Partly }
    }

    /// Whether nothing has reached the server.
    pub(super) fn is_nothing(self) -> bool {
        matches!(self, Self::No | Self::Buffered)
    }
}
