//! The server without I/O: the table of connections and their shared state, driven through
//! [`Engine`]. Each call looks up its connection and passes the event to `conn`.

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
mod stop;
mod unfinished;
mod websocket;

pub use conn::TRANSITIONS;
pub use http::PLAIN_HTTP_RESPONSE;
pub use http::assets::{Assets, prepare};
pub use http::routes::routes;
pub use http::tokens;
pub use ops::metrics::{Histogram, Metric, MetricKind, Page};
pub use ops::stats::metrics;
pub use route::{Deferred, Reply, RequestBody, Route, ServedOn, json};
pub use shared::Shared;

use core::net::IpAddr;
use std::collections::VecDeque;

use crate::engine::{
    Action, Engine, File, HangUp, Id, NameFault, Now, Out, Peer, Shortage, Side, Signal, Source,
    Status,
};
use crate::limits;
use crate::proto::http::Persistence;
use crate::proto::refusal::Refusal;
use crate::proto::response::{Delivery, Response};
use crate::slab::Slab;
use crate::time::{Moment, earlier};
use config::Config;
use conn::{Conn, Place, Quota};
use end::CloseReason;
use ops::drain::{Phase, SignalEffect};
use ops::pressure::MemoryStage;
use part::{Part, PartId};
use parts::Parts;
use route_table::RouteTable;
use shared::{AdminOrder, Cx};

/// The server.
#[derive(Debug)]
pub struct Server {
    conns: Slab<Conn>,
    shared: Shared,
    /// Output of calls that must not produce any.
    empty_out: Out,
    refusal: Vec<u8>,
    /// Where the bytes of the current read go.
    place: Place,
    /// Candidates for eviction, oldest first. Filled only while connections are scarce.
    arrivals: VecDeque<Id>,
}

impl Server {
    /// A server without connections. `seed` is for jitter.
    #[must_use]
    pub fn new(config: Config, parts: Vec<Box<dyn Part>>, assets: Assets, seed: u64) -> Self {
        let parts = Parts::new(parts);
        let routes = RouteTable::new(routes(), &parts);
        let mut server = Self {
            conns: Slab::default(),
            shared: Shared::new(config, (parts, routes), assets, seed),
            empty_out: Out::default(),
            refusal: Vec::new(),
            place: Place::FRONT,
            arrivals: VecDeque::new(),
        };
        let Shared { tokens, parts, actions, .. } = &mut server.shared;
        let of_parts = parts.iter().map(|(_, part)| part.initial_files());
        let of_parts = of_parts.filter(|files| !files.is_empty()).map(Source::Files);
        actions.extend(tokens.source().into_iter().chain(of_parts).map(Action::Fetch));
        server
    }

