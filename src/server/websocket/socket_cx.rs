//! What a WebSocket can reach while it is served: what all of them share, and nothing of another
//! connection, of paths or of the drain.

use std::collections::VecDeque;

use crate::behaviours::{Ctx, Room, Sockets, Tally};
use crate::engine::{Action, Id, Now, Out};
use crate::limits;
use crate::outbox::Blocks;
use crate::proto::deflate::{Agreed, Codec};
use crate::rng::Rng;
use crate::server::config::Config;
use crate::server::ops::metrics::Metrics;
use crate::server::ops::pressure::Pressure;
use crate::server::part::PartId;
use crate::server::parts::Parts;
use crate::server::websocket::extras::Means;
use crate::server::websocket::faults::Faults;
use crate::server::websocket::worker::Worker;

/// What a WebSocket can reach while it is served.
#[derive(Debug)]
pub(in crate::server) struct SocketCx<'a> {
    pub(in crate::server) now: Now,
    pub(in crate::server) id: Id,
    pub(in crate::server) config: &'a Config,
    pub(in crate::server) pressure: &'a Pressure,
    pub(in crate::server) metrics: &'a mut Metrics,
    pub(in crate::server) rng: &'a mut Rng,
    pub(in crate::server) codec: &'a mut Codec,
    pub(in crate::server) blocks: &'a mut Blocks,
    pub(in crate::server) worker: &'a mut Worker,
    pub(in crate::server) faults: &'a mut Faults,
    /// Bytes inflated, produced and copied so far.
    pub(in crate::server) work: &'a mut u64,
    pub(in crate::server) parts: &'a mut Parts,
    /// The part that speaks on this WebSocket.
    pub(in crate::server) part: Option<PartId>,
    pub(in crate::server) actions: &'a mut VecDeque<Action>,
    pub(in crate::server) out: &'a mut Out,
}

impl SocketCx<'_> {
    pub(in crate::server) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// How many bytes an answer to one message may have.
    pub(in crate::server) fn room(&self) -> Room {
        let cap = limits::output_cap(self.config.limits.max_message);
        Room { answer: cap - limits::HIGH_WATER_BYTES, memory: self.pressure.room() }
    }

    /// What a message that waits may need.
    pub(in crate::server) fn means(&mut self) -> Means<'_> {
        let Self { worker, faults, blocks, actions, .. } = self;
        Means { worker, faults, blocks, actions }
    }

    /// What its behaviour can reach.
    pub(in crate::server) fn for_behaviour<'b>(
        &'b mut self,
        tally: &'b mut Tally,
        deflate: Option<Agreed>,
    ) -> Ctx<'b> {
        Ctx {
            room: self.room(),
            now: self.now,
            id: self.id,
            rng: self.rng,
            tally,
            traffic: &mut self.metrics.traffic,
            deflate,
            codec: self.codec,
            out: self.out,
            waiting: 0,
            work: self.work,
            part: self.part.map(|part| self.parts.call(part) as &mut dyn Sockets),
        }
    }
}
