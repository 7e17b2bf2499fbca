//! As much HTTP/2 (RFC 9113) as one question needs: does the server announce extended CONNECT
//! (RFC 8441), and does a WebSocket over it open? Bytes in, bytes and an answer out.

use crate::proto::upgrade::Ask;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// RFC 8441 §3: `SETTINGS_ENABLE_CONNECT_PROTOCOL`.
const ENABLE_CONNECT: u16 = 8;
/// Larger frames must not be sent to us (RFC 9113 §4.2).
const FRAME_MAX: usize = 16_384;
const FRAME_HEADER: usize = 9;

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    NotAnnounced,
    Opened,
    /// With this status or error.
    Refused(String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    headers: Vec<u8>,
    input: Vec<u8>,
    asked: bool,
}

impl Session {
    /// Returns the first bytes to send.
    pub(super) fn begin(ask: &Ask) -> (Self, Vec<u8>) {
        let mut headers = Vec::new();
        for (name, value) in [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", ask.host.as_str()),
            (":path", ask.path.as_str()),
            ("sec-websocket-version", "13"),
        ] {
            // RFC 7541 §6.2.2: a literal field without indexing, and a new name.
            headers.push(0);
            string(&mut headers, name);
            string(&mut headers, value);
        }
        let mut first = PREFACE.to_vec();
        frame(&mut first, SETTINGS, 0, 0, &[]);
        (Self { headers, input: Vec::new(), asked: false }, first)
    }

    /// Whether the server announced it and was asked.
    pub(super) fn has_asked(&self) -> bool {
        self.asked
    }

    /// Returns bytes to send, and the answer once it is known.
    pub(super) fn received(&mut self, bytes: &[u8]) -> (Vec<u8>, Option<Answer>) {
        self.input.extend_from_slice(bytes);
        let (mut output, mut at) = (Vec::new(), 0);
        let mut answer = None;
        while answer.is_none() {
            let Some(header) = self.input.get(at..at + FRAME_HEADER) else { break };
            let length =
                usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let (kind, flags) = (header[3], header[4]);
            let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            if length > FRAME_MAX {
                answer = Some(Answer::Refused("an invalid frame".to_owned()));
                break;
            }
            let start = at + FRAME_HEADER;
            let Some(payload) = self.input.get(start..start + length) else { break };
            at = start + length;
            answer = match kind {
                SETTINGS if flags & ACK == 0 => {
                    frame(&mut output, SETTINGS, ACK, 0, &[]);
                    if self.asked {
                        None
                    } else if announces(payload) {
                        self.asked = true;
                        frame(&mut output, HEADERS, END_HEADERS, 1, &self.headers);
                        None
                    } else {
                        Some(Answer::NotAnnounced)
                    }
                }
                HEADERS if stream == 1 => Some(judge(flags, payload)),
                RST_STREAM if stream == 1 => Some(Answer::Refused(error("RST_STREAM", payload))),
                GOAWAY => {
                    let code = payload.get(4..).unwrap_or_default();
                    Some(Answer::Refused(error("GOAWAY", code)))
                }
                _ => None,
            };
        }
        self.input.drain(..at);
        (output, answer)
    }
}

fn announces(settings: &[u8]) -> bool {
    settings.chunks_exact(6).any(|setting| {
        u16::from_be_bytes([setting[0], setting[1]]) == ENABLE_CONNECT
            && setting[2..] == [0, 0, 0, 1]
    })
}

fn error(name: &str, code: &[u8]) -> String {
    match code {
        [a, b, c, d, ..] => format!("{name} with error {}", u32::from_be_bytes([*a, *b, *c, *d])),
        _ => name.to_owned(),
    }
}

/// The status is the first field of a response (RFC 9113 §8.3).
fn judge(flags: u8, payload: &[u8]) -> Answer {
    let padded = usize::from(flags & PADDED != 0);
    let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
    let mut block = payload.get(padded + priority..).unwrap_or_default();
    // RFC 7541 §6.3: a change of the table's size may precede.
    while let [first @ 0x20..=0x3f, rest @ ..] = block {
        // RFC 7541 §5.1: a large number continues while the top bit is set.
        let more = if *first == 0x3f { 1 + leading(rest) } else { 0 };
        block = rest.get(more..).unwrap_or_default();
    }
    match status(block).as_deref() {
        Some("200") => Answer::Opened,
        Some(status) => Answer::Refused(format!("answered with {status}")),
        None => Answer::Refused("answered with an unknown status".to_owned()),
    }
}

