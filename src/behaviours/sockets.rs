//! WebSockets whose state lies in a part of the server: the behaviour of such a connection passes
//! everything on to [`Sockets`], which the part implements.

use super::{Answer, Behaviour, Close, Ctx, Kind};
use crate::engine::Id;

/// All WebSockets of a part. Which one is meant says [`Ctx::id`].
pub trait Sockets {
    /// The upgrade was answered.
    fn opened(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A whole message came.
    fn message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Nothing
    }

    /// The part asked for this call, or a deadline of [`State`] has come.
    fn woken(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        None
    }

    /// A Close is about to be sent or answered: what is sent now goes out before it.
    fn closing(&mut self, _code: u16, _reason: &str, _ctx: &mut Ctx<'_>) {}

    /// What the server has to know of a WebSocket without asking each time.
    fn state(&self, _id: Id) -> State {
        State::default()
    }
}

/// Its state is not shown: the code for that would be carried for every part.
impl core::fmt::Debug for dyn Sockets + '_ {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Sockets")
    }
}

/// What the server has to know of a WebSocket. It is read again after each call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When it is to be woken.
    pub due_ns: Option<u64>,
    /// Whether so much waits for it that its peer is not read.
    pub is_full: bool,
    /// Whether the part still works on something that its peer asked for.
    pub is_busy: bool,
}

/// Bytes of a message and of one of its frames, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// All of its frames together.
    pub message: usize,
    /// Each of them.
    pub frame: u64,
}

impl Sizes {
    /// No limits but the server's.
    pub const ANY: Self = Self { message: usize::MAX, frame: u64::MAX };
}

/// One WebSocket of a part.
#[derive(Debug)]
pub struct PartSocket {
    state: State,
    sizes: Sizes,
}

impl PartSocket {
    /// A WebSocket that takes messages up to these sizes.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self { state: State::default(), sizes }
    }

    /// Calls the part with a context in which it is not named again.
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
