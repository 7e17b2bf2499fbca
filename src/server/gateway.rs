//! The gateway among the connections: its steps become requests and wake-ups, and what becomes of
//! them goes back to it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Server;
use super::calls::Asker;
use super::config::Config;
use super::drain::Phase;
use super::metrics::Histogram;
use super::pressure::Account;
use super::shared::{Cx, Shared};
use super::upgrade::{self, Pending};
use super::websocket::WebSocket;
use crate::behaviours::GATEWAY;
use crate::engine::{Action, Id, Now, Peer};
use crate::gateway::{Gateway, Plan, Step, Verdict, Visitor, Why};
use crate::pool::{CallId, Failure, Reply};
use crate::proto::http::{Request, percent_decoded, visible_ascii};
use crate::proto::refusal::Refusal;
use crate::proto::response::Response;

/// Pairs of a query that backends are told of.
const QUERY_PAIRS: usize = 64;

/// The gateway, if there is a backend.
#[derive(Debug)]
pub(super) struct Front {
    pub(super) inner: Option<Box<Gateway>>,
    /// Its requests that are under way.
    calls: BTreeMap<u64, CallId>,
    /// `WebSockets` that wait for its word.
    pending: BTreeMap<Id, Pending>,
    pending_bytes: usize,
    pub(super) took: Histogram,
    counted: Account,
}

impl Front {
    pub(super) fn new(plan: Option<&Plan>, seed: u64) -> Self {
        Self {
            inner: plan.map(|plan| Box::new(Gateway::new(plan.clone(), seed))),
            calls: BTreeMap::new(),
            pending: BTreeMap::new(),
            pending_bytes: 0,
            took: Histogram::latency(),
            counted: Account::default(),
        }
    }

    /// What it owns, as the account has it.
    pub(super) fn memory(&self) -> usize {
        self.counted.memory
    }

    /// Whether some requests of connections that have ended are still under way.
    pub(super) fn is_busy(&self) -> bool {
        self.inner.as_ref().is_some_and(|gateway| gateway.sessions().1 > 0)
    }

    /// Connections, and requests under way.
    pub(super) fn numbers(&self) -> Option<(usize, usize)> {
        self.inner.as_ref().map(|gateway| (gateway.sessions().0, gateway.flights()))
    }

    /// Requests by route and outcome.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        let figures = self.inner.iter().flat_map(|gateway| &gateway.figures.requests);
        figures.map(|((route, outcome), count)| (route.as_str(), *outcome, *count))
    }

    /// `$disconnect`s that nobody heard of.
    pub(super) fn dropped(&self) -> u64 {
        self.inner.as_ref().map_or(0, |gateway| gateway.figures.dropped)
    }

    /// A WebSocket is over; others mean nothing to it.
    pub(super) fn left(&mut self, now: Now, id: Id, code: u16, is_broken: bool) {
        if let Some(gateway) = &mut self.inner {
            gateway.left(now, id, code, is_broken);
        }
    }

    /// A connection is gone.
    pub(super) fn gone(&mut self, id: Id) {
        self.take_pending(id);
        if let Some(gateway) = &mut self.inner {
            gateway.gone(id);
        }
    }

    fn take_pending(&mut self, id: Id) -> Option<Pending> {
        let pending = self.pending.remove(&id)?;
        self.pending_bytes -= pending.cost();
        Some(pending)
    }

    /// What it owns for this connection.
    pub(super) fn cost_of(&self, id: Id) -> usize {
        let pending = self.pending.get(&id).map_or(0, Pending::cost);
        pending + self.inner.as_ref().map_or(0, |gateway| gateway.cost_of(id))
    }

    pub(super) fn has_verdict(&self, id: Id) -> bool {
        self.inner.as_ref().is_none_or(|gateway| gateway.has_verdict(id))
    }

    fn verdict(&mut self, now: Now, id: Id) -> Verdict {
        let gateway = self.inner.as_mut();
        gateway.map_or(Verdict::Refused(502), |gateway| gateway.verdict(now, id))
    }
}

/// What the page is told: where the gateway is, and a message for each of its routes.
#[derive(Debug, Serialize)]
pub(super) struct Shown<'c> {
    mounts: Vec<&'c str>,
    routes: BTreeMap<&'c str, String>,
}

