//! The address of a listener, shared by the options that parse it and `net`, which binds it.
//! (`core::net` only parses and formats addresses; it does no I/O.)

use core::fmt;
use core::net::SocketAddr;
use std::path::PathBuf;

/// Where to listen. Its `Display` form is what `--print-config` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// All addresses of the host: `[::]`, or `0.0.0.0` on a host without IPv6.
    Default {
        /// The port; 0 lets the kernel choose one.
        port: u16,
    },
    /// This address and port.
    At(SocketAddr),
    /// A Unix socket with this path.
    Unix(PathBuf),
}

impl Listen {
    /// Whether the kernel chooses the port.
    #[must_use]
    pub fn is_any_port(&self) -> bool {
        match self {
            Self::Default { port } => *port == 0,
            Self::At(at) => at.port() == 0,
            Self::Unix(_) => false,
        }
    }

    /// Whether only programs on this machine can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Default { .. } => false,
            Self::At(at) => at.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default { port } => write!(f, "[::]:{port}"),
            Self::At(at) => at.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
