//! Parses URLs of the form `SCHEME://HOST[:PORT][/PATH][?QUERY]`, and `HOST:PORT`. All URLs of
//! options and configuration go through this parser; callers add their own restrictions.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// The longest host name (RFC 1035 §3.1).
const NAME_BYTES: usize = 253;

/// Whether a URL uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ws://`, `http://`
    Plain,
    /// `wss://`, `https://`
    Secured,
}

impl Scheme {
    /// The default port.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Secured => 443,
        }
    }
}

/// The protocol of a URL, which decides about its schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http://` and `https://`
    Http,
    /// `ws://` and `wss://`
    WebSocket,
}

impl Protocol {
    fn scheme(self, name: &str) -> Result<Scheme, Flaw> {
        let (plain, secured) = match self {
            Self::Http => ("http", "https"),
            Self::WebSocket => ("ws", "wss"),
        };
        // RFC 3986 §3.1: schemes are case-insensitive.
        if name.eq_ignore_ascii_case(plain) {
            Ok(Scheme::Plain)
        } else if !name.eq_ignore_ascii_case(secured) {
            Err(Flaw::Scheme)
        } else if cfg!(feature = "tls") {
            Ok(Scheme::Secured)
        } else {
            Err(Flaw::NoTls)
        }
    }
}

/// The part of a URL that is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The scheme is missing or of another protocol.
    Scheme,
    /// The scheme needs TLS, which this build lacks.
    NoTls,
    /// It has a user or password.
    User,
    /// The host is missing or malformed.
    Host,
    /// The port is missing or not from 1 to 65535.
    Port,
    /// It has a fragment.
    Fragment,
    /// The path has characters that must be percent-encoded.
    Path,
}

/// Why a URL is invalid, as a clause.
pub type Wrong = &'static str;

impl Flaw {
    /// The clause; `form` describes such a URL as a whole.
    #[must_use]
    pub fn clause(self, form: Wrong) -> Wrong {
        match self {
            Self::Scheme | Self::Host => form,
            Self::NoTls => "needs TLS, which this build does not have",
            Self::User => "must not have a user or password",
            Self::Port => "must have a port from 1 to 65535",
            Self::Fragment => "must not have a # part: write %23 for the character",
            Self::Path => "must have only visible ASCII in its path: encode the rest as %XX",
        }
    }
}

/// A URL in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts<'t> {
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Host and port as written, for the `Host` field.
    pub host: &'t str,
    /// The server to connect to.
    pub server: HostPort,
    /// Path and query as written, perhaps empty.
    pub path: &'t str,
}

impl<'t> Parts<'t> {
    /// Parses a URL.
    ///
    /// # Errors
    /// Which part is invalid.
    pub fn read(text: &'t str, protocol: Protocol) -> Result<Self, Flaw> {
        let (scheme, rest) = text.split_once("://").ok_or(Flaw::Scheme)?;
        let scheme = protocol.scheme(scheme)?;
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // RFC 6455 §3 forbids it, and no request carries it (RFC 9110 §7.1).
        if path.contains('#') {
            return Err(Flaw::Fragment);
        }
        if host.contains('@') {
            return Err(Flaw::User);
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Flaw::Path);
        }
        let server = HostPort::read(host, Some(scheme.port()))?;
        Ok(Self { scheme, host, server, path })
    }

    /// Path and query for a request line, where the path is never empty.
    #[must_use]
    pub fn target(&self) -> String {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("{slash}{}", self.path)
    }
}

/// A host and port; a name is not resolved yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A host name, or an address without brackets.
    pub name: String,
    /// From 1 to 65535.
    pub port: u16,
}

impl HostPort {
    /// Parses `HOST:PORT`; without a port, `default_port` is used if there is one.
    ///
    /// # Errors
    /// Which part is invalid.
    pub fn read(host: &str, default_port: Option<u16>) -> Result<Self, Flaw> {
        let (name, port) = split_port(host)?;
        let port = port.or(default_port).filter(|port| *port > 0).ok_or(Flaw::Port)?;
        Ok(Self { name: name.to_owned(), port })
    }

    /// For the `Host` field, which omits the default port.
    #[must_use]
    pub fn shown(&self, default_port: u16) -> String {
        let whole = self.to_string();
        match whole.rsplit_once(':') {
            Some((host, _)) if self.port == default_port => host.to_owned(),
            _ => whole,
        }
    }
}

/// Splits a host into its name, or its address without brackets, and its port if it has one.
///
/// # Errors
/// Which of the two is invalid.
pub fn split_port(host: &str) -> Result<(&str, Option<u16>), Flaw> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => {
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            (name, Some(port.parse().ok().filter(|_| digits).ok_or(Flaw::Port)?))
        }
        Some(_) | None => (host, None),
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => Ok((v6, port)),
        None if is_name(name) => Ok((name, port)),
        Some(_) | None => Err(Flaw::Host),
    }
}