    /// Number of open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.conns.len()
    }

    /// Number of armed timers.
    #[must_use]
    pub fn timers(&self) -> usize {
        self.shared.timers.armed()
    }

    /// Bytes owned by connections, without their slots in the table, as accounted.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.shared.account.memory
    }

    /// The memory limit of the process, if any.
    #[must_use]
    pub fn memory_limit(&self) -> Option<u64> {
        self.shared.pressure.limit()
    }

    /// Bytes that no connection owns: tables, the page, the shared state of the compressor.
    #[must_use]
    pub fn shared_memory(&self) -> usize {
        let Shared { codec, timers, parts, assets, .. } = &self.shared;
        let own = self.conns.cost() + timers.cost() + parts.table_cost();
        own + codec.cost() + assets.page_bytes()
    }

    /// Like [`Server::memory`], but recounted. Tests compare both.
    #[must_use]
    pub fn memory_counted(&self) -> usize {
        let pinned = self.shared.config.memory.pinned();
        let conns: usize = self.conns.iter().map(|(_, conn)| conn.cost(pinned).memory).sum();
        conns + self.shared.owned()
    }

    /// The name of a connection's stage, for tests.
    #[must_use]
    pub fn stage(&self, id: Id) -> Option<&'static str> {
        self.conns.find(id).map(Conn::stage_name)
    }

    /// SIGHUP: reads files again.
    fn reload(&mut self, now: Now) {
        let assets = self.shared.assets.are_reloadable().then_some(Source::Assets);
        let before = self.shared.actions.len();
        let sources = assets.into_iter().chain(self.shared.tokens.source());
        self.shared.actions.extend(sources.map(Action::Fetch));
        self.shared.parts.reload(now);
        self.poll_parts(now);
        if self.shared.actions.len() == before {
            log::info!(target: "reload", "nothing to reload");
        }
    }

    /// Looks up a connection and builds its context; `None` if it is closed already.
    fn context<'s>(
        &'s mut self,
        now: Now,
        id: Id,
        out: &'s mut Out,
    ) -> Option<(&'s mut Conn, Cx<'s>)> {
        let conn = self.conns.find_mut(id)?;
        let (side, peer, part) = (conn.side(), conn.peer, conn.part);
        Some((conn, Cx { now, id, side, peer, via: peer, part, shared: &mut self.shared, out }))
    }

    /// The same for calls that must not produce output.
    fn context_without_output(&mut self, now: Now, id: Id) -> Option<(&mut Conn, Cx<'_>)> {
        let conn = self.conns.find_mut(id)?;
        let (side, peer, part) = (conn.side(), conn.peer, conn.part);
        debug_assert!(self.empty_out.is_empty(), "a call without output wrote some");
        let (shared, out) = (&mut self.shared, &mut self.empty_out);
        Some((conn, Cx { now, id, side, peer, via: peer, part, shared, out }))
    }

    fn quota(&mut self, now: Now, side: Side) -> Option<Quota> {
        let open = self.shared.open;
        let cap = self.shared.config.limits.max_connections;
        match side {
            // Counted where it is accepted.
            Side::Part(_) => None,
            Side::Admin => {
                let is_free = open.admin < self.shared.admin_connections;
                (is_free || self.evict_admin(now)).then_some(Quota::Admin)
            }
            Side::Main if self.shared.pressure.stage() == MemoryStage::Exhausted => None,
            Side::Main if self.shared.drain.phase.refuses() => {
                (open.main + open.refused < cap).then_some(Quota::Refused(Refusal::Draining))
            }
            Side::Main if open.main < cap => Some(Quota::Main),
            Side::Main => (open.refused < self.shared.config.limits.refused_connections)
                .then_some(Quota::Refused(Refusal::Full)),
        }
    }

    fn open_count(&mut self, quota: Quota) -> &mut usize {
        let open = &mut self.shared.open;
        match quota {
            Quota::Main => &mut open.main,
            Quota::Refused(_) => &mut open.refused,
            Quota::Admin => &mut open.admin,
            Quota::Upstream => &mut open.upstream,
            Quota::OfPart => &mut open.of_parts,
        }
    }

    #[inline]
    fn carry_out_admin_orders(&mut self, now: Now) {
        self.poll_parts(now);
        if !self.shared.orders.is_empty() {
            self.carry_out_orders(now);
        }
    }

    #[inline(never)]
    fn carry_out_orders(&mut self, now: Now) {
        while let Some(order) = self.shared.orders.pop_front() {
            match order {
                AdminOrder::Shed { count } => self.shed(now, count),
            }
        }
    }
}

impl Engine for Server {
    fn probes_peers(&self) -> bool {
        true
    }