/// The same, where there is a gateway.
pub(super) fn shown(config: &Config) -> Option<Shown<'_>> {
    let plan = config.gateway.as_deref()?;
    let mounts = config.mounts.iter().filter(|mount| mount.entry.name == GATEWAY);
    let keys = plan.routes.iter().map(|(key, _)| &**key);
    let mut routes = BTreeMap::from([("$default", "hello".to_owned())]);
    if let Some(expression) = &plan.expression {
        routes.extend(keys.map(|key| (key, expression.example(key))));
    }
    Some(Shown { mounts: mounts.map(|mount| &*mount.path).collect(), routes })
}

/// The backend has said whether this is a WebSocket, or has not and had its time.
pub(super) fn conclude(cx: &mut Cx<'_>) -> Result<WebSocket, Response<'static>> {
    cx.shared.refresh_date(cx.now);
    let pending = cx.shared.gateway.take_pending(cx.id);
    if cx.shared.drain.phase.refuses() {
        cx.shared.gateway.gone(cx.id);
        return Err(upgrade::try_later(Refusal::Draining, cx.shared));
    }
    match (cx.shared.gateway.verdict(cx.now, cx.id), pending) {
        (Verdict::Welcome(chosen), Some(pending)) => {
            let chosen = chosen.filter(|chosen| pending.offers(chosen));
            Ok(pending.open(chosen.as_deref(), cx))
        }
        (Verdict::Refused(status @ (401 | 403)), _) => {
            Err(Response::text(status, "the backend does not let you in\n"))
        }
        (Verdict::Welcome(_) | Verdict::Refused(_), _) => {
            Err(Response::text(502, "the backend cannot be asked whether you may come in\n"))
        }
    }
}

/// Asks the backend whether this request may become a WebSocket.
pub(super) fn knock(request: &Request<'_, '_>, pending: Pending, cx: &mut Cx<'_>) {
    cx.shared.gateway.pending_bytes += pending.cost();
    cx.shared.gateway.pending.insert(cx.id, pending);
    let source_ip = match cx.peer {
        Peer::Tcp { ip, .. } => ip.to_string(),
        Peer::Unix => "unix".to_owned(),
    };
    let pairs = request.query.split('&').filter(|pair| !pair.is_empty()).take(QUERY_PAIRS);
    let query = pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Some((percent_decoded(name)?.into_owned(), percent_decoded(value)?.into_owned()))
    });
    let fields = request.fields().filter_map(|(name, value)| Some((name, visible_ascii(value)?)));
    let visitor = Visitor {
        source_ip,
        user_agent: request.value("user-agent").unwrap_or_default(),
        host: request.value("host").unwrap_or_default(),
        fields: fields.collect(),
        query: query.collect(),
    };
    if let Some(gateway) = &mut cx.shared.gateway.inner {
        gateway.knock(cx.now, cx.id, &visitor);
    }
}

impl Server {
    /// Carries out what the gateway wants.
    pub(super) fn tend_gateway(&mut self, now: Now) {
        let Shared { gateway: front, calls, actions, account, .. } = &mut self.shared;
        let Some(gateway) = &mut front.inner else { return };
        while let Some(step) = gateway.poll() {
            match step {
                Step::Ask(ticket, call) => match calls.ask(call, Asker::Gateway(ticket)) {
                    Ok(id) => drop(front.calls.insert(ticket, id)),
                    Err(_) => gateway.answered(now, ticket, Err(Why::Busy)),
                },
                Step::Forget(ticket) => {
                    if let Some(id) = front.calls.remove(&ticket) {
                        calls.forget(id);
                    }
                }
                Step::Wake(id) => actions.push_back(Action::Write(id)),
            }
        }
        for took_ns in gateway.figures.took_ns.drain(..) {
            front.took.observe_ns(took_ns);
        }
        let memory = gateway.cost() + front.pending_bytes;
        if memory != front.counted.memory {
            account.update(&mut front.counted, Account { memory, queued: 0 });
        }
        if self.shared.drain.phase == Phase::Closing {
            self.exit_if_empty(now);
        }
    }

    /// What became of a request of the gateway.
    pub(super) fn tell_gateway(&mut self, now: Now, ticket: u64, how: Result<Reply, Failure>) {
        let front = &mut self.shared.gateway;
        front.calls.remove(&ticket);
        if let Some(gateway) = &mut front.inner {
            gateway.answered(now, ticket, how.map_err(Why::Failed));
        }
    }
}
