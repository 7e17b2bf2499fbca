//! `wspulse backend` as a part of the server: its requests are routes, its own calls go over
//! connections that are opened for it, and its answers are given when they are ready.

use core::net::IpAddr;
use std::collections::VecDeque;

use serde_json::json;

use super::{Ask, Backend, NoResponse, Plan, Step, Taken};
use crate::behaviours::Sockets;
use crate::calls::{Calls, RULES};
use crate::engine::{File, Id, NameFault, Now};
use crate::proto::http::Method;
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;
use crate::server::part::{Connections, Order, Part, PartRequest};
use crate::server::{Deferred, Metric, MetricKind, Page, Reply, Route, ServedOn};

/// A request waits longer than all that it waits for may take together.
const PATIENCE_MS: u64 = 20_000;
/// A message as the gateway posts it: 128 KiB, each byte of which may be written as six.
const MESSAGE_BYTES: u64 = 1024 * 1024;
/// An event without a message.
const EVENT_BYTES: u64 = 256 * 1024;

const WHERE: (ServedOn, &str) = (ServedOn::Both, "`wspulse backend` only");

/// Its paths.
pub const ROUTES: &[Route] = &[
    Route::for_part(
        "/",
        WHERE,
        "GET 200 `get`; POST 200 `default`, and the message's client gets `Got message:<text>`",
        &[Method::Get, Method::Head, Method::Post],
        MESSAGE_BYTES,
    ),
    Route::for_part(
        "/connect",
        WHERE,
        "200 `connect`; `$disconnect` deletes the session",
        &[Method::Post],
        EVENT_BYTES,
    )
    .forwarded_with("EventType"),
];

const fn counter(name: &'static str, labels: &'static str, about: &'static str) -> Metric {
    Metric::new(name, labels, about, MetricKind::Counter)
}

const fn gauge(name: &'static str, about: &'static str) -> Metric {
    Metric::new(name, "", about, MetricKind::Gauge)
}

/// Its metrics.
pub const METRICS: &[Metric] = &[
    counter("backend_messages_total", "", "Messages that the gateway posted"),
    gauge("backend_messages_in_hand", "Messages not answered yet"),
    counter(
        "backend_callbacks_total",
        "status",
        "Answers to clients, by what the gateway said; `none`: nothing",
    ),
    gauge("backend_sessions", "Sessions in memory"),
    counter("backend_sessions_created_total", "", "Sessions that began"),
    counter("backend_sessions_deleted_total", "", "Sessions deleted since their connection ended"),
    gauge("backend_sessions_degraded", "1 while the session table is unavailable"),
    counter("backend_session_errors_total", "reason", "Messages that were not counted"),
];

/// The part. The seed is for jitter.
#[must_use]
pub fn new(plan: Plan, seed: u64) -> Box<dyn Part> {
    Box::new(Service {
        backend: Backend::new(plan, seed),
        begun: false,
        calls: Calls::new(RULES),
        orders: VecDeque::new(),
        memory_is_short: false,
    })
}

#[derive(Debug)]
struct Service {
    backend: Backend,
    /// Whether it was called for the first time.
    begun: bool,
    calls: Calls<Ask>,
    orders: VecDeque<Order>,
    memory_is_short: bool,
}

impl Service {
    /// Carries out what the backend and its calls want, until neither wants anything.
    fn turn(&mut self, now: Now) {
        self.follow_backend(now);
        loop {
            while let Some((ask, how)) = self.calls.outcome() {
                let how = how.as_ref().map(|reply| (reply.status, &*reply.body));
                let how = how.map_err(|failure| NoResponse::Failed(*failure));
                self.backend.received(now, ask, how);
                self.follow_backend(now);
            }
            match self.calls.poll(now) {
                Some(order) => self.orders.push_back(order),
                None if self.calls.has_outcome() => {}
                None => return,
            }
        }
    }

    fn follow_backend(&mut self, now: Now) {
        let mut answers = Vec::new();
        while let Some(step) = self.backend.poll(now) {
            match step {
                Step::Call(ask, target, call) => {
                    let target = self.calls.target(&target);
                    if self.calls.ask(now, target, *call, ask).is_err() {
                        self.backend.received(now, ask, Err(NoResponse::Full));
                    }
                }
                Step::Read => {
                    self.orders.push_back(Order::Read(self.backend.files().to_vec()));
                }
                Step::Answer(whose) => {
                    answers.push(Order::Answer(whose, Response::text(200, "default")));
                }
                Step::Fail(why) => {
                    log::error!(target: "sessions", "{why}");
                    self.orders.push_back(Order::Exit(1));
                }
            }
        }
        self.orders.extend(answers);
    }

