//! What keeps us from knowing what the server has, in words for viewers and the log.

use core::fmt;

use super::access::Missing;
use crate::engine::{HangUp, TlsFault};
use crate::proto::http_client::Fault;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// This file has nothing that can be used, or is not there.
    Missing(Missing),
    /// The namespace or the token cannot stand in a request.
    Unsayable,
    /// There is no connection.
    NotConnected(HangUp),
    /// The connection broke.
    Lost,
    /// Nothing came for too long.
    Silent,
    /// The answer is no HTTP that we read.
    NotHttp(Fault),
    /// It comes compressed, which nobody asked for.
    Encoded,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 429.
    Busy,
    /// It wants us to go elsewhere, and our token would go along.
    Redirect,
    /// Another status that is no success.
    Status(u16),
    /// An ERROR in the stream.
    Event(u16),
    /// The answer is no list of Deployments.
    NotAList,
}

impl Trouble {
    /// Whether another token or certificate could make a difference.
    pub(super) fn may_be_ours(self) -> bool {
        match self {
            Self::Missing(_) | Self::NotConnected(HangUp::Tls(_)) | Self::Unauthorized => true,
            Self::Unsayable
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
            | Self::NotAList => false,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing(what) => return write!(f, "the {what} cannot be read from its file"),
            Self::Unsayable => "the namespace or the token has characters that it must not have",
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
            Self::NotAList => "the API server's answer is no list of Deployments",
        })
    }
}
