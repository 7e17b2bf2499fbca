//! What some `WebSockets` have beyond their behaviour: pushes, delayed answers, a greeting, a
//! keepalive of their own, a forwarded address. Most have nothing of this and no `Extras`.

use std::collections::VecDeque;

use serde::Serialize;

use super::config::Identity;
use crate::behaviours::{Ctx, Kind, Params, Pushes};
use crate::engine::Now;
use crate::limits;
use crate::time;

/// What a WebSocket has beyond its behaviour.
#[derive(Debug)]
pub(super) struct Extras {
    pushes: Option<Pushes>,
    greeting: Option<String>,
    delay_ms: u64,
    delayed: VecDeque<Delayed>,
    delayed_bytes: usize,
    pub(super) ping_ms: Option<u64>,
    pub(super) forwarded: Option<Box<str>>,
}

/// A message that is answered later.
#[derive(Debug)]
struct Delayed {
    due_ns: u64,
    kind: Kind,
    payload: Vec<u8>,
}

/// Who serves, as `hello=1` says it.
#[derive(Debug, Serialize)]
struct Hello<'a> {
    pod: &'a str,
    node: Option<&'a str>,
    namespace: Option<&'a str>,
    zone: Option<&'a str>,
    version: &'a str,
    connection: String,
}

impl Extras {
    /// The extras that these parameters ask for; `None` when there are none.
    pub(super) fn new(
        params: &Params,
        forwarded: Option<Box<str>>,
        identity: &Identity,
        connection: String,
        now: Now,
    ) -> Option<Box<Self>> {
        let pushes = Pushes::new(params, now.mono_ns);
        let greeting = params.hello.then(|| hello(identity, connection));
        let nothing = pushes.is_none()
            && greeting.is_none()
            && params.delay_ms == 0
            && params.ping_ms.is_none()
            && forwarded.is_none();
        if nothing {
            return None;
        }
        Some(Box::new(Self {
            pushes,
            greeting,
            delay_ms: params.delay_ms,
            delayed: VecDeque::new(),
            delayed_bytes: 0,
            ping_ms: params.ping_ms,
            forwarded,
        }))
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

    /// Whether messages are answered later.
    pub(super) fn delays(&self) -> bool {
        self.delay_ms > 0
    }

    /// Whether so much is held back that the peer is not read.
    pub(super) fn is_full(&self) -> bool {
        self.delayed.len() >= limits::DELAYED_MESSAGES
            || self.delayed_bytes >= limits::DELAYED_BYTES
    }

    pub(super) fn hold_back(&mut self, kind: Kind, payload: &[u8], now: Now) {
        self.delayed_bytes += payload.len();
        let due_ns = now.mono_ns + time::ms(self.delay_ms);
        self.delayed.push_back(Delayed { due_ns, kind, payload: payload.to_vec() });
    }

    /// The next message whose time has come by `due_ns`.
    pub(super) fn next_delayed(&mut self, due_ns: u64) -> Option<(Kind, Vec<u8>)> {
        if self.delayed.front()?.due_ns > due_ns {
            return None;
        }
        let first = self.delayed.pop_front()?;
        self.delayed_bytes -= first.payload.len();
        if self.delayed.is_empty() {
            self.delayed = VecDeque::new();
        }
        Some((first.kind, first.payload))
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let push_ns = self.pushes.as_ref().and_then(Pushes::next_deadline);
        push_ns.into_iter().chain(self.delayed.front().map(|first| first.due_ns)).min()
    }
}

fn hello(identity: &Identity, connection: String) -> String {
    let hello = Hello {
        pod: &identity.pod,
        node: identity.node.as_deref(),
        namespace: identity.namespace.as_deref(),
        zone: identity.zone.as_deref(),
        version: env!("CARGO_PKG_VERSION"),
        connection,
    };
    // Strings always serialize.
    serde_json::to_string(&hello).unwrap_or_default()
}
