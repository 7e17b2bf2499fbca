//! Sends the requests of a connection one at a time, handles their responses, and carries out
//! callbacks.

use super::connection_id::ConnectionId;
use super::in_flight::InFlight;
use super::plan::Route;
use super::request::{self, BackendEvent};
use super::request_id::RequestId;
use super::session::{Session, State};
use super::{
    Asker, CallbackOutcome, CallbackRequest, ENDED_MAX, Gateway, NoResponse, Step, Verdict,
};
use crate::behaviours::Close;
use crate::calls::pool::{Call, CallId, Failure, Reply};
use crate::engine::Now;
use crate::proto::frame::Kind;
use crate::proto::http_client::Fault;
use crate::queue::Waiting;

impl Gateway {
    /// Sends the next queued message, if no request is in flight; `$disconnect` comes last.
    pub(super) fn send_next(&mut self, now: Now, connection: ConnectionId) {
        loop {
            let Some(session) = self.sessions.get_mut(connection) else { return };
            if !session.may_send(self.plan.in_flight_of_one()) {
                return;
            }
            let was_full = session.is_full();
            let Some(first) = session.waiting.first() else { break };
            let since_ns = session.since_ns(now, first.due_ns);
            let (kind, payload) = (first.kind, self.blocks.with(first.payload));
            self.bytes -= session.waiting.cost();
            session.waiting.pop(&mut self.blocks, now);
            self.bytes += session.waiting.cost();
            let (id, has_room) = (session.id, was_full && !session.is_full());
            if has_room {
                self.wake(id);
            }
            let event = BackendEvent::Message(kind, payload.bytes());
            self.send_request(now, connection, &event, since_ns);
            self.blocks.give_back(payload, now.mono_ns);
        }
        let is_over = |s: &Session| matches!(s.state, State::Ending(..)) && s.in_flight.is_empty();
        if self.sessions.get(connection).is_some_and(is_over) {
            self.send_disconnect(now, connection);
        }
    }

    pub(super) fn send_disconnect(&mut self, now: Now, connection: ConnectionId) {
        let Some(Session { state: State::Ending(code, reason), .. }) =
            self.sessions.get(connection)
        else {
            return;
        };
        let (code, reason) = (*code, reason.clone());
        self.send_request(now, connection, &BackendEvent::Disconnect(code, &reason), now.mono_ns);
    }

    /// Sends a request, or fails it immediately. It has been held since `since_ns`.
    pub(super) fn send_request(
        &mut self,
        now: Now,
        connection: ConnectionId,
        event: &BackendEvent<'_>,
        since_ns: u64,
    ) {
        let Some(session) = self.sessions.get_mut(connection) else { return };
        let route = event.route(&self.plan);
        let backend = self.plan.backend(&route);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let request = RequestId::new(&mut self.rng);
        let began_ns = now.mono_ns;
        let mut in_flight =
            InFlight { ticket, call: None, route, backend, request, bytes: 0, began_ns, since_ns };
        let builder = request::RequestBuilder {
            plan: &self.plan,
            now,
            connection,
            session,
            in_flight: &in_flight,
        };
        let held_ns = now.mono_ns - since_ns;
        let call = builder.build(event).map(|call| Call { held_ns, ..call });
        let call = call.map_err(|_| NoResponse::Unsendable);
        in_flight.bytes = call.as_ref().map_or(0, |call| call.bytes.len());
        self.bytes -= session.in_flight.cost();
        session.in_flight.push(in_flight);
        self.bytes += session.in_flight.cost();
        self.in_flight += 1;
        let asker = Asker { connection, ticket };
        match call {
            Ok(call) => self.steps.push_back(Step::Ask(asker, backend, call)),
            Err(why) => self.complete(now, asker, Err(why)),
        }
    }

    /// The request is in the pool of connections.
    pub fn asked(&mut self, asker: Asker, call: CallId) {
        if let Some(in_flight) = self.in_flight_of(asker) {
            in_flight.call = Some(call);
        }
    }

    /// The request in the pool of connections.
    pub fn call_of(&mut self, asker: Asker) -> Option<CallId> {
        self.in_flight_of(asker)?.call
    }

    /// A `$connect` was cancelled before it was sent, since its client has left.
    pub fn withdrawn(&mut self, asker: Asker) {
        if self.in_flight_of(asker).is_some() {
            self.in_flight -= 1;
            self.remove(asker.connection);
        }
    }

