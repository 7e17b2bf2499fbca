//! Which path answers what. One row a path in [`ROUTES`]; files and mounts come behind them.

use serde::Serialize;

use super::assets::Asset;
use super::config::{Config, Surface};
use super::part::{Asked, PartId};
use super::parts::Parts;
use super::shared::{Cx, Shared};
use super::{admin, browser, stats, whoami};
use crate::behaviours::Mount;
use crate::engine::{Door, Peer};
use crate::proto::handshake::{self, Origin};
use crate::proto::http::{self, Method, Request, percent_decoded};
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;

/// One path of the HTTP side.
#[derive(Debug)]
pub struct Route {
    /// The path, below the base path.
    pub path: &'static str,
    /// Where it is served.
    pub doors: Doors,
    /// What it needs beside that, for the README; empty: nothing.
    pub condition: &'static str,
    /// What it answers, for the README.
    pub about: &'static str,
    methods: &'static [Method],
    answer: Answer,
}

/// Where a path is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doors {
    /// On the main listener.
    Main,
    /// On the admin listener.
    Admin,
    /// On both.
    Both,
    /// On both, and only with `--faults`.
    Faults,
    /// On the admin listener, and on the main one where nothing else is served.
    Figures,
}

impl Doors {
    fn opens(self, door: Door, config: &Config) -> bool {
        if config.surface == Surface::Bare {
            return matches!(self, Self::Both | Self::Figures);
        }
        match self {
            Self::Main => door == Door::Main,
            Self::Admin | Self::Figures => door == Door::Admin,
            Self::Both => true,
            Self::Faults => config.faults,
        }
    }

    /// The word for the README.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Admin => "admin",
            Self::Both => "both",
            Self::Faults => "both, with `--faults`",
            Self::Figures => "admin, backend",
        }
    }
}

