//! The report as text and as JSON.

use serde_json::{Value, json};

use super::super::{
    Answers, ConnectError, Life, Outcome, Pace, Plan, ServerKind, Thresholds, WhenLost,
};
use super::*;
use crate::behaviours::Kind;
use crate::proto::upgrade::Ask;
use crate::time::ms;

fn plan() -> Plan {
    Plan {
        targets: Vec::new(),
        ask: Ask::default(),
        clients: 40,
        ramp: None,
        life: Life::Hold { messages: 1, ms: 60_000 },
        when_lost: WhenLost::Reconnect,
        size: 0,
        kind: Kind::Text,
        pace: Pace::Closed { depth: 1 },
        fragment: 0,
        server_kind: ServerKind::WebSocket,
        answers: Answers::Any,
        patience_ms: 1_000,
        progress_ms: None,
        start_ms: None,
    }
}

/// A rollout: each client was closed once, two connections broke, one client is still down.
fn report() -> Report {
    let mut report = Report {
        begun: 40,
        due: 41,
        until_ns: ms(4_000),
        connected: 39,
        opened: 78,
        sent: 41,
        lost: 2,
        still_down: 1,
        storm_peak: 17,
        opened_ns: ms(500),
        ..Report::default()
    };
    let places = ["pod-0", "pod-1"].map(|name| report.count_server(Some(name.to_owned())));
    for answer in 0..39 {
        report.count_answer(places[usize::from(answer >= 30)], ms(2 + answer), ms(4_000));
    }
    for gone_ms in [80, 200] {
        report.downtime.record(ms(gone_ms));
    }
    for (outcome, count) in [
        (Outcome::Closed(1000), 38),
        (Outcome::ClosedEarly(1001), 37),
        (Outcome::Broken, 2),
        (Outcome::NotConnected(ConnectError::Refused), 1),
    ] {
        report.ends.insert(outcome, count);
    }
    report.count_attempt(Outcome::Refused(503));
    report
}

#[test]
fn text_of_a_rollout() {
    let wanted = Thresholds { p99_ns: Some(1_500_000), errors: Some(0), downtime_ns: Some(ms(1)) };
    let mut summary = Summary::new("ws://h/", &plan(), &report());
    assert_eq!(summary.judge(&wanted), 3);
    let page = summary.page();
    let want = "\
ws://h/   40 clients, 1 message each, then held for 1m

connected   39 of 40 clients, and 39 reconnects
failed      1 client never connected
messages    41 sent, 39 answered in 4.00 s: 9.8/s
latency     p50 21.0 ms   p90 37.1 ms   p99 40.0 ms   p99.9 40.0 ms   max 40.0 ms
";
    assert!(page.starts_with(want), "{page}");
    for line in [
        "downtime    2 times: p50 80.0 ms   p99 200 ms   max 200 ms; 1 not back",
        "            at most 17 attempts to reconnect within a second",
        "            1 attempt failed: upgrade answered with 503: unavailable, draining or full",
        "closed      1000 OK                      by us                38",
        "            1001 going away              by the server        37",
        "            1006 broken without a Close  no Close              2",
        "errors      2 × broken without a Close (1006)",
        "            1 × connection refused",
        "            2 × message lost: its connection ended before the answer",
        "missed      --max-p99 1.5ms: was 40.0 ms",
        "missed      --max-errors 0: was 5 errors",
        "missed      --max-downtime 1ms: was 200 ms",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
    }
    let bars = page.lines().filter(|line| line.contains('█')).count();
    assert!(bars >= 4, "{page}");
}

#[test]
fn json_of_a_rollout() {
    let json = Summary::new("ws://h/", &plan(), &report()).json();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["schema"], &json["errors"]), (&json!(2), &json!(5)));
    let refused = json!({ "count": 1, "text": "connection refused" });
    assert_eq!(json["causes"]["refused"], refused);
    assert_eq!(json["closed_by_server"], json!({ "1001": 37 }));
    assert_eq!(json["closes"], json!({ "1000": 38, "1001": 37, "1006": 2 }));
    assert_eq!((&json["lost"], &json["still_down"]), (&json!(2), &json!(1)));
    assert_eq!(json["downtime"]["max_ms"], 200.0);
    assert_eq!(json["servers"][0], json!({ "name": "pod-0", "connections": 1, "answers": 30 }));
}

#[test]
fn no_client_connected() {
    let report = Report { begun: 2, ..Report::default() };
    let mut summary = Summary::new("ws://h/", &plan(), &report);
    assert_eq!(summary.judge(&Thresholds::default()), 1);
    let page = summary.page();
    assert!(page.contains("connected   none\n") && !page.contains("latency"), "{page}");
}
