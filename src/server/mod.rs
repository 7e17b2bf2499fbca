//! The program without I/O: connections and what they share, driven through [`Engine`].
//! Each call finds its connection and hands it the rest; what happens then is `conn`'s business.

pub mod config;
mod conn;
mod end;
mod http;
mod ops;
mod orders;
pub mod part;
mod parts;
mod route;
mod route_table;
mod scarcity;
mod shared;
mod slow;
mod stop;
mod websocket;

pub use conn::TRANSITIONS;
pub use http::PLAIN_WORDS;
pub use http::assets::{Assets, prepare};
pub use http::routes::routes;
pub use http::tokens;
pub use ops::metrics::{Histogram, Metric, MetricKind, Page};
pub use ops::stats::metrics;
pub use route::{Later, Reply, Route, ServedOn, Taken, json};
pub use shared::Shared;

use std::collections::VecDeque;

use crate::engine::{
    Action, Engine, File, HangUp, Id, Now, Out, Peer, Shortage, Side, Signal, Source, Status,
};
use crate::limits;
use crate::proto::http::Persistence;
use crate::proto::refusal::Refusal;
use crate::proto::response::{Delivery, Response};
use crate::slab::Slab;
use crate::time::Moment;
use config::Config;
use conn::{Conn, Quota};
use end::CloseReason;
use ops::drain::{Meaning, Phase};
use ops::pressure::MemoryStage;
use part::Part;
use parts::Parts;
use route_table::RouteTable;
use shared::{Cx, Order};

/// The server.
#[derive(Debug)]
pub struct Server {
    conns: Slab<Conn>,
    shared: Shared,
    /// For calls that have nothing to say.
    no_output: Out,
    last_words: Vec<u8>,
    /// Who may be evicted, longest first; only while places are scarce.
    arrivals: VecDeque<Id>,
}

impl Server {
    /// A server that was told everything and has no connection yet. The seed is for jitter.
    #[must_use]
    pub fn new(config: Config, parts: Vec<Box<dyn Part>>, assets: Assets, seed: u64) -> Self {
        let parts = Parts::new(parts);
        let routes = RouteTable::new(routes(), &parts);
        let mut server = Self {
            conns: Slab::default(),
            shared: Shared::new(config, (parts, routes), assets, seed),
            no_output: Out::default(),
            last_words: Vec::new(),
            arrivals: VecDeque::new(),
        };
        let Shared { tokens, parts, actions, .. } = &mut server.shared;
        let of_parts = parts.iter().map(|(_, part)| part.initial_files());
        let of_parts = of_parts.filter(|files| !files.is_empty()).map(Source::Files);
        actions.extend(tokens.source().into_iter().chain(of_parts).map(Action::Fetch));
        server
    }

