//! Static files: the embedded page, or the files of a directory as last read. They are kept in
//! memory by their exact names, so a request path is looked up and never resolved.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use sha1::{Digest as _, Sha1};

use crate::engine::{Digest, File, Now, Prepared};
use crate::heap;
use crate::proto::deflate;
use crate::proto::http::{self, Request};
use crate::proto::response::Response;
use crate::time;

/// Hash of the text between `<script>` and `</` in the minified page. A test checks it.
const SCRIPT_SHA256: &str = "Zc/E1fGdWwWvKjFJKMFLdMnI/xtY4sh1wnD2lHMRs5A=";
/// The same for `<style>`.
const STYLE_SHA256: &str = "yG6vgEdLbzdAz6UHvS7x2tdEFd+8T51ZDL3M3XQzZqM=";
const PAGE: &str = include_str!("../../../assets/index.html");

/// Files by path.
#[derive(Debug)]
pub struct Assets(Kept);

#[derive(Debug)]
enum Kept {
    Nothing,
    /// The page in the binary. Most servers are never asked for it, and hashing and compressing it
    /// would take most of the time to start.
    Page {
        since: Now,
        ready: OnceCell<Asset>,
    },
    Directory(BTreeMap<String, Asset>),
}

/// One file, ready to be sent.
#[derive(Debug)]
pub(crate) struct Asset {
    content_type: &'static str,
    policy: Option<String>,
    modified_s: i64,
    plain: Coding,
    gzip: Option<Coding>,
}

#[derive(Debug)]
struct Coding {
    bytes: Vec<u8>,
    etag: String,
}

impl Coding {
    fn new(bytes: Vec<u8>, digest: Digest) -> Self {
        Self { bytes, etag: format!("\"{}\"", hex(&digest)) }
    }
}

/// Hashes and compresses a file. This is slow, so a reload does it outside of the event loop.
#[must_use]
pub fn prepare(name: &str, bytes: &[u8]) -> Prepared {
    let gzip = if is_compressible(content_type(name)) { deflate::gzip(bytes) } else { None };
    let gzip = gzip.map(|gzip| {
        let digest = digest(&gzip);
        (gzip, digest)
    });
    Prepared { digest: digest(bytes), gzip }
}

fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&Sha1::digest(bytes)[..size_of::<Digest>()]);
    digest
}

impl Assets {
    /// The page in the binary.
    #[must_use]
    pub fn embedded(now: Now) -> Self {
        Self(Kept::Page { since: now, ready: OnceCell::new() })
    }

    /// No files at all.
    #[must_use]
    pub fn none() -> Self {
        Self(Kept::Nothing)
    }

    /// The files of a directory; an `index.html` is also served as its folder.
    #[must_use]
    pub fn directory(files: Vec<File>) -> Self {
        let by_path = |file: File| (format!("/{}", file.name), Asset::new(file, None));
        Self(Kept::Directory(files.into_iter().map(by_path).collect()))
    }

    /// Whether they can be read again.
    pub(crate) fn are_reloadable(&self) -> bool {
        matches!(self.0, Kept::Directory(_))
    }

    /// Finds a file by its decoded path.
    pub(crate) fn find(&self, path: &str) -> Option<&Asset> {
        match &self.0 {
            Kept::Nothing => None,
            Kept::Page { since, ready } => {
                matches!(path, "/" | "/index.html").then(|| ready.get_or_init(|| page(*since)))
            }
            Kept::Directory(files) if path.ends_with('/') => {
                files.get(&format!("{path}index.html"))
            }
            Kept::Directory(files) => files.get(path),
        }
    }

    /// Bytes of the page, once it was asked for.
    pub(crate) fn page_bytes(&self) -> usize {
        let Kept::Page { ready, .. } = &self.0 else { return 0 };
        let ready = ready.get().into_iter().flat_map(|page| page.gzip.iter().chain([&page.plain]));
        ready.map(|coding| heap::cost(coding.bytes.capacity())).sum()
    }
}

fn page(since: Now) -> Asset {
    let (name, bytes) = ("index.html".to_owned(), minify(PAGE).into_bytes());
    let file = File { name, bytes, modified_ms: since.wall_ms, prepared: None };
    Asset::new(file, Some(page_policy()))
}

impl Asset {
    fn new(file: File, policy: Option<String>) -> Self {
        let File { name, bytes, modified_ms, prepared } = file;
        let prepared = prepared.unwrap_or_else(|| prepare(&name, &bytes));
        Self {
            content_type: content_type(&name),
            policy,
            modified_s: modified_ms.div_euclid(1000),
            plain: Coding::new(bytes, prepared.digest),
            gzip: prepared.gzip.map(|(bytes, digest)| Coding::new(bytes, digest)),
        }
    }

