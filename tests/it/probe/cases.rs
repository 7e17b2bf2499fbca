//! One thing wrong at a time, and what must be found.

use wspulse::engine::{TlsFacts, TlsFault};
use wspulse::proto::refusal::Refusal;

use super::wrong::{Cut, Silence, Way, Wrong};
use super::{Case, Outcome, check, check_all};
use crate::os::Odds;

/// Not when the client speaks, so that its bytes do not cross the cut.
const AFTER_MS: u64 = 5_300;
/// Exactly when it speaks.
const CROSSING_MS: u64 = 5_000;

fn cuts(of: Silence, way: Way) -> Wrong {
    Wrong::Cuts(Cut { of, after_ms: AFTER_MS, way })
}

fn harmless_paths() -> Vec<Case> {
    let adds: &[&str] = &["X-Forwarded-For: 192.0.2.7", "Via: 1.1 hop", "X-Real-Ip: 192.0.2.7"];
    let no_hop =
        |case: Case| Case { has_hop: false, name: format!("{}, no hop", case.name), ..case };
    vec![
        no_hop(Case::quick("quick", Wrong::Nothing)),
        no_hop(Case::patient("patient", Wrong::Nothing)),
        Case::quick("quick", Wrong::Nothing),
        Case::patient("patient", Wrong::Nothing),
        Case { args: "--patience 2s".to_owned(), ..Case::patient("2 s", Wrong::Nothing) },
        Case { args: String::new(), ..Case::patient("70 s", Wrong::Nothing).within(82_000) },
        Case::quick("fields are added", Wrong::AddsThere(adds)),
        Case::quick("lower case", Wrong::Lowercase),
        Case::quick("far", Wrong::Delays { ms: 100 }).within(20_000),
        Case::quick("farther", Wrong::Delays { ms: 400 }).within(30_000),
        Case::patient("far", Wrong::Delays { ms: 150 }).within(20_000),
        Case::quick("a narrow line", Wrong::Narrow { bytes: 128 * 1024 }).within(70_000),
        Case::patient("a narrow line", Wrong::Narrow { bytes: 128 * 1024 }).within(70_000),
    ]
}

#[test]
fn probes_of_harmless_paths() {
    check_all(&harmless_paths());
}

/// What the URL and the flags ask for must not look like faults.
fn options() -> Vec<Case> {
    let path = |path: &'static str| Case {
        path,
        name: path.to_owned(),
        ..Case::quick("", Wrong::Nothing)
    };
    let args = |args: &str, case: Case| Case {
        args: format!("{} {args}", case.args),
        name: args.to_owned(),
        ..case
    };
    let quick = |flags: &str| args(flags, Case::quick("", Wrong::Nothing));
    let field = format!("-H X-Token:{}", "t".repeat(2_000));
    vec![
        path("/?token=a%2Fb"),
        path("/echo?hello=1"),
        path("/echo?every=100ms"),
        path("/echo?ping=1s"),
        path("/websocket"),
        path("/throttled?randping=100ms"),
        path("/echo?every=100ms&size=2KiB"),
        Case {
            name: "any, long pushes".to_owned(),
            args: "--quick --any".to_owned(),
            ..path("/throttled?randping=100ms&size=2KiB")
        },
        path("/socket?every=100ms").within(12_000),
        Case { has_hop: false, ..quick(&field) },
        quick("--origin https://172.16.0.1:8080"),
        quick("--subprotocol a"),
        quick("--sockets 1"),
        quick("--sockets 200").within(5_000),
        quick("--any"),
        args("--any", Case::patient("", Wrong::Nothing)),
        args("--sockets 200", Case::patient("", Wrong::Nothing)),
    ]
}

/// Reports are kept where others read them.
#[test]
fn reports_of_probes_contain_no_tokens() {
    let path = "/echo?access_token=hunter2&hello=1";
    let Outcome { report, .. } =
        check(&Case { path, ..Case::quick(path, Wrong::Nothing) }).unwrap();
    assert!(report.json().contains("/echo?access_token=***&hello=1"), "{}", report.json());
    for text in [report.json(), report.junit(), report.page()] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}

