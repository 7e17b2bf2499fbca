//! Streams and listeners as the loop sees them: TCP or Unix, plain or with TLS around it.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::SockRef;

use super::begun::Begun;
use super::os::Channel;
use super::terminal::Terminal;
use super::tls::Tls;
use super::unix::SocketFile;
use crate::engine::Peer;

/// A connection to a peer.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<Tls>),
    /// Of our own, and it does not stand yet.
    Begun(Box<Begun>),
}

impl Stream {
    /// What the kernel knows of it; nothing while a name is looked up.
    pub(super) fn socket(&mut self) -> Option<&mut Socket> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(tls) => Some(tls.socket()),
            Self::Begun(begun) => begun.socket(),
        }
    }

    /// Closes at once: what waits is not offered any more to a peer that takes nothing.
    pub(super) fn reset(mut self) {
        if let Self::Tls(tls) = &mut self {
            tls.forget();
        }
        if let Some(socket) = self.socket() {
            socket.reset();
        }
    }

    /// Says that no more bytes follow.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Plain(socket) => socket.finish(),
            Self::Tls(tls) => tls.finish(),
            Self::Begun(_) => {}
        }
    }
}

impl Channel for Stream {
    fn holds_more(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Begun(_) => false,
            Self::Tls(tls) => tls.holds_more(),
        }
    }

    fn held_bytes(&self) -> usize {
        match self {
            Self::Plain(_) | Self::Begun(_) => 0,
            Self::Tls(tls) => tls.held_bytes(),
        }
    }

    fn is_costly(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.is_shaking(),
            Self::Begun(begun) => begun.is_costly(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
            Self::Begun(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(tls) => tls.write(&[IoSlice::new(bytes)]),
            Self::Begun(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(pieces),
            Self::Tls(tls) => tls.write(pieces),
            Self::Begun(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) | Self::Begun(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// What the kernel calls a connection.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Terminal(Terminal),
}

impl Socket {
    pub(super) fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    pub(super) fn connect_unix(path: &str) -> io::Result<Self> {
        UnixStream::connect(path).map(Self::Unix)
    }

    pub(super) fn terminal() -> Self {
        Self::Terminal(Terminal::default())
    }

    /// Whether a connection that was begun stands; an error when it never will.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Self::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Terminal(_) => return Ok(true),
        };
        if let Some(error) = error {
            return Err(error);
        }
        // Writable events can come early; only a peer's address proves that there is a peer.
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Has it watched. What a poller does not take is always ready: then this returns true.
    pub(super) fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<bool> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => registry.register(stream, token, both).map(|()| false),
            Self::Unix(stream) => registry.register(stream, token, both).map(|()| false),
            Self::Terminal(terminal) => terminal.watch(registry, token),
        }
    }

    /// What waits is not offered any more once it is closed.
    fn reset(&self) {
        let linger = match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Self::Unix(_) | Self::Terminal(_) => Ok(()),
        };
        drop(linger);
    }

    /// Says that no more bytes follow.
    pub(super) fn finish(&self) {
        let shut = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Terminal(_) => Ok(()),
        };
        // A stream that the peer has reset has nothing left to be shut.
        drop(shut);
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Terminal(terminal) => terminal.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Terminal(terminal) => terminal.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(pieces),
            Self::Unix(stream) => stream.write_vectored(pieces),
            Self::Terminal(terminal) => terminal.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where connections come in.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        /// Goes first: as long as somebody listens, the file is surely ours.
        #[expect(dead_code, reason = "its end is its use")]
        file: Option<SocketFile>,
        listener: UnixListener,
    },
}

impl Listener {
    /// As the poller knows it.
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix { listener, .. } => listener,
        }
    }

    pub(super) fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Socket::Tcp(stream), Peer::new(address)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                Ok((Socket::Unix(stream), Peer::Unix))
            }
        }
    }
}
