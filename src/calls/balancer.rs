//! Distributes requests over the addresses of a target: the one with the least requests in flight
//! is chosen, ties in turn. Each address has its own circuit. It decides when the name is resolved
//! again, and remembers which address failed. Without I/O: answers of the resolver and `now` in,
//! decisions out. It does not know what a request is.

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;

use super::call::{Class, Lane};
use super::circuit::Circuit;
use crate::engine::{HangUp, NameFault, Now, Secured, Target};
use crate::{heap, time};

/// Most addresses of a target.
const ADDRESSES_MAX: usize = 64;
/// While requests are sent, the name is resolved again after this.
const REFRESH_MS: u64 = 5_000;
/// The same while no address can be reached, and after a failed attempt to connect.
const URGENT_MS: u64 = 1_000;
/// An older answer is not used before there is a new one.
const STALE_MS: u64 = 30_000;
/// While the resolver fails, its last answer is used for this long.
const UNANSWERED_MS: u64 = 300_000;

/// Connections being opened to one address, by class. A server's kernel queues what it has not yet
/// accepted, 50 connections with Java and 128 with many languages; beyond that it drops SYNs, which
/// are sent again after 1 s. Both classes together stay below that.
pub(super) const ATTEMPTS_MAX: usize = 32;

/// Identifies an address of a target, as long as the target has it or connections to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressId(u32);

/// Where to send a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Over this idle connection, which is taken.
    Idle(Lane),
    /// Over a new connection; whether it is the trial of a circuit.
    Connect(AddressId, bool),
    /// As many requests as allowed are in flight to each address, or connections being opened.
    Full,
    /// The name is being resolved.
    Unresolved,
    /// No address can be reached, see [`Balancer::outage`].
    Down,
}

/// Why no address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outage {
    /// The circuits of all addresses are open, or a trial is in progress.
    Circuit,
    /// The name has no address.
    NoAddress,
    /// Each address was tried for this request.
    Tried,
}

#[derive(Debug)]
struct Address {
    id: AddressId,
    /// `None`: the target itself, which is not a name.
    ip: Option<IpAddr>,
    circuit: Circuit,
    /// Requests in flight or connecting, by class.
    in_flight: [usize; Class::COUNT],
    /// Connections being opened, by class.
    attempts: [usize; Class::COUNT],
    idle: VecDeque<Lane>,
    /// Connections in any state.
    lanes: usize,
    /// The name does not have it any more.
    is_gone: bool,
}

impl Address {
    /// Whether a request of this class need not wait for attempts to connect. The trial of a
    /// circuit does not: the attempts before it may hang.
    fn has_room(&self, class: Class) -> bool {
        !self.idle.is_empty()
            || self.attempts[class as usize] < ATTEMPTS_MAX
            || self.circuit.opens_ns().is_some()
    }
}

#[derive(Debug)]
struct Name {
    host: Box<str>,
    port: u16,
    is_asked: bool,
    /// When it was last resolved, and when to resolve it again.
    answered_ns: Option<u64>,
    due_ns: u64,
    has_failed: bool,
}

/// The addresses of a target.
#[derive(Debug)]
pub(super) struct Balancer {
    target: Target,
    name: Option<Name>,
    addresses: Vec<Address>,
    next_id: u32,
    /// Where the search for the least busy address begins.
    turn: usize,
    /// Whether requests wait while no address can be reached.
    holds: bool,
}