/// A far end that pushes interrupts the silence that is to be watched: that was "silence of 8 s is
/// tolerated", and a cut was that of a silent socket.
#[test]
fn probes_of_far_ends_that_push() {
    let any = |path, wrong| Case {
        args: "--any --patience 8s".to_owned(),
        path,
        ..Case::patient(path, wrong)
    };
    for path in ["/websocket", "/echo?every=1s", "/echo?ping=2s"] {
        let note = check(&any(path, Wrong::Nothing)).unwrap().note("idle");
        assert!(!note.starts_with("silence of 8s"), "{note}");
        assert!(note.ends_with("the far end sends something by itself"), "{note}");
    }
    check_all(&[
        any("/echo?every=500ms", cuts(Silence::Client, Way::Fin)).finds(&["idle-server-fin"])
    ]);
}

/// What is missing here or taken by others was said to be a limit of the path.
#[test]
fn probes_without_room() {
    let few = Case { descriptors: Some(40), ..Case::quick("few descriptors", Wrong::Nothing) };
    let note = check(&few).unwrap().note("spread");
    assert!(note.contains(" of 64 opened: no local port or descriptor is left here"), "{note}");
    let full = Case::quick("probes of others", Wrong::LacksRoom(20));
    let note = check(&full).unwrap().note("spread");
    assert!(note.ends_with(" of 64 opened: the far end has no room for more sockets that count"));
    let page = |sentence: &str| -> Wrong {
        let length = sentence.len();
        let head = "HTTP/1.1 503 Service Unavailable\r\nConnection: close";
        Wrong::Answers(format!("{head}\r\nContent-Length: {length}\r\n\r\n{sentence}").leak())
    };
    let cases = [Refusal::Full, Refusal::Draining, Refusal::Overloaded, Refusal::ProbesFull];
    check_all(&cases.map(|refusal| {
        Case::quick(&format!("{refusal:?}"), page(refusal.sentence())).finds(&["server-busy"])
    }));
}

/// That was a warning, so the exit code was 0.
#[test]
fn probes_of_paths_that_stop_opening() {
    check_all(&[Case::quick("stops", Wrong::RefusesAfter(8)).finds(&["sockets-refused"])]);
}

/// A far end that answers after 5 s was said to damage compressed messages.
#[test]
fn probes_of_slow_far_ends() {
    let slow = Case { path: "/echo?delay=6s", ..Case::quick("slow", Wrong::Nothing) };
    check_all(&[slow.within(120_000)]);
}

#[test]
fn probes_with_options() {
    check_all(&options());
}

fn names_and_certificates() -> Vec<Case> {
    let others = |name: &str, others: &[[u8; 4]]| Case {
        others: Some(others.iter().map(|ip| (*ip).into()).collect()),
        ..Case::quick(name, Wrong::Nothing)
    };
    let certificate = |name: &str, certificate| Case {
        certificate: Some(certificate),
        ..Case::quick(name, Wrong::Nothing)
    };
    let days = |days: i64| {
        let expires_s = Some(1_795_230_000 + days * 86_400 + 60);
        Ok(TlsFacts { version: "TLS 1.3", alpn: None, expires_s, lacks_issuer: false })
    };
    vec![
        others("one address", &[]),
        // The server itself and the hop serve the same.
        others("two addresses", &[[172, 16, 0, 0]]),
        others("a dead address", &[[172, 16, 0, 9]]).finds(&["dead-address"]),
        certificate("90 days", days(90)),
        certificate("5 days", days(5)).finds(&["tls-expires-soon"]),
        certificate("expired", Err(TlsFault::Expired)).finds(&["tls-expired"]),
        certificate("wrong name", Err(TlsFault::WrongName)).finds(&["tls-wrong-name"]),
        certificate("untrusted", Err(TlsFault::NotTrusted)).finds(&["tls-untrusted"]),
        Case {
            lacks_issuer: true,
            ..certificate("no chain", Err(TlsFault::NotTrusted)).finds(&["tls-chain-incomplete"])
        },
        Case {
            lacks_issuer: true,
            ..certificate("expired, no chain", Err(TlsFault::Expired)).finds(&["tls-expired"])
        },
        Case {
            args: "--quick --insecure".to_owned(),
            ..certificate("insecure", Err(TlsFault::WrongName))
        },
    ]
}

