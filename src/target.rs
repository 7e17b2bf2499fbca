//! Where an outgoing connection goes, with TLS or without, and which certificates it trusts.
//! (`core::net` only parses and formats addresses; it does no I/O.)

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::error::Error;
use std::io;

use crate::proto::url::{HostPort, Scheme};
use crate::secret::Secret;

/// Where an outgoing connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address and port.
    Tcp(SocketAddr),
    /// A host name, which is resolved; its addresses are tried as in RFC 8305.
    Name {
        /// The name to resolve.
        host: Box<str>,
        /// Its port.
        port: u16,
    },
    /// The path of a Unix socket.
    Unix(Box<str>),
    /// Standard input and output of this process.
    Terminal,
    /// Through an HTTP proxy.
    Tunnel(Box<Tunnel>),
    /// TLS over one of the others.
    Tls(Box<Secured>),
}

impl Target {
    /// A host by its name or address; an IPv6 address may be in brackets.
    #[must_use]
    pub fn host(host: &str, port: u16) -> Self {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            Ok(ip) => Self::Tcp(SocketAddr::new(ip, port)),
            Err(_) => Self::Name { host: host.into(), port },
        }
    }

    /// A host of the public internet; with TLS, Mozilla's root certificates are trusted.
    #[must_use]
    pub fn public(server: &HostPort, scheme: Scheme) -> Self {
        let to = Self::host(&server.name, server.port);
        match scheme {
            Scheme::Plain => to,
            Scheme::Secured => to.secured(&server.name, Trust::public()),
        }
    }

    /// Changes which certificates are trusted; without TLS nothing.
    pub fn set_trust(&mut self, trust: Trust) {
        if let Self::Tls(secured) = self {
            secured.trust = trust;
        }
    }

    /// The same with TLS. `name` is the host name or address that the server's certificate must be
    /// valid for; it may differ from what is connected to.
    #[must_use]
    pub fn secured(self, name: &str, trust: Trust) -> Self {
        Self::Tls(Box::new(Secured { to: self, name: name.into(), trust, alpn: HTTP_1_1 }))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Terminal => f.write_str("terminal"),
            Self::Tunnel(tunnel) => write!(f, "{} through {}", tunnel.server, tunnel.proxy),
            Self::Tls(secured) => secured.to.fmt(f),
        }
    }
}

/// A connection to a server that an HTTP proxy opens (CONNECT, RFC 9110 §9.3.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The proxy; [`Target::Tcp`] or [`Target::Name`].
    pub proxy: Target,
    /// The server. The proxy resolves its name.
    pub server: HostPort,
    /// The value of `Proxy-Authorization`, if the proxy needs one.
    pub authorization: Option<Secret>,
}

/// A TLS connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// The transport; must not be [`Target::Tls`].
    pub to: Target,
    /// The name that the certificate must be valid for.
    pub name: Box<str>,
    /// How the certificate is verified.
    pub trust: Trust,
    /// The protocols that are offered (ALPN, RFC 7301), the preferred one first.
    pub alpn: Alpn,
}

/// Protocols by their ALPN names; none if empty.
pub type Alpn = &'static [&'static [u8]];

/// What all our clients speak unless they say otherwise.
pub const HTTP_1_1: Alpn = &[b"http/1.1"];

/// What a TLS handshake with a server has agreed, and what its certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The version, such as `TLS 1.3`.
    pub version: &'static str,
    /// The protocol that the server has chosen (ALPN), if any.
    pub alpn: Option<Box<str>>,
    /// When its certificate expires, in seconds since 1970; `None` if that cannot be read.
    pub expires_s: Option<i64>,
    /// Whether the server sent only its own certificate, which another one has signed.
    pub lacks_issuer: bool,
}

/// Which servers are trusted, and our client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// What the server's certificate is checked against.
    pub roots: Roots,
    /// The client certificate, sent if the server requests one.
    pub identity: Option<Identity>,
}

