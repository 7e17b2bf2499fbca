//! The gateway as a part of the server: its requests go over connections that are opened for it,
//! its WebSockets open once the backend accepts them, and callbacks reach them by `@connections`.

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

use serde_json::json;

use super::callbacks::{self, Guard};
use super::peers::Peers;
use super::peers::outgoing::Completed;
use super::traceparent::Traceparent;
use super::{
    Asker, ConnectRequest, FRAME_BYTES, Gateway, MESSAGE_BYTES, NoResponse, Plan, Step, Verdict,
};
use crate::behaviours::{Answer, Close, Ctx, Entry, Kind, PartSocket, Sizes, Sockets, State};
use crate::calls::Calls;
use crate::calls::pool::TargetId;
use crate::engine::{File, HangUp, Id, NameFault, Now, Peer};
use crate::limits::{self, HIGH_WATER_BYTES, LOW_WATER_BYTES};
use crate::proto::http::Method;
use crate::proto::response::Response;
use crate::server::part::{
    Admission, Connections, Decision, Order, Part, PartRequest, UpgradeRequest,
};
use crate::server::{Histogram, Metric, MetricKind, Page, Reply, Route, ServedOn};

const NAME: &str = "gateway";

/// The behaviour whose WebSockets it handles.
pub const BEHAVIOUR: Entry = Entry {
    name: "gateway",
    any_subprotocol: false,
    params: &[],
    part: Some(NAME),
    new: || Box::new(PartSocket::new(Sizes { message: MESSAGE_BYTES, frame: FRAME_BYTES })),
};

const CALLBACK_BYTES: u64 = MESSAGE_BYTES as u64;
const CALLBACK: &[Method] = &[Method::Get, Method::Head, Method::Post, Method::Delete];
const WHERE: (ServedOn, &str) = (ServedOn::Admin, "with `--gateway-backend`");

/// Its paths.
pub const ROUTES: &[Route] = &[
    Route::for_part(
        "/{stage}/@connections/{id}",
        WHERE,
        "POST sends to a WebSocket of the gateway, GET returns its properties, DELETE closes it",
        CALLBACK,
        CALLBACK_BYTES,
    ),
    Route::for_part("/@connections/{id}", WHERE, "the same", CALLBACK, CALLBACK_BYTES),
];

/// Its metrics.
pub const METRICS: &[Metric] = &[
    Metric::new(
        "gateway_requests_total",
        "route, outcome",
        "Completed requests to the gateway's backend, by route and outcome",
        MetricKind::Counter,
    ),
    Metric::new(
        "gateway_request_duration_seconds",
        "",
        "From such a request to its answer",
        MetricKind::Histogram,
    ),
    Metric::new(
        "gateway_disconnects_dropped_total",
        "",
        "`$disconnect`s that were not sent, since too many were under way",
        MetricKind::Counter,
    ),
    Metric::new(
        "gateway_waiting",
        "",
        "Requests that wait for a connection to the backend, or for a backend at all",
        MetricKind::Gauge,
    ),
    Metric::new(
        "gateway_callbacks_total",
        "where",
        "Callbacks by the place of their connection: local, peer (another replica), gone",
        MetricKind::Counter,
    ),
    Metric::new(
        "gateway_peer_requests_total",
        "outcome",
        "Callbacks forwarded to another replica",
        MetricKind::Counter,
    ),
    Metric::new(
        "gateway_peer_duration_seconds",
        "",
        "Duration of such a callback",
        MetricKind::Histogram,
    ),
];

/// The part. The seed is for ids of requests.
#[must_use]
pub fn new(plan: Plan, seed: u64) -> Box<dyn Part> {
    let mut calls = Calls::new(plan.rules());
    Box::new(GatewayPart {
        peers: plan.setup().and_then(Peers::new),
        guard: Guard::new(&plan),
        targets: plan.backends().map(|backend| calls.target(&backend.target)).collect(),
        gateway: Gateway::new(plan, seed),
        calls,
        orders: VecDeque::new(),
        connects: VecDeque::new(),
        took: Histogram::latency(),
        peer_took: Histogram::latency(),
    })
}

#[derive(Debug)]
struct GatewayPart {
    gateway: Gateway,
    /// Who may send callbacks.
    guard: Guard,
    peers: Option<Peers>,
    calls: Calls<Asker>,
    /// In the order of [`Plan::backends`].
    targets: Vec<TargetId>,
    orders: VecDeque<Order>,
    /// Who ordered the connections that have no id yet, the oldest first.
    connects: VecDeque<Orderer>,
    took: Histogram,
    peer_took: Histogram,
}

