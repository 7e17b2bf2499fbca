//! The server's own routes, one row in [`ROWS`] for each, and how requests are dispatched. Routes
//! of parts, files and mounts come after them.

use crate::behaviours::{self, Mount};
use crate::engine::Side;
use crate::limits;
use crate::proto::handshake::{self, Origin};
use crate::proto::http::{self, Method, Request};
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;
use crate::server::config::Surface;
use crate::server::http::assets::Asset;
use crate::server::http::browser;
use crate::server::http::whoami;
use crate::server::ops::admin::{self, Ops};
use crate::server::ops::stats;
use crate::server::part::PartId;
use crate::server::route::{self, Reply, Route, ServedOn};
use crate::server::route_table::{Match, Owner};
use crate::server::shared::View;

pub(crate) type CommandFn = fn(&Request<'_, '_>, &mut Ops<'_>) -> Reply;

#[derive(Clone, Copy, Debug)]
enum Handler {
    /// Has no effect.
    Read(fn(&Request<'_, '_>, View<'_>) -> Response<'static>),
    /// May have an effect or respond later. Pages of other origins are refused.
    Command(GetEffect, CommandFn),
}

/// The effect of GET on a route whose other methods have one. Hooks can only send GET, but browsers
/// send it for every image of a page.
#[derive(Clone, Copy, Debug)]
enum GetEffect {
    ReadOnly,
    Acts,
    /// Has an effect only with this query parameter.
    ActsWith(&'static str),
}

const GET: &[Method] = &[Method::Get, Method::Head];
const POST: &[Method] = &[Method::Post];
const GET_AND_POST: &[Method] = &[Method::Get, Method::Head, Method::Post];

type Row = (Route, Handler);

const fn row(
    path: &'static str,
    served_on: ServedOn,
    about: &'static str,
    methods: &'static [Method],
    handler: Handler,
) -> Row {
    (
        Route {
            path,
            has_wildcards: route::has_wildcards(path),
            served_on,
            condition: "",
            about,
            methods,
            body_bytes: None,
            forwarded_with: None,
        },
        handler,
    )
}

#[rustfmt::skip]
const ROWS: &[Row] = {
    use Handler::{Command, Read};
    use ServedOn::{Admin, Both, Faults, Monitoring, Main};
    use GetEffect::{Acts, ActsWith, ReadOnly};
    &[
        row("/healthz", Both, "200 `OK` while the event loop runs", GET, Read(health)),
        row("/livez", Both, "the same", GET, Read(health)),
        row("/readyz", Both, "200 `OK`, or 503 with the reason", GET, Read(ready)),
        row("/api/health", Main, "200 `Ok`, also while draining", GET, Read(api_health)),
        row("/version", Main, "name and version, as JSON", GET, Read(whoami::version)),
        row("/whoami", Main, "the server's identity and the request as received, as JSON", GET,
            Read(whoami::whoami)),
        row("/metrics", Monitoring, "metrics for Prometheus", GET,
            Command(ReadOnly, stats::ask_metrics)),
        row("/stats", Monitoring, "a summary as JSON, for people and KEDA", GET,
            Command(ReadOnly, stats::ask_stats)),
        row("/drain", Admin, "GET reports, or with `?wait=15s` is a preStop hook; POST starts a \
            drain, or with `?cancel=1` cancels it", GET_AND_POST,
            Command(ActsWith("wait"), admin::drain)),
        row("/api/shutdown", Admin, "a preStop hook of 15 s: `Ok` after the wait", GET_AND_POST,
            Command(Acts, admin::shutdown)),
        row("/readyz/disable", Admin, "not ready, without draining", POST,
            Command(Acts, admin::disable)),
        row("/readyz/enable", Admin, "ready again", POST, Command(Acts, admin::enable)),
        row("/shed", Admin, "`?percent=20` closes that share of the WebSockets", POST,
            Command(Acts, admin::shed)),
        row("/inemuri", Faults, "blocks the event loop for 10 s, or `?seconds=`", GET_AND_POST,
            Command(Acts, admin::inemuri)),
        row("/seppuku", Faults, "exits with status 69", GET_AND_POST,
            Command(Acts, admin::seppuku)),
    ]
};

/// The server's own routes.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROWS.iter().map(|(route, _)| route)
}

/// Strips the base path.
pub(crate) fn below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(base)?;
    match rest {
        "" if !base.is_empty() => Some("/"),
        _ => rest.starts_with('/').then_some(rest),
    }
}

/// The route of a request.
pub(crate) fn find(request: &Request<'_, '_>, cx: View<'_>) -> Option<Match> {
    let config = &cx.shared.config;
    let path = below(&config.base_path, &request.path)?;
    cx.shared.routes.find(cx.side, config, path)
}

impl Handler {
    /// Whether the request is a GET with an effect.
    fn acts_on_get(self, request: &Request<'_, '_>) -> bool {
        let acts = match self {
            Self::Command(GetEffect::Acts, _) => true,
            Self::Command(GetEffect::ActsWith(name), _) => admin::param(request, name).is_some(),
            Self::Command(GetEffect::ReadOnly, _) | Self::Read(_) => false,
        };
        acts && GET.contains(&request.method)
    }
}

/// The path label in metrics: one of a few names, whatever the request.
pub(crate) fn label(request: &Request<'_, '_>, found: Option<Match>, cx: View<'_>) -> &'static str {
    if let Some(found) = found {
        return found.route.path;
    }
    let path = below(&cx.shared.config.base_path, &request.path).unwrap_or_default();
    match cx.side {
        Side::Main if file(request, cx).is_some() => "file",
        Side::Main if find_mount(&cx.shared.config.mounts, path).is_some() => "mount",
        Side::Main | Side::Admin | Side::Part(_) => "other",
    }
}

/// How to handle a request that may have an effect.
pub(crate) enum Dispatch {
    Refuse(Response<'static>),
    Command(CommandFn),
    Part(PartId, &'static Route),
}

/// Decides whether a request may have an effect and is permitted; `None` if it only reads.
pub(crate) fn dispatch(
    request: &Request<'_, '_>,
    found: Option<Match>,
    cx: View<'_>,
) -> Option<Dispatch> {
    let forbidden = |text: String| {
        Some(Dispatch::Refuse(Response::text(Refusal::OriginForeign.status(), text)))
    };
    if cx.side == Side::Admin
        && let Err(why) = browser::check(request, &cx.shared.config.admin_hosts)
    {
        return forbidden(why);
    }
    let Match { route, owner } = found?;
    let handler = match owner {
        Owner::Server(row) => Some(ROWS[row].1),
        Owner::Part(_) => None,
    };
    if matches!(handler, Some(Handler::Read(_))) {
        return None;
    }
    if !route.methods.contains(&request.method) {
        return Some(Dispatch::Refuse(other_method(request, route.methods)));
    }
    match cx.side {
        Side::Admin
            if handler.is_some_and(|handler| handler.acts_on_get(request))
                && browser::is_from_browser(request) =>
        {
            return forbidden(browser::USE_POST.to_owned());
        }
        Side::Main if is_foreign(request, route) => return forbidden(browser::FOREIGN.to_owned()),
        Side::Admin | Side::Main | Side::Part(_) => {}
    }
    match (handler, owner) {
        (Some(Handler::Command(_, command)), _) => Some(Dispatch::Command(command)),
        (_, Owner::Part(part)) => Some(Dispatch::Part(part, route)),
        (Some(Handler::Read(_)) | None, Owner::Server(_)) => None,
    }
}

/// A page of another origin must not be able to stop the server. On the admin listener
/// [`browser::check`] is stricter.
fn is_foreign(request: &Request<'_, '_>, route: &Route) -> bool {
    if route.forwarded_with.is_some_and(|field| request.values(field).next().is_some()) {
        return false;
    }
    let from_elsewhere = request.values("sec-fetch-site").any(|site| site == b"cross-site");
    from_elsewhere || !matches!(handshake::origin(request), Ok(Origin::Absent | Origin::Same))
}

/// Answers a well-formed request that is no upgrade and has no effect.
pub(crate) fn respond<'a>(
    request: &Request<'_, '_>,
    found: Option<Match>,
    cx: View<'a>,
) -> Response<'a> {
    if request.target == "*" {
        return not_allowed(GET);
    }
    let Some(path) = below(&cx.shared.config.base_path, &request.path) else {
        return if request.method == Method::Unserved { not_allowed(GET) } else { not_found(cx) };
    };
    let file = file(request, cx);
    let mount = cx.side == Side::Main && find_mount(&cx.shared.config.mounts, path).is_some();
    if request.method == Method::Unserved {
        return not_allowed(found.map_or(GET, |found| found.route.methods));
    }
    if found.is_none() && file.is_none() && !mount {
        return not_found(cx);
    }
    if !GET.contains(&request.method) {
        return other_method(request, GET);
    }
    if let Some(Match { owner: Owner::Server(row), .. }) = found
        && let Handler::Read(read) = ROWS[row].1
    {
        return read(request, cx);
    }
    let served = file.map(|file| file.respond(request));
    served.unwrap_or_else(|| Response::refusal(Refusal::UpgradeMissing))
}

/// The file at the request's path. Clients send characters such as `@` and `+` literally or as
/// `%XX`, so the raw path is decoded once.
fn file<'a>(request: &Request<'_, '_>, cx: View<'a>) -> Option<&'a Asset> {
    let path = http::decoded_path(request.raw_path).filter(|_| cx.side == Side::Main)?;
    cx.shared.assets.find(below(&cx.shared.config.base_path, &path)?)
}

