//! Messages between replicas: a request is a callback for a connection of the owner, an answer is
//! its outcome. The requests of a peer connection are numbered.

use crate::behaviours::Kind;
use crate::parts::gateway::connection_id::ConnectionId;
use crate::parts::gateway::traceparent::{TRACEPARENT_BYTES, Traceparent};
use crate::parts::gateway::{CallbackOutcome, CallbackRequest, MESSAGE_BYTES};
use crate::units::prefix;

const HEAD_BYTES: usize = 1 + 4 + 16;
/// A bit of the first byte: a `traceparent` follows the head.
const TRACED: u8 = 0x80;
/// Maximum request.
pub const REQUEST_BYTES_MAX: usize = HEAD_BYTES + TRACEPARENT_BYTES + MESSAGE_BYTES;
/// Maximum answer.
pub const ANSWER_BYTES_MAX: usize = 1 + 4 + 8 + 8 + 1 + IP_BYTES_MAX + 2 + AGENT_BYTES_MAX;
/// Maximum address.
const IP_BYTES_MAX: usize = u8::MAX as usize;
/// Maximum `User-Agent`; a longer one is truncated.
const AGENT_BYTES_MAX: usize = 1_024;

/// A callback for a connection of the owner.
#[derive(Clone, Copy, Debug)]
pub struct Request<'b> {
    /// The number of the request.
    pub number: u32,
    /// The connection of a client.
    pub connection: ConnectionId,
    /// The operation.
    pub callback: CallbackRequest<'b>,
    /// The caller's `traceparent`.
    pub trace: Option<Traceparent>,
}

impl<'b> Request<'b> {
    /// The encoded request: its head, a `traceparent` if the head has `TRACED`, and its body.
    #[must_use]
    pub fn pieces(&self) -> ([u8; HEAD_BYTES], &[u8], &'b [u8]) {
        let (kind, body) = match self.callback {
            CallbackRequest::Get => (0, &[][..]),
            CallbackRequest::Close => (1, &[][..]),
            CallbackRequest::Post(Kind::Text, body) => (2, body),
            CallbackRequest::Post(Kind::Binary, body) => (3, body),
        };
        let mut head = [0; HEAD_BYTES];
        let trace = self.trace.as_ref().map_or(&[][..], Traceparent::as_bytes);
        head[0] = if trace.is_empty() { kind } else { kind | TRACED };
        head[1..5].copy_from_slice(&self.number.to_be_bytes());
        head[5..].copy_from_slice(&self.connection.0);
        (head, trace, body)
    }

    /// Decodes a request; `None` if it is invalid.
    #[must_use]
    pub fn read(message: &'b [u8]) -> Option<Self> {
        let (head, rest) = message.split_at_checked(HEAD_BYTES)?;
        let (trace, body) = if head[0] & TRACED == 0 {
            (None, rest)
        } else {
            let (trace, body) = rest.split_at_checked(TRACEPARENT_BYTES)?;
            (Some(Traceparent::parse(trace)?), body)
        };
        let callback = match head[0] & !TRACED {
            0 if body.is_empty() => CallbackRequest::Get,
            1 if body.is_empty() => CallbackRequest::Close,
            2 if simdutf8::basic::from_utf8(body).is_ok() => {
                CallbackRequest::Post(Kind::Text, body)
            }
            3 => CallbackRequest::Post(Kind::Binary, body),
            _ => return None,
        };
        let number = u32::from_be_bytes(head[1..5].try_into().ok()?);
        let connection = ConnectionId(head[5..].try_into().ok()?);
        Some(Self { number, connection, callback, trace })
    }
}

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the request.
    pub number: u32,
    /// The outcome.
    pub outcome: CallbackOutcome,
}

