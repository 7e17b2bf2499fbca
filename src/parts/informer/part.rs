//! The informers as a part of the server, one for each kind of objects: their steps become orders,
//! their connections are opened for them, and the WebSockets of the behaviour `deployments` show
//! what their feeds have.

use std::collections::VecDeque;

use super::{
    Filter, Format, Informer, OUTPUT_BYTES, Plan, Resource, Step, Then, WOKEN_PER_TURN, object,
};
use crate::behaviours::{
    self, Close, Ctx, Entry, Kind, OwnParam, Params, PartSocket, Sizes, Sockets,
};
use crate::engine::{File, HangUp, Id, Now};
use crate::limits::{COMPRESSING_WORK, LOW_WATER_BYTES};
use crate::proto::frame::REASON_BYTES_MAX;
use crate::proto::response::Response;
use crate::server::part::{Admission, Connections, Order, Part, UpgradeRequest};
use crate::server::{Metric, MetricKind, Page};
use crate::units::prefix;

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

/// A mount's own choice of kind, namespace or name is not changed by the URL.
const PARAMS: &[OwnParam] = &[
    OwnParam {
        name: "format",
        want: "text or json",
        accepts: |value| matches!(value, "text" | "json"),
        is_fixed: false,
    },
    OwnParam {
        name: "kind",
        want: "deployments, statefulsets, daemonsets, pods, several of them, or *",
        accepts: |value| value == ALL_KINDS || Resource::list(value).is_some(),
        is_fixed: true,
    },
    OwnParam { name: "namespace", want: "a name", accepts: is_name, is_fixed: true },
    OwnParam { name: "name", want: "a name", accepts: is_name, is_fixed: true },
    OwnParam {
        name: "since",
        want: "a resourceVersion",
        accepts: object::is_version,
        is_fixed: false,
    },
];

/// As `kind`: whatever is watched.
const ALL_KINDS: &str = "*";

fn is_name(value: &str) -> bool {
    value.len() <= 253 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
}

/// Its metrics.
pub const METRICS: &[Metric] = &[
    Metric::new(
        "informer_synced",
        "kind",
        "1 while what is known of the objects is up to date",
        MetricKind::Gauge,
    ),
    Metric::new("informer_objects", "kind", "Objects that are known", MetricKind::Gauge),
    Metric::new("informer_viewers", "kind", "Viewers", MetricKind::Gauge),
    Metric::new(
        "informer_truncated",
        "kind",
        "1 while there are objects that are not shown: too many, too long, or invalid",
        MetricKind::Gauge,
    ),
    Metric::new(
        "informer_memory_bytes",
        "kind",
        "Memory of the objects, their latest changes and their viewers",
        MetricKind::Gauge,
    ),
    Metric::new(
        "informer_relists_total",
        "kind",
        "Lists that were taken again",
        MetricKind::Counter,
    ),
    Metric::new(
        "informer_watch_errors_total",
        "kind",
        "Watches that failed, and what of lists and watches could not be read",
        MetricKind::Counter,
    ),
];

/// What is said where no API server can be watched.
const NO_CLIENT: &str = "Error getting Kubernetes client";

/// Whose objects are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kube {
    /// Those of no cluster, for this reason.
    Nothing(String),
    /// Those of a cluster, one plan for each kind.
    Watch(Vec<Plan>),
}

/// The part. The seed is for jitter.
#[must_use]
pub fn new(kube: Kube, seed: u64) -> Box<dyn Part> {
    // Each has its own jitter, so that they do not all retry at the same moments.
    let watch = |(plan, seed)| Watch { informer: Informer::new(plan, seed), connection: None };
    let source = match kube {
        Kube::Watch(plans) => {
            Ok(plans.into_iter().zip((0..).map(|at| seed ^ at)).map(watch).collect())
        }
        Kube::Nothing(why) => Err(why),
    };
    Box::new(Informers { source, opening: None, orders: VecDeque::new(), due_ns: None })
}

#[derive(Debug)]
struct Informers {
    /// The informers, or why there are none.
    source: Result<Vec<Watch>, String>,
    /// The one whose connection is being opened.
    opening: Option<usize>,
    orders: VecDeque<Order>,
    /// Since when viewers are to be woken.
    due_ns: Option<u64>,
}

