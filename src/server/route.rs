//! One path of the HTTP side, and what comes of a request to it. Which paths there are is in
//! `routes`, and in the parts that bring some.

use serde::Serialize;

use crate::engine::Side;
use crate::proto::http::{Method, percent_decoded};
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;
use crate::server::config::{Config, Surface};

/// One path of the HTTP side.
#[derive(Debug)]
pub struct Route {
    /// The path, below the base path. A segment in braces matches any segment.
    pub path: &'static str,
    /// Where it is served.
    pub served_on: ServedOn,
    /// What it needs beside that, for documents; empty: nothing.
    pub condition: &'static str,
    /// What it answers, for documents.
    pub about: &'static str,
    pub(super) methods: &'static [Method],
    /// The longest body that it takes; `None`: it takes none.
    pub(super) body_bytes: Option<u64>,
}

impl Route {
    /// A path that a part answers, with bodies of at most so many bytes. Its GET changes nothing.
    #[must_use]
    pub const fn of_part(
        path: &'static str,
        (served_on, condition): (ServedOn, &'static str),
        about: &'static str,
        methods: &'static [Method],
        body_bytes: u64,
    ) -> Self {
        Self { path, served_on, condition, about, methods, body_bytes: Some(body_bytes) }
    }

    /// Where it is served, for documents.
    #[must_use]
    pub fn place(&self) -> String {
        match self.condition {
            "" => self.served_on.name().to_owned(),
            condition => format!("{}, {condition}", self.served_on.name()),
        }
    }

    /// A part in braces is any one part; the last one is all that is left, and not nothing.
    /// What stands in the table may be written with `%XX` as well.
    pub(super) fn is_for(&self, path: &str) -> bool {
        if !self.path.contains('{') {
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

/// Where a path is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServedOn {
    /// On the main listener.
    Main,
    /// On the admin listener.
    Admin,
    /// On both.
    Both,
    /// On both, and only with `--faults`.
    Faults,
    /// On the admin listener, and on the main one where nothing else is served.
    Figures,
}

impl ServedOn {
    pub(super) fn opens(self, side: Side, config: &Config) -> bool {
        if config.surface == Surface::Bare {
            return matches!(self, Self::Both | Self::Figures);
        }
        match self {
            Self::Main => side == Side::Main,
            Self::Admin | Self::Figures => side == Side::Admin,
            Self::Both => true,
            Self::Faults => config.faults,
        }
    }

    /// The word for documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Admin => "admin",
            Self::Both => "both",
            Self::Faults => "both, with `--faults`",
            Self::Figures => "admin, backend",
        }
    }
}

/// The body of a request, or why there is none.
pub type Taken<'b> = Result<&'b [u8], Refusal>;

/// What comes of a request.
#[derive(Debug)]
pub enum Reply {
    /// This answer.
    Now(Response<'static>),
    /// An answer that comes by itself.
    Later {
        /// When it comes at the latest.
        after_ms: u64,
        /// What it is.
        what: Later,
    },
}

/// An answer that is written when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// 200 `Ok`, after the wait of a preStop hook.
    Drain,
    /// The same, of `/api/shutdown`.
    Shutdown,
    /// What needs a look at the kernel's figures first.
    Metrics,
    /// The same, of `/stats`.
    Stats,
    /// A WebSocket, if a part lets it in.
    Verdict,
    /// What a part answers with [`Order::Answer`](crate::server::part::Order), or 504.
    OfPart,
}

impl Later {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Drain => "/drain",
            Self::Shutdown => "/api/shutdown",
            Self::Metrics => "/metrics",
            Self::Stats => "/stats",
            Self::Verdict => "mount",
            Self::OfPart => "part",
        }
    }

    pub(super) fn is_due_at_once(self) -> bool {
        matches!(self, Self::Metrics | Self::Stats)
    }
}

/// An answer of JSON.
#[must_use]
pub fn json(value: &impl Serialize) -> Response<'static> {
    // None of our values can fail to serialize.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    Response::json(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_in_braces_are_any() {
        let row = Route::of_part("/{stage}/@x/{id}", (ServedOn::Both, ""), "", &[], 0);
        for path in ["/p/@x/1", "/p/%40x/1", "/p/@x/1/2", "/p/@x//", "/p/@x/..", "/p/@x/%2f"] {
            assert!(row.is_for(path), "{path}");
        }
        for path in ["/p/@x/", "/p/@x", "//@x/1", "/p/y/1", "/@x/1", "/p/q/@x/1", "", "/"] {
            assert!(!row.is_for(path), "{path}");
        }
    }
}
