//! A complete response head: its status, its fields, and the extent of its body (RFC 9112 §6.3).

use httparse::{ParserConfig, Response, Status};

use super::super::headers::{Fields, Headers};
use super::super::http::{Persistence, decimal, has_token};
use super::super::refusal::Refusal;
use super::{Asked, Fault};

/// A validated head.
#[derive(Clone, Copy, Debug)]
pub struct Head<'h> {
    status: u16,
    /// The field lines, each with its line end.
    fields: &'h [u8],
}

impl<'h> Head<'h> {
    /// `text` must have passed [`judge`], so every line is well-formed.
    pub(super) fn new(text: &'h [u8]) -> Self {
        let digits = text.get(9..12).unwrap_or_default();
        let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit & 0x0f));
        let line_end = text.iter().position(|&b| b == b'\n').map_or(text.len(), |at| at + 1);
        Self { status, fields: &text[line_end..] }
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// All header fields in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'h str, &'h [u8])> + use<'h> {
        self.fields.split(|&b| b == b'\n').filter_map(|line| {
            let colon = line.iter().position(|&b| b == b':')?;
            let name = str::from_utf8(&line[..colon]).ok()?;
            Some((name, line[colon + 1..].trim_ascii()))
        })
    }

    /// The value of the field with this case-insensitive name, if it occurs exactly once.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&'h [u8]> {
        let mut found = self.fields().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }
}

/// How the end of the body is determined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Length(u64),
    Chunked,
    /// The body ends with the connection.
    Close,
}

/// What a head says about the rest of the response.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) extent: Extent,
    pub(super) persistence: Persistence,
}

/// How each response begins; a digit follows.
pub(super) const START: &[u8] = b"HTTP/1.";

/// Checks the first bytes early: a peer of another protocol may never send a blank line.
pub(super) fn check_start(at: usize, byte: u8) -> Result<(), Fault> {
    match START.get(at) {
        Some(&wanted) if wanted == byte => Ok(()),
        Some(b'1') if byte.is_ascii_digit() => Err(Fault::Version),
        Some(_) => Err(Fault::NotHttp),
        None if at == START.len() && !matches!(byte, b'0' | b'1') => Err(Fault::Version),
        None => Ok(()),
    }
}

/// Validates a complete head; `None` for an interim response (RFC 9110 §15.2).
pub(super) fn judge(text: &[u8], asked: Asked, most: u64) -> Result<Option<Verdict>, Fault> {
    let mut fields = Fields::default();
    let mut parsed = Response::new(&mut []);
    let parser = ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut parsed, text, fields.space()) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(Fault::FieldInvalid),
        Err(error) => return Err(fault(error)),
    }
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Fault::NotHttp);
    };
    match (status, asked) {
        (101, Asked::Upgrade) => {
            let persistence = Persistence::Close;
            return Ok(Some(Verdict { extent: Extent::Length(0), persistence }));
        }
        (101, Asked::Ordinary | Asked::Head | Asked::Status) => return Err(Fault::Upgraded),
        (100..=199, _) => return Ok(None),
        (200..=599, _) => {}
        (_, _) => return Err(Fault::StatusInvalid),
    }
    let headers = Headers::new(parsed.headers);
    // Checked even if there is no body: contradictory fields are never trusted.
    let said = extent(headers, minor)?;
    let bodiless = asked == Asked::Head || matches!(status, 204 | 304);
    let extent = if bodiless { Extent::Length(0) } else { said };
    let is_bounded = asked != Asked::Status;
    if matches!(extent, Extent::Length(length) if is_bounded && length > most) {
        return Err(Fault::BodyTooLarge);
    }
    let closes = headers.values("connection").any(|list| has_token(list, "close"));
    // `keep-alive` in HTTP/1.0 is ignored; it is not worth the risk.
    let persistence = if closes || minor == 0 || extent == Extent::Close {
        Persistence::Close
    } else {
        Persistence::KeepAlive
    };
    Ok(Some(Verdict { extent, persistence }))
}

fn fault(error: httparse::Error) -> Fault {
    match error {
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Token => Fault::FieldInvalid,
        httparse::Error::Status => Fault::StatusInvalid,
        httparse::Error::TooManyHeaders => Fault::TooManyFields,
        httparse::Error::Version => Fault::NotHttp,
    }
}

/// RFC 9112 §6.3: one length, or exactly `chunked`; without either, up to the end of the
/// connection. If lengths differ or both are present, a proxy may read the response differently.
fn extent(headers: Headers<'_, '_>, minor: u8) -> Result<Extent, Fault> {
    let mut lengths = headers.values("content-length");
    let mut encodings = headers.values("transfer-encoding");
    match (lengths.next(), encodings.next()) {
        (None, None) => Ok(Extent::Close),
        (Some(_), Some(_)) => Err(Fault::LengthAmbiguous),
        (Some(length), None) => {
            let length = number(length)?;
            for other in lengths {
                if number(other)? != length {
                    return Err(Fault::LengthAmbiguous);
                }
            }
            Ok(Extent::Length(length))
        }
        (None, Some(encoding)) => {
            let alone = encodings.next().is_none();
            if alone && minor == 1 && encoding.eq_ignore_ascii_case(b"chunked") {
                Ok(Extent::Chunked)
            } else {
                Err(Fault::EncodingInvalid)
            }
        }
    }
}

fn number(text: &[u8]) -> Result<u64, Fault> {
    decimal(text).map_err(|refusal| match refusal {
        Refusal::BodyTooLarge => Fault::BodyTooLarge,
        _ => Fault::LengthInvalid,
    })
}
