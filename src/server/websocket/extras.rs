//! What some `WebSockets` have beyond their behaviour: pushes, answers that wait, a greeting, a
//! keepalive of their own, an end in sight, a fault, a forwarded address. Most have nothing of
//! this and no `Extras`.

use std::collections::VecDeque;

use serde::Serialize;

use crate::behaviours::{Ctx, Kind, Params, Pushes, WireFault};
use crate::engine::{Action, Id, Now};
use crate::outbox::{Block, Blocks};
use crate::queue::{Queue, Waiting};
use crate::server::config::Identity;
use crate::server::ops::pressure::Account;
use crate::server::websocket::faults::Faults;
use crate::server::websocket::worker::{self, Worker};
use crate::{heap, limits, time};

/// What a WebSocket has beyond its behaviour.
#[derive(Debug)]
pub(in crate::server) struct Extras {
    pushes: Option<Pushes>,
    greeting: Option<String>,
    wait: Wait,
    waiting: Queue,
    /// Its end has come: it is read no more.
    takes_no_more: bool,
    /// After how long it is closed, and what is said then.
    close: Option<(u64, u16, String)>,
    pub(in crate::server) fault: Option<WireFault>,
    pub(in crate::server) ping_ms: Option<u64>,
    pub(in crate::server) forwarded: Option<Box<str>>,
    /// What the account knows of this.
    pub(in crate::server) counted: Account,
}

/// What stands between a message and its answer, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wait {
    delay: u64,
    work: u64,
    block: u64,
}

/// Who serves, as `hello=1` says it: the fields of `/whoami` in another order, and both orders have
/// been seen by clients.
#[derive(Debug, Serialize)]
struct Hello<'a> {
    pod: &'a str,
    node: Option<&'a str>,
    namespace: Option<&'a str>,
    zone: Option<&'a str>,
    version: &'a str,
    connection: String,
    #[serde(flatten, serialize_with = "entries")]
    of_parts: &'a [(&'static str, serde_json::Value)],
}

impl Extras {
    /// The extras that these parameters ask for; `None` when there are none.
    pub(in crate::server) fn new(
        params: &Params,
        forwarded: Option<Box<str>>,
        now: Now,
        hello: impl FnOnce() -> String,
    ) -> Option<Box<Self>> {
        let extras = Self {
            pushes: Pushes::new(params, now.mono_ns),
            greeting: params.hello.then(hello),
            wait: Wait { delay: params.delay_ms, work: params.work_ms, block: params.block_ms },
            waiting: Queue::default(),
            takes_no_more: false,
            close: (params.close_after_ms > 0).then(|| {
                let code = params.close_code.unwrap_or(1000);
                (params.close_after_ms, code, params.close_reason.clone())
            }),
            fault: params.fault,
            ping_ms: params.ping_ms,
            forwarded,
            counted: Account::default(),
        };
        let is_nothing = extras.pushes.is_none()
            && extras.greeting.is_none()
            && extras.wait == Wait::default()
            && extras.close.is_none()
            && extras.fault.is_none()
            && extras.ping_ms.is_none()
            && extras.forwarded.is_none();
        (!is_nothing).then(|| Box::new(extras))
    }

    /// What goes out at once.
    pub(in crate::server) fn greet(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(greeting) = self.greeting.take() {
            ctx.send(Kind::Text, greeting.as_bytes());
        }
        self.speak(ctx);
    }

    /// Says what is due.
    pub(in crate::server) fn speak(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(pushes) = &mut self.pushes {
            pushes.speak(ctx);
        }
    }

    pub(in crate::server) fn close_after_ms(&self) -> Option<u64> {
        self.close.as_ref().map(|(ms, ..)| *ms)
    }

    /// What `close_after` says at last.
    pub(in crate::server) fn last_words(&mut self) -> (u16, String) {
        self.close.take().map_or_else(Default::default, |(_, code, reason)| (code, reason))
    }

    /// Whether the peer is not read: too much waits, or its end has come.
    pub(in crate::server) fn is_full(&self) -> bool {
        self.waiting.len() >= limits::DELAYED_MESSAGES
            || self.waiting.bytes() >= limits::DELAYED_BYTES
            || self.takes_no_more
            || self.fault == Some(WireFault::StallRead)
    }

    pub(in crate::server) fn take_no_more(&mut self) {
        self.takes_no_more = true;
    }