/// Who ordered a connection.
#[derive(Clone, Copy, Debug)]
enum Orderer {
    Calls,
    Peers,
}

impl GatewayPart {
    /// Carries out what the gateway and its requests want, until neither has anything to do.
    fn run_until_idle(&mut self, now: Now) {
        self.carry_out_steps(now);
        self.carry_out_peer_orders(now);
        loop {
            let mut has_outcome = false;
            while let Some((asker, how)) = self.calls.outcome() {
                has_outcome = true;
                self.gateway.answered(now, asker, how.map_err(NoResponse::Failed));
            }
            match self.calls.poll(now) {
                Some(order) => self.order(Orderer::Calls, order),
                None if has_outcome => self.carry_out_steps(now),
                None => return,
            }
        }
    }

    fn carry_out_steps(&mut self, now: Now) {
        while let Some(step) = self.gateway.poll() {
            match step {
                Step::Ask(asker, backend, call) => {
                    match self.calls.ask(now, self.targets[backend], call, asker) {
                        Ok(id) => self.gateway.asked(asker, id),
                        Err(_) => self.gateway.answered(now, asker, Err(NoResponse::Busy)),
                    }
                }
                Step::Forget(_, Some(call)) => self.calls.forget(call),
                Step::Forget(_, None) => {}
                Step::Withdraw(asker) => {
                    let call = self.gateway.call_of(asker);
                    if call.is_some_and(|call| self.calls.withdraw(call)) {
                        self.gateway.withdrawn(asker);
                    }
                }
                Step::Wake(id) => self.orders.push_back(Order::Write(id)),
            }
        }
        for took_ns in self.gateway.counts.took_ns.drain(..) {
            self.took.observe_ns(took_ns);
        }
    }

    fn carry_out_peer_orders(&mut self, now: Now) {
        while let Some(order) = self.peers.as_mut().and_then(|peers| peers.poll(now)) {
            self.order(Orderer::Peers, order);
        }
        let Some(peers) = &mut self.peers else { return };
        while let Some(Completed { caller, outcome, trace, .. }) = peers.completed() {
            log::debug!(
                target: "callback", outcome = outcome.label(),
                trace = trace.as_ref().map(Traceparent::as_str);
                "callback forwarded"
            );
            self.orders.push_back(Order::Answer(caller, callbacks::forwarded(outcome)));
        }
        for took_ns in peers.counts.took_ns.drain(..) {
            self.peer_took.observe_ns(took_ns);
        }
    }

    fn order(&mut self, orderer: Orderer, order: Order) {
        if let Order::Connect(_) = order {
            self.connects.push_back(orderer);
        }
        self.orders.push_back(order);
    }

    /// Returns the peers if this is one of their connections.
    fn peers_of(&mut self, id: Id) -> Option<&mut Peers> {
        self.peers.as_mut().filter(|peers| peers.has(id))
    }

    /// Sends queued pushes until the output has `most` bytes; returns whether all were sent.
    fn flush(&mut self, ctx: &mut Ctx<'_>, most: usize) -> bool {
        while ctx.out.len() < most {
            let (now, id) = (ctx.now, ctx.id);
            if !self.gateway.take_push(now, id, |kind, bytes| ctx.send(kind, bytes)) {
                return true;
            }
        }
        false
    }
}

impl Sockets for GatewayPart {
    fn message(&mut self, kind: Kind, payload: &[u8], ctx: &mut Ctx<'_>) -> Answer {
        if kind == Kind::Binary && !self.gateway.plan().binary {
            return Answer::Close(1003, "binary messages are not accepted");
        }
        if payload.len() > MESSAGE_BYTES {
            return Answer::Close(1009, "message too big");
        }
        self.gateway.message(ctx.now, ctx.id, kind, payload);
        Answer::Nothing
    }

    fn woken(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        // Output that it has not read is sent first; then it is woken again.
        if ctx.waiting < LOW_WATER_BYTES && !self.flush(ctx, HIGH_WATER_BYTES) {
            self.gateway.wake(ctx.id);
        }
        self.gateway.close_due(ctx.now, ctx.id)
    }

    fn closing(&mut self, code: u16, reason: &str, ctx: &mut Ctx<'_>) {
        self.flush(ctx, usize::MAX);
        self.gateway.closing(ctx.id, code, reason);
    }

    fn state(&self, id: Id) -> State {
        self.gateway.socket_state(id)
    }
}

