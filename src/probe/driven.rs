//! [`Probe`] as an [`Engine`]: finds the experiment that a connection belongs to.

use core::net::IpAddr;

use super::wire::{Event, Failure};
use super::{BEAT_MS, Probe};
use crate::engine::{Action, Engine, HangUp, Id, NameFault, Now, Out, Signal, TlsFacts};
use crate::outbox::Blocks;
use crate::time;

impl Probe {
    /// Called before anything is measured: bytes that arrived while this process could not run are
    /// read late.
    fn note_lag(&mut self, now: Now) {
        let Some(lag_ns) = now.mono_ns.checked_sub(self.beat_ns) else { return };
        self.beat_ns = now.mono_ns + time::ms(BEAT_MS);
        for slot in self.slots.iter_mut().filter(|slot| slot.is_running()) {
            slot.lag_ns = slot.lag_ns.max(lag_ns);
        }
    }
}

impl Engine for Probe {
    /// Round trips are among the figures.
    fn measures(&self) -> bool {
        true
    }

    fn secured(&mut self, _: Now, id: Id, facts: &TlsFacts) {
        self.shared.facts.tls.get_or_insert_with(|| facts.clone());
        if let Some(wire) = self.shared.wires.find_mut(id) {
            wire.alpn.clone_from(&facts.alpn);
        }
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        self.note_lag(now);
        let rng = &mut self.shared.rng;
        let nonce = u128::from(rng.below(u64::MAX)) << 64 | u128::from(rng.below(u64::MAX));
        let Some(wire) = self.shared.wires.find_mut(id) else { return };
        let event = wire.connected(how, (now.mono_ns, nonce));
        wire.render(out);
        let owner = wire.owner;
        if matches!(event, Event::Failed(..)) {
            self.shared.actions.push_back(Action::Close(id));
        }
        self.deliver(now, id, owner, vec![event]);
    }

    fn room<'a>(&'a mut self, _: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        shared
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        self.note_lag(now);
        let Some(wire) = self.shared.wires.find_mut(id) else { return };
        let mut events = Vec::new();
        wire.received(&shared[..n], &mut events);
        wire.render(out);
        let owner = wire.owner;
        // The response is complete, and nothing else is asked on this connection.
        if events.iter().any(|event| matches!(event, Event::Answered(_) | Event::Failed(..))) {
            self.shared.actions.push_back(Action::Close(id));
        }
        self.deliver(now, id, owner, events);
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out) {
        self.note_lag(now);
        let Some(wire) = self.shared.wires.find_mut(id) else { return };
        let mut events = Vec::new();
        wire.ended(how, &mut events);
        wire.render(out);
        let owner = wire.owner;
        self.shared.actions.push_back(Action::Close(id));
        self.deliver(now, id, owner, events);
    }

    fn keep(&mut self, _: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        if let Some(wire) = self.shared.wires.find_mut(id) {
            wire.keep(shared, out, taken);
        }
    }

    fn unsent(&self, id: Id) -> &[u8] {
        self.shared.wires.find(id).map_or(&[], |wire| wire.outbox.unsent())
    }

    fn sent(&mut self, _: Now, id: Id, n: usize) {
        if let Some(wire) = self.shared.wires.find_mut(id) {
            wire.outbox.sent(n, &mut Blocks::default(), 0);
        }
    }

    fn render(&mut self, _: Now, id: Id, out: &mut Out) {
        if let Some(wire) = self.shared.wires.find_mut(id) {
            wire.render(out);
        }
    }

    fn closed(&mut self, now: Now, id: Id) {
        let Some(mut wire) = self.shared.wires.remove(id) else { return };
        // Our own end is no evidence, unless a step was cut short.
        let mut events = Vec::new();
        wire.ended(HangUp::Reset, &mut events);
        events.retain(|event| matches!(event, Event::Failed(Failure::CutOff, _)));
        self.deliver(now, id, wire.owner, events);
    }

    fn resolved(&mut self, now: Now, _: &str, found: Result<&[IpAddr], NameFault>) {
        self.shared.facts.addresses = Some(found.map(<[IpAddr]>::to_vec));
        for at in 0..self.slots.len() {
            self.with(now, at, |experiment, cx| experiment.resolved(cx));
        }
    }

    fn fire(&mut self, now: Now) {
        self.note_lag(now);
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now.mono_ns);
        let late = self.shared.wires.iter().filter(|(_, wire)| due(wire.deadline_ns()));
        let late: Vec<Id> = late.map(|(id, _)| id).collect();
        for id in late {
            let Some(wire) = self.shared.wires.find_mut(id) else { continue };
            let (event, owner) = (wire.time_out(), wire.owner);
            self.shared.actions.push_back(Action::Reset(id));
            self.deliver(now, id, owner, vec![event]);
        }
        for at in 0..self.slots.len() {
            if due(self.slots[at].wake_ns) {
                self.slots[at].wake_ns = None;
                self.with(now, at, |experiment, cx| experiment.fire(cx));
            }
        }
    }

    fn signal(&mut self, _: Now, signal: Signal) {
        match signal {
            Signal::Stop => {
                self.interrupted = true;
                self.exit();
            }
            Signal::Report | Signal::Reload => {}
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        if self.ended {
            return None;
        }
        let wakes = self.slots.iter().filter(|slot| slot.is_running());
        let wakes = wakes.filter_map(|slot| slot.wake_ns).chain([self.beat_ns]);
        self.shared.wires.iter().filter_map(|(_, wire)| wire.deadline_ns()).chain(wakes).min()
    }

    fn poll(&mut self) -> Option<Action> {
        self.shared.actions.pop_front()
    }
}
