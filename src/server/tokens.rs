//! Tokens that mounts (`token-file=`) and callbacks ask for, and keys that callbacks are signed
//! with: read at start, and again when somebody comes and they are old. Whoever may look at a
//! mount need not be able to read the file's path from an answer, nor from how long it took.

use std::collections::BTreeMap;

use super::config::Config;
use super::shared::Cx;
#[cfg(feature = "gateway")]
use crate::aws::keys::Keys;
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
    /// Who may sign callbacks, and the file that says it.
    #[cfg(feature = "gateway")]
    keys: Option<(String, Keys)>,
    read_ns: Option<u64>,
}

impl Tokens {
    pub(super) fn new(config: &Config) -> Self {
        let paths = config.mounts.iter().map(|mount| mount.params.token_file.clone());
        #[cfg(feature = "gateway")]
        let paths = paths.chain(config.gateway.iter().map(|plan| plan.token_file.clone()));
        let paths = paths.filter(|path| !path.is_empty());
        Self {
            by_path: paths.map(|path| (path, Vec::new())).collect(),
            #[cfg(feature = "gateway")]
            keys: config.gateway.as_ref().and_then(|plan| {
                let path = plan.credentials_file.clone();
                (!path.is_empty()).then(|| (path, Keys::default()))
            }),
            read_ns: None,
        }
    }

    /// What is to be read, if any of it matters.
    pub(super) fn source(&self) -> Option<Source> {
        let paths = self.by_path.keys().cloned();
        #[cfg(feature = "gateway")]
        let paths = paths.chain(self.keys.iter().map(|(path, _)| path.clone()));
        let paths: Vec<String> = paths.collect();
        (!paths.is_empty()).then_some(Source::Files(paths))
    }

    /// Who may sign, as this file says; `None` if nobody may.
    #[cfg(feature = "gateway")]
    pub(super) fn keys(&self, path: &str) -> Option<&Keys> {
        self.keys.as_ref().filter(|(known, keys)| known == path && !keys.is_empty()).map(|(_, k)| k)
    }

    /// Files were read. One that is half written keeps the old token.
    pub(super) fn fetched(&mut self, files: &[File]) {
        for File { name, bytes, .. } in files {
            let token = bytes.trim_ascii();
            if let Some(place) = self.by_path.get_mut(name) {
                if (1..=TOKEN_BYTES).contains(&token.len()) {
                    *place = token.to_vec();
                } else {
                    log::warn!(
                        target: "files", file = name, bytes = token.len();
                        "this token file is empty or too long: {}", holds(!place.is_empty())
                    );
                }
            }
            #[cfg(feature = "gateway")]
            if let Some((known, keys)) = &mut self.keys
                && known == name
            {
                match Keys::parse(bytes) {
                    Ok(read) => *keys = read,
                    Err(why) => log::warn!(
                        target: "credentials", reason:% = why;
                        "--gateway-credentials-file cannot be used: {}", holds(!keys.is_empty())
                    ),
                }
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

/// What becomes of those who come, in a log line.
fn holds(had_one: bool) -> &'static str {
    if had_one { "what it said before holds" } else { "nobody is let in by it" }
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
    refresh(cx);
    let token = cx.shared.tokens.by_path.get(path).map_or(&[][..], Vec::as_slice);
    let bearer = bearer(request);
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

/// Has them read again, if they are old.
pub(super) fn refresh(cx: &mut Cx<'_>) {
    if cx.shared.tokens.are_old(cx.now)
        && let Some(source) = cx.shared.tokens.source()
    {
        cx.act(Action::Fetch(source));
    }
}

fn bearer<'b>(request: &Request<'_, 'b>) -> Option<&'b str> {
    let (scheme, given) = request.value("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(given.trim())
}

/// Whether a request has the token of this file, in its field and nowhere else.
#[cfg(feature = "gateway")]
pub(super) fn is_bearer(request: &Request<'_, '_>, path: &str, cx: &mut Cx<'_>) -> bool {
    refresh(cx);
    let token = cx.shared.tokens.by_path.get(path).map_or(&[][..], Vec::as_slice);
    let given = bearer(request).unwrap_or_default();
    !token.is_empty() && is_same(token, given.as_bytes())
}

/// Takes as long wherever they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differs = one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b));
    one.len() == other.len() && differs == 0
}
