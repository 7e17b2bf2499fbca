//! The measure: a TCP echo on mio that does one read and one write an event, into a 64 KiB
//! buffer, and frames nothing. Nothing that answers can do less.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

const LISTENER: Token = Token(usize::MAX);

/// A stream, and what it did not take of its echo.
struct Peer {
    stream: TcpStream,
    rest: Vec<u8>,
}

/// Serves for ever; says on standard output where.
pub(crate) fn serve() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    let mut listener = TcpListener::from_std(socket.into());
    println!("{}", listener.local_addr()?);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut peers: Vec<Option<Peer>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    let key = peers.iter().position(Option::is_none).unwrap_or(peers.len());
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(key), both)?;
                    peers.resize_with(peers.len().max(key + 1), || None);
                    peers[key] = Some(Peer { stream, rest: Vec::new() });
                }
            } else if let Some(peer) = &mut peers[event.token().0]
                && !echo(peer, &mut buffer)
            {
                peers[event.token().0] = None;
            }
        }
    }
}

/// Echoes what is there; false at the end.
fn echo(peer: &mut Peer, buffer: &mut [u8]) -> bool {
    loop {
        if !peer.rest.is_empty() {
            match peer.stream.write(&peer.rest) {
                Ok(n) => drop(peer.rest.drain(..n)),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
            continue;
        }
        let read = match peer.stream.read(buffer) {
            Ok(0) => return false,
            Ok(n) => n,
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        };
        let written = peer.stream.write(&buffer[..read]).unwrap_or(0);
        peer.rest.extend_from_slice(&buffer[written..read]);
        if read < buffer.len() && peer.rest.is_empty() {
            return true;
        }
    }
}
