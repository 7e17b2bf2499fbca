//! What happens between a message and its answer: one request of a connection after the other, and
//! what becomes of it. Also what backends ask for by themselves.

use super::names::Name;
use super::request::{self, Notice, Route};
use super::session::{Flight, Session, Stage};
use super::{CallbackRequest, Gateway, Outcome, PUSHED_BEFORE_NEXT, Step, Verdict, Why};
use crate::behaviours::Close;
use crate::calls::pool::{Failure, Reply};
use crate::engine::{HangUp, Now};
use crate::proto::frame::Kind;
use crate::queue::Waiting;

impl Gateway {
    /// The next message of a connection, if its turn has come; the last is `$disconnect`.
    pub(super) fn go_on(&mut self, now: Now, name: Name) {
        loop {
            let Some(session) = self.sessions.get_mut(&name) else { return };
            if session.flight.is_some() || session.pushed.bytes() >= PUSHED_BEFORE_NEXT {
                return;
            }
            let was_full = session.is_full();
            let Some(first) = session.waiting.first() else { break };
            let (kind, payload) = (first.kind, self.blocks.with(first.payload));
            self.bytes -= session.cost();
            session.waiting.pop(&mut self.blocks, now);
            self.bytes += session.cost();
            if was_full && !session.is_full() {
                self.steps.push_back(Step::Wake(session.id));
            }
            self.ask(now, name, &Notice::Message(kind, payload.bytes()));
            self.blocks.give_back(payload, now.mono_ns);
        }
        if self.sessions.get(&name).is_some_and(|s| matches!(s.stage, Stage::Ending(..))) {
            self.ask_last_at(now, name);
        }
    }

    pub(super) fn ask_last(&mut self, name: Name) {
        // Its time is that of the session's last sign of life.
        let Some(session) = self.sessions.get(&name) else { return };
        let now = Now { mono_ns: session.last_ns, wall_ms: session.last_ms };
        self.ask_last_at(now, name);
    }

    pub(super) fn ask_last_at(&mut self, now: Now, name: Name) {
        let Some(Session { stage: Stage::Ending(code, reason), .. }) = self.sessions.get(&name)
        else {
            return;
        };
        let (code, reason) = (*code, reason.clone());
        self.ask(now, name, &Notice::Disconnect(code, &reason));
    }

    /// Sends a request, or tells at once why not.
    pub(super) fn ask(&mut self, now: Now, name: Name, notice: &Notice<'_>) {
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let route = notice.route(&self.plan);
        let backend = self.plan.backend(&route);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let request = request::id(&mut self.rng);
        let circuit = &mut self.circuits[backend];
        let (passes, is_trial) = circuit.ask(now);
        let mut flight =
            Flight { ticket, route, backend, request, bytes: 0, began_ns: now.mono_ns, is_trial };
        let told = request::Told { plan: &self.plan, now, name, session, flight: &flight };
        let call =
            if passes { told.call(notice).map_err(|_| Why::Unsendable) } else { Err(Why::Circuit) };
        flight.bytes = call.as_ref().map_or(0, |call| call.bytes.len());
        session.flight = Some(flight);
        session.last_ns = now.mono_ns;
        session.last_ms = now.wall_ms;
        self.flights.insert(ticket, name);
        match call {
            Ok(call) => self.steps.push_back(Step::Ask(ticket, call)),
            Err(why) => self.land(now, ticket, Err(why)),
        }
    }

    /// A connection for this request stands.
    pub fn reached(&mut self, ticket: u64) {
        let session = self.flights.get(&ticket).and_then(|name| self.sessions.get(name));
        if let Some(flight) = session.and_then(|session| session.flight.as_ref()) {
            self.circuits[flight.backend].reached();
        }
    }

    /// What became of a request.
    pub fn answered(&mut self, now: Now, ticket: u64, how: Result<Reply, Why>) {
        if let Some(name) = self.flights.get(&ticket).copied() {
            self.land(now, ticket, how);
            self.go_on(now, name);
        }
    }

    fn land(&mut self, now: Now, ticket: u64, how: Result<Reply, Why>) {
        let Some(name) = self.flights.remove(&ticket) else { return };
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let Some(flight) = session.flight.take() else { return };
        self.circuits[flight.backend].told(now, &how, flight.is_trial);
        let outcome = outcome(&how);
        let route = flight.route.label(&self.plan);
        log::debug!(
            target: "gateway", route, outcome, connection:% = name,
            took_ms = now.mono_ns.saturating_sub(flight.began_ns) / 1_000_000;
            "request answered"
        );
        *self.figures.requests.entry((route.to_owned(), outcome)).or_default() += 1;
        self.figures.took_ns.push(now.mono_ns.saturating_sub(flight.began_ns));
        if outcome != "ok" {
            log::warn!(
                target: "gateway-failed", route, outcome, connection:% = name,
                reason:% = words(&how);
                "the backend did not take a request"
            );
        }
        match flight.route {
            Route::Connect => self.judge(name, &how),
            Route::Disconnect => self.remove(name),
            Route::Default | Route::Key(_) => {
                let pushed = match how {
                    Ok(reply) if outcome == "ok" => {
                        let wanted = self.plan.reply && !reply.body.is_empty();
                        wanted.then_some(reply.body)
                    }
                    Ok(_) | Err(_) => Some(request::error_frame(name, &flight.request)),
                };
                if let Some(bytes) = pushed {
                    let kind =
                        if str::from_utf8(&bytes).is_ok() { Kind::Text } else { Kind::Binary };
                    self.push(name, kind, &bytes);
                }
            }
        }
    }

