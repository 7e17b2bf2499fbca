//! An outgoing connection that is not established yet: its name is resolved, its addresses are
//! tried in order, then the TLS handshake begins. It does not know what the connection is for.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mio::{Registry, Token};

use super::names::Resolver;
use super::socket::Socket;
use super::tls::{Tls, Trusts};
use crate::engine::{Id, Now, Target, Trust};

#[derive(Debug, Default)]
pub(super) struct Outbound {
    pub(super) resolver: Resolver,
    trusts: Trusts,
}

#[derive(Debug)]
pub(crate) struct Connecting {
    step: Step,
    /// With TLS: the name that the certificate must be valid for, and how it is verified.
    secured: Option<(Box<str>, Trust)>,
    /// The token of its events.
    token: Option<Token>,
}

#[derive(Debug)]
enum Step {
    Resolving {
        host: Box<str>,
        port: u16,
    },
    Connecting {
        socket: Socket,
        others: VecDeque<SocketAddr>,
    },
    Handshaking(Box<Tls>),
    /// It was established and has become another stream.
    Done,
}

#[derive(Debug)]
pub(super) enum Established {
    Plain(Socket),
    Tls(Box<Tls>),
}

impl Connecting {
    pub(super) fn start(target: &Target) -> io::Result<Self> {
        let (to, secured) = match target {
            Target::Tls(tls) => (&tls.to, Some((tls.name.clone(), tls.trust.clone()))),
            Target::Tcp(_) | Target::Name { .. } | Target::Unix(_) | Target::Terminal => {
                (target, None)
            }
        };
        let step = match to {
            Target::Name { host, port } => Step::Resolving { host: host.clone(), port: *port },
            Target::Tcp(_) | Target::Unix(_) | Target::Terminal | Target::Tls(_) => {
                Step::Connecting { socket: Socket::connect(to)?, others: VecDeque::new() }
            }
        };
        Ok(Self { step, secured, token: None })
    }

    pub(super) fn socket(&mut self) -> Option<&mut Socket> {
        match &mut self.step {
            Step::Connecting { socket, .. } => Some(socket),
            Step::Handshaking(tls) => Some(tls.socket()),
            Step::Resolving { .. } | Step::Done => None,
        }
    }

    pub(super) fn is_costly(&self) -> bool {
        matches!(self.step, Step::Handshaking(_))
    }

    /// Sets the token, and starts to resolve the name if there is one.
    pub(super) fn watched(&mut self, token: Token, id: Id, now: Now, outbound: &mut Outbound) {
        self.token = Some(token);
        if let Step::Resolving { host, .. } = &self.step {
            outbound.resolver.ask(host, id, now);
        }
    }

    /// Advances as far as possible; returns the connection once established, an error if it failed.
    pub(super) fn advance(
        &mut self,
        outbound: &mut Outbound,
        registry: &Registry,
    ) -> io::Result<Option<Established>> {
        loop {
            self.step = match std::mem::replace(&mut self.step, Step::Done) {
                Step::Resolving { host, port } => {
                    let Some(found) = outbound.resolver.answer(&host) else {
                        self.step = Step::Resolving { host, port };
                        return Ok(None);
                    };
                    let addresses = found?.iter().map(|ip| SocketAddr::new(*ip, port));
                    let none = io::ErrorKind::NotFound.into();
                    self.try_next(addresses.collect(), none, registry)?
                }
                Step::Connecting { socket, others } => match socket.is_connected() {
                    Ok(false) => {
                        self.step = Step::Connecting { socket, others };
                        return Ok(None);
                    }
                    Ok(true) => match &self.secured {
                        None => return Ok(Some(Established::Plain(socket))),
                        Some((name, trust)) => {
                            Step::Handshaking(Box::new(outbound.trusts.begin(trust, name, socket)?))
                        }
                    },
                    Err(error) => self.try_next(others, error, registry)?,
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

    /// Starts to connect to the first address for which that does not fail at once; `error` is
    /// returned if there is none.
    fn try_next(
        &self,
        mut addresses: VecDeque<SocketAddr>,
        mut error: io::Error,
        registry: &Registry,
    ) -> io::Result<Step> {
        while let Some(address) = addresses.pop_front() {
            let started = Socket::connect_tcp(address).and_then(|mut socket| {
                let token = self.token.ok_or(io::ErrorKind::NotConnected)?;
                socket.watch(registry, token).map(|_| socket)
            });
            match started {
                Ok(socket) => return Ok(Step::Connecting { socket, others: addresses }),
                Err(why) => error = why,
            }
        }
        Err(error)
    }
}
