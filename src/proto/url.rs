//! URLs as people write them: `SCHEME://HOST[:PORT][/PATH][?QUERY]`, and `HOST:PORT`. There is one
//! reader for all of them; whoever asks for a URL adds what else it must be.

use core::fmt;
use core::net::{IpAddr, Ipv6Addr};

/// A name is no longer (RFC 1035 §3.1).
const NAME_BYTES: usize = 253;

/// Whether there is TLS around what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ws://`, `http://`
    Plain,
    /// `wss://`, `https://`
    Secured,
}

impl Scheme {
    /// What a URL means by no port.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Secured => 443,
        }
    }
}

/// What is spoken at a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speech {
    /// `http://` and `https://`
    Http,
    /// `ws://` and `wss://`
    WebSocket,
}

impl Speech {
    fn scheme(self, name: &str) -> Result<Scheme, Flaw> {
        let (plain, secured) = match self {
            Self::Http => ("http", "https"),
            Self::WebSocket => ("ws", "wss"),
        };
        // RFC 3986 §3.1: in any letter case.
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

/// A part of a URL that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// No scheme, or another one.
    Scheme,
    /// This build cannot speak it.
    NoTls,
    /// A user or a password.
    User,
    /// No host, or one that none can have.
    Host,
    /// No port that there is.
    Port,
    /// A fragment.
    Fragment,
    /// What must be encoded, and is not.
    Path,
}

/// Why a URL cannot be used, as a clause.
pub type Wrong = &'static str;

impl Flaw {
    /// The clause; `form` is the one that says what such a URL looks like as a whole.
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
    /// How it begins.
    pub scheme: Scheme,
    /// Host and port as they stand there: for the `Host` field.
    pub host: &'t str,
    /// Where to connect to.
    pub place: Place,
    /// Path and query as they stand there, perhaps nothing.
    pub path: &'t str,
}

impl<'t> Parts<'t> {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// Which part cannot be used.
    pub fn read(text: &'t str, speech: Speech) -> Result<Self, Flaw> {
        let (scheme, rest) = text.split_once("://").ok_or(Flaw::Scheme)?;
        let scheme = speech.scheme(scheme)?;
        let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // RFC 6455 §3 forbids it, and no request ever carries it (RFC 9110 §7.1).
        if path.contains('#') {
            return Err(Flaw::Fragment);
        }
        if host.contains('@') {
            return Err(Flaw::User);
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Flaw::Path);
        }
        let place = Place::read(host, Some(scheme.port()))?;
        Ok(Self { scheme, host, place, path })
    }

    /// Path and query as a request line has them, where a path is never empty.
    #[must_use]
    pub fn target(&self) -> String {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("{slash}{}", self.path)
    }
}

/// Where a server is, before names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A name, or an address without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl Place {
    /// Reads `HOST:PORT`; without a port it is the usual one, if there is such.
    ///
    /// # Errors
    /// Which part cannot be used.
    pub fn read(host: &str, usual: Option<u16>) -> Result<Self, Flaw> {
        let (name, port) = split_port(host)?;
        let port = port.or(usual).filter(|port| *port > 0).ok_or(Flaw::Port)?;
        Ok(Self { name: name.to_owned(), port })
    }

    /// As the `Host` field has it: the usual port is left out.
    #[must_use]
    pub fn shown(&self, usual: u16) -> String {
        let whole = self.to_string();
        match whole.rsplit_once(':') {
            Some((host, _)) if self.port == usual => host.to_owned(),
            _ => whole,
        }
    }
}

/// A host's name, or its address without brackets, and its port if it has one.
///
/// # Errors
/// Which of the two cannot be used.
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

/// What can be looked up, or is an IPv4 address.
fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.parse() {
            Ok(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}", self.port),
            Ok(IpAddr::V4(_)) | Err(_) => write!(f, "{}:{}", self.name, self.port),
        }
    }
}

/// A WebSocket's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As it was given.
    pub text: String,
    /// How it begins.
    pub scheme: Scheme,
    /// Where to connect to.
    pub place: Place,
    /// For the `Host` field: as in the URL.
    pub host: String,
    /// Path and query.
    pub path: String,
}

impl Url {
    /// Reads a WebSocket's URL.
    ///
    /// # Errors
    /// What it must be.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        const FORM: Wrong =
            "must be ws://HOST[:PORT][/PATH][?QUERY], such as ws://localhost:8080/echo";
        let parts = Parts::read(text, Speech::WebSocket).map_err(|flaw| match flaw {
            Flaw::Scheme if Parts::read(text, Speech::Http) != Err(Flaw::Scheme) => {
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
            place: parts.place,
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
            let seen = (url.place.to_string(), url.host, url.path);
            assert_eq!(seen, (place.to_owned(), host.to_owned(), path.to_owned()), "{text}");
        }
        assert_eq!(Url::parse("ws://h").unwrap().scheme, Scheme::Plain);
        if cfg!(feature = "tls") {
            let secured = Url::parse("wss://h/x").unwrap();
            let seen = (secured.scheme, secured.place.to_string(), secured.host);
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
        assert_eq!(Place::read("h:81", None).unwrap().to_string(), "h:81");
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
            assert_eq!(Place::read(bad, None), Err(flaw), "{bad}");
        }
        assert!(Place::read(&format!("{}:1", "h".repeat(254)), None).is_err());
        for (host, shown) in [("h:80", "h"), ("h:81", "h:81"), ("[::1]:80", "[::1]")] {
            assert_eq!(Place::read(host, None).unwrap().shown(80), shown);
        }
    }
}