    fn judge(&mut self, name: Name, how: &Result<Reply, Why>) {
        let Some(session) = self.sessions.get_mut(&name) else { return };
        let verdict = match how {
            Ok(reply) if matches!(reply.status, 200..=299) => {
                let chosen = reply.field("sec-websocket-protocol");
                let chosen = chosen.and_then(|name| str::from_utf8(name).ok()).map(str::to_owned);
                Verdict::Welcome(chosen)
            }
            Ok(reply) if matches!(reply.status, 401 | 403) => Verdict::Refused(reply.status),
            Ok(_) | Err(_) => Verdict::Refused(502),
        };
        match (&session.stage, &verdict) {
            // It did not wait for that. Who is in has to be seen off.
            (Stage::Ending(..), Verdict::Welcome(_)) => {}
            (Stage::Ending(..), Verdict::Refused(_)) => self.remove(name),
            (Stage::Connecting | Stage::Judged(_) | Stage::Open | Stage::Closing(..), _) => {
                let id = session.id;
                session.stage = Stage::Judged(verdict);
                self.steps.push_back(Step::Wake(id));
            }
        }
    }

    fn push(&mut self, name: Name, kind: Kind, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(&name)
            && matches!(session.stage, Stage::Open)
        {
            self.bytes -= session.cost();
            let message = Waiting { due_ns: 0, turn: None, kind, payload: bytes };
            session.pushed.push(message, &mut self.blocks);
            self.bytes += session.cost();
            self.steps.push_back(Step::Wake(session.id));
        }
    }

    /// Somebody wants something of a connection. An id that nobody has costs as much as another.
    pub fn callback(&mut self, now: Now, id: &str, asked_for: CallbackRequest<'_>) -> Outcome {
        let found = Name::parse(id).and_then(|name| Some((name, self.sessions.get_mut(&name)?)));
        let Some((name, session)) = found.filter(|(_, s)| matches!(s.stage, Stage::Open)) else {
            return Outcome::Gone;
        };
        match asked_for {
            CallbackRequest::Look => Outcome::Seen {
                connected_at_ms: session.connected_at_ms,
                source_ip: session.source_ip.clone(),
                user_agent: session.user_agent.clone(),
                last_active_ms: session.active_at_ms,
            },
            CallbackRequest::Close => {
                session.close = Some(Close { code: 1000, reason: String::new() });
                session.stage = Stage::Closing(1000, String::new());
                self.steps.push_back(Step::Wake(session.id));
                Outcome::Closing
            }
            CallbackRequest::Post(_, bytes) if !session.takes(bytes.len()) => Outcome::Full,
            CallbackRequest::Post(kind, bytes) => {
                session.active(now);
                self.push(name, kind, bytes);
                Outcome::Queued
            }
        }
    }

    /// Gives up a request that is under way.
    pub(super) fn abort(&mut self, name: Name) {
        if let Some(session) = self.sessions.get_mut(&name)
            && let Some(flight) = session.flight.take()
        {
            self.flights.remove(&flight.ticket);
            self.circuits[flight.backend].forgotten(flight.is_trial);
            self.steps.push_back(Step::Forget(flight.ticket));
        }
    }

    pub(super) fn remove(&mut self, name: Name) {
        let Some(session) = self.sessions.remove(&name) else { return };
        self.names.remove(&session.id);
        self.bytes -= session.cost();
        if matches!(session.stage, Stage::Ending(..)) {
            self.ending = self.ending.saturating_sub(1);
        }
    }
}

/// How a request went, as the metrics name it.
fn outcome(how: &Result<Reply, Why>) -> &'static str {
    match how {
        Ok(Reply { status: 200..=299, .. }) => "ok",
        Ok(_) => "status",
        Err(Why::Failed(Failure::TimedOut)) => "timeout",
        Err(Why::Failed(Failure::NotConnected(_) | Failure::NoConnection)) => "unreachable",
        Err(Why::Failed(Failure::Answer(_))) => "broken",
        Err(Why::Busy) => "busy",
        Err(Why::Circuit) => "circuit",
        Err(Why::Unsendable) => "unsendable",
    }
}

/// The same for a person.
fn words(how: &Result<Reply, Why>) -> String {
    match how {
        Ok(reply) => format!("status {}", reply.status),
        Err(Why::Failed(Failure::TimedOut)) => "it took too long".to_owned(),
        Err(Why::Failed(Failure::NoConnection)) => "no connection in time".to_owned(),
        Err(Why::Failed(Failure::NotConnected(HangUp::Eof))) => HangUp::Reset.to_string(),
        Err(Why::Failed(Failure::NotConnected(how))) => how.to_string(),
        Err(Why::Failed(Failure::Answer(fault))) => fault.to_string(),
        Err(Why::Busy) => "too many requests wait".to_owned(),
        Err(Why::Circuit) => "it could not be reached a moment ago".to_owned(),
        Err(Why::Unsendable) => "no such request can be sent".to_owned(),
    }
}
