//! Tokens that clients need, as files have them: read at start, and again when a client comes and
//! they are old. A client must learn neither the file's path from an answer, nor anything about
//! the token from how long the answer took.

use std::collections::BTreeMap;

use crate::engine::{File, Now, Source};
use crate::proto::http::{Request, percent_decoded};
use crate::time;

/// After that, they are read again.
const REREAD_MS: u64 = 60_000;
/// A token that is longer is none.
const TOKEN_BYTES: usize = 16 * 1024;

/// Tokens, by the path of their file.
#[derive(Debug)]
pub struct Tokens {
    /// Empty: nothing could be read, and no client has it.
    by_path: BTreeMap<String, Vec<u8>>,
    read_ns: Option<u64>,
}

impl Tokens {
    /// Tokens of these files; an empty path is none.
    pub fn new(paths: impl Iterator<Item = String>) -> Self {
        let paths = paths.filter(|path| !path.is_empty());
        Self { by_path: paths.map(|path| (path, Vec::new())).collect(), read_ns: None }
    }

    /// What is to be read.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        self.by_path.keys().cloned().collect()
    }

    pub(in crate::server) fn source(&self) -> Option<Source> {
        (!self.by_path.is_empty()).then(|| Source::Files(self.paths()))
    }

    /// Files were read. One that is half written keeps the old token.
    pub fn fetched(&mut self, files: &[File]) {
        for File { name, bytes, .. } in files {
            let token = bytes.trim_ascii();
            let Some(known) = self.by_path.get_mut(name) else { continue };
            if (1..=TOKEN_BYTES).contains(&token.len()) {
                *known = token.to_vec();
            } else {
                log::warn!(
                    target: "files", file = name, bytes = token.len();
                    "this token file is empty or too long: {}", holds(!known.is_empty())
                );
            }
        }
    }

    /// Whether it is time to read them again; the answer is yes once.
    pub fn are_old(&mut self, now: Now) -> bool {
        let old = self.read_ns.is_none_or(|read_ns| now.mono_ns - read_ns >= time::ms(REREAD_MS));
        if old {
            self.read_ns = Some(now.mono_ns);
        }
        old
    }

    /// Whether a request has the token of this file, in `Authorization` and nowhere else.
    #[must_use]
    pub fn is_bearer(&self, request: &Request<'_, '_>, path: &str) -> bool {
        self.is_token(path, bearer(request).unwrap_or_default())
    }

    /// The same, or in the parameter `access_token` of the URL: a page cannot set the field.
    pub(in crate::server) fn admits(&self, request: &Request<'_, '_>, path: &str) -> bool {
        let in_url = request.query.split('&').find_map(|pair| pair.strip_prefix("access_token="));
        let in_url = in_url.and_then(percent_decoded);
        let given = bearer(request).or(in_url.as_deref()).unwrap_or_default();
        self.is_token(path, given)
    }

    fn is_token(&self, path: &str, given: &str) -> bool {
        let token = self.by_path.get(path).map_or(&[][..], Vec::as_slice);
        !token.is_empty() && is_same(token, given.as_bytes())
    }
}

/// What a file that cannot be used means for clients, in a log line.
#[must_use]
pub fn holds(had_one: bool) -> &'static str {
    if had_one { "what it said before holds" } else { "nobody is let in by it" }
}

fn bearer<'b>(request: &Request<'_, 'b>) -> Option<&'b str> {
    let (scheme, given) = request.value("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
}

/// Takes as long wherever they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b));
    one.len() == other.len() && differs == 0
}
