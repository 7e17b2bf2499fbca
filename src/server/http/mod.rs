//! The HTTP stage: requests in, answers out, until one of them is an upgrade or the last.
//! What a path answers is `routes`' business.

pub(in crate::server) mod assets;
mod browser;
pub(in crate::server) mod pending;
pub(in crate::server) mod routes;
pub mod tokens;
pub(in crate::server) mod upgrade;
mod whoami;

use crate::engine::{Action, Id, Side};
use crate::limits;
use crate::proto::body::{self, Body};
use crate::proto::http::{self, Fields, Framing, Method, Persistence, Request, Slashes};
use crate::proto::intake::{Intake, Progress};
use crate::proto::refusal::Refusal;
use crate::proto::response::{self, Delivery, Response, Switch};
use crate::server::ops::admin::Ops;
use crate::server::ops::stats;
use crate::server::part::{Admission, Asked, UpgradeRequest, Verdict};
use crate::server::route::{Later, Reply};
use crate::server::route_table::Match;
use crate::server::shared::{Cx, PendingAnswer, Shared, View};
use crate::server::slow::{Slow, is_backed_up};
use crate::server::websocket::WebSocket;
use crate::time::{self, Moment};
use pending::Pending;
use routes::Command;
use upgrade::{Refused, Upgrade};

/// The answer to a client that speaks plain HTTP to a TLS listener.
pub const PLAIN_WORDS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 45\r\nConnection: close\r\n\r\nThis port speaks TLS: use https:// or wss://\n";

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(in crate::server) struct Http {
    intake: Intake,
    deadline: Moment,
    awaits: Awaits,
    /// When the first byte of the request came, in milliseconds; it wraps, and so does what is
    /// subtracted from it.
    began_ms: u32,
}

/// What the deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// The first request: nothing of it has come.
    First,
    /// The rest of a request.
    Rest,
    /// Another request, or the end.
    Another,
    /// The first request, or in its stead the word that the server is about to stop.
    Dismissal,
    /// The moment to give the answer that is owed.
    Answer(Owed),
}

/// An answer that is given later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owed {
    what: Later,
    delivery: Delivery,
    /// Of its request, for the metrics.
    method: Method,
}

/// What the stage wants after some input.
#[derive(Debug)]
pub(in crate::server) enum Then {
    /// More bytes.
    More,
    /// To be called again with the bytes that it has not used.
    Hold,
    /// The same, but not before it says so.
    Wait,
    /// To be a WebSocket from now on.
    Open(WebSocket),
    /// Nothing more: its last answer is given.
    Over,
}

/// What a deadline that has passed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum Late {
    /// It has not passed.
    No,
    /// The peer was told that it is too slow.
    Told,
    /// There is nothing to tell, but a request may be on its way.
    Idle,
    /// There is nothing to tell: the peer never said a word.
    Silent,
    /// The answer that was owed is given, and another request may follow.
    Answered,
    /// It is time to say whether it is a WebSocket.
    Verdict,
}

impl Http {
    pub(in crate::server) fn new(cx: &Cx<'_>) -> Self {
        let deadline = Moment::after(cx.now, cx.shared.config.limits.head_timeout_ms);
        Self { intake: Intake::default(), deadline, awaits: Awaits::First, began_ms: 0 }
    }

    /// Whether it gives an answer before it wants more bytes.
    pub(in crate::server) fn owes_an_answer(&self) -> bool {
        matches!(self.awaits, Awaits::Answer(_))
    }

