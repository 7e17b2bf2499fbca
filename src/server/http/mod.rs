//! The HTTP stage: reads requests and writes responses, until an upgrade or the last response.
//! `routes` decides how a path is answered.

pub(crate) mod assets;
mod browser;
pub(crate) mod pending;
pub(crate) mod routes;
pub mod tokens;
pub(crate) mod upgrade;
mod whoami;

use crate::engine::{Action, Id, Peer, Side};
use crate::limits;
use crate::proto::body::{self, Body};
use crate::proto::forwarded;
use crate::proto::http::{self, Fields, Framing, Method, Persistence, Request, Slashes};
use crate::proto::intake::{Intake, Progress};
use crate::proto::refusal::Refusal;
use crate::proto::response::{self, Delivery, Response, Switch};
use crate::server::ops::admin::Ops;
use crate::server::ops::stats;
use crate::server::part::{Admission, Decision, PartRequest, UpgradeRequest};
use crate::server::route::{Deferred, Reply};
use crate::server::route_table::Match;
use crate::server::shared::{Cx, PendingAnswer, Shared, View};
use crate::server::unfinished::{Unfinished, is_backed_up};
use crate::server::websocket::WebSocket;
use crate::time::{self, Moment};
use pending::Pending;
use routes::Dispatch;
use upgrade::{Refused, Upgrade};

/// The response to plain HTTP on a TLS listener.
pub const PLAIN_HTTP_RESPONSE: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 45\r\nConnection: close\r\n\r\nThis port speaks TLS: use https:// or wss://\n";

/// The state of an HTTP connection.
#[derive(Debug)]
pub(crate) struct Http {
    intake: Intake,
    deadline: Moment,
    awaits: Awaits,
    /// When the first byte of the request was received, in milliseconds. It wraps, and so does the
    /// subtraction from it.
    began_ms: u32,
}

/// What the deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    FirstRequest,
    RestOfRequest,
    /// Keep-alive.
    NextRequest,
    /// At the deadline, 503 is sent: the server is draining.
    FirstRequestOrDrain,
    Response(DeferredResponse),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DeferredResponse {
    what: Deferred,
    delivery: Delivery,
    /// For the metrics.
    method: Method,
}

/// What the connection has to do next.
#[derive(Debug)]
pub(crate) enum Outcome {
    ReadMore,
    /// Call again with the unused bytes.
    Resume,
    /// The same, after a deferred response.
    AfterResponse,
    Upgraded(WebSocket),
    /// The last response is written.
    Finished,
}

/// The result of [`Http::wake`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    NotDue,
    /// The last response is written, for example 408.
    Finished,
    /// A 503 is written before the first byte was received.
    Refused,
    /// The keep-alive timeout passed. A request may already be on its way.
    IdleTimeout,
    /// Not one byte was received.
    NoRequest,
    /// A deferred response is written; another request may follow.
    Responded,
    /// A pending upgrade has to be decided now.
    UpgradeDue,
}

impl Http {
    pub(crate) fn new(cx: &Cx<'_>) -> Self {
        let deadline = Moment::after(cx.now, cx.shared.config.limits.head_timeout_ms);
        Self { intake: Intake::default(), deadline, awaits: Awaits::FirstRequest, began_ms: 0 }
    }

    /// Whether a deferred response must be sent before more is read.
    pub(crate) fn owes_response(&self) -> bool {
        matches!(self.awaits, Awaits::Response(_))
    }

    /// Whether a part decides on its upgrade.
    pub(in crate::server) fn awaits_verdict(&self) -> bool {
        let Awaits::Response(deferred) = &self.awaits else { return false };
        matches!(deferred.what, Deferred::Upgrade)
    }

