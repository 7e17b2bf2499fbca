//! State shared by all connections of a server. It is separate from the table of connections, so
//! that one connection and this can be borrowed at the same time.

use std::collections::{BTreeMap, VecDeque};

use crate::behaviours::Mount;
use crate::engine::{Action, Id, Now, Out, Peer, Side};
use crate::limits;
use crate::outbox::Blocks;
use crate::proto::deflate::Codec;
use crate::proto::response::{Response, Stamp};
use crate::rng::Rng;
use crate::server::config::Config;
use crate::server::http::assets::Assets;
use crate::server::http::pending::Pending;
use crate::server::http::tokens::Tokens;
use crate::server::ops::drain::Drain;
use crate::server::ops::metrics::Metrics;
use crate::server::ops::pressure::{Account, MemoryStage, Pressure};
use crate::server::part::{self, Part, PartId};
use crate::server::parts::Parts;
use crate::server::route_table::RouteTable;
use crate::server::websocket::SocketCx;
use crate::server::websocket::faults::Faults;
use crate::server::websocket::worker::Worker;
use crate::time;
use crate::timers::Timers;

/// State shared by all connections of a server.
#[derive(Debug)]
pub struct Shared {
    pub(super) config: Config,
    pub(super) assets: Assets,
    pub(super) timers: Timers,
    pub(super) rng: Rng,
    pub(super) blocks: Blocks,
    pub(super) codec: Codec,
    pub(super) actions: VecDeque<Action>,
    pub(super) drain: Drain,
    pub(super) open: Open,
    stamp: Stamp,
    /// The second since 1970 of its date.
    stamped_second: Option<i64>,
    pub(super) worker: Worker,
    pub(super) faults: Faults,
    pub(super) metrics: Metrics,
    pub(super) account: Account,
    pub(super) pressure: Pressure,
    /// Bytes inflated, produced and copied so far. Never decreases.
    pub(super) work: u64,
    /// Figures of the process, as last read from the kernel.
    pub(super) process: BTreeMap<String, f64>,
    /// Readiness was disabled by an operator.
    pub(super) ready_off: bool,
    pub(super) orders: VecDeque<AdminOrder>,
    pub(super) parts: Parts,
    /// The part that handles each mount, in the order of the mounts.
    pub(super) mount_parts: Vec<Option<PartId>>,
    pub(super) routes: RouteTable,
    /// Fields that parts add to the first message of a connection with `hello=1`.
    pub(super) hello_fields: Vec<(&'static str, serde_json::Value)>,
    /// Limit for connections of the admin listener.
    pub(super) admin_connections: usize,
    /// Upgrades that wait for the decision of a part.
    pending: BTreeMap<Id, Pending>,
    pending_bytes: usize,
    pub(super) tokens: Tokens,
    /// Requests that wait for the response of a part.
    pub(super) pending_answers: BTreeMap<Id, PendingAnswer>,
}

/// An operation that an admin request starts on other connections. It runs as soon as the bytes of
/// one read are handled, so the queue is bounded by one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminOrder {
    /// Close this many `WebSockets`.
    Shed { count: usize },
}

/// A request that waits for the response of a part.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    /// The path label for metrics.
    pub(super) path: &'static str,
    pub(super) response: Option<Response<'static>>,
}

/// Open connections by kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Open {
    /// Main listener, served.
    pub(super) main: usize,
    /// Main listener, beyond the limit or while draining: they only get 503.
    pub(super) refused: usize,
    /// Admin listener.
    pub(super) admin: usize,
    pub(super) websockets: usize,
    /// `WebSockets` with `probe=1` among them.
    pub(super) probes: usize,
    /// Outgoing connections of parts.
    pub(super) upstream: usize,
    /// Accepted at the listeners of parts.
    pub(super) of_parts: usize,
}

impl Shared {
    pub(super) fn new(
        config: Config,
        (parts, routes): (Parts, RouteTable),
        assets: Assets,
        seed: u64,
    ) -> Self {
        let mounts = &config.mounts;
        let owner = |mount: &Mount| mount.entry.part.and_then(|name| parts.find(name));
        let mount_parts: Vec<Option<PartId>> = mounts.iter().map(owner).collect();
        let greeting = |(id, part): (PartId, &dyn Part)| {
            let own = mounts.iter().zip(&mount_parts).filter(|(_, owner)| **owner == Some(id));
            part.hello(&own.map(|(mount, _)| &*mount.path).collect::<Vec<_>>())
        };
        let admin: usize = parts.iter().map(|(_, part)| part.admin_connections()).sum();
        let token_files = mounts.iter().map(|mount| mount.params.token_file.clone());
        Self {
            metrics: Metrics::new(config.mounts.len()),
            pressure: Pressure::new(config.memory),
            tokens: Tokens::new(token_files),
            routes,
            hello_fields: parts.iter().filter_map(greeting).collect(),
            admin_connections: limits::ADMIN_CONNECTIONS + admin,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            mount_parts,
            parts,
            pending_answers: BTreeMap::new(),
            config,
            assets,
            timers: Timers::default(),
            rng: Rng::new(seed),
            blocks: Blocks::default(),
            codec: Codec::default(),
            actions: VecDeque::new(),
            drain: Drain::default(),
            open: Open::default(),
            stamp: Stamp::default(),
            stamped_second: None,
            worker: Worker::default(),
            faults: Faults::default(),
            account: Account::default(),
            work: 0,
            process: BTreeMap::new(),
            ready_off: false,
            orders: VecDeque::new(),
        }
    }

