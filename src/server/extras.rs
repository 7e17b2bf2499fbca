//! What some `WebSockets` have beyond their behaviour: pushes, answers that wait, a greeting, a
//! keepalive of their own, an end in sight, a fault, a forwarded address. Most have nothing of
//! this and no `Extras`.

use std::collections::VecDeque;

use serde::Serialize;

use super::config::Config;
use super::gateway;
use super::pressure::Account;
use super::shared::Cx;
use crate::behaviours::{Ctx, Kind, Params, Pushes, WireFault};
use crate::limits;
use crate::time;

/// What a WebSocket has beyond its behaviour.
#[derive(Debug)]
pub(super) struct Extras {
    pushes: Option<Pushes>,
    greeting: Option<String>,
    wait: Wait,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Its end has come: it is read no more.
    takes_no_more: bool,
    /// After how long it is closed, and what is said then.
    close: Option<(u64, u16, String)>,
    pub(super) fault: Option<WireFault>,
    pub(super) ping_ms: Option<u64>,
    pub(super) forwarded: Option<Box<str>>,
    /// What the account knows of this.
    pub(super) counted: Account,
}

/// What stands between a message and its answer, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wait {
    delay: u64,
    work: u64,
    block: u64,
}

/// A message that is answered later.
#[derive(Debug)]
struct Waiting {
    due_ns: u64,
    /// The worker is not done with it.
    for_worker: bool,
    kind: Kind,
    payload: Vec<u8>,
}

/// Who serves, as `hello=1` says it: the fields of `/whoami` in another order, and both orders have
/// been seen by clients.
#[derive(Debug, Serialize)]
struct Hello<'a, G> {
    pod: &'a str,
    node: Option<&'a str>,
    namespace: Option<&'a str>,
    zone: Option<&'a str>,
    version: &'a str,
    connection: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<G>,
}

impl Extras {
    /// The extras that these parameters ask for; `None` when there are none.
    pub(super) fn new(
        params: &Params,
        forwarded: Option<Box<str>>,
        cx: &Cx<'_>,
    ) -> Option<Box<Self>> {
        let config = &cx.shared.config;
        let extras = Self {
            pushes: Pushes::new(params, cx.now.mono_ns),
            greeting: params.hello.then(|| hello(config, cx.id.to_string())),
            wait: Wait { delay: params.delay_ms, work: params.work_ms, block: params.block_ms },
            waiting: VecDeque::new(),
            waiting_bytes: 0,
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
    pub(super) fn greet(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(greeting) = self.greeting.take() {
            ctx.send(Kind::Text, greeting.as_bytes());
        }
        self.speak(ctx);
    }

    /// Says what is due.
    pub(super) fn speak(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(pushes) = &mut self.pushes {
            pushes.speak(ctx);
        }
    }

    pub(super) fn close_after_ms(&self) -> Option<u64> {
        self.close.as_ref().map(|(ms, ..)| *ms)
    }

    /// What `close_after` says at last.
    pub(super) fn farewell(&mut self) -> (u16, String) {
        self.close.take().map_or_else(Default::default, |(_, code, reason)| (code, reason))
    }

    /// Whether the peer is not read: too much waits, or its end has come.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= limits::DELAYED_MESSAGES
            || self.waiting_bytes >= limits::DELAYED_BYTES
            || self.takes_no_more
            || self.fault == Some(WireFault::StallRead)
    }

    pub(super) fn take_no_more(&mut self) {
        self.takes_no_more = true;
    }

    /// Takes a message that is answered later, or never; `None`: it is answered now.
    pub(super) fn take(&mut self, kind: Kind, payload: &[u8], cx: &mut Cx<'_>) -> Option<Taken> {
        if self.fault == Some(WireFault::Reset) {
            return Some(Taken::Fatal);
        }
        if self.wait == Wait::default() {
            return None;
        }
        let mut due_ns = cx.now.mono_ns + time::ms(self.wait.delay);
        if self.wait.block > 0 {
            let freeze = cx.shared.faults.freeze(cx.now, self.wait.block);
            cx.act(freeze);
            due_ns = due_ns.max(cx.shared.faults.frozen_until_ns());
        }
        if self.wait.work > 0 {
            cx.shared.worker.take_on(cx.id, self.wait.work, cx.now);
        }
        self.waiting_bytes += payload.len();
        let for_worker = self.wait.work > 0;
        self.waiting.push_back(Waiting { due_ns, for_worker, kind, payload: payload.to_vec() });
        Some(Taken::Later)
    }

    /// The next message that may be answered by `due_ns`.
    pub(super) fn next_delayed(&mut self, due_ns: u64) -> Option<(Kind, Vec<u8>)> {
        self.waiting.front().filter(|first| first.due_ns <= due_ns && !first.for_worker)?;
        let first = self.waiting.pop_front()?;
        self.waiting_bytes -= first.payload.len();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some((first.kind, first.payload))
    }

    /// The worker is done with the first message that waited for it.
    pub(super) fn work_done(&mut self) {
        if let Some(first) = self.waiting.iter_mut().find(|waiting| waiting.for_worker) {
            first.for_worker = false;
        }
    }

    pub(super) fn awaits_worker(&self) -> bool {
        self.waiting.front().is_some_and(|first| first.for_worker)
    }

    /// What the messages that wait cost.
    pub(super) fn cost(&self) -> usize {
        self.waiting_bytes + self.waiting.capacity() * size_of::<Waiting>()
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let push_ns = self.pushes.as_ref().and_then(Pushes::next_deadline);
        let answer_ns =
            self.waiting.front().filter(|first| !first.for_worker).map(|first| first.due_ns);
        push_ns.into_iter().chain(answer_ns).min()
    }
}

/// What became of a message that is not answered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is answered when its time has come.
    Later,
    /// The connection breaks on it.
    Fatal,
}

fn hello(config: &Config, connection: String) -> String {
    let identity = &config.identity;
    let hello = Hello {
        pod: &identity.pod,
        node: identity.node.as_deref(),
        namespace: identity.namespace.as_deref(),
        zone: identity.zone.as_deref(),
        version: env!("CARGO_PKG_VERSION"),
        connection,
        gateway: gateway::shown(config),
    };
    // Strings always serialize.
    serde_json::to_string(&hello).unwrap_or_default()
}
