//! Answers that arrive in parts: where they are cut changes neither what they say nor where they
//! end, no more is taken than allowed, and `httparse` and a slow reader find the same in them.

use wspulse::proto::http::Persistence;
use wspulse::proto::http_client::{Answer, Asked, Event, Fault, Limits};

use super::input::{self, Cuts};

const INPUT_MAX: usize = 4 * 1024;
/// With its repetitions: beyond every limit of an answer.
const BYTES_MAX: usize = 40 * 1024;
const LIMITS: Limits = Limits { head_bytes: 8 * 1024, body_bytes: 16 * 1024 };

/// See the module's head.
pub fn answers(data: &[u8]) {
    let (cuts, rest) = input::cuts(&data[..data.len().min(INPUT_MAX)]);
    let (asked, rest) = match rest.split_first() {
        Some((b'1', rest)) => (Asked::Head, rest),
        Some((b'2', rest)) => (Asked::Upgrade, rest),
        Some((b'3', rest)) => (Asked::Status, rest),
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

/// What an answer came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    status: Option<u16>,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    end: Option<Persistence>,
    /// Bytes that belong to it, or were read before it failed.
    used: usize,
    fault: Option<Fault>,
    /// What the end of the connection meant.
    ended: Option<Result<(), Fault>>,
}

fn read(asked: Asked, bytes: &[u8], cuts: &Cuts) -> Told {
    let mut answer = Answer::new(asked, LIMITS);
    let mut told = Told::default();
    for part in cuts.parts(bytes) {
        let mut rest = part;
        loop {
            match answer.next(&mut rest) {
                Ok(Some(Event::Head(head))) => {
                    assert!(told.status.replace(head.status()).is_none(), "two heads");
                    let field = |(name, value): (&str, &[u8])| (name.to_owned(), value.to_vec());
                    told.fields = head.fields().map(field).collect();
                }
                Ok(Some(Event::Body(piece))) => {
                    assert!(told.status.is_some() && told.end.is_none() && !piece.is_empty());
                    told.body.extend_from_slice(piece);
                }
                Ok(Some(Event::End(persistence))) => {
                    assert!(told.status.is_some(), "an end without a head");
                    assert!(told.end.replace(persistence).is_none(), "two ends");
                }
                Ok(None) => break,
                Err(fault) => {
                    assert_eq!(answer.ended(), Err(fault), "it goes on after a fault");
                    // Where in a part a fault lies is not told.
                    return Told { used: 0, fault: Some(fault), ..told };
                }
            }
        }
        assert!(rest.is_empty() || told.end.is_some(), "bytes of the answer are left over");
        told.used += part.len() - rest.len();
        if !rest.is_empty() {
            break;
        }
    }
    if asked == Asked::Status && told.end == Some(Persistence::Close) {
        // A body may have been cut; where in a part is not told.
        told.used = 0;
    }
    told.ended = Some(answer.ended());
    told
}

/// The same, found by others.
fn check(asked: Asked, bytes: &[u8], told: &Told) {
    assert!(told.body.len() as u64 <= LIMITS.body_bytes, "more is taken than allowed");
    let Some(status) = told.status else { return };
    let bodiless = asked == Asked::Head || matches!(status, 101 | 204 | 304);
    assert!(!bodiless || told.body.is_empty(), "a body where there is none");
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
        assert_eq!(their.headers.iter().map(field).collect::<Vec<_>>(), told.fields);
        break bytes.len() - rest.len();
    };
    if told.end.is_none() || bodiless || told.used == 0 {
        return;
    }
    let body = &bytes[head_end..told.used];
    let named = |name: &str| told.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
    if named("transfer-encoding").is_some() {
        assert_eq!(unchunked(body).as_ref(), Some(&told.body), "another body");
    } else {
        assert_eq!(body, told.body);
        let length = named("content-length").expect("it ended by itself");
        assert_eq!(std::str::from_utf8(&length.1).unwrap().parse(), Ok(body.len()));
    }
}

/// A chunked body and no byte more, as RFC 9112 §7.1 has it, read at leisure.
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
        assert!(line_len > 0 && body[..line_len].contains(&b':'), "no line of a trailer");
        body = &body[line_len + 2..];
    }
    Some(data)
}
