//! What all connections of a server share, apart from the table that they stand in: so that a
//! connection and this can be borrowed at once.

use std::collections::{BTreeMap, VecDeque};

use super::assets::Assets;
use super::backend::Rest;
use super::calls::Calls;
use super::config::Config;
use super::drain::Drain;
use super::faults::Faults;
use super::gateway::Front;
use super::metrics::Metrics;
use super::pressure::{Account, Pressure, Stage};
use super::tokens::Tokens;
use super::upstream::Upstream;
use super::worker::Worker;
use crate::behaviours::Room;
use crate::engine::{Action, Door, Id, Now, Out, Peer};
use crate::limits;
use crate::outbox::Blocks;
use crate::proto::deflate::Codec;
use crate::proto::response::{Response, Stamp};
use crate::rng::Rng;
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
    pub(super) upstream: Upstream,
    pub(super) calls: Calls,
    pub(super) gateway: Front,
    pub(super) rest: Rest,
    pub(super) tokens: Tokens,
    /// Requests that wait for somebody's word, and those words that have come.
    pub(super) words: BTreeMap<Id, Word>,
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
pub(super) struct Word {
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
    pub(super) fn new(config: Config, assets: Assets, seed: u64) -> Self {
        Self {
            metrics: Metrics::new(config.mounts.len()),
            pressure: Pressure::new(config.memory),
            upstream: Upstream::new(&config.kube, seed),
            calls: Calls::new(),
            #[cfg(feature = "gateway")]
            gateway: Front::new(config.gateway.as_deref(), seed),
            #[cfg(not(feature = "gateway"))]
            gateway: Front::new(),
            rest: Rest::new(&config, seed),
            tokens: Tokens::new(&config),
            words: BTreeMap::new(),
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

    /// What those own that are no connections, as the account has it.
    pub(super) fn owned(&self) -> usize {
        let Self { upstream, calls, gateway, rest, .. } = self;
        upstream.memory() + calls.memory() + gateway.memory() + rest.memory()
    }

    /// How many bytes an answer to one message may have.
    pub(super) fn room(&self) -> Room {
        let cap = limits::output_cap(self.config.limits.max_message);
        Room { answer: cap - limits::HIGH_WATER_BYTES, memory: self.pressure.room() }
    }

    /// Why `/readyz` fails.
    pub(super) fn why_unready(&self) -> Option<&'static str> {
        if self.drain.is_unready(&self.config.drain) {
            return Some("draining");
        }
        if self.pressure.stage() >= Stage::Tight {
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
        let crowded = self.is_crowded() || self.pressure.stage() >= Stage::Tight;
        let usual = self.config.limits.keepalive_timeout_ms;
        if crowded { usual.min(limits::CROWDED_KEEPALIVE_MS) } else { usual }
    }

    /// The word that a request waits for, see [`Later::Word`](super::routes::Later).
    #[cfg(feature = "gateway")]
    #[allow(dead_code, reason = "the sample backend answers with it")]
    pub(super) fn answer(&mut self, whose: Id, response: Response<'static>) {
        if let Some(word) = self.words.get_mut(&whose) {
            word.response = Some(response);
            self.actions.push_back(Action::Write(whose));
        }
    }

    /// Seconds after which a refused client may come back: not all of them at once.
    pub(super) fn retry_after(&mut self) -> String {
        (1 + self.rng.below(5)).to_string()
    }
}

/// What a connection can reach while it is served.
#[derive(Debug)]
pub(super) struct Cx<'a> {
    pub(super) now: Now,
    pub(super) id: Id,
    pub(super) door: Door,
    pub(super) peer: Peer,
    pub(super) shared: &'a mut Shared,
    pub(super) out: &'a mut Out,
}

impl Cx<'_> {
    pub(super) fn act(&mut self, action: Action) {
        self.shared.actions.push_back(action);
    }
}