    fn accepted(&mut self, now: Now, side: Side, peer: Peer) -> Option<Id> {
        if let Side::Part(part) = side {
            return self.accept_for_part(now, PartId(part), peer);
        }
        let mut quota = self.quota(now, side)?;
        // Even at the limit: the new connection takes the slot of the evicted one.
        if matches!(quota, Quota::Main | Quota::Refused(Refusal::Full)) && self.evict_oldest(now) {
            quota = Quota::Main;
        }
        // The id is known only after insertion, so the stage is entered afterwards.
        let unassigned = Id { key: 0, generation: 0 };
        let (shared, out) = (&mut self.shared, &mut self.empty_out);
        let cx = Cx { now, id: unassigned, side, peer, via: peer, part: None, shared, out };
        let id = self.conns.insert(Conn::new(peer, quota, &cx))?;
        *self.open_count(quota) += 1;
        if quota == Quota::Main {
            self.record_arrival(id);
        }
        log::debug!(target: "accept", conn:% = id, peer:% = peer; "accepted");
        if let Some((conn, mut cx)) = self.context_without_output(now, id) {
            match quota {
                // The TLS handshake must end by then; otherwise it would delay the exit.
                Quota::Refused(Refusal::Draining) => {
                    conn.end_at(Moment::after(now, limits::LINGER_MS), CloseReason::Drain, &mut cx);
                }
                Quota::Refused(_)
                | Quota::Main
                | Quota::Admin
                | Quota::Upstream
                | Quota::OfPart => {
                    conn.after_event(&mut cx);
                }
            }
        }
        self.check_memory(now);
        Some(id)
    }

    fn introduced(&mut self, _: Now, id: Id, client: Peer) {
        if let Some(conn) = self.conns.find_mut(id) {
            log::debug!(
                target: "accept", conn:% = id, peer:% = client, via:% = conn.peer; "proxied"
            );
            conn.peer = client;
        }
    }

    fn ready(&mut self, _: Now, id: Id) {
        let refused = |conn: &Conn| matches!(conn.quota, Quota::Refused(_));
        if self.conns.find(id).is_some_and(refused) {
            self.shared.actions.push_back(Action::Write(id));
        }
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        if let Some((conn, mut cx)) = self.context(now, id, out) {
            if let Some(connections) = cx.shared.parts.connections(cx.part) {
                connections.connected(now, id, how, &mut cx.out.bytes);
            }
            if how.is_err() {
                conn.reset(&mut cx);
            }
        }
        self.poll_parts(now);
    }

    fn refused_at_accept(&mut self, now: Now, why: Shortage) -> &[u8] {
        match why {
            Shortage::Slots => self.shared.metrics.refused_at_accept += 1,
            Shortage::Descriptors => self.shared.metrics.accept_errors += 1,
        }
        self.refusal.clear();
        self.shared.refresh_date(now);
        let retry_after = self.shared.retry_after();
        let response = Response::refusal(Refusal::Full).with("Retry-After", retry_after);
        let delivery = Delivery { body: true, persistence: Persistence::Close, minor: 1 };
        response.write(&mut self.refusal, self.shared.stamp(), delivery);
        &self.refusal
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        let memory_is_short = self.shared.pressure.stage() >= MemoryStage::Short;
        let Some(conn) = self.conns.find_mut(id) else { return &mut [] };
        let (place, room) = conn.room(memory_is_short, shared);
        self.place = place;
        room
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        let place = self.place;
        if let Some((conn, mut cx)) = self.context(now, id, out) {
            conn.received((place, n), shared, &mut cx);
        }
        self.carry_out_admin_orders(now);
        self.check_memory(now);
    }

    fn resume(&mut self, now: Now, id: Id, shared: &mut [u8], out: &mut Out) {
        if let Some((conn, mut cx)) = self.context(now, id, out) {
            conn.resume(shared, &mut cx);
        }
        self.carry_out_admin_orders(now);
        self.check_memory(now);
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out) {
        if let Some((conn, mut cx)) = self.context(now, id, out) {
            conn.ended(how, &mut cx);
        }
        self.poll_parts(now);
        self.check_memory(now);
    }

    fn held_outside(&mut self, now: Now, id: Id, bytes: usize) {
        if let Some((conn, mut cx)) = self.context_without_output(now, id) {
            conn.held_outside(bytes, &mut cx);
        }
        self.check_memory(now);
    }