fn other_method(request: &Request<'_, '_>, methods: &[Method]) -> Response<'static> {
    match request.method {
        Method::Options => Response::empty(204).with("Allow", allow(methods)),
        _ => not_allowed(methods),
    }
}

fn not_allowed(methods: &[Method]) -> Response<'static> {
    Response::refusal(Refusal::MethodNotAllowed).with("Allow", allow(methods))
}

fn allow(methods: &[Method]) -> String {
    let mut names: Vec<&str> = methods.iter().map(|method| method.name()).collect();
    names.push("OPTIONS");
    names.join(", ")
}

/// Lists the routes, to help against typos.
pub(crate) fn not_found(cx: View<'_>) -> Response<'static> {
    let config = &cx.shared.config;
    let routes = cx.shared.routes.open(cx.side, config).map(|row| row.route.path);
    let mut paths: Vec<String> = routes.map(|path| format!("{}{path}", config.base_path)).collect();
    if cx.side == Side::Main && config.surface == Surface::Full {
        paths.insert(0, format!("{}/", config.base_path));
        let mounts = config.mounts.iter().filter(|mount| mount.path != "/");
        paths.extend(mounts.map(|mount| format!("{}{} (WebSocket)", config.base_path, mount.path)));
    }
    Response::text(404, format!("no such path; there are: {}\n", paths.join(", ")))
}

fn health(_: &Request<'_, '_>, _: View<'_>) -> Response<'static> {
    Response::text(200, "OK\n")
}

fn api_health(_: &Request<'_, '_>, _: View<'_>) -> Response<'static> {
    Response::text(200, "Ok")
}

fn ready(_: &Request<'_, '_>, cx: View<'_>) -> Response<'static> {
    if let Some(why) = cx.shared.why_unready() {
        return Response::text(503, format!("{why}\n"));
    }
    let remarks = cx.shared.parts.iter().filter_map(|(_, part)| part.ready_note());
    let words: Vec<&str> = ["OK"].into_iter().chain(remarks).collect();
    Response::text(200, format!("{}\n", words.join(", ")))
}

pub(crate) fn find_mount<'m>(mounts: &'m [Mount], path: &str) -> Option<(usize, &'m Mount)> {
    mounts.iter().enumerate().find(|(_, mount)| mount.path == path)
}

/// The mount of an upgrade. With `probe=1` paths below it belong to it, since the first message
/// shows what hops make of them.
pub(crate) fn find_upgrade<'m>(
    mounts: &'m [Mount],
    path: &str,
    query: &str,
) -> Option<(usize, &'m Mount)> {
    let above = || {
        let (above, _) = path.split_once(limits::PROBE_BELOW)?;
        let probes = query.split('&').any(|parameter| parameter == "probe=1");
        let found = find_mount(mounts, if above.is_empty() { "/" } else { above });
        found.filter(|(_, mount)| probes && behaviours::may_probe(mount))
    };
    find_mount(mounts, path).or_else(above)
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
}
