//! An answer, as a value and then as bytes. It does not know what it answers.

use std::borrow::Cow;

use super::http::Persistence;
use super::refusal::Refusal;

/// An answer that is not a WebSocket.
#[derive(Debug)]
pub struct Response<'a> {
    /// Its status.
    pub status: u16,
    /// Its own fields; those that every answer has come with [`Response::write`].
    pub fields: Vec<(&'static str, Cow<'a, str>)>,
    /// Its body.
    pub body: Cow<'a, [u8]>,
}

/// What every answer of this server says.
#[derive(Clone, Copy, Debug)]
pub struct Stamp<'a> {
    /// The moment, as HTTP writes it.
    pub date: &'a str,
    /// The pod or host that answers.
    pub served_by: &'a str,
}

/// What a 101 says of the WebSocket that it opens (RFC 6455 §4.2.2).
#[derive(Clone, Copy, Debug)]
pub struct Switch<'a> {
    /// What the client's key was made into.
    pub accept: &'a str,
    /// The one that was chosen.
    pub subprotocol: Option<&'a str>,
    /// The one that was agreed to, with its parameters.
    pub extension: Option<&'a str>,
}

/// What a client hears that asked whether it may send its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How an answer is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// A `HEAD` gets the fields of a `GET`, and no body.
    pub body: bool,
    /// Whether the connection stays open, said when the peer would expect the contrary.
    pub persistence: Persistence,
    /// The minor version of the request.
    pub minor: u8,
}

impl<'a> Response<'a> {
    /// An answer with a body of plain text.
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

    /// An answer with a body of JSON.
    #[must_use]
    pub fn json(body: Vec<u8>) -> Self {
        let kind = ("Content-Type", Cow::Borrowed("application/json"));
        Self { status: 200, fields: vec![kind], body: Cow::Owned(body) }
    }

    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self { status, fields: Vec::new(), body: Cow::Borrowed(&[]) }
    }

    /// The answer to a request that is not served.
    #[must_use]
    pub fn refusal(refusal: Refusal) -> Self {
        let response = Self::text(refusal.status(), format!("{}\n", refusal.sentence()));
        match refusal {
            Refusal::UpgradeMissing => response.with("Upgrade", "websocket"),
            Refusal::UpgradeVersion => response.with("Sec-WebSocket-Version", "13"),
            _ => response,
        }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'a, str>>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Appends the answer as bytes.
    pub fn write(&self, out: &mut Vec<u8>, stamp: Stamp<'_>, delivery: Delivery) {
        start(out, self.status, stamp);
        for (name, value) in &self.fields {
            field(out, name, value);
        }
        // RFC 9110 §15.3.5, §15.4.5: these have no body whatever anyone says.
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

/// Appends the answer that turns a connection into a WebSocket (RFC 6455 §4.2.2).
pub fn switch(out: &mut Vec<u8>, stamp: Stamp<'_>, switch: &Switch<'_>) {
    start(out, 101, stamp);
    field(out, "Upgrade", "websocket");
    field(out, "Connection", "Upgrade");
    field(out, "Sec-WebSocket-Accept", switch.accept);
    if let Some(subprotocol) = switch.subprotocol {
        field(out, "Sec-WebSocket-Protocol", subprotocol);
    }
    if let Some(extension) = switch.extension {
        field(out, "Sec-WebSocket-Extensions", extension);
    }
    out.extend_from_slice(b"\r\n");
}

fn start(out: &mut Vec<u8>, status: u16, stamp: Stamp<'_>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    field(out, "Date", stamp.date);
    field(out, "X-Content-Type-Options", "nosniff");
    field(out, "X-Served-By", stamp.served_by);
}

/// Values are ours, or were checked: no line end gets here.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    debug_assert!(!value.contains(['\r', '\n']), "a value must not end its line");
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
