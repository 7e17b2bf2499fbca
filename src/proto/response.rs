//! An HTTP response, as a value and as bytes. It does not know the request.

use std::borrow::Cow;

use super::handshake::Accept;
use super::http::Persistence;
use super::refusal::Refusal;

/// Any response but a 101.
#[derive(Debug)]
pub struct Response<'a> {
    /// The HTTP status.
    pub status: u16,
    /// Fields beyond those that [`Response::write`] adds to every response.
    pub fields: Vec<(&'static str, Cow<'a, str>)>,
    /// The body, empty if there is none.
    pub body: Cow<'a, [u8]>,
}

/// The fields of every response, with their line ends. They change once a second.
#[derive(Debug, Default)]
pub struct Stamp(String);

impl Stamp {
    /// Sets the `Date`, and as `X-Served-By` the pod or host.
    pub fn set(&mut self, date: &str, served_by: &str) {
        self.0.clear();
        for (name, value) in
            [("Date", date), ("X-Content-Type-Options", "nosniff"), ("X-Served-By", served_by)]
        {
            for piece in [name, ": ", value, "\r\n"] {
                self.0.push_str(piece);
            }
        }
    }
}

/// Fields of a 101 (RFC 6455 §4.2.2).
#[derive(Clone, Copy, Debug)]
pub struct Switch<'a> {
    /// The value of `Sec-WebSocket-Accept`.
    pub accept: Accept,
    /// The selected subprotocol.
    pub subprotocol: Option<&'a str>,
    /// The negotiated extension with its parameters.
    pub extension: Option<&'a str>,
}

/// The response to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How a response is sent, as the request demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Whether the body is sent; a `HEAD` only gets the fields.
    pub body: bool,
    /// Whether the connection stays open; sent if that is not the version's default.
    pub persistence: Persistence,
    /// The minor version of the request.
    pub minor: u8,
}

impl<'a> Response<'a> {
    /// A response in plain text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<Cow<'a, str>>) -> Self {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Self {
            status,
            fields: vec![("Content-Type", Cow::Borrowed("text/plain; charset=utf-8"))],
            body,
        }
    }

    /// A 200 in JSON.
    #[must_use]
    pub fn json(body: Vec<u8>) -> Self {
        let kind = ("Content-Type", Cow::Borrowed("application/json"));
        Self { status: 200, fields: vec![kind], body: Cow::Owned(body) }
    }

    /// A response without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, fields: Vec::new(), body: Cow::Borrowed(&[]) }
    }

    /// The response to a refused request.
    #[must_use]
    pub fn refusal(refusal: Refusal) -> Self {
        let response = Self::text(refusal.status(), format!("{}\n", refusal.sentence()));
        match refusal {
            Refusal::UpgradeMissing => response.with("Upgrade", "websocket"),
            Refusal::UpgradeVersion => response.with("Sec-WebSocket-Version", "13"),
            _ => response,
        }
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Appends the response.
    pub fn write(&self, out: &mut Vec<u8>, stamp: &Stamp, delivery: Delivery) {
        start(out, self.status, stamp);
        for (name, value) in &self.fields {
            field(out, name, value);
        }
        // RFC 9110 §15.3.5, §15.4.5: these never have a body.
        let bodiless = matches!(self.status, 204 | 304);
        if !bodiless {
            field(out, "Content-Length", &self.body.len().to_string());
        }
        match delivery.persistence {
            Persistence::Close => field(out, "Connection", "close"),
            Persistence::KeepAlive if delivery.minor == 0 => field(out, "Connection", "keep-alive"),
            Persistence::KeepAlive => {}
        }
        out.extend_from_slice(b"\r\n");
        if delivery.body && !bodiless {
            out.extend_from_slice(&self.body);
        }
    }
}

/// Appends the 101 that turns a connection into a WebSocket (RFC 6455 §4.2.2).
pub fn switch(out: &mut Vec<u8>, stamp: &Stamp, switch: &Switch<'_>) {
    start(out, 101, stamp);
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    out.extend_from_slice(&switch.accept);
    out.extend_from_slice(b"\r\n");
    if let Some(subprotocol) = switch.subprotocol {
        field(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    if let Some(extension) = switch.extension {
        field(out, "Sec-WebSocket-Extensions", extension);
    }
    out.extend_from_slice(b"\r\n");
}

fn start(out: &mut Vec<u8>, status: u16, stamp: &Stamp) {
    out.extend_from_slice(b"HTTP/1.1 ");
    let digit = |place: u16| b'0' + (status / place % 10) as u8;
    out.extend_from_slice(&[digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(stamp.0.as_bytes());
}

/// Values are our own or validated, so none contains a line end.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(!value.contains(['\r', '\n']), "a value contains no line end");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}
