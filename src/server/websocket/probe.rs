//! A WebSocket with `probe=1`, the far end of `wspulse probe`: it counts messages and frames as
//! they arrive and drops them, so that only the client speaks. Text messages that begin with
//! `probe:` are commands, which are answered and not counted.

use core::str;

use serde::Serialize;

use crate::behaviours::{Answer, Kind};
use crate::limits;
use crate::proto::frame::{self, Header, Opcode, REASON_BYTES_MAX, may_be_sent};
use crate::server::websocket::{SocketCx, WebSocket};

const COMMAND: &[u8] = b"probe:";
const FRAGMENTED: &[u8] = b"fragmented";

const UNKNOWN: &str = "commands are probe:count, probe:close CODE REASON, probe:fragments N";
const BAD_CLOSE: &str = "probe:close needs a close code that a server may send, such as 1000, \
    and at most 123 bytes of reason";
const BAD_FRAGMENTS: &str = "probe:fragments needs a number from 1 to 16";

/// What has arrived.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    counts: Counts,
    /// Data frames of the message that is arriving.
    frames: u64,
    /// RSV1 of its first frame.
    compressed: bool,
}

/// The answer to `probe:count`. Commands are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    messages: u64,
    /// Data frames.
    frames: u64,
    /// Payload bytes, inflated.
    bytes: u64,
    /// Messages with RSV1.
    compressed: u64,
    pings: u64,
    pongs: u64,
    /// Frames of the last message.
    fragments: u64,
}

/// What a command requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command<'a> {
    Count,
    Close(u16, &'a str),
    Fragments(usize),
    /// It is invalid; the answer says what would be valid.
    Invalid(&'static str),
}

impl Probe {
    /// The header of a frame. That of a control frame may be seen several times, until its payload
    /// is complete.
    pub(crate) fn note_frame(&mut self, header: &Header) {
        match header.opcode {
            Opcode::Start(_) => (self.frames, self.compressed) = (1, header.compressed),
            Opcode::Continuation => self.frames += 1,
            Opcode::Close | Opcode::Ping | Opcode::Pong => {}
        }
    }

    /// A complete control frame.
    pub(crate) fn note_control(&mut self, opcode: Opcode) {
        match opcode {
            Opcode::Ping => self.counts.pings += 1,
            Opcode::Pong => self.counts.pongs += 1,
            Opcode::Close | Opcode::Start(_) | Opcode::Continuation => {}
        }
    }

    /// A complete message: the command in it, or `None` if it is counted.
    fn receive<'a>(&mut self, kind: Kind, payload: &'a [u8]) -> Option<Command<'a>> {
        if kind == Kind::Text
            && let Some(command) = payload.strip_prefix(COMMAND)
        {
            return Some(parse(command));
        }
        let counts = &mut self.counts;
        counts.messages += 1;
        counts.frames += self.frames;
        counts.bytes += payload.len() as u64;
        counts.compressed += u64::from(self.compressed);
        counts.fragments = self.frames;
        None
    }
}

/// Parses a command without its prefix.
fn parse(command: &[u8]) -> Command<'_> {
    // The text of a message is UTF-8.
    let text = str::from_utf8(command).unwrap_or_default();
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    match name {
        "count" if text == name => Command::Count,
        "close" => {
            let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
            let code = code.parse().ok().filter(|code| may_be_sent(*code));
            let fits = reason.len() <= REASON_BYTES_MAX;
            let invalid = Command::Invalid(BAD_CLOSE);
            code.filter(|_| fits).map_or(invalid, |code| Command::Close(code, reason))
        }
        "fragments" => {
            let wanted = rest.parse().ok().filter(|n| (1..=limits::PROBE_FRAGMENTS).contains(n));
            wanted.map_or(Command::Invalid(BAD_FRAGMENTS), Command::Fragments)
        }
        _ => Command::Invalid(UNKNOWN),
    }
}

impl WebSocket {
    /// Counts a message of a probe, or carries out its command.
    pub(super) fn probe_message(
        &mut self,
        kind: Kind,
        payload: &[u8],
        cx: &mut SocketCx<'_>,
    ) -> Answer {
        let probe = self.extras.as_mut().and_then(|extras| extras.probe.as_mut());
        let Some(probe) = probe else { return Answer::Nothing };
        let answer = match probe.receive(kind, payload) {
            None => return Answer::Nothing,
            // Numbers cannot fail to serialize.
            Some(Command::Count) => serde_json::to_string(&probe.counts).unwrap_or_default(),
            Some(Command::Invalid(error)) => format!("{{\"error\":\"{error}\"}}"),
            Some(Command::Close(code, reason)) => {
                self.close(code, reason, limits::CLOSE_WAIT_MS, cx);
                return Answer::Nothing;
            }
            Some(Command::Fragments(n)) => {
                frame::write_fragmented(&mut cx.out.bytes, Kind::Text, FRAGMENTED, n);
                self.count_sent(Kind::Text, FRAGMENTED.len(), cx);
                *cx.work += FRAGMENTED.len() as u64;
                return Answer::Nothing;
            }
        };
        cx.for_behaviour(&mut self.tally, self.deflate).send(Kind::Text, answer.as_bytes());
        Answer::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let long = "x".repeat(REASON_BYTES_MAX);
        let longer = format!("close 4000 {long}x");
        let long = format!("close 4000 {long}");
        for (text, want) in [
            ("count", Command::Count),
            ("close 1000", Command::Close(1000, "")),
            ("close 1012 bye now", Command::Close(1012, "bye now")),
            (&*long, Command::Close(4000, &long[11..])),
            ("fragments 1", Command::Fragments(1)),
            ("fragments 16", Command::Fragments(16)),
        ] {
            assert_eq!(parse(text.as_bytes()), want, "{text}");
        }
        for text in ["", "count ", "count 1", "COUNT", "drain", "\u{e9}", &"\u{e9}".repeat(1000)] {
            assert_eq!(parse(text.as_bytes()), Command::Invalid(UNKNOWN), "{text}");
        }
        for code in ["", "0", "999", "1004", "1005", "1006", "1015", "5000", "65536", "-1", "x"] {
            let text = format!("close {code} bye");
            assert_eq!(parse(text.as_bytes()), Command::Invalid(BAD_CLOSE), "{text}");
        }
        assert_eq!(parse(longer.as_bytes()), Command::Invalid(BAD_CLOSE));
        for count in ["", "0", "17", "-1", "1 ", "99999999999999999999"] {
            let text = format!("fragments {count}");
            assert_eq!(parse(text.as_bytes()), Command::Invalid(BAD_FRAGMENTS), "{text}");
        }
    }

    /// They are sent as JSON without escapes.
    #[test]
    fn errors() {
        for error in [UNKNOWN, BAD_CLOSE, BAD_FRAGMENTS] {
            assert!(!error.contains(['"', '\\', '\n']));
        }
        assert!(BAD_FRAGMENTS.ends_with(&limits::PROBE_FRAGMENTS.to_string()));
        assert!(BAD_CLOSE.contains(&format!("{REASON_BYTES_MAX} bytes")));
    }
}
