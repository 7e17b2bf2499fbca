//! The HTTP stage: requests in, answers out, until one of them is an upgrade or the last.
//! What a path answers is `routes`' business.

use super::routes::{self, View};
use super::shared::Cx;
use super::slow::{Slow, is_backed_up};
use super::websocket::WebSocket;
use crate::engine::Id;
use crate::limits;
use crate::proto::body::Body;
use crate::proto::http::{self, Fields, Framing, Method, Persistence, Request};
use crate::proto::intake::{Intake, Progress};
use crate::proto::refusal::Refusal;
use crate::proto::response::{Delivery, Response};
use crate::time::{self, Moment};

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Http {
    intake: Intake,
    deadline: Moment,
    awaits: Awaits,
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
}

/// What the stage wants after some input.
#[derive(Debug)]
pub(super) enum Then {
    /// More bytes.
    More,
    /// To be called again with the bytes that it has not used.
    Hold,
    /// To be a WebSocket from now on.
    Open(WebSocket),
    /// Nothing more: its last answer is given.
    Over,
}

/// What a deadline that has passed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    /// It has not passed.
    No,
    /// The peer was told that it is too slow.
    Told,
    /// There is nothing to tell, but a request may be on its way.
    Idle,
    /// There is nothing to tell: the peer never said a word.
    Silent,
}

impl Http {
    pub(super) fn new(cx: &Cx<'_>) -> Self {
        let deadline = Moment::after(cx.now, cx.shared.config.limits.head_timeout_ms);
        Self { intake: Intake::default(), deadline, awaits: Awaits::First }
    }

    /// Requests in `bytes`, which begin with what was not used before. Returns how many were used.
    pub(super) fn receive(
        &mut self,
        slow: Option<&Slow>,
        cx: &mut Cx<'_>,
        bytes: &[u8],
    ) -> (usize, Then) {
        cx.shared.refresh_date(cx.now);
        let mut at = 0;
        loop {
            if at == bytes.len() {
                return (at, Then::More);
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
            Awaits::Rest => {}
            Awaits::First => self.awaits = Awaits::Rest,
            Awaits::Another | Awaits::Dismissal => {
                self.awaits = Awaits::Rest;
                self.deadline = Moment::after(cx.now, timeout_ms);
            }
        }
    }

    fn idle(&mut self, cx: &Cx<'_>) {
        self.intake = Intake::default();
        self.awaits = Awaits::Another;
        self.deadline = Moment::after(cx.now, cx.shared.keepalive_ms());
    }

    /// One request, or what there is of it: bytes used, and `None` when the next one may follow.
    fn request(&mut self, cx: &mut Cx<'_>, bytes: &[u8]) -> Result<(usize, Option<Then>), Refusal> {
        match self.intake.advance(bytes)? {
            Progress::Waiting => Ok((0, Some(Then::More))),
            Progress::Head(end) => {
                let mut fields = Fields::default();
                let request = http::parse(&bytes[..end], &mut fields)?;
                let body = Body::new(request.framing, limits::DROPPED_BODY_BYTES);
                let whole = request.framing == Framing::Length(0);
                // A refused body, or one that waits for permission, is answered without it.
                let Ok(body) = body else { return Ok((end, answer(&request, Ended::Early, cx))) };
                if whole || request.expects_continue {
                    let ended = if whole { Ended::Whole } else { Ended::Early };
                    return Ok((end, answer(&request, ended, cx)));
                }
                self.intake.expect_body(body);
                self.deadline = Moment::after(cx.now, limits::BODY_TIMEOUT_MS);
                match self.intake.advance(bytes)? {
                    Progress::Whole(end) => Ok((end, answer(&request, Ended::Whole, cx))),
                    Progress::Waiting | Progress::Head(_) => Ok((0, Some(Then::More))),
                }
            }
            Progress::Whole(end) => {
                let mut fields = Fields::default();
                let request = http::parse(bytes, &mut fields)?;
                Ok((end, answer(&request, Ended::Whole, cx)))
            }
        }
    }

    /// Its turn in a drain. Until then a request that is on its way is answered; half a request
    /// gets a little longer.
    pub(super) fn end_at(&mut self, when: Moment, cx: &Cx<'_>) {
        let grace_ns = match self.awaits {
            Awaits::First | Awaits::Dismissal => {
                self.awaits = Awaits::Dismissal;
                0
            }
            Awaits::Another => 0,
            Awaits::Rest => time::ms(limits::LINGER_MS),
        };
        let turn_ns = when.ns(cx.now) + grace_ns;
        if turn_ns < self.deadline.ns(cx.now) {
            self.deadline = Moment::at(turn_ns);
        }
    }

    pub(super) fn next_deadline(&self, cx: &Cx<'_>) -> u64 {
        self.deadline.ns(cx.now)
    }

    /// Looks at the deadline.
    pub(super) fn wake(&self, cx: &mut Cx<'_>) -> Late {
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
        }
    }
}

/// Whether all of the request was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ended {
    Whole,
    /// A body that nobody wants follows: what comes after it cannot be told from it.
    Early,
}

/// Answers a well-formed request; `None` when the next one may follow.
fn answer(request: &Request<'_, '_>, ended: Ended, cx: &mut Cx<'_>) -> Option<Then> {
    let refused = match routes::upgrade(request, cx) {
        Some(Ok(socket)) => return Some(Then::Open(socket)),
        Some(Err(response)) => Some(*response),
        None => None,
    };
    let view = View { door: cx.door, peer: cx.peer, shared: cx.shared };
    let response = refused.unwrap_or_else(|| routes::respond(request, view));
    log_access(request, response.status, cx.id);
    let last = request.persistence == Persistence::Close
        || ended == Ended::Early
        || response.status == 426
        || cx.shared.drain.is_under_way();
    let persistence = if last { Persistence::Close } else { Persistence::KeepAlive };
    let delivery =
        Delivery { body: request.method != Method::Head, persistence, minor: request.minor };
    response.write(&mut cx.out.bytes, cx.shared.stamp(), delivery);
    last.then_some(Then::Over)
}

/// Refuses what is no request; nothing after it is looked at.
pub(super) fn refuse(refusal: Refusal, cx: &mut Cx<'_>) {
    cx.shared.refresh_date(cx.now);
    log::debug!(
        target: "refused", conn:% = cx.id, status = refusal.status(), reason = refusal.sentence();
        "request refused"
    );
    let mut response = Response::refusal(refusal);
    if refusal.status() == 503 {
        response = response.with("Retry-After", cx.shared.retry_after());
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