    fn in_flight_of(&mut self, asker: Asker) -> Option<&mut InFlight> {
        self.sessions.get_mut(asker.connection)?.in_flight.get_mut(asker.ticket)
    }

    /// The result of a request.
    pub fn answered(&mut self, now: Now, asker: Asker, how: Result<Reply, NoResponse>) {
        self.complete(now, asker, how);
        self.send_next(now, asker.connection);
    }

    fn complete(&mut self, now: Now, asker: Asker, how: Result<Reply, NoResponse>) {
        let Asker { connection, ticket } = asker;
        let Some(session) = self.sessions.get_mut(connection) else { return };
        self.bytes -= session.in_flight.cost();
        let taken = session.in_flight.take(ticket);
        self.bytes += session.in_flight.cost();
        let Some(in_flight) = taken else { return };
        self.in_flight -= 1;
        let outcome = outcome(&how);
        session.held_since_ns = is_unreachable(&how).then_some(in_flight.since_ns);
        let route = in_flight.route.label(&self.plan);
        log::debug!(
            target: "gateway", route, outcome, connection = session.public_id(connection),
            took_ms = now.mono_ns.saturating_sub(in_flight.began_ns) / 1_000_000;
            "request completed"
        );
        *self.counts.requests.entry((in_flight.route, outcome)).or_default() += 1;
        self.counts.took_ns.push(now.mono_ns.saturating_sub(in_flight.began_ns));
        if outcome != "ok" {
            log::warn!(
                target: "gateway-failed", route, outcome,
                connection = session.public_id(connection), reason:% = describe(&how);
                "request to the backend failed"
            );
        }
        match in_flight.route {
            Route::Connect => self.decide(connection, &how, in_flight.request),
            Route::Disconnect => self.remove(connection),
            Route::Default | Route::Key(_) => {
                let pushed = match how {
                    Ok(reply) if outcome == "ok" => {
                        let wanted = self.plan.reply && !reply.body.is_empty();
                        wanted.then_some(reply.body)
                    }
                    how => {
                        let public_id = session.public_id(connection);
                        let message = request::error_message(&how);
                        Some(request::error_frame(message, &public_id, in_flight.request))
                    }
                };
                if let Some(bytes) = pushed {
                    let kind =
                        if str::from_utf8(&bytes).is_ok() { Kind::Text } else { Kind::Binary };
                    self.push(connection, kind, &bytes);
                }
            }
        }
    }

    fn decide(
        &mut self,
        connection: ConnectionId,
        how: &Result<Reply, NoResponse>,
        request: RequestId,
    ) {
        let Some(session) = self.sessions.get_mut(connection) else { return };
        let verdict = match how {
            Ok(reply) if matches!(reply.status, 200..=299) => {
                let chosen = reply.field("sec-websocket-protocol");
                let chosen = chosen.and_then(|name| str::from_utf8(name).ok()).map(str::to_owned);
                Verdict::Welcome(chosen)
            }
            Ok(_) | Err(_) => {
                let (status, message) = match how {
                    Ok(Reply { status: 401, .. }) => (401, "Unauthorized"),
                    Ok(Reply { status: 403, .. }) => (403, "Forbidden"),
                    Ok(_) | Err(_) => (502, request::error_message(how)),
                };
                let public_id = session.public_id(connection);
                Verdict::Refused(status, request::error_frame(message, &public_id, request))
            }
        };
        match (&session.state, &verdict) {
            // The client has left: one that the backend accepted still gets its `$disconnect`.
            (State::Ending(..), Verdict::Welcome(_)) => {}
            (State::Ending(..), Verdict::Refused(..)) => self.remove(connection),
            (State::Connecting | State::Decided(_) | State::Open | State::Closing(..), _) => {
                let id = session.id;
                session.state = State::Decided(verdict);
                self.steps.push_back(Step::Wake(id));
            }
        }
    }

    fn push(&mut self, connection: ConnectionId, kind: Kind, bytes: &[u8]) {
        if let Some(session) = self.sessions.get_mut(connection)
            && matches!(session.state, State::Open)
        {
            self.bytes -= session.pushed.cost();
            let message = Waiting { due_ns: 0, turn: None, kind, payload: bytes };
            session.pushed.push(message, &mut self.blocks);
            self.bytes += session.pushed.cost();
            let id = session.id;
            self.wake(id);
        }
    }

