//! The path of a request target, and percent-decoding.

use std::borrow::Cow;

use super::refusal::Refusal;

/// How several leading slashes of a path are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slashes {
    /// As an error: some parsers read `//evil/ws` as a host.
    Refused,
    /// As one slash: old kubelets request `//path` in a hook.
    Folded,
}

/// Path and query of a target in origin form, or in absolute form if its host equals `Host`.
pub(super) fn split_target<'b>(
    target: &'b str,
    host: &str,
    method: &str,
    slashes: Slashes,
) -> Result<(&'b str, &'b str), Refusal> {
    // `*` and the authority of CONNECT are no paths; both get 405.
    if (target == "*" && method == "OPTIONS") || method == "CONNECT" {
        return Ok((target, ""));
    }
    let absolute = if target.starts_with('/') { None } else { target.split_once("://") };
    let origin_form = match absolute {
        Some((scheme, rest)) => {
            let known =
                ["http", "https", "ws", "wss"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if !known || !authority.eq_ignore_ascii_case(host) {
                return Err(Refusal::TargetInvalid);
            }
            path
        }
        None => target,
    };
    let origin_form = if origin_form.is_empty() { "/" } else { origin_form };
    let (path, query) = origin_form.split_once('?').unwrap_or((origin_form, ""));
    let path = match slashes {
        Slashes::Refused => path,
        Slashes::Folded => {
            let rest = path.trim_start_matches('/');
            &path[(path.len() - rest.len()).saturating_sub(1)..]
        }
    };
    // Some parsers read `//evil/ws` and `\` as a host, and `#` as the end.
    let fine = path.starts_with('/')
        && !path.starts_with("//")
        && target.bytes().all(|b| b.is_ascii_graphic() && b != b'\\' && b != b'#');
    if fine { Ok((path, query)) } else { Err(Refusal::TargetInvalid) }
}

/// RFC 3986 §6.2.2.2: `%XX` of an unreserved character equals that character. Nothing else is
/// decoded or resolved, so any other path has only one spelling.
pub(super) fn decode_unreserved(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        rest = &rest[at..];
        let byte = rest.get(1..3).and_then(hex_byte);
        match byte {
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                decoded.push(char::from(b));
                rest = &rest[3..];
            }
            _ => {
                decoded.push('%');
                rest = &rest[1..];
            }
        }
    }
    decoded.push_str(rest);
    Cow::Owned(decoded)
}

fn hex_byte(digits: &str) -> Option<u8> {
    let both = digits.bytes().all(|b| b.is_ascii_hexdigit());
    both.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

/// A path as a file name, with all `%XX` decoded once. `None` if the result is not UTF-8, or a
/// `%XX` is a slash or NUL, which no file name has.
#[must_use]
pub fn decoded_path(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let mut parts = raw.split('%');
    let mut decoded = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(hex_byte).filter(|byte| !b"/\0".contains(byte))?;
        decoded.push(byte);
        decoded.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

/// A query value with all `%XX` decoded; `None` if the result is not UTF-8.
#[must_use]
pub fn percent_decoded(value: &str) -> Option<Cow<'_, str>> {
    if !value.contains(['%', '+']) {
        return Some(Cow::Borrowed(value));
    }
    let bytes = value.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&first) = bytes.get(at) {
        let (byte, taken) = match first {
            b'%' => (value.get(at + 1..at + 3).and_then(hex_byte)?, 3),
            b'+' => (b' ', 1),
            other => (other, 1),
        };
        decoded.push(byte);
        at += taken;
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_at_the_front() {
        let path_of = |target| {
            let (path, _) = split_target(target, "h", "GET", Slashes::Folded)?;
            Ok::<_, Refusal>(path)
        };
        for (target, path) in [
            ("//drain?wait=1s", "/drain"),
            ("///", "/"),
            ("/", "/"),
            ("/a//b", "/a//b"),
            ("//a://b", "/a://b"),
            ("http://h//a", "/a"),
        ] {
            assert_eq!(path_of(target), Ok(path), "{target}");
        }
        assert!(path_of("x").is_err());
    }

    #[test]
    fn paths_of_files() {
        for (raw, name) in [
            ("/logo@2x.png", "/logo@2x.png"),
            ("/logo%402x.png", "/logo@2x.png"),
            ("/a+b%2B.txt", "/a+b+.txt"),
            ("/%C3%A9.txt", "/é.txt"),
            ("/%2541", "/%41"),
            ("/%c3%a9", "/é"),
        ] {
            assert_eq!(decoded_path(raw).as_deref(), Some(name), "{raw}");
        }
        for raw in ["/%2f", "/a%2Fb", "/%00", "/%", "/%4", "/%zz", "/%ff", "/%%32%35"] {
            assert_eq!(decoded_path(raw), None, "{raw}");
        }
    }

    #[test]
    fn query_values() {
        assert_eq!(percent_decoded("a%20b+c").as_deref(), Some("a b c"));
        assert_eq!(percent_decoded("%E2%98%83").as_deref(), Some("☃"));
        assert_eq!(percent_decoded("☃+"), Some(Cow::Borrowed("☃ ")));
        for bad in ["%", "%4", "%zz", "%ff", "%é"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }
}