    /// Header fields of every response. The date is that of the last [`Shared::refresh_date`].
    pub(super) fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Call before writing an HTTP response.
    pub(super) fn refresh_date(&mut self, now: Now) {
        let second = now.wall_ms.div_euclid(1000);
        if self.stamped_second != Some(second) {
            self.stamped_second = Some(second);
            self.stamp.set(&time::http_date(now.wall_ms), &self.config.identity.pod);
        }
    }

    /// Accounted bytes of parts and pending upgrades.
    pub(super) fn owned(&self) -> usize {
        self.parts.memory() + self.pending_bytes
    }

    pub(super) fn add_pending(&mut self, id: Id, pending: Pending) {
        self.take_pending(id);
        let bytes = pending.cost();
        self.pending_bytes += bytes;
        self.account.memory += bytes;
        self.pending.insert(id, pending);
    }

    pub(super) fn take_pending(&mut self, id: Id) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        let bytes = pending.cost();
        self.pending_bytes -= bytes;
        self.account.memory -= bytes;
        Some(pending)
    }

    /// Bytes owned on behalf of a connection by its part or as a pending upgrade.
    pub(super) fn cost_elsewhere(&self, part: Option<PartId>, id: Id) -> usize {
        let Some(part) = part else { return 0 };
        self.parts.get(part).cost_of(id) + self.pending.get(&id).map_or(0, Pending::cost)
    }

    /// The reason why `/readyz` fails, if it does.
    pub(super) fn why_unready(&self) -> Option<&'static str> {
        if self.drain.is_unready(&self.config.drain) {
            return Some("draining");
        }
        if self.pressure.stage() >= MemoryStage::Tight {
            return Some("overloaded");
        }
        self.ready_off.then_some("disabled")
    }

    /// Whether more than three quarters of the connections are in use.
    pub(super) fn is_crowded(&self) -> bool {
        self.open.main > self.config.limits.max_connections / 4 * 3
    }

    /// The keep-alive timeout: shorter while connections or memory are scarce.
    pub(super) fn keepalive_ms(&self) -> u64 {
        let crowded = self.is_crowded() || self.pressure.stage() >= MemoryStage::Tight;
        let usual = self.config.limits.keepalive_timeout_ms;
        if crowded { usual.min(limits::CROWDED_KEEPALIVE_MS) } else { usual }
    }

    /// Sets the response that a request waits for, see
    /// [`Deferred::Part`](crate::server::route::Deferred).
    pub(super) fn answer(&mut self, id: Id, response: Response<'static>) {
        if let Some(pending) = self.pending_answers.get_mut(&id) {
            pending.response = Some(response);
            self.actions.push_back(Action::Write(id));
        }
    }

    /// The value of `Retry-After`, with jitter.
    pub(super) fn retry_after(&mut self) -> String {
        part::retry_after(&mut self.rng)
    }
}

/// Read-only context of an HTTP request.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) side: Side,
    pub(super) peer: Peer,
    pub(super) shared: &'a Shared,
}

impl<'a> View<'a> {
    pub(super) fn new(cx: &'a Cx<'_>) -> Self {
        Self { side: cx.side, peer: cx.peer, shared: cx.shared }
    }
}

/// Context of a call on a connection.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) id: Id,
    pub(super) side: Side,
    /// The client.
    pub(super) peer: Peer,
    /// The other end of the connection, perhaps a proxy.
    pub(super) via: Peer,
    /// The part that owns or handles the connection.
    pub(super) part: Option<PartId>,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Out,
}

impl Cx<'_> {
    pub(super) fn act(&mut self, action: Action) {
        self.shared.actions.push_back(action);
    }

    /// The context of a WebSocket, which reaches less.
    pub(super) fn socket_cx(&mut self) -> SocketCx<'_> {
        let shared = &mut *self.shared;
        SocketCx {
            now: self.now,
            id: self.id,
            config: &shared.config,
            pressure: &shared.pressure,
            metrics: &mut shared.metrics,
            rng: &mut shared.rng,
            codec: &mut shared.codec,
            blocks: &mut shared.blocks,
            worker: &mut shared.worker,
            faults: &mut shared.faults,
            work: &mut shared.work,
            parts: &mut shared.parts,
            part: self.part,
            actions: &mut shared.actions,
            out: self.out,
        }
    }
}
