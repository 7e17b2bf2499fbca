//! Where a connection of an engine's own goes, through TLS or not, and whom it trusts there.
//! (`core::net` is arithmetic on addresses; it opens nothing.)

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::error::Error;
use std::io;

use crate::proto::url::{Place, Scheme};

/// Where a connection of the engine's own goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To this address and port.
    Tcp(SocketAddr),
    /// To a host of this name, which is looked up; its addresses are tried in their order.
    Name {
        /// Its name.
        host: Box<str>,
        /// Its port.
        port: u16,
    },
    /// To the Unix socket at this path.
    Unix(Box<str>),
    /// To whoever started this process: what they type comes in, what is sent they see.
    Terminal,
    /// To one of the others, and TLS there.
    Tls(Box<Secured>),
}

impl Target {
    /// To a host by its name, or by its address, with brackets around IPv6 or without.
    #[must_use]
    pub fn host(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Self::Tcp(SocketAddr::new(ip, port)),
            Err(_) => Self::Name { host: host.into(), port },
        }
    }

    /// To this place, and through TLS to one that Mozilla's list vouches for.
    #[must_use]
    pub fn public(place: &Place, scheme: Scheme) -> Self {
        let to = Self::host(&place.name, place.port);
        match scheme {
            Scheme::Plain => to,
            Scheme::Secured => to.secured(&place.name, Trust::public()),
        }
    }

    /// The same through TLS: `name` is what the server's certificate must be for, a host's name or
    /// its address; it need not be what is connected to.
    #[must_use]
    pub fn secured(self, name: &str, trust: Trust) -> Self {
        Self::Tls(Box::new(Secured { to: self, name: name.into(), trust }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Terminal => f.write_str("terminal"),
            Self::Tls(secured) => secured.to.fmt(f),
        }
    }
}

/// A connection with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Where it goes; no TLS in TLS.
    pub to: Target,
    /// Whom its certificate must be for.
    pub name: Box<str>,
    /// Who may vouch for it.
    pub trust: Trust,
}

/// Who is trusted, and who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// Who may vouch for the server.
    pub roots: Roots,
    /// What we show when we are asked who we are.
    pub identity: Option<Identity>,
}

impl Trust {
    /// Whoever Mozilla trusts, from the list that this program was built with.
    #[must_use]
    pub fn public() -> Self {
        Self { roots: Roots::Public, identity: None }
    }

    /// These certificates and nobody else.
    #[must_use]
    pub fn pem(pem: &[u8]) -> Self {
        Self { roots: Roots::Pem(pem.into()), identity: None }
    }

    /// Anyone: for tests.
    #[must_use]
    pub fn anyone() -> Self {
        Self { roots: Roots::Anyone, identity: None }
    }

    /// The same, with a certificate of our own.
    #[must_use]
    pub fn showing(mut self, chain_pem: &[u8], key_pem: &[u8]) -> Self {
        let identity = Identity { chain_pem: chain_pem.into(), key_pem: key_pem.into() };
        self.identity = Some(identity);
        self
    }
}

/// Who may vouch for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Whoever Mozilla trusts.
    Public,
    /// These certificates, in PEM.
    Pem(Box<[u8]>),
    /// Nobody has to.
    Anyone,
}

/// A certificate of our own with its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and those between it and its root.
    pub chain_pem: Box<[u8]>,
    /// Its private key.
    pub key_pem: Box<[u8]>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key must not get into a log.
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Why there is no TLS with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsFault {
    /// Nobody that we trust vouches for it.
    NotTrusted,
    /// Its certificate may vouch for others, and not stand for a server.
    Authority,
    /// Its certificate was good once.
    Expired,
    /// Its certificate will be good one day.
    NotValidYet,
    /// Its certificate is somebody else's.
    WrongName,
    /// It speaks something else.
    NotTls,
    /// It does not want us: it may ask for a certificate of ours.
    Refused,
    /// It has no version or cipher in common with us.
    Incompatible,
    /// The certificates that we are to trust cannot be read.
    RootsUnusable,
    /// Our own certificate and key cannot be used.
    IdentityUnusable,
    /// It broke a rule.
    Broken,
    /// This program was built without TLS.
    NotBuilt,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTrusted => "its certificate is not trusted",
            Self::Authority => {
                "its certificate is an authority's, not a server's: make one with CA:FALSE"
            }
            Self::Expired => "its certificate has expired",
            Self::NotValidYet => "its certificate is not valid yet",
            Self::WrongName => "its certificate is for another name",
            Self::NotTls => "it does not speak TLS",
            Self::Refused => "it refused us with a TLS alert",
            Self::Incompatible => "it has no TLS version or cipher in common with us",
            Self::RootsUnusable => "the CA certificates that it should be checked by are no PEM",
            Self::IdentityUnusable => "our own certificate and key cannot be used",
            Self::Broken => "it does not keep to the rules of TLS",
            Self::NotBuilt => "this build has no TLS",
        })
    }
}

impl Error for TlsFault {}

impl From<TlsFault> for io::Error {
    fn from(fault: TlsFault) -> Self {
        Self::new(io::ErrorKind::InvalidData, fault)
    }
}