    /// Handles the requests in `bytes`, which begin with kept input. Returns how many bytes were
    /// used.
    pub(crate) fn receive(
        &mut self,
        unfinished: Option<&Unfinished>,
        cx: &mut Cx<'_>,
        bytes: &[u8],
    ) -> (usize, Outcome) {
        cx.shared.refresh_date(cx.now);
        let enough = cx.shared.work + limits::WORK_PER_TURN;
        let mut at = 0;
        loop {
            if at == bytes.len() {
                return (at, Outcome::ReadMore);
            }
            if cx.shared.work >= enough {
                return (at, Outcome::Resume);
            }
            if self.owes_response() {
                return (at, Outcome::AfterResponse);
            }
            if is_backed_up(unfinished, cx.out.len()) {
                return (at, Outcome::Resume);
            }
            self.begin(cx);
            let (used, outcome) = match self.request(cx, &bytes[at..]) {
                Ok(outcome) => outcome,
                Err(refusal) => {
                    refuse(refusal, cx);
                    (bytes.len() - at, Some(Outcome::Finished))
                }
            };
            at += used;
            match outcome {
                Some(outcome) => return (at, outcome),
                None if self.owes_response() => {}
                None => self.await_next_request(cx),
            }
        }
    }

    /// The first byte of a request. Its timeout begins here, for the first request at accept.
    fn begin(&mut self, cx: &Cx<'_>) {
        let timeout_ms = if cx.shared.drain.phase.refuses() {
            limits::LINGER_MS
        } else {
            cx.shared.config.limits.head_timeout_ms
        };
        match self.awaits {
            Awaits::RestOfRequest | Awaits::Response(_) => return,
            Awaits::FirstRequest => {}
            Awaits::NextRequest | Awaits::FirstRequestOrDrain => {
                self.deadline = Moment::after(cx.now, timeout_ms);
            }
        }
        self.awaits = Awaits::RestOfRequest;
        self.began_ms = cx.now.mono_ms() as u32;
    }

    fn await_next_request(&mut self, cx: &Cx<'_>) {
        self.intake = Intake::default();
        self.awaits = Awaits::NextRequest;
        self.deadline = Moment::after(cx.now, cx.shared.keepalive_ms());
    }

    /// Handles one request, complete or not: returns the bytes used, and `None` if another may
    /// follow.
    fn request(
        &mut self,
        cx: &mut Cx<'_>,
        bytes: &[u8],
    ) -> Result<(usize, Option<Outcome>), Refusal> {
        let progress = match self.intake.advance(bytes) {
            Err(Refusal::BodyTooLarge) => return self.body_too_large(cx, bytes),
            progress => progress?,
        };
        match progress {
            Progress::Waiting => Ok((0, Some(Outcome::ReadMore))),
            Progress::Head(end) => {
                let mut fields = Fields::default();
                let request = http::parse_with(&bytes[..end], &mut fields, slashes(cx.side))?;
                let found = routes::find(&request, View::new(cx));
                let wanted = found.and_then(|found| found.route.body_bytes);
                let most = wanted.unwrap_or(limits::DROPPED_BODY_BYTES);
                if request.framing == Framing::Length(0) {
                    return Ok((
                        end,
                        self.answer(&request, ReceivedBody::Complete(&[]), found, cx),
                    ));
                }
                // A body that is refused, or waits for a `100 Continue` that will not be sent, is
                // not read.
                let refused = wanted.is_none() && request.expects_continue;
                let Some(body) = Body::new(request.framing, most).ok().filter(|_| !refused) else {
                    return Ok((end, self.answer(&request, ReceivedBody::Unread, found, cx)));
                };
                if request.expects_continue && bytes.len() == end {
                    cx.out.bytes.extend_from_slice(response::CONTINUE);
                }
                self.intake.expect_body(body);
                self.deadline = Moment::after(cx.now, limits::BODY_TIMEOUT_MS);
                match self.intake.advance(bytes) {
                    Err(Refusal::BodyTooLarge) => self.body_too_large(cx, bytes),
                    progress => match progress? {
                        Progress::Whole(all) => {
                            let body = ReceivedBody::Complete(&bytes[end..all]);
                            Ok((all, self.answer(&request, body, found, cx)))
                        }
                        Progress::Waiting | Progress::Head(_) => Ok((0, Some(Outcome::ReadMore))),
                    },
                }
            }
            Progress::Whole(end) => {
                let mut fields = Fields::default();
                let request = http::parse_with(bytes, &mut fields, slashes(cx.side))?;
                let body = &bytes[self.intake.head_end()..end];
                let found = routes::find(&request, View::new(cx));
                Ok((end, self.answer(&request, ReceivedBody::Complete(body), found, cx)))
            }
        }
    }

