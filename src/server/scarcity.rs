//! Which connections are closed when memory or connections run short.

use std::collections::BinaryHeap;

use super::Server;
use crate::engine::{Action, Id, Now};
use crate::limits;
use crate::server::conn::{Conn, Quota, Stage};
use crate::server::ops::pressure::{self, Account, Accounted};
use crate::server::shared::Shared;
use crate::server::websocket::extras::Extras;
use crate::time::Moment;

/// Connections are closed only if together they own at least this fraction of the excess.
const RELIEF_PART: u64 = 4;

impl Server {
    /// Call after every change of the account. Closes connections while memory is short, and
    /// requests a new reading from the kernel when the last one is too old.
    #[inline]
    pub(super) fn check_memory(&mut self, now: Now) {
        if self.shared.pressure.limit().is_some() {
            self.guard_memory(now);
        }
    }

    #[inline(never)]
    fn guard_memory(&mut self, now: Now) {
        self.update_memory_stage();
        self.free_memory(now);
        if self.shared.pressure.wants_reading(now) {
            self.shared.actions.push_back(Action::Weigh);
        }
    }

    fn update_memory_stage(&mut self) {
        let before = self.shared.pressure.stage();
        let Shared { account, blocks, codec, .. } = &self.shared;
        let owned = account.memory + blocks.idle_bytes() + codec.cost();
        if !self.shared.pressure.update(Accounted { bytes: owned, connections: self.conns.len() }) {
            return;
        }
        let Shared { pressure, account, blocks, actions, .. } = &mut self.shared;
        let stage = pressure.stage();
        log::warn!(
            target: "memory", stage = stage as u8, accounted_bytes = account.memory,
            used_bytes = pressure.estimate(), connections = self.conns.len();
            "memory: {}", stage.name()
        );
        if stage > pressure::MemoryStage::Normal {
            blocks.forget_idle();
        }
        if before >= pressure::MemoryStage::Short && stage < pressure::MemoryStage::Short {
            // Reading had stopped for connections with unsent output.
            actions.extend(self.conns.iter().map(|(id, _)| Action::Resume(id)));
        }
        let is_short = stage >= pressure::MemoryStage::Short;
        if is_short != (before >= pressure::MemoryStage::Short) {
            self.shared.parts.memory_changed(is_short);
        }
    }

    /// Closes the connections that own most memory until they account for the excess. If all of
    /// them together own only a small part of it, closes none.
    fn free_memory(&mut self, now: Now) {
        let excess = self.shared.pressure.excess();
        if excess == 0 {
            return;
        }
        let each = self.shared.pressure.connection_bytes();
        let shared = &self.shared;
        let owners = self.conns.iter().filter(|(_, conn)| conn.frees_memory_if_closed());
        let weigh =
            |conn: &Conn, id| each + (conn.counted() + shared.cost_elsewhere(conn.part, id)) as u64;
        let mut owners: BinaryHeap<(u64, Id)> =
            owners.map(|(id, conn)| (weigh(conn, id), id)).collect();
        let owned: u64 = owners.iter().map(|(owned, _)| owned).sum();
        if owned < excess / RELIEF_PART {
            return;
        }
        let (mut freed, target) = (0, self.shared.pressure.estimate().saturating_sub(excess));
        // Closed connections stay in the table for a while: what they owned counts as freed.
        while freed < excess
            && self.shared.pressure.estimate() > target
            && let Some((owned, id)) = owners.pop()
        {
            if let Some((conn, mut cx)) = self.context_without_output(now, id) {
                conn.close_for_memory(&mut cx);
                freed += owned;
            }
            self.update_memory_stage();
        }
        if freed > 0 {
            self.shared.pressure.relieved(freed);
            self.poll_parts(now);
        }
    }

