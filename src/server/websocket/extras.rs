//! Optional features of a WebSocket: pushes, delayed answers, a greeting, its own ping interval, a
//! scheduled close, a fault, counters of a probe, a forwarded address. Most `WebSockets` have none
//! and no `Extras`.

use std::collections::VecDeque;

use serde::Serialize;

use crate::behaviours::{self, Ctx, Kind, Params, Pushes, WireFault};
use crate::engine::{Action, Id, Now};
use crate::outbox::{Block, Blocks};
use crate::queue::{Queue, Waiting};
use crate::server::config::Identity;
use crate::server::ops::pressure::Account;
use crate::server::websocket::faults::Faults;
use crate::server::websocket::probe::Probe;
use crate::server::websocket::worker::{self, Worker};
use crate::{heap, limits, time};

#[derive(Debug)]
pub(crate) struct Extras {
    pushes: Option<Pushes>,
    greeting: Option<String>,
    delays: Delays,
    waiting: Queue,
    /// Closing is due: nothing more is read.
    reading_stopped: bool,
    /// Time until it is closed, with code and reason.
    close: Option<(u64, u16, String)>,
    pub(crate) probe: Option<Box<Probe>>,
    pub(crate) fault: Option<WireFault>,
    pub(crate) ping_ms: Option<u64>,
    pub(crate) forwarded: Option<Box<str>>,
    /// As last accounted.
    pub(crate) counted: Account,
}

/// Delays before a message is answered, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Delays {
    delay: u64,
    work: u64,
    block: u64,
}