    /// Connections at present.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Timers that are set.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.shared.timers.armed()
    }

    /// Bytes that connections own beyond their slot in the table, as the account has them.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.shared.account.memory
    }

    /// How much memory the process may use, if that is limited.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        self.shared.pressure.limit()
    }

    /// Bytes that no connection owns: tables, and the states that compress and inflate for all.
    #[must_use]
    pub fn shared_memory(&self) -> usize {
        let Shared { codec, timers, parts, .. } = &self.shared;
        self.conns.cost() + timers.cost() + parts.table_cost() + codec.cost()
    }

    /// The same as [`Server::memory`], counted connection by connection: for tests of the account.
    #[must_use]
    pub fn memory_counted(&self) -> usize {
        let pinned = self.shared.config.memory.pinned();
        let conns: usize = self.conns.iter().map(|(_, conn)| conn.cost(pinned).memory).sum();
        conns + self.shared.owned()
    }

    /// The name of a connection's stage.
    #[must_use]
    pub fn stage(&self, id: Id) -> Option<&'static str> {
        self.conns.find(id).map(Conn::stage_name)
    }

    /// Reads again what lies in files and may be another by now.
    fn reload(&mut self, now: Now) {
        let assets = self.shared.assets.can_be_read_again().then_some(Source::Assets);
        let before = self.shared.actions.len();
        let sources = assets.into_iter().chain(self.shared.tokens.source());
        self.shared.actions.extend(sources.map(Action::Fetch));
        self.shared.parts.reload(now);
        self.tend(now);
        if self.shared.actions.len() == before {
            log::info!(target: "reload", "there is no --assets to be read again");
        }
    }

    /// The connection, and all that it can reach; `None` once it is gone.
    fn with<'s>(
        &'s mut self,
        now: Now,
        id: Id,
        out: &'s mut Out,
    ) -> Option<(&'s mut Conn, Cx<'s>)> {
        let conn = self.conns.find_mut(id)?;
        let (side, peer, part) = (conn.side(), conn.peer, conn.part);
        Some((conn, Cx { now, id, side, peer, part, shared: &mut self.shared, out }))
    }

    /// The same for calls that have nothing to say.
    fn with_no_output(&mut self, now: Now, id: Id) -> Option<(&mut Conn, Cx<'_>)> {
        let conn = self.conns.find_mut(id)?;
        let (side, peer, part) = (conn.side(), conn.peer, conn.part);
        debug_assert!(self.no_output.is_empty(), "a silent call said something");
        let (shared, out) = (&mut self.shared, &mut self.no_output);
        Some((conn, Cx { now, id, side, peer, part, shared, out }))
    }

    fn quota(&mut self, now: Now, side: Side) -> Option<Quota> {
        let open = self.shared.open;
        let cap = self.shared.config.limits.max_connections;
        match side {
            Side::Admin => {
                let is_free = open.admin < self.shared.admin_connections;
                (is_free || self.make_admin_place(now)).then_some(Quota::Admin)
            }
            Side::Main if self.shared.pressure.stage() == MemoryStage::Out => None,
            Side::Main if self.shared.drain.phase.refuses() => {
                (open.main + open.refused < cap).then_some(Quota::Refused(Refusal::Draining))
            }
            Side::Main if open.main < cap => Some(Quota::Main),
            Side::Main => (open.refused < self.shared.config.limits.refused_connections)
                .then_some(Quota::Refused(Refusal::Full)),
        }
    }

    fn count(&mut self, quota: Quota) -> &mut usize {
        let open = &mut self.shared.open;
        match quota {
            Quota::Main => &mut open.main,
            Quota::Refused(_) => &mut open.refused,
            Quota::Admin => &mut open.admin,
            Quota::Upstream => &mut open.upstream,
        }
    }

    /// What a request asked for that concerns more than its own connection.
    fn carry_out_orders(&mut self, now: Now) {
        self.tend(now);
        while let Some(order) = self.shared.orders.pop_front() {
            match order {
                Order::Shed { count } => self.shed(now, count),
            }
        }
    }
}

impl Engine for Server {
    fn accepted(&mut self, now: Now, side: Side, peer: Peer) -> Option<Id> {
        let mut quota = self.quota(now, side)?;
        // Also when all places are taken: it has the one that becomes free.
        if matches!(quota, Quota::Main | Quota::Refused(Refusal::Full)) && self.make_place(now) {
            quota = Quota::Main;
        }
        // The id is known only once it is in the table, so the stage is entered after that.
        let nobody = Id { key: 0, generation: 0 };
        let (shared, out) = (&mut self.shared, &mut self.no_output);
        let cx = Cx { now, id: nobody, side, peer, part: None, shared, out };
        let id = self.conns.insert(Conn::new(peer, quota, &cx))?;
        *self.count(quota) += 1;
        if quota == Quota::Main {
            self.note_arrival(id);
        }
        log::debug!(target: "accept", conn:% = id, peer:% = peer; "accepted");
        if let Some((conn, mut cx)) = self.with_no_output(now, id) {
            match quota {
                // Whoever leads no handshake to its end by then holds up the exit.
                Quota::Refused(Refusal::Draining) => {
                    conn.end_at(Moment::after(now, limits::LINGER_MS), CloseReason::Drain, &mut cx);
                }
                Quota::Refused(_) | Quota::Main | Quota::Admin | Quota::Upstream => {
                    conn.settle(&mut cx);
                }
            }
        }
        self.weigh(now);
        Some(id)
    }

