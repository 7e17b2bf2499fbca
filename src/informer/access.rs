//! How an API server is reached: where it listens, whether through TLS, and who we say we are.
//! It knows where secrets lie, not how files are read.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::engine::Target;

/// An API server, and who we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Where it listens.
    pub host: String,
    /// On which port.
    pub port: u16,
    /// What stands before `/apis` in its paths, without a slash at the end.
    pub prefix: String,
    /// How it is made sure that it is the right one; `None`: plain HTTP.
    pub tls: Option<Tls>,
    /// Who we are.
    pub token: Token,
}

/// What TLS needs to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name in its certificate, if that is not the host.
    pub server_name: Option<String>,
    /// Whose signature counts.
    pub authority: Pem,
    /// Our own certificate and its key.
    pub client: Option<(Pem, Pem)>,
    /// Whether any certificate is good enough.
    pub insecure: bool,
}

/// Where a certificate or a key is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pem {
    /// Nowhere: what the system trusts.
    #[default]
    None,
    /// Here.
    Text(Vec<u8>),
    /// In this file.
    File(String),
}

/// Where the token is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Token {
    /// None is needed.
    #[default]
    None,
    /// Here.
    Text(String),
    /// In this file, which changes.
    File(String),
}

/// Why an address is none that can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadUrl {
    /// Neither `http://` nor `https://`.
    Scheme,
    /// No host, or one that none can have.
    Host,
    /// No port.
    Port,
    /// A query, a fragment, or a path that would need to be escaped.
    Path,
}

impl core::fmt::Display for BadUrl {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Scheme => "must begin with http:// or https://",
            Self::Host => "must have a host, such as http://127.0.0.1:8001",
            Self::Port => "must have a port from 1 to 65535",
            Self::Path => "must have a path of letters, digits and -._~/ or none",
        })
    }
}

impl Access {
    /// `http://127.0.0.1:8001`, as `kubectl proxy` says it, or the `server` of a kubeconfig.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_url(url: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = url.split_once("://").ok_or(BadUrl::Scheme)?;
        let (tls, usual) = match scheme {
            "http" => (None, 80),
            "https" => (Some(Tls::default()), 443),
            _ => return Err(BadUrl::Scheme),
        };
        let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port > 0).ok_or(BadUrl::Port)?;
                (host, port)
            }
            _ => (place, usual),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let sound = match bare {
            Some(v6) => v6.parse::<core::net::Ipv6Addr>().is_ok(),
            None => host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        };
        if host.is_empty() || host.len() > 253 || !sound {
            return Err(BadUrl::Host);
        }
        let prefix = path.trim_end_matches('/');
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
        if !prefix.bytes().all(plain) || prefix.contains("//") {
            return Err(BadUrl::Path);
        }
        let host = bare.unwrap_or(host).to_owned();
        Ok(Self { host, port, prefix: prefix.to_owned(), tls, token: Token::None })
    }

    /// As the `Host` field has it.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, tls, .. } = self;
        let usual = if tls.is_some() { 443 } else { 80 };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if *port == usual { host } else { format!("{host}:{port}") }
    }

    /// What a connection there is asked for with; `None`: this build cannot get there.
    /// This is where TLS and names come in.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        if self.tls.is_some() {
            return None;
        }
        let ip = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().ok()?,
        };
        Some(Target::Tcp(SocketAddr::new(ip, self.port)))
    }

    /// Files that are read, and read again.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        if let Token::File(path) = &self.token {
            files.push(path.clone());
        }
        if let Some(tls) = &self.tls {
            let client = tls.client.iter().flat_map(|(certificate, key)| [certificate, key]);
            files.extend([&tls.authority].into_iter().chain(client).filter_map(|pem| match pem {
                Pem::File(path) => Some(path.clone()),
                Pem::None | Pem::Text(_) => None,
            }));
        }
        files
    }
}

/// A token as a file has it; `None`: half-written, or no token.
#[must_use]
pub fn token(bytes: &[u8]) -> Option<String> {
    const TOKEN_BYTES: usize = 16 * 1024;
    let token = std::str::from_utf8(bytes).ok()?.trim();
    let sound = !token.is_empty()
        && token.len() <= TOKEN_BYTES
        && token.bytes().all(|b| b.is_ascii_graphic());
    sound.then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_can_be_reached() {
        for (url, authority, prefix, tls) in [
            ("http://127.0.0.1:8001", "127.0.0.1:8001", "", false),
            ("http://localhost", "localhost", "", false),
            ("https://k8s.example/", "k8s.example", "", true),
            (
                "https://[fd00::1]:6443/k8s/clusters/c-1/",
                "[fd00::1]:6443",
                "/k8s/clusters/c-1",
                true,
            ),
        ] {
            let access = Access::from_url(url).unwrap();
            assert_eq!((&*access.authority(), &*access.prefix), (authority, prefix));
            assert_eq!(access.tls.is_some(), tls);
        }
    }

    #[test]
    fn urls_that_cannot() {
        for (url, why) in [
            ("127.0.0.1:8001", BadUrl::Scheme),
            ("ftp://x", BadUrl::Scheme),
            ("http://", BadUrl::Host),
            ("http://a b", BadUrl::Host),
            ("http://user@host", BadUrl::Host),
            ("http://[::1", BadUrl::Host),
            ("http://[x]", BadUrl::Host),
            ("http://x:0", BadUrl::Port),
            ("http://x:99999", BadUrl::Port),
            ("http://x/?a", BadUrl::Path),
            ("http://x/a//b", BadUrl::Path),
            ("http://x/\r\n", BadUrl::Path),
        ] {
            assert_eq!(Access::from_url(url), Err(why), "{url}");
        }
    }

    #[test]
    fn half_a_token_is_none() {
        assert_eq!(token(b"abc.def\n").as_deref(), Some("abc.def"));
        for bytes in [&b""[..], b"\n", b"a b", b"a\0", b"\xff"] {
            assert_eq!(token(bytes), None);
        }
    }
}
