//! The client side of the opening handshake (RFC 6455 §4.1): the request, and whether the server
//! accepted it. `handshake` is the server side. It knows no connection and no time.

use core::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::handshake::{self, Accept};
use super::http::{has_token, visible_ascii};
use super::http_client::{self, Answer, Asked, Event, Head, Limits, Request, Unsendable};

/// Limits of the response. Its body, after a refusal, is not read.
const LIMITS: Limits = Limits { head_bytes: 8 * 1024, body_bytes: u64::MAX };
/// Most characters kept of `X-Served-By`.
const NAME_CHARS: usize = 64;

/// The parameters of an upgrade request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The `Host` field: `host` or `host:port`.
    pub host: String,
    /// Path and query, as in the request line.
    pub path: String,
    /// Further fields, such as `Origin`.
    pub fields: Vec<(String, String)>,
    /// Subprotocols in order of preference.
    pub subprotocols: Vec<String>,
    /// The value of `Sec-WebSocket-Extensions`; empty: not sent.
    pub extensions: String,
}

/// An upgrade that waits for its response.
#[derive(Debug)]
pub struct Pending {
    accept: Accept,
    answer: Answer,
}

/// The outcome of an upgrade.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// 101: frames follow.
    Open(Opened),
    /// Any other status.
    Refused(u16),
}

/// The negotiated parameters of an open WebSocket.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// `X-Served-By`, if any.
    pub served_by: Option<String>,
    /// The subprotocol, one of those requested.
    pub subprotocol: Option<String>,
    /// `Sec-WebSocket-Extensions`, if any.
    pub extensions: Option<String>,
}

/// Why a response is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It is not valid HTTP.
    Http(http_client::Fault),
    /// The server sent a TLS alert.
    Tls,
    /// RFC 6455 §4.1: `Upgrade` or `Connection` is missing or has another value.
    NotSwitched,
    /// `Sec-WebSocket-Accept` does not match our key.
    WrongKey,
    /// A subprotocol that was not requested.
    Subprotocol,
    /// An extension that was not offered.
    Extension,
    /// RFC 7692 §7.1.1.1: compression without `server_no_context_takeover`, which was offered.
    ContextTakeover,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(fault) => fault.fmt(f),
            Self::Tls => f.write_str("the port requires TLS"),
            Self::NotSwitched => f.write_str("the 101 lacks Upgrade: websocket"),
            Self::WrongKey => {
                f.write_str("the accept key is wrong: this is not a WebSocket server")
            }
            Self::Subprotocol => {
                f.write_str("the server chose a subprotocol that was not requested")
            }
            Self::Extension => f.write_str("the server uses an extension that was not offered"),
            Self::ContextTakeover => f.write_str(
                "the server compresses with context takeover, though server_no_context_takeover \
                 was offered",
            ),
        }
    }
}

impl Ask {
    /// Appends the request, with a key derived from this nonce.
    ///
    /// # Errors
    /// Which part of it is invalid.
    pub fn write(&self, nonce: [u8; 16], out: &mut Vec<u8>) -> Result<Pending, Unsendable> {
        let key = STANDARD.encode(nonce);
        let protocols = self.subprotocols.join(", ");
        let mut fields = vec![
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", key.as_str()),
        ];
        let optional = [
            ("Sec-WebSocket-Protocol", &protocols),
            ("Sec-WebSocket-Extensions", &self.extensions),
        ];
        let optional = optional.into_iter().filter(|(_, value)| !value.is_empty());
        fields.extend(optional.map(|(name, value)| (name, value.as_str())));
        fields.extend(self.fields.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let (target, host) = (self.path.as_str(), self.host.as_str());
        let request = Request { method: "GET", target, host, fields: &fields, body: b"" };
        request.write(out)?;
        let answer = Answer::new(Asked::Upgrade, LIMITS);
        // Our key is valid, since it encodes sixteen bytes.
        Ok(Pending { accept: handshake::accept(&key).unwrap_or([0; 28]), answer })
    }
}

impl Pending {
    /// Parses the response at the front of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    /// Why the response is rejected.
    pub fn read(&mut self, ask: &Ask, bytes: &mut &[u8]) -> Result<Option<Reply>, Fault> {
        self.read_noting(ask, bytes, |_| {})
    }