    /// Requests in `bytes`, which begin with what was not used before. Returns how many were used.
    pub(in crate::server) fn receive(
        &mut self,
        slow: Option<&Slow>,
        cx: &mut Cx<'_>,
        bytes: &[u8],
    ) -> (usize, Then) {
        cx.shared.refresh_date(cx.now);
        let enough = cx.shared.work + limits::WORK_PER_TURN;
        let mut at = 0;
        loop {
            if at == bytes.len() {
                return (at, Then::More);
            }
            if cx.shared.work >= enough {
                return (at, Then::Hold);
            }
            if self.owes_an_answer() {
                return (at, Then::Wait);
            }
            if is_backed_up(slow, cx.out.len()) {
                return (at, Then::Hold);
            }
            self.begin(cx);
            let (used, then) = match self.request(cx, &bytes[at..]) {
                Ok(outcome) => outcome,
                Err(refusal) => {
                    refuse(refusal, cx);
                    (bytes.len() - at, Some(Then::Over))
                }
            };
            at += used;
            match then {
                Some(then) => return (at, then),
                None if self.owes_an_answer() => {}
                None => self.idle(cx),
            }
        }
    }

    /// The first byte of a request: its time is measured from here, the first one's from accept.
    fn begin(&mut self, cx: &Cx<'_>) {
        let timeout_ms = if cx.shared.drain.phase.refuses() {
            limits::LINGER_MS
        } else {
            cx.shared.config.limits.head_timeout_ms
        };
        match self.awaits {
            Awaits::Rest | Awaits::Answer(_) => return,
            Awaits::First => {}
            Awaits::Another | Awaits::Dismissal => {
                self.deadline = Moment::after(cx.now, timeout_ms);
            }
        }
        self.awaits = Awaits::Rest;
        self.began_ms = cx.now.mono_ms() as u32;
    }

    fn idle(&mut self, cx: &Cx<'_>) {
        self.intake = Intake::default();
        self.awaits = Awaits::Another;
        self.deadline = Moment::after(cx.now, cx.shared.keepalive_ms());
    }