impl Balancer {
    pub(super) fn new(target: Target, holds: bool) -> Self {
        let name = name_of(&target).map(|(host, port)| Name {
            host: host.into(),
            port,
            is_asked: false,
            answered_ns: None,
            due_ns: 0,
            has_failed: false,
        });
        let mut balancer = Self { target, name, addresses: Vec::new(), next_id: 0, turn: 0, holds };
        if balancer.name.is_none() {
            balancer.add(None);
        }
        balancer
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn stop_holding(&mut self) {
        self.holds = false;
    }

    pub(super) fn cost(&self) -> usize {
        let idle = |address: &Address| heap::table::<Lane>(address.idle.capacity());
        heap::table::<Address>(self.addresses.capacity())
            + self.addresses.iter().map(idle).sum::<usize>()
    }

    /// The name to resolve now, if it is due; [`Balancer::resolved`] follows.
    pub(super) fn poll(&mut self, now: Now) -> Option<Box<str>> {
        let name = self.name.as_mut()?;
        if name.is_asked || name.due_ns > now.mono_ns {
            return None;
        }
        name.is_asked = true;
        Some(name.host.clone())
    }

    /// When the name is to be resolved again, if the target is used.
    pub(super) fn refresh_ns(&self) -> Option<u64> {
        self.name.as_ref().filter(|name| !name.is_asked).map(|name| name.due_ns)
    }

    /// When to try an address again, while none can be reached.
    pub(super) fn retry_ns(&self, now: Now) -> Option<u64> {
        let known = self.addresses.iter().filter(|address| !address.is_gone);
        let opens = known.filter_map(|address| address.circuit.opens_ns());
        opens.min().map(|at_ns| at_ns.max(now.mono_ns + 1))
    }

    /// Why no address can be reached, if that is so.
    pub(super) fn outage(&self, now: Now, tried: &[AddressId]) -> Option<Outage> {
        let mut known = self.addresses.iter().filter(|address| !address.is_gone).peekable();
        if !self.is_known(now) {
            return None;
        }
        if known.peek().is_none() {
            return Some(Outage::NoAddress);
        }
        let can_serve = |address: &Address| !address.idle.is_empty() || address.circuit.admits(now);
        let mut able = known.filter(|address| can_serve(address)).peekable();
        if able.peek().is_none() {
            return Some(Outage::Circuit);
        }
        able.all(|address| tried.contains(&address.id)).then_some(Outage::Tried)
    }

    /// The resolver's answer, if it concerns this target; returns the connections to close.
    pub(super) fn resolved(
        &mut self,
        now: Now,
        host: &str,
        found: Result<&[IpAddr], NameFault>,
    ) -> Vec<Lane> {
        let Some(name) = self.name.as_mut().filter(|name| *name.host == *host) else {
            return Vec::new();
        };
        name.is_asked = false;
        let addresses = match found {
            Ok(addresses) => addresses,
            // Deleted, or scaled to zero: its addresses may belong to others soon.
            Err(NameFault::NotFound) => &[],
            Err(NameFault::Unanswered) => {
                name.has_failed = true;
                name.due_ns = now.mono_ns + time::ms(URGENT_MS);
                let since_ns = name.answered_ns.unwrap_or(0);
                if now.mono_ns.saturating_sub(since_ns) < time::ms(UNANSWERED_MS) {
                    return Vec::new();
                }
                &[]
            }
        };
        name.answered_ns = Some(now.mono_ns);
        name.has_failed = addresses.is_empty();
        let after_ms = if addresses.is_empty() { URGENT_MS } else { REFRESH_MS };
        name.due_ns = now.mono_ns + time::ms(after_ms);
        self.update(&addresses[..addresses.len().min(ADDRESSES_MAX)])
    }

    fn update(&mut self, ips: &[IpAddr]) -> Vec<Lane> {
        let mut unwanted = Vec::new();
        for address in &mut self.addresses {
            address.is_gone = address.ip.is_some_and(|ip| !ips.contains(&ip));
            if address.is_gone {
                unwanted.extend(std::mem::take(&mut address.idle));
            }
        }
        self.addresses.retain(|address| !address.is_gone || address.lanes > 0);
        for ip in ips {
            if !self.addresses.iter().any(|address| address.ip == Some(*ip)) {
                self.add(Some(*ip));
            }
        }
        unwanted
    }

    fn add(&mut self, ip: Option<IpAddr>) {
        self.addresses.push(Address {
            id: AddressId(self.next_id),
            ip,
            circuit: Circuit::default(),
            in_flight: [0; Class::COUNT],
            attempts: [0; Class::COUNT],
            idle: VecDeque::new(),
            lanes: 0,
            is_gone: false,
        });
        self.next_id = self.next_id.wrapping_add(1);
    }

    /// Whether the target is one address, which may stand for many servers.
    pub(super) fn is_single(&self) -> bool {
        self.addresses.iter().filter(|address| !address.is_gone).count() <= 1
    }

    /// Chooses an address for a request of this class that was not yet tried for it.
    pub(super) fn choose(
        &mut self,
        now: Now,
        class: Class,
        most: usize,
        tried: &[AddressId],
    ) -> Choice {
        if !self.is_known(now) {
            return Choice::Unresolved;
        }
        let count = self.addresses.len();
        let mut best: Option<(usize, usize)> = None;
        let mut is_full = false;
        for offset in 0..count {
            let at = (self.turn + offset) % count;
            let address = &self.addresses[at];
            let can_connect = !address.idle.is_empty() || address.circuit.admits(now);
            if address.is_gone || !can_connect || tried.contains(&address.id) {
                continue;
            }
            if address.in_flight[class as usize] >= most || !address.has_room(class) {
                is_full = true;
            } else {
                let load = address.in_flight.iter().sum();
                if best.is_none_or(|(least, _)| load < least) {
                    best = Some((load, at));
                }
            }
        }
        let Some((_, at)) = best else {
            return if is_full { Choice::Full } else { Choice::Down };
        };
        self.turn = at + 1;
        let is_single = self.is_single();
        let address = &mut self.addresses[at];
        address.in_flight[class as usize] += 1;
        // The latest is least likely to be stale. But connections to a virtual address lead to
        // different servers, so all of them are used.
        let lane = if is_single { address.idle.pop_front() } else { address.idle.pop_back() };
        if let Some(lane) = lane {
            return Choice::Idle(lane);
        }
        address.lanes += 1;
        address.attempts[class as usize] += 1;
        Choice::Connect(address.id, address.circuit.begin())
    }

    /// Whether the addresses are known well enough to be used.
    pub(super) fn is_known(&self, now: Now) -> bool {
        let Some(name) = &self.name else { return true };
        if self.addresses.iter().all(|address| address.is_gone) {
            // There may be some by now.
            return !name.is_asked && (name.answered_ns.is_some() || name.has_failed);
        }
        let is_fresh = |answered_ns| now.mono_ns < answered_ns + time::ms(STALE_MS);
        name.has_failed || name.answered_ns.is_some_and(is_fresh)
    }

    /// The choice of a connection was not carried out.
    pub(super) fn withdraw(&mut self, id: AddressId, class: Class, is_trial: bool) {
        if let Some(address) = self.find(id) {
            address.in_flight[class as usize] -= 1;
            address.attempts[class as usize] -= 1;
            address.lanes -= 1;
            address.circuit.cancelled(is_trial);
        }
    }

    /// What to connect to.
    pub(super) fn target_of(&self, id: AddressId) -> Target {
        let ip = self.addresses.iter().find(|address| address.id == id);
        match (ip.and_then(|address| address.ip), &self.name) {
            (Some(ip), Some(name)) => at_address(&self.target, SocketAddr::new(ip, name.port)),
            _ => self.target.clone(),
        }
    }

    /// A connection is not being opened any more: it is open, or being closed.
    pub(super) fn attempted(&mut self, id: AddressId, class: Class) {
        if let Some(address) = self.find(id) {
            address.attempts[class as usize] -= 1;
        }
    }

    /// Connections being opened.
    pub(super) fn attempts(&self) -> usize {
        self.addresses.iter().flat_map(|address| address.attempts).sum()
    }

    /// Connected.
    pub(super) fn reached(&mut self, id: AddressId) {
        if let Some(address) = self.find(id) {
            address.circuit.reached();
        }
    }

    /// Connecting failed: perhaps the name has other addresses by now.
    pub(super) fn failed(&mut self, now: Now, id: AddressId, how: HangUp, is_trial: bool) {
        let holds = self.holds;
        let Some(address) = self.find(id) else { return };
        if how == HangUp::Exhausted {
            // This says nothing about the address.
            return address.circuit.cancelled(is_trial);
        }
        address.circuit.failed(now, is_trial, holds);
        if let Some(name) = &mut self.name {
            let soon_ns = name.answered_ns.unwrap_or(0) + time::ms(URGENT_MS);
            name.due_ns = name.due_ns.min(soon_ns.max(now.mono_ns));
        }
    }

    /// An attempt to connect takes long, and there are other addresses.
    pub(super) fn stalled(&mut self, now: Now, id: AddressId, is_trial: bool) {
        if let Some(address) = self.find(id) {
            address.circuit.stalled(now, is_trial);
        }
    }

    /// A request to this address is not in flight any more.
    pub(super) fn done(&mut self, id: AddressId, class: Class) {
        if let Some(address) = self.find(id) {
            address.in_flight[class as usize] -= 1;
        }
    }

    /// A connection is idle; false if it is not wanted any more.
    pub(super) fn keep(&mut self, id: AddressId, lane: Lane) -> bool {
        match self.find(id) {
            Some(address) if !address.is_gone => {
                address.idle.push_back(lane);
                true
            }
            Some(_) | None => false,
        }
    }

    /// An idle connection is being closed.
    pub(super) fn discard(&mut self, id: AddressId, lane: Lane) {
        if let Some(address) = self.find(id)
            && let Some(at) = address.idle.iter().position(|known| *known == lane)
        {
            address.idle.remove(at);
        }
    }

    /// A connection is closed.
    pub(super) fn closed(&mut self, id: AddressId) {
        if let Some(address) = self.find(id) {
            address.lanes -= 1;
            if address.is_gone && address.lanes == 0 {
                self.addresses.retain(|address| address.id != id);
            }
        }
    }

    /// The idle connection that was unused for longest.
    pub(super) fn oldest_idle(&self) -> Option<Lane> {
        let most = self.addresses.iter().max_by_key(|address| address.idle.len());
        most.and_then(|address| address.idle.front().copied())
    }

    fn find(&mut self, id: AddressId) -> Option<&mut Address> {
        self.addresses.iter_mut().find(|address| address.id == id)
    }
}

fn name_of(target: &Target) -> Option<(&str, u16)> {
    match target {
        Target::Name { host, port } => Some((host, *port)),
        Target::Tls(secured) => name_of(&secured.to),
        Target::Tcp(_) | Target::Unix(_) | Target::Terminal | Target::Tunnel(_) => None,
    }
}

/// The same target at one of its addresses; certificates are still checked against the name.
fn at_address(target: &Target, address: SocketAddr) -> Target {
    match target {
        Target::Tls(secured) => {
            Target::Tls(Box::new(Secured { to: Target::Tcp(address), ..(**secured).clone() }))
        }
        _ => Target::Tcp(address),
    }
}

#[cfg(test)]
mod tests;
