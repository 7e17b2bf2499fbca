//! Answers that arrive in parts: cuts change neither their content nor their end, limits hold, and
//! `httparse` and a reference parser read the same.

use wspulse::engine::ProxyFault;
use wspulse::proto::http::Persistence;
use wspulse::proto::http_client::{Answer, Asked, Event, Fault, Limits};
use wspulse::proto::tunnel;

use super::input::{self, Cuts};

const INPUT_MAX: usize = 4 * 1024;
/// Of an expanded input: more than every limit of an answer.
const BYTES_MAX: usize = 40 * 1024;
const LIMITS: Limits = Limits { head_bytes: 8 * 1024, body_bytes: 16 * 1024 };

/// See the module's head.
pub fn answers(data: &[u8]) {
    let (cuts, rest) = input::cuts(&data[..data.len().min(INPUT_MAX)]);
    let (asked, rest) = match rest.split_first() {
        Some((b'1', rest)) => (Asked::Head, rest),
        Some((b'2', rest)) => (Asked::Upgrade, rest),
        Some((b'3', rest)) => (Asked::Status, rest),
        Some((b'4', rest)) => return of_proxy(rest, &cuts),
        Some((_, rest)) => (Asked::Ordinary, rest),
        None => (Asked::Ordinary, rest),
    };
    let bytes = input::expanded(rest, BYTES_MAX);
    let whole = read(asked, &bytes, &Cuts::none());
    for cuts in [&cuts, &Cuts::everywhere()] {
        assert_eq!(read(asked, &bytes, cuts), whole, "cut at {cuts:?}");
    }
    check(asked, &bytes, &whole);
}

/// An answer to CONNECT: its end is the same however it is cut, but for bytes behind it, which a
/// cut may leave unread.
fn of_proxy(bytes: &[u8], cuts: &Cuts) {
    let read = |cuts: &Cuts| {
        let mut answer = tunnel::Answer::default();
        let ends = cuts.parts(bytes).map(|part| answer.read(part));
        ends.into_iter().find(|end| *end != Ok(false))
    };
    let whole = read(&Cuts::none());
    for cuts in [cuts, &Cuts::everywhere()] {
        let end = read(cuts);
        let is_short = whole == Some(Err(ProxyFault::Invalid)) && end == Some(Ok(true));
        assert!(end == whole || is_short, "{whole:?}, {end:?} cut at {cuts:?}");
    }
}

/// The parsed answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    status: Option<u16>,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    end: Option<Persistence>,
    /// Bytes that belong to it, or were read before the fault.
    used: usize,
    fault: Option<Fault>,
    /// The result of the connection's end.
    ended: Option<Result<(), Fault>>,
}

fn read(asked: Asked, bytes: &[u8], cuts: &Cuts) -> Outcome {
    let mut answer = Answer::new(asked, LIMITS);
    let mut outcome = Outcome::default();
    for part in cuts.parts(bytes) {
        let mut rest = part;
        loop {
            match answer.next(&mut rest) {
                Ok(Some(Event::Head(head))) => {
                    assert!(outcome.status.replace(head.status()).is_none(), "two heads");
                    let field = |(name, value): (&str, &[u8])| (name.to_owned(), value.to_vec());
                    outcome.fields = head.fields().map(field).collect();
                }
                Ok(Some(Event::Body(piece))) => {
                    assert!(outcome.status.is_some() && outcome.end.is_none() && !piece.is_empty());
                    outcome.body.extend_from_slice(piece);
                }
                Ok(Some(Event::End(persistence))) => {
                    assert!(outcome.status.is_some(), "an end without a head");
                    assert!(outcome.end.replace(persistence).is_none(), "two ends");
                }
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(answer.ended(), Err(fault), "it continues after a fault");
                    // The position of a fault within a part is unknown.
                    return Outcome { used: 0, fault: Some(fault), ..outcome };
                }
            }
        }
        assert!(rest.is_empty() || outcome.end.is_some(), "bytes of the answer are left");
        outcome.used += part.len() - rest.len();
        if !rest.is_empty() {
            break;
        }
    }
    if asked == Asked::Status && outcome.end == Some(Persistence::Close) {
        // A body may have been cut; where in a part is unknown.
        outcome.used = 0;
    }
    outcome.ended = Some(answer.ended());
    outcome
}

/// Compares with `httparse` and the reference parser.
fn check(asked: Asked, bytes: &[u8], outcome: &Outcome) {
    assert!(outcome.body.len() as u64 <= LIMITS.body_bytes, "the body limit is exceeded");
    let Some(status) = outcome.status else { return };
    let bodiless = asked == Asked::Head || matches!(status, 101 | 204 | 304);
    assert!(!bodiless || outcome.body.is_empty(), "a body of a bodiless answer");
    let mut rest = bytes;
    let head_end = loop {
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut their = httparse::Response::new(&mut fields);
        let parsed = their.parse(rest).expect("it was accepted");
        assert!(parsed.is_complete(), "a head without an end");
        rest = &rest[parsed.unwrap()..];
        if matches!(their.code, Some(100 | 102..=199)) {
            continue;
        }
        assert_eq!(their.code, Some(status));
        let field = |h: &httparse::Header<'_>| (h.name.to_owned(), h.value.to_vec());
        assert_eq!(their.headers.iter().map(field).collect::<Vec<_>>(), outcome.fields);
        break bytes.len() - rest.len();
    };
    if outcome.end.is_none() || bodiless || outcome.used == 0 {
        return;
    }
    let body = &bytes[head_end..outcome.used];
    let named = |name: &str| outcome.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
    if named("transfer-encoding").is_some() {
        assert_eq!(unchunked(body).as_ref(), Some(&outcome.body), "another body");
    } else {
        assert_eq!(body, outcome.body);
        let length = named("content-length").expect("it ended by itself");
        assert_eq!(std::str::from_utf8(&length.1).unwrap().parse(), Ok(body.len()));
    }
}

/// Reference parser: exactly one chunked body, RFC 9112 §7.1.
fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let line_len = body.windows(2).position(|two| two == b"\r\n")?;
        let size = body[..line_len].split(|&byte| byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        body = &body[line_len + 2..];
        if size == 0 {
            break;
        }
        data.extend_from_slice(body.get(..size)?);
        body = body[size..].strip_prefix(b"\r\n")?;
    }
    while body != b"\r\n" {
        let line_len = body.windows(2).position(|two| two == b"\r\n")?;
        assert!(line_len > 0 && body[..line_len].contains(&b':'), "an invalid trailer line");
        body = &body[line_len + 2..];
    }
    Some(data)
}
