//! What all connections of a server share, apart from the table that they stand in: so that a
//! connection and this can be borrowed at once.

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

/// What all connections of a server share.
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
    pub(super) date: Date,
    pub(super) worker: Worker,
    pub(super) faults: Faults,
    pub(super) metrics: Metrics,
    pub(super) account: Account,
    pub(super) pressure: Pressure,
    /// Bytes inflated, produced and copied so far; it only grows.
    pub(super) work: u64,
    /// What the kernel last told of this process.
    pub(super) process: BTreeMap<String, f64>,
    /// An operator turned readiness off.
    pub(super) ready_off: bool,
    /// What requests asked for that concerns other connections, in order.
    pub(super) orders: VecDeque<Order>,
    pub(super) parts: Parts,
    /// The part that speaks for each mount, in the order of the mounts.
    pub(super) mount_parts: Vec<Option<PartId>>,
    /// Paths, and who answers them.
    pub(super) routes: RouteTable,
    /// Fields that parts add to the first message of a connection with `hello=1`.
    pub(super) hello_fields: Vec<(&'static str, serde_json::Value)>,
    /// Places on the admin listener.
    pub(super) admin_connections: usize,
    /// Upgrades of which a part has not decided yet.
    pending: BTreeMap<Id, Pending>,
    pending_bytes: usize,
    pub(super) tokens: Tokens,
    /// Requests that wait for somebody's word, and those words that have come.
    pub(super) pending_answers: BTreeMap<Id, PendingAnswer>,
}

/// What a request asked for that concerns other connections. It is carried out as soon as the
/// bytes that asked for it are read, so no more of them wait than one read can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To close so many `WebSockets`.
    Shed { count: usize },
}

/// What a request waits for.
#[derive(Debug)]
pub(super) struct PendingAnswer {
    /// The request's path, as the metrics name it.
    pub(super) path: &'static str,
    pub(super) response: Option<Response<'static>>,
}

/// How many connections there are, by what they cost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Open {
    /// Of the main listener, served.
    pub(super) main: usize,
    /// Of the main listener, only to hear 503.
    pub(super) refused: usize,
    /// Of the admin listener.
    pub(super) admin: usize,
    /// `WebSockets` among them.
    pub(super) websockets: usize,
    /// Opened by ourselves.
    pub(super) upstream: usize,
}

/// The `Date` field, made once a second.
#[derive(Debug, Default)]
pub(super) struct Date {
    second: i64,
    text: String,
}

impl Date {
    fn refresh(&mut self, now: Now) {
        let second = now.wall_ms.div_euclid(1000);
        if self.text.is_empty() || self.second != second {
            self.second = second;
            self.text = time::http_date(now.wall_ms);
        }
    }
}

impl Shared {
    pub(super) fn new(
        config: Config,
        (parts, routes): (Parts, RouteTable),
        assets: Assets,
        seed: u64,
    ) -> Self {
        let mounts = &config.mounts;
        let speaker = |mount: &Mount| mount.entry.part.and_then(|name| parts.find(name));
        let mount_parts: Vec<Option<PartId>> = mounts.iter().map(speaker).collect();
        let greeting = |(id, part): (PartId, &dyn Part)| {
            let own = mounts.iter().zip(&mount_parts).filter(|(_, speaker)| **speaker == Some(id));
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
            date: Date::default(),
            worker: Worker::default(),
            faults: Faults::default(),
            account: Account::default(),
            work: 0,
            process: BTreeMap::new(),
            ready_off: false,
            orders: VecDeque::new(),
        }
    }

    /// What every answer says. The date is that of the last [`Shared::refresh_date`].
    pub(super) fn stamp(&self) -> Stamp<'_> {
        Stamp { date: &self.date.text, served_by: &self.config.identity.pod }
    }

    /// Before anything is answered over HTTP.
    pub(super) fn refresh_date(&mut self, now: Now) {
        self.date.refresh(now);
    }

    /// What parts and pending upgrades own, as the account has it.
    pub(super) fn owned(&self) -> usize {
        self.parts.memory() + self.pending_bytes
    }

    /// An upgrade waits for the decision of a part.
    pub(super) fn add_pending(&mut self, id: Id, pending: Pending) {
        self.take_pending(id);
        let bytes = pending.cost();
        self.pending_bytes += bytes;
        self.account.memory += bytes;
        self.pending.insert(id, pending);
    }

    /// It waits no more.
    pub(super) fn take_pending(&mut self, id: Id) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        let bytes = pending.cost();
        self.pending_bytes -= bytes;
        self.account.memory -= bytes;
        Some(pending)
    }

    /// Bytes that are owned for a connection elsewhere: by its part, or as a pending upgrade.
    pub(super) fn cost_elsewhere(&self, part: Option<PartId>, id: Id) -> usize {
        let Some(part) = part else { return 0 };
        self.parts.get(part).cost_of(id) + self.pending.get(&id).map_or(0, Pending::cost)
    }

    /// Why `/readyz` fails.
    pub(super) fn why_unready(&self) -> Option<&'static str> {
        if self.drain.is_unready(&self.config.drain) {
            return Some("draining");
        }
        if self.pressure.stage() >= MemoryStage::Tight {
            return Some("overloaded");
        }
        self.ready_off.then_some("disabled")
    }

    /// Whether three quarters of the places are taken.
    pub(super) fn is_crowded(&self) -> bool {
        self.open.main > self.config.limits.max_connections / 4 * 3
    }

    /// How long an idle HTTP connection stays: less when places or memory are scarce.
    pub(super) fn keepalive_ms(&self) -> u64 {
        let crowded = self.is_crowded() || self.pressure.stage() >= MemoryStage::Tight;
        let usual = self.config.limits.keepalive_timeout_ms;
        if crowded { usual.min(limits::CROWDED_KEEPALIVE_MS) } else { usual }
    }

    /// The word that a request waits for, see [`Later::OfPart`](crate::server::route::Later).
    pub(super) fn answer(&mut self, whose: Id, response: Response<'static>) {
        if let Some(word) = self.pending_answers.get_mut(&whose) {
            word.response = Some(response);
            self.actions.push_back(Action::Write(whose));
        }
    }

    /// Seconds after which a refused client may come back: not all of them at once.
    pub(super) fn retry_after(&mut self) -> String {
        part::retry_after(&mut self.rng)
    }
}

/// What an answer can depend on that changes nothing, beside the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) side: Side,
    pub(super) peer: Peer,
    pub(super) shared: &'a Shared,
}

impl<'a> View<'a> {
    pub(super) fn of(cx: &'a Cx<'_>) -> Self {
        Self { side: cx.side, peer: cx.peer, shared: cx.shared }
    }
}

/// What a connection can reach while it is served.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) id: Id,
    pub(super) side: Side,
    pub(super) peer: Peer,
    /// The part that the connection concerns.
    pub(super) part: Option<PartId>,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Out,
}

impl Cx<'_> {
    pub(super) fn act(&mut self, action: Action) {
        self.shared.actions.push_back(action);
    }

    /// What a WebSocket can reach of it.
    pub(super) fn of_socket(&mut self) -> SocketCx<'_> {
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
