//! What can be wrong with a request that we are to send, and with an answer that we get.

use core::fmt;

/// A part of a request that would be read as something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsendable {
    /// The method is no token.
    Method,
    /// The target is empty, or has a space or something invisible.
    Target,
    /// The host is none.
    Host,
    /// A field that is malformed, or that would say twice how long the body is.
    Field,
}

/// What is wrong with an answer, or with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection ended before a byte of it came: whoever used that connection before may
    /// ask again on another one.
    NoAnswer,
    /// The connection ended in the midst of it.
    CutOff,
    /// It does not begin like HTTP.
    NotHttp,
    /// It is HTTP, but neither 1.1 nor 1.0.
    Version,
    /// A status below 100 or above 599.
    StatusInvalid,
    /// A head or a trailer beyond its limit.
    HeadTooLarge,
    /// More fields than we have room for.
    TooManyFields,
    /// A head's line that is malformed or folded, or does not end with CR LF.
    FieldInvalid,
    /// A length that is no plain number.
    LengthInvalid,
    /// Two lengths, or a length beside a transfer coding.
    LengthAmbiguous,
    /// Any transfer coding but `chunked`, or one in HTTP/1.0.
    EncodingInvalid,
    /// A chunk whose frame is malformed.
    ChunkInvalid,
    /// More body than is taken.
    BodyTooLarge,
    /// It changes to a protocol that was not asked for.
    Upgraded,
    /// It announces an answer again and again.
    TooManyInterim,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAnswer => "the connection was closed without an answer",
            Self::CutOff => "the connection was closed in the midst of the answer",
            Self::NotHttp => "the answer is not HTTP",
            Self::Version => "the answer is neither HTTP/1.1 nor HTTP/1.0",
            Self::StatusInvalid => "the answer has a status that does not exist",
            Self::HeadTooLarge => "the answer's head is too long",
            Self::TooManyFields => "the answer has too many header fields",
            Self::FieldInvalid => "a header line of the answer is malformed",
            Self::LengthInvalid => "the answer's Content-Length is not a number",
            Self::LengthAmbiguous => "the answer says in two ways how long it is",
            Self::EncodingInvalid => "the answer has a transfer coding other than chunked",
            Self::ChunkInvalid => "a chunk of the answer is malformed",
            Self::BodyTooLarge => "the answer's body is too long",
            Self::Upgraded => "the answer changes the protocol unasked",
            Self::TooManyInterim => "the answer is announced and does not come",
        })
    }
}
