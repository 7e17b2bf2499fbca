//! The admin endpoints, for operators, preStop hooks and fault tests.

use std::collections::VecDeque;

use serde::Serialize;

use crate::engine::{Action, Now, Peer};
use crate::proto::http::{Method, Request};
use crate::proto::response::Response;
use crate::server::ops::drain::Drain;
use crate::server::route::{Deferred, Reply, json};
use crate::server::shared::{AdminOrder, Open};
use crate::server::websocket::faults::Faults;
use crate::units;

/// The wait of the preStop hook in the deployment guide, so that its manifest works unchanged.
const SHUTDOWN_MS: u64 = 15_000;
/// Longer than any grace period.
const WAIT_MS_MAX: u64 = 3_600_000;
/// Default and maximum of `/inemuri`.
const SLEEP_S: u64 = 10;
const SLEEP_S_MAX: u64 = 600;

/// The state that an admin request can change.
#[derive(Debug)]
pub(crate) struct Ops<'a> {
    pub(crate) now: Now,
    pub(crate) peer: Peer,
    pub(crate) open: Open,
    pub(crate) drain: &'a mut Drain,
    pub(crate) faults: &'a mut Faults,
    pub(crate) ready_off: &'a mut bool,
    pub(crate) orders: &'a mut VecDeque<AdminOrder>,
    pub(crate) actions: &'a mut VecDeque<Action>,
}

/// The value of a query parameter.
pub(crate) fn param<'q>(request: &Request<'_, 'q>, name: &str) -> Option<&'q str> {
    let mut pairs = request.query.split('&');
    pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

fn bad_request(what: &'static str) -> Reply {
    Reply::Now(Response::text(400, format!("{what}\n")))
}

fn ok(text: &'static str) -> Reply {
    Reply::Now(Response::text(200, text))
}

/// The preStop hook: readiness fails immediately, everything is still served, and the response is
/// sent after the wait.
fn announce_and_wait(what: Deferred, wait_ms: u64, ops: &mut Ops<'_>) -> Reply {
    announce(ops);
    Reply::Later { after_ms: wait_ms, what }
}

fn announce(ops: &mut Ops<'_>) {
    if !ops.drain.is_under_way() {
        log::info!(target: "drain", peer:% = ops.peer; "drain announced: not ready, still serving");
    }
    ops.drain.announce(ops.now);
}

/// `/api/shutdown`
pub(crate) fn shutdown(_: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    announce_and_wait(Deferred::Shutdown, SHUTDOWN_MS, ops)
}

/// `/drain`
pub(crate) fn drain(request: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    if let Some(wait) = param(request, "wait") {
        return match units::duration_ms(wait).filter(|&ms| ms <= WAIT_MS_MAX) {
            Some(ms) => announce_and_wait(Deferred::Drain, ms, ops),
            None => bad_request("wait: must be a duration up to 1h, such as 15s"),
        };
    }
    if request.method != Method::Post {
        return report(ops);
    }
    match param(request, "cancel") {
        Some("1" | "true" | "") if !ops.drain.is_under_way() => ok("not draining\n"),
        Some("1" | "true" | "") if ops.drain.cancel() => {
            log::info!(target: "drain", peer:% = ops.peer; "drain cancelled");
            ok("not draining any more\n")
        }
        Some("1" | "true" | "") => {
            Reply::Now(Response::text(409, "a signal asked for it: that cannot be taken back\n"))
        }
        Some(_) => bad_request("cancel: must be 1"),
        None => {
            announce(ops);
            ok("draining\n")
        }
    }
}

fn report(ops: &Ops<'_>) -> Reply {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Report {
        draining: bool,
        phase: &'static str,
        elapsed_ms: u64,
        connections: usize,
        websockets: usize,
    }
    let drain = &ops.drain;
    Reply::Now(json(&Report {
        draining: drain.is_under_way(),
        phase: drain.phase.name(),
        elapsed_ms: if drain.is_under_way() { drain.elapsed_ms(ops.now) } else { 0 },
        connections: ops.open.main,
        websockets: ops.open.websockets,
    }))
}

/// `/readyz/disable`
pub(crate) fn disable(_: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    log::info!(target: "ready", peer:% = ops.peer; "readiness disabled");
    *ops.ready_off = true;
    ok("not ready\n")
}

/// `/readyz/enable`
pub(crate) fn enable(_: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    log::info!(target: "ready", peer:% = ops.peer; "readiness enabled");
    *ops.ready_off = false;
    ok("ready\n")
}

/// `/shed`
pub(crate) fn shed(request: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    let percent = param(request, "percent").and_then(|text| text.parse().ok());
    let Some(percent @ 1..=100) = percent else {
        return bad_request("percent: must be a number from 1 to 100, such as /shed?percent=20");
    };
    let count = (ops.open.websockets * percent).div_ceil(100);
    ops.orders.push_back(AdminOrder::Shed { count });
    log::info!(target: "shed", peer:% = ops.peer, percent, count; "closing some WebSockets");
    let all = ops.open.websockets;
    Reply::Now(Response::text(200, format!("closing {count} of {all} WebSockets\n")))
}

/// `/inemuri`: blocks the event loop.
pub(crate) fn inemuri(request: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    let seconds = match param(request, "seconds") {
        None => Some(SLEEP_S),
        Some(text) => text.parse().ok().filter(|s| (1..=SLEEP_S_MAX).contains(s)),
    };
    let Some(seconds) = seconds else {
        return bad_request("seconds: must be a number from 1 to 600");
    };
    log::warn!(target: "faults", peer:% = ops.peer, seconds; "sleep requested");
    ops.faults.sleep_soon(ops.now, seconds * 1000);
    Reply::Now(Response::text(200, format!("Sleeping for {seconds}s\n")))
}

/// `/seppuku`
pub(crate) fn seppuku(_: &Request<'_, '_>, ops: &mut Ops<'_>) -> Reply {
    log::warn!(target: "faults", peer:% = ops.peer; "exit requested");
    ops.faults.exit_soon(ops.now);
    ok("Terminating\n")
}