/// How a path answers.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// It looks and tells.
    Tells(fn(&Request<'_, '_>, View<'_>) -> Response<'static>),
    /// It may change something, or answer later. No page of another site may ask for it.
    Does(Get, fn(&Request<'_, '_>, &mut Cx<'_>) -> Reply),
    /// A part answers, with a body of at most so many bytes, or the refusal of a longer one. Its
    /// GET only looks.
    OfPart(u64),
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

/// The body of a request, or why there is none.
pub type Taken<'b> = Result<&'b [u8], Refusal>;

/// What comes of a request.
#[derive(Debug)]
pub enum Reply {
    /// This answer.
    Now(Response<'static>),
    /// An answer that comes by itself.
    Later {
        /// When it comes at the latest.
        after_ms: u64,
        /// What it is.
        what: Later,
    },
}

/// An answer that is written when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// 200 `Ok`, after the wait of a preStop hook.
    Drain,
    /// The same, of `/api/shutdown`.
    Shutdown,
    /// What needs a look at the kernel's figures first.
    Metrics,
    /// The same, of `/stats`.
    Stats,
    /// A WebSocket, if a part lets it in.
    Verdict,
    /// What a part answers with [`Order::Answer`](super::part::Order), or 504.
    Word,
}

impl Later {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Drain => "/drain",
            Self::Shutdown => "/api/shutdown",
            Self::Metrics => "/metrics",
            Self::Stats => "/stats",
            Self::Verdict => "mount",
            Self::Word => "word",
        }
    }

    pub(super) fn is_due_at_once(self) -> bool {
        matches!(self, Self::Metrics | Self::Stats)
    }
}

const GET: &[Method] = &[Method::Get, Method::Head];
const POST: &[Method] = &[Method::Post];
const GET_AND_POST: &[Method] = &[Method::Get, Method::Head, Method::Post];

const fn route(
    path: &'static str,
    doors: Doors,
    about: &'static str,
    methods: &'static [Method],
    answer: Answer,
) -> Route {
    Route { path, doors, condition: "", about, methods, answer }
}

impl Route {
    /// A path that a part answers, with bodies of at most so many bytes.
    #[must_use]
    pub const fn of_part(
        path: &'static str,
        (doors, condition): (Doors, &'static str),
        about: &'static str,
        methods: &'static [Method],
        body_bytes: u64,
    ) -> Self {
        let answer = Answer::OfPart(body_bytes);
        Self { path, doors, condition, about, methods, answer }
    }

    /// Where it is served, for the README.
    #[must_use]
    pub fn place(&self) -> String {
        match self.condition {
            "" => self.doors.name().to_owned(),
            condition => format!("{}, {condition}", self.doors.name()),
        }
    }
}

/// The server's own paths; files, mounts and the paths of parts come behind them.
#[rustfmt::skip]
pub const ROUTES: &[Route] = {
    use Answer::{Does, Tells};
    use Doors::{Admin, Both, Faults, Figures, Main};
    use Get::{Acts, ActsWith, Looks};
    &[
        route("/healthz", Both, "200 `OK` as long as the loop turns", GET, Tells(health)),
        route("/livez", Both, "the same", GET, Tells(health)),
        route("/readyz", Both, "200 `OK`, or 503 with the reason", GET, Tells(ready)),
        route("/api/health", Main, "200 `Ok`, also while draining", GET, Tells(api_health)),
        route("/version", Main, "the build, as JSON", GET, Tells(whoami::version)),
        route("/whoami", Main, "who serves, and the request as it came", GET,
            Tells(whoami::whoami)),
        route("/metrics", Figures, "for Prometheus", GET, Does(Looks, stats::metrics)),
        route("/stats", Figures, "the same in short, as JSON, for people and KEDA", GET,
            Does(Looks, stats::stats)),
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

/// The paths of a server, and the parts that answer some of them.
#[derive(Debug)]
pub(super) struct RouteTable(Vec<(&'static Route, Option<PartId>)>);

impl RouteTable {
    pub(super) fn new(parts: &Parts) -> Self {
        let own = ROUTES.iter().map(|route| (route, None));
        let of_parts = parts
            .iter()
            .flat_map(|(id, part)| part.routes().iter().map(move |route| (route, Some(id))));
        Self(own.chain(of_parts).collect())
    }
}

/// What an answer can depend on, beside the request.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    pub(super) door: Door,
    pub(super) peer: Peer,
    pub(super) shared: &'a Shared,
}

impl<'a> View<'a> {
    pub(super) fn of(cx: &'a Cx<'_>) -> Self {
        Self { door: cx.door, peer: cx.peer, shared: cx.shared }
    }
}

/// The path without the base path.
pub(super) fn below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(base)?;
    match rest {
        "" if !base.is_empty() => Some("/"),
        _ => rest.starts_with('/').then_some(rest),
    }
}

/// The row of a request's path, and the part that answers it.
fn find(request: &Request<'_, '_>, cx: View<'_>) -> Option<(&'static Route, Option<PartId>)> {
    let config = &cx.shared.config;
    let path = below(&config.base_path, &request.path)?;
    let mut rows = cx.shared.routes.0.iter().copied();
    rows.find(|(route, _)| route.is_for(path) && route.doors.opens(cx.door, config))
}

impl Route {
    /// Whether this is a GET that changes something.
    fn acts_on_get(&self, request: &Request<'_, '_>) -> bool {
        let acts = match self.answer {
            Answer::Does(Get::Acts, _) => true,
            Answer::Does(Get::ActsWith(name), _) => admin::param(request, name).is_some(),
            Answer::Does(Get::Looks, _) | Answer::Tells(_) | Answer::OfPart(_) => false,
        };
        acts && GET.contains(&request.method)
    }

    /// A part in braces is any one part; the last one is all that is left, and not nothing.
    /// What stands in the table may be written with `%XX` as well.
    fn is_for(&self, path: &str) -> bool {
        if !self.path.contains('{') {
            return self.path == path;
        }
        let (mut row, mut asked) = (self.path.split('/').peekable(), path.split('/'));
        while let Some(known) = row.next() {
            let Some(part) = asked.next() else { return false };
            if !known.starts_with('{') {
                if percent_decoded(part).as_deref() != Some(known) {
                    return false;
                }
            } else if part.is_empty() && (row.peek().is_some() || asked.next().is_none()) {
                return false;
            } else if row.peek().is_none() {
                return true;
            }
        }
        asked.next().is_none()
    }
}

/// How long a body may be that this request's path wants; `None`: it wants none.
pub(super) fn body_limit(request: &Request<'_, '_>, cx: View<'_>) -> Option<u64> {
    match find(request, cx)?.0.answer {
        Answer::OfPart(most) => Some(most),
        Answer::Tells(_) | Answer::Does(..) => None,
    }
}

/// What the metrics call a request's path: one of few names, whatever is asked for.
pub(super) fn label(request: &Request<'_, '_>, cx: View<'_>) -> &'static str {
    if let Some((route, _)) = find(request, cx) {
        return route.path;
    }
    let path = below(&cx.shared.config.base_path, &request.path).unwrap_or_default();
    match cx.door {
        Door::Main if file(request, cx).is_some() => "file",
        Door::Main if find_mount(&cx.shared.config.mounts, path).is_some() => "mount",
        Door::Main | Door::Admin => "other",
    }
}

/// Carries out a request that may change something; `None` when it only wants to be told.
pub(super) fn command(
    request: &Request<'_, '_>,
    body: Taken<'_>,
    cx: &mut Cx<'_>,
) -> Option<Reply> {
    let forbidden =
        |text: String| Some(Reply::Now(Response::text(Refusal::OriginForeign.status(), text)));
    if cx.door == Door::Admin
        && let Err(why) = browser::check(request, &cx.shared.config.admin_hosts)
    {
        return forbidden(why);
    }
    let (route, part) = find(request, View::of(cx))?;
    if matches!(route.answer, Answer::Tells(_)) {
        return None;
    }
    if !route.methods.contains(&request.method) {
        return Some(Reply::Now(other_method(request, route.methods)));
    }
    match cx.door {
        Door::Admin if route.acts_on_get(request) && browser::is_marked(request) => {
            return forbidden(browser::USE_POST.to_owned());
        }
        Door::Main if is_foreign(request) => return forbidden(browser::FOREIGN.to_owned()),
        Door::Admin | Door::Main => {}
    }
    match route.answer {
        Answer::Tells(_) => None,
        Answer::Does(_, does) => Some(does(request, cx)),
        Answer::OfPart(_) => part.map(|part| ask_part(part, route, request, body, cx)),
    }
}

fn ask_part(
    part: PartId,
    route: &'static Route,
    request: &Request<'_, '_>,
    body: Taken<'_>,
    cx: &mut Cx<'_>,
) -> Reply {
    let Shared { config, parts, rng, .. } = &mut *cx.shared;
    parts.call(part).respond(Asked {
        now: cx.now,
        id: cx.id,
        peer: cx.peer,
        route: route.path,
        path: below(&config.base_path, &request.path).unwrap_or_default(),
        request,
        body,
        rng,
    })
}

/// A page of another site must not stop the server that it is shown beside. On the admin listener
/// [`browser::check`] is stricter.
fn is_foreign(request: &Request<'_, '_>) -> bool {
    let from_elsewhere = request.values("sec-fetch-site").any(|site| site == b"cross-site");
    from_elsewhere || !matches!(handshake::origin(request), Ok(Origin::Absent | Origin::Same))
}

/// Answers a well-formed request that neither wants to be a WebSocket nor changes anything.
pub(super) fn respond<'a>(request: &Request<'_, '_>, cx: View<'a>) -> Response<'a> {
    if request.target == "*" {
        return not_allowed(GET);
    }
    let Some(path) = below(&cx.shared.config.base_path, &request.path) else {
        return if request.method == Method::Unserved { not_allowed(GET) } else { not_found(cx) };
    };
    let route = find(request, cx).map(|(route, _)| route);
    let file = file(request, cx);
    let mount = cx.door == Door::Main && find_mount(&cx.shared.config.mounts, path).is_some();
    if request.method == Method::Unserved {
        return not_allowed(route.map_or(GET, |route| route.methods));
    }
    if route.is_none() && file.is_none() && !mount {
        return not_found(cx);
    }
    if !GET.contains(&request.method) {
        return other_method(request, GET);
    }
    if let Some(Route { answer: Answer::Tells(tells), .. }) = route {
        return tells(request, cx);
    }
    let served = file.map(|file| file.answer(request));
    served.unwrap_or_else(|| Response::refusal(Refusal::UpgradeMissing))
}

/// The file that a request asks for. A client sends characters such as `@` and `+` as they are or
/// as `%XX`, so all of the path is decoded, from what was sent and once.
fn file<'a>(request: &Request<'_, '_>, cx: View<'a>) -> Option<&'a Asset> {
    let path = http::decoded_path(request.raw_path).filter(|_| cx.door == Door::Main)?;
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
pub(super) fn not_found(cx: View<'_>) -> Response<'static> {
    let config = &cx.shared.config;
    let open = |route: &&'static Route| route.doors.opens(cx.door, config);
    let routes = cx.shared.routes.0.iter().map(|(route, _)| *route);
    let routes = routes.filter(open).map(|route| route.path);
    let mut paths: Vec<String> = routes.map(|path| format!("{}{path}", config.base_path)).collect();
    if cx.door == Door::Main && config.surface == Surface::Full {
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

/// An answer of JSON.
#[must_use]
pub fn json(value: &impl Serialize) -> Response<'static> {
    // None of our values can fail to serialize.
    let mut body = serde_json::to_vec(value).unwrap_or_default();
    body.push(b'\n');
    Response::json(body)
}

pub(super) fn find_mount<'m>(mounts: &'m [Mount], path: &str) -> Option<(usize, &'m Mount)> {
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

    #[test]
    fn parts_in_braces_are_any() {
        let answer = Answer::Tells(health);
        let row = route("/{stage}/@x/{id}", Doors::Both, "", GET, answer);
        for path in ["/p/@x/1", "/p/%40x/1", "/p/@x/1/2", "/p/@x//", "/p/@x/..", "/p/@x/%2f"] {
            assert!(row.is_for(path), "{path}");
        }
        for path in ["/p/@x/", "/p/@x", "//@x/1", "/p/y/1", "/@x/1", "/p/q/@x/1", "", "/"] {
            assert!(!row.is_for(path), "{path}");
        }
    }
}