    /// Carries out a callback. An invalid id costs as much as a valid one.
    pub fn callback(
        &mut self,
        now: Now,
        id: &str,
        asked_for: CallbackRequest<'_>,
    ) -> CallbackOutcome {
        // The table key of a connection with a sealed id is not secret, so it is not accepted here.
        let is_unsealed = |connection: &ConnectionId| {
            let session = self.sessions.get(*connection);
            session.is_some_and(|session| session.sealed_id.is_none())
                || self.ended.contains(connection)
        };
        match ConnectionId::parse(id).filter(is_unsealed) {
            Some(connection) => self.callback_for(now, connection, asked_for),
            None => CallbackOutcome::Unknown,
        }
    }

    /// The same for a connection whose id was opened.
    pub fn callback_for(
        &mut self,
        now: Now,
        connection: ConnectionId,
        asked_for: CallbackRequest<'_>,
    ) -> CallbackOutcome {
        let Some(session) = self.sessions.get_mut(connection) else {
            return CallbackOutcome::Gone;
        };
        match session.state {
            State::Open => {}
            State::Connecting | State::Decided(_) => return CallbackOutcome::Unknown,
            State::Closing(..) | State::Ending(..) => return CallbackOutcome::Gone,
        }
        match asked_for {
            CallbackRequest::Get => CallbackOutcome::Found {
                connected_at_ms: session.connected_at_ms,
                source_ip: session.source_ip.clone(),
                user_agent: session.user_agent.clone(),
                last_active_ms: session.active_at_ms,
            },
            CallbackRequest::Close => {
                session.close = Some(Close { code: 1000, reason: String::new() });
                session.state = State::Closing(1000, String::new());
                self.steps.push_back(Step::Wake(session.id));
                CallbackOutcome::Closing
            }
            CallbackRequest::Post(..) if self.memory_is_short => CallbackOutcome::Overloaded,
            CallbackRequest::Post(_, bytes) if !session.has_room_for(bytes.len()) => {
                CallbackOutcome::Full
            }
            CallbackRequest::Post(kind, bytes) => {
                session.active(now);
                self.push(connection, kind, bytes);
                CallbackOutcome::Queued
            }
        }
    }

    /// Cancels the requests in flight.
    pub(super) fn abort(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.get_mut(connection) else { return };
        self.bytes -= session.in_flight.cost();
        while let Some(in_flight) = session.in_flight.pop() {
            self.in_flight -= 1;
            let asker = Asker { connection, ticket: in_flight.ticket };
            self.steps.push_back(Step::Forget(asker, in_flight.call));
        }
        self.bytes += session.in_flight.cost();
    }

    pub(super) fn remove(&mut self, connection: ConnectionId) {
        let Some(session) = self.sessions.remove(connection) else { return };
        self.connections.remove(session.id);
        self.bytes -= session.cost();
        if session.sealed_id.is_none() {
            if self.ended.len() == ENDED_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back(connection);
        }
        if matches!(session.state, State::Ending(..)) {
            self.ending = self.ending.saturating_sub(1);
        }
    }
}

/// Whether nothing answers at the backend's address, which `--gateway-hold` waits for.
fn is_unreachable(how: &Result<Reply, NoResponse>) -> bool {
    use Failure::{Circuit, NoConnection, NotConnected};
    matches!(how, Err(NoResponse::Failed(NotConnected(_) | NoConnection | Circuit)))
}

/// The metric label `outcome`.
fn outcome(how: &Result<Reply, NoResponse>) -> &'static str {
    match how {
        Ok(Reply { status: 200..=299, .. }) => "ok",
        Ok(_) => "status",
        Err(NoResponse::Failed(failure)) => match failure {
            Failure::TimedOut => "timeout",
            Failure::Unsent => "unsent",
            Failure::NotConnected(_) | Failure::NoConnection => "unreachable",
            Failure::Circuit => "circuit",
            // It may have arrived, so it is not repeated.
            Failure::Answer(Fault::NoAnswer | Fault::CutOff) => "cut",
            Failure::Answer(_) => "broken",
        },
        Err(NoResponse::Busy) => "busy",
        Err(NoResponse::Unsendable) => "unsendable",
    }
}

/// The failure for logs.
fn describe(how: &Result<Reply, NoResponse>) -> String {
    match how {
        Ok(reply) => format!("status {}", reply.status),
        Err(NoResponse::Failed(failure)) => failure.to_string(),
        Err(NoResponse::Busy) => "too many requests are waiting".to_owned(),
        Err(NoResponse::Unsendable) => "the request is not valid HTTP".to_owned(),
    }
}