impl Part for GatewayPart {
    fn name(&self) -> &'static str {
        NAME
    }

    fn routes(&self) -> &'static [Route] {
        ROUTES
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    /// Where the gateway is, and a message for each of its routes.
    fn hello(&self, mounts: &[&str]) -> Option<(&'static str, serde_json::Value)> {
        let plan = self.gateway.plan();
        let mut routes = BTreeMap::new();
        routes.insert("$default", "hello".to_owned());
        if let Some(expression) = &plan.expression {
            let keys = plan.routes.iter().map(|(key, _)| &**key);
            routes.extend(keys.map(|key| (key, expression.example(key))));
        }
        Some(("gateway", json!({ "mounts": mounts, "routes": routes })))
    }

    fn admin_connections(&self) -> usize {
        limits::CALLBACK_CONNECTIONS
    }

    fn initial_files(&self) -> Vec<String> {
        self.guard.files()
    }

    fn respond(&mut self, asked: PartRequest<'_, '_, '_>) -> Reply {
        let (gateway, guard) = (&mut self.gateway, &mut self.guard);
        let reply = callbacks::answer(gateway, guard, self.peers.as_mut(), &asked);
        let refused = matches!(&reply, Reply::Now(response) if response.status == 403);
        if self.guard.is_due(asked.now, refused) {
            self.orders.push_back(Order::Read(self.guard.files()));
        }
        if let Reply::Now(response) = &reply {
            log::debug!(
                target: "callback", method = asked.request.method_text, status = response.status,
                peer:% = asked.peer,
                trace = callbacks::trace(&asked).as_ref().map(Traceparent::as_str);
                "callback"
            );
        }
        reply
    }

    fn show(&self, metric: &str, page: &mut Page<'_>) {
        let counts = &self.gateway.counts;
        match metric {
            "gateway_requests_total" => {
                for ((route, outcome), count) in &counts.requests {
                    let route = route.label(self.gateway.plan());
                    page.row(&[("route", route), ("outcome", outcome)], count);
                }
            }
            "gateway_request_duration_seconds" => page.histogram(&self.took),
            "gateway_waiting" => page.value(self.calls.waiting() as u64),
            "gateway_callbacks_total" => {
                for (place, count) in &counts.callbacks {
                    page.row(&[("where", place)], count);
                }
            }
            "gateway_peer_requests_total" => {
                for (outcome, count) in self.peers.iter().flat_map(|p| &p.counts.requests) {
                    page.row(&[("outcome", outcome)], count);
                }
            }
            "gateway_peer_duration_seconds" => page.histogram(&self.peer_took),
            "gateway_disconnects_dropped_total" => page.value(counts.dropped),
            _ => {}
        }
    }

    fn stats(&self, _now: Now) -> Vec<(&'static str, serde_json::Value)> {
        let sum = |ok: bool| -> u64 {
            let requests = self.gateway.counts.requests.iter();
            requests.filter(|((_, outcome), _)| (*outcome == "ok") == ok).map(|(_, n)| n).sum()
        };
        let numbers = json!({
            "connections": self.gateway.sessions().0,
            "inFlight": self.gateway.flights().saturating_sub(self.calls.waiting()),
            "waiting": self.calls.waiting(),
            "answered": sum(true),
            "failed": sum(false),
        });
        let peers = self.peers.as_ref().map(|peers| ("gatewayPeers", peer_stats(peers)));
        [("gateway", numbers)].into_iter().chain(peers).collect()
    }

    /// Asks the backend whether this request may become a WebSocket.
    fn admit(&mut self, upgrade: &UpgradeRequest<'_, '_, '_>) -> Admission {
        let client = ConnectRequest::new(upgrade.request, upgrade.peer, upgrade.via);
        let (now, id) = (upgrade.now, upgrade.id);
        match self.peers.as_mut().map(|peers| peers.mint(now)) {
            None => self.gateway.ask_to_connect(now, id, &client),
            Some(Some((connection, sealed))) => {
                self.gateway.ask_to_connect_as(now, id, &client, (connection, Some(sealed)));
            }
            // Without an id it is refused.
            Some(None) => self.gateway.wake(id),
        }
        Admission::Pending { within_ms: self.gateway.plan().verdict_ms() }
    }

    fn has_verdict(&self, id: Id) -> bool {
        self.gateway.has_verdict(id)
    }

    fn verdict(&mut self, now: Now, id: Id) -> Decision {
        match self.gateway.verdict(now, id) {
            Verdict::Welcome(chosen) => Decision::Welcome(chosen),
            Verdict::Refused(status, body) => {
                Decision::Refused(Response { status, ..Response::json(body) })
            }
        }
    }

    fn left(&mut self, now: Now, id: Id, code: u16, drops_messages: bool) {
        self.gateway.left(now, id, code, drops_messages);
    }

    fn connections(&mut self) -> Option<&mut dyn Connections> {
        Some(self)
    }

    fn closed(&mut self, now: Now, id: Id) {
        if let Some(peers) = self.peers_of(id) {
            return peers.ended(now, id);
        }
        self.calls.closed(now, id);
        self.gateway.gone(now, id);
    }

    fn next_deadline(&self) -> Option<u64> {
        let of_peers = self.peers.as_ref().and_then(Peers::next_deadline);
        self.calls.next_deadline().into_iter().chain(of_peers).min()
    }

    fn fire(&mut self, now: Now) {
        self.calls.fire(now);
        if let Some(peers) = &mut self.peers {
            peers.fire(now);
        }
    }

    fn resolved(&mut self, now: Now, host: &str, found: Result<&[IpAddr], NameFault>) {
        self.calls.resolved(now, host, found);
    }

    fn draining(&mut self, now: Now) {
        self.calls.stop_holding(now);
    }

    fn fetched(&mut self, now: Now, paths: &[String], files: &[File]) {
        self.guard.fetched(now, files);
        if let Some(peers) = &mut self.peers {
            peers.fetched(now, paths, files);
        }
    }

    fn reload(&mut self, _now: Now) {
        if let Some(peers) = &mut self.peers {
            peers.reload();
        }
        let files = self.guard.files();
        if !files.is_empty() {
            self.orders.push_back(Order::Read(files));
        }
    }

    fn poll(&mut self, now: Now) -> Option<Order> {
        if self.orders.is_empty() {
            self.run_until_idle(now);
        }
        self.orders.pop_front()
    }

    fn cost(&self) -> usize {
        self.gateway.cost() + self.calls.cost() + self.peers.as_ref().map_or(0, Peers::cost)
    }

    fn table_cost(&self) -> usize {
        self.gateway.table_cost() + self.calls.table_cost()
    }

    fn cost_of(&self, id: Id) -> usize {
        self.gateway.cost_of(id) + self.peers.as_ref().map_or(0, |peers| peers.cost_of(id))
    }

    fn memory_changed(&mut self, is_short: bool) {
        self.gateway.set_memory_short(is_short);
    }

    fn is_busy(&self) -> bool {
        self.gateway.sessions().1 > 0
    }
}