    /// One request, or what there is of it: bytes used, and `None` when the next one may follow.
    fn request(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Result<(usize, Option<Then>), Refusal> {
        let progress = match self.intake.advance(bytes) {
            Err(Refusal::BodyTooLarge) => return self.too_large(cx, bytes),
            progress => progress?,
        };
        match progress {
            Progress::Waiting => Ok((0, Some(Then::More))),
            Progress::Head(end) => {
                let mut fields = Fields::default();
                let request = http::parse_with(&bytes[..end], &mut fields, slashes(cx.side))?;
                let found = routes::find(&request, View::of(cx));
                let wanted = found.and_then(|found| found.route.body_bytes);
                let most = wanted.unwrap_or(limits::DROPPED_BODY_BYTES);
                if request.framing == Framing::Length(0) {
                    return Ok((end, self.answer(&request, Sent::Whole(&[]), found, cx)));
                }
                // A refused body, or one that waits for permission in vain, is answered without it.
                let refused = wanted.is_none() && request.expects_continue;
                let Some(body) = Body::new(request.framing, most).ok().filter(|_| !refused) else {
                    return Ok((end, self.answer(&request, Sent::Early, found, cx)));
                };
                if request.expects_continue && bytes.len() == end {
                    cx.out.bytes.extend_from_slice(response::CONTINUE);
                }
                self.intake.expect_body(body);
                self.deadline = Moment::after(cx.now, limits::BODY_TIMEOUT_MS);
                match self.intake.advance(bytes) {
                    Err(Refusal::BodyTooLarge) => self.too_large(cx, bytes),
                    progress => match progress? {
                        Progress::Whole(all) => {
                            let sent = Sent::Whole(&bytes[end..all]);
                            Ok((all, self.answer(&request, sent, found, cx)))
                        }
                        Progress::Waiting | Progress::Head(_) => Ok((0, Some(Then::More))),
                    },
                }
            }
            Progress::Whole(end) => {
                let mut fields = Fields::default();
                let request = http::parse_with(bytes, &mut fields, slashes(cx.side))?;
                let body = &bytes[self.intake.head_end()..end];
                let found = routes::find(&request, View::of(cx));
                Ok((end, self.answer(&request, Sent::Whole(body), found, cx)))
            }
        }
    }

    /// Chunks turned out to be more than is taken. Who wants a body says that in its own words.
    fn too_large(
        &mut self,
        cx: &mut Cx<'_>,
        bytes: &[u8],
    ) -> Result<(usize, Option<Then>), Refusal> {
        let mut fields = Fields::default();
        let request = http::parse_with(bytes, &mut fields, slashes(cx.side))?;
        let found = routes::find(&request, View::of(cx));
        match found.and_then(|found| found.route.body_bytes) {
            Some(_) => Ok((bytes.len(), self.answer(&request, Sent::Early, found, cx))),
            None => Err(Refusal::BodyTooLarge),
        }
    }

    /// Its turn in a drain. Until then a request that is on its way is answered; half a request
    /// gets a little longer.
    pub(in crate::server) fn end_at(&mut self, when: Moment, cx: &Cx<'_>) {
        let grace_ns = match self.awaits {
            Awaits::First | Awaits::Dismissal => {
                self.awaits = Awaits::Dismissal;
                0
            }
            Awaits::Another => 0,
            Awaits::Rest => time::ms(limits::LINGER_MS),
            // It comes when it comes: the hook that asked for it counts the same seconds.
            Awaits::Answer(_) => return,
        };
        let turn_ns = when.ns(cx.now) + grace_ns;
        if turn_ns < self.deadline.ns(cx.now) {
            self.deadline = Moment::at(turn_ns);
        }
    }

    pub(in crate::server) fn next_deadline(&self, cx: &Cx<'_>) -> u64 {
        self.deadline.ns(cx.now)
    }

    /// Looks at the deadline.
    pub(in crate::server) fn wake(&mut self, cx: &mut Cx<'_>) -> Late {
        if let Awaits::Answer(Owed { what: Later::Verdict, .. }) = self.awaits {
            let decided = cx.part.is_none_or(|part| cx.shared.parts.get(part).has_verdict(cx.id));
            let due = decided || self.deadline.has_come(cx.now);
            return if due { Late::Verdict } else { Late::No };
        }
        if let Awaits::Answer(owed) = self.awaits
            && (owed.what.is_due_at_once()
                || self.deadline.has_come(cx.now)
                || cx
                    .shared
                    .pending_answers
                    .get(&cx.id)
                    .is_some_and(|word| word.response.is_some()))
        {
            return self.give_answer_owed(owed, cx);
        }
        if !self.deadline.has_come(cx.now) {
            return Late::No;
        }
        match self.awaits {
            Awaits::First => Late::Silent,
            Awaits::Another => Late::Idle,
            Awaits::Rest => {
                refuse(Refusal::TooSlow, cx);
                Late::Told
            }
            Awaits::Dismissal => {
                refuse(Refusal::Draining, cx);
                Late::Told
            }
            Awaits::Answer(_) => Late::No,
        }
    }

    /// Since the first byte of the request.
    fn took_ms(&self, cx: &Cx<'_>) -> u64 {
        u64::from((cx.now.mono_ms() as u32).wrapping_sub(self.began_ms))
    }

    /// Gives the answer that is owed.
    fn give_answer_owed(&mut self, owed: Owed, cx: &mut Cx<'_>) -> Late {
        let (mut delivery, mut path) = (owed.delivery, owed.what.path());
        let response = match owed.what {
            Later::Drain | Later::Shutdown => Response::text(200, "Ok"),
            Later::Metrics => stats::metrics_page(cx.shared),
            Later::Stats => stats::stats_page(cx.shared, cx.now),
            Later::Verdict => Response::refusal(Refusal::Overloaded),
            Later::OfPart => {
                let word = cx.shared.pending_answers.remove(&cx.id);
                path = word.as_ref().map_or(path, |word| word.path);
                word.and_then(|word| word.response).unwrap_or_else(|| {
                    // What comes late must not be taken for the answer to the next request.
                    delivery.persistence = Persistence::Close;
                    Response::text(504, "whoever has the answer did not give it in time\n")
                })
            }
        };
        let label = (owed.method, path, response.status);
        cx.shared.metrics.answered(label, self.took_ms(cx));
        cx.shared.refresh_date(cx.now);
        response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
        if delivery.persistence == Persistence::Close {
            return Late::Told;
        }
        self.idle(cx);
        Late::Answered
    }

    /// The part does not let it be a WebSocket.
    pub(in crate::server) fn refuse_upgrade(&self, response: &Response<'_>, cx: &mut Cx<'_>) {
        let status = response.status;
        cx.shared.metrics.handshake_failed(if status == 503 { "unavailable" } else { "backend" });
        cx.shared.metrics.answered((Method::Get, Later::Verdict.path(), status), self.took_ms(cx));
        log::debug!(target: "access", conn:% = cx.id, status; "upgrade refused by the backend");
        let delivery = Delivery { body: true, persistence: Persistence::Close, minor: 1 };
        response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
    }

    /// Answers a well-formed request; `None` when the next one may follow.
    fn answer(
        &mut self,
        request: &Request<'_, '_>,
        sent: Sent<'_>,
        found: Option<Match>,
        cx: &mut Cx<'_>,
    ) -> Option<Then> {
        let reply = if request.upgrade == http::Upgrade::WebSocket {
            match upgrade(request, cx) {
                Ok(Opening::Now(socket)) => return Some(Then::Open(socket)),
                Ok(Opening::Later) => {
                    Some(Reply::Later { after_ms: limits::VERDICT_MS, what: Later::Verdict })
                }
                Err(refused) => {
                    cx.shared.metrics.handshake_failed(reason(refused.status));
                    Some(Reply::Now(*refused))
                }
            }
        } else {
            command(request, sent, found, cx)
        };
        let path = routes::label(request, found, View::of(cx));
        let method = request.method;
        let may_last = request.persistence == Persistence::KeepAlive
            && matches!(sent, Sent::Whole(_))
            && !cx.shared.drain.is_under_way();
        let delivery = |may_last| Delivery {
            body: method != Method::Head,
            persistence: if may_last { Persistence::KeepAlive } else { Persistence::Close },
            minor: request.minor,
        };
        let response = match reply {
            Some(Reply::Later { after_ms, what }) => {
                let delivery = delivery(may_last);
                self.awaits = Awaits::Answer(Owed { what, delivery, method });
                self.deadline = Moment::after(cx.now, after_ms);
                if what.is_due_at_once() {
                    cx.act(Action::Write(cx.id));
                } else if what == Later::OfPart {
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
        let delivery = delivery(may_last && response.status != 426);
        let status = response.status;
        let work = limits::REQUEST_WORK + response.body.len() as u64;
        response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
        cx.shared.work += work;
        cx.shared.metrics.answered((method, path, status), self.took_ms(cx));
        (delivery.persistence == Persistence::Close).then_some(Then::Over)
    }
}

/// Carries out a request that may change something; `None` when all that it wants is to be told.
fn command(
    request: &Request<'_, '_>,
    sent: Sent<'_>,
    found: Option<Match>,
    cx: &mut Cx<'_>,
) -> Option<Reply> {
    let (part, route) = match routes::command(request, found, View::of(cx))? {
        Command::Refuse(response) => return Some(Reply::Now(response)),
        Command::Do(does) => {
            let Shared { open, drain, faults, ready_off, orders, actions, .. } = &mut *cx.shared;
            let (now, peer, open) = (cx.now, cx.peer, *open);
            let mut ops = Ops { now, peer, open, drain, faults, ready_off, orders, actions };
            return Some(does(request, &mut ops));
        }
        Command::Ask(part, route) => (part, route),
    };
    let body = match sent {
        Sent::Whole(body) => Ok(body::payload(request.framing, body)),
        Sent::Early => Err(Refusal::BodyTooLarge),
    };
    let Shared { config, parts, rng, .. } = &mut *cx.shared;
    Some(parts.call(part).respond(Asked {
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

/// What comes of an upgrade that has no fault.
enum Opening {
    /// A WebSocket.
    Now(WebSocket),
    /// The same, if its part decides so.
    Later,
}

/// Opens a WebSocket, or says why not.
fn upgrade(request: &Request<'_, '_>, cx: &mut Cx<'_>) -> Result<Opening, Refused> {
    if cx.shared.tokens.are_old(cx.now)
        && let Some(source) = cx.shared.tokens.source()
    {
        cx.act(Action::Fetch(source));
    }
    let checked = upgrade::check(request, (cx.now, cx.id), View::of(cx));
    let Upgrade { pending, params, subprotocol, part } = checked.map_err(|refused| {
        if refused.status == 503 { Box::new(try_later(*refused, cx.shared)) } else { refused }
    })?;
    if let Some(part) = part {
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
    Ok(Opening::Now(open(pending, subprotocol.as_deref(), cx)))
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
        return Err(try_later(Response::refusal(Refusal::Draining), cx.shared));
    }
    match cx.shared.parts.call(part).verdict(cx.now, cx.id) {
        Verdict::Welcome(chosen) => {
            let chosen = chosen.filter(|chosen| pending.offers(chosen));
            Ok(open(pending, chosen.as_deref(), cx))
        }
        Verdict::Refused(response) => Err(response),
    }
}

/// Sends 101; from then on it is a WebSocket.
fn open(pending: Pending, subprotocol: Option<&str>, cx: &mut Cx<'_>) -> WebSocket {
    let Pending { accept, deflate, behaviour, extras, mount, .. } = pending;
    let extension = deflate.as_ref().map(|(answer, _)| answer.as_str());
    let switch = Switch { accept: &accept, subprotocol, extension };
    response::switch(&mut cx.out.bytes, cx.shared.stamp(), &switch);
    let deflate = deflate.map(|(_, agreed)| agreed);
    WebSocket::open(behaviour, extras, mount, deflate, &mut cx.of_socket())
}

fn try_later<'r>(response: Response<'r>, shared: &mut Shared) -> Response<'r> {
    response.with("Retry-After", shared.retry_after())
}

/// Old kubelets put two slashes before the path of a hook. Refused with 400, the hook would do
/// nothing, and the kubelet would not report it.
fn slashes(side: Side) -> Slashes {
    match side {
        Side::Main => Slashes::Refused,
        Side::Admin => Slashes::Folded,
    }
}

/// Why an upgrade was refused, as the metrics name it.
fn reason(status: u16) -> &'static str {
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

/// What was read of a request's body.
#[derive(Clone, Copy)]
enum Sent<'b> {
    /// All of it, as it came.
    Whole(&'b [u8]),
    /// A body that nobody wants follows: what comes after it cannot be told from it.
    Early,
}

/// Refuses what is no request; nothing after it is looked at.
pub(in crate::server) fn refuse(refusal: Refusal, cx: &mut Cx<'_>) {
    cx.shared.refresh_date(cx.now);
    log::debug!(
        target: "refused", conn:% = cx.id, status = refusal.status(), reason = refusal.sentence();
        "request refused"
    );
    let mut response = Response::refusal(refusal);
    if refusal.status() == 503 {
        response = try_later(response, cx.shared);
    }
    let delivery = Delivery { body: true, persistence: Persistence::Close, minor: 1 };
    response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
}

/// Probes come every second for ever: nobody wants to read that.
fn log_access(request: &Request<'_, '_>, status: u16, id: Id) {
    if !matches!(&*request.path, "/healthz" | "/livez" | "/readyz") {
        log::debug!(
            target: "access", conn:% = id, method = request.method_text,
            path = &*request.path, status;
            "request"
        );
    }
}
