//! Which path answers what. One row a path in [`ROWS`]; files and mounts come behind them.

use crate::behaviours::Mount;
use crate::engine::Side;
use crate::proto::handshake::{self, Origin as Page};
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
use crate::server::route::{Reply, Route, ServedOn};
use crate::server::route_table::{Match, Origin};
use crate::server::shared::View;

/// Carries out a request.
pub(in crate::server) type Does = fn(&Request<'_, '_>, &mut Ops<'_>) -> Reply;

/// How a path answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// It looks and tells.
    Tells(fn(&Request<'_, '_>, View<'_>) -> Response<'static>),
    /// It may change something, or answer later. No page of another site may ask for it.
    Does(Get, Does),
}

/// What a GET of a path does, where another method changes something. A GET that acts is for
/// hooks, which can send nothing else: a browser sends one for every image of a page.
#[derive(Clone, Copy, Debug)]
enum Get {
    Looks,
    Acts,
    /// It acts with this parameter in the query, and looks without it.
    ActsWith(&'static str),
}

const GET: &[Method] = &[Method::Get, Method::Head];
const POST: &[Method] = &[Method::Post];
const GET_AND_POST: &[Method] = &[Method::Get, Method::Head, Method::Post];

/// A row of the table: a path, and how it answers.
type Row = (Route, Answer);

const fn route(
    path: &'static str,
    served_on: ServedOn,
    about: &'static str,
    methods: &'static [Method],
    answer: Answer,
) -> Row {
    (Route { path, served_on, condition: "", about, methods, body_bytes: None }, answer)
}

/// The server's own paths; files, mounts and the paths of parts come behind them.
#[rustfmt::skip]
const ROWS: &[Row] = {
    use Answer::{Does, Tells};
    use ServedOn::{Admin, Both, Faults, Figures, Main};
    use Get::{Acts, ActsWith, Looks};
    &[
        route("/healthz", Both, "200 `OK` as long as the loop turns", GET, Tells(health)),
        route("/livez", Both, "the same", GET, Tells(health)),
        route("/readyz", Both, "200 `OK`, or 503 with the reason", GET, Tells(ready)),
        route("/api/health", Main, "200 `Ok`, also while draining", GET, Tells(api_health)),
        route("/version", Main, "the build, as JSON", GET, Tells(whoami::version)),
        route("/whoami", Main, "who serves, and the request as it came", GET,
            Tells(whoami::whoami)),
        route("/metrics", Figures, "for Prometheus", GET, Does(Looks, stats::ask_metrics)),
        route("/stats", Figures, "the same in short, as JSON, for people and KEDA", GET,
            Does(Looks, stats::ask_stats)),
        route("/drain", Admin, "GET reports, and with `?wait=15s` is a preStop hook; POST begins, \
            with `?cancel=1` takes back", GET_AND_POST, Does(ActsWith("wait"), admin::drain)),
        route("/api/shutdown", Admin, "a preStop hook of 15 s: `Ok` after the wait", GET_AND_POST,
            Does(Acts, admin::shutdown)),
        route("/readyz/disable", Admin, "not ready, without draining", POST,
            Does(Acts, admin::disable)),
        route("/readyz/enable", Admin, "ready again", POST, Does(Acts, admin::enable)),
        route("/shed", Admin, "`?percent=20` closes that share of the WebSockets", POST,
            Does(Acts, admin::shed)),
        route("/inemuri", Faults, "nothing is answered for 10 s, or `?seconds=`", GET_AND_POST,
            Does(Acts, admin::inemuri)),
        route("/seppuku", Faults, "the process ends with status 69", GET_AND_POST,
            Does(Acts, admin::seppuku)),
    ]
};

/// The server's own paths.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROWS.iter().map(|(route, _)| route)
}

/// The path without the base path.
pub(in crate::server) fn below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(base)?;
    match rest {
        "" if !base.is_empty() => Some("/"),
        _ => rest.starts_with('/').then_some(rest),
    }
}

/// The row of a request's path.
pub(in crate::server) fn find(request: &Request<'_, '_>, cx: View<'_>) -> Option<Match> {
    let config = &cx.shared.config;
    let path = below(&config.base_path, &request.path)?;
    cx.shared.routes.open(cx.side, config).find(|row| row.route.is_for(path))
}