#[test]
fn probes_of_names_and_certificates() {
    check_all(&names_and_certificates());
}

#[test]
fn probes_of_drains() {
    let drain = |name: &str, wrong| Case {
        args: "--quick --drain ADMIN".to_owned(),
        ..Case::quick(name, wrong)
    };
    check_all(&[
        drain("a drain", Wrong::Nothing).within(20_000),
        Case {
            args: "--quick --drain http://172.16.0.9:1".to_owned(),
            ..Case::quick("nothing to drain", Wrong::Nothing)
        },
        drain("a drain that is cut", Wrong::LosesClose)
            .finds(&["close-lost", "drain-cut"])
            .within(20_000),
    ]);
}

fn idle_cuts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, way) in
        [("fin", Way::Fin), ("rst", Way::Rst), ("hole", Way::Hole), ("close", Way::Close)]
    {
        let id = |who: &str| -> &'static str { format!("idle-{who}-{name}").leak() };
        for (of, cut) in [
            (Silence::Both, &["silent"][..]),
            // The far end of a probe does not answer.
            (Silence::Server, &["silent", "client"]),
            (Silence::Client, &["silent", "server"]),
        ] {
            let want: Vec<&'static str> = cut.iter().map(|who| id(who)).collect();
            let name = format!("{of:?} silent, {name}");
            cases.push(Case::patient(&name, cuts(of, way)).finds(&want));
        }
    }
    let minute = Wrong::Cuts(Cut { of: Silence::Both, after_ms: 60_000, way: Way::Fin });
    cases.push(
        Case { args: String::new(), ..Case::patient("60 s", minute).within(82_000) }
            .finds(&["idle-silent-fin"]),
    );
    cases
}

#[test]
fn probes_of_idle_cuts() {
    check_all(&idle_cuts());
}

fn age_cuts() -> Vec<Case> {
    let mut cases = Vec::new();
    for (way, want) in [
        (Way::Fin, "age-fin"),
        (Way::Rst, "age-rst"),
        (Way::Hole, "age-hole"),
        (Way::Close, "age-close"),
    ] {
        cases.push(Case::patient(want, cuts(Silence::Age, way)).finds(&[want]));
        // The client's bytes cross the end of the connection, and are answered with an RST.
        let alternatives = match way {
            Way::Fin => "age-fin|age-rst",
            Way::Close => "age-close|age-rst",
            _ => want,
        };
        let wrong = Wrong::Cuts(Cut { of: Silence::Age, after_ms: CROSSING_MS, way });
        for seed in 0..3 {
            cases.push(Case {
                odds: Odds { latency_ms: 50, ..Odds::NONE },
                seed,
                ..Case::patient(&format!("{want}, crossing {seed}"), wrong).finds(&[alternatives])
            });
        }
    }
    // While messages of all sizes are on their way, which are not the reason.
    for (way, want) in [
        (Way::Fin, "age-fin|age-rst"),
        (Way::Rst, "age-rst"),
        (Way::Hole, "age-hole"),
        (Way::Close, "age-close|age-rst"),
    ] {
        for after_ms in [400, 1_100, 1_700] {
            let wrong = Wrong::Cuts(Cut { of: Silence::Age, after_ms, way });
            let name = format!("{want} after {after_ms} ms");
            cases.push(Case {
                odds: Odds { latency_ms: 40, ..Odds::NONE },
                ..Case::patient(&name, wrong).finds(&[want]).within(40_000)
            });
        }
    }
    cases
}