/// Whether this is a host name or an IPv4 address.
fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.parse() {
            Ok(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Ok(IpAddr::V4(_)) | Err(_) => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// A WebSocket URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The URL as given.
    pub text: String,
    /// Plain or TLS.
    pub scheme: Scheme,
    /// The server to connect to.
    pub server: HostPort,
    /// The `Host` field: host and port as written.
    pub host: String,
    /// Path and query for the request line.
    pub path: String,
}

impl Url {
    /// Parses a WebSocket URL.
    ///
    /// # Errors
    /// What it must be, as a clause.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        const FORM: Wrong =
            "must be ws://HOST[:PORT][/PATH][?QUERY], such as ws://localhost:8080/echo";
        let parts = Parts::read(text, Protocol::WebSocket).map_err(|flaw| match flaw {
            Flaw::Scheme if Parts::read(text, Protocol::Http) != Err(Flaw::Scheme) => {
                "must begin with ws:// or wss://, not http:// or https://"
            }
            Flaw::User => "must not have a user or password: use --header 'Authorization: …'",
            _ => flaw.clause(FORM),
        })?;
        Ok(Self {
            text: text.to_owned(),
            scheme: parts.scheme,
            host: parts.host.to_owned(),
            path: parts.target(),
            server: parts.server,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, place, host, path) in [
            ("ws://h", "h:80", "h", "/"),
            ("ws://h:81", "h:81", "h:81", "/"),
            ("WS://h/a/b?c=d&e", "h:80", "h", "/a/b?c=d&e"),
            ("ws://h?x=1", "h:80", "h", "/?x=1"),
            ("ws://[::1]:8080/x", "[::1]:8080", "[::1]:8080", "/x"),
            ("ws://[::1]", "[::1]:80", "[::1]", "/"),
            ("ws://127.0.0.1:1/", "127.0.0.1:1", "127.0.0.1:1", "/"),
        ] {
            let url = Url::parse(text).unwrap();
            let seen = (url.server.to_string(), url.host, url.path);
            assert_eq!(seen, (place.to_owned(), host.to_owned(), path.to_owned()), "{text}");
        }
        assert_eq!(Url::parse("ws://h").unwrap().scheme, Scheme::Plain);
        if cfg!(feature = "tls") {
            let secured = Url::parse("wss://h/x").unwrap();
            let seen = (secured.scheme, secured.server.to_string(), secured.host);
            assert_eq!(seen, (Scheme::Secured, "h:443".to_owned(), "h".to_owned()));
        } else {
            assert!(Url::parse("wss://h").unwrap_err().starts_with("needs TLS"));
        }
        for (text, why) in [
            ("localhost:8080", "must be ws://HOST"),
            ("ws://", "must be ws://HOST"),
            ("ws://:80/", "must be ws://HOST"),
            ("ws://h:0/", "must have a port from 1 to 65535"),
            ("ws://h:65536", "must have a port from 1 to 65535"),
            ("ws://h:/", "must have a port from 1 to 65535"),
            ("ws://h:+1/", "must have a port from 1 to 65535"),
            ("ws://[::x]/", "must be ws://HOST"),
            ("ftp://h", "must be ws://HOST"),
            ("http://h", "must begin with ws://"),
            ("ws://u:p@h/", "must not have a user"),
            ("ws://h/#x", "must not have a #"),
            ("ws://h/a b", "must have only visible ASCII"),
            ("ws://h/\u{e9}", "must have only visible ASCII"),
        ] {
            assert!(Url::parse(text).unwrap_err().starts_with(why), "{text}");
        }
    }

    #[test]
    fn places() {
        assert_eq!(HostPort::read("h:81", None).unwrap().to_string(), "h:81");
        for (bad, flaw) in [
            ("h", Flaw::Port),
            ("h:", Flaw::Port),
            ("h:x", Flaw::Port),
            (":81", Flaw::Host),
            ("u@h:1", Flaw::Host),
            ("::1:80", Flaw::Host),
            ("[::1", Flaw::Host),
            ("", Flaw::Host),
        ] {
            assert_eq!(HostPort::read(bad, None), Err(flaw), "{bad}");
        }
        assert!(HostPort::read(&format!("{}:1", "h".repeat(254)), None).is_err());
        for (host, shown) in [("h:80", "h"), ("h:81", "h:81"), ("[::1]:80", "[::1]")] {
            assert_eq!(HostPort::read(host, None).unwrap().shown(80), shown);
        }
    }
}
