//! Why objects cannot be watched. The sentences are sent to viewers and logged.

use core::fmt;

use super::access::MissingFile;
use super::resource::Resource;
use crate::engine::{HangUp, TlsFault};
use crate::proto::http_client::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// This file is missing or invalid.
    MissingFile(MissingFile),
    /// The namespace or token has invalid characters.
    InvalidRequest,
    /// The variable that names the proxy is invalid.
    Proxy,
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
            | Self::Proxy
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

/// An error about objects of this kind, as a sentence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told(pub(super) Error, pub(super) Resource);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Error as E;
        let Self(error, resource) = self;
        f.write_str(match error {
            E::MissingFile(what) => return write!(f, "the {what} cannot be read from its file"),
            E::InvalidRequest => "the namespace or the token has characters that it must not have",
            E::Proxy => "HTTP_PROXY or HTTPS_PROXY does not name an HTTP proxy",
            E::NotConnected(HangUp::Proxy(fault)) => return fault.fmt(f),
            E::NotConnected(HangUp::Refused) => "the API server refuses connections",
            E::NotConnected(HangUp::Tls(TlsFault::NotBuilt)) => "this build has no TLS",
            E::NotConnected(HangUp::Tls(fault)) => {
                return write!(f, "no TLS with the API server: {fault}");
            }
            E::NotConnected(how @ (HangUp::NoSuchName | HangUp::Exhausted)) => {
                return write!(f, "the API server cannot be reached: {how}");
            }
            E::NotConnected(_) => "the API server cannot be reached",
            E::Lost => "the connection to the API server is lost",
            E::Silent => "the API server is silent",
            E::NotHttp(fault) => return write!(f, "the API server's answer: {fault}"),
            E::Encoded => "the API server's answer is compressed",
            E::Unauthorized => "the API server does not accept the token",
            E::Forbidden => {
                let name = resource.name();
                return write!(f, "forbidden: the role may not list and watch {name}");
            }
            E::Busy => "the API server is busy",
            E::Redirect => "the API server sends us elsewhere",
            E::Status(status) => return write!(f, "the API server answers {status}"),
            E::Event(code) => return write!(f, "the API server ends the watch with {code}"),
            E::ShortWatch => "the API server ends the watch at once",
            E::NotAList => {
                let noun = resource.noun();
                return write!(f, "the API server's answer is no list of {noun}s");
            }
        })
    }
}