    /// The chunks exceed the limit. A route that takes a body words the refusal itself.
    fn body_too_large(
        &mut self,
        cx: &mut Cx<'_>,
        bytes: &[u8],
    ) -> Result<(usize, Option<Outcome>), Refusal> {
        let mut fields = Fields::default();
        let request = http::parse_with(bytes, &mut fields, slashes(cx.side))?;
        let found = routes::find(&request, View::new(cx));
        match found.and_then(|found| found.route.body_bytes) {
            Some(_) => Ok((bytes.len(), self.answer(&request, ReceivedBody::Unread, found, cx))),
            None => Err(Refusal::BodyTooLarge),
        }
    }

    /// Schedules its end in a drain. Until then requests are answered; an incomplete request gets a
    /// little longer.
    pub(crate) fn end_at(&mut self, when: Moment, cx: &Cx<'_>) {
        let grace_ns = match self.awaits {
            Awaits::FirstRequest | Awaits::FirstRequestOrDrain => {
                self.awaits = Awaits::FirstRequestOrDrain;
                0
            }
            Awaits::NextRequest => 0,
            Awaits::RestOfRequest => time::ms(limits::LINGER_MS),
            // The deferred response ends it: the hook that requested it counts the same seconds.
            Awaits::Response(_) => return,
        };
        let turn_ns = when.ns(cx.now) + grace_ns;
        if turn_ns < self.deadline.ns(cx.now) {
            self.deadline = Moment::at(turn_ns);
        }
    }

    pub(crate) fn next_deadline(&self, cx: &Cx<'_>) -> u64 {
        self.deadline.ns(cx.now)
    }

    /// Checks the deadline.
    pub(crate) fn wake(&mut self, cx: &mut Cx<'_>) -> Wake {
        if let Awaits::Response(DeferredResponse { what: Deferred::Upgrade, .. }) = self.awaits {
            let decided = cx.part.is_none_or(|part| cx.shared.parts.get(part).has_verdict(cx.id));
            let due = decided || self.deadline.has_come(cx.now);
            return if due { Wake::UpgradeDue } else { Wake::NotDue };
        }
        if let Awaits::Response(deferred) = self.awaits
            && (deferred.what.is_due_at_once()
                || self.deadline.has_come(cx.now)
                || cx
                    .shared
                    .pending_answers
                    .get(&cx.id)
                    .is_some_and(|pending| pending.response.is_some()))
        {
            return self.send_deferred(deferred, cx);
        }
        if !self.deadline.has_come(cx.now) {
            return Wake::NotDue;
        }
        match self.awaits {
            Awaits::FirstRequest => Wake::NoRequest,
            Awaits::NextRequest => Wake::IdleTimeout,
            Awaits::RestOfRequest => {
                refuse(Refusal::TooSlow, cx);
                Wake::Finished
            }
            Awaits::FirstRequestOrDrain => {
                refuse(Refusal::Draining, cx);
                Wake::Refused
            }
            Awaits::Response(_) => Wake::NotDue,
        }
    }

    fn elapsed_ms(&self, cx: &Cx<'_>) -> u64 {
        u64::from((cx.now.mono_ms() as u32).wrapping_sub(self.began_ms))
    }

