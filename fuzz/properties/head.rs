//! Requests that arrive in parts: cuts change neither verdict nor length, `httparse` and a strict
//! parser read accepted requests the same way, and the server sends the same bytes.

use wspulse::limits::DROPPED_BODY_BYTES;
use wspulse::proto::body::Body;
use wspulse::proto::http::{self, Fields, Framing, Request};
use wspulse::proto::intake::{Intake, Progress};
use wspulse::proto::refusal::Refusal;

use super::input::{self, Cuts};
use super::session::{End, Pace, Session};

const INPUT_MAX: usize = 4 * 1024;
/// Of an expanded input: more than every limit of a request.
const BYTES_MAX: usize = 40 * 1024;
/// Longer inputs are not tried byte by byte: one server call per byte is expensive.
const BYTEWISE_MAX: usize = 1024;

/// See the module's head.
pub fn head(data: &[u8]) {
    let (cuts, rest) = input::cuts(&data[..data.len().min(INPUT_MAX)]);
    let bytes = input::expanded(rest, BYTES_MAX);
    let whole = read(&bytes, &Cuts::none());
    for cuts in [&cuts, &Cuts::everywhere()] {
        assert_eq!(read(&bytes, cuts), whole, "cut at {cuts:?}");
    }
    for event in &whole {
        match *event {
            Event::Request { start, head_end, end } => check(&bytes, start, head_end, end),
            Event::Refused(refusal) => {
                assert!((400..=505).contains(&refusal.status()), "{refusal:?}");
            }
            Event::Early { .. } | Event::Unfinished { .. } => {}
        }
    }
    check_server(&bytes, &cuts);
}

/// The result of a stretch of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Request {
        start: usize,
        head_end: usize,
        end: usize,
    },
    /// Answered without reading its body, so it is the last.
    Early {
        start: usize,
        head_end: usize,
    },
    Refused(Refusal),
    Unfinished {
        start: usize,
        in_body: bool,
    },
}

/// Reads requests as the HTTP stage does, one after the other.
fn read(bytes: &[u8], cuts: &Cuts) -> Vec<Event> {
    let mut events = Vec::new();
    let (mut start, mut head_end, mut intake) = (0, 0, Intake::default());
    for have in cuts.ends(bytes.len()) {
        while start < have {
            let event = match advance(&mut intake, &bytes[start..have], &mut head_end) {
                Ok(Step::Waiting) => break,
                Ok(Step::Whole(length)) => {
                    let request =
                        Event::Request { start, head_end: start + head_end, end: start + length };
                    start += length;
                    intake = Intake::default();
                    request
                }
                Ok(Step::Early) => Event::Early { start, head_end: start + head_end },
                Err(refusal) => Event::Refused(refusal),
            };
            events.push(event);
            if !matches!(event, Event::Request { .. }) {
                return events;
            }
        }
    }
    if start < bytes.len() {
        events.push(Event::Unfinished { start, in_body: intake.awaits_body() });
    }
    events
}

enum Step {
    Waiting,
    Whole(usize),
    Early,
}

fn advance(intake: &mut Intake, bytes: &[u8], head_end: &mut usize) -> Result<Step, Refusal> {
    match intake.advance(bytes)? {
        Progress::Waiting => Ok(Step::Waiting),
        Progress::Whole(end) => Ok(Step::Whole(end)),
        Progress::Head(end) => {
            *head_end = end;
            let mut fields = Fields::default();
            let request = http::parse(&bytes[..end], &mut fields)?;
            if request.framing == Framing::Length(0) {
                return Ok(Step::Whole(end));
            }
            let Ok(body) = Body::new(request.framing, DROPPED_BODY_BYTES) else {
                return Ok(Step::Early);
            };
            if request.expects_continue {
                return Ok(Step::Early);
            }
            intake.expect_body(body);
            match intake.advance(bytes)? {
                Progress::Whole(end) => Ok(Step::Whole(end)),
                Progress::Waiting => Ok(Step::Waiting),
                Progress::Head(_) => panic!("a head inside a body"),
            }
        }
    }
}

/// Compares an accepted request with the other parsers.
fn check(bytes: &[u8], start: usize, head_end: usize, end: usize) {
    let head = &bytes[start..head_end];
    let mut fields = Fields::default();
    let request = http::parse(head, &mut fields).expect("it was accepted");
    let mut theirs = [httparse::EMPTY_HEADER; 128];
    let mut their = httparse::Request::new(&mut theirs);
    let parsed = their.parse(&bytes[start..]);
    assert_eq!(parsed, Ok(httparse::Status::Complete(head.len())), "another end of the head");
    assert_eq!(their.method, Some(request.method_text));
    assert_eq!(their.path, Some(request.target));
    assert_eq!(their.version, Some(request.minor));
    assert_eq!(their.headers.len(), request.fields().count());
    let lengths = pedantic(head, &request);
    let body = &bytes[head_end..end];
    match request.framing {
        Framing::Length(length) => {
            assert_eq!(length, body.len() as u64);
            assert!(lengths.iter().all(|value| value.parse() == Ok(length)), "{lengths:?}");
        }
        Framing::Chunked => {
            assert!(lengths.is_empty(), "a length beside an encoding: {lengths:?}");
            assert_eq!(chunked_len(&bytes[head_end..]), Some(body.len()), "another body");
        }
    }
}