#[test]
fn probes_of_age_cuts() {
    check_all(&age_cuts());
}

fn changed_frames() -> Vec<Case> {
    vec![
        Case::quick("pings are answered", Wrong::AnswersPings).finds(&["ping-answered-by-hop"]),
        Case::quick("pings are dropped", Wrong::DropsPings)
            .finds(&["ping-unanswered"])
            .within(12_000),
        Case::quick("fragments are joined", Wrong::JoinsFragments).finds(&["fragments-joined"]),
        Case::quick("messages are split", Wrong::SplitsMessages).finds(&["fragments-joined"]),
        Case::quick("closes are lost", Wrong::LosesClose).finds(&["close-lost"]),
        Case::quick("codes are changed", Wrong::ChangesCode).finds(&["close-code-changed"]),
        Case::quick("reasons are lost", Wrong::LosesReason).finds(&["close-reason-lost"]),
        Case::quick("closes are slow", Wrong::ClosesSlowly).finds(&["close-slow"]).within(12_000),
        Case::quick("bytes are collected", Wrong::Collects).finds(&["buffered"]).within(50_000),
        Case::quick("bits are flipped", Wrong::FlipsBits).finds(&["compression-broken"]),
        Case::quick("messages are limited", Wrong::LimitsMessages).finds(&["size-limit"]),
        Case {
            server_args: "--max-message 70000",
            ..Case::quick("messages are limited there", Wrong::Nothing).finds(&["size-limit"])
        },
        Case::patient("pings are dropped", Wrong::DropsPings).finds(&["ping-unanswered"]),
        Case::patient("pings are answered", Wrong::AnswersPings).finds(&["ping-answered-by-hop"]),
        Case::patient("closes are lost", Wrong::LosesClose).finds(&["close-lost"]),
        Case::patient("bytes are collected", Wrong::Collects).finds(&["buffered"]).within(50_000),
    ]
}

#[test]
fn probes_of_changed_frames() {
    check_all(&changed_frames());
}

fn changed_heads() -> Vec<Case> {
    let (extensions, protocol) = ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol");
    let there = Wrong::LosesThere;
    let here = Wrong::LosesHere;
    vec![
        Case::quick("no offer", there(extensions)).finds(&["compression-stripped"]),
        Case::quick("no agreement", here(extensions))
            .finds(&["compression-stripped|compression-broken"]),
        Case::quick("no subprotocol", there(protocol)).finds(&["subprotocol-lost"]),
        Case::quick("no chosen subprotocol", here(protocol)).finds(&["subprotocol-lost"]),
        Case::quick("no Origin", there("Origin")).finds(&["foreign-origin"]),
        Case::quick("another Host", Wrong::RewritesHost).finds(&["host-rewritten"]),
        Case { path: "/app/echo", ..Case::quick("another path", Wrong::RewritesPath) }
            .finds(&["path-rewritten"]),
        Case::quick("another query", Wrong::RewritesQuery).finds(&["query-rewritten"]),
        Case::quick("a decoded path", Wrong::DecodesPath).finds(&["path-rewritten"]),
        Case::quick("a refused path", Wrong::RefusesPath),
        Case::quick("heads of 4 KiB", Wrong::LimitsHeads).finds(&["head-limit"]),
    ]
}

#[test]
fn probes_of_changed_heads() {
    check_all(&changed_heads());
}

/// All that may be behind a line with jitter as well.
pub(super) fn all() -> Vec<Case> {
    [
        harmless_paths(),
        options(),
        names_and_certificates(),
        idle_cuts(),
        age_cuts(),
        changed_frames(),
        changed_heads(),
        socket_limits(),
        refused_upgrades(),
    ]
    .concat()
}

/// The sockets of other experiments are among those that are refused.
fn socket_limits() -> Vec<Case> {
    let quick = [1, 2, 3, 4, 6, 9, 12, 16, 20, 32, 63].map(|most| {
        let name = format!("{most} sockets");
        Case::quick(&name, Wrong::LimitsSockets(most)).finds(&["socket-limit"])
    });
    let patient = [1, 2, 9, 14, 32, 63].map(|most| {
        let name = format!("{most} sockets, patient");
        Case::patient(&name, Wrong::LimitsSockets(most)).finds(&["socket-limit"])
    });
    quick.into_iter().chain(patient).collect()
}