    fn send_deferred(&mut self, deferred: DeferredResponse, cx: &mut Cx<'_>) -> Wake {
        let (mut delivery, mut path) = (deferred.delivery, deferred.what.path());
        let response = match deferred.what {
            Deferred::Drain | Deferred::Shutdown => Response::text(200, "Ok"),
            Deferred::Metrics => stats::metrics_page(cx.shared),
            Deferred::Stats => stats::stats_page(cx.shared, cx.now),
            Deferred::Upgrade => Response::refusal(Refusal::Overloaded),
            Deferred::Part => {
                let pending = cx.shared.pending_answers.remove(&cx.id);
                path = pending.as_ref().map_or(path, |pending| pending.path);
                pending.and_then(|pending| pending.response).unwrap_or_else(|| {
                    // A late response must not be taken for the response to the next request.
                    delivery.persistence = Persistence::Close;
                    Response::text(504, "whoever has the answer did not give it in time\n")
                })
            }
        };
        let label = (deferred.method, path, response.status);
        cx.shared.metrics.response_sent(label, self.elapsed_ms(cx));
        cx.shared.refresh_date(cx.now);
        response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
        if delivery.persistence == Persistence::Close {
            return Wake::Finished;
        }
        self.await_next_request(cx);
        Wake::Responded
    }

    /// A part refused the upgrade.
    pub(crate) fn refuse_upgrade(&self, response: &Response<'_>, cx: &mut Cx<'_>) {
        let status = response.status;
        cx.shared.metrics.handshake_failed(if status == 503 { "unavailable" } else { "backend" });
        cx.shared
            .metrics
            .response_sent((Method::Get, Deferred::Upgrade.path(), status), self.elapsed_ms(cx));
        log::debug!(target: "access", conn:% = cx.id, status; "upgrade refused by the backend");
        let delivery = Delivery { body: true, persistence: Persistence::Close, minor: 1 };
        response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
    }

    /// Answers a well-formed request; `None` if another may follow.
    fn answer(
        &mut self,
        request: &Request<'_, '_>,
        body: ReceivedBody<'_>,
        found: Option<Match>,
        cx: &mut Cx<'_>,
    ) -> Option<Outcome> {
        cx.peer = client(request, cx);
        let outcome = self.respond(request, body, found, cx);
        if request.upgrade != http::Upgrade::WebSocket {
            // The next request of a proxy may be another client's.
            cx.peer = cx.via;
        }
        outcome
    }

    fn respond(
        &mut self,
        request: &Request<'_, '_>,
        body: ReceivedBody<'_>,
        found: Option<Match>,
        cx: &mut Cx<'_>,
    ) -> Option<Outcome> {
        let reply = if request.upgrade == http::Upgrade::WebSocket {
            match upgrade(request, cx) {
                Ok(UpgradeResult::Open(socket)) => return Some(Outcome::Upgraded(socket)),
                Ok(UpgradeResult::Pending { within_ms }) => {
                    Some(Reply::Later { after_ms: within_ms, what: Deferred::Upgrade })
                }
                Err(refused) => {
                    cx.shared.metrics.handshake_failed(failure_reason(refused.status));
                    Some(Reply::Now(*refused))
                }
            }
        } else {
            dispatch(request, body, found, cx)
        };
        let path = routes::label(request, found, View::new(cx));
        let method = request.method;
        let keep_alive = request.persistence == Persistence::KeepAlive
            && matches!(body, ReceivedBody::Complete(_))
            && !cx.shared.drain.is_under_way();
        let delivery = |keep_alive| Delivery {
            body: method != Method::Head,
            persistence: if keep_alive { Persistence::KeepAlive } else { Persistence::Close },
            minor: request.minor,
        };
        let response = match reply {
            Some(Reply::Later { after_ms, what }) => {
                let delivery = delivery(keep_alive);
                self.awaits = Awaits::Response(DeferredResponse { what, delivery, method });
                self.deadline = Moment::after(cx.now, after_ms);
                if what.is_due_at_once() {
                    cx.act(Action::Write(cx.id));
                } else if what == Deferred::Part {
                    cx.shared.pending_answers.insert(cx.id, PendingAnswer { path, response: None });
                }
                return None;
            }
            Some(Reply::Now(response)) => response,
            None => {
                let view = View { side: cx.side, peer: cx.peer, shared: cx.shared };
                routes::respond(request, found, view)
            }
        };
        log_access(request, response.status, cx.id);
        let delivery = delivery(keep_alive && response.status != 426);
        let status = response.status;
        let work = limits::REQUEST_WORK + response.body.len() as u64;
        response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
        cx.shared.work += work;
        cx.shared.metrics.response_sent((method, path, status), self.elapsed_ms(cx));
        (delivery.persistence == Persistence::Close).then_some(Outcome::Finished)
    }
}

