//! TCP listeners, with all options set that accepted sockets inherit.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mio::net::TcpListener;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::socket::Listener;
use super::unix;
use crate::limits;
use crate::listen::Listen;

/// How long the kernel retransmits bytes that a peer does not acknowledge.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
/// Idle time after which the kernel probes a peer.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Whether other processes may listen on the same port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    Own,
    Shared,
}

/// Binds and listens; also returns the address, since port 0 lets the kernel choose one.
pub(crate) fn listen(listen: &Listen, port: Port) -> io::Result<(Listener, String)> {
    match listen {
        Listen::At(address) => bind(*address, port),
        Listen::Unix(path) => {
            let (file, listener) = unix::listen(path)?;
            Ok((Listener::Unix { file: Some(file), listener }, listen.to_string()))
        }
        Listen::Default { port: number } => {
            let dual_stack = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *number));
            bind(dual_stack, port).or_else(|error| {
                // EAFNOSUPPORT or EADDRNOTAVAIL: the host has no IPv6.
                let no_ipv6 = matches!(error.raw_os_error(), Some(97 | 99));
                if no_ipv6 {
                    bind((Ipv4Addr::UNSPECIFIED, *number).into(), port)
                } else {
                    Err(error)
                }
            })
        }
    }
}

fn bind(address: SocketAddr, port: Port) -> io::Result<(Listener, String)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(port == Port::Shared)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    prepare(&socket)?;
    socket.bind(&address.into())?;
    // mio would use 128, which overflows when many clients reconnect at once.
    socket.listen(limits::BACKLOG)?;
    let listener = TcpListener::from_std(socket.into());
    let address = listener.local_addr()?.to_string();
    Ok((Listener::Tcp(listener), address))
}

/// Sets the options here, since accepted sockets inherit them without a system call each.
pub(super) fn prepare<'s>(socket: impl Into<SockRef<'s>>) -> io::Result<()> {
    let socket = socket.into();
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_nonblocking(true)
}

/// Limits the buffers of accepted sockets, which inherit them. Unix sockets do not, but their
/// clients are on this machine and few.
pub(crate) fn limit_buffers(listener: &Listener, bytes: u32) -> io::Result<()> {
    let Listener::Tcp(listener) = listener else { return Ok(()) };
    let socket = SockRef::from(listener);
    socket.set_send_buffer_size(bytes as usize)?;
    socket.set_recv_buffer_size(bytes as usize)
}
