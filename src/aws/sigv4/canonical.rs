//! The canonical form of a request, which is hashed and signed.

use super::Parts;
use crate::aws::hash::{hex, sha256};

/// `signed` lists the covered fields in lowercase, sorted.
pub(super) fn canonical(parts: &Parts<'_>, signed: &[&str]) -> Vec<u8> {
    let (path, query) = parts.target.split_once('?').unwrap_or((parts.target, ""));
    let mut out = Vec::with_capacity(512);
    let mut line = |parts: &[&[u8]]| {
        out.extend_from_slice(&parts.concat());
        out.push(b'\n');
    };
    line(&[parts.method.as_bytes()]);
    line(&[canonical_path(path).as_bytes()]);
    line(&[canonical_query(query).as_bytes()]);
    for name in signed {
        let values = parts.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<Vec<u8>> = values.map(|(_, value)| collapsed(value)).collect();
        line(&[name.as_bytes(), b":", &values.join(&b","[..])]);
    }
    line(&[]);
    line(&[signed.join(";").as_bytes()]);
    out.extend_from_slice(hex(&sha256(parts.body)).as_bytes());
    out
}

/// Resolves `.`, `..` and empty segments, then encodes everything except unreserved bytes and `/`,
/// including the `%` of existing escapes.
fn canonical_path(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = String::with_capacity(path.len() + 16);
    for part in &parts {
        out.push('/');
        encode(part.as_bytes(), &mut out);
    }
    if parts.is_empty() || path.ends_with('/') {
        out.push('/');
    }
    out
}

/// Decodes and strictly re-encodes names and values, then sorts the pairs.
fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (reencoded(name), reencoded(value))
        })
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> =
        pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

fn reencoded(text: &str) -> String {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        plain.push(hex.unwrap_or(*first));
        rest = if hex.is_some() { &after[2..] } else { after };
    }
    let mut out = String::with_capacity(text.len());
    encode(&plain, &mut out);
    out
}

/// Percent-encodes everything except the unreserved bytes of RFC 3986 §2.3.
pub(crate) fn encode(bytes: &[u8], out: &mut String) {
    for b in bytes {
        if b.is_ascii_alphanumeric() || b"-._~".contains(b) {
            out.push(char::from(*b));
        } else {
            out.push('%');
            out.push_str(&hex(&[*b]).to_ascii_uppercase());
        }
    }
}

/// Trims whitespace and collapses runs of it to one space.
fn collapsed(value: &[u8]) -> Vec<u8> {
    let words = value.split(|b| matches!(b, b' ' | b'\t')).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(&b' ')
}