/// The message of `hello=1`: the fields of `/whoami` in another order. Clients may rely on either.
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
    /// The extras for these parameters; `None` if there are none.
    pub(crate) fn new(
        params: &Params,
        forwarded: Option<Box<str>>,
        now: Now,
        greeting: Option<String>,
    ) -> Option<Box<Self>> {
        let probe = behaviours::is_probe(params).then(Box::<Probe>::default);
        let mut close = (params.close_after_ms > 0).then(|| {
            let code = params.close_code.unwrap_or(1000);
            (params.close_after_ms, code, params.close_reason.clone())
        });
        if probe.is_some() && close.as_ref().is_none_or(|(ms, ..)| *ms > limits::PROBE_MS) {
            close = Some((limits::PROBE_MS, 1000, "probe ended".to_owned()));
        }
        let extras = Self {
            pushes: Pushes::new(params, now.mono_ns),
            greeting,
            delays: Delays { delay: params.delay_ms, work: params.work_ms, block: params.block_ms },
            waiting: Queue::default(),
            reading_stopped: false,
            close,
            probe,
            fault: params.fault,
            ping_ms: params.ping_ms,
            forwarded,
            counted: Account::default(),
        };
        let is_nothing = extras.pushes.is_none()
            && extras.greeting.is_none()
            && extras.delays == Delays::default()
            && extras.close.is_none()
            && extras.probe.is_none()
            && extras.fault.is_none()
            && extras.ping_ms.is_none()
            && extras.forwarded.is_none();
        (!is_nothing).then(|| Box::new(extras))
    }

    /// Sends what is due at the start.
    pub(crate) fn greet(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(greeting) = self.greeting.take() {
            ctx.send(Kind::Text, greeting.as_bytes());
        }
        self.push(ctx);
    }

    /// Sends the pushes that are due.
    pub(crate) fn push(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(pushes) = &mut self.pushes {
            pushes.speak(ctx);
        }
    }

    pub(crate) fn close_after_ms(&self) -> Option<u64> {
        self.close.as_ref().map(|(ms, ..)| *ms)
    }

    /// Code and reason for `close_after`.
    pub(crate) fn take_close(&mut self) -> (u16, String) {
        self.close.take().map_or_else(Default::default, |(_, code, reason)| (code, reason))
    }

    /// Whether the peer is not read: too much is queued, or closing is due.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= limits::DELAYED_MESSAGES
            || self.waiting.bytes() >= limits::DELAYED_BYTES
            || self.reading_stopped
            || self.fault == Some(WireFault::StallRead)
    }

    pub(crate) fn stop_reading(&mut self) {
        self.reading_stopped = true;
    }

    /// Queues a message that must be delayed; `None` if it is to be answered now.
    pub(crate) fn intercept(
        &mut self,
        (kind, payload): (Kind, &[u8]),
        (now, id): (Now, Id),
        intercept_cx: InterceptCx<'_>,
    ) -> Option<Intercepted> {
        if self.fault == Some(WireFault::Reset) {
            return Some(Intercepted::Reset);
        }
        if self.delays == Delays::default() {
            return None;
        }
        let InterceptCx { worker, faults, blocks, actions } = intercept_cx;
        let mut due_ns = now.mono_ns + time::ms(self.delays.delay);
        if self.delays.block > 0 {
            actions.push_back(faults.freeze(now, self.delays.block));
            due_ns = due_ns.max(faults.frozen_until_ns());
        }
        let turn = (self.delays.work > 0).then(|| worker.next_turn());
        if let Some(turn) = turn
            && self.waiting.turn().is_none()
        {
            worker.add(turn, id, self.delays.work, now);
        }
        let message = Waiting { due_ns, turn, kind, payload };
        self.waiting.push(message, blocks);
        Some(Intercepted::Queued)
    }

    /// The next message that is due by `due_ns`.
    pub(crate) fn next_delayed(
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

    /// The worker finished the first message. Returns turn and duration of the next one.
    pub(crate) fn work_done(&mut self) -> Option<(u64, u64)> {
        self.waiting.next_turn().map(|turn| (turn, self.delays.work))
    }

    pub(crate) fn awaits_worker(&self) -> bool {
        self.waiting.first().is_some_and(|first| first.turn.is_some())
    }

    /// Drops the queued messages.
    pub(crate) fn drop_waiting(&mut self, worker: &mut Worker) {
        if let Some(turn) = self.waiting.turn() {
            worker.cancel(turn);
        }
        self.waiting = Queue::default();
    }

    /// Memory owned, including itself. While it is full, its peer is not read, and `pinned` is what
    /// the kernel holds for such a peer in both directions.
    pub(crate) fn cost(&self, pinned: usize) -> usize {
        let texts = self.greeting.as_ref().map_or(0, String::capacity)
            + self.close.as_ref().map_or(0, |(_, _, reason)| reason.capacity())
            + self.forwarded.as_ref().map_or(0, |forwarded| forwarded.len());
        let turn = if self.delays.work > 0 { worker::ENTRY_BYTES } else { 0 };
        let in_kernel = if self.is_full() { pinned / 2 } else { 0 };
        let probe = self.probe.as_ref().map_or(0, |_| heap::cost(size_of::<Probe>()));
        let own = heap::cost(size_of::<Self>()) + heap::cost(texts) + turn + probe;
        own + self.waiting.cost() + in_kernel
    }

    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let push_ns = self.pushes.as_ref().and_then(Pushes::next_deadline);
        let answer_ns =
            self.waiting.first().filter(|first| first.turn.is_none()).map(|first| first.due_ns);
        push_ns.into_iter().chain(answer_ns).min()
    }
}

/// The shared state that delaying a message needs.
#[derive(Debug)]
pub(crate) struct InterceptCx<'a> {
    pub(crate) worker: &'a mut Worker,
    pub(crate) faults: &'a mut Faults,
    pub(crate) blocks: &'a mut Blocks,
    pub(crate) actions: &'a mut VecDeque<Action>,
}

/// Why a message is not answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intercepted {
    /// It is queued.
    Queued,
    /// The connection is reset.
    Reset,
}

/// The first message of a connection with `hello=1`.
pub(crate) fn hello(
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
    // Strings cannot fail to serialize.
    serde_json::to_string(&hello).unwrap_or_default()
}

/// Serializes pairs as an object, keeping their order.
pub(crate) fn entries<S: serde::Serializer>(
    pairs: &[(&'static str, serde_json::Value)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}
