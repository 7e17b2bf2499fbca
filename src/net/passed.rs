//! Listening sockets passed by a supervisor (`sd_listen_fds(3)`): systemd passes them from
//! descriptor 3 on, and `LISTEN_FDNAMES` says which listener each is for.

use core::fmt;
use std::env;
use std::io;
use std::os::fd::AsFd;

use listenfd::ListenFd;
use mio::net::{TcpListener, UnixListener};
use rustix::net::sockopt::socket_acceptconn;

use super::listen;
use super::socket::Listener;
use crate::engine::Side;

/// More listeners than anyone needs.
const SOCKETS_MAX: usize = 64;
/// The first passed descriptor (`SD_LISTEN_FDS_START`).
const FIRST: usize = 3;

/// A passed socket and its address.
#[derive(Debug)]
pub struct Passed {
    pub(crate) side: Side,
    pub(crate) listener: Listener,
    pub(crate) address: String,
}

impl Passed {
    /// Whether only programs on this machine can connect, judging by its address.
    pub(crate) fn is_local(&self) -> bool {
        let at = self.address.parse::<std::net::SocketAddr>();
        match &self.listener {
            Listener::Tcp(_) => at.is_ok_and(|at| at.ip().to_canonical().is_loopback()),
            Listener::Unix { .. } => true,
        }
    }
}

/// Why a passed socket cannot be used.
#[derive(Debug)]
pub enum PassedError {
    /// More sockets than `SOCKETS_MAX`.
    TooMany(usize),
    /// The descriptor is not a listening stream socket.
    NotListening(usize),
    /// A system call on the listening socket failed.
    Kernel(usize, io::Error),
}

impl fmt::Display for PassedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany(count) => {
                write!(f, "LISTEN_FDS: {count} sockets were passed, the limit is {SOCKETS_MAX}")
            }
            Self::NotListening(descriptor) => write!(
                f,
                "LISTEN_FDS: descriptor {descriptor} is not a listening TCP or Unix stream socket: \
                 the socket unit needs ListenStream= and Accept=no"
            ),
            Self::Kernel(descriptor, error) => {
                write!(f, "LISTEN_FDS: cannot serve on descriptor {descriptor}: {error}")
            }
        }
    }
}

/// Takes the sockets passed to this process and removes the variables. Must be called first:
/// before anything else is opened, and while there is one thread.
///
/// # Errors
/// When a passed descriptor cannot be used.
pub fn take() -> Result<Vec<Passed>, PassedError> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    // Variables inherited from a parent have another process id, or none.
    let ours = number("LISTEN_PID") == usize::try_from(std::process::id()).ok();
    let count = number("LISTEN_FDS").filter(|count| ours && *count > 0);
    let Some(count) = count else { return Ok(Vec::new()) };
    if count > SOCKETS_MAX {
        return Err(PassedError::TooMany(count));
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut sockets = ListenFd::from_env();
    (0..sockets.len())
        .map(|index| {
            let side = match names.next() {
                Some("admin") => Side::Admin,
                Some(_) | None => Side::Main,
            };
            one(&mut sockets, index, side)
        })
        .collect()
}

fn one(sockets: &mut ListenFd, index: usize, side: Side) -> Result<Passed, PassedError> {
    let descriptor = FIRST + index;
    let failed = |error| PassedError::Kernel(descriptor, error);
    if let Ok(Some(socket)) = sockets.take_tcp_listener(index) {
        check(descriptor, &socket)?;
        listen::prepare(&socket).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?.to_string();
        let listener = Listener::Tcp(TcpListener::from_std(socket));
        return Ok(Passed { side, listener, address });
    }
    let Ok(Some(socket)) = sockets.take_unix_listener(index) else {
        return Err(PassedError::NotListening(descriptor));
    };
    check(descriptor, &socket)?;
    socket.set_nonblocking(true).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    let address = match address.as_pathname() {
        Some(path) => format!("unix:{}", path.display()),
        None => "unix".to_owned(),
    };
    // The supervisor owns the file and keeps it for the next process.
    let listener = Listener::Unix { file: None, listener: UnixListener::from_std(socket) };
    Ok(Passed { side, listener, address })
}

/// With `Accept=yes` the descriptor would be a connection.
fn check(descriptor: usize, socket: impl AsFd) -> Result<(), PassedError> {
    match socket_acceptconn(socket) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(PassedError::NotListening(descriptor)),
    }
}
