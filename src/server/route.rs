//! An HTTP route and the kinds of replies. The routes themselves are in `routes` and in the parts.

use serde::Serialize;

use crate::engine::Side;
use crate::proto::http::{Method, percent_decoded};
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;
use crate::server::config::{Config, Surface};

/// An HTTP route.
#[derive(Debug)]
pub struct Route {
    /// The path, below the base path. A segment in braces matches any segment.
    pub path: &'static str,
    /// Whether the path has segments in braces.
    pub(super) has_wildcards: bool,
    /// Which listener serves it.
    pub served_on: ServedOn,
    /// A further condition for documents, or empty.
    pub condition: &'static str,
    /// Description for documents.
    pub about: &'static str,
    pub(super) methods: &'static [Method],
    /// Maximum body; `None` if it takes none.
    pub(super) body_bytes: Option<u64>,
    /// Requests with this header field come from a gateway with the fields of its client, so their
    /// `Origin` is not the sender's. A page cannot add it to requests to other sites.
    pub(super) forwarded_with: Option<&'static str>,
}

impl Route {
    /// A route of a part. Its GET must not change anything.
    #[must_use]
    pub const fn for_part(
        path: &'static str,
        (served_on, condition): (ServedOn, &'static str),
        about: &'static str,
        methods: &'static [Method],
        body_bytes: u64,
    ) -> Self {
        let body_bytes = Some(body_bytes);
        let (has_wildcards, forwarded_with) = (has_wildcards(path), None);
        Self {
            path,
            has_wildcards,
            served_on,
            condition,
            about,
            methods,
            body_bytes,
            forwarded_with,
        }
    }

    /// The same; requests with this header field may have the `Origin` of a gateway's client.
    #[must_use]
    pub const fn forwarded_with(mut self, field: &'static str) -> Self {
        self.forwarded_with = Some(field);
        self
    }

    /// Listener and condition, for documents.
    #[must_use]
    pub fn place(&self) -> String {
        match self.condition {
            "" => self.served_on.name().to_owned(),
            condition => format!("{}, {condition}", self.served_on.name()),
        }
    }

    /// A segment in braces matches any segment; a last one in braces matches the non-empty rest.
    /// Literal segments may be percent-encoded in the request.
    pub(super) fn matches(&self, path: &str) -> bool {
        if !self.has_wildcards {
            return self.path == path;
        }
        let (mut row, mut asked) = (self.path.split('/').peekable(), path.split('/'));
        while let Some(known) = row.next() {
            let Some(part) = asked.next() else { return false };
            if !known.starts_with('{') {
                if percent_decoded(part).as_deref() != Some(known) {
                    return false;
                }
            } else if part.is_empty() && (row.peek().is_some() || asked.next().is_none()) {
                return false;
            } else if row.peek().is_none() {
                return true;
            }
        }
        asked.next().is_none()
    }
}

/// Whether a path of a route has segments in braces.
pub(super) const fn has_wildcards(path: &str) -> bool {
    let (bytes, mut at) = (path.as_bytes(), 0);
    while at < bytes.len() && bytes[at] != b'{' {
        at += 1;
    }
    at < bytes.len()
}

/// Which listener serves a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedOn {
    /// The main listener.
    Main,
    /// The admin listener.
    Admin,
    /// Both listeners.
    Both,
    /// Both listeners, with `--faults`.
    Faults,
    /// The admin listener; with [`Surface::Bare`] the main listener.
    Monitoring,
}

impl ServedOn {
    pub(super) fn includes(self, side: Side, config: &Config) -> bool {
        if config.surface == Surface::Bare {
            return matches!(self, Self::Both | Self::Monitoring);
        }
        match self {
            Self::Main => side == Side::Main,
            Self::Admin | Self::Monitoring => side == Side::Admin,
            Self::Both => true,
            Self::Faults => config.faults,
        }
    }

    /// The name in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Admin => "admin",
            Self::Both => "both",
            Self::Faults => "both, with `--faults`",
            Self::Monitoring => "admin, backend",
        }
    }
}

/// The body of a request, or why it was not read.
pub type RequestBody<'b> = Result<&'b [u8], Refusal>;

/// The result of a request.
#[derive(Debug)]
pub enum Reply {
    /// Respond now.
    Now(Response<'static>),
    /// Respond later.
    Later {
        /// The timeout.
        after_ms: u64,
        /// The kind of response.
        what: Deferred,
    },
}

/// A response that is sent later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deferred {
    /// 200 `Ok` after the wait of a preStop hook.
    Drain,
    /// The same for `/api/shutdown`.
    Shutdown,
    /// The metrics page, after the kernel's figures are read.
    Metrics,
    /// The same for `/stats`.
    Stats,
    /// 101 or a refusal, as a part decides.
    Upgrade,
    /// The response of [`Order::Answer`](crate::server::part::Order), or 504 after the timeout.
    Part,
}

impl Deferred {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Drain => "/drain",
            Self::Shutdown => "/api/shutdown",
            Self::Metrics => "/metrics",
            Self::Stats => "/stats",
            Self::Upgrade => "mount",
            Self::Part => "part",
        }
    }

    pub(super) fn is_due_at_once(self) -> bool {
        matches!(self, Self::Metrics | Self::Stats)
    }
}

/// A JSON response.
#[must_use]
pub fn json(value: &impl Serialize) -> Response<'static> {
    // None of these values can fail to serialize.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    Response::json(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_braces_are_any() {
        let row = Route::for_part("/{stage}/@x/{id}", (ServedOn::Both, ""), "", &[], 0);
        for path in ["/p/@x/1", "/p/%40x/1", "/p/@x/1/2", "/p/@x//", "/p/@x/..", "/p/@x/%2f"] {
            assert!(row.matches(path), "{path}");
        }
        for path in ["/p/@x/", "/p/@x", "//@x/1", "/p/y/1", "/@x/1", "/p/q/@x/1", "", "/"] {
            assert!(!row.matches(path), "{path}");
        }
    }
}
