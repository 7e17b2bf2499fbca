//! The upgrade: which request becomes which WebSocket, and with what.

use crate::behaviours::{Mount, Params, Source, WireFault};
use crate::engine::{Action, Side};
use crate::limits;
use crate::proto::deflate::{Agreed, Compression};
use crate::proto::handshake::{self, Offer, Origin};
use crate::proto::http::{Request, Upgrade};
use crate::proto::refusal::Refusal;
use crate::proto::response::{self, Response, Switch};
use crate::server::config::Origins;
use crate::server::http::pending::Pending;
use crate::server::http::routes;
use crate::server::ops::pressure::MemoryStage;
use crate::server::part::{Admission, UpgradeRequest, Verdict};
use crate::server::shared::{Cx, Shared, View};
use crate::server::websocket::WebSocket;
use crate::server::websocket::extras::{self, Extras};

type Refused = Box<Response<'static>>;

/// What comes of an upgrade that has no fault.
#[derive(Debug)]
pub(in crate::server) enum Opening {
    /// A WebSocket.
    Now(WebSocket),
    /// The same, if its part decides so.
    Later,
}

/// Opens a WebSocket, or says why not; `None` when the request does not ask for one.
pub(in crate::server) fn upgrade(
    request: &Request<'_, '_>,
    cx: &mut Cx<'_>,
) -> Option<Result<Opening, Refused>> {
    (request.upgrade == Upgrade::WebSocket).then(|| open(request, cx))
}

fn open(request: &Request<'_, '_>, cx: &mut Cx<'_>) -> Result<Opening, Refused> {
    let refuse = |refusal| Box::new(Response::refusal(refusal));
    let config = &cx.shared.config;
    let mounts = if cx.side == Side::Main { &config.mounts[..] } else { &[] };
    let path = routes::below(&config.base_path, &request.path).unwrap_or_default();
    let Some((index, mount)) = routes::find_mount(mounts, path) else {
        return Err(Box::new(routes::not_found(View::of(cx))));
    };
    let offer = handshake::check(request).map_err(|refusal| Box::new(refused_upgrade(refusal)))?;
    check_origin(request, &config.origins)?;
    let token_file = mount.params.token_file.clone();
    check_token(request, &token_file, cx)?;
    let config = &cx.shared.config;
    let mount = &config.mounts[index];
    let params = params(request, mount, config.faults)?;
    let speaker = cx.shared.mount_parts[index];
    let subprotocol = choose(&offer, mount, &params.subprotocols).map(str::to_owned);
    let index = u16::try_from(index).map_err(|_| refuse(Refusal::NotFound))?;
    let behaviour = (mount.entry.new)();
    if cx.shared.drain.phase.refuses() {
        return Err(Box::new(try_later(Refusal::Draining, cx.shared)));
    }
    if cx.shared.pressure.stage() >= MemoryStage::Tight {
        return Err(Box::new(try_later(Refusal::Overloaded, cx.shared)));
    }
    if params.fault == Some(WireFault::Status503) {
        return Err(Box::new(try_later(Refusal::OnPurpose, cx.shared)));
    }
    let extras = {
        let Shared { config, hello_fields, .. } = &*cx.shared;
        let hello = || extras::hello(&config.identity, hello_fields, cx.id.to_string());
        Extras::new(&params, forwarded(request), cx.now, hello)
    };
    let deflate = agree(&offer, params.deflate.unwrap_or(cx.shared.config.deflate));
    let offered = offer.subprotocols.join(",").into();
    let pending =
        Pending { accept: offer.accept, offered, deflate, behaviour, extras, mount: index };
    if let Some(part) = speaker {
        cx.part = Some(part);
        let (now, id, peer) = (cx.now, cx.id, cx.peer);
        let upgrade = UpgradeRequest { now, id, peer, request, params: &params };
        match cx.shared.parts.call(part).admit(&upgrade) {
            Admission::Now => {}
            Admission::Pending => {
                cx.shared.add_pending(id, pending);
                return Ok(Opening::Later);
            }
        }
    }
    Ok(Opening::Now(open_pending(pending, subprotocol.as_deref(), cx)))
}

/// A part has decided on a pending upgrade, or has had its time for that.
pub(in crate::server) fn conclude(cx: &mut Cx<'_>) -> Result<WebSocket, Response<'static>> {
    cx.shared.refresh_date(cx.now);
    let pending = cx.shared.take_pending(cx.id);
    let (Some(part), Some(pending)) = (cx.part, pending) else {
        return Err(Response::refusal(Refusal::Overloaded));
    };
    if cx.shared.drain.phase.refuses() {
        cx.shared.parts.call(part).closed(cx.now, cx.id);
        return Err(try_later(Refusal::Draining, cx.shared));
    }
    match cx.shared.parts.call(part).verdict(cx.now, cx.id) {
        Verdict::Welcome(chosen) => {
            let chosen = chosen.filter(|chosen| pending.offers(chosen));
            Ok(open_pending(pending, chosen.as_deref(), cx))
        }
        Verdict::Refused(response) => Err(response),
    }
}

/// Sends 101; from then on it is a WebSocket.
fn open_pending(pending: Pending, subprotocol: Option<&str>, cx: &mut Cx<'_>) -> WebSocket {
    let Pending { accept, deflate, behaviour, extras, mount, .. } = pending;
    let extension = deflate.as_ref().map(|(answer, _)| answer.as_str());
    let switch = Switch { accept: &accept, subprotocol, extension };
    let stamp = cx.shared.stamp();
    response::switch(&mut cx.out.bytes, stamp, &switch);
    WebSocket::open(behaviour, extras, mount, deflate.map(|(_, agreed)| agreed), cx)
}

/// What to say of compression, and what it means for messages.
fn agree(offer: &Offer<'_>, wanted: Compression) -> Option<(String, Agreed)> {
    let terms = offer.deflate?;
    match wanted {
        Compression::Off => None,
        Compression::On(level) => Some((terms.answer(), terms.agree(level))),
    }
}

/// What the mount asks for, and the URL on top of it.
fn params(request: &Request<'_, '_>, mount: &Mount, faults: bool) -> Result<Params, Refused> {
    let mut params = mount.params.clone();
    let source = if faults { Source::Trusted } else { Source::Url };
    match params.take(request.query, source, mount.entry.params) {
        Ok(()) => Ok(params),
        Err(bad) => Err(Box::new(Response::text(400, format!("{bad}\n")))),
    }
}

fn refused_upgrade(refusal: Refusal) -> Response<'static> {
    let response = Response::refusal(refusal);
    if refusal == Refusal::MethodNotAllowed { response.with("Allow", "GET") } else { response }
}

pub(in crate::server) fn try_later(refusal: Refusal, shared: &mut Shared) -> Response<'static> {
    Response::refusal(refusal).with("Retry-After", shared.retry_after())
}

/// Lets in a client that has the mount's token.
fn check_token(request: &Request<'_, '_>, path: &str, cx: &mut Cx<'_>) -> Result<(), Refused> {
    if path.is_empty() {
        return Ok(());
    }
    if cx.shared.tokens.are_old(cx.now)
        && let Some(source) = cx.shared.tokens.source()
    {
        cx.act(Action::Fetch(source));
    }
    if cx.shared.tokens.admits(request, path) {
        return Ok(());
    }
    let refusal =
        Response::text(401, "a token is needed: Authorization: Bearer or ?access_token=\n");
    Err(Box::new(refusal.with("WWW-Authenticate", "Bearer")))
}

/// A page may connect to its own host, and where the operator lets it.
fn check_origin(request: &Request<'_, '_>, origins: &Origins) -> Result<(), Refused> {
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
