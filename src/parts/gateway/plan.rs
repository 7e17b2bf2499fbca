//! The configuration of the gateway: backend, routes, request format, access to callbacks.

use std::borrow::Cow;

use super::part;
use super::select::Expression;
use crate::limits;
use crate::parts::{self, DrawId};
use crate::proto::http::is_host;
use crate::proto::url::{Parts, Protocol};
use crate::server::part::Part;
use crate::target::Target;

/// Maximum length of a route key.
const KEY_BYTES: usize = 128;
const ROUTES_MAX: usize = 64;

type Read<T> = Result<T, Cow<'static, str>>;

/// The configuration of the gateway.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The default backend.
    pub backend: Backend,
    /// The stage name.
    pub stage: String,
    /// Selects the route of a message.
    pub expression: Option<Expression>,
    /// Route keys; `None`: the default backend.
    pub routes: Vec<(String, Option<Backend>)>,
    /// The format of requests.
    pub format: Format,
    /// The domain name sent to backends; `None`: `Host` of the upgrade request.
    pub domain: Option<String>,
    /// Whether response bodies are sent to the client.
    pub reply: bool,
    /// Whether binary messages are accepted.
    pub binary: bool,
    /// Divides [`IDLE_MS`](super::IDLE_MS) and [`LIFE_MS`](super::LIFE_MS).
    pub time_scale: u64,
    /// Whether callbacks from any machine are accepted without authentication.
    pub open: bool,
    /// File with the token for callbacks; empty: none.
    pub token_file: String,
    /// File with the access keys for signed callbacks; empty: none.
    pub credentials_file: String,
    /// Draws connection ids.
    pub draw: DrawId,
}

impl Plan {
    /// The default backend, then those of the routes.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        [&self.backend].into_iter().chain(self.routes.iter().filter_map(|(_, own)| own.as_ref()))
    }
}

impl parts::Plan for Plan {
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part> {
        part::new(*self, seed)
    }

    /// Callers must be authenticated unless the operator opts out. The caller's address is no
    /// substitute: behind the sidecar of a service mesh all callers have 127.0.0.6.
    fn check_admin(&self, address: &str) -> Result<(), String> {
        if self.open || !self.token_file.is_empty() || !self.credentials_file.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{address} accepts gateway callbacks from other machines: use --gateway-token-file or \
             --gateway-credentials-file, or --gateway-open to accept them without authentication"
        ))
    }

    fn draw_from(&mut self, draw: DrawId) {
        self.draw = draw;
    }

    fn descriptors(&self) -> usize {
        limits::OUTBOUND_CONNECTIONS + limits::CALLBACK_CONNECTIONS
    }
}

/// The format of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A JSON object with connection id, message, domain and stage.
    #[default]
    Template,
    /// The message as is; the connection id in a header field.
    Proxy,
    /// The event that AWS sends to Lambda functions.
    Event,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The URL as given.
    pub url: String,
    /// Value of the `Host` field.
    pub host: String,
    /// The address to connect to.
    pub target: Target,
    /// Path and query.
    pub path: String,
}

impl Backend {
    /// Parses `http(s)://HOST[:PORT][/PATH][?QUERY]`.
    ///
    /// # Errors
    /// What the URL must look like.
    pub fn parse(url: &str) -> Read<Self> {
        const FORM: &str = "must be http://HOST[:PORT][/PATH] or https://…, such as \
                            http://127.0.0.1:8501";
        let parts = Parts::read(url, Protocol::Http).map_err(|flaw| flaw.clause(FORM))?;
        if parts.path.bytes().any(|b| b"\\\"<>^`{|}".contains(&b)) || parts.path.starts_with("//") {
            return Err("must have a percent-encoded path that does not begin with //".into());
        }
        let target = Target::public(&parts.server, parts.scheme);
        let (host, path) = (parts.host.to_owned(), parts.target());
        Ok(Self { url: url.to_owned(), host, target, path })
    }

    /// The path for `$connect` and `$disconnect`.
    pub(super) fn connect_path(&self) -> String {
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/connect{mark}{query}", path.trim_end_matches('/'))
    }
}

/// Parses a stage name, as in AWS; it becomes part of paths.
///
/// # Errors
/// What the name must look like.
pub fn stage(text: &str) -> Read<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be a name of letters, digits, - and _, such as prod".into())
    }
}

/// Parses a host with an optional port.
///
/// # Errors
/// What the host must look like.
pub fn domain(text: &str) -> Read<String> {
    if !text.is_empty() && text.len() <= 253 && is_host(text) {
        Ok(text.to_owned())
    } else {
        Err("must be a host with an optional port, such as ws.example.com".into())
    }
}

/// Parses `KEY=URL,…`, or `KEY` alone for the default backend.
///
/// # Errors
/// The first invalid route.
pub fn routes(text: &str) -> Read<Vec<(String, Option<Backend>)>> {
    let mut routes: Vec<(String, Option<Backend>)> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (key, url) = match part.split_once('=') {
            Some((key, url)) => (key, Some(url)),
            None => (part, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:".contains(&b);
        if !(1..=KEY_BYTES).contains(&key.len()) || !key.bytes().all(plain) {
            return Err(format!(
                "invalid route key {key:?}: must be letters, digits and -_./: such as join"
            )
            .into());
        }
        if routes.iter().any(|(known, _)| known == key) {
            return Err(format!("duplicate route key {key:?}").into());
        }
        let backend = url.map(Backend::parse).transpose();
        let backend = backend.map_err(|why| format!("the URL of {key:?} {why}"))?;
        routes.push((key.to_owned(), backend));
    }
    if (1..=ROUTES_MAX).contains(&routes.len()) {
        Ok(routes)
    } else {
        Err("must be 1 to 64 routes: KEY=URL,KEY=URL or KEY,KEY".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends() {
        for (url, host, path, connect) in [
            ("http://127.0.0.1:8501", "127.0.0.1:8501", "/", "/connect"),
            ("http://api/", "api", "/", "/connect"),
            ("http://api/a/b", "api", "/a/b", "/a/b/connect"),
            ("https://api:8443/a/?k=v", "api:8443", "/a/?k=v", "/a/connect?k=v"),
            ("http://[::1]:8501/x", "[::1]:8501", "/x", "/x/connect"),
        ] {
            if url.starts_with("https") && cfg!(not(feature = "tls")) {
                assert!(Backend::parse(url).unwrap_err().starts_with("needs TLS"));
                continue;
            }
            let backend = Backend::parse(url).unwrap();
            assert_eq!((&*backend.host, &*backend.path), (host, path));
            assert_eq!(backend.connect_path(), connect);
        }
        for bad in [
            "",
            "127.0.0.1:80",
            "ws://x",
            "http://",
            "http://u@h",
            "http://h:0",
            "http://h:x",
            "http://h/a b",
            "http://h/\r\n",
            "http://h//x",
            "http://h/#a",
            "http://:80",
        ] {
            assert!(Backend::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn route_lists() {
        let read = routes("join=http://a/j, leave").unwrap();
        assert_eq!((&*read[0].0, &*read[1].0), ("join", "leave"));
        assert!(read[0].1.is_some() && read[1].1.is_none());
        for bad in ["", "$default=http://a", "a b", "a,a", "a=b", "☃"] {
            assert!(routes(bad).is_err(), "{bad}");
        }
        assert!(stage("prod").is_ok() && stage("a/b").is_err() && stage("").is_err());
        assert!(domain("h:80").is_ok() && domain("h/x").is_err() && domain("").is_err());
    }
}
