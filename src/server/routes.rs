//! Which path answers what. One row a path in [`ROUTES`]; files and mounts come behind them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::config::Origins;
use super::extras::Extras;
use super::shared::{Cx, Shared};
use super::websocket::WebSocket;
use crate::behaviours::{Mount, Source};
use crate::engine::{Door, Peer};
use crate::limits;
use crate::proto::handshake::{self, Offer, Origin};
use crate::proto::http::{Method, Request, Upgrade};
use crate::proto::refusal::Refusal;
use crate::proto::response::{self, Response};

/// One path of the HTTP side.
#[derive(Debug)]
pub struct Route {
    /// The path, below the base path.
    pub path: &'static str,
    /// Where it is served.
    pub doors: Doors,
    /// What it answers, for the README.
    pub about: &'static str,
    answer: fn(&Request<'_, '_>, View<'_>) -> Response<'static>,
}

/// Where a path is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    /// On the main listener.
    Main,
    /// On both.
    Both,
}

impl Doors {
    fn opens(self, door: Door) -> bool {
        self == Self::Both || door == Door::Main
    }
}

/// Every path of the HTTP side but for files and mounts.
pub const ROUTES: &[Route] = &[
    Route {
        path: "/healthz",
        doors: Doors::Both,
        about: "200 `OK` as long as the loop turns",
        answer: health,
    },
    Route { path: "/livez", doors: Doors::Both, about: "the same", answer: health },
    Route {
        path: "/readyz",
        doors: Doors::Both,
        about: "200 `OK`, or 503 with the reason",
        answer: ready,
    },
    Route { path: "/version", doors: Doors::Main, about: "the build, as JSON", answer: version },
    Route {
        path: "/whoami",
        doors: Doors::Main,
        about: "who serves, and the request as it came",
        answer: whoami,
    },
];

/// What an answer can depend on, beside the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) door: Door,
    pub(super) peer: Peer,
    pub(super) shared: &'a Shared,
}

/// The path without the base path.
fn below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(base)?;
    match rest {
        "" if !base.is_empty() => Some("/"),
        _ => rest.starts_with('/').then_some(rest),
    }
}

/// Answers a well-formed request that does not want to be a WebSocket.
pub(super) fn respond<'a>(request: &Request<'_, '_>, cx: View<'a>) -> Response<'a> {
    if request.target == "*" || request.method == Method::Unserved {
        return not_allowed();
    }
    let Some(path) = below(&cx.shared.config.base_path, &request.path) else {
        return not_found(cx);
    };
    let route = ROUTES.iter().find(|route| route.path == path && route.doors.opens(cx.door));
    let file = cx.door == Door::Main && cx.shared.assets.has(path);
    let mount = cx.door == Door::Main && find_mount(&cx.shared.config.mounts, path).is_some();
    if route.is_none() && !file && !mount {
        return not_found(cx);
    }
    match request.method {
        Method::Get | Method::Head => {}
        Method::Options => return Response::empty(204).with("Allow", "GET, HEAD, OPTIONS"),
        Method::Post | Method::Delete | Method::Unserved => return not_allowed(),
    }
    if let Some(route) = route {
        return (route.answer)(request, cx);
    }
    let served = if file { cx.shared.assets.answer(path, request) } else { None };
    served.unwrap_or_else(|| Response::refusal(Refusal::UpgradeMissing))
}

fn not_allowed() -> Response<'static> {
    Response::refusal(Refusal::MethodNotAllowed).with("Allow", "GET, HEAD, OPTIONS")
}

