//! The operating system of all tests that drive the real loop: a process's view of the `network`.
//! Its guarantees are those of Linux and epoll, no stronger ones.

mod network;

use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use wspulse::engine::{File, Id, NameFault, Now, Peer, Roots, Side, Source, Target, TlsFacts};
use wspulse::net::os::{Channel, Event, Interest, Os, Resolved};
use wspulse::time;

pub(crate) use network::{End, Fault, Network, Odds, OnConnect, SERVER, address};
use network::{FAR, NEAR, ip};

/// The wall clock at start: 21 November 2026, 03:00 UTC.
const WALL_MS: i64 = 1_795_230_000_000;
const EMFILE: i32 = 24;
/// Names without an entry have this address.
const SOME_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80));

/// An end of a wire that a process holds.
#[derive(Debug)]
pub(crate) struct Stream {
    wire: usize,
    end: usize,
    net: Network,
    /// What its certificate is checked against, with TLS.
    tls: Option<Roots>,
}

impl Channel for Stream {
    fn tls_facts(&self) -> Option<TlsFacts> {
        let unverified = TlsFacts {
            version: "TLS 1.3",
            alpn: None,
            expires_s: None,
            lacks_issuer: self.net.state().lacks_issuer,
        };
        match &self.net.state().certificate {
            Ok(facts) => facts.clone().filter(|_| self.tls.is_some()),
            Err(_) => self.tls.as_ref().map(|_| unverified),
        }
    }

