//! The informer as a part of the server: its steps become orders, its one connection is opened for
//! it, and the WebSockets of the behaviour `deployments` show what its feed has.

use std::collections::VecDeque;

use super::{Feed, Filter, Format, Informer, OUTPUT_BYTES, Plan, Step, Then, WOKEN_PER_TURN};
use crate::behaviours::{
    self, Close, Ctx, Entry, Kind, OwnParam, Params, PartSocket, Sizes, Sockets,
};
use crate::engine::{File, HangUp, Id, Now};
use crate::limits::{COMPRESSING_WORK, LOW_WATER_BYTES};
use crate::proto::frame::REASON_BYTES_MAX;
use crate::server::part::{Admission, Connections, Order, Part, UpgradeRequest};
use crate::server::{Metric, MetricKind, Page};

const NAME: &str = "informer";

/// The behaviour that it speaks for.
pub const BEHAVIOUR: Entry = Entry {
    name: "deployments",
    any_subprotocol: false,
    params: PARAMS,
    part: Some(NAME),
    new: || Box::new(PartSocket::new(Sizes::ANY)),
};

/// Where it is mounted unless `--mount` says otherwise.
pub const MOUNTS: &[&str] = &["/api/wds/logs=deployments?deflate=off"];

/// A mount's own choice of a namespace or name is not changed by the URL.
const PARAMS: &[OwnParam] = &[
    OwnParam {
        name: "format",
        want: "text or json",
        accepts: |value| matches!(value, "text" | "json"),
        is_fixed: false,
    },
    OwnParam { name: "namespace", want: "a name", accepts: is_name, is_fixed: true },
    OwnParam { name: "name", want: "a name", accepts: is_name, is_fixed: true },
];

fn is_name(value: &str) -> bool {
    value.len() <= 253 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Its metrics.
pub const METRICS: &[Metric] = &[
    Metric::new(
        "informer_synced",
        "",
        "1 while what is known of Deployments is up to date",
        MetricKind::Gauge,
    ),
    Metric::new("informer_relists_total", "", "Lists that were taken again", MetricKind::Counter),
    Metric::new(
        "informer_watch_errors_total",
        "",
        "Watches that failed, and what of lists and watches could not be read",
        MetricKind::Counter,
    ),
];

/// What is said where no API server can be watched.
const NO_CLIENT: &str = "Error getting Kubernetes client";

/// Whose Deployments are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kube {
    /// Those of no cluster, for this reason.
    Nothing(String),
    /// Those of this cluster.
    Watch(Box<Plan>),
}

/// The part. The seed is for jitter.
#[must_use]
pub fn new(kube: Kube, seed: u64) -> Box<dyn Part> {
    let source = match kube {
        Kube::Watch(plan) => Ok(Box::new(Informer::new(*plan, seed))),
        Kube::Nothing(why) => Err(why),
    };
    Box::new(Deployments { source, connection: None, orders: VecDeque::new(), due_ns: None })
}

#[derive(Debug)]
struct Deployments {
    /// The informer, or why there is none.
    source: Result<Box<Informer>, String>,
    connection: Option<Id>,
    orders: VecDeque<Order>,
    /// Since when viewers are to be woken.
    due_ns: Option<u64>,
}

impl Deployments {
    fn informer(&mut self) -> Option<&mut Informer> {
        self.source.as_mut().ok().map(|informer| &mut **informer)
    }

    /// The informer, if this is its connection.
    fn informer_on(&mut self, id: Id) -> Option<&mut Informer> {
        if self.connection == Some(id) { self.informer() } else { None }
    }

    fn feed(&self) -> Option<&Feed> {
        self.source.as_ref().ok().map(|informer| &informer.feed)
    }
}

impl Sockets for Deployments {
    fn opened(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        let reason = cut(self.source.as_ref().err()?);
        ctx.send(Kind::Text, NO_CLIENT.as_bytes());
        Some(Close { code: 1011, reason })
    }