#[test]
fn probes_of_socket_limits() {
    check_all(&socket_limits());
}

/// The busy socket saw an invalid frame when all were cut: nothing shows that silence was the
/// reason. Each cut was an idle one.
#[test]
fn probes_of_age_cuts_in_a_frame() {
    let case = Case::patient("in a frame", cuts(Silence::Age, Way::TornClose));
    let outcome = check(&case).unwrap();
    let note = outcome.note("age");
    assert!(note.starts_with("an invalid frame arrived"), "{note}");
    assert_eq!(outcome.note("idle"), "sockets were cut, perhaps busy ones as well");
}

/// Traefik merges slashes by default: that is no reason to warn.
#[test]
fn probes_of_merged_slashes() {
    let report = check(&Case::quick("merged", Wrong::MergesSlashes)).unwrap().report;
    let findings = report.findings();
    let found = findings.iter().find(|(_, found)| found.id == "slashes-merged").unwrap();
    assert!(found.1.evidence.ends_with("received …/a%2Fb/c"), "{}", found.1.evidence);
}

/// `HAProxy` writes field names in lower case, and so do proxies in Node.js.
#[test]
fn probes_of_hops_that_are_only_guessed() {
    let page = check(&Case::quick("lower case", Wrong::Lowercase)).unwrap().report.page();
    let page = page.replace("\n   ", "");
    assert!(page.contains("HAProxy (probably, or a Node.js proxy: both write"), "{page}");
    assert!(!page.contains("hops-named"), "{page}");
}

/// Of the time until a TLS connection is established a part is that of TCP.
#[test]
fn probes_measure_tcp_and_tls_apart() {
    let facts = TlsFacts { version: "TLS 1.3", alpn: None, expires_s: None, lacks_issuer: false };
    for certificate in [None, Some(Ok(facts))] {
        let odds = Odds { latency_ms: 20, ..Odds::NONE };
        let case = Case { certificate, odds, ..Case::quick("figures", Wrong::Nothing) };
        let figures = &check(&case).unwrap().experiment("timing")["figures"];
        assert!(figures["connect_ms"].is_number(), "{figures}");
        assert_eq!(figures["tls_ms"].is_number(), case.certificate.is_some(), "{figures}");
    }
}

/// Of a client that sends a Close and FIN at once a hop that does not know half-closed connections
/// drops what is on its way from the server.
#[test]
fn probes_of_half_closed_connections() {
    let odds = Odds { latency_ms: 20, ..Odds::NONE };
    for (wrong, has_hop, is_cut) in [
        (Wrong::Nothing, true, true),
        (Wrong::Nothing, false, false),
        (Wrong::PassesFin, true, false),
    ] {
        let case = Case { has_hop, odds, ..Case::quick("half-close", wrong) };
        let report = check(&case).unwrap().report;
        let found = report.findings().iter().any(|(_, found)| found.id == "half-close-cut");
        assert_eq!(found, is_cut, "{wrong:?}, {has_hop}\n{}", report.page());
    }
}

/// What happens while the probe gets no CPU says nothing about the path.
#[test]
fn probes_that_are_stopped() {
    let stopped = |case: Case, from_ms: u64| Case {
        name: format!("{} at {from_ms} ms", case.name),
        stopped_ms: Some((from_ms, from_ms + 2_500)),
        odds: Odds { latency_ms: 3, ..Odds::NONE },
        ..case
    };
    let from_ms = [5, 40, 300, 700, 1_100, 1_390, 1_405, 1_420, 1_500];
    let quick = from_ms.map(|ms| stopped(Case::quick("quick", Wrong::Nothing), ms));
    check_all(&quick);
    let from_ms = [800, 1_600, 4_400, 6_900, 7_900, 8_050];
    let patient = from_ms.map(|ms| stopped(Case::patient("patient", Wrong::Nothing), ms));
    check_all(&patient);
    let age = cuts(Silence::Age, Way::Fin);
    let from_ms = [3_500, 4_900];
    check_all(
        &from_ms.map(|ms| stopped(Case::patient("age", age), ms).finds(&["age-fin|age-rst"])),
    );
}

