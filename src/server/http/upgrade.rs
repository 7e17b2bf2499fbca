//! Checks an upgrade request and collects the properties of its WebSocket.

use crate::behaviours::{self, Mount, Params, Source, WireFault};
use crate::engine::{Id, Now, Side};
use crate::limits;
use crate::proto::deflate::{Agreed, Compression};
use crate::proto::handshake::{self, Offer, Origin};
use crate::proto::http::Request;
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;
use crate::server::config::Origins;
use crate::server::http::pending::Pending;
use crate::server::http::routes;
use crate::server::http::tokens::Tokens;
use crate::server::http::whoami;
use crate::server::ops::pressure::MemoryStage;
use crate::server::part::PartId;
use crate::server::shared::View;
use crate::server::websocket::extras::{self, Extras};

/// The response instead of 101. The caller adds `Retry-After` to a 503.
pub(crate) type Refused = Box<Response<'static>>;

/// A valid upgrade.
#[derive(Debug)]
pub(crate) struct Upgrade {
    pub(crate) pending: Pending,
    pub(crate) params: Params,
    pub(crate) subprotocol: Option<String>,
    /// The part that decides on it and handles it.
    pub(crate) part: Option<PartId>,
}

/// Performs the server's own checks; a part may still refuse.
pub(crate) fn check(
    request: &Request<'_, '_>,
    (now, id): (Now, Id),
    view: View<'_>,
) -> Result<Upgrade, Refused> {
    let refuse = |refusal| Box::new(Response::refusal(refusal));
    let View { side, shared, .. } = view;
    let config = &shared.config;
    let mounts = if side == Side::Main { &config.mounts[..] } else { &[] };
    let path = routes::below(&config.base_path, &request.path).unwrap_or_default();
    let Some((index, mount)) = routes::find_upgrade(mounts, path, request.query) else {
        return Err(Box::new(routes::not_found(view)));
    };
    let offer = handshake::check(request).map_err(|refusal| Box::new(refused_upgrade(refusal)))?;
    check_origin(request, &config.origins)?;
    check_token(now, request, &mount.params.token_file, &shared.tokens)?;
    let params = params(request, mount, config.faults)?;
    // A later `probe=0` counts; without a probe there is nothing below a mount.
    let probe = behaviours::is_probe(&params);
    if !probe && mount.path != path {
        return Err(Box::new(routes::not_found(view)));
    }
    let part = shared.mount_parts[index];
    let subprotocol = choose_subprotocol(&offer, mount, &params.subprotocols).map(str::to_owned);
    let index = u16::try_from(index).map_err(|_| refuse(Refusal::NotFound))?;
    if shared.drain.phase.refuses() {
        return Err(refuse(Refusal::Draining));
    }
    if shared.pressure.stage() >= MemoryStage::Tight {
        return Err(refuse(Refusal::Overloaded));
    }
    if params.fault == Some(WireFault::Status503) {
        return Err(refuse(Refusal::OnPurpose));
    }
    if probe && shared.open.probes >= limits::PROBES {
        return Err(refuse(Refusal::ProbesFull));
    }
    let hello = || extras::hello(&config.identity, &shared.hello_fields, id.to_string());
    let deflate = negotiate_deflate(&offer, params.deflate.unwrap_or(config.deflate));
    let extensions = deflate.as_ref().map_or("", |(answer, _)| answer);
    let greeting = if probe {
        Some(whoami::probe_head(request, view, extensions))
    } else {
        params.hello.then(hello)
    };
    let pending = Pending {
        deflate,
        offered: offer.subprotocols.join(",").into(),
        accept: offer.accept,
        behaviour: (mount.entry.new)(),
        extras: Extras::new(&params, forwarded(request), now, greeting),
        mount: index,
    };
    Ok(Upgrade { pending, params, subprotocol, part })
}

/// The response header for compression, and the agreed parameters.
fn negotiate_deflate(offer: &Offer<'_>, wanted: Compression) -> Option<(String, Agreed)> {
    let terms = offer.deflate?;
    match wanted {
        Compression::Off => None,
        Compression::On(level) => Some((terms.answer(), terms.agree(level))),
    }
}

/// Parameters of the mount, overridden by those of the URL.
fn params(request: &Request<'_, '_>, mount: &Mount, faults: bool) -> Result<Params, Refused> {
    let mut params = mount.params.clone();
    let source = if faults { Source::Trusted } else { Source::Url };
    let take = |params: &mut Params| {
        params
            .take(request.query, source, mount.entry.params)
            .map_err(|bad| Box::new(Response::text(400, format!("{bad}\n"))))
    };
    take(&mut params)?;
    if behaviours::is_probe(&params) {
        // Pushes, pings and a close of the mount would disturb the experiments.
        params = Params {
            deflate: mount.params.deflate,
            subprotocols: mount.params.subprotocols.clone(),
            ping_ms: Some(0),
            own: params.own,
            ..Params::default()
        };
        take(&mut params)?;
    }
    Ok(params)
}

fn refused_upgrade(refusal: Refusal) -> Response<'static> {
    let response = Response::refusal(refusal);
    if refusal == Refusal::MethodNotAllowed { response.with("Allow", "GET") } else { response }
}

/// Accepts only clients with the mount's token.
fn check_token(
    now: Now,
    request: &Request<'_, '_>,
    path: &str,
    tokens: &Tokens,
) -> Result<(), Refused> {
    if path.is_empty() || tokens.admits(now, request, path) {
        return Ok(());
    }
    let refusal =
        Response::text(401, "a token is needed: Authorization: Bearer or ?access_token=\n");
    Err(Box::new(refusal.with("WWW-Authenticate", "Bearer")))
}

/// A page may connect to its own host, or if its origin is allowed.
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
    let host = request.host;
    log::info!(target: "origin", origin, host; "upgrade refused: foreign origin");
    let text = format!(
        "pages of Origin {origin:?} may not connect to Host {host:?}; \
         the server's --origin allows more\n"
    );
    Err(Box::new(Response::text(Refusal::OriginForeign.status(), text)))
}

/// RFC 6455 §4.2.2: one that the client offers, or none.
fn choose_subprotocol<'o>(offer: &Offer<'o>, mount: &Mount, own: &[String]) -> Option<&'o str> {
    let mut offered = offer.subprotocols.iter().copied();
    if own.is_empty() {
        // Clients disconnect if the server chooses none of theirs.
        return offered.next().filter(|_| mount.entry.any_subprotocol);
    }
    offered.find(|name| own.iter().any(|own| own == name))
}

/// The client's address according to proxies. Only for the log, since it can be forged.
fn forwarded(request: &Request<'_, '_>) -> Option<Box<str>> {
    let value = request.value("x-forwarded-for").or_else(|| request.value("x-real-ip"))?;
    Some(value[..value.len().min(limits::FORWARDED_BYTES)].into())
}