impl Trust {
    /// Mozilla's root certificates, compiled into this binary.
    #[must_use]
    pub fn public() -> Self {
        Self { roots: Roots::Public, identity: None }
    }

    /// Only these root certificates, in PEM.
    #[must_use]
    pub fn pem(pem: &[u8]) -> Self {
        Self { roots: Roots::Pem(pem.into()), identity: None }
    }

    /// Skips certificate verification: for tests.
    #[must_use]
    pub fn unverified() -> Self {
        Self { roots: Roots::Unverified, identity: None }
    }

    /// The same with a client certificate.
    #[must_use]
    pub fn with_identity(mut self, chain_pem: &[u8], key_pem: &[u8]) -> Self {
        let identity = Identity { chain_pem: chain_pem.into(), key_pem: key_pem.into() };
        self.identity = Some(identity);
        self
    }
}

/// What a server's certificate is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roots {
    /// Mozilla's root certificates.
    Public,
    /// These root certificates, in PEM.
    Pem(Box<[u8]>),
    /// Nothing: verification is skipped.
    Unverified,
}

/// A client certificate with its key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate and its intermediates.
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

/// Why a TLS handshake with a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsFault {
    /// No trusted root signed its certificate.
    NotTrusted,
    /// Its certificate is a CA certificate, which must not identify a server.
    Authority,
    /// Its certificate has expired.
    Expired,
    /// The certificate's validity begins in the future.
    NotValidYet,
    /// Its certificate is for another name.
    WrongName,
    /// Its bytes are no TLS records.
    NotTls,
    /// It sent an alert, perhaps since it requires a client certificate.
    Refused,
    /// It shares no TLS version or cipher suite with us.
    Incompatible,
    /// The configured root certificates cannot be parsed.
    RootsUnusable,
    /// The configured client certificate or key cannot be used.
    IdentityUnusable,
    /// It violated the TLS protocol.
    Broken,
    /// This program was built without TLS.
    NotBuilt,
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTrusted => "its certificate is not trusted",
            Self::Authority => "its certificate is a CA certificate: make one with CA:FALSE",
            Self::Expired => "its certificate has expired",
            Self::NotValidYet => "its certificate is not valid yet",
            Self::WrongName => "its certificate is for another name",
            Self::NotTls => "it does not speak TLS",
            Self::Refused => "it rejected the handshake with a TLS alert",
            Self::Incompatible => "it supports no common TLS version or cipher suite",
            Self::RootsUnusable => "the CA certificates to check it against are not valid PEM",
            Self::IdentityUnusable => "the client certificate or its key cannot be used",
            Self::Broken => "it violates the TLS protocol",
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

/// Why a proxy did not open a connection to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProxyFault {
    /// The name of the proxy has no address, or the lookup failed.
    NoSuchName,
    /// Nothing listens at the proxy's port.
    Refused,
    /// The proxy cannot be connected to for another reason.
    Unreachable,
    /// It ended the connection without an answer.
    CutOff,
    /// Its answer is not a complete HTTP response head, or more follows it.
    Invalid,
    /// It answered with another status than 2xx.
    Answered(u16),
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSuchName => "the name of the proxy cannot be resolved",
            Self::Refused => "the proxy's port refuses connections",
            Self::Unreachable => "the proxy cannot be reached",
            Self::CutOff => "the proxy ended the connection without an answer",
            Self::Invalid => "the proxy's answer to CONNECT is not valid HTTP",
            // Some proxies answer 401 where RFC 9110 says 407.
            Self::Answered(status @ (401 | 407)) => {
                return write!(f, "the proxy answered {status}: it requires other credentials");
            }
            Self::Answered(status) => return write!(f, "the proxy answered CONNECT with {status}"),
        })
    }
}

impl Error for ProxyFault {}

impl From<ProxyFault> for io::Error {
    fn from(fault: ProxyFault) -> Self {
        Self::new(io::ErrorKind::ConnectionRefused, fault)
    }
}
