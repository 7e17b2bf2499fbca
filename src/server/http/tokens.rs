//! Access tokens from files: read at start, and again when a client connects and they are old.
//! Responses must not reveal a file's path, nor their timing anything about the token.

use std::collections::BTreeMap;

use crate::engine::{File, Now, Source};
use crate::proto::http::{Request, percent_decoded};
use crate::time;

/// Age after which they are read again.
pub(crate) const REREAD_MS: u64 = 60_000;
/// The same after a request with an unknown token, which may be newer than the file that was read.
const REREAD_UNKNOWN_MS: u64 = 1_000;
/// How long a token is accepted after it was replaced: the two sides do not read a new one at the
/// same time.
const PREVIOUS_MS: u64 = 300_000;
/// Maximum replaced tokens of a file that are accepted.
const PREVIOUS_MAX: usize = 8;
/// Maximum token.
const TOKEN_BYTES: usize = 16 * 1024;

/// The access tokens of all mounts, by the path of their file.
#[derive(Debug)]
pub struct Tokens {
    by_path: BTreeMap<String, Token>,
    read_ns: Option<u64>,
}

#[derive(Debug, Default)]
struct Token {
    /// Empty if the file could not be read: then no token matches.
    current: Vec<u8>,
    /// Replaced tokens, the oldest first, and when they expire.
    previous: Vec<(Vec<u8>, u64)>,
}

impl Tokens {
    /// Tokens from these files; empty paths are skipped.
    pub fn new(paths: impl Iterator<Item = String>) -> Self {
        let paths = paths.filter(|path| !path.is_empty());
        let mut by_path = BTreeMap::new();
        by_path.extend(paths.map(|path| (path, Token::default())));
        Self { by_path, read_ns: None }
    }

    /// The files to read.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.by_path.keys().cloned().collect()
    }

    pub(crate) fn source(&self) -> Option<Source> {
        (!self.by_path.is_empty()).then(|| Source::Files(self.paths()))
    }

    /// Files were read. An empty file, perhaps half written, keeps the old token.
    pub fn fetched(&mut self, now: Now, files: &[File]) {
        for File { name, bytes, .. } in files {
            let token = bytes.trim_ascii();
            let Some(known) = self.by_path.get_mut(name) else { continue };
            if (1..=TOKEN_BYTES).contains(&token.len()) {
                known.replace(now, token);
            } else {
                log::warn!(
                    target: "files", file = name, bytes = token.len();
                    "token file is empty or too long: {}", fallback(!known.current.is_empty())
                );
            }
        }
    }

    /// Whether to read them again now; returns true once for each period.
    pub fn is_due(&mut self, now: Now) -> bool {
        self.is_due_after(now, REREAD_MS)
    }

    /// The same after a request with an unknown token.
    pub fn is_due_after_refusal(&mut self, now: Now) -> bool {
        self.is_due_after(now, REREAD_UNKNOWN_MS)
    }

    fn is_due_after(&mut self, now: Now, age_ms: u64) -> bool {
        let old = self.read_ns.is_none_or(|read_ns| now.mono_ns - read_ns >= time::ms(age_ms));
        if old {
            self.read_ns = Some(now.mono_ns);
        }
        old
    }

    /// Whether the request has the token of this file in `Authorization`.
    #[must_use]
    pub fn is_bearer(&self, now: Now, request: &Request<'_, '_>, path: &str) -> bool {
        self.is_token(now, path, bearer(request).unwrap_or_default())
    }

    /// The same, or in the URL parameter `access_token`: a page cannot set the header field.
    pub(crate) fn admits(&self, now: Now, request: &Request<'_, '_>, path: &str) -> bool {
        let in_url = request.query.split('&').find_map(|pair| pair.strip_prefix("access_token="));
        let in_url = in_url.and_then(percent_decoded);
        let given = bearer(request).or(in_url.as_deref()).unwrap_or_default();
        self.is_token(now, path, given)
    }

    fn is_token(&self, now: Now, path: &str, given: &str) -> bool {
        self.by_path.get(path).is_some_and(|token| token.accepts(now, given.as_bytes()))
    }
}

impl Token {
    fn replace(&mut self, now: Now, token: &[u8]) {
        if self.current == token {
            return;
        }
        let replaced = std::mem::replace(&mut self.current, token.to_vec());
        self.previous.retain(|(known, until_ns)| *until_ns > now.mono_ns && known != token);
        // A half-written file begins like the whole one. It must not be accepted any longer.
        if replaced.is_empty() || token.starts_with(&replaced) {
            return;
        }
        if self.previous.len() >= PREVIOUS_MAX {
            self.previous.remove(0);
        }
        self.previous.push((replaced, now.mono_ns + time::ms(PREVIOUS_MS)));
    }

    /// Compares with each of them, whichever matches.
    fn accepts(&self, now: Now, given: &[u8]) -> bool {
        let previous = self.previous.iter().filter(|(_, until_ns)| now.mono_ns < *until_ns);
        let current = Some(&self.current).filter(|token| !token.is_empty());
        let tokens = current.into_iter().chain(previous.map(|(token, _)| token));
        tokens.fold(false, |found, token| found | is_same(token, given))
    }
}

/// The consequence of an unusable file, for the log.
#[must_use]
pub fn fallback(had_one: bool) -> &'static str {
    if had_one { "keeping its previous contents" } else { "it grants no access" }
}

fn bearer<'b>(request: &Request<'_, 'b>) -> Option<&'b str> {
    let (scheme, given) = request.value("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
}

/// Compares in constant time.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b));
    one.len() == other.len() && differs == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_ns: time::ms(ms), wall_ms: 0 }
    }

    fn accepted(token: &Token, ms: u64, given: &[&str]) -> Vec<bool> {
        given.iter().map(|given| token.accepts(at(ms), given.as_bytes())).collect()
    }

    #[test]
    fn a_replaced_token_is_accepted_for_five_minutes() {
        let mut token = Token::default();
        assert!(!token.accepts(at(0), b""));
        token.replace(at(0), b"one");
        token.replace(at(1_000), b"two");
        token.replace(at(1_000), b"two");
        assert_eq!(
            accepted(&token, 300_999, &["one", "two", "", "on"]),
            [true, true, false, false]
        );
        assert_eq!(accepted(&token, 301_000, &["one", "two"]), [false, true]);
        // Replaced twice within five minutes, then back again.
        token.replace(at(400_000), b"three");
        token.replace(at(500_000), b"four");
        token.replace(at(600_000), b"two");
        let given = ["two", "three", "four"];
        assert_eq!(accepted(&token, 799_999, &given), [true, true, true]);
        assert_eq!(accepted(&token, 899_999, &given), [true, false, true]);
        assert_eq!(accepted(&token, 900_000, &given), [true, false, false]);
    }

    #[test]
    fn half_a_token_is_not_accepted_once_it_is_whole() {
        let mut token = Token::default();
        for text in ["old", "n", "new"] {
            token.replace(at(0), text.as_bytes());
        }
        assert_eq!(accepted(&token, 1, &["old", "n", "new"]), [true, false, true]);
    }

    #[test]
    fn the_number_of_replaced_tokens_is_bounded() {
        let mut token = Token::default();
        for number in 0..100 {
            token.replace(at(number), format!("token {number}").as_bytes());
        }
        assert_eq!(token.previous.len(), PREVIOUS_MAX);
        assert_eq!(
            accepted(&token, 100, &["token 99", "token 91", "token 90"]),
            [true, true, false]
        );
    }
}
