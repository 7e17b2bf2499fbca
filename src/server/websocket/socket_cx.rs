//! The context of a WebSocket: shared state, but not other connections, routes or the drain.

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
use crate::server::websocket::extras::InterceptCx;
use crate::server::websocket::faults::Faults;
use crate::server::websocket::worker::Worker;

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
    /// The part that handles this WebSocket.
    pub(in crate::server) part: Option<PartId>,
    pub(in crate::server) actions: &'a mut VecDeque<Action>,
    pub(in crate::server) out: &'a mut Out,
}

impl SocketCx<'_> {
    pub(in crate::server) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Size limits for an answer.
    pub(in crate::server) fn room(&self) -> Room {
        let cap = limits::output_cap(self.config.limits.max_message);
        Room { answer: cap - limits::HIGH_WATER_BYTES, memory: self.pressure.available() }
    }

    pub(in crate::server) fn intercept_cx(&mut self) -> InterceptCx<'_> {
        let Self { worker, faults, blocks, actions, .. } = self;
        InterceptCx { worker, faults, blocks, actions }
    }

    /// The context of its behaviour.
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