/// Names the endpoints, since whoever mistypes one asks for exactly that.
fn not_found(cx: View<'_>) -> Response<'static> {
    let config = &cx.shared.config;
    let routes = ROUTES.iter().filter(|route| route.doors.opens(cx.door)).map(|route| route.path);
    let mut paths: Vec<String> = routes.map(|path| format!("{}{path}", config.base_path)).collect();
    if cx.door == Door::Main {
        paths.insert(0, format!("{}/", config.base_path));
        let mounts = config.mounts.iter().filter(|mount| mount.path != "/");
        paths.extend(mounts.map(|mount| format!("{}{} (WebSocket)", config.base_path, mount.path)));
    }
    Response::text(404, format!("no such path; there are: {}\n", paths.join(", ")))
}

fn health(_: &Request<'_, '_>, _: View<'_>) -> Response<'static> {
    Response::text(200, "OK\n")
}

fn ready(_: &Request<'_, '_>, cx: View<'_>) -> Response<'static> {
    if cx.shared.drain.is_unready(&cx.shared.config.drain) {
        return Response::text(503, "draining\n");
    }
    Response::text(200, "OK\n")
}

fn version(_: &Request<'_, '_>, _: View<'_>) -> Response<'static> {
    #[derive(Serialize)]
    struct Version {
        name: &'static str,
        version: &'static str,
    }
    json(&Version { name: env!("CARGO_PKG_NAME"), version: env!("CARGO_PKG_VERSION") })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WhoAmI<'a> {
    pod: &'a str,
    namespace: Option<&'a str>,
    node: Option<&'a str>,
    zone: Option<&'a str>,
    version: &'static str,
    peer: String,
    method: &'a str,
    target: &'a str,
    http_version: &'static str,
    headers: BTreeMap<&'a str, String>,
}

fn whoami(request: &Request<'_, '_>, cx: View<'_>) -> Response<'static> {
    let identity = &cx.shared.config.identity;
    let mut headers: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in request.fields() {
        let value =
            if is_secret(name) { Cow::Borrowed("***") } else { String::from_utf8_lossy(value) };
        headers
            .entry(name)
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    json(&WhoAmI {
        pod: &identity.pod,
        namespace: identity.namespace.as_deref(),
        node: identity.node.as_deref(),
        zone: identity.zone.as_deref(),
        version: env!("CARGO_PKG_VERSION"),
        peer: cx.peer.to_string(),
        method: request.method_text,
        target: request.target,
        http_version: if request.minor == 1 { "1.1" } else { "1.0" },
        headers,
    })
}

/// Fields whose values let their reader in somewhere.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let secret = [
        "cookie",
        "authorization",
        "token",
        "secret",
        "password",
        "credential",
        "api-key",
        "apikey",
        "jwt",
        "assertion",
    ];
    secret.iter().any(|word| name.contains(word))
}

fn json(value: &impl Serialize) -> Response<'static> {
    // None of our values can fail to serialize.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    Response::json(body)
}

fn find_mount<'m>(mounts: &'m [Mount], path: &str) -> Option<(usize, &'m Mount)> {
    mounts.iter().enumerate().find(|(_, mount)| mount.path == path)
}

/// Opens a WebSocket, or says why not; `None` when the request does not ask for one.
pub(super) fn upgrade(
    request: &Request<'_, '_>,
    cx: &mut Cx<'_>,
) -> Option<Result<WebSocket, Box<Response<'static>>>> {
    (request.upgrade == Upgrade::WebSocket).then(|| open(request, cx))
}

fn open(request: &Request<'_, '_>, cx: &mut Cx<'_>) -> Result<WebSocket, Box<Response<'static>>> {
    let refuse = |refusal| Box::new(Response::refusal(refusal));
    let config = &cx.shared.config;
    let mounts = if cx.door == Door::Main { &config.mounts[..] } else { &[] };
    let path = below(&config.base_path, &request.path).unwrap_or_default();
    let Some((index, mount)) = find_mount(mounts, path) else {
        return Err(Box::new(not_found(View { door: cx.door, peer: cx.peer, shared: cx.shared })));
    };
    let offer = handshake::check(request).map_err(|refusal| Box::new(refused_upgrade(refusal)))?;
    check_origin(request, &cx.shared.config.origins)?;
    let mut params = mount.params.clone();
    let source = if cx.shared.config.faults { Source::Trusted } else { Source::Url };
    params
        .take(request.query, source)
        .map_err(|bad| Box::new(Response::text(400, format!("{bad}\n"))))?;
    if cx.shared.drain.phase.refuses() {
        return Err(Box::new(draining(cx.shared)));
    }
    let subprotocol = choose(&offer, mount, &params.subprotocols).map(str::to_owned);
    let index = u16::try_from(index).map_err(|_| refuse(Refusal::NotFound))?;
    let behaviour = (mount.entry.new)();
    let forwarded = forwarded(request);
    let identity = &cx.shared.config.identity;
    let extras = Extras::new(&params, forwarded, identity, cx.id.to_string(), cx.now);
    let stamp = cx.shared.stamp();
    response::switch(&mut cx.out.bytes, stamp, &offer.accept, subprotocol.as_deref());
    Ok(WebSocket::open(behaviour, extras, index, cx))
}

fn refused_upgrade(refusal: Refusal) -> Response<'static> {
    let response = Response::refusal(refusal);
    if refusal == Refusal::MethodNotAllowed { response.with("Allow", "GET") } else { response }
}

fn draining(shared: &mut Shared) -> Response<'static> {
    Response::refusal(Refusal::Draining).with("Retry-After", shared.retry_after())
}

/// A page may connect to its own host, and where the operator lets it.
fn check_origin(
    request: &Request<'_, '_>,
    origins: &Origins,
) -> Result<(), Box<Response<'static>>> {
    let origin =
        handshake::origin(request).map_err(|refusal| Box::new(Response::refusal(refusal)))?;
    let Origin::Foreign(origin) = origin else { return Ok(()) };
    let listed = match origins {
        Origins::Any => true,
        Origins::Same => false,
        Origins::Listed(list) => list.iter().any(|listed| listed.eq_ignore_ascii_case(origin)),
    };
    if listed {
        return Ok(());
    }
    let host = request.value("host").unwrap_or_default();
    log::info!(target: "origin", origin, host; "upgrade refused: foreign origin");
    let text = format!(
        "pages of Origin {origin:?} may not connect to Host {host:?}; \
         the server's --origin allows more\n"
    );
    Err(Box::new(Response::text(Refusal::OriginForeign.status(), text)))
}

/// RFC 6455 §4.2.2: one of the client's, or none.
fn choose<'o>(offer: &Offer<'o>, mount: &Mount, spoken: &[String]) -> Option<&'o str> {
    let mut offered = offer.subprotocols.iter().copied();
    if spoken.is_empty() {
        // Clients hang up on a server that chooses none of what they offer.
        return offered.next().filter(|_| mount.entry.speaks_any);
    }
    offered.find(|name| spoken.iter().any(|spoken| spoken == name))
}

/// The client as proxies name it, for the log only: nothing is decided by it.
fn forwarded(request: &Request<'_, '_>) -> Option<Box<str>> {
    let value = request.value("x-forwarded-for").or_else(|| request.value("x-real-ip"))?;
    Some(value[..value.len().min(limits::FORWARDED_BYTES)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_path_is_a_whole_part() {
        assert_eq!(below("", "/ws"), Some("/ws"));
        assert_eq!(below("/x", "/x/ws"), Some("/ws"));
        assert_eq!(below("/x", "/x"), Some("/"));
        assert_eq!(below("/x", "/xy"), None);
        assert_eq!(below("/x", "/ws"), None);
    }

    #[test]
    fn secrets_are_masked() {
        for name in ["Cookie", "Authorization", "X-Auth-Token", "X-API-Key"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["Host", "Sec-WebSocket-Key", "User-Agent"] {
            assert!(!is_secret(name), "{name}");
        }
    }
}
