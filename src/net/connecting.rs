//! An outgoing connection that is not established yet: its name is resolved, its addresses are
//! tried, then a proxy is asked for a tunnel, then the TLS handshake begins. It does not know what
//! the connection is for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mio::{Registry, Token};

use super::names::Resolver;
use super::os::{Event, Interest};
use super::socket::Socket;
use super::tls::{Tls, Trusts};
use crate::engine::{Alpn, Id, Now, ProxyFault, Target, Trust};
use crate::proto::tunnel::{self, Answer};
use crate::secret::Secret;
use crate::time;

/// How long an address is tried alone (RFC 8305 §8, Connection Attempt Delay).
const ATTEMPT_MS: u64 = 250;
/// Addresses that are tried at a time; the first is given up for another one.
const ATTEMPTS_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct Outbound {
    pub(super) resolver: Resolver,
    trusts: Trusts,
    /// Streams with another address to try, and when; the earliest first.
    attempts: VecDeque<(u64, Id)>,
}

impl Outbound {
    /// How long to wait at most until another address of some name must be tried.
    pub(super) fn timeout(&self, now: impl FnOnce() -> Now) -> Option<Duration> {
        let (due_ns, _) = self.attempts.front()?;
        Some(Duration::from_nanos(due_ns.saturating_sub(now().mono_ns)))
    }

