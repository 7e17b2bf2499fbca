//! Connections of the kernel: plain, with TLS, or not established yet.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;

use super::connecting::{Connecting, Established};
use super::os::Channel;
use super::socket::Socket;
use super::tls::Tls;
use crate::engine::{Screen, Target, TlsFacts};

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<Tls>),
    /// An outgoing connection that is not established yet.
    Connecting(Box<Connecting>),
}

impl From<Established> for Stream {
    fn from(established: Established) -> Self {
        match established {
            Established::Plain(socket) => Self::Plain(socket),
            Established::Tls(tls) => Self::Tls(tls),
        }
    }
}

impl Stream {
    /// Starts to open a connection. Without a name to resolve and without TLS, the socket is all of
    /// it.
    pub(super) fn connect(target: &Target) -> io::Result<Self> {
        match target {
            Target::Tcp(_) | Target::Unix(_) | Target::Terminal => {
                Socket::connect(target).map(Self::Plain)
            }
            Target::Name { .. } | Target::Tunnel(_) | Target::Tls(_) => {
                Ok(Self::Connecting(Box::new(Connecting::start(target)?)))
            }
        }
    }

    /// The socket; `None` while a name is resolved.
    pub(super) fn socket(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(tls) => Some(tls.socket()),
            Self::Connecting(connecting) => connecting.socket(),
        }
    }

    /// Closes with RST, so that a peer that reads nothing is not offered the unsent bytes.
    pub(super) fn reset(mut self) {
        if let Self::Tls(tls) = &mut self {
            tls.skip_close_notify();
        }
        if let Some(socket) = self.socket() {
            socket.reset();
        }
    }

    pub(super) fn finish(&mut self) {
        match self {
            Self::Plain(socket) => socket.finish(),
            Self::Tls(tls) => tls.finish(),
            Self::Connecting(_) => {}
        }
    }
}

impl Channel for Stream {
    #[inline]
    fn is_plain(&self) -> bool {
        matches!(self, Self::Plain(Socket::Tcp(_) | Socket::Unix(_) | Socket::Terminal(_)))
    }

    fn holds_more(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Connecting(_) => false,
            Self::Tls(tls) => tls.holds_more(),
        }
    }

    fn has_input(&mut self) -> bool {
        match self {
            Self::Plain(socket) => socket.has_input(),
            Self::Tls(tls) => tls.holds_more() || tls.socket().has_input(),
            Self::Connecting(_) => false,
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Connecting(_) => 0,
            Self::Tls(tls) => tls.held_bytes(),
        }
    }

    fn take_client(&mut self) -> Option<SocketAddr> {
        match self {
            Self::Plain(socket) => socket.take_client(),
            Self::Tls(tls) => tls.socket().take_client(),
            Self::Connecting(_) => None,
        }
    }

    #[inline]
    fn screen(&self) -> Option<Screen> {
        match self {
            Self::Plain(Socket::Terminal(terminal)) => terminal.screen(),
            Self::Plain(_) | Self::Tls(_) | Self::Connecting(_) => None,
        }
    }

    fn tls_facts(&self) -> Option<TlsFacts> {
        match self {
            Self::Plain(_) | Self::Connecting(_) => None,
            Self::Tls(tls) => Some(tls.facts()),
        }
    }

    fn is_costly(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.is_handshaking(),
            Self::Connecting(connecting) => connecting.is_costly(),
        }
    }
}

impl Read for Stream {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
            Self::Connecting(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(&[IoSlice::new(bytes)]),
            Self::Connecting(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(pieces),
            Self::Tls(tls) => tls.write(pieces),
            Self::Connecting(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Connecting(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