#[derive(Debug)]
struct Watch {
    informer: Informer,
    connection: Option<Id>,
}

impl Informers {
    fn watches(&self) -> &[Watch] {
        self.source.as_deref().unwrap_or_default()
    }

    fn watches_mut(&mut self) -> &mut [Watch] {
        self.source.as_deref_mut().unwrap_or_default()
    }

    /// The informer with this connection.
    fn on(&mut self, id: Id) -> Option<&mut Watch> {
        self.watches_mut().iter_mut().find(|watch| watch.connection == Some(id))
    }

    /// Adds a viewer to the feeds of the kinds that it asks for.
    ///
    /// # Errors
    /// The status and the reason of the refusal.
    fn join(&mut self, id: Id, params: &Params) -> Result<(), (u16, String)> {
        let (filter, since) = (filter(params), params.own("since"));
        let Ok(watches) = &mut self.source else { return Ok(()) };
        let known: Vec<Resource> =
            watches.iter().map(|watch| watch.informer.feed.resource()).collect();
        let wanted = match params.own("kind") {
            "" if known.contains(&Resource::Deployments) => vec![Resource::Deployments],
            "" => known.first().copied().into_iter().collect(),
            ALL_KINDS => known.clone(),
            names => Resource::list(names).unwrap_or_default(),
        };
        if let Some(missing) = wanted.iter().find(|one| !known.contains(one)) {
            let (missing, names) = (missing.name(), Resource::names(&known));
            return Err((404, format!("{missing} are not watched: --kube-resources is {names}\n")));
        }
        if !since.is_empty() && (filter.format == Format::Text || wanted.len() > 1) {
            return Err((400, "parameter since: needs format=json and one kind\n".to_owned()));
        }
        for Watch { informer, .. } in watches {
            let feed = &mut informer.feed;
            if !wanted.contains(&feed.resource()) {
                continue;
            }
            if since.is_empty() {
                feed.join(id, filter.clone());
            } else {
                feed.join_since(id, filter.clone(), since);
            }
        }
        Ok(())
    }
}

impl Sockets for Informers {
    fn opened(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        let reason = prefix(self.source.as_ref().err()?, REASON_BYTES_MAX).to_owned();
        ctx.send(Kind::Text, NO_CLIENT.as_bytes());
        Some(Close { code: 1011, reason })
    }