    fn ready(&mut self, _: Now, id: Id) {
        let refused = |conn: &Conn| matches!(conn.quota, Quota::Refused(_));
        if self.conns.find(id).is_some_and(refused) {
            self.shared.actions.push_back(Action::Write(id));
        }
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        if let Some((conn, mut cx)) = self.with(now, id, out) {
            if let Some(connections) = cx.shared.parts.connections(cx.part) {
                connections.connected(now, id, how, &mut cx.out.bytes);
            }
            if how.is_err() {
                conn.reset(&mut cx);
            }
        }
        self.tend(now);
    }

    fn refused_at_accept(&mut self, now: Now, why: Shortage) -> &[u8] {
        match why {
            Shortage::Slots => self.shared.metrics.refused_at_accept += 1,
            Shortage::Descriptors => self.shared.metrics.accept_errors += 1,
        }
        self.last_words.clear();
        self.shared.refresh_date(now);
        let retry_after = self.shared.retry_after();
        let response = Response::refusal(Refusal::Full).with("Retry-After", retry_after);
        let delivery = Delivery { body: true, persistence: Persistence::Close, minor: 1 };
        response.write(&mut self.last_words, self.shared.stamp(), delivery);
        &self.last_words
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        let memory_is_short = self.shared.pressure.stage() >= MemoryStage::Short;
        self.conns.find_mut(id).map_or(&mut [], |conn| conn.room(memory_is_short, shared))
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        if let Some((conn, mut cx)) = self.with(now, id, out) {
            conn.received(n, shared, &mut cx);
        }
        self.carry_out_orders(now);
        self.weigh(now);
    }

    fn resume(&mut self, now: Now, id: Id, shared: &mut [u8], out: &mut Out) {
        if let Some((conn, mut cx)) = self.with(now, id, out) {
            conn.resume(shared, &mut cx);
        }
        self.carry_out_orders(now);
        self.weigh(now);
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out) {
        if let Some((conn, mut cx)) = self.with(now, id, out) {
            conn.ended(how, &mut cx);
        }
        self.tend(now);
        self.weigh(now);
    }

    fn held_outside(&mut self, now: Now, id: Id, bytes: usize) {
        if let Some((conn, mut cx)) = self.with_no_output(now, id) {
            conn.held_outside(bytes, &mut cx);
        }
        self.weigh(now);
    }