    fn post(&mut self, mut asked: PartRequest<'_, '_, '_>) -> Reply {
        let body = match asked.body {
            Ok(body) => body,
            Err(refusal) => return Reply::Now(Response::refusal(refusal)),
        };
        // What is in hand is held by no connection, so that closing some would not help.
        if self.memory_is_short {
            let response = Response::refusal(Refusal::Overloaded);
            return Reply::Now(response.with("Retry-After", asked.retry_after()));
        }
        let named = asked.request.value("connectionid");
        match self.backend.posted(asked.now, asked.id, named, body) {
            Ok(Taken::Pending) => Reply::Later { after_ms: PATIENCE_MS, what: Deferred::Part },
            Ok(Taken::Nothing) => Reply::Now(Response::text(200, "default")),
            Ok(Taken::Full) => {
                let response = Response::text(503, "too many messages are in hand\n");
                Reply::Now(response.with("Retry-After", asked.retry_after()))
            }
            Err(wrong) => Reply::Now(Response::text(400, format!("{wrong}\n"))),
        }
    }
}

/// It has no WebSockets.
impl Sockets for Service {}

impl Part for Service {
    fn name(&self) -> &'static str {
        "backend"
    }

    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn respond(&mut self, asked: PartRequest<'_, '_, '_>) -> Reply {
        match (asked.route, asked.request.method) {
            ("/", Method::Post) => self.post(asked),
            ("/", _) => Reply::Now(Response::text(200, "get")),
            _ => {
                let field = |name| asked.request.value(name);
                let fields = (field("connectionid"), field("eventtype"));
                self.backend.notified(asked.now, fields, asked.body.unwrap_or_default());
                Reply::Now(Response::text(200, "connect"))
            }
        }
    }

    fn show(&self, metric: &str, page: &mut Page<'_>) {
        let counts = &self.backend.counts;
        match metric {
            "backend_messages_total" => page.value(counts.messages),
            "backend_messages_in_hand" => page.value(self.backend.in_hand() as u64),
            "backend_callbacks_total" => {
                for (status, count) in &counts.callbacks {
                    let status = status.map_or_else(|| "none".to_owned(), |code| code.to_string());
                    page.row(&[("status", &status)], count);
                }
            }
            "backend_sessions" => {
                if let Some(sessions) = self.backend.sessions() {
                    page.value(sessions as u64);
                }
            }
            "backend_sessions_created_total" => page.value(counts.created),
            "backend_sessions_deleted_total" => page.value(counts.deleted),
            "backend_sessions_degraded" => page.value(u64::from(self.backend.is_degraded())),
            _ => {
                for (reason, count) in &counts.errors {
                    page.row(&[("reason", reason)], count);
                }
            }
        }
    }

    fn stats(&self, now: Now) -> Vec<(&'static str, serde_json::Value)> {
        let counts = &self.backend.counts;
        let requests = json!({
            "total": counts.rate.total(),
            "perSecond": counts.rate.per_second(now),
        });
        let work = json!({
            "messages": counts.messages,
            "inHand": self.backend.in_hand(),
            "sessions": self.backend.sessions(),
            "degraded": self.backend.is_degraded(),
        });
        vec![("requests", requests), ("backend", work)]
    }

    fn ready_note(&self) -> Option<&'static str> {
        self.backend.is_degraded().then_some("sessions degraded")
    }

    fn connections(&mut self) -> Option<&mut dyn Connections> {
        Some(&mut self.calls)
    }

    fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        self.calls.resolved(now, host, found);
    }

    fn closed(&mut self, now: Now, id: Id) {
        self.calls.closed(now, id);
    }

    fn next_deadline(&self) -> Option<u64> {
        if !self.begun {
            return Some(0);
        }
        self.backend.next_deadline().into_iter().chain(self.calls.next_deadline()).min()
    }

    fn fire(&mut self, now: Now) {
        let due = |due_ns: Option<u64>| due_ns.is_some_and(|due_ns| due_ns <= now.mono_ns);
        self.calls.fire(now);
        if !self.begun || due(self.backend.next_deadline()) {
            self.begun = true;
            self.backend.fire(now);
        }
    }

    fn fetched(&mut self, now: Now, paths: &[String], files: &[File]) {
        if self.backend.files() == paths {
            for File { name, bytes, .. } in files {
                self.backend.fetched(now, name, bytes);
            }
            self.backend.read(now);
        }
    }

    fn reload(&mut self, _now: Now) {
        self.backend.reload();
    }

    fn poll(&mut self, now: Now) -> Option<Order> {
        if self.orders.is_empty() {
            self.turn(now);
        }
        self.orders.pop_front()
    }

    fn memory_changed(&mut self, is_short: bool) {
        self.memory_is_short = is_short;
    }

    fn cost(&self) -> usize {
        self.backend.memory() + self.calls.cost()
    }

    fn table_cost(&self) -> usize {
        self.calls.table_cost()
    }
}