    fn woken(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        // It has not taken what it was sent before; it is woken again when it has.
        if ctx.waiting >= LOW_WATER_BYTES {
            return None;
        }
        let Ctx { now, id, tally, traffic, deflate, codec, out, work, .. } = ctx;
        let before = out.bytes.len();
        let mut then = Then::Wait;
        for Watch { informer, .. } in self.watches_mut() {
            if then == Then::Lost || !informer.feed.has(*id) {
                continue;
            }
            then = informer.feed.speak(*now, *id, &mut |said| {
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
        }
        (then == Then::Lost).then(|| Close { code: 1013, reason: "too far behind".to_owned() })
    }
}

impl Connections for Informers {
    fn opened(&mut self, _now: Now, id: Option<Id>) {
        let Some(at) = self.opening.take() else { return };
        if let Some(watch) = self.watches_mut().get_mut(at) {
            watch.connection = id;
        }
    }

    fn connected(&mut self, now: Now, id: Id, how: Result<(), HangUp>, out: &mut Vec<u8>) {
        if let Some(watch) = self.on(id) {
            watch.informer.connected(now, how, out);
            if how.is_err() {
                watch.connection = None;
            }
        }
    }

    fn received(&mut self, now: Now, id: Id, bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(watch) = self.on(id) {
            watch.informer.received(now, bytes, out);
        }
    }

    fn ended(&mut self, now: Now, id: Id, how: HangUp) {
        if let Some(watch) = self.on(id) {
            watch.informer.ended(now, how);
            watch.connection = None;
        }
    }
}

impl Part for Informers {
    fn name(&self) -> &'static str {
        NAME
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    /// The kinds, for the page, unless they are the default.
    fn hello(&self, _mounts: &[&str]) -> Option<(&'static str, serde_json::Value)> {
        let kinds = self.watches().iter().map(|watch| watch.informer.feed.resource().name());
        let kinds: Vec<&str> = kinds.collect();
        let usual = kinds.is_empty() || kinds == [Resource::Deployments.name()];
        (!usual).then(|| ("kinds", kinds.into()))
    }

    fn show(&self, metric: &str, page: &mut Page<'_>) {
        for Watch { informer, .. } in self.watches() {
            let Informer { feed, figures, .. } = informer;
            let value = match metric {
                "informer_synced" => u64::from(feed.is_synced()),
                "informer_objects" => feed.objects() as u64,
                "informer_viewers" => feed.viewers() as u64,
                "informer_truncated" => u64::from(feed.is_truncated()),
                "informer_memory_bytes" => informer.cost() as u64,
                "informer_relists_total" => figures.relists,
                _ => figures.watch_errors,
            };
            page.row(&[("kind", feed.resource().name())], value);
        }
    }

    fn admit(&mut self, upgrade: &UpgradeRequest<'_, '_, '_>) -> Admission {
        match self.join(upgrade.id, upgrade.params) {
            Ok(()) => Admission::Now,
            Err((status, why)) => Admission::Refused(Response::text(status, why)),
        }
    }

    fn connections(&mut self) -> Option<&mut dyn Connections> {
        Some(self)
    }

    fn closed(&mut self, now: Now, id: Id) {
        self.ended(now, id, HangUp::Reset);
        for watch in self.watches_mut() {
            watch.informer.feed.leave(id);
        }
    }

    fn next_deadline(&self) -> Option<u64> {
        let informers = self.watches().iter().filter_map(|watch| watch.informer.next_deadline());
        informers.chain(self.due_ns).min()
    }

    fn fire(&mut self, now: Now) {
        self.due_ns = None;
        let Ok(watches) = &mut self.source else { return };
        let mut left = WOKEN_PER_TURN;
        for Watch { informer, .. } in watches {
            if informer.next_deadline().is_some_and(|due_ns| due_ns <= now.mono_ns) {
                informer.fire(now);
            }
            while left > 0
                && let Some(id) = informer.feed.next_due()
            {
                left -= 1;
                self.orders.push_back(Order::Write(id));
            }
        }
    }

    fn fetched(&mut self, now: Now, _paths: &[String], files: &[File]) {
        for watch in self.watches_mut() {
            watch.informer.fetched(now, files);
        }
    }

    fn reload(&mut self, now: Now) {
        for watch in self.watches_mut() {
            watch.informer.reload(now);
        }
    }

    fn poll(&mut self, now: Now) -> Option<Order> {
        if let Some(order) = self.orders.pop_front() {
            return Some(order);
        }
        let Ok(watches) = &mut self.source else { return None };
        for (at, Watch { informer, connection }) in watches.iter_mut().enumerate() {
            informer.update_demand(now);
            while let Some(step) = informer.poll() {
                match step {
                    Step::Connect(target) => {
                        self.opening = Some(at);
                        return Some(Order::Connect(target));
                    }
                    Step::HangUp => {
                        if let Some(id) = connection.take() {
                            return Some(Order::Reset(id));
                        }
                    }
                    Step::Read(paths) => return Some(Order::Read(paths)),
                }
                informer.update_demand(now);
            }
            if informer.feed.has_due() {
                self.due_ns.get_or_insert(now.mono_ns);
            }
        }
        None
    }

    fn cost(&self) -> usize {
        self.watches().iter().map(|watch| watch.informer.cost()).sum()
    }

    fn contents(&self) -> Vec<(String, String, String)> {
        self.watches().iter().flat_map(|watch| watch.informer.feed.contents()).collect()
    }
}

fn filter(params: &Params) -> Filter {
    let format = if params.own("format") == "json" { Format::Json } else { Format::Text };
    let [namespace, name] = ["namespace", "name"].map(|name| params.own(name).to_owned());
    Filter { format, namespace, name }
}