    /// Responds to GET or HEAD.
    pub(crate) fn respond(&self, request: &Request<'_, '_>) -> Response<'_> {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request));
        let coding = gzip.unwrap_or(&self.plain);
        let not_modified = match request.value("if-none-match") {
            // RFC 9110 §13.1.3: a date is ignored if there is a tag.
            Some(tags) => lists_tag(tags, &coding.etag),
            None => {
                request.value("if-modified-since") == Some(&time::http_date(self.modified_s * 1000))
            }
        };
        let mut response = if not_modified { Response::empty(304) } else { Response::empty(200) };
        if !not_modified {
            response.body = Cow::Borrowed(&coding.bytes);
            response = response.with("Content-Type", self.content_type);
            if gzip.is_some() {
                response = response.with("Content-Encoding", "gzip");
            }
        }
        if let Some(policy) = &self.policy {
            response = response.with("Content-Security-Policy", policy.as_str());
        }
        response
            .with("ETag", coding.etag.as_str())
            .with("Vary", "Accept-Encoding")
            .with("Last-Modified", time::http_date(self.modified_s * 1000))
            .with("Cache-Control", "no-cache")
    }
}

/// RFC 9110 §13.1.2, weak comparison.
fn lists_tag(tags: &str, etag: &str) -> bool {
    http::list_items(tags.as_bytes()).any(|tag| {
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        tag == b"*" || tag == etag.as_bytes()
    })
}

/// Whether `Accept-Encoding` lists gzip with a nonzero weight. `*` is not taken for gzip: the
/// uncompressed file is always acceptable.
fn accepts_gzip(request: &Request<'_, '_>) -> bool {
    let mut verdict = false;
    for item in request.values("accept-encoding").flat_map(http::list_items) {
        let mut parts = item.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        if parts.next().is_some_and(|name| name.eq_ignore_ascii_case(b"gzip")) {
            if parts.any(is_zero_weight) {
                return false;
            }
            verdict = true;
        }
    }
    verdict
}

/// RFC 9110 §12.4.2: `q=0`, `q=0.0` and so on. Parameter names are case-insensitive; white space
/// around `=` is not in the grammar but tolerated.
fn is_zero_weight(parameter: &[u8]) -> bool {
    let mut halves = parameter.splitn(2, |&b| b == b'=').map(<[u8]>::trim_ascii);
    let is_weight = halves.next().is_some_and(|name| name.eq_ignore_ascii_case(b"q"));
    is_weight && halves.next().is_some_and(|q| q.iter().all(|b| b"0.".contains(b)))
}

/// Removes comments and indentation.
fn minify(page: &str) -> String {
    let mut minify = String::with_capacity(page.len());
    for line in page.lines().map(str::trim_start) {
        let is_comment = line.starts_with("//")
            || line.starts_with("/*") && line.ends_with("*/")
            || line.starts_with("<!--") && line.ends_with("-->");
        if !is_comment && !line.is_empty() {
            minify.push_str(line);
            minify.push('\n');
        }
    }
    minify
}

/// Allows only the page's own script and style, by their hashes.
fn page_policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{SCRIPT_SHA256}'; \
         style-src 'sha256-{STYLE_SHA256}'; img-src data:; connect-src 'self' ws: wss:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, end)| end) {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" | "md" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "ico" => "image/x-icon",
        "webp" => "image/webp",
        "woff2" => "font/woff2",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn is_compressible(content_type: &str) -> bool {
    content_type.starts_with("text/")
        || matches!(content_type, "application/json" | "image/svg+xml" | "application/wasm")
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::Sha256;

    use super::*;

    #[test]
    fn gzip_and_its_weights() {
        let accepts = |value: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: h\r\nAccept-Encoding: {value}\r\n\r\n");
            let mut fields = http::Fields::default();
            accepts_gzip(&http::parse(head.as_bytes(), &mut fields).unwrap())
        };
        for value in ["gzip", "GZip;q=1", "br, gzip;q=0.001", "gzip; Q=0.5, *;q=0", "*;q=0, gzip"] {
            assert!(accepts(value), "{value}");
        }
        for value in [
            "",
            "br",
            "gzip;q=0",
            "gzip;Q=0",
            "gzip ; Q=0.000",
            "gzip;q = 0",
            "gzip; q =0.",
            "*;q=0",
            "identity;q=1, *;q=0",
            "gzip;q=0, *;q=1",
        ] {
            assert!(!accepts(value), "{value}");
        }
    }

    #[test]
    fn the_page_is_small() {
        let gzip = deflate::gzip(minify(PAGE).as_bytes()).map_or(0, |gzip| gzip.len());
        assert!(gzip <= 18 * 1024, "{gzip} bytes as gzip");
    }

    #[test]
    fn nothing_but_comments_and_indentation_is_left_out() {
        // In these, leading white space is significant.
        let page = minify(PAGE);
        assert!(!page.contains('`') && !page.contains("<pre"));
        let text = "<p>\n  // one\n  /* two */ a\n  b // three\n\n\t<!-- four -->\n</p>\n";
        assert_eq!(minify(text), "<p>\n/* two */ a\nb // three\n</p>\n");
    }

    #[test]
    fn the_policy_knows_the_page() {
        for (tag, hash) in [("<script>", SCRIPT_SHA256), ("<style>", STYLE_SHA256)] {
            let page = minify(PAGE);
            let (_, rest) = page.split_once(tag).unwrap();
            let (inside, _) = rest.split_once("</").unwrap();
            assert_eq!(hash, STANDARD.encode(Sha256::digest(inside)), "of the page's {tag}");
            assert!(!rest.contains(tag), "the page has one {tag}");
        }
    }
}