    /// While connections are scarce, clients that never request a WebSocket must not occupy all of
    /// them: evicts the oldest. Returns whether it evicted one.
    pub(super) fn evict_oldest(&mut self, now: Now) -> bool {
        let open = self.shared.open;
        let idle = open.main.saturating_sub(open.websockets);
        if !self.shared.is_crowded() || idle <= self.shared.config.limits.max_connections / 4 {
            self.arrivals.clear();
            return false;
        }
        if self.arrivals.is_empty() || self.arrivals.len() > 2 * open.main {
            let waiting = self
                .conns
                .iter()
                .filter_map(|(id, conn)| Some((conn.not_upgraded_since()?.ms_ago(now), id)));
            let mut waiting: Vec<(u64, Id)> = waiting.collect();
            waiting.sort_unstable_by_key(|(age_ms, _)| std::cmp::Reverse(*age_ms));
            self.arrivals = waiting.into_iter().map(|(_, id)| id).collect();
        }
        while let Some(&oldest) = self.arrivals.front() {
            let since = self.conns.find(oldest).and_then(Conn::not_upgraded_since);
            if since.is_some_and(|since| since.ms_ago(now) < limits::EVICTION_AGE_MS) {
                return false;
            }
            self.arrivals.pop_front();
            if since.is_some() {
                if let Some((conn, mut cx)) = self.context_without_output(now, oldest) {
                    conn.evict(&mut cx);
                }
                return true;
            }
        }
        false
    }

    /// Makes room on the admin listener, so that probes are answered even at its limit: closes the
    /// oldest connection without a pending response, else the newest of the others. Returns whether
    /// it closed one.
    pub(super) fn evict_admin(&mut self, now: Now) -> bool {
        let admin = self.conns.iter().filter(|(_, conn)| conn.quota == Quota::Admin);
        let rank = admin.filter_map(|(id, conn)| Some((conn.admin_rank(now)?, id)));
        let Some((_, id)) = rank.max_by_key(|(rank, _)| *rank) else { return false };
        if let Some((conn, mut cx)) = self.context_without_output(now, id) {
            conn.evict(&mut cx);
        }
        true
    }

    /// While there is a queue of candidates, a new connection is its last.
    pub(super) fn record_arrival(&mut self, newest: Id) {
        if !self.arrivals.is_empty() {
            self.arrivals.push_back(newest);
        }
    }
}

impl Conn {
    /// What this connection owns beyond its slot in the table, recounted.
    pub(super) fn cost(&self, pinned: usize) -> Account {
        let unfinished =
            self.unfinished.as_ref().map(|unfinished| unfinished.cost(pinned)).unwrap_or_default();
        let extras = self.extras().map_or(0, |extras| extras.cost(pinned));
        Account { memory: unfinished.memory + extras, queued: unfinished.queued }
    }

    fn extras(&self) -> Option<&Extras> {
        self.websocket()?.extras.as_deref()
    }

    /// The same, as last accounted.
    pub(super) fn counted(&self) -> usize {
        let unfinished = self.unfinished.as_ref().map_or(0, |unfinished| unfinished.counted.memory);
        unfinished + self.extras().map_or(0, |extras| extras.counted.memory)
    }

    /// Whether closing it frees memory. Admin connections must survive a shortage; memory of
    /// outgoing connections belongs to the clients that they serve; a connection that is closing
    /// already frees it anyway.
    fn frees_memory_if_closed(&self) -> bool {
        if matches!(self.quota, Quota::Admin | Quota::Upstream) {
            return false;
        }
        match &self.stage {
            Stage::Http(_) => true,
            Stage::WebSocket(socket) => !socket.is_closing_for_memory(),
            Stage::Lingering { .. } => !self.unsent().is_empty(),
            Stage::Upstream | Stage::Leaving => false,
        }
    }

    /// Order of eviction on the admin listener, highest first: see [`Server::evict_admin`].
    fn admin_rank(&self, now: Now) -> Option<(bool, i64)> {
        let Stage::Http(http) = &self.stage else { return None };
        let age_ms = i64::try_from(self.since.ms_ago(now)).unwrap_or(i64::MAX);
        let owes = http.owes_response();
        Some((!owes, if owes { -age_ms } else { age_ms }))
    }

    /// Since when it has been connected without requesting an upgrade. One whose upgrade a part has
    /// not decided on does not count: that may take long, and not for its fault.
    pub(super) fn not_upgraded_since(&self) -> Option<Moment> {
        let Stage::Http(http) = &self.stage else { return None };
        (self.quota == Quota::Main && !http.awaits_verdict()).then_some(self.since)
    }
}