    fn has_input(&mut self) -> bool {
        let wire = &self.net.state().wires[self.wire];
        let end = &wire.ends[self.end];
        wire.reset || end.fin_received || !end.received.is_empty()
    }

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
            net.report(self.wire, self.end, true, false);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let short = net.happens(net.odds.short);
        let end = &mut net.wires[self.wire].ends[self.end];
        if end.received.is_empty() {
            return if end.fin_received { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let mut n = buffer.len().min(end.received.len());
        if short {
            n = 1 + net.rng.below(n as u64) as usize;
        } else if net.is_planned(Fault::Short) {
            n = 1;
        }
        let end = &mut net.wires[self.wire].ends[self.end];
        for (to, byte) in buffer.iter_mut().zip(end.received.drain(..n)) {
            *to = byte;
        }
        end.window = end.window.saturating_add(n);
        let more = n < buffer.len() && !end.received.is_empty();
        let writer_waits = std::mem::take(&mut end.writer_waits);
        if more {
            // After a short read the kernel reports the rest as a new event.
            net.report(self.wire, self.end, true, false);
        }
        if writer_waits {
            net.report(self.wire, 1 - self.end, false, true);
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
        let peer_gone = net.wires[self.wire].ends[1 - self.end].is_closed();
        if peer_gone || net.is_planned(Fault::Reset) {
            // Bytes for a peer that has closed are answered with an RST.
            net.destroy(self.wire);
        }
        if net.wires[self.wire].reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if net.is_planned(Fault::Spurious) {
            net.report(self.wire, self.end, false, true);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let drawn = net.happens(net.odds.short);
        let short = drawn || net.is_planned(Fault::Short);
        let to = &mut net.wires[self.wire].ends[1 - self.end];
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
            net.report(self.wire, self.end, false, true);
        } else if n < bytes.len() {
            net.wires[self.wire].ends[1 - self.end].writer_waits = true;
        }
        net.push(self.wire, self.end, &bytes[..n]);
        // Records that wait go first.
        net.wires[self.wire].held_bytes = 0;
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
        let host = net.wires[self.wire].ends[self.end].host.expect("a stream is a host's");
        net.hosts[host].descriptors += 1;
        net.close(self.wire, self.end);
    }
}

/// The operating system as one process sees it.
#[derive(Debug)]
pub(crate) struct FakeOs {
    host: usize,
    net: Network,
}

impl FakeOs {
    /// Starts the process of the server under test.
    pub(crate) fn new(net: &Network) -> Self {
        Self::on(SERVER, net, &[Side::Main, Side::Admin])
    }

    /// Starts a process on a host, with these listeners.
    pub(crate) fn on(host: usize, net: &Network, listeners: &[Side]) -> Self {
        net.state().start(host, listeners);
        Self { host, net: net.clone() }
    }

    fn stream(&self, wire: usize, end: usize) -> Stream {
        Stream { wire, end, net: self.net.clone(), tls: None }
    }
}

impl Os for FakeOs {
    type Stream = Stream;

    fn now(&mut self) -> Now {
        let net = self.net.state();
        let ms = i64::try_from(net.now_ns / 1_000_000).unwrap();
        Now { mono_ns: net.now_ns, wall_ms: WALL_MS + ms + net.hosts[self.host].skew_ms }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let net = &mut *self.net.state();
        let host = &mut net.hosts[self.host];
        host.accepts_in_a_row = 0;
        host.wait(net.now_ns, timeout.map_or(u64::MAX, nanos), false);
        let taken = host.events.len().min(net.batch);
        events.extend(host.events.drain(..taken).map(|(_, event)| event));
        host.busy |= taken > 0;
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
        let host = &mut net.hosts[self.host];
        host.wait(net.now_ns, nanos(time), true);
        host.take_events(|(_, event)| matches!(event, Event::Signal(_)), events);
        host.busy |= !events.is_empty();
        Ok(())
    }

    fn poll_admin(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        let host = &mut self.net.state().hosts[self.host];
        host.accepts_in_a_row = 0;
        host.take_events(|(side, _)| side == Side::Admin, events);
        Ok(())
    }

    fn listeners(&self) -> Vec<Side> {
        let net = self.net.state();
        net.hosts[self.host].listeners.iter().map(|listener| listener.side).collect()
    }

    fn accept(&mut self, listener: usize) -> io::Result<(Stream, Peer)> {
        let net = &mut *self.net.state();
        let may_run_out = net.now_ns >= net.hosts[self.host].exhausted_until_ns;
        if may_run_out && net.happens(net.odds.exhausted) {
            let until_ns = net.now_ns + time::ms(net.rng.below(300));
            net.hosts[self.host].exhausted_until_ns = until_ns;
        }
        let host = &mut net.hosts[self.host];
        // Like Linux, it checks for a free descriptor before it checks the queue.
        if host.descriptors == 0 || net.now_ns < host.exhausted_until_ns {
            host.accepts_without_descriptor += 1;
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        let queue = &mut host.listeners[listener].queue;
        let wire = queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        host.descriptors -= 1;
        host.accepts += 1;
        host.accepts_in_a_row += 1;
        host.most_accepts_in_a_row = host.most_accepts_in_a_row.max(host.accepts_in_a_row);
        assert!(host.accepts < 100_000, "it accepts in an endless loop");
        net.now_ns += net.accept_ns;
        if net.reconnects && listener == 0 {
            let another = net.open(self.host, None);
            net.hosts[self.host].listeners[0].queue.push_back(another);
        }
        let ip = net.wires[wire].ends[FAR].host.map_or([192, 0, 2, 1], ip);
        let port = 50_000 + u16::try_from(wire % 10_000).unwrap();
        Ok((self.stream(wire, NEAR), Peer::new((ip, port).into())))
    }

    fn refuse_one(&mut self, listener: usize, response: &[u8]) -> io::Result<()> {
        let net = &mut *self.net.state();
        let queue = &mut net.hosts[self.host].listeners[listener].queue;
        let wire = queue.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        net.wires[wire].harmed = true;
        net.push(wire, NEAR, response);
        net.close(wire, NEAR);
        Ok(())
    }

    fn resolve(&mut self, name: &str) -> bool {
        let host = &mut self.net.state().hosts[self.host];
        host.resolved.push_back(name.into());
        host.events.push_back((Side::Main, Event::Resolved));
        true
    }

    fn take_resolved(&mut self) -> Option<Resolved> {
        let net = &mut *self.net.state();
        let name = net.hosts[self.host].resolved.pop_front()?;
        let found = match net.names.get(&*name) {
            Some(addresses) if addresses.is_empty() => Err(NameFault::NotFound),
            Some(addresses) => Ok(addresses.clone()),
            None => Ok(vec![SOME_ADDRESS]),
        };
        Some((name, found))
    }

    fn connect(&mut self, target: &Target) -> io::Result<Stream> {
        let net = &mut *self.net.state();
        let to = target_address(target, &net.names);
        let (listener, result) = net.route(self.host, to);
        net.syns_between_hosts += usize::from(listener.is_some());
        if result == OnConnect::Refuse {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let descriptors = &mut net.hosts[self.host].descriptors;
        let left = descriptors.checked_sub(1);
        *descriptors = left.ok_or_else(|| io::Error::from_raw_os_error(EMFILE))?;
        if let (Some((host, listener)), OnConnect::Accept) = (listener, result) {
            let wire = net.open(host, Some(self.host));
            net.harm(wire);
            net.enqueue(host, listener, wire);
            let mut stream = self.stream(wire, FAR);
            stream.tls = trust(target);
            return Ok(stream);
        }
        // The host that an unanswered SYN was sent to never sees it.
        let wire = net.open(self.host, None);
        net.wires[wire].unanswered = result == OnConnect::Drop;
        if listener.is_none() {
            net.outgoing.push(wire);
        }
        Ok(self.stream(wire, NEAR))
    }

    fn connected(&mut self, stream: &mut Stream) -> io::Result<bool> {
        let net = self.net.state();
        if let (Some(Roots::Public | Roots::Pem(_)), Err(fault)) = (&stream.tls, &net.certificate) {
            return Err((*fault).into());
        }
        let wire = &net.wires[stream.wire];
        match (wire.reset, wire.unanswered) {
            (true, true) => Err(io::ErrorKind::ConnectionRefused.into()),
            (true, false) => Err(io::ErrorKind::ConnectionReset.into()),
            (false, unanswered) => Ok(!unanswered),
        }
    }

    fn watch(
        &mut self,
        stream: &mut Stream,
        side: Side,
        id: Id,
        interest: Interest,
    ) -> io::Result<()> {
        let mut net = self.net.state();
        net.wires[stream.wire].ends[stream.end].watched = Some((id, side, interest));
        net.report_state(stream.wire, stream.end);
        Ok(())
    }

    fn watch_writes(&mut self, stream: &mut Stream, side: Side, id: Id) -> io::Result<()> {
        self.watch(stream, side, id, Interest::Both)
    }

    fn finish(&mut self, stream: &mut Stream) {
        let mut net = self.net.state();
        net.wires[stream.wire].ends[stream.end].end = Some(End::Fin);
        net.fin(stream.wire, stream.end);
    }

    fn reset(&mut self, stream: Stream) {
        // The stream is dropped afterwards, when its end is already closed.
        let mut net = self.net.state();
        net.wires[stream.wire].ends[stream.end].end = Some(End::Reset);
        net.destroy(stream.wire);
    }

    fn close_listeners(&mut self) {
        let net = &mut *self.net.state();
        let main = &mut net.hosts[self.host].listeners[0];
        main.is_closed = true;
        for wire in std::mem::take(&mut main.queue) {
            net.wires[wire].harmed = true;
            net.wires[wire].ends[NEAR].end = Some(End::Reset);
            net.destroy(wire);
        }
    }

    fn memory_used(&mut self) -> Option<u64> {
        self.net.state().hosts[self.host].memory_used.as_ref().map(|used| used.get())
    }

    fn fetch(&mut self, source: &Source) -> io::Result<Vec<File>> {
        let net = self.net.state();
        let files = net.hosts[self.host].files.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let is_wanted = |(name, _): &&(String, Vec<u8>)| match source {
            Source::Files(paths) => paths.contains(name),
            Source::Assets | Source::Process => true,
        };
        let file = |(name, bytes): &(String, Vec<u8>)| File {
            name: name.clone(),
            bytes: bytes.clone(),
            modified_ms: WALL_MS,
            prepared: None,
        };
        Ok(files.iter().filter(is_wanted).map(file).collect())
    }
}

/// The roots that the certificate is checked against, if there is TLS. It only agrees on facts: the
/// bytes are not encrypted.
fn trust(target: &Target) -> Option<Roots> {
    match target {
        Target::Tls(secured) => Some(secured.trust.roots.clone()),
        _ => None,
    }
}

/// The address that is connected to; any, if it is an unknown name.
fn target_address(target: &Target, names: &BTreeMap<String, Vec<IpAddr>>) -> SocketAddr {
    match target {
        Target::Tcp(address) => *address,
        Target::Tls(secured) => target_address(&secured.to, names),
        Target::Name { host, port } => {
            let known = names.get(&**host).and_then(|addresses| addresses.first());
            SocketAddr::new(known.copied().unwrap_or(SOME_ADDRESS), *port)
        }
        Target::Unix(_) | Target::Terminal | Target::Tunnel(_) => SocketAddr::new(SOME_ADDRESS, 0),
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