    /// Takes a message that is answered later, or never; `None`: it is answered now.
    pub(in crate::server) fn take(
        &mut self,
        (kind, payload): (Kind, &[u8]),
        (now, id): (Now, Id),
        means: Means<'_>,
    ) -> Option<Taken> {
        if self.fault == Some(WireFault::Reset) {
            return Some(Taken::Fatal);
        }
        if self.wait == Wait::default() {
            return None;
        }
        let Means { worker, faults, blocks, actions } = means;
        let mut due_ns = now.mono_ns + time::ms(self.wait.delay);
        if self.wait.block > 0 {
            actions.push_back(faults.freeze(now, self.wait.block));
            due_ns = due_ns.max(faults.frozen_until_ns());
        }
        let turn = (self.wait.work > 0).then(|| worker.next_turn());
        if let Some(turn) = turn
            && self.waiting.turn().is_none()
        {
            worker.enter(turn, id, self.wait.work, now);
        }
        let message = Waiting { due_ns, turn, kind, payload };
        self.waiting.push(message, blocks);
        Some(Taken::Later)
    }

    /// The next message that may be answered by `due_ns`.
    pub(in crate::server) fn next_delayed(
        &mut self,
        due_ns: u64,
        now: Now,
        blocks: &mut Blocks,
    ) -> Option<(Kind, Block)> {
        let first = self.waiting.first()?;
        if first.due_ns > due_ns || first.turn.is_some() {
            return None;
        }
        let taken = (first.kind, blocks.with(first.payload));
        self.waiting.pop(blocks, now);
        Some(taken)
    }

    /// The worker is done with the first message that waited for it. Returns the turn of the next
    /// one, and how long it takes.
    pub(in crate::server) fn work_done(&mut self) -> Option<(u64, u64)> {
        self.waiting.next_turn().map(|turn| (turn, self.wait.work))
    }

    pub(in crate::server) fn awaits_worker(&self) -> bool {
        self.waiting.first().is_some_and(|first| first.turn.is_some())
    }

    /// Messages that wait will not be answered any more.
    pub(in crate::server) fn drop_waiting(&mut self, worker: &mut Worker) {
        if let Some(turn) = self.waiting.turn() {
            worker.leave(turn);
        }
        self.waiting = Queue::default();
    }

    /// What it owns, itself included. While it is full its peer is not read, and `pinned` says what
    /// the kernel holds for such a peer, both ways.
    pub(in crate::server) fn cost(&self, pinned: usize) -> usize {
        let texts = self.greeting.as_ref().map_or(0, String::capacity)
            + self.close.as_ref().map_or(0, |(_, _, reason)| reason.capacity())
            + self.forwarded.as_ref().map_or(0, |forwarded| forwarded.len());
        let turn = if self.wait.work > 0 { worker::ENTRY_BYTES } else { 0 };
        let in_kernel = if self.is_full() { pinned / 2 } else { 0 };
        let own = heap::cost(size_of::<Self>()) + heap::cost(texts) + turn;
        own + self.waiting.cost() + in_kernel
    }

    pub(in crate::server) fn next_deadline(&self) -> Option<u64> {
        let push_ns = self.pushes.as_ref().and_then(Pushes::next_deadline);
        let answer_ns =
            self.waiting.first().filter(|first| first.turn.is_none()).map(|first| first.due_ns);
        push_ns.into_iter().chain(answer_ns).min()
    }
}

/// What a message that waits may need of the server.
#[derive(Debug)]
pub(in crate::server) struct Means<'a> {
    pub(in crate::server) worker: &'a mut Worker,
    pub(in crate::server) faults: &'a mut Faults,
    pub(in crate::server) blocks: &'a mut Blocks,
    pub(in crate::server) actions: &'a mut VecDeque<Action>,
}

/// What became of a message that is not answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Taken {
    /// It is answered when its time has come.
    Later,
    /// The connection breaks on it.
    Fatal,
}

/// The first message of a connection with `hello=1`.
pub(in crate::server) fn hello(
    identity: &Identity,
    of_parts: &[(&'static str, serde_json::Value)],
    connection: String,
) -> String {
    let hello = Hello {
        pod: &identity.pod,
        node: identity.node.as_deref(),
        namespace: identity.namespace.as_deref(),
        zone: identity.zone.as_deref(),
        version: env!("CARGO_PKG_VERSION"),
        connection,
        of_parts,
    };
    // Strings always serialize.
    serde_json::to_string(&hello).unwrap_or_default()
}

/// Pairs as the fields of an object, in their order.
pub(in crate::server) fn entries<S: serde::Serializer>(
    pairs: &[(&'static str, serde_json::Value)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}
