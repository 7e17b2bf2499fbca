//! The operating system of all tests that drive the real loop: a node's view of the `network`.
//! Its guarantees are those of Linux and epoll, no stronger ones.

mod network;

use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use wspulse::engine::{File, Id, NameFault, Now, Peer, Side, Source, Target};
use wspulse::net::os::{Channel, Event, Os, Resolved};
use wspulse::time;

pub(crate) use network::{End, Fault, Network, Node, Odds, OnConnect};

/// The wall clock at start: 21 November 2026, 03:00 UTC.
const WALL_MS: i64 = 1_795_230_000_000;
const EMFILE: i32 = 24;
/// Names without an entry have this address.
const SOME_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80));

/// An end of a wire that a node holds.
#[derive(Debug)]
pub(crate) struct Stream {
    wire: usize,
    node: Node,
    net: Network,
}

impl Channel for Stream {
    fn held_bytes(&self) -> usize {
        self.net.state().wires[self.wire].held_bytes
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let net = &mut *self.net.state();
        net.calls += 1;
        if net.happens(net.odds.interrupted) || net.is_planned(Fault::Interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if net.is_planned(Fault::Reset) {
            net.destroy(self.wire);
        }
        if net.wires[self.wire].reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if net.happens(net.odds.spurious) || net.is_planned(Fault::Spurious) {
            net.report(self.wire, self.node, true, false);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let short = net.happens(net.odds.short);
        let end = &mut net.wires[self.wire].ends[self.node as usize];
        if end.received.is_empty() {
            return if end.fin_received { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut n = buffer.len().min(end.received.len());
        if short {
            n = 1 + net.rng.below(n as u64) as usize;
        } else if net.is_planned(Fault::Short) {
            n = 1;
        }
        let end = &mut net.wires[self.wire].ends[self.node as usize];
        for (to, byte) in buffer.iter_mut().zip(end.received.drain(..n)) {
            *to = byte;
        }
        end.window = end.window.saturating_add(n);
        let more = n < buffer.len() && !end.received.is_empty();
        let writer_waits = std::mem::take(&mut end.writer_waits);
        if more {
            // After a short read the kernel reports the rest as a new event.
            net.report(self.wire, self.node, true, false);
        }
        if writer_waits {
            net.report(self.wire, self.node.other(), false, true);
        }
        Ok(n)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let net = &mut *self.net.state();
        net.calls += 1;
        if net.happens(net.odds.interrupted) || net.is_planned(Fault::Interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let peer_gone = net.wires[self.wire].ends[self.node.other() as usize].is_closed();
        if peer_gone || net.is_planned(Fault::Reset) {
            // Bytes for a peer that has closed are answered with an RST.
            net.destroy(self.wire);
        }
        if net.wires[self.wire].reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if net.is_planned(Fault::Spurious) {
            net.report(self.wire, self.node, false, true);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let drawn = net.happens(net.odds.short);
        let short = drawn || net.is_planned(Fault::Short);
        let to = &mut net.wires[self.wire].ends[self.node.other() as usize];
        let mut n = bytes.len().min(to.window);
        if n == 0 {
            to.writer_waits = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if drawn {
            n = 1 + net.rng.below(n as u64) as usize;
        } else if short {
            n = 1;
        }
        if n < bytes.len() && short {
            net.report(self.wire, self.node, false, true);
        } else if n < bytes.len() {
            net.wires[self.wire].ends[self.node.other() as usize].writer_waits = true;
        }
        net.push(self.wire, self.node, &bytes[..n]);
        Ok(n)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        // Like a kernel, it writes all pieces, not only the first.
        self.write(&pieces.iter().flat_map(|piece| piece.iter().copied()).collect::<Vec<u8>>())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut net = self.net.state();
        net.descriptors += 1;
        net.close(self.wire, self.node);
    }
}

/// The operating system as one node sees it.
#[derive(Debug)]
pub(crate) struct FakeOs {
    node: Node,
    net: Network,
}

impl FakeOs {
    pub(crate) fn new(node: Node, net: &Network) -> Self {
        Self { node, net: net.clone() }
    }

    fn stream(&self, wire: usize) -> Stream {
        Stream { wire, node: self.node, net: self.net.clone() }
    }
}

impl Os for FakeOs {
    type Stream = Stream;

    fn now(&mut self) -> Now {
        let mono_ns = self.net.state().now_ns;
        Now { mono_ns, wall_ms: WALL_MS + i64::try_from(mono_ns / 1_000_000).unwrap() }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let net = &mut *self.net.state();
        net.accepts_in_a_row = 0;
        let process = &mut net.processes[self.node as usize];
        process.wait(net.now_ns, timeout.map_or(u64::MAX, nanos), false);
        let taken = process.events.len().min(net.batch);
        events.extend(process.events.drain(..taken).map(|(_, event)| event));
        process.busy |= taken > 0;
        if net.happens(net.odds.stale_events) {
            // Spurious for an existing stream, stale for a closed one.
            let key = net.rng.below(20) as u32;
            let generation = net.rng.below(3) as u32;
            let id = Id { key, generation };
            let (readable, writable, ended, broken) = (true, true, false, false);
            events.push(Event::Stream { id, readable, writable, ended, broken });
        }
        Ok(())
    }

    fn sleep(&mut self, time: Duration, events: &mut Vec<Event>) -> io::Result<()> {
        let net = &mut *self.net.state();
        let process = &mut net.processes[self.node as usize];
        process.wait(net.now_ns, nanos(time), true);
        let is_signal = |(_, event): (Side, Event)| matches!(event, Event::Signal(_));
        process.take_events(is_signal, events);
        process.busy |= !events.is_empty();
        Ok(())
    }

    fn poll_admin(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let net = &mut *self.net.state();
        net.accepts_in_a_row = 0;
        net.processes[self.node as usize].take_events(|(side, _)| side == Side::Admin, events);
        Ok(())
    }

    fn listeners(&self) -> Vec<Side> {
        let part = self.net.state().part;
        let sides = [Side::Main, Side::Admin].into_iter().chain(part);
        sides.filter(|_| self.node == Node::Server).collect()
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Stream, Peer)> {
        let net = &mut *self.net.state();
        if net.now_ns >= net.exhausted_until_ns && net.happens(net.odds.exhausted) {
            net.exhausted_until_ns = net.now_ns + time::ms(net.rng.below(300));
        }
        // Like Linux, it checks for a free descriptor before it checks the queue.
        if net.descriptors == 0 || net.now_ns < net.exhausted_until_ns {
            net.accepts_without_descriptor += 1;
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let wire = net.accept_queues[listener].pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        net.descriptors -= 1;
        net.now_ns += net.accept_ns;
        net.accepts += 1;
        net.accepts_in_a_row += 1;
        net.most_accepts_in_a_row = net.most_accepts_in_a_row.max(net.accepts_in_a_row);
        assert!(net.accepts < 100_000, "it accepts in an endless loop");
        if net.reconnects && listener == 0 {
            let wire = net.open();
            net.accept_queues[0].push_back(wire);
        }
        let port = 50_000 + u16::try_from(wire % 10_000).unwrap();
        Ok((self.stream(wire), Peer::new(([192, 0, 2, 1], port).into())))
    }

    fn refuse_one(&mut self, listener: usize, response: &[u8]) -> io::Result<()> {
        let net = &mut *self.net.state();
        let wire = net.accept_queues[listener].pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        net.wires[wire].harmed = true;
        net.push(wire, Node::Server, response);
        net.close(wire, Node::Server);
        Ok(())
    }

    fn resolve(&mut self, host: &str) -> bool {
        let net = &mut *self.net.state();
        if net.names.get(host).is_none_or(Option::is_some) {
            net.resolved.push_back(host.into());
            let news = (Side::Main, Event::Resolved);
            net.processes[self.node as usize].events.push_back(news);
        }
        true
    }

    fn take_resolved(&mut self) -> Option<Resolved> {
        let net = &mut *self.net.state();
        let host = net.resolved.pop_front()?;
        let found = match net.names.get(&*host) {
            Some(Some(addresses)) if addresses.is_empty() => Err(NameFault::NotFound),
            Some(Some(addresses)) => Ok(addresses.clone()),
            Some(None) => Err(NameFault::Unanswered),
            None => Ok(vec![SOME_ADDRESS]),
        };
        Some((host, found))
    }

    fn connect(&mut self, target: &Target) -> io::Result<Stream> {
        let net = &mut *self.net.state();
        let to = address(target);
        let on_connect = net.on_connect_to.get(&to).copied().unwrap_or(net.on_connect);
        let refused = match self.node {
            Node::Server => on_connect == OnConnect::Refuse,
            Node::Peer => net.accepting_stopped,
        };
        if refused {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if net.descriptors == 0 {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        net.descriptors -= 1;
        let wire = net.open();
        if self.node == Node::Server {
            net.wires[wire].unanswered = on_connect == OnConnect::Drop;
            net.outgoing.push(wire);
            net.outgoing_to.push(to);
        } else {
            net.harm(wire);
            net.enqueue(0, wire);
        }
        Ok(self.stream(wire))
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let wire = &self.net.state().wires[stream.wire];
        match (wire.reset, wire.unanswered) {
            (true, true) => Err(io::ErrorKind::ConnectionRefused.into()),
            (true, false) => Err(io::ErrorKind::ConnectionReset.into()),
            (false, unanswered) => Ok(!unanswered),
        }
    }

    fn watch(&mut self, stream: &mut Stream, side: Side, id: Id) -> io::Result<()> {
        let mut net = self.net.state();
        net.wires[stream.wire].ends[self.node as usize].id = Some((id, side));
        net.report(stream.wire, self.node, true, true);
        Ok(())
    }

    fn finish(&mut self, stream: &mut Stream) {
        let mut net = self.net.state();
        net.wires[stream.wire].ends[self.node as usize].end = Some(End::Fin);
        net.fin(stream.wire, self.node);
    }

    fn reset(&mut self, stream: Stream) {
        // The stream is dropped afterwards, when its end is already closed.
        let mut net = self.net.state();
        net.wires[stream.wire].ends[self.node as usize].end = Some(End::Reset);
        net.destroy(stream.wire);
    }

    fn close_listeners(&mut self) {
        let net = &mut *self.net.state();
        net.accepting_stopped = true;
        while let Some(wire) = net.accept_queues[0].pop_front() {
            net.wires[wire].harmed = true;
            net.wires[wire].ends[Node::Server as usize].end = Some(End::Reset);
            net.destroy(wire);
        }
    }

    fn memory_used(&mut self) -> Option<u64> {
        let net = self.net.state();
        net.memory_used.as_ref().filter(|_| self.node == Node::Server).map(|used| used.get())
    }

    fn fetch(&mut self, _source: &Source) -> io::Result<Vec<File>> {
        let net = self.net.state();
        let files = net.files.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = |(name, bytes): &(String, Vec<u8>)| File {
            name: name.clone(),
            bytes: bytes.clone(),
            modified_ms: WALL_MS,
            prepared: None,
        };
        Ok(files.iter().map(file).collect())
    }
}

/// The address that is connected to; any, if it is a name.
fn address(target: &Target) -> SocketAddr {
    match target {
        Target::Tcp(address) => *address,
        Target::Tls(secured) => address(&secured.to),
        Target::Name { port, .. } => SocketAddr::new(SOME_ADDRESS, *port),
        Target::Unix(_) | Target::Terminal => SocketAddr::new(SOME_ADDRESS, 0),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
