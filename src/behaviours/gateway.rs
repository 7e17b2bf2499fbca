//! Messages as HTTP requests to a backend, and what it pushes. What is asked and when is the
//! gateway's business; here stands how it reaches one connection.

use super::{Answer, Behaviour, Close, Ctx, Kind, Sizes};
use crate::gateway::{FRAME_BYTES, MESSAGE_BYTES};
use crate::limits::{HIGH_WATER_BYTES, LOW_WATER_BYTES};

/// Remembers what cannot be looked up where it is needed.
#[derive(Debug, Default)]
pub(super) struct Gateway {
    due_ns: Option<u64>,
    flags: Flags,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Flags {
    #[default]
    Idle,
    /// A message is under way.
    Busy,
    /// So many wait that no more is read.
    Full,
}

impl Gateway {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn look(&mut self, ctx: &Ctx<'_>) {
        let Some(gateway) = &ctx.gateway else { return };
        self.due_ns = gateway.deadline_ns(ctx.id);
        self.flags = if gateway.is_full(ctx.id) {
            Flags::Full
        } else if gateway.is_busy(ctx.id) {
            Flags::Busy
        } else {
            Flags::Idle
        };
    }

    /// Sends what was pushed, as far as it goes; true when that was all.
    fn flush(ctx: &mut Ctx<'_>, most: usize) -> bool {
        while ctx.out.len() < most {
            let (now, id) = (ctx.now, ctx.id);
            let push = ctx.gateway.as_mut().and_then(|gateway| gateway.take_push(now, id));
            let Some((kind, bytes)) = push else { return true };
            ctx.send(kind, bytes.bytes());
        }
        false
    }
}

impl Behaviour for Gateway {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        self.look(ctx);
        None
    }

    fn on_message(&mut self, kind: Kind, payload: &[u8], ctx: &mut Ctx<'_>) -> Answer {
        let (now, id) = (ctx.now, ctx.id);
        let Some(gateway) = &mut ctx.gateway else {
            return Answer::Close(1011, "there is no backend");
        };
        if kind == Kind::Binary && !gateway.plan().binary {
            return Answer::Close(1003, "binary messages are not taken");
        }
        if payload.len() > MESSAGE_BYTES {
            return Answer::Close(1009, "message too big");
        }
        gateway.message(now, id, kind, payload);
        self.look(ctx);
        Answer::Nothing
    }

    fn next_deadline(&self) -> Option<u64> {
        self.due_ns
    }

    fn on_wake(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        let (now, id) = (ctx.now, ctx.id);
        // What it has not taken comes first; it is woken again when it has.
        if ctx.waiting < LOW_WATER_BYTES
            && !Self::flush(ctx, HIGH_WATER_BYTES)
            && let Some(gateway) = &mut ctx.gateway
        {
            gateway.wake(id);
        }
        let close = ctx.gateway.as_mut().and_then(|gateway| gateway.close_due(now, id));
        self.look(ctx);
        close
    }

    fn on_close(&mut self, code: u16, reason: &str, ctx: &mut Ctx<'_>) {
        Self::flush(ctx, usize::MAX);
        let id = ctx.id;
        if let Some(gateway) = &mut ctx.gateway {
            gateway.closing(id, code, reason);
        }
    }

    fn is_full(&self) -> bool {
        self.flags == Flags::Full
    }

    fn is_busy(&self) -> bool {
        self.flags != Flags::Idle
    }

    fn sizes(&self) -> Sizes {
        Sizes { message: MESSAGE_BYTES, frame: FRAME_BYTES }
    }
}
