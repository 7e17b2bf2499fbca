//! Tokens that mounts ask for (`token-file=`): read at start, and again when somebody comes and
//! they are old. Whoever may look at a mount need not be able to read the file's path from an
//! answer, nor from how long it took.

use std::collections::BTreeMap;

use super::shared::Cx;
use crate::behaviours::Mount;
use crate::engine::{Action, File, Now, Source};
use crate::proto::http::{Request, percent_decoded};
use crate::proto::response::Response;
use crate::time;

/// After that, they are read again.
const REREAD_MS: u64 = 60_000;
/// A token that is longer is none.
const TOKEN_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Tokens {
    /// By path; empty: nothing could be read, and nobody comes in.
    by_path: BTreeMap<String, Vec<u8>>,
    read_ns: Option<u64>,
}

impl Tokens {
    pub(super) fn new(mounts: &[Mount]) -> Self {
        let paths = mounts.iter().map(|mount| mount.params.token_file.clone());
        let paths = paths.filter(|path| !path.is_empty());
        Self { by_path: paths.map(|path| (path, Vec::new())).collect(), read_ns: None }
    }

    /// What is to be read, if any of it matters.
    pub(super) fn source(&self) -> Option<Source> {
        let paths: Vec<String> = self.by_path.keys().cloned().collect();
        (!paths.is_empty()).then_some(Source::Files(paths))
    }

    /// Files were read. One that is half written keeps the old token.
    pub(super) fn fetched(&mut self, files: &[File]) {
        for File { name, bytes, .. } in files {
            let token = bytes.trim_ascii();
            if let Some(place) = self.by_path.get_mut(name)
                && !token.is_empty()
                && token.len() <= TOKEN_BYTES
            {
                *place = token.to_vec();
            }
        }
    }

    /// Whether it is time to read them again; the answer is yes once.
    fn are_old(&mut self, now: Now) -> bool {
        let old = self.read_ns.is_none_or(|read_ns| now.mono_ns - read_ns >= time::ms(REREAD_MS));
        if old {
            self.read_ns = Some(now.mono_ns);
        }
        old
    }
}

/// Lets in who has the mount's token, in `Authorization` or, since a page cannot set that, in the
/// URL.
pub(super) fn check(
    request: &Request<'_, '_>,
    path: &str,
    cx: &mut Cx<'_>,
) -> Result<(), Box<Response<'static>>> {
    if path.is_empty() {
        return Ok(());
    }
    if cx.shared.tokens.are_old(cx.now)
        && let Some(source) = cx.shared.tokens.source()
    {
        cx.act(Action::Fetch(source));
    }
    let token = cx.shared.tokens.by_path.get(path).map_or(&[][..], Vec::as_slice);
    let bearer = request.value("authorization").and_then(|value| {
        let (scheme, given) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
    });
    let in_url = request.query.split('&').find_map(|pair| pair.strip_prefix("access_token="));
    let in_url = in_url.and_then(percent_decoded);
    let given = bearer.or(in_url.as_deref()).unwrap_or_default();
    if !token.is_empty() && is_same(token, given.as_bytes()) {
        return Ok(());
    }
    let refusal =
        Response::text(401, "a token is needed: Authorization: Bearer or ?access_token=\n");
    Err(Box::new(refusal.with("WWW-Authenticate", "Bearer")))
}

/// Takes as long wherever they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b));
    one.len() == other.len() && differs == 0
}
