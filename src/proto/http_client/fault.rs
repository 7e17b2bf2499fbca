//! Errors of the HTTP client: in a request to send and in a response.

use core::fmt;

/// The part of a request that is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// The method is not a token.
    Method,
    /// The target is empty or not visible ASCII.
    Target,
    /// The host is empty or malformed.
    Host,
    /// A field is malformed, or is one that the client writes itself.
    Field,
}

/// Why a response is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection ended before the first byte. On a reused connection the request may be
    /// retried.
    NoAnswer,
    /// The connection ended within the response.
    CutOff,
    /// It does not begin like HTTP.
    NotHttp,
    /// Its HTTP version is neither 1.1 nor 1.0.
    Version,
    /// A status below 100 or above 599.
    StatusInvalid,
    /// The head or trailer exceeds its limit.
    HeadTooLarge,
    /// More than [`crate::limits::HEAD_FIELDS`] fields.
    TooManyFields,
    /// A head line is malformed or folded, or does not end with CR LF.
    FieldInvalid,
    /// A length is not a plain number.
    LengthInvalid,
    /// Different lengths, or a length beside a transfer coding.
    LengthAmbiguous,
    /// A transfer coding other than `chunked`, or one in HTTP/1.0.
    EncodingInvalid,
    /// The chunk framing is malformed.
    ChunkInvalid,
    /// The body exceeds its limit.
    BodyTooLarge,
    /// 101 without a request for an upgrade.
    Upgraded,
    /// Too many interim responses.
    TooManyInterim,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAnswer => "the connection was closed without a response",
            Self::CutOff => "the connection was closed in the middle of the response",
            Self::NotHttp => "the response is not HTTP",
            Self::Version => "the response is neither HTTP/1.1 nor HTTP/1.0",
            Self::StatusInvalid => "the response has an invalid status",
            Self::HeadTooLarge => "the response's head is too long",
            Self::TooManyFields => "the response has too many header fields",
            Self::FieldInvalid => "a header line of the response is malformed",
            Self::LengthInvalid => "the response's Content-Length is not a number",
            Self::LengthAmbiguous => "the response's length is ambiguous",
            Self::EncodingInvalid => "the response has a transfer coding other than chunked",
            Self::ChunkInvalid => "a chunk of the response is malformed",
            Self::BodyTooLarge => "the response's body is too long",
            Self::Upgraded => "the response switches protocols without an upgrade request",
            Self::TooManyInterim => "too many interim responses",
        })
    }
}