/// Connections to backends, and to and from other replicas.
impl Connections for GatewayPart {
    fn opened(&mut self, now: Now, id: Option<Id>) {
        match (self.connects.pop_front(), &mut self.peers) {
            (Some(Orderer::Peers), Some(peers)) => peers.opened(now, id),
            (Some(Orderer::Calls), _) => self.calls.opened(now, id),
            (Some(Orderer::Peers) | None, _) => {}
        }
    }

    fn accepted(&mut self, now: Now, id: Id, _: Peer) -> bool {
        self.peers.as_mut().is_some_and(|peers| peers.accepted(now, id))
    }

    fn evict(&mut self) -> Option<Id> {
        self.peers.as_mut()?.evict()
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Vec<u8>) {
        match self.peers_of(id) {
            Some(peers) => peers.connected(now, id, how, out),
            None => self.calls.connected(now, id, how, out),
        }
    }

    fn received(&mut self, now: Now, id: Id, bytes: &[u8], out: &mut Vec<u8>) {
        let gateway = &mut self.gateway;
        match self.peers.as_mut().filter(|peers| peers.has(id)) {
            Some(peers) => peers.received(now, (id, bytes), out, &mut |request| {
                if let Some(trace) = &request.trace {
                    log::debug!(
                        target: "callback", trace = trace.as_str();
                        "callback from another replica"
                    );
                }
                gateway.callback_for(now, request.connection, request.callback)
            }),
            None => self.calls.received(now, id, bytes, out),
        }
    }

    fn render(&mut self, id: Id, out: &mut Vec<u8>) {
        match self.peers_of(id) {
            Some(peers) => peers.render(id, out),
            None => self.calls.render(id, out),
        }
    }

    fn kept(&mut self, id: Id, taken: usize, left: usize) {
        self.calls.kept(id, taken, left);
    }

    fn sent(&mut self, id: Id, left: usize) {
        self.calls.sent(id, left);
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp) {
        match self.peers_of(id) {
            Some(peers) => peers.ended(now, id),
            None => self.calls.ended(now, id, how),
        }
    }
}

/// The field of `/stats`.
fn peer_stats(peers: &Peers) -> serde_json::Value {
    let owners = peers.outgoing().owners().map(|(owner, in_flight, is_open)| {
        json!({ "address": owner.address, "inFlight": in_flight, "connected": is_open })
    });
    json!({
        "advertised": peers.owner().address,
        "owners": owners.collect::<Vec<_>>(),
        "accepted": peers.incoming(),
    })
}