/// The client of a request, behind trusted proxies.
fn client(request: &Request<'_, '_>, cx: &Cx<'_>) -> Peer {
    let trusted = &cx.shared.config.trusted_proxies;
    let Peer::Tcp { ip, port } = cx.via else { return cx.via };
    if trusted.is_empty() || cx.side != Side::Main {
        return cx.via;
    }
    let fields: Vec<&[u8]> = request.values("x-forwarded-for").collect();
    let client = forwarded::client(ip, &fields, trusted);
    Peer::Tcp { ip: client, port: if client == ip { port } else { 0 } }
}

/// Handles a request that may have an effect; `None` if it only reads.
fn dispatch(
    request: &Request<'_, '_>,
    body: ReceivedBody<'_>,
    found: Option<Match>,
    cx: &mut Cx<'_>,
) -> Option<Reply> {
    let (part, route) = match routes::dispatch(request, found, View::new(cx))? {
        Dispatch::Refuse(response) => return Some(Reply::Now(response)),
        Dispatch::Command(command) => {
            let Shared { open, drain, faults, ready_off, orders, actions, .. } = &mut *cx.shared;
            let (now, peer, open) = (cx.now, cx.peer, *open);
            let mut ops = Ops { now, peer, open, drain, faults, ready_off, orders, actions };
            return Some(command(request, &mut ops));
        }
        Dispatch::Part(part, route) => (part, route),
    };
    let body = match body {
        ReceivedBody::Complete(body) => Ok(body::payload(request.framing, body)),
        ReceivedBody::Unread => Err(Refusal::BodyTooLarge),
    };
    let Shared { config, parts, rng, .. } = &mut *cx.shared;
    Some(parts.call(part).respond(PartRequest {
        now: cx.now,
        id: cx.id,
        peer: cx.peer,
        route: route.path,
        path: routes::below(&config.base_path, &request.path).unwrap_or_default(),
        request,
        body: body.as_deref().map_err(|refusal| *refusal),
        rng,
    }))
}

/// The result of an accepted upgrade.
enum UpgradeResult {
    Open(WebSocket),
    /// A part decides.
    Pending {
        within_ms: u64,
    },
}

/// Opens a WebSocket, or returns the refusal.
fn upgrade(request: &Request<'_, '_>, cx: &mut Cx<'_>) -> Result<UpgradeResult, Refused> {
    if cx.shared.tokens.is_due(cx.now)
        && let Some(source) = cx.shared.tokens.source()
    {
        cx.act(Action::Fetch(source));
    }
    let checked = upgrade::check(request, (cx.now, cx.id), View::new(cx));
    let Upgrade { pending, params, subprotocol, part } = checked.map_err(|refused| {
        if refused.status == 503 {
            Box::new(with_retry_after(*refused, cx.shared))
        } else {
            refused
        }
    })?;
    if let Some(part) = part {
        cx.part = Some(part);
        let Cx { now, id, peer, via, .. } = *cx;
        let upgrade = UpgradeRequest { now, id, peer, via, request, params: &params };
        match cx.shared.parts.call(part).admit(&upgrade) {
            Admission::Now => {}
            Admission::Refused(response) => {
                cx.part = None;
                return Err(Box::new(response));
            }
            Admission::Pending { within_ms } => {
                cx.shared.add_pending(id, pending);
                return Ok(UpgradeResult::Pending { within_ms });
            }
        }
    }
    Ok(UpgradeResult::Open(open(pending, subprotocol.as_deref(), cx)))
}

