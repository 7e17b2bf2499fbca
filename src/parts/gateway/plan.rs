//! What the gateway is told at start: where the backend is, which routes there are, and what a
//! request looks like.

use std::borrow::Cow;

use super::part;
use super::select::Expression;
use crate::limits;
use crate::parts::{self, DrawId};
use crate::proto::http::is_host;
use crate::proto::url::{Parts, Speech};
use crate::server::part::Part;
use crate::target::Target;

/// A key of a route is no longer.
const KEY_BYTES: usize = 128;
/// So many routes.
const ROUTES_MAX: usize = 64;

type Read<T> = Result<T, Cow<'static, str>>;

/// What the gateway is told at start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where messages go.
    pub backend: Backend,
    /// The stage's name.
    pub stage: String,
    /// What of a message says its route.
    pub expression: Option<Expression>,
    /// Routes by key, each with a backend of its own or the usual one.
    pub routes: Vec<(String, Option<Backend>)>,
    /// What a request looks like.
    pub format: Format,
    /// The domain that backends are told; none: `Host` at connect.
    pub domain: Option<String>,
    /// Whether the body of an answer goes to the client.
    pub reply: bool,
    /// Whether binary messages are taken.
    pub binary: bool,
    /// How much faster than AWS idle connections and old ones end.
    pub time_scale: u64,
    /// Whether callbacks are taken from everywhere without a token.
    pub open: bool,
    /// The file with the token for callbacks; empty: there is none.
    pub token_file: String,
    /// The file with the credentials that callbacks are signed with; empty: there is none.
    pub credentials_file: String,
    /// Where names come from.
    pub draw: DrawId,
}

impl Plan {
    /// The backend, and those of routes that have their own.
    pub(super) fn backends(&self) -> impl Iterator<Item = &Backend> {
        [&self.backend].into_iter().chain(self.routes.iter().filter_map(|(_, own)| own.as_ref()))
    }
}

impl parts::Plan for Plan {
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part> {
        part::new(*self, seed)
    }

    /// Callers have to be authenticated, unless the operator has decided against that. The address
    /// of the caller is no substitute: behind the sidecar of a mesh all callers have 127.0.0.6.
    fn check_admin(&self, address: &str) -> Result<(), String> {
        if self.open || !self.token_file.is_empty() || !self.credentials_file.is_empty() {
            return Ok(());
        }
        Err(format!(
            "other machines can send callbacks to the gateway through {address}: it needs \
             --gateway-token-file or --gateway-credentials-file, or --gateway-open to take them \
             from anyone"
        ))
    }

    fn draw_from(&mut self, draw: DrawId) {
        self.draw = draw;
    }

    fn descriptors(&self) -> usize {
        limits::OWN_CONNECTIONS + limits::CALLBACK_CONNECTIONS
    }
}

/// What a request looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// JSON with id, text, domain and stage.
    #[default]
    Template,
    /// The message as it is, and its id in a field.
    Proxy,
    /// The event that AWS makes of it.
    Event,
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The URL as it was given.
    pub url: String,
    /// For the `Host` field.
    pub host: String,
    /// What is connected to.
    pub target: Target,
    /// Path and query.
    pub path: String,
}

impl Backend {
    /// Reads `http(s)://HOST[:PORT][/PATH][?QUERY]`.
    ///
    /// # Errors
    /// What it must be.
    pub fn parse(url: &str) -> Read<Self> {
        const FORM: &str = "must be http://HOST[:PORT][/PATH] or https://…, such as \
                            http://127.0.0.1:8501";
        let parts = Parts::read(url, Speech::Http).map_err(|flaw| flaw.clause(FORM))?;
        if parts.path.bytes().any(|b| b"\\\"<>^`{|}".contains(&b)) || parts.path.starts_with("//") {
            return Err("must have a plain path: not //, and the rest encoded as %XX".into());
        }
        let target = Target::public(&parts.place, parts.scheme);
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

/// A stage's name, as AWS has them: it becomes a part of paths.
///
/// # Errors
/// What it must be.
pub fn stage(text: &str) -> Read<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("must be a name of letters, digits, - and _, such as prod".into())
    }
}

/// A domain's name, perhaps with a port.
///
/// # Errors
/// What it must be.
pub fn domain(text: &str) -> Read<String> {
    if !text.is_empty() && text.len() <= 253 && is_host(text) {
        Ok(text.to_owned())
    } else {
        Err("must be a host, perhaps with a port, such as ws.example.com".into())
    }
}

/// `key=URL,…`, or a key alone for the usual backend.
///
/// # Errors
/// What it must be.
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
                "{key:?} is no key of a route: letters, digits and -_./: such as join"
            )
            .into());
        }
        if routes.iter().any(|(known, _)| known == key) {
            return Err(format!("{key:?} is there twice").into());
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