/// Strict parser, line by line; returns the values of `Content-Length`.
fn pedantic<'b>(head: &'b [u8], request: &Request<'_, '_>) -> Vec<&'b str> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines: Vec<&[u8]> = head.split(|&byte| byte == b'\n').collect();
    let (last, lines) = lines.split_last().expect("a split has a part");
    assert!(last.is_empty() && lines.last() == Some(&&b"\r"[..]), "it ends with an empty line");
    let (mut hosts, mut lengths) = (0, Vec::new());
    for line in &lines[1..lines.len() - 1] {
        let line = line.strip_suffix(b"\r").expect("every line ends with CR LF");
        assert!(!line.contains(&b'\r') && !line.contains(&0), "a CR or NUL inside a line");
        let colon = line.iter().position(|&byte| byte == b':').expect("every field has a colon");
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        assert!(http::is_token(name), "an invalid name: {:?}", line.escape_ascii());
        let value = value.trim_ascii();
        match name.to_ascii_lowercase().as_slice() {
            b"host" => hosts += 1,
            b"content-length" => {
                assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit));
                lengths.push(std::str::from_utf8(value).expect("digits"));
            }
            b"transfer-encoding" => {
                assert!(value.eq_ignore_ascii_case(b"chunked"));
                assert_eq!((request.framing, request.minor), (Framing::Chunked, 1));
            }
            _ => {}
        }
    }
    assert!(hosts == 1 || (hosts == 0 && request.minor == 0), "{hosts} hosts");
    assert!(lengths.len() <= 1, "several lengths: {lengths:?}");
    lengths
}

/// The length of a chunked body, by a reference parser of RFC 9112 §7.1.
fn chunked_len(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line_len = body[at..].windows(2).position(|two| two == b"\r\n")?;
        let line = &body[at..at + line_len];
        let size = line.split(|&byte| byte == b';').next()?;
        assert!(!size.is_empty() && size.iter().all(u8::is_ascii_hexdigit), "no size: {size:?}");
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        at += line_len + 2 + size;
        if size == 0 {
            return trailer_end(body, at);
        }
        assert_eq!(body.get(at..at + 2), Some(&b"\r\n"[..]), "a chunk ends with CR LF");
        at += 2;
    }
}

/// The end of the trailer that begins here: field lines and an empty one.
fn trailer_end(body: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let line_len = body[at..].windows(2).position(|two| two == b"\r\n")?;
        let line = &body[at..at + line_len];
        at += line_len + 2;
        if line.is_empty() {
            return Some(at);
        }
        assert!(!line.iter().any(|byte| b"\r\n\0".contains(byte)), "no line: {line:?}");
        let colon = line.iter().position(|&byte| byte == b':').expect("every field has a colon");
        assert!(http::is_token(&line[..colon]), "an invalid name: {:?}", line.escape_ascii());
    }
}

/// The server's output does not depend on the cuts or on how its peer reads.
fn check_server(bytes: &[u8], cuts: &Cuts) {
    let whole = answers(bytes, &Cuts::none(), Pace::Eager);
    let cut = answers(bytes, cuts, Pace::Slow(100));
    assert_same(&whole, &cut, cuts);
    if bytes.len() <= BYTEWISE_MAX {
        let everywhere = Cuts::everywhere();
        assert_same(&whole, &answers(bytes, &everywhere, Pace::Eager), &everywhere);
    }
}

fn assert_same(whole: &(Vec<u8>, End), cut: &(Vec<u8>, End), cuts: &Cuts) {
    assert!(
        whole == cut,
        "cut at {cuts:?}: it says\n{}\n{:?}\ninstead of\n{}\n{:?}",
        cut.0.escape_ascii(),
        cut.1,
        whole.0.escape_ascii(),
        whole.1
    );
}

fn answers(bytes: &[u8], cuts: &Cuts, pace: Pace) -> (Vec<u8>, End) {
    let mut session = Session::new(None, pace);
    for part in cuts.parts(bytes) {
        session.send(part);
    }
    session.drain();
    let answer = (std::mem::take(&mut session.output), session.end);
    session.hang_up();
    answer
}