    /// Collects an event for each stream that must try another address.
    pub(super) fn collect_attempts(&mut self, now: impl FnOnce() -> Now, events: &mut Vec<Event>) {
        if self.attempts.is_empty() {
            return;
        }
        let now_ns = now().mono_ns;
        while self.attempts.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
            let Some((_, id)) = self.attempts.pop_front() else { return };
            events.push(Event::wake(id));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connecting {
    step: Step,
    /// What to ask of the proxy that is connected to first.
    request: Option<Vec<u8>>,
    /// With TLS: the name that the certificate must be valid for, how it is verified, and the
    /// protocols that are offered.
    secured: Option<(Box<str>, Trust, Alpn)>,
    /// The token and stream of its events.
    events: Option<(Token, Id)>,
}

#[derive(Debug)]
enum Step {
    Resolving {
        host: Box<str>,
        port: u16,
    },
    Connecting(Attempts),
    Tunnelling {
        socket: Socket,
        /// What is left to send.
        request: Vec<u8>,
        answer: Answer,
    },
    /// The server is connected, perhaps through a proxy.
    Connected(Socket),
    Handshaking(Box<Tls>),
    /// It was established and has become another stream.
    Done,
}

/// Connection attempts to the addresses of one server; the first that succeeds is used.
#[derive(Debug)]
struct Attempts {
    /// The oldest first.
    sockets: VecDeque<Socket>,
    others: VecDeque<SocketAddr>,
    /// When the next of them is tried, whether an attempt has failed or not.
    next_ns: u64,
}

#[derive(Debug)]
pub(super) enum Established {
    Plain(Socket),
    Tls(Box<Tls>),
}

impl Connecting {
    pub(super) fn start(target: &Target) -> io::Result<Self> {
        let (to, secured) = match target {
            Target::Tls(tls) => (&tls.to, Some((tls.name.clone(), tls.trust.clone(), tls.alpn))),
            other => (other, None),
        };
        let (to, request) = match to {
            Target::Tunnel(tunnel) => {
                let authorization = tunnel.authorization.as_ref().map(Secret::reveal);
                let request = tunnel::request(&tunnel.server.to_string(), authorization);
                (&tunnel.proxy, Some(request))
            }
            other => (other, None),
        };
        let step = match to {
            Target::Name { host, port } => Step::Resolving { host: host.clone(), port: *port },
            address => {
                let sockets = [Socket::connect(address)?].into();
                Step::Connecting(Attempts { sockets, others: VecDeque::new(), next_ns: 0 })
            }
        };
        Ok(Self { step, request, secured, events: None })
    }

    pub(super) fn socket(&mut self) -> Option<&mut Socket> {
        match &mut self.step {
            Step::Connecting(attempts) => attempts.sockets.back_mut(),
            Step::Tunnelling { socket, .. } | Step::Connected(socket) => Some(socket),
            Step::Handshaking(tls) => Some(tls.socket()),
            Step::Resolving { .. } | Step::Done => None,
        }
    }

    pub(super) fn is_costly(&self) -> bool {
        matches!(self.step, Step::Handshaking(_))
    }

    /// Sets where its events go, and starts to resolve the name if there is one.
    pub(super) fn watched(&mut self, token: Token, id: Id, now: Now, outbound: &mut Outbound) {
        self.events = Some((token, id));
        if let Step::Resolving { host, .. } = &self.step {
            outbound.resolver.ask(host, id, now);
        }
    }

    /// Advances as far as possible; returns the connection once established, an error if it failed.
    pub(super) fn advance(
        &mut self,
        outbound: &mut Outbound,
        registry: &Registry,
        now: Now,
    ) -> io::Result<Option<Established>> {
        loop {
            self.step = match std::mem::replace(&mut self.step, Step::Done) {
                Step::Resolving { host, port } => {
                    let Some(found) = outbound.resolver.answer(&host) else {
                        self.step = Step::Resolving { host, port };
                        return Ok(None);
                    };
                    let ips = alternating(found.map_err(|error| self.blame(error))?);
                    let others = ips.map(|ip| SocketAddr::new(ip, port)).collect();
                    Step::Connecting(Attempts { sockets: VecDeque::new(), others, next_ns: 0 })
                }
                Step::Connecting(mut attempts) => {
                    let tried = self.try_addresses(&mut attempts, outbound, registry, now);
                    match (tried.map_err(|error| self.blame(error))?, self.request.take()) {
                        (None, request) => {
                            (self.step, self.request) = (Step::Connecting(attempts), request);
                            return Ok(None);
                        }
                        (Some(socket), None) => Step::Connected(socket),
                        (Some(socket), Some(request)) => {
                            Step::Tunnelling { socket, request, answer: Answer::default() }
                        }
                    }
                }
                Step::Tunnelling { mut socket, mut request, mut answer } => {
                    if !tunnel_is_open(&mut socket, &mut request, &mut answer)? {
                        self.step = Step::Tunnelling { socket, request, answer };
                        return Ok(None);
                    }
                    Step::Connected(socket)
                }
                Step::Connected(socket) => match &self.secured {
                    None => return Ok(Some(Established::Plain(socket))),
                    Some((name, trust, alpn)) => {
                        let tls = outbound.trusts.begin(trust, alpn, name, socket)?;
                        Step::Handshaking(Box::new(tls))
                    }
                },
                Step::Handshaking(mut tls) => {
                    if tls.handshake()? {
                        return Ok(Some(Established::Tls(tls)));
                    }
                    self.step = Step::Handshaking(tls);
                    return Ok(None);
                }
                Step::Done => return Err(io::ErrorKind::NotConnected.into()),
            };
        }
    }

    /// Returns a connected socket. Tries the next address when an attempt fails or takes long; an
    /// error if all have failed.
    fn try_addresses(
        &self,
        attempts: &mut Attempts,
        outbound: &mut Outbound,
        registry: &Registry,
        now: Now,
    ) -> io::Result<Option<Socket>> {
        let mut failure = io::ErrorKind::NotFound.into();
        let mut is_due = attempts.sockets.is_empty() || attempts.next_ns <= now.mono_ns;
        for at in (0..attempts.sockets.len()).rev() {
            match attempts.sockets[at].is_connected() {
                Ok(true) => return Ok(attempts.sockets.remove(at)),
                Ok(false) => {}
                Err(error) => {
                    attempts.sockets.remove(at);
                    (failure, is_due) = (error, true);
                }
            }
        }
        let Some((token, id)) = self.events else { return Err(io::ErrorKind::NotConnected.into()) };
        while is_due && let Some(address) = attempts.others.pop_front() {
            let started = Socket::connect_tcp(address).and_then(|mut socket| {
                socket.watch(registry, token, Interest::Both).map(|_| socket)
            });
            match started {
                Ok(socket) => {
                    if attempts.sockets.len() == ATTEMPTS_MAX {
                        attempts.sockets.pop_front();
                    }
                    attempts.sockets.push_back(socket);
                    if !attempts.others.is_empty() {
                        attempts.next_ns = now.mono_ns + time::ms(ATTEMPT_MS);
                        outbound.attempts.push_back((attempts.next_ns, id));
                    }
                    is_due = false;
                }
                Err(error) => failure = error,
            }
        }
        if attempts.sockets.is_empty() { Err(failure) } else { Ok(None) }
    }

    /// An error before the tunnel is the proxy's, not the server's.
    fn blame(&self, error: io::Error) -> io::Error {
        if self.request.is_none() {
            return error;
        }
        let fault = match error.kind() {
            io::ErrorKind::NotFound => ProxyFault::NoSuchName,
            io::ErrorKind::ConnectionRefused => ProxyFault::Refused,
            _ => ProxyFault::Unreachable,
        };
        fault.into()
    }
}

/// Sends the request for a tunnel and reads the answer, as far as possible.
fn tunnel_is_open(
    socket: &mut Socket,
    request: &mut Vec<u8>,
    answer: &mut Answer,
) -> io::Result<bool> {
    let blocks = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    while !request.is_empty() {
        match socket.write(request) {
            Ok(n) => drop(request.drain(..n)),
            Err(error) if blocks(&error) => return Ok(false),
            Err(_) => return Err(ProxyFault::CutOff.into()),
        }
    }
    let mut bytes = [0; 1024];
    loop {
        match socket.read(&mut bytes) {
            Ok(n @ 1..) if answer.read(&bytes[..n])? => return Ok(true),
            Ok(1..) => {}
            Err(error) if blocks(&error) => return Ok(false),
            Ok(0) | Err(_) => return Err(ProxyFault::CutOff.into()),
        }
    }
}

/// The addresses in the order in which they are tried: the families alternate, so that one that
/// leads nowhere costs one delay (RFC 8305 §4).
fn alternating(ips: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let is_v4 = ips.first().is_some_and(IpAddr::is_ipv4);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        ips.iter().copied().partition(|ip| ip.is_ipv4() == is_v4);
    std::iter::from_fn(move || {
        let next = first.pop_front().or_else(|| second.pop_front());
        if !second.is_empty() {
            std::mem::swap(&mut first, &mut second);
        }
        next
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_alternate() {
        for (given, order) in [
            ("", ""),
            ("::1 ::2 ::3 10.0.0.1 10.0.0.2", "::1 10.0.0.1 ::2 10.0.0.2 ::3"),
            ("10.0.0.1 ::1 ::2 ::3", "10.0.0.1 ::1 ::2 ::3"),
            ("10.0.0.1 10.0.0.2 10.0.0.3", "10.0.0.1 10.0.0.2 10.0.0.3"),
        ] {
            let ips: Vec<IpAddr> = given.split_whitespace().map(|ip| ip.parse().unwrap()).collect();
            let tried: Vec<String> = alternating(&ips).map(|ip| ip.to_string()).collect();
            assert_eq!(tried.join(" "), order);
        }
    }
}
