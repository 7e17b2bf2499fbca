//! Every reason to refuse a request, with its status from the RFC and a sentence for the reader.

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The first line is not a request line.
    NotHttp,
    /// Another major version, or the HTTP/2 preface.
    Version,
    /// A line that ends with a bare LF, or a CR without its LF.
    BareLineEnd,
    /// A malformed field line: no colon, a space before it, folded, a control character.
    FieldInvalid,
    /// The request line exceeds its limit.
    LineTooLong,
    /// The head exceeds its limit.
    HeadTooLarge,
    /// More than [`crate::limits::HEAD_FIELDS`] fields.
    TooManyFields,
    /// No `Host` on HTTP/1.1.
    HostMissing,
    /// More than one `Host`.
    HostTwice,
    /// A malformed `Host`, or one that differs from the target's.
    HostInvalid,
    /// A malformed request target.
    TargetInvalid,
    /// A length that is not a plain number.
    LengthInvalid,
    /// Two lengths, or a length beside a transfer coding: means of request smuggling.
    LengthAmbiguous,
    /// A transfer coding other than `chunked`, or one on HTTP/1.0.
    EncodingInvalid,
    /// Malformed chunk framing.
    ChunkInvalid,
    /// A body larger than the path allows.
    BodyTooLarge,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// An unknown method.
    MethodUnknown,
    /// A known method that the path does not serve.
    MethodNotAllowed,
    /// No such path.
    NotFound,
    /// A WebSocket path without the fields of an upgrade.
    UpgradeMissing,
    /// Another version of the WebSocket protocol.
    UpgradeVersion,
    /// A `Sec-WebSocket-Key` that is missing, repeated, or not 16 bytes in base64.
    KeyInvalid,
    /// An upgrade with a body.
    UpgradeBody,
    /// A page of another site.
    OriginForeign,
    /// Two `Origin` fields.
    OriginTwice,
    /// A malformed subprotocol list, or one with duplicates.
    SubprotocolInvalid,
    /// A malformed extension list.
    ExtensionInvalid,
    /// A query parameter with an invalid value.
    ParameterInvalid,
    /// The head did not arrive in time.
    TooSlow,
    /// The connection limit is reached.
    Full,
    /// The server is draining.
    Draining,
    /// Memory is short.
    Overloaded,
    /// Too many WebSockets with `probe=1` are open.
    ProbesFull,
    /// Requested with `fault=status-503`.
    OnPurpose,
}

impl Refusal {
    /// The HTTP status.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::NotHttp
            | Self::BareLineEnd
            | Self::FieldInvalid
            | Self::HostMissing
            | Self::HostTwice
            | Self::HostInvalid
            | Self::TargetInvalid
            | Self::LengthInvalid
            | Self::LengthAmbiguous
            | Self::EncodingInvalid
            | Self::ChunkInvalid
            | Self::KeyInvalid
            | Self::UpgradeBody
            | Self::OriginTwice
            | Self::SubprotocolInvalid
            | Self::ExtensionInvalid
            | Self::ParameterInvalid => 400,
            Self::OriginForeign => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooSlow => 408,
            Self::BodyTooLarge => 413,
            Self::LineTooLong => 414,
            Self::Expectation => 417,
            Self::UpgradeMissing | Self::UpgradeVersion => 426,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::MethodUnknown => 501,
            Self::Full | Self::Draining | Self::Overloaded | Self::ProbesFull | Self::OnPurpose => {
                503
            }
            Self::Version => 505,
        }
    }

    /// What is wrong, for the author of the client. Sent as the body.
    #[must_use]
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NotHttp => "this is not an HTTP/1.1 request",
            Self::Version => "this server speaks HTTP/1.1 and HTTP/1.0",
            Self::BareLineEnd => "lines must end with CR LF",
            Self::FieldInvalid => "a header line is malformed",
            Self::LineTooLong => "the request line is longer than 4096 bytes",
            Self::HeadTooLarge => "the request head is longer than 8192 bytes",
            Self::TooManyFields => "more than 100 header fields",
            Self::HostMissing => "the Host field is missing",
            Self::HostTwice => "more than one Host field",
            Self::HostInvalid => "the Host field is not a host",
            Self::TargetInvalid => "the request target is malformed",
            Self::LengthInvalid => "the Content-Length field is not a number",
            Self::LengthAmbiguous => "the length of the body is ambiguous",
            Self::EncodingInvalid => "the only transfer coding is chunked",
            Self::ChunkInvalid => "a chunk of the body is malformed",
            Self::BodyTooLarge => "the body is too large",
            Self::Expectation => "the only expectation is 100-continue",
            Self::MethodUnknown => "unknown method",
            Self::MethodNotAllowed => "this path does not have that method",
            Self::NotFound => "no such path",
            Self::UpgradeMissing => {
                "this path speaks WebSocket: connect with a WebSocket client, \
                 such as wscat -c ws://HOST/PATH"
            }
            Self::UpgradeVersion => "this server speaks version 13 of the WebSocket protocol",
            Self::KeyInvalid => "exactly one Sec-WebSocket-Key of 16 bytes in base64 is needed",
            Self::UpgradeBody => "a WebSocket upgrade has no body",
            Self::OriginForeign => "pages of this origin may not connect",
            Self::OriginTwice => "more than one Origin field",
            Self::SubprotocolInvalid => "the Sec-WebSocket-Protocol field is malformed",
            Self::ExtensionInvalid => "the Sec-WebSocket-Extensions field is malformed",
            Self::ParameterInvalid => "a parameter of the query has a value that it cannot have",
            Self::TooSlow => "the request did not arrive in time",
            Self::Full => "too many connections, try again shortly",
            Self::Draining => "this server is about to stop, try again shortly",
            Self::Overloaded => "this server is short of memory, try again shortly",
            Self::ProbesFull => "too many WebSockets with probe=1 are open, try again later",
            Self::OnPurpose => "refused on purpose: fault=status-503",
        }
    }
}
