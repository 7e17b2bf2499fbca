//! One driver for several client engines: each instance of the generic driver is 13 KB of code.
//! Only the server and `load` need one of their own, for speed.

use core::net::IpAddr;

use crate::engine::{
    Action, Engine, File, HangUp, Id, NameFault, Now, Out, Peer, Screen, Shortage, Side, Signal,
    Source, Status, TlsFacts,
};

/// Forwards every call.
impl Engine for &mut dyn Engine {
    fn measures(&self) -> bool {
        (**self).measures()
    }

    fn probes_peers(&self) -> bool {
        (**self).probes_peers()
    }

    fn accepted(&mut self, now: Now, side: Side, peer: Peer) -> Option<Id> {
        (**self).accepted(now, side, peer)
    }

    fn introduced(&mut self, now: Now, id: Id, client: Peer) {
        (**self).introduced(now, id, client);
    }

    fn ready(&mut self, now: Now, id: Id) {
        (**self).ready(now, id);
    }

    fn held_outside(&mut self, now: Now, id: Id, bytes: usize) {
        (**self).held_outside(now, id, bytes);
    }

    fn secured(&mut self, now: Now, id: Id, facts: &TlsFacts) {
        (**self).secured(now, id, facts);
    }

    fn sized(&mut self, id: Id, size: Screen) {
        (**self).sized(id, size);
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Out) {
        (**self).connected(now, id, how, out);
    }

    fn refused_at_accept(&mut self, now: Now, why: Shortage) -> &[u8] {
        (**self).refused_at_accept(now, why)
    }

    fn room<'a>(&'a mut self, id: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        (**self).room(id, shared)
    }

    fn received(&mut self, now: Now, id: Id, n: usize, shared: &mut [u8], out: &mut Out) {
        (**self).received(now, id, n, shared, out);
    }

    fn resume(&mut self, now: Now, id: Id, shared: &mut [u8], out: &mut Out) {
        (**self).resume(now, id, shared, out);
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp, out: &mut Out) {
        (**self).ended(now, id, how, out);
    }

    fn keep(&mut self, now: Now, id: Id, shared: &[u8], out: &mut Out, taken: usize) {
        (**self).keep(now, id, shared, out, taken);
    }

    fn hung_up(&mut self, now: Now, id: Id, out: &mut Out) {
        (**self).hung_up(now, id, out);
    }

    fn unsent(&self, id: Id) -> &[u8] {
        (**self).unsent(id)
    }

    fn sent(&mut self, now: Now, id: Id, n: usize) {
        (**self).sent(now, id, n);
    }

    fn render(&mut self, now: Now, id: Id, out: &mut Out) {
        (**self).render(now, id, out);
    }

    fn closed(&mut self, now: Now, id: Id) {
        (**self).closed(now, id);
    }

    fn fire(&mut self, now: Now) {
        (**self).fire(now);
    }

    fn signal(&mut self, now: Now, signal: Signal) {
        (**self).signal(now, signal);
    }

    fn next_deadline(&self) -> Option<u64> {
        (**self).next_deadline()
    }

    fn accepting_stopped(&mut self, now: Now) {
        (**self).accepting_stopped(now);
    }

    fn fetched(&mut self, now: Now, source: Source, files: Vec<File>) {
        (**self).fetched(now, source, files);
    }

    fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        (**self).resolved(now, host, found);
    }

    fn weighed(&mut self, now: Now, used: u64) {
        (**self).weighed(now, used);
    }

    fn work(&self) -> u64 {
        (**self).work()
    }

    fn status(&self) -> Status {
        (**self).status()
    }

    fn poll(&mut self) -> Option<Action> {
        (**self).poll()
    }
}