    fn hung_up(&mut self, now: Now, id: Id, out: &mut Out) {
        if let Some((conn, mut cx)) = self.context(now, id, out) {
            conn.hung_up(&mut cx);
        }
        self.poll_parts(now);
        self.check_memory(now);
    }

    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        if let Some((conn, mut cx)) = self.context(now, id, out) {
            conn.keep_output(shared, taken, &mut cx);
        }
        self.poll_parts(now);
        self.check_memory(now);
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.conns.find(id).map_or(&[], Conn::unsent)
    }

    fn sent(&mut self, now: Now, id: Id, n: usize) {
        if let Some((conn, mut cx)) = self.context_without_output(now, id) {
            conn.sent(n, &mut cx);
        }
        self.poll_parts(now);
        self.check_memory(now);
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        let stopped = self.shared.drain.phase == Phase::Stopped;
        if let Some((conn, mut cx)) = self.context(now, id, out) {
            if stopped { conn.hard_stop(&mut cx) } else { conn.wake(&mut cx) }
        }
        self.poll_parts(now);
        self.check_memory(now);
    }

    fn closed(&mut self, now: Now, id: Id) {
        if let Some((conn, mut cx)) = self.context_without_output(now, id) {
            conn.closed(&mut cx);
        }
        let Some(conn) = self.conns.remove(id) else { return };
        self.shared.timers.cancel(id.key);
        *self.open_count(conn.quota) -= 1;
        self.shared.pending_answers.remove(&id);
        self.shared.take_pending(id);
        if let Some(part) = conn.part {
            self.shared.parts.call(part).closed(now, id);
        }
        self.poll_parts(now);
        self.check_memory(now);
        log::debug!(target: "accept", conn:% = id; "closed");
        self.exit_if_empty(now);
    }

    fn fire(&mut self, now: Now) {
        // A deadline of 0 means "at once" and cannot be late.
        if let Some(due_ns) = self.next_deadline().filter(|due_ns| *due_ns > 0) {
            self.shared.metrics.lag.observe_ns(now.mono_ns.saturating_sub(due_ns));
        }
        self.shared.blocks.fire(now.mono_ns);
        self.shared.parts.fire(now);
        self.poll_parts(now);
        self.check_memory(now);
        if let Some(fault) = self.shared.faults.fire(now) {
            self.shared.actions.push_back(fault);
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
            // A frozen server cannot drain before the supervisor kills it.
            Signal::Stop if self.shared.faults.is_frozen(now) => self.stop(now),
            Signal::Stop => match self.shared.drain.signal_effect(now) {
                SignalEffect::Begin => self.begin_drain(now),
                SignalEffect::Ignore => {}
                SignalEffect::Stop => self.stop(now),
            },
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let Shared { timers, drain, blocks, worker, faults, parts, pressure, .. } = &self.shared;
        // Each turn asks for it, so it is not worth a list.
        let own = earlier(timers.next_deadline(), drain.next_deadline());
        let own = earlier(own, earlier(blocks.next_deadline(), worker.next_deadline()));
        let own = earlier(own, earlier(faults.next_deadline(), pressure.next_deadline()));
        earlier(own, parts.next_deadline())
    }

    fn accepting_stopped(&mut self, now: Now) {
        self.shared.drain.accepting_stopped = true;
        self.exit_if_empty(now);
    }

    fn fetched(&mut self, now: Now, source: Source, files: Vec<File>) {
        match source {
            Source::Assets => {
                log::info!(target: "reload", files = files.len(); "assets reloaded");
                self.shared.assets = Assets::directory(files);
            }
            Source::Process => {
                self.shared.process.clear();
                self.shared.process.extend(files.into_iter().filter_map(|file| {
                    let text = String::from_utf8(file.bytes).ok()?;
                    Some((file.name, text.parse().ok()?))
                }));
            }
            Source::Files(paths) => {
                self.shared.tokens.fetched(now, &files);
                self.shared.parts.fetched(now, &paths, &files);
                self.poll_parts(now);
            }
        }
    }

    fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        self.shared.parts.resolved(now, host, found);
        self.poll_parts(now);
    }

    fn weighed(&mut self, now: Now, used: u64) {
        self.shared.pressure.set_reading(now, used);
        self.check_memory(now);
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

    /// An idle connection allocates nothing else.
    #[test]
    fn an_idle_connection_is_small() {
        assert!(size_of::<Conn>() <= 112, "{} bytes", size_of::<Conn>());
    }
}
