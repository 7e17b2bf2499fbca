//! WebSockets whose state is kept by a part: their behaviour delegates everything to [`Sockets`],
//! which the part implements.

use super::{Answer, Behaviour, Close, Ctx, Kind};
use crate::engine::Id;

/// All WebSockets of a part, identified by [`Ctx::id`].
pub trait Sockets {
    /// The handshake is complete.
    fn opened(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A complete message was received.
    fn message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Nothing
    }

    /// The part requested this call, or [`State::due_ns`] has passed.
    fn woken(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A Close frame is about to be sent; messages sent now go out before it.
    fn closing(&mut self, _code: u16, _reason: &str, _ctx: &mut Ctx<'_>) {}

    /// Read after each call and cached.
    fn state(&self, _id: Id) -> State {
        State::default()
    }
}

/// Does not show the state, which would add code for every part.
impl core::fmt::Debug for dyn Sockets + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sockets")
    }
}

/// What the server needs to know about a WebSocket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When to call [`Sockets::woken`].
    pub due_ns: Option<u64>,
    /// Whether to stop reading from the peer, since too much is queued.
    pub is_full: bool,
    /// Whether a request of the peer is still in progress.
    pub is_busy: bool,
}

/// Size limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of a message, all frames together.
    pub message: usize,
    /// Bytes of a frame.
    pub frame: u64,
}

impl Sizes {
    /// Only the server's own limits.
    pub const ANY: Self = Self { message: usize::MAX, frame: u64::MAX };
}

/// The behaviour of a part's WebSocket.
#[derive(Debug)]
pub struct PartSocket {
    state: State,
    sizes: Sizes,
}

impl PartSocket {
    /// Accepts messages up to these sizes.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self { state: State::default(), sizes }
    }

    /// Calls the part with a context from which the part was taken.
    fn call<R>(
        &mut self,
        ctx: &mut Ctx<'_>,
        call: impl FnOnce(&mut dyn Sockets, &mut Ctx<'_>) -> R,
    ) -> Option<R> {
        let part = ctx.part.take()?;
        let answer = call(&mut *part, ctx);
        self.state = part.state(ctx.id);
        ctx.part = Some(part);
        Some(answer)
    }
}

impl Behaviour for PartSocket {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        self.call(ctx, |part, ctx| part.opened(ctx)).flatten()
    }

    fn on_message(&mut self, kind: Kind, payload: &[u8], ctx: &mut Ctx<'_>) -> Answer {
        self.call(ctx, |part, ctx| part.message(kind, payload, ctx)).unwrap_or(Answer::Nothing)
    }

    fn next_deadline(&self) -> Option<u64> {
        self.state.due_ns
    }

    fn on_wake(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        self.call(ctx, |part, ctx| part.woken(ctx)).flatten()
    }

    fn on_close(&mut self, code: u16, reason: &str, ctx: &mut Ctx<'_>) {
        self.call(ctx, |part, ctx| part.closing(code, reason, ctx));
    }

    fn is_full(&self) -> bool {
        self.state.is_full
    }

    fn is_busy(&self) -> bool {
        self.state.is_busy
    }

    fn sizes(&self) -> Sizes {
        self.sizes
    }
}
