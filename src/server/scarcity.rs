//! What the server does when memory or places run short: who is asked to go, and who goes first.

use std::collections::BinaryHeap;

use super::Server;
use crate::engine::{Action, Id, Now};
use crate::limits;
use crate::server::conn::{Conn, Quota, Stage};
use crate::server::ops::pressure::{self, Account, Demand};
use crate::server::shared::Shared;
use crate::server::websocket::extras::Extras;
use crate::time::Moment;

/// Connections are closed if they own at least this part of what is missing.
const RELIEF_PART: u64 = 4;

impl Server {
    /// Looks at the account, now that it may have changed. Closes connections while memory is
    /// short, and asks the kernel how much is used when its last figure is too old.
    pub(super) fn weigh(&mut self, now: Now) {
        if self.shared.pressure.limit().is_none() {
            return;
        }
        self.follow_pressure();
        self.relieve(now);
        if self.shared.pressure.asks_kernel(now) {
            self.shared.actions.push_back(Action::Weigh);
        }
    }

    fn follow_pressure(&mut self) {
        let before = self.shared.pressure.stage();
        let Shared { account, blocks, codec, .. } = &self.shared;
        let owned = account.memory + blocks.idle_bytes() + codec.cost();
        if !self.shared.pressure.weigh(Demand { owned, connections: self.conns.len() }) {
            return;
        }
        let Shared { pressure, account, blocks, actions, .. } = &mut self.shared;
        let stage = pressure.stage();
        log::warn!(
            target: "memory", stage = stage as u8, accounted_bytes = account.memory,
            used_bytes = pressure.estimate(), connections = self.conns.len();
            "memory: {}", stage.name()
        );
        if stage > pressure::MemoryStage::Ease {
            blocks.forget_idle();
        }
        if before >= pressure::MemoryStage::Short && stage < pressure::MemoryStage::Short {
            // Those that were not read for it.
            actions.extend(self.conns.iter().map(|(id, _)| Action::Resume(id)));
        }
    }

    /// Closes the connections that own most, until what they owned makes up for what is missing.
    /// Where all of them together own next to nothing of that, none is closed.
    fn relieve(&mut self, now: Now) {
        let excess = self.shared.pressure.excess();
        if excess == 0 {
            return;
        }
        let each = self.shared.pressure.connection_bytes();
        let shared = &self.shared;
        let owners = self.conns.iter().filter(|(_, conn)| conn.can_make_room());
        let weigh =
            |conn: &Conn, id| each + (conn.counted() + shared.cost_elsewhere(conn.part, id)) as u64;
        let mut owners: BinaryHeap<(u64, Id)> =
            owners.map(|(id, conn)| (weigh(conn, id), id)).collect();
        let owned: u64 = owners.iter().map(|(owned, _)| owned).sum();
        if owned < excess / RELIEF_PART {
            return;
        }
        let (mut freed, target) = (0, self.shared.pressure.estimate().saturating_sub(excess));
        // Those that are closed keep their places for a while: what they owned counts as freed.
        while freed < excess
            && self.shared.pressure.estimate() > target
            && let Some((owned, id)) = owners.pop()
        {
            if let Some((conn, mut cx)) = self.with_no_output(now, id) {
                conn.make_room(&mut cx);
                freed += owned;
            }
            self.follow_pressure();
        }
        if freed > 0 {
            self.shared.pressure.relieved(freed);
            self.tend(now);
        }
    }

    /// While places are scarce, those who never ask for a WebSocket must not have them all: the
    /// one who has waited longest goes. Says whether one did.
    pub(super) fn make_place(&mut self, now: Now) -> bool {
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
                if let Some((conn, mut cx)) = self.with_no_output(now, oldest) {
                    conn.evict(&mut cx);
                }
                return true;
            }
        }
        false
    }

    /// Makes a place on the admin listener, so that probes are answered although all places are
    /// taken: closes the oldest connection that is not owed an answer, else the newest of those
    /// that are. Returns whether there was one.
    pub(super) fn make_admin_place(&mut self, now: Now) -> bool {
        let admin = self.conns.iter().filter(|(_, conn)| conn.quota == Quota::Admin);
        let rank = admin.filter_map(|(id, conn)| Some((conn.admin_rank(now)?, id)));
        let Some((_, id)) = rank.max_by_key(|(rank, _)| *rank) else { return false };
        if let Some((conn, mut cx)) = self.with_no_output(now, id) {
            conn.evict(&mut cx);
        }
        true
    }

    /// Whoever comes while others are asked to go stands last in their row.
    pub(super) fn note_arrival(&mut self, newest: Id) {
        if !self.arrivals.is_empty() {
            self.arrivals.push_back(newest);
        }
    }
}

impl Conn {
    /// What this connection owns beyond its place in the table, counted anew.
    pub(super) fn cost(&self, pinned: usize) -> Account {
        let slow = self.slow.as_ref().map(|slow| slow.cost(pinned)).unwrap_or_default();
        let extras = self.extras().map_or(0, |extras| extras.cost(pinned));
        Account { memory: slow.memory + extras, queued: slow.queued }
    }

    fn extras(&self) -> Option<&Extras> {
        self.websocket()?.extras.as_deref()
    }

    /// The same as it was counted the last time.
    pub(super) fn counted(&self) -> usize {
        let slow = self.slow.as_ref().map_or(0, |slow| slow.counted.memory);
        slow + self.extras().map_or(0, |extras| extras.counted.memory)
    }

    /// Whether closing it would free something: it is a client's, since the admin side has to be
    /// there when memory is short, and a connection of our own owns what the clients do that it
    /// works for; and it is not leaving already.
    fn can_make_room(&self) -> bool {
        if matches!(self.quota, Quota::Admin | Quota::Upstream) {
            return false;
        }
        match &self.stage {
            Stage::Http(_) => true,
            Stage::WebSocket(socket) => !socket.makes_room(),
            Stage::Lingering { .. } => !self.unsent().is_empty(),
            Stage::Upstream | Stage::Leaving => false,
        }
    }

    /// Who goes first when the admin listener is full: see [`Server::make_admin_place`].
    fn admin_rank(&self, now: Now) -> Option<(bool, i64)> {
        let Stage::Http(http) = &self.stage else { return None };
        let age_ms = i64::try_from(self.since.ms_ago(now)).unwrap_or(i64::MAX);
        let owes = http.owes_an_answer();
        Some((!owes, if owes { -age_ms } else { age_ms }))
    }

    /// Whether it waits to become a WebSocket, and since when.
    pub(super) fn not_upgraded_since(&self) -> Option<Moment> {
        (matches!(self.stage, Stage::Http(_)) && self.quota == Quota::Main).then_some(self.since)
    }
}
