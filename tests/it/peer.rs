//! The client's side: builds requests and frames, and parses responses into lines.

use std::fmt::Write as _;
use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use wspulse::behaviours::Kind;

use crate::{compression, unique_keys};

/// The key of the RFC's example; its answer is s3pPLMBiTxaQ9kYGzzhZRbK+xOo=.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A valid upgrade request with further fields.
pub(crate) fn upgrade(target: &str, more: &[&str]) -> Vec<u8> {
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nHost: example.test\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    for field in more {
        write!(head, "{field}\r\n").unwrap();
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// A masked frame with this first byte.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(payload.len() + 14);
    let header = FrameHeader { mask: Some(MASK), ..FrameHeader::default() };
    header.format(payload.len() as u64, &mut bytes).unwrap();
    bytes[0] = first;
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A whole text message.
pub(crate) fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

/// A whole message, compressed.
pub(crate) fn compressed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let first = if kind == Kind::Text { 0xc1 } else { 0xc2 };
    frame(first, &compression::compressed(6, payload))
}

/// A Close.
pub(crate) fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// Parses the server's output.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    speaks_websocket: bool,
    /// No request is a HEAD: a response without its body is incomplete.
    waits_for_bodies: bool,
}

/// Header fields that are shown.
const SHOWN: [&str; 14] = [
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "etag",
    "retry-after",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "upgrade",
    "vary",
];

impl Reader {
    /// For responses that arrive in pieces, none of them to a HEAD.
    pub(crate) fn of_pieces() -> Self {
        Self { waits_for_bodies: true, ..Self::default() }
    }

    /// Adds bytes; returns a line for each complete response or frame.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(bytes);
        let mut lines = Vec::new();
        loop {
            let read = if self.speaks_websocket { self.frame() } else { self.response() };
            match read {
                Some((used, line)) => {
                    self.bytes.drain(..used);
                    lines.push(line);
                }
                None => return lines,
            }
        }
    }

    fn response(&mut self) -> Option<(usize, String)> {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(head)) = response.parse(&self.bytes) else { return None };
        let mut line = format!("{}", response.code.unwrap());
        let mut length = 0;
        for field in response.headers.iter() {
            let name = field.name.to_ascii_lowercase();
            let value = String::from_utf8_lossy(field.value);
            if name == "content-length" {
                length = value.parse().unwrap();
            }
            if SHOWN.contains(&name.as_str()) {
                write!(line, " {name}={value:?}").unwrap();
            }
        }
        // A response to HEAD has no body: the next response follows.
        let body = self.bytes.get(head..head + length);
        if body.is_none() && self.waits_for_bodies {
            return None;
        }
        self.speaks_websocket = response.code == Some(101);
        let body = body.unwrap_or_default();
        let body = if body.starts_with(b"HTTP/1.1") { &[] } else { body };
        if line.contains("application/json") {
            unique_keys::check(body);
        }
        if !body.is_empty() {
            write!(line, " {}", shown(body)).unwrap();
        }
        Some((head + body.len(), line))
    }

    fn frame(&self) -> Option<(usize, String)> {
        let mut cursor = Cursor::new(&self.bytes);
        let (header, length) = FrameHeader::parse(&mut cursor).unwrap()?;
        let start = usize::try_from(cursor.position()).unwrap();
        let payload = self.bytes.get(start..start + usize::try_from(length).unwrap())?;
        let first = self.bytes[0];
        assert!(header.mask.is_none(), "a server does not mask");
        let line = match first {
            0x81 => {
                unique_keys::check(payload);
                format!("text {}", shown(payload))
            }
            0x82 => format!("binary {}", shown(payload)),
            0xc1 | 0xc2 => {
                let kind = if first == 0xc1 { "text" } else { "binary" };
                let message = compression::inflated(payload).unwrap();
                unique_keys::check(&message);
                assert!(payload.len() < message.len(), "compression made it longer");
                format!("compressed {kind} {}", shown(&message))
            }
            // The payload of a keepalive ping is a time stamp.
            0x89 => format!("ping ({} bytes)", payload.len()),
            0x8a => format!("pong {}", shown(payload)),
            0x88 if payload.is_empty() => "close".to_owned(),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                format!("close {code} {}", shown(&payload[2..]))
            }
            other => format!("frame {other:02x} {}", shown(payload)),
        };
        Some((start + payload.len(), line))
    }
}

/// Quoted and escaped, or only the length if long.
fn shown(bytes: &[u8]) -> String {
    if bytes.len() > 400 {
        return format!("({} bytes)", bytes.len());
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => format!("{text:?}"),
        Err(_) => bytes.iter().fold("0x".to_owned(), |hex, byte| format!("{hex}{byte:02x}")),
    }
}