impl Answer {
    /// Whether this is a GET that changes something.
    fn acts_on_get(self, request: &Request<'_, '_>) -> bool {
        let acts = match self {
            Self::Does(Get::Acts, _) => true,
            Self::Does(Get::ActsWith(name), _) => admin::param(request, name).is_some(),
            Self::Does(Get::Looks, _) | Self::Tells(_) => false,
        };
        acts && GET.contains(&request.method)
    }
}

/// What the metrics call a request's path: one of few names, whatever is asked for.
pub(in crate::server) fn label(
    request: &Request<'_, '_>,
    found: Option<Match>,
    cx: View<'_>,
) -> &'static str {
    if let Some(found) = found {
        return found.route.path;
    }
    let path = below(&cx.shared.config.base_path, &request.path).unwrap_or_default();
    match cx.side {
        Side::Main if file(request, cx).is_some() => "file",
        Side::Main if find_mount(&cx.shared.config.mounts, path).is_some() => "mount",
        Side::Main | Side::Admin => "other",
    }
}

/// How a request is answered that may change something.
pub(in crate::server) enum Command {
    Refuse(Response<'static>),
    Do(Does),
    /// By the part whose route it is.
    Ask(PartId, &'static Route),
}

/// Whether a request may change something, and whether it is allowed to; `None` when all that it
/// wants is to be told.
pub(in crate::server) fn command(
    request: &Request<'_, '_>,
    found: Option<Match>,
    cx: View<'_>,
) -> Option<Command> {
    let forbidden =
        |text: String| Some(Command::Refuse(Response::text(Refusal::OriginForeign.status(), text)));
    if cx.side == Side::Admin
        && let Err(why) = browser::check(request, &cx.shared.config.admin_hosts)
    {
        return forbidden(why);
    }
    let Match { route, from } = found?;
    let answer = match from {
        Origin::Server(row) => Some(ROWS[row].1),
        Origin::Part(_) => None,
    };
    if matches!(answer, Some(Answer::Tells(_))) {
        return None;
    }
    if !route.methods.contains(&request.method) {
        return Some(Command::Refuse(other_method(request, route.methods)));
    }
    match cx.side {
        Side::Admin
            if answer.is_some_and(|answer| answer.acts_on_get(request))
                && browser::is_marked(request) =>
        {
            return forbidden(browser::USE_POST.to_owned());
        }
        Side::Main if is_foreign(request) => return forbidden(browser::FOREIGN.to_owned()),
        Side::Admin | Side::Main => {}
    }
    match (answer, from) {
        (Some(Answer::Does(_, does)), _) => Some(Command::Do(does)),
        (_, Origin::Part(part)) => Some(Command::Ask(part, route)),
        (Some(Answer::Tells(_)) | None, Origin::Server(_)) => None,
    }
}

/// A page of another site must not stop the server that it is shown beside. On the admin listener
/// [`browser::check`] is stricter.
fn is_foreign(request: &Request<'_, '_>) -> bool {
    let from_elsewhere = request.values("sec-fetch-site").any(|site| site == b"cross-site");
    from_elsewhere || !matches!(handshake::origin(request), Ok(Page::Absent | Page::Same))
}

/// Answers a well-formed request that neither wants to be a WebSocket nor changes anything.
pub(in crate::server) fn respond<'a>(
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
    if let Some(Match { from: Origin::Server(row), .. }) = found
        && let Answer::Tells(tells) = ROWS[row].1
    {
        return tells(request, cx);
    }
    let served = file.map(|file| file.answer(request));
    served.unwrap_or_else(|| Response::refusal(Refusal::UpgradeMissing))
}

/// The file that a request asks for. A client sends characters such as `@` and `+` as they are or
/// as `%XX`, so all of the path is decoded, from what was sent and once.
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

/// Names the endpoints, since whoever mistypes one asks for exactly that.
pub(in crate::server) fn not_found(cx: View<'_>) -> Response<'static> {
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
    let remarks = cx.shared.parts.iter().filter_map(|(_, part)| part.remark());
    let words: Vec<&str> = ["OK"].into_iter().chain(remarks).collect();
    Response::text(200, format!("{}\n", words.join(", ")))
}

pub(in crate::server) fn find_mount<'m>(
    mounts: &'m [Mount],
    path: &str,
) -> Option<(usize, &'m Mount)> {
    mounts.iter().enumerate().find(|(_, mount)| mount.path == path)
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
