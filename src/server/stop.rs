//! The steps of a drain: announce, close one by one, hard stop. `drain` knows when each begins.

use super::Server;
use crate::engine::{Action, Id, Now};
use crate::server::conn::Conn;
use crate::server::end::CloseReason;
use crate::server::ops::drain::{self, Phase};
use crate::server::shared::Shared;
use crate::time::Moment;

impl Server {
    /// SIGTERM: readiness fails and everything is still served for the delay, unless a hook
    /// announced the drain before.
    pub(super) fn begin_drain(&mut self, now: Now) {
        let Shared { drain, config, open, .. } = &mut self.shared;
        drain.signalled(now, &config.drain);
        log::info!(
            target: "drain", connections = open.main, websockets = open.websockets,
            announced_ms = drain.elapsed_ms(now), delay_ms = config.drain.delay_ms,
            window_ms = config.drain.window_ms;
            "draining"
        );
        if drain.phase_is_over(now) || (config.drain.leaves_early && open.main == 0) {
            self.begin_closing(now);
        }
    }

    /// Stops accepting and schedules the close of every connection, in random order, evenly spread.
    pub(super) fn begin_closing(&mut self, now: Now) {
        let mut turns: Vec<Id> = self.conns.iter().map(|(id, _)| id).collect();
        self.shared.rng.shuffle(&mut turns);
        let Shared { drain, config, .. } = &mut self.shared;
        let spread_ns = drain.close(now, &config.drain, turns.len());
        self.shared.actions.push_back(Action::StopAccepting);
        self.close_staggered(now, &turns, spread_ns, CloseReason::Drain);
        self.shared.parts.draining(now);
        self.poll_parts(now);
    }

    pub(super) fn close_staggered(
        &mut self,
        now: Now,
        turns: &[Id],
        spread_ns: u64,
        why: CloseReason,
    ) {
        let slot_ns = spread_ns / turns.len().max(1) as u64;
        for (i, id) in (0..).zip(turns) {
            let offset_ns = slot_ns * i + self.shared.rng.below(slot_ns);
            if let Some((conn, mut cx)) = self.context_without_output(now, *id) {
                conn.end_at(Moment::at(now.mono_ns + offset_ns), why, &mut cx);
            }
        }
    }

    /// Closes this many `WebSockets`, in addition to those that are closing already.
    pub(super) fn shed(&mut self, now: Now, count: usize) {
        let stays = |conn: &Conn| conn.websocket().is_some_and(|socket| !socket.is_closing());
        let sockets = self.conns.iter().filter(|(_, conn)| stays(conn));
        let mut turns: Vec<Id> = sockets.map(|(id, _)| id).collect();
        self.shared.rng.shuffle(&mut turns);
        turns.truncate(count);
        let spread_ns = drain::spread_ns(self.shared.config.drain.window_ms, turns.len());
        self.close_staggered(now, &turns, spread_ns, CloseReason::Shed);
    }

    /// Hard stop: resets every connection, after a Close frame if it fits into the send
    /// buffer.
    pub(super) fn stop(&mut self, now: Now) {
        self.shared.drain.stop();
        for (id, _) in self.conns.iter() {
            self.shared.actions.extend([Action::Write(id), Action::Reset(id)]);
        }
        self.exit(now);
    }

    pub(super) fn exit_if_empty(&mut self, now: Now) {
        let open = self.shared.open;
        if self.shared.drain.phase == Phase::Closing
            && self.shared.drain.accepting_stopped
            && open.main + open.refused == 0
            && !self.shared.parts.is_busy()
        {
            self.shared.drain.stop();
            self.exit(now);
        }
    }

    fn exit(&mut self, now: Now) {
        let drain = &self.shared.drain;
        // The connections that are reset now are not counted yet.
        let forced = drain.forced + self.shared.open.websockets as u64;
        log::info!(
            target: "drain", clean = drain.clean, forced, elapsed_ms = drain.elapsed_ms(now);
            "drained"
        );
        self.shared.actions.push_back(Action::Exit(0));
    }
}
