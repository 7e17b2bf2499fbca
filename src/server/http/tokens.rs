//! Access tokens from files: read at start, and again when a client connects and they are old.
//! Responses must not reveal a file's path, nor their timing anything about the token.

use std::collections::BTreeMap;

use crate::engine::{File, Now, Source};
use crate::proto::http::{Request, percent_decoded};
use crate::time;

/// Age after which they are read again.
pub(crate) const REREAD_MS: u64 = 60_000;
/// Maximum token.
const TOKEN_BYTES: usize = 16 * 1024;

/// The access tokens of all mounts, by the path of their file.
#[derive(Debug)]
pub struct Tokens {
    /// Empty if the file could not be read: then no token matches.
    by_path: BTreeMap<String, Vec<u8>>,
    read_ns: Option<u64>,
}

impl Tokens {
    /// Tokens from these files; empty paths are skipped.
    pub fn new(paths: impl Iterator<Item = String>) -> Self {
        let mut by_path = BTreeMap::new();
        by_path.extend(paths.filter(|path| !path.is_empty()).map(|path| (path, Vec::new())));
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
    pub fn fetched(&mut self, files: &[File]) {
        for File { name, bytes, .. } in files {
            let token = bytes.trim_ascii();
            let Some(known) = self.by_path.get_mut(name) else { continue };
            if (1..=TOKEN_BYTES).contains(&token.len()) {
                *known = token.to_vec();
            } else {
                log::warn!(
                    target: "files", file = name, bytes = token.len();
                    "token file is empty or too long: {}", fallback(!known.is_empty())
                );
            }
        }
    }

    /// Whether to read them again now; returns true once for each period.
    pub fn is_due(&mut self, now: Now) -> bool {
        let old = self.read_ns.is_none_or(|read_ns| now.mono_ns - read_ns >= time::ms(REREAD_MS));
        if old {
            self.read_ns = Some(now.mono_ns);
        }
        old
    }

    /// Whether the request has the token of this file in `Authorization`.
    #[must_use]
    pub fn is_bearer(&self, request: &Request<'_, '_>, path: &str) -> bool {
        self.is_token(path, bearer(request).unwrap_or_default())
    }

    /// The same, or in the URL parameter `access_token`: a page cannot set the header field.
    pub(crate) fn admits(&self, request: &Request<'_, '_>, path: &str) -> bool {
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