    fn woken(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        // It has not taken what it was sent before; it is woken again when it has.
        if ctx.waiting >= LOW_WATER_BYTES {
            return None;
        }
        let feed = &mut self.informer()?.feed;
        let Ctx { now, id, tally, traffic, deflate, codec, out, work, .. } = ctx;
        let before = out.bytes.len();
        let then = feed.speak(*now, *id, &mut |said| {
            **work += said.bytes().len() as u64;
            for payload in said.payloads() {
                tally.sent(payload.len());
                traffic.sent(Kind::Text, payload.len());
            }
            match deflate {
                None => out.bytes.extend_from_slice(said.bytes()),
                Some(agreed) => {
                    **work += said.bytes().len() as u64 * COMPRESSING_WORK;
                    for payload in said.payloads() {
                        behaviours::write(*agreed, codec, Kind::Text, payload, &mut out.bytes);
                    }
                }
            }
            OUTPUT_BYTES.saturating_sub(out.bytes.len() - before)
        });
        (then == Then::Lost).then(|| Close { code: 1013, reason: "too far behind".to_owned() })
    }
}

impl Connections for Deployments {
    fn opened(&mut self, _now: Now, id: Option<Id>) {
        self.connection = id;
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Vec<u8>) {
        if let Some(informer) = self.informer_on(id) {
            informer.connected(now, how, out);
            if how.is_err() {
                self.connection = None;
            }
        }
    }

    fn received(&mut self, now: Now, id: Id, bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(informer) = self.informer_on(id) {
            informer.received(now, bytes, out);
        }
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp) {
        if let Some(informer) = self.informer_on(id) {
            informer.ended(now, how);
            self.connection = None;
        }
    }
}

impl Part for Deployments {
    fn name(&self) -> &'static str {
        NAME
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn show(&self, metric: &str, page: &mut Page<'_>) {
        let informer = self.source.as_ref().ok();
        let figures = informer.map(|informer| informer.figures).unwrap_or_default();
        match metric {
            "informer_synced" => page.value(u64::from(self.feed().is_some_and(Feed::is_synced))),
            "informer_relists_total" => page.value(figures.relists),
            _ => page.value(figures.watch_errors),
        }
    }

    fn admit(&mut self, upgrade: &UpgradeRequest<'_, '_, '_>) -> Admission {
        let filter = filter(upgrade.params);
        if let Some(informer) = self.informer() {
            informer.feed.join(upgrade.id, filter);
        }
        Admission::Now
    }

    fn connections(&mut self) -> Option<&mut dyn Connections> {
        Some(self)
    }

    fn closed(&mut self, now: Now, id: Id) {
        self.ended(now, id, HangUp::Reset);
        if let Some(informer) = self.informer() {
            informer.feed.leave(id);
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let informer = self.source.as_ref().ok().and_then(|informer| informer.next_deadline());
        informer.into_iter().chain(self.due_ns).min()
    }

    fn fire(&mut self, now: Now) {
        self.due_ns = None;
        let Ok(informer) = &mut self.source else { return };
        if informer.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
            informer.fire(now);
        }
        for _ in 0..WOKEN_PER_TURN {
            let Some(id) = informer.feed.next_due() else { break };
            self.orders.push_back(Order::Write(id));
        }
    }

    fn fetched(&mut self, now: Now, _paths: &[String], files: &[File]) {
        if let Some(informer) = self.informer() {
            informer.fetched(now, files);
        }
    }

    fn reload(&mut self, now: Now) {
        if let Some(informer) = self.informer() {
            informer.reload(now);
        }
    }

    fn poll(&mut self, now: Now) -> Option<Order> {
        if let Some(order) = self.orders.pop_front() {
            return Some(order);
        }
        let Ok(informer) = &mut self.source else { return None };
        loop {
            informer.update_demand(now);
            let Some(step) = informer.poll() else { break };
            match step {
                Step::Connect(target) => return Some(Order::Connect(target)),
                Step::HangUp => {
                    if let Some(id) = self.connection.take() {
                        return Some(Order::Reset(id));
                    }
                }
                Step::Read(paths) => return Some(Order::Read(paths)),
            }
        }
        if informer.feed.has_due() {
            self.due_ns.get_or_insert(now.mono_ns);
        }
        None
    }

    fn cost(&self) -> usize {
        self.source.as_ref().map_or(0, |informer| informer.cost())
    }

    fn contents(&self) -> Vec<(String, String, String)> {
        self.feed().map(Feed::contents).unwrap_or_default()
    }
}

fn filter(params: &Params) -> Filter {
    let format = if params.own("format") == "json" { Format::Json } else { Format::Text };
    let [namespace, name] = ["namespace", "name"].map(|name| params.own(name).to_owned());
    Filter { format, namespace, name }
}

/// As much of a reason as a Close can carry.
fn cut(reason: &str) -> String {
    let ends = reason.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= REASON_BYTES_MAX).last().unwrap_or(0);
    reason[..end].to_owned()
}
