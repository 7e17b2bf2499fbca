//! Sockets and listeners of the kernel, TCP or Unix.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Registry, Token};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::{SockRef, TcpKeepalive};

use super::os::Interest;
use super::proxied::Proxied;
use super::terminal::Terminal;
use super::unix::SocketFile;
use crate::engine::{Peer, Target};
use crate::proto::forwarded::Range;

/// A peer that is silent for [`PROBE_AFTER`] is probed at each [`PROBE_GAP`], and the connection
/// ends at the first probe after [`PEER_TIMEOUT`] of silence: after 35 s. The same timeout is for
/// bytes that the peer does not acknowledge, while which the kernel sends no probes.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_GAP: Duration = Duration::from_secs(10);
const PEER_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const READS: mio::Interest = mio::Interest::READABLE;
const BOTH: mio::Interest = READS.add(mio::Interest::WRITABLE);

/// A socket, or standard input and output.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    /// From a trusted proxy that speaks the PROXY protocol.
    Proxied(Box<Proxied>),
    Unix(UnixStream),
    Terminal(Terminal),
}

impl Socket {
    /// Starts to connect.
    pub(super) fn connect(target: &Target) -> io::Result<Self> {
        match target {
            Target::Tcp(address) => Self::connect_tcp(*address),
            Target::Unix(path) => UnixStream::connect(&**path).map(Self::Unix),
            Target::Terminal => Ok(Self::Terminal(Terminal::default())),
            Target::Name { .. } | Target::Tunnel(_) | Target::Tls(_) => {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    }

    pub(super) fn connect_tcp(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Lets the kernel notice a peer that vanished.
    pub(super) fn probe_peer(&self) {
        let Self::Tcp(stream) = self else { return };
        let (socket, probes) = (SockRef::from(stream), TcpKeepalive::new());
        let probes = probes.with_time(PROBE_AFTER).with_interval(PROBE_GAP);
        // Without them a dead peer is noticed by the timeouts of its user.
        drop(socket.set_tcp_keepalive(&probes));
        drop(socket.set_tcp_user_timeout(Some(PEER_TIMEOUT)));
    }

    /// The client that a proxy named, once.
    pub(super) fn take_client(&mut self) -> Option<SocketAddr> {
        match self {
            Self::Proxied(proxied) => proxied.take_client(),
            Self::Tcp(_) | Self::Unix(_) | Self::Terminal(_) => None,
        }
    }

    /// Whether a connection is established by now; an error if it failed.
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Self::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Proxied(proxied) => {
                (proxied.stream.take_error()?, proxied.stream.peer_addr().map(drop))
            }
            Self::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Self::Terminal(_) => return Ok(true),
        };
        if let Some(error) = error {
            return Err(error);
        }
        // Writable events can come early; only a peer address proves that it is connected.
        match peer {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Registers it. Returns true if epoll cannot watch it, as a file: then it is always ready.
    pub(super) fn watch(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<bool> {
        let interest = match interest {
            Interest::Reads => READS,
            Interest::Both => BOTH,
        };
        if let Self::Terminal(terminal) = self {
            return terminal.watch(registry, token);
        }
        self.source().map_or(Ok(()), |source| registry.register(source, token, interest))?;
        Ok(false)
    }

    /// After [`Interest::Reads`]: [`Interest::Both`].
    pub(super) fn watch_writes(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        self.source().map_or(Ok(()), |source| registry.reregister(source, token, BOTH))
    }

    /// What epoll watches; `None` for a terminal, which has two descriptors.
    fn source(&mut self) -> Option<&mut dyn Source> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Proxied(proxied) => Some(&mut proxied.stream),
            Self::Unix(stream) => Some(stream),
            Self::Terminal(_) => None,
        }
    }

    /// Whether there are bytes, an end or an error that no read has returned yet.
    pub(super) fn has_input(&self) -> bool {
        let mut byte = [0];
        let peeked = match self {
            Self::Tcp(stream) => recv(stream, &mut byte, RecvFlags::PEEK),
            Self::Unix(stream) => recv(stream, &mut byte, RecvFlags::PEEK),
            Self::Proxied(_) | Self::Terminal(_) => return false,
        };
        !matches!(peeked, Err(Errno::WOULDBLOCK | Errno::INTR))
    }

    /// Makes the next close send RST.
    pub(super) fn reset(&self) {
        let linger = match self {
            Self::Tcp(stream) => SockRef::from(stream).set_linger(Some(Duration::ZERO)),
            Self::Proxied(proxied) => {
                SockRef::from(&proxied.stream).set_linger(Some(Duration::ZERO))
            }
            Self::Unix(_) | Self::Terminal(_) => Ok(()),
        };
        drop(linger);
    }

    pub(super) fn finish(&self) {
        let shut = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Proxied(proxied) => proxied.stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Terminal(_) => Ok(()),
        };
        // It fails if the peer has reset the connection, which needs no shutdown.
        drop(shut);
    }
}

impl Read for Socket {
    #[inline]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            // The system call itself: libc's wrapper also makes it a cancellation point.
            Self::Tcp(stream) => Ok(recv(stream, buffer, RecvFlags::empty())?.0),
            Self::Proxied(proxied) => proxied.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Terminal(terminal) => terminal.read(buffer),
        }
    }
}

impl Write for Socket {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => Ok(send(stream, bytes, SendFlags::NOSIGNAL)?),
            Self::Proxied(proxied) => proxied.stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Terminal(terminal) => terminal.write(bytes),
        }
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(pieces),
            Self::Proxied(proxied) => proxied.stream.write_vectored(pieces),
            Self::Unix(stream) => stream.write_vectored(pieces),
            Self::Terminal(terminal) => terminal.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix {
        /// Dropped before the listener: while the socket listens, the file is surely ours.
        #[expect(dead_code, reason = "its drop removes the file")]
        file: Option<SocketFile>,
        listener: UnixListener,
    },
}

impl Listener {
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) => listener,
            Self::Unix { listener, .. } => listener,
        }
    }

    /// Accepts a connection. One from these proxies names its client first.
    pub(super) fn accept(&self, proxies: &[Range]) -> io::Result<(Socket, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                let is_proxy = proxies.iter().any(|range| range.contains(address.ip()));
                let socket = if is_proxy {
                    Socket::Proxied(Box::new(Proxied::new(stream)))
                } else {
                    Socket::Tcp(stream)
                };
                Ok((socket, Peer::new(address)))
            }
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                Ok((Socket::Unix(stream), Peer::Unix))
            }
        }
    }
}
