//! Names become addresses. The system's way to do that can take minutes and cannot be stopped, so
//! a thread does it, and is left behind when the time is up.

use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

/// The resolver of the C library wants more than a thread of ours otherwise has.
const STACK_BYTES: usize = 512 * 1024;

/// Why there is no address.
#[derive(Debug)]
pub enum LookUpError {
    /// Nobody has answered so far.
    TooSlow,
    /// There is none, or nobody to ask.
    System(io::Error),
}

impl fmt::Display for LookUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSlow => f.write_str("nobody answers"),
            Self::System(error) => error.fmt(f),
        }
    }
}

/// The addresses of a name, at least one.
pub(super) fn look_up(
    name: &str,
    port: u16,
    patience: Duration,
) -> Result<Vec<SocketAddr>, LookUpError> {
    let (sender, found) = sync_channel(1);
    let name = name.to_owned();
    let work = move || {
        let addresses = (name.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Whoever asked may have gone.
        drop(sender.send(addresses));
    };
    let begun = thread::Builder::new().name("resolve".into()).stack_size(STACK_BYTES).spawn(work);
    begun.map_err(LookUpError::System)?;
    let addresses: Vec<SocketAddr> = match found.recv_timeout(patience) {
        Ok(answer) => answer.map_err(LookUpError::System)?,
        Err(_) => return Err(LookUpError::TooSlow),
    };
    if addresses.is_empty() {
        return Err(LookUpError::System(io::ErrorKind::NotFound.into()));
    }
    Ok(addresses)
}
