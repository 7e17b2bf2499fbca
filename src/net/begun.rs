//! A connection of our own that does not stand yet: its name is looked up, its addresses are tried
//! in their order, then TLS begins. It knows nothing of what it is for.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use mio::{Registry, Token};

use super::names::Resolver;
use super::stream::{Socket, Stream};
use super::tls::{Tls, Trusts};
use crate::engine::{Id, Now, Target, Trust};

/// What connections of our own share.
#[derive(Debug, Default)]
pub(super) struct Outward {
    pub(super) resolver: Resolver,
    trusts: Trusts,
}

/// How far it is.
#[derive(Debug)]
pub(crate) struct Begun {
    step: Step,
    /// Whom the certificate must be for, and who may vouch for that.
    secured: Option<(Box<str>, Trust)>,
    /// By which events find it.
    token: Option<Token>,
}

#[derive(Debug)]
enum Step {
    Naming {
        host: Box<str>,
        port: u16,
    },
    Trying {
        socket: Socket,
        others: VecDeque<SocketAddr>,
    },
    Shaking(Box<Tls>),
    /// Its stream has moved on.
    Over,
}

/// Begins to open a connection. The ordinary ones need nothing of this file.
pub(super) fn connect(target: &Target) -> io::Result<Stream> {
    let (to, secured) = match target {
        Target::Tls(tls) => (&tls.to, Some((tls.name.clone(), tls.trust.clone()))),
        Target::Tcp(_) | Target::Name { .. } | Target::Unix(_) | Target::Terminal => (target, None),
    };
    let socket = match to {
        Target::Tcp(address) => Socket::connect_tcp(*address)?,
        Target::Unix(path) => Socket::connect_unix(path)?,
        Target::Terminal => Socket::terminal(),
        Target::Name { host, port } => {
            let step = Step::Naming { host: host.clone(), port: *port };
            return Ok(Stream::Begun(Box::new(Begun { step, secured, token: None })));
        }
        Target::Tls(_) => return Err(io::Error::other("TLS in TLS")),
    };
    if secured.is_none() {
        return Ok(Stream::Plain(socket));
    }
    let step = Step::Trying { socket, others: VecDeque::new() };
    Ok(Stream::Begun(Box::new(Begun { step, secured, token: None })))
}

impl Begun {
    pub(super) fn socket(&mut self) -> Option<&mut Socket> {
        match &mut self.step {
            Step::Trying { socket, .. } => Some(socket),
            Step::Shaking(tls) => Some(tls.socket()),
            Step::Naming { .. } | Step::Over => None,
        }
    }

    pub(super) fn is_costly(&self) -> bool {
        matches!(self.step, Step::Shaking(_))
    }

    /// From now on events find it; a name is looked up for whoever waits for it.
    pub(super) fn watched(&mut self, token: Token, id: Id, now: Now, outward: &mut Outward) {
        self.token = Some(token);
        if let Step::Naming { host, .. } = &self.step {
            outward.resolver.ask(host, id, now);
        }
    }

    /// Goes on as far as it can; the stream once it stands, an error when it never will.
    pub(super) fn go_on(
        &mut self,
        outward: &mut Outward,
        registry: &Registry,
    ) -> io::Result<Option<Stream>> {
        loop {
            self.step = match std::mem::replace(&mut self.step, Step::Over) {
                Step::Naming { host, port } => {
                    let Some(found) = outward.resolver.answer(&host) else {
                        self.step = Step::Naming { host, port };
                        return Ok(None);
                    };
                    let addresses = found?.iter().map(|ip| SocketAddr::new(*ip, port));
                    let none = io::ErrorKind::NotFound.into();
                    self.try_next(addresses.collect(), none, registry)?
                }
                Step::Trying { socket, others } => match socket.is_connected() {
                    Ok(false) => {
                        self.step = Step::Trying { socket, others };
                        return Ok(None);
                    }
                    Ok(true) => match &self.secured {
                        None => return Ok(Some(Stream::Plain(socket))),
                        Some((name, trust)) => {
                            Step::Shaking(Box::new(outward.trusts.begin(trust, name, socket)?))
                        }
                    },
                    Err(error) => self.try_next(others, error, registry)?,
                },
                Step::Shaking(mut tls) => {
                    if tls.shake()? {
                        return Ok(Some(Stream::Tls(tls)));
                    }
                    self.step = Step::Shaking(tls);
                    return Ok(None);
                }
                Step::Over => return Err(io::ErrorKind::NotConnected.into()),
            };
        }
    }

    /// Begins with the first address that lets us; `error` is what it ends with if none does.
    fn try_next(
        &self,
        mut addresses: VecDeque<SocketAddr>,
        mut error: io::Error,
        registry: &Registry,
    ) -> io::Result<Step> {
        while let Some(address) = addresses.pop_front() {
            let begun = Socket::connect_tcp(address).and_then(|mut socket| {
                let token = self.token.ok_or(io::ErrorKind::NotConnected)?;
                socket.watch(registry, token).map(|_| socket)
            });
            match begun {
                Ok(socket) => return Ok(Step::Trying { socket, others: addresses }),
                Err(why) => error = why,
            }
        }
        Err(error)
    }
}