    fn hung_up(&mut self, now: Now, id: Id, out: &mut Out) {
        if let Some((conn, mut cx)) = self.with(now, id, out) {
            conn.hung_up(&mut cx);
        }
        self.tend(now);
        self.weigh(now);
    }

    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        if let Some((conn, mut cx)) = self.with(now, id, out) {
            conn.keep_output(shared, taken, &mut cx);
        }
        self.tend(now);
        self.weigh(now);
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.conns.find(id).map_or(&[], Conn::unsent)
    }

    fn sent(&mut self, now: Now, id: Id, n: usize) {
        if let Some((conn, mut cx)) = self.with_no_output(now, id) {
            conn.sent(n, &mut cx);
        }
        self.tend(now);
        self.weigh(now);
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        let stopped = self.shared.drain.phase == Phase::Stopped;
        if let Some((conn, mut cx)) = self.with(now, id, out) {
            if stopped { conn.cut(&mut cx) } else { conn.wake(&mut cx) }
        }
        self.tend(now);
        self.weigh(now);
    }

    fn closed(&mut self, now: Now, id: Id) {
        if let Some((conn, mut cx)) = self.with_no_output(now, id) {
            conn.gone(&mut cx);
        }
        let Some(conn) = self.conns.remove(id) else { return };
        self.shared.timers.cancel(id.key);
        *self.count(conn.quota) -= 1;
        self.shared.pending_answers.remove(&id);
        self.shared.take_pending(id);
        if let Some(part) = conn.part {
            self.shared.parts.call(part).closed(now, id);
        }
        self.tend(now);
        self.weigh(now);
        log::debug!(target: "accept", conn:% = id; "closed");
        self.exit_if_empty(now);
    }

    fn fire(&mut self, now: Now) {
        // What is due at once, from the beginning on, cannot be late.
        if let Some(due_ns) = self.next_deadline().filter(|due_ns| *due_ns > 0) {
            self.shared.metrics.lag.observe_ns(now.mono_ns.saturating_sub(due_ns));
        }
        self.shared.blocks.fire(now.mono_ns);
        self.shared.parts.fire(now);
        self.tend(now);
        self.weigh(now);
        if let Some(deed) = self.shared.faults.fire(now) {
            self.shared.actions.push_back(deed);
        }
        if self.shared.drain.phase_is_over(now) {
            match self.shared.drain.phase {
                Phase::Announced => self.begin_closing(now),
                Phase::Closing => self.stop(now),
                Phase::Serving | Phase::Stopped => {}
            }
        }
        for _ in 0..limits::TIMERS_AT_ONCE {
            let conns = &mut self.conns;
            let next = |id| conns.find_mut(id).and_then(Conn::work_done);
            let Some(id) = self.shared.worker.finish(now, next) else { break };
            self.shared.actions.push_back(Action::Write(id));
        }
        for _ in 0..limits::TIMERS_AT_ONCE {
            let Some(key) = self.shared.timers.expire(now.mono_ns) else { break };
            if let Some(id) = self.conns.id_at(key) {
                self.shared.actions.push_back(Action::Write(id));
            }
        }
    }

    fn signal(&mut self, now: Now, signal: Signal) {
        match signal {
            Signal::Report => {
                let open = self.shared.open;
                log::info!(
                    target: "report", connections = open.main, websockets = open.websockets,
                    admin = open.admin, buffered_bytes = self.memory();
                    "report"
                );
            }
            Signal::Reload => self.reload(now),
            // Who slept through it would be killed before it could drain.
            Signal::Stop if self.shared.faults.is_frozen(now) => self.stop(now),
            Signal::Stop => match self.shared.drain.meaning(now) {
                Meaning::Begin => self.begin_drain(now),
                Meaning::Repeat => {}
                Meaning::Now => self.stop(now),
            },
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let Shared { timers, drain, blocks, worker, faults, parts, pressure, .. } = &self.shared;
        let deadlines = [
            timers.next_deadline(),
            drain.next_deadline(),
            blocks.next_deadline(),
            worker.next_deadline(),
            faults.next_deadline(),
            parts.next_deadline(),
            pressure.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    fn accepting_stopped(&mut self, now: Now) {
        self.shared.drain.accepting_stopped = true;
        self.exit_if_empty(now);
    }

    fn fetched(&mut self, now: Now, source: Source, files: Vec<File>) {
        match source {
            Source::Assets => {
                log::info!(target: "reload", files = files.len(); "files read again");
                self.shared.assets = Assets::directory(files);
            }
            Source::Process => {
                let figures = files.into_iter().filter_map(|file| {
                    let text = String::from_utf8(file.bytes).ok()?;
                    Some((file.name, text.parse().ok()?))
                });
                self.shared.process = figures.collect();
            }
            Source::Files(paths) => {
                self.shared.tokens.fetched(&files);
                self.shared.parts.fetched(now, &paths, &files);
                self.tend(now);
            }
        }
    }

    fn weighed(&mut self, now: Now, used: u64) {
        self.shared.pressure.read(now, used);
        self.weigh(now);
    }

    fn work(&self) -> u64 {
        self.shared.work
    }

    fn status(&self) -> Status {
        let Shared { open, drain, config, .. } = &self.shared;
        Status {
            connections: open.main,
            websockets: open.websockets,
            ends_ns: drain.ends_ns(&config.drain),
        }
    }

    fn poll(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand idle connections are ten thousand of these, and nothing else.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 112, "{} bytes", size_of::<Conn>());
    }
}