/// A part decided on a pending upgrade, or did not in time.
pub(crate) fn decide_upgrade(cx: &mut Cx<'_>) -> Result<WebSocket, Response<'static>> {
    cx.shared.refresh_date(cx.now);
    let pending = cx.shared.take_pending(cx.id);
    let (Some(part), Some(pending)) = (cx.part, pending) else {
        return Err(Response::refusal(Refusal::Overloaded));
    };
    if cx.shared.drain.phase.refuses() {
        cx.shared.parts.call(part).closed(cx.now, cx.id);
        return Err(with_retry_after(Response::refusal(Refusal::Draining), cx.shared));
    }
    match cx.shared.parts.call(part).verdict(cx.now, cx.id) {
        Decision::Welcome(chosen) => {
            let chosen = chosen.filter(|chosen| pending.offers(chosen));
            Ok(open(pending, chosen.as_deref(), cx))
        }
        Decision::Refused(response) => Err(response),
    }
}

/// Sends 101.
fn open(pending: Pending, subprotocol: Option<&str>, cx: &mut Cx<'_>) -> WebSocket {
    let Pending { accept, deflate, behaviour, extras, mount, .. } = pending;
    let extension = deflate.as_ref().map(|(answer, _)| answer.as_str());
    let switch = Switch { accept, subprotocol, extension };
    response::switch(&mut cx.out.bytes, cx.shared.stamp(), &switch);
    let deflate = deflate.map(|(_, agreed)| agreed);
    WebSocket::open(behaviour, extras, mount, deflate, &mut cx.socket_cx())
}

fn with_retry_after<'r>(response: Response<'r>, shared: &mut Shared) -> Response<'r> {
    response.with("Retry-After", shared.retry_after())
}

/// Old kubelets put two slashes before the path of a hook. With 400, the hook would have no effect,
/// and the kubelet would not report it.
fn slashes(side: Side) -> Slashes {
    match side {
        Side::Main | Side::Part(_) => Slashes::Refused,
        Side::Admin => Slashes::Folded,
    }
}

/// The reason label of a refused upgrade.
fn failure_reason(status: u16) -> &'static str {
    match status {
        400 => "malformed",
        403 => "origin",
        404 => "path",
        405 => "method",
        426 => "version",
        503 => "unavailable",
        _ => "other",
    }
}

/// How much of a request's body was read.
#[derive(Clone, Copy)]
enum ReceivedBody<'b> {
    /// All of it, with its framing.
    Complete(&'b [u8]),
    /// The body is not read, so no other request can follow.
    Unread,
}

/// Refuses an invalid request and ends the connection.
pub(crate) fn refuse(refusal: Refusal, cx: &mut Cx<'_>) {
    cx.shared.refresh_date(cx.now);
    log::debug!(
        target: "refused", conn:% = cx.id, status = refusal.status(), reason = refusal.sentence();
        "request refused"
    );
    let mut response = Response::refusal(refusal);
    if refusal.status() == 503 {
        response = with_retry_after(response, cx.shared);
    }
    let delivery = Delivery { body: true, persistence: Persistence::Close, minor: 1 };
    response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
}

/// Probes every second would flood the log.
fn log_access(request: &Request<'_, '_>, status: u16, id: Id) {
    if !matches!(&*request.path, "/healthz" | "/livez" | "/readyz") {
        log::debug!(
            target: "access", conn:% = id, method = request.method_text,
            path = &*request.path, status;
            "request"
        );
    }
}
