//! `ws://HOST[:PORT][/PATH][?QUERY]` as people write it, `wss://…`, and `HOST:PORT`.

use core::fmt;
use core::net::IpAddr;

use super::http::is_host;

/// Whether there is TLS around what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `ws://`
    Plain,
    /// `wss://`
    Secured,
}

impl Scheme {
    /// What a URL means by no port.
    fn port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Secured => 443,
        }
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
    /// As it was given, but for what cannot be seen.
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

/// Why a URL cannot be used, as a clause.
pub type Wrong = &'static str;

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// What it must be.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        const WANT: Wrong =
            "must be ws://HOST[:PORT][/PATH][?QUERY], such as ws://localhost:8080/echo";
        let (scheme, rest) = text.split_once("://").ok_or(WANT)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "ws" => Scheme::Plain,
            "wss" if cfg!(feature = "tls") => Scheme::Secured,
            "wss" => return Err("needs TLS, which this build does not have"),
            "http" | "https" => {
                return Err("must begin with ws:// or wss://, not http:// or https://");
            }
            _ => return Err(WANT),
        };
        // RFC 6455 §3: a fragment has no meaning here.
        if rest.contains('#') {
            return Err("must not have a # part: write %23 for the character");
        }
        let (host, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if host.contains('@') {
            return Err("must not have a user or password: use --header 'Authorization: …'");
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("must have only visible ASCII in its path: encode the rest as %XX");
        }
        let place = Place::parse(host, Some(scheme.port())).ok_or(WANT)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Self {
            text: text.to_owned(),
            scheme,
            place,
            host: host.to_owned(),
            path: format!("{slash}{path}"),
        })
    }
}

impl Place {
    /// Reads `HOST:PORT`; without a port it is the usual one, if there is such.
    #[must_use]
    pub fn parse(host: &str, usual: Option<u16>) -> Option<Self> {
        if !is_host(host) {
            return None;
        }
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port.parse().ok()?)),
            Some(_) | None => (host, None),
        };
        let port = port.or(usual).filter(|port| *port > 0)?;
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        (!name.is_empty()).then_some(Self { name, port })
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
            ("ws://h:0/", "must be ws://HOST"),
            ("ws://h:65536", "must be ws://HOST"),
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
        assert_eq!(Place::parse("h:81", None).unwrap().to_string(), "h:81");
        for bad in ["h", "h:", ":81", "h:x", "u@h:1", ""] {
            assert_eq!(Place::parse(bad, None), None, "{bad}");
        }
    }
}
