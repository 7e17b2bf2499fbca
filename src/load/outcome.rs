//! How connections end, and why clients never had one: texts for people, and stable codes for JSON.

use core::fmt;

use super::plan::WhenLost;
use crate::engine::{HangUp, ProxyFault, TlsFault};
use crate::proto::upgrade::Fault;

/// How a client's connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The client closed, and the server answered with this code.
    Closed(u16),
    /// The server closed, with this code.
    ClosedEarly(u16),
    /// The connection ended without a Close (1006).
    Broken,
    /// The WebSocket was never open.
    NotConnected(ConnectError),
    /// The upgrade was answered with this status.
    Refused(u16),
    /// An answer differed from its message.
    Wrong,
    /// The server sent an invalid frame.
    InvalidFrame,
    /// The server sent a compressed message that cannot be inflated, or is too long.
    InvalidCompression,
    /// No answer in time.
    Silent,
}

/// Why a WebSocket was never open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectError {
    /// Nothing listens on that port.
    Refused,
    /// There is no route to the address.
    Unreachable,
    /// No local port or file descriptor is left.
    Exhausted,
    /// Connecting timed out.
    TimedOut,
    /// The connection ended before the upgrade response.
    CutOff,
    /// No upgrade response in time.
    Silent,
    /// The test ended before it was open.
    Stopped,
    /// The upgrade response was invalid.
    Answer(Fault),
    /// The host name cannot be resolved.
    NoSuchName,
    /// The TLS handshake failed.
    Tls(TlsFault),
    /// The proxy did not connect us to the server.
    Proxy(ProxyFault),
}

impl From<HangUp> for ConnectError {
    fn from(how: HangUp) -> Self {
        match how {
            HangUp::Refused => Self::Refused,
            HangUp::Unreachable => Self::Unreachable,
            HangUp::Exhausted => Self::Exhausted,
            HangUp::Eof | HangUp::Reset => Self::CutOff,
            HangUp::NoSuchName => Self::NoSuchName,
            HangUp::Tls(fault) => Self::Tls(fault),
            HangUp::Proxy(fault) => Self::Proxy(fault),
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::Unreachable => "no route to the address",
            Self::Exhausted => "no local port or file descriptor left",
            Self::TimedOut => "connecting timed out",
            Self::CutOff => "connection lost before the upgrade response",
            Self::Silent => "connected, but no upgrade response in time",
            Self::Stopped => "not yet connected when the test ended",
            Self::Answer(fault) => return write!(f, "upgrade failed: {fault}"),
            Self::NoSuchName => "the host name cannot be resolved",
            Self::Tls(fault) => return fault.fmt(f),
            Self::Proxy(fault) => return fault.fmt(f),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "closed by us, answered with {code}"),
            Self::ClosedEarly(code) => write!(f, "closed early by the server: {code}"),
            Self::Broken => f.write_str("broken without a Close (1006)"),
            Self::NotConnected(why) => why.fmt(f),
            Self::Refused(status) => write!(f, "upgrade answered with {status}{}", hint(*status)),
            Self::Wrong => f.write_str("an answer differs from its message"),
            Self::InvalidFrame => f.write_str("invalid frame from the server"),
            Self::InvalidCompression => {
                f.write_str("a compressed message from the server is invalid or too long")
            }
            Self::Silent => f.write_str("connected, but no answer in time"),
        }
    }
}

/// What a status means in the response to an upgrade.
fn hint(status: u16) -> &'static str {
    match status {
        300..=399 => ": a redirect, which is not followed",
        400 => ": bad request",
        401 | 403 => ": not allowed; it may need an Origin or credentials",
        200..=299 | 404 => ": no WebSocket at that path",
        426 => ": WebSocket version not supported",
        429 => ": too many requests",
        502 | 504 => ": a proxy cannot reach its server",
        503 => ": unavailable, draining or full",
        _ => "",
    }
}

/// `CamelCase(Inner)` as `camel_case_inner`. Renaming a variant changes a code in reports: a test
/// lists them.
fn snake(variant: &impl fmt::Debug) -> String {
    let mut code = String::new();
    for c in format!("{variant:?}").chars() {
        if c == '(' || c.is_ascii_uppercase() && !code.is_empty() && !code.ends_with('_') {
            code.push('_');
        }
        code.extend(c.is_ascii_alphanumeric().then(|| c.to_ascii_lowercase()));
    }
    code
}