/// How many bytes at the front have the top bit set.
fn leading(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| **byte & 0x80 != 0).count()
}

/// RFC 7541 appendix A: entries 8 to 14 of the static table are statuses.
fn status(block: &[u8]) -> Option<String> {
    const KNOWN: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];
    match block {
        [byte @ 0x88..=0x8e, ..] => Some(KNOWN[usize::from(byte - 0x88)].to_owned()),
        // A literal value for the name of one of them.
        [byte, length, value @ ..] if matches!(byte & 0x3f, 8..=14) || matches!(byte, 8..=14) => {
            let value = value.get(..usize::from(length & 0x7f))?;
            if length & 0x80 == 0 { String::from_utf8(value.to_vec()).ok() } else { digits(value) }
        }
        _ => None,
    }
}

/// Three digits in the Huffman code of RFC 7541 appendix B: 0 to 2 have five bits, 3 to 9 six.
fn digits(bytes: &[u8]) -> Option<String> {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let mut text = String::new();
    while text.len() < 3 {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next()?;
        }
        let digit = if code < 3 { code } else { (code << 1 | bits.next()?).checked_sub(22)? };
        text.push(char::from_digit(u32::from(digit), 10)?);
    }
    Some(text)
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// RFC 7541 §5.2, without Huffman coding.
fn string(out: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 127 {
        out.push(length as u8);
    } else {
        out.push(127);
        length -= 127;
        while length >= 128 {
            out.push(length as u8 & 0x7f | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(frames: &[(u8, u8, u32, &[u8])]) -> Option<Answer> {
        let ask = Ask { host: "h".to_owned(), path: "/".repeat(300), ..Ask::default() };
        let (mut session, first) = Session::begin(&ask);
        assert!(first.starts_with(PREFACE));
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in frames {
            frame(&mut bytes, *kind, *flags, *stream, payload);
        }
        // Split anywhere, the answer is the same.
        let mut seen = None;
        for byte in &bytes {
            seen = seen.or_else(|| session.received(&[*byte]).1);
        }
        let (mut whole, _) = Session::begin(&ask);
        assert_eq!(whole.received(&bytes).1, seen);
        seen
    }

    #[test]
    fn answers() {
        let yes: (u8, u8, u32, &[u8]) = (SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 1]);
        assert_eq!(reply(&[(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])]), Some(Answer::NotAnnounced));
        assert_eq!(reply(&[yes]), None);
        assert_eq!(reply(&[yes, (HEADERS, 4, 1, &[0x88])]), Some(Answer::Opened));
        let refused = |text: &str| Some(Answer::Refused(text.to_owned()));
        let not_found = (HEADERS, 4, 1, &[0x8d][..]);
        assert_eq!(reply(&[yes, not_found]), refused("answered with 404"));
        let resized = (HEADERS, 4, 1, &[0x3f, 0xe1, 0x1f, 0x20, 0x88][..]);
        assert_eq!(reply(&[yes, resized]), Some(Answer::Opened));
        let other = (HEADERS, 4, 1, &[0x50, 1, b'x'][..]);
        assert_eq!(reply(&[yes, other]), refused("answered with an unknown status"));
        let literal = (HEADERS, 4, 1, &[0x48, 3, b'4', b'0', b'3'][..]);
        assert_eq!(reply(&[yes, literal]), refused("answered with 403"));
        // "302" in RFC 7541 appendix C.6.1.
        let coded = (HEADERS, 4, 1, &[0x48, 0x82, 0x64, 0x02][..]);
        assert_eq!(reply(&[yes, coded]), refused("answered with 302"));
        let reset = (RST_STREAM, 0, 1, &[0, 0, 0, 1][..]);
        assert_eq!(reply(&[yes, reset]), refused("RST_STREAM with error 1"));
    }
}