/// Ctrl-C prints what is known.
#[test]
fn probes_that_are_interrupted() {
    let stopped = |case: Case, ms: u64| Case { interrupt_ms: Some(ms), ..case };
    for ms in [0, 1, 60, 800, 1_500, 3_000, 7_999] {
        let case = stopped(Case::patient("nothing", Wrong::Nothing), ms);
        let outcome = check(&case).unwrap();
        assert!(outcome.took_ms <= ms + 1, "{} ms", outcome.took_ms);
        assert!(outcome.report.json().contains("\"interrupted\":true"));
        let end = if ms == 0 { "\nNothing could be asked." } else { "\nInterrupted: " };
        assert!(outcome.report.page().contains(end));
    }
    for (of, way, id) in [
        (Silence::Both, Way::Fin, "idle-silent-fin"),
        (Silence::Age, Way::Rst, "age-rst"),
        (Silence::Age, Way::Hole, "age-hole"),
    ] {
        let wrong = Wrong::Cuts(Cut { of, after_ms: 25_000, way });
        let name = format!("{id}, interrupted");
        let case = Case { args: "--patience 20m".to_owned(), ..Case::patient(&name, wrong) };
        check_all(&[stopped(case, 60_000).within(60_001).finds(&[id])]);
    }
}

fn refused_upgrades() -> Vec<Case> {
    let page = |status: &str| -> Wrong {
        let text = format!(
            "HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"
        );
        Wrong::Answers(text.leak())
    };
    vec![
        Case::quick("no Upgrade", Wrong::LosesThere("Upgrade")).finds(&["upgrade-dropped"]),
        Case::quick("HTTP/1.0", Wrong::SpeaksHttp10).finds(&["http-10-hop"]),
        Case::quick("200", page("200 OK")).finds(&["upgrade-page"]),
        Case::quick("301", page("301 Moved")).finds(&["upgrade-redirect"]),
        Case::quick("400", page("400 Bad")).finds(&["upgrade-400"]),
        Case::quick("401", page("401 No")).finds(&["upgrade-401"]),
        Case::quick("403", page("403 No")).finds(&["upgrade-403"]),
        Case::quick("404", page("404 No")).finds(&["upgrade-404"]),
        Case::quick("418", page("418 No")).finds(&["upgrade-other"]),
        Case::quick("502", page("502 Bad")).finds(&["upgrade-502"]),
        Case::quick("503", page("503 Busy")).finds(&["upgrade-503"]),
        Case::quick("504", page("504 Slow")).finds(&["upgrade-504"]),
        Case::quick("no HTTP", Wrong::Answers("SSH-2.0-x\r\n")).finds(&["upgrade-other"]),
        Case::quick("a wrong key", Wrong::ChangesKey).finds(&["upgrade-accept"]),
        Case::quick("no Upgrade in the 101", Wrong::LosesHere("Upgrade"))
            .finds(&["upgrade-accept"]),
        Case::quick("no answer", Wrong::NeverAnswers).finds(&["upgrade-timeout"]).within(12_000),
        Case::quick("reset", Wrong::ResetsClients).finds(&["unreachable"]),
        Case::quick("reset later", Wrong::ResetsRequests).finds(&["upgrade-timeout"]),
        Case::quick("end after the 101", Wrong::EndsAfter101).finds(&["upgrade-accept"]),
        Case::patient("end after the 101", Wrong::EndsAfter101).finds(&["upgrade-accept"]),
    ]
}

#[test]
fn probes_of_refused_upgrades() {
    check_all(&refused_upgrades());
}
