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
pub(crate) struct SocketCx<'a> {
    pub(crate) now: Now,
    pub(crate) id: Id,
    pub(crate) config: &'a Config,
    pub(crate) pressure: &'a Pressure,
    pub(crate) metrics: &'a mut Metrics,
    pub(crate) rng: &'a mut Rng,
    pub(crate) codec: &'a mut Codec,
    pub(crate) blocks: &'a mut Blocks,
    pub(crate) worker: &'a mut Worker,
    pub(crate) faults: &'a mut Faults,
    /// Bytes inflated, produced and copied so far.
    pub(crate) work: &'a mut u64,
    pub(crate) parts: &'a mut Parts,
    /// The part that handles this WebSocket.
    pub(crate) part: Option<PartId>,
    pub(crate) actions: &'a mut VecDeque<Action>,
    pub(crate) out: &'a mut Out,
}

impl SocketCx<'_> {
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    /// Size limits for an answer.
    pub(crate) fn room(&self) -> Room {
        let cap = limits::output_cap(self.config.limits.max_message);
        Room { answer: cap - limits::HIGH_WATER_BYTES, memory: self.pressure.available() }
    }

    pub(crate) fn intercept_cx(&mut self) -> InterceptCx<'_> {
        let Self { worker, faults, blocks, actions, .. } = self;
        InterceptCx { worker, faults, blocks, actions }
    }

    /// The context of its behaviour.
    pub(crate) fn for_behaviour<'b>(
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