impl Answer {
    /// The encoded answer.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![match self.outcome {
            CallbackOutcome::Queued => 0,
            CallbackOutcome::Closing => 1,
            CallbackOutcome::Gone => 2,
            CallbackOutcome::Full => 3,
            CallbackOutcome::Found { .. } => 4,
            CallbackOutcome::Unknown => 5,
            CallbackOutcome::Overloaded => 6,
        }];
        bytes.extend_from_slice(&self.number.to_be_bytes());
        if let CallbackOutcome::Found { connected_at_ms, source_ip, user_agent, last_active_ms } =
            &self.outcome
        {
            bytes.extend_from_slice(&connected_at_ms.to_be_bytes());
            bytes.extend_from_slice(&last_active_ms.to_be_bytes());
            let ip = prefix(source_ip, IP_BYTES_MAX);
            let agent = prefix(user_agent, AGENT_BYTES_MAX);
            bytes.push(ip.len() as u8);
            bytes.extend_from_slice(ip.as_bytes());
            bytes.extend_from_slice(&(agent.len() as u16).to_be_bytes());
            bytes.extend_from_slice(agent.as_bytes());
        }
        bytes
    }

    /// Decodes an answer; `None` if it is invalid.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let mut rest = message;
        let [kind] = take(&mut rest)?;
        let number = u32::from_be_bytes(take(&mut rest)?);
        let outcome = match kind {
            0 => CallbackOutcome::Queued,
            1 => CallbackOutcome::Closing,
            2 => CallbackOutcome::Gone,
            3 => CallbackOutcome::Full,
            4 => {
                let connected_at_ms = i64::from_be_bytes(take(&mut rest)?);
                let last_active_ms = i64::from_be_bytes(take(&mut rest)?);
                let [ip_bytes] = take(&mut rest)?;
                let source_ip = text(&mut rest, usize::from(ip_bytes))?;
                let agent_bytes = u16::from_be_bytes(take(&mut rest)?);
                let user_agent = text(&mut rest, usize::from(agent_bytes))?;
                CallbackOutcome::Found { connected_at_ms, source_ip, user_agent, last_active_ms }
            }
            5 => CallbackOutcome::Unknown,
            6 => CallbackOutcome::Overloaded,
            _ => return None,
        };
        rest.is_empty().then_some(Self { number, outcome })
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (part, after) = rest.split_at_checked(N)?;
    *rest = after;
    part.try_into().ok()
}

fn text(rest: &mut &[u8], bytes: usize) -> Option<String> {
    let (part, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    str::from_utf8(part).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoding_reverses_encoding() {
        let connection = ConnectionId(*b"0123456789abcdef");
        for callback in [
            CallbackRequest::Get,
            CallbackRequest::Close,
            CallbackRequest::Post(Kind::Text, "☃".as_bytes()),
            CallbackRequest::Post(Kind::Binary, b"\xff"),
            CallbackRequest::Post(Kind::Text, b""),
        ] {
            let trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            for trace in [None, Traceparent::parse(trace)] {
                let sent = Request { number: 7, connection, callback, trace };
                let (head, trace, body) = sent.pieces();
                let bytes = [&head[..], trace, body].concat();
                assert!(bytes.len() <= REQUEST_BYTES_MAX);
                let read = Request::read(&bytes).unwrap();
                assert_eq!(format!("{sent:?}"), format!("{read:?}"));
            }
        }
        let found = CallbackOutcome::Found {
            connected_at_ms: -1,
            source_ip: "fd00::1".to_owned(),
            user_agent: "☃".repeat(2_000),
            last_active_ms: i64::MAX,
        };
        let (queued, closing) = (CallbackOutcome::Queued, CallbackOutcome::Closing);
        let refused = [CallbackOutcome::Gone, CallbackOutcome::Unknown, CallbackOutcome::Full];
        let others = [queued, closing, CallbackOutcome::Overloaded, found];
        for outcome in refused.into_iter().chain(others) {
            let sent = Answer { number: u32::MAX, outcome };
            let bytes = sent.bytes();
            assert!(bytes.len() <= ANSWER_BYTES_MAX);
            let read = Answer::read(&bytes).unwrap();
            assert_eq!(read.number, sent.number);
            // A longer User-Agent is truncated.
            assert_eq!(read.bytes(), bytes);
            for end in 0..bytes.len() {
                assert_eq!(Answer::read(&bytes[..end]), None);
            }
            assert_eq!(Answer::read(&[&bytes[..], b"x"].concat()), None);
        }
    }

    #[test]
    fn invalid_requests() {
        let connection = [7; 16];
        for (kind, body) in
            [(0, &b"x"[..]), (1, b"x"), (2, b"\xff"), (4, b""), (0x80, b""), (255, b"")]
        {
            let bytes = [&[kind, 0, 0, 0, 1], &connection[..], body].concat();
            assert!(Request::read(&bytes).is_none(), "{kind}");
        }
        assert!(Request::read(&[0; HEAD_BYTES - 1]).is_none());
    }
}