    /// The same, and passes the head of the final response to `note`, accepted or not.
    ///
    /// # Errors
    /// Why the response is rejected.
    pub fn read_noting(
        &mut self,
        ask: &Ask,
        bytes: &mut &[u8],
        note: impl FnOnce(&Head<'_>),
    ) -> Result<Option<Reply>, Fault> {
        // A TLS alert record (RFC 8446 §5.1), the reply of a TLS server to plaintext.
        if bytes.first() == Some(&0x15) {
            return Err(Fault::Tls);
        }
        let Self { accept, answer } = self;
        let Some(Event::Head(head)) = answer.next(bytes).map_err(Fault::Http)? else {
            return Ok(None);
        };
        note(&head);
        match head.status() {
            101 => negotiated(&head, accept, ask).map(|opened| Some(Reply::Open(opened))),
            status => Ok(Some(Reply::Refused(status))),
        }
    }
}

fn negotiated(head: &Head<'_>, accept: &Accept, ask: &Ask) -> Result<Opened, Fault> {
    let text = |name: &str| head.value(name).and_then(visible_ascii);
    let upgrade = text("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket"));
    let connection = text("connection").is_some_and(|value| has_token(value.as_bytes(), "upgrade"));
    if !(upgrade && connection) {
        return Err(Fault::NotSwitched);
    }
    if text("sec-websocket-accept").is_none_or(|text| text.as_bytes() != accept) {
        return Err(Fault::WrongKey);
    }
    let subprotocol = text("sec-websocket-protocol").map(str::to_owned);
    if subprotocol.as_ref().is_some_and(|chosen| !ask.subprotocols.contains(chosen)) {
        return Err(Fault::Subprotocol);
    }
    let extensions = text("sec-websocket-extensions").map(str::to_owned);
    if extensions.is_some() && ask.extensions.is_empty() {
        return Err(Fault::Extension);
    }
    let served_by = text("x-served-by").map(|name| name.chars().take(NAME_CHARS).collect());
    Ok(Opened { served_by, subprotocol, extensions })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 16] = *b"the sample nonce";
    const YES: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: \
                       keep-alive, Upgrade\r\nSec-WebSocket-Accept: \
                       s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

    fn ask() -> Ask {
        Ask {
            host: "h:1".to_owned(),
            path: "/x?y".to_owned(),
            fields: vec![("Origin".to_owned(), "http://h".to_owned())],
            subprotocols: vec!["a".to_owned(), "b".to_owned()],
            extensions: String::new(),
        }
    }

    /// The outcome for a response, wherever it is split.
    fn read(text: &str) -> Result<Option<Reply>, Fault> {
        let mut seen = Vec::new();
        for cut in [1, 5, 10_000] {
            let mut out = Vec::new();
            let mut pending = ask().write(NONCE, &mut out).unwrap();
            let mut reply = Ok(None);
            let mut rest = text.as_bytes();
            while matches!(reply, Ok(None)) && !rest.is_empty() {
                let (mut piece, behind) = rest.split_at(cut.min(rest.len()));
                reply = pending.read(&ask(), &mut piece);
                rest = behind;
            }
            seen.push(reply);
        }
        assert!(seen[0] == seen[1] && seen[1] == seen[2], "{text}: {seen:?}");
        seen.remove(0)
    }

    #[test]
    fn the_request() {
        let mut out = Vec::new();
        ask().write(NONCE, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("GET /x?y HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\n"));
        let key = "\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert!(text.contains(key), "{text}");
        let ends = "\r\nSec-WebSocket-Protocol: a, b\r\nOrigin: http://h\r\n\r\n";
        assert!(text.ends_with(ends), "{text}");
    }

    #[test]
    fn answers() {
        let served = format!("{YES}X-Served-By: pod-1\r\nSec-WebSocket-Protocol: b\r\n\r\n");
        let Ok(Some(Reply::Open(opened))) = read(&served) else { panic!("{served}") };
        assert_eq!(opened.served_by.as_deref(), Some("pod-1"));
        assert_eq!(opened.subprotocol.as_deref(), Some("b"));
        assert_eq!(
            read("HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n"),
            Ok(Some(Reply::Refused(503)))
        );
        assert_eq!(read("HTTP/1.1 101 S"), Ok(None));
        for (text, fault) in [
            ("\x15\x03\x01\0\x02\x02\x46", Fault::Tls),
            ("SSH-2.0", Fault::Http(http_client::Fault::NotHttp)),
            ("HTTP/1.1 101 S\r\n\r\n", Fault::NotSwitched),
            (&format!("{YES}\r\n").replace("s3p", "S3p"), Fault::WrongKey),
            (&format!("{YES}Sec-WebSocket-Protocol: c\r\n\r\n"), Fault::Subprotocol),
            (&format!("{YES}Sec-WebSocket-Extensions: x\r\n\r\n"), Fault::Extension),
        ] {
            assert_eq!(read(text), Err(fault), "{text}");
        }
    }
}
