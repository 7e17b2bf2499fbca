//! Why Deployments cannot be watched. `Display` is sent to viewers and logged.

use core::fmt;

use super::access::MissingFile;
use crate::engine::{HangUp, TlsFault};
use crate::proto::http_client::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// This file is missing or invalid.
    MissingFile(MissingFile),
    /// The namespace or token has invalid characters.
    InvalidRequest,
    NotConnected(HangUp),
    Lost,
    /// A timeout.
    Silent,
    /// The response is not valid HTTP.
    NotHttp(Fault),
    /// The response is compressed, although that was not requested.
    Encoded,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 429.
    Busy,
    /// Redirects are not followed, since the token would be sent along.
    Redirect,
    Status(u16),
    /// An ERROR event with this code.
    Event(u16),
    /// Watches end at once, without an event.
    ShortWatch,
    /// The response is not a valid list.
    NotAList,
}

impl Error {
    /// Whether re-reading token and certificates may help.
    pub(super) fn may_be_credentials(self) -> bool {
        match self {
            Self::MissingFile(_) | Self::NotConnected(HangUp::Tls(_)) | Self::Unauthorized => true,
            Self::InvalidRequest
            | Self::NotConnected(_)
            | Self::Lost
            | Self::Silent
            | Self::NotHttp(_)
            | Self::Encoded
            | Self::Forbidden
            | Self::Busy
            | Self::Redirect
            | Self::Status(_)
            | Self::Event(_)
            | Self::ShortWatch
            | Self::NotAList => false,
        }
    }
}

impl Error {
    /// Whether it may be due to the resource version of a watch, such as one that the server does
    /// not know since its database was restored.
    pub(super) fn may_be_version(self) -> bool {
        matches!(self, Self::Status(500..) | Self::Event(_) | Self::ShortWatch)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingFile(what) => return write!(f, "the {what} cannot be read from its file"),
            Self::InvalidRequest => {
                "the namespace or the token has characters that it must not have"
            }
            Self::NotConnected(HangUp::Refused) => "the API server refuses connections",
            Self::NotConnected(HangUp::Tls(TlsFault::NotBuilt)) => "this build has no TLS",
            Self::NotConnected(HangUp::Tls(fault)) => {
                return write!(f, "no TLS with the API server: {fault}");
            }
            Self::NotConnected(how @ (HangUp::NoSuchName | HangUp::Exhausted)) => {
                return write!(f, "the API server cannot be reached: {how}");
            }
            Self::NotConnected(_) => "the API server cannot be reached",
            Self::Lost => "the connection to the API server is lost",
            Self::Silent => "the API server is silent",
            Self::NotHttp(fault) => return write!(f, "the API server's answer: {fault}"),
            Self::Encoded => "the API server's answer is compressed",
            Self::Unauthorized => "the API server does not accept the token",
            Self::Forbidden => "forbidden: the role may not list and watch deployments",
            Self::Busy => "the API server is busy",
            Self::Redirect => "the API server sends us elsewhere",
            Self::Status(status) => return write!(f, "the API server answers {status}"),
            Self::Event(code) => return write!(f, "the API server ends the watch with {code}"),
            Self::ShortWatch => "the API server ends the watch at once",
            Self::NotAList => "the API server's answer is no list of Deployments",
        })
    }
}
