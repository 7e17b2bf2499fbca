//! Protects the admin listener against web pages: from another origin, through a host name that was
//! pointed to this machine after the page was loaded (DNS rebinding), or by an image or link whose
//! GET has an effect.

use core::net::Ipv4Addr;

use crate::proto::handshake::split_port;
use crate::proto::http::{self, Request};

/// Response to a page of another origin.
pub(crate) const FOREIGN: &str = "pages of other sites may not do this\n";
/// Response to a browser's GET that would have an effect.
pub(crate) const USE_POST: &str = "a GET by a browser changes nothing here: use POST\n";

/// Whether a browser sent the request, as far as its header fields show. A page can neither add nor
/// remove most of them. `Accept-Language` and `Referer` count too: a GET of the page's own origin
/// has no `Origin`, and browsers send `Sec-Fetch-*` only to trustworthy hosts.
pub(crate) fn is_from_browser(request: &Request<'_, '_>) -> bool {
    request.fields().any(|(name, value)| {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "origin" | "referer" | "accept-language" => true,
            "accept" => http::list_items(value).any(is_browser_media_type),
            _ => name.starts_with("sec-fetch-"),
        }
    })
}

/// Media types that browsers accept for documents, images, styles and videos. Programs send `*/*`
/// or the format that they read.
fn is_browser_media_type(item: &[u8]) -> bool {
    let item = item.to_ascii_lowercase();
    let kinds: [&[u8]; 5] = [b"text/html", b"text/css", b"image/", b"audio/", b"video/"];
    kinds.iter().any(|kind| item.starts_with(kind))
}

/// Checks a request to the admin listener; the error is the response to a browser. Other clients
/// may use any host: kubelets, Prometheus and backends use cluster names.
pub(crate) fn check(request: &Request<'_, '_>, names: &[String]) -> Result<(), String> {
    if !is_from_browser(request) {
        return Ok(());
    }
    let host = request.host;
    if !is_own_host(host, names) {
        return Err(format!(
            "the admin listener serves pages only under an address, localhost or a name of \
             --admin-host, and Host is {host:?}\n"
        ));
    }
    let is_own = |site: &[u8]| site == b"same-origin" || site == b"none";
    let mut origins = request.values("origin");
    let is_same = origins.all(|origin| is_same_origin(origin, host));
    if is_same && request.values("sec-fetch-site").all(is_own) {
        Ok(())
    } else {
        Err(FOREIGN.to_owned())
    }
}

/// Whether the host cannot be rebound by DNS, or was allowed by the operator.
fn is_own_host(host: &str, names: &[String]) -> bool {
    let name = bare(split_port(host).0);
    name.starts_with('[')
        || name.parse::<Ipv4Addr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|known| name.eq_ignore_ascii_case(bare(known)))
}

/// Whether host and port are the same: another port of this machine is another origin.
fn is_same_origin(origin: &[u8], host: &str) -> bool {
    let origin = http::visible_ascii(origin).and_then(|origin| origin.split_once("://"));
    let usual = match origin {
        Some(("http", _)) => "80",
        Some(("https", _)) => "443",
        Some(_) | None => return false,
    };
    let (name, port) = split_port(origin.map_or("", |(_, place)| place));
    let (host, host_port) = split_port(host);
    let or_usual = |port: &'_ str| if port.is_empty() { usual.to_owned() } else { port.to_owned() };
    bare(name).eq_ignore_ascii_case(bare(host)) && or_usual(port) == or_usual(host_port)
}

/// Without the final dot of a fully qualified name.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::http::Fields;

    fn verdict(fields: &str) -> Result<(), String> {
        let head = format!("GET / HTTP/1.1\r\n{fields}\r\n\r\n");
        let mut space = Fields::default();
        let request = http::parse(head.as_bytes(), &mut space).unwrap();
        check(&request, &["Admin.example".to_owned()])
    }

    #[test]
    fn hosts_of_pages() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "10.1.2.3:1",
            "[::1]",
            "[::1]:8081",
            "localhost",
            "LocalHost:8081",
            "localhost.:8081",
            "admin.example",
            "ADMIN.example.:443",
        ] {
            assert_eq!(verdict(&format!("Host: {host}\r\nSec-Fetch-Mode: cors")), Ok(()), "{host}");
        }
        for host in ["", "evil.example", "127.0.0.1.evil", "localhost.evil", "x.localhost", "1.2"] {
            let why = verdict(&format!("Host: {host}\r\nSec-Fetch-Mode: cors")).unwrap_err();
            assert!(why.contains(&format!("{host:?}")) && why.contains("--admin-host"), "{why}");
            assert_eq!(verdict(&format!("Host: {host}\r\nAccept: */*")), Ok(()), "{host}");
        }
    }

    #[test]
    fn marks_of_browsers() {
        for field in [
            "Origin: http://h",
            "Referer: http://h/",
            "Sec-Fetch-Dest: image",
            "sec-fetch-site: none",
            "Accept-Language: en",
            "Accept: image/avif,image/webp,*/*;q=0.8",
            "Accept: application/xml, Text/HTML;q=0.9",
            "Accept: text/css,*/*;q=0.1",
        ] {
            assert!(verdict(&format!("Host: h\r\n{field}")).is_err(), "{field}");
        }
        for field in [
            "User-Agent: curl/8.5.0\r\nAccept: */*",
            "User-Agent: kube-probe/1.31\r\nAccept: */*\r\nConnection: close",
            "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4,*/*;q=0.1",
            "Accept-Encoding: gzip",
        ] {
            assert_eq!(verdict(&format!("Host: h\r\n{field}")), Ok(()), "{field}");
        }
    }

    #[test]
    fn origins_of_pages() {
        for (origin, host) in [
            ("http://localhost", "localhost"),
            ("http://localhost:80", "localhost"),
            ("http://localhost:8081", "LOCALHOST:8081"),
            ("https://admin.example", "admin.example:443"),
            ("http://[::1]:8081", "[::1]:8081"),
        ] {
            let fields = format!("Host: {host}\r\nOrigin: {origin}");
            assert_eq!(verdict(&fields), Ok(()), "{origin} {host}");
        }
        for (origin, host) in [
            ("http://localhost:3000", "localhost:8081"),
            ("http://localhost", "localhost:8081"),
            ("http://localhost:8081", "localhost"),
            ("http://127.0.0.1:8081", "localhost:8081"),
            ("null", "localhost"),
            ("", "localhost"),
            ("chrome-extension://abc", "localhost"),
            ("http://localhost\r\nOrigin: http://evil", "localhost"),
        ] {
            let fields = format!("Host: {host}\r\nOrigin: {origin}");
            assert_eq!(verdict(&fields), Err(FOREIGN.to_owned()), "{origin} {host}");
        }
    }
}
