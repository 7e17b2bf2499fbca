//! Carries out the orders of parts.

use super::Server;
use crate::engine::{Action, Id, Now, Peer, Source};
use crate::limits;
use crate::server::conn::Conn;
use crate::server::ops::drain::Phase;
use crate::server::part::{Order, Part, PartId};
use crate::server::shared::Shared;
use crate::time::Moment;

impl Server {
    /// Polls the parts and carries out their orders. Call it after every event that may concern a
    /// part.
    #[inline]
    pub(super) fn poll_parts(&mut self, now: Now) {
        if self.shared.parts.take_dirty() {
            self.poll_dirty_parts(now);
        }
    }

    #[inline(never)]
    fn poll_dirty_parts(&mut self, now: Now) {
        for part in self.shared.parts.ids() {
            while let Some(order) = self.shared.parts.poll(now, part) {
                self.carry_out(now, part, order);
            }
            let Shared { parts, account, .. } = &mut self.shared;
            parts.update_account(part, account);
        }
        if self.shared.drain.phase == Phase::Closing {
            self.exit_if_empty(now);
        }
    }

    fn carry_out(&mut self, now: Now, part: PartId, order: Order) {
        let action = match order {
            Order::Connect(target) => {
                let id = self.conns.insert(Conn::upstream(part, Moment::at(now.mono_ns)));
                if let Some(connections) = self.shared.parts.connections(Some(part)) {
                    connections.opened(now, id);
                }
                let Some(id) = id else { return };
                self.shared.open.upstream += 1;
                Action::Connect(id, target)
            }
            Order::Resolve(host) => Action::Resolve(host),
            Order::Write(id) => Action::Write(id),
            Order::Request(id) => Action::Request(id),
            Order::Close(id) => {
                let waits = self.conns.find(id).is_some_and(|conn| !conn.unsent().is_empty());
                // Do not wait until unwanted output is sent.
                if waits { Action::Reset(id) } else { Action::Close(id) }
            }
            Order::Reset(id) => Action::Reset(id),
            Order::Read(paths) => Action::Fetch(Source::Files(paths)),
            Order::Answer(id, response) => return self.shared.answer(id, response),
            Order::Exit(status) => Action::Exit(status),
        };
        self.shared.actions.push_back(action);
    }

    /// Accepts a connection at the listener of a part. At the limit, the part gives up another one,
    /// so that idle strangers cannot lock out its peers. As on the admin side, there is no check of
    /// memory: the part answers that it is overloaded.
    pub(super) fn accept_for_part(&mut self, now: Now, part: PartId, peer: Peer) -> Option<Id> {
        if self.shared.open.of_parts >= limits::PART_CONNECTIONS {
            let evicted = self.shared.parts.connections(Some(part))?.evict()?;
            self.shared.actions.push_back(Action::Reset(evicted));
        }
        let id = self.conns.insert(Conn::of_part(part, peer, Moment::at(now.mono_ns)))?;
        self.shared.open.of_parts += 1;
        let connections = self.shared.parts.connections(Some(part));
        if !connections.is_some_and(|connections| connections.accepted(now, id, peer)) {
            self.shared.actions.push_back(Action::Reset(id));
        }
        self.poll_parts(now);
        self.check_memory(now);
        Some(id)
    }

    /// Cached objects of a part, for tests.
    #[must_use]
    pub fn contents(&self, part: &str) -> Vec<(String, String, String)> {
        let part = self.shared.parts.find(part).map(|id| self.shared.parts.get(id));
        part.map_or_else(Vec::new, Part::contents)
    }
}
