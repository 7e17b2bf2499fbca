//! What the server does when memory or places run short: who is asked to go, and who goes first.

use super::Server;
use super::conn::{Conn, Place, Stage};
use super::end::{End, Initiator};
use super::extras::Extras;
use super::pressure::{self, Account};
use super::shared::{Cx, Shared};
use crate::engine::{Action, Id, Now};
use crate::limits;
use crate::proto::frame;
use crate::time::Moment;

impl Server {
    /// Looks at the account, now that it may have changed.
    pub(super) fn weigh(&mut self) {
        let Shared { pressure, account, blocks, actions, .. } = &mut self.shared;
        let before = pressure.stage();
        if pressure.weigh(account.memory + blocks.idle_bytes(), self.conns.len()) {
            let stage = pressure.stage();
            log::warn!(
                target: "memory", stage = stage as u8, accounted_bytes = account.memory,
                connections = self.conns.len();
                "memory: {}", stage.name()
            );
            if before >= pressure::Stage::Short && stage < pressure::Stage::Short {
                // Those that were not read for it.
                actions.extend(self.conns.iter().map(|(id, _)| Action::Resume(id)));
            }
        }
        if pressure.stage() >= pressure::Stage::Short && pressure.victim.is_none() {
            let largest = self.conns.iter().max_by_key(|(_, conn)| conn.counted());
            if let Some((id, _)) = largest.filter(|(_, conn)| conn.counted() > 0) {
                pressure.victim = Some(id);
                actions.push_back(Action::Write(id));
            }
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
                if let Some((conn, mut cx)) = self.with_silence(now, oldest) {
                    conn.evict(&mut cx);
                }
                return true;
            }
        }
        false
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
        let extras = self.extras().map_or(0, Extras::cost);
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

    /// Gives back what it owns, as the one that owns most while memory is short.
    pub(super) fn make_room(&mut self, cx: &mut Cx<'_>) {
        cx.shared.pressure.victim = None;
        let end = End { code: 1013, initiator: Initiator::Server };
        match &self.stage {
            Stage::WebSocket(_) if self.unsent().is_empty() => {
                frame::write_close(&mut cx.out.bytes, end.code, "memory is short");
                self.close_websocket(end, cx);
            }
            Stage::WebSocket(_) => {
                // A last word would stand behind what the peer does not take.
                self.log_end(end, cx);
                self.reset(cx);
            }
            Stage::Http(_) | Stage::Upstream | Stage::Lingering { .. } | Stage::Leaving => {
                self.reset(cx);
            }
        }
        self.settle(cx);
    }

    /// Makes its place free for others: it has not become a WebSocket for too long.
    pub(super) fn evict(&mut self, cx: &mut Cx<'_>) {
        cx.shared.metrics.evicted += 1;
        self.leave(cx);
        self.settle(cx);
    }

    /// Whether it waits to become a WebSocket, and since when.
    pub(super) fn not_upgraded_since(&self) -> Option<Moment> {
        (matches!(self.stage, Stage::Http(_)) && self.place == Place::Main).then_some(self.since)
    }
}