impl ConnectError {
    fn code(self) -> String {
        match self {
            Self::Stopped => "not_yet_connected".to_owned(),
            Self::Silent => "no_upgrade_response".to_owned(),
            Self::Answer(fault) => format!("upgrade_{}", snake(&fault)),
            Self::Tls(fault) => format!("tls_{}", snake(&fault)),
            Self::Proxy(fault) => format!("proxy_{}", snake(&fault)),
            Self::Refused
            | Self::Unreachable
            | Self::Exhausted
            | Self::TimedOut
            | Self::CutOff
            | Self::NoSuchName => snake(&self),
        }
    }
}

impl Outcome {
    /// What reports call it; the text may change, this does not.
    pub(super) fn cause(self) -> String {
        match self {
            Self::Closed(code) => format!("closed_{code}"),
            Self::ClosedEarly(code) => format!("closed_early_{code}"),
            Self::Refused(status) => format!("status_{status}"),
            Self::Wrong => "wrong_answer".to_owned(),
            Self::Silent => "no_answer".to_owned(),
            Self::NotConnected(why) => why.code(),
            Self::Broken | Self::InvalidFrame | Self::InvalidCompression => snake(&self),
        }
    }

    /// The close code; 1006 if there was none, `None` if the WebSocket was never open.
    pub(super) fn code(self) -> Option<u16> {
        match self {
            Self::Closed(code) | Self::ClosedEarly(code) => Some(code),
            Self::Broken
            | Self::Wrong
            | Self::InvalidFrame
            | Self::InvalidCompression
            | Self::Silent => Some(1006),
            Self::NotConnected(_) | Self::Refused(_) => None,
        }
    }

    /// Whether this is not an error. With `--reconnect`, the server may close. A client that was
    /// interrupted while it was connecting says nothing about the server.
    pub(super) fn is_clean(self, when_lost: WhenLost, interrupted: bool) -> bool {
        match self {
            Self::Closed(_) => true,
            Self::NotConnected(ConnectError::Stopped) => interrupted,
            Self::ClosedEarly(1000 | 1001 | 1012) => when_lost == WhenLost::Reconnect,
            Self::ClosedEarly(_)
            | Self::Broken
            | Self::NotConnected(_)
            | Self::Refused(_)
            | Self::Wrong
            | Self::InvalidFrame
            | Self::InvalidCompression
            | Self::Silent => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http_client;

    /// Scripts compare them.
    #[test]
    fn codes_are_stable() {
        let upgrade = |fault| Outcome::NotConnected(ConnectError::Answer(fault));
        let connect = Outcome::NotConnected;
        for (outcome, code) in [
            (Outcome::Closed(1000), "closed_1000"),
            (Outcome::ClosedEarly(1013), "closed_early_1013"),
            (Outcome::Broken, "broken"),
            (Outcome::Refused(404), "status_404"),
            (Outcome::Wrong, "wrong_answer"),
            (Outcome::InvalidFrame, "invalid_frame"),
            (Outcome::InvalidCompression, "invalid_compression"),
            (Outcome::Silent, "no_answer"),
            (connect(ConnectError::Refused), "refused"),
            (connect(ConnectError::Unreachable), "unreachable"),
            (connect(ConnectError::Exhausted), "exhausted"),
            (connect(ConnectError::TimedOut), "timed_out"),
            (connect(ConnectError::CutOff), "cut_off"),
            (connect(ConnectError::Silent), "no_upgrade_response"),
            (connect(ConnectError::Stopped), "not_yet_connected"),
            (connect(ConnectError::NoSuchName), "no_such_name"),
            (connect(ConnectError::Tls(TlsFault::NotTrusted)), "tls_not_trusted"),
            (connect(ConnectError::Tls(TlsFault::WrongName)), "tls_wrong_name"),
            (connect(ConnectError::Tls(TlsFault::Expired)), "tls_expired"),
            (connect(ConnectError::Proxy(ProxyFault::Refused)), "proxy_refused"),
            (connect(ConnectError::Proxy(ProxyFault::Answered(407))), "proxy_answered_407"),
            (upgrade(Fault::Tls), "upgrade_tls"),
            (upgrade(Fault::NotSwitched), "upgrade_not_switched"),
            (upgrade(Fault::WrongKey), "upgrade_wrong_key"),
            (upgrade(Fault::Subprotocol), "upgrade_subprotocol"),
            (upgrade(Fault::Extension), "upgrade_extension"),
            (upgrade(Fault::ContextTakeover), "upgrade_context_takeover"),
            (upgrade(Fault::Http(http_client::Fault::NotHttp)), "upgrade_http_not_http"),
        ] {
            assert_eq!(outcome.cause(), code);
        }
    }
}
