//! `wspulse load`: counts, thresholds, error messages.

use super::*;

#[test]
fn counts_what_was_sent_and_answered() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let deflate = if cfg!(feature = "deflate") { "--deflate on" } else { "" };
    let flags = format!("--clients 20 --messages 5 --verify --size 300B {deflate}");
    let (code, report) = load(&url, &flags);
    assert_eq!((code, &report["connected"], &report["opened"]), (0, &20.into(), &20.into()));
    assert_eq!((&report["sent"], &report["answered"]), (&100.into(), &100.into()));
    assert_eq!((&report["lost"], &report["errors"]), (&0.into(), &0.into()));
    assert_eq!(report["closes"], serde_json::json!({ "1000": 20 }));
    assert_eq!(report["servers"][0]["answers"], 100);
    let latency = &report["latency"];
    let at = |name: &str| latency[name].as_f64().unwrap();
    assert!(0.0 < at("min_ms") && at("min_ms") <= at("p50_ms") && at("p50_ms") <= at("p99_ms"));
    assert!(at("p99_ms") <= at("max_ms") && latency["count"] == 100);
}

#[test]
fn the_report_is_readable() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/websocket", server.main);
    let words = ["load", &url, "--clients", "3", "--messages", "50", "--depth", "4"];
    let (code, page, err) = run(&words, b"");
    assert_eq!((code, &*err), (0, ""), "{page}");
    let (first, rest) = page.split_once("\n\n").unwrap();
    assert_eq!(first, format!("{url}   3 clients, 50 messages each, 4 in flight"));
    for part in [
        "connected   3 of 3 clients, the last after ",
        "messages    150 sent, 150 answered in ",
        // The pings of `randping` are not answers.
        " unsolicited\n",
        "latency     p50 ",
        "█",
        "closed      1000 OK                      by us                 3\n",
        "errors      none\n",
        "\ngenerator   ",
        "served by   ",
    ] {
        assert!(rest.contains(part), "{part} in\n{page}");
    }
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
}

#[test]
fn thresholds_decide() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo?delay=30ms", server.main);
    let (code, report) = load(&url, "--clients 2 --messages 3 --max-p99 20ms --max-errors 0");
    assert_eq!(code, 3);
    let missed = report["missed"][0].as_str().unwrap();
    assert!(missed.starts_with("--max-p99 20ms: was "), "{missed}");
    let (code, report) = load(&url, "--clients 2 --messages 3 --max-p99 2s --max-errors 0");
    assert_eq!((code, &report["missed"]), (0, &serde_json::json!([])));
}

/// Latency counts from when a message was due, so a stalled server cannot hide it.
#[test]
fn an_open_loop_counts_from_when_a_message_was_due() {
    let server = Server::start(&["--faults"]);
    let url = format!("ws://{}/echo?block=200ms", server.main);
    let (_, report) = load(&url, "--clients 1 --rate 100 --messages 5");
    // Due 10 ms apart, answered 200 ms apart: the last one 160 ms later each time.
    let at = |name: &str| report["latency"][name].as_f64().unwrap();
    assert!(at("max_ms") >= 5.0 * 200.0 - 4.0 * 10.0 - 20.0, "{report}");
    let (_, report) = load(&url, "--clients 1 --messages 5");
    assert!(report["latency"]["max_ms"].as_f64().unwrap() < 600.0, "{report}");
}

/// A server that is stopped during the run: what was due counts, with its age.
#[test]
fn a_stopped_server_is_in_the_report() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let flags = "--clients 4 --rate 100/s --duration 3s --timeout 300ms --json --max-p99 50ms";
    let words = ["load", &url].into_iter().chain(flags.split(' '));
    let load = Running::start(&words.collect::<Vec<_>>());
    while received(&server) < 20 {}
    server.signal("STOP");
    let (code, lines) = load.end();
    let report: Value = serde_json::from_str(&lines[0]).unwrap();
    let count = |name: &str| report[name].as_u64().unwrap();
    assert_eq!(code, 3, "{report}");
    assert!(count("unanswered") > 0 && count("errors") >= count("unanswered"), "{report}");
    assert_eq!(count("due"), count("sent") + count("unsent"));
    assert_eq!(count("due"), count("answered") + count("unanswered") + count("unsent"));
    assert!(report["latency"]["p99_ms"].as_f64().unwrap() >= 100.0, "{report}");
    assert_eq!(report["latency"]["count"], report["due"]);
}

/// A server that is too slow: what was never sent counts, and the rate is that of the plan's time.
#[test]
fn an_overloaded_server_is_in_the_report() {
    let server = Server::start(&["--mount", "/work=echo?work=100ms"]);
    let url = format!("ws://{}/work", server.main);
    let flags = "--clients 2 --rate 4000/s --duration 500ms --timeout 300ms --max-errors 0";
    let (code, report) = load(&url, &format!("{flags} --max-p99 50ms"));
    let count = |name: &str| report[name].as_u64().unwrap();
    assert!(code == 3 && (3_000..=4_000).contains(&count("due")), "{report}");
    assert!(count("unsent") >= 1_000 && count("unanswered") >= 1_000, "{report}");
    assert!((499.0..501.0).contains(&report["elapsed_ms"].as_f64().unwrap()), "{report}");
    assert_eq!(report["missed"].as_array().unwrap().len(), 2, "{report}");
}

#[test]
fn failures_are_reported_with_their_causes() {
    let server = Server::start(&["--origin", "https://app.example"]);
    let main = server.main;
    let nowhere = closed();
    let wrong_key = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
    for (url, flags, code, text) in [
        (format!("ws://{nowhere}/"), "", "refused", "connection refused"),
        (
            format!("ws://{main}/nothing"),
            "",
            "status_404",
            "upgrade answered with 404: no WebSocket at that path",
        ),
        (
            format!("ws://{main}/echo"),
            "--origin https://evil.example",
            "status_403",
            "upgrade answered with 403: not allowed; it may need an Origin or credentials",
        ),
        (
            format!("ws://{}/", answering(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")),
            "",
            "status_503",
            "upgrade answered with 503: unavailable, draining or full",
        ),
        (
            format!("ws://{}/", answering(b"\x15\x03\x01\x00\x02\x02\x46")),
            "",
            "upgrade_tls",
            "upgrade failed: the port requires TLS",
        ),
        (
            format!("ws://{}/", answering(b"SSH-2.0-x\r\n")),
            "",
            "upgrade_http_not_http",
            "upgrade failed: the response is not HTTP",
        ),
        (
            format!("ws://{}/", answering(wrong_key)),
            "",
            "upgrade_wrong_key",
            "upgrade failed: the accept key is wrong: this is not a WebSocket server",
        ),
        (
            format!("ws://{}/", answering(b"")),
            "--timeout 100ms",
            "no_upgrade_response",
            "connected, but no upgrade response in time",
        ),
    ] {
        let (exit, report) = load(&url, &format!("--clients 3 --messages 1 {flags}"));
        assert_eq!((exit, &report["connected"]), (1, &0.into()), "{url}");
        let causes = serde_json::json!({ code: { "count": 3, "text": text } });
        assert_eq!(report["causes"], causes, "{url}");
        assert_eq!(report["errors"], 3);
    }
}

#[test]
fn broken_connections_and_wrong_answers_are_counted() {
    let server = Server::start(&["--faults"]);
    for (path, flags, cause) in [
        ("/echo?fault=rst", "", "broken"),
        ("/echo?fault=stall-read", "--timeout 200ms", "no_answer"),
        ("/echo?close_after=50ms&code=1013&reason=full", "--hold 10s", "closed_early_1013"),
        ("/socket", "--verify", "wrong_answer"),
    ] {
        let url = format!("ws://{}{path}", server.main);
        let hold = if flags.contains("--hold") { "" } else { "--messages 2" };
        let (code, report) = load(&url, &format!("--clients 2 {hold} {flags} --max-errors 0"));
        assert_eq!((code, &report["causes"][cause]["count"]), (3, &2.into()), "{path}");
    }
    // Someone who asks for a check does not accept a wrong answer.
    let socket = format!("ws://{}/socket", server.main);
    let (code, report) = load(&socket, "--clients 2 --messages 2 --verify");
    assert_eq!((code, &report["missed"][0]), (3, &"--verify: was 4 errors".into()), "{report}");
    let (code, _) = load(&socket, "--clients 2 --messages 2 --verify --max-errors 4");
    assert_eq!(code, 0);
    // Without --verify any message counts as an answer, except unsolicited ones.
    let (code, report) = load(&socket, "--clients 2 --messages 3");
    assert_eq!((code, &report["answered"], &report["unasked"]), (0, &6.into(), &2.into()));
}

/// A backend accepts clients and fails on their messages: error frames are no answers.
#[test]
#[cfg(feature = "gateway")]
fn error_frames_of_a_gateway_are_errors() {
    let backend = answering_by(|asked| {
        if asked.starts_with(b"POST /connect") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        } else {
            b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"
        }
    });
    let gateway = Server::start(&["--gateway-backend", &format!("http://{backend}")]);
    let url = format!("ws://{}/gateway/prod", gateway.main);
    for flags in ["", "--verify", "--rate 100/s"] {
        let flags = format!("--clients 2 --messages 3 {flags} --max-errors 0");
        let (code, report) = load(&url, &flags);
        assert_eq!((code, &report["answered"]), (3, &0.into()), "{flags}");
        assert_eq!(report["failed"], report["sent"], "{flags}");
        assert_eq!(report["errors"], report["failed"], "{flags}");
    }
}

/// The first address of a name may refuse connections.
#[test]
fn every_address_of_a_name_is_tried() {
    let server = Server::start(&[]);
    let elsewhere = format!("--connect-to localhost:{}", server.main.port());
    let flags = format!("--clients 2 --messages 1 --max-errors 0 {elsewhere}");
    let (code, report) = load("ws://pulse.invalid/echo?x=1", &flags);
    assert_eq!((code, &report["connected"]), (0, &2.into()));
    let (code, report) = load("ws://a..b/", "--clients 2");
    assert_eq!((code, &report["causes"]["no_such_name"]["count"]), (1, &2.into()));
}

#[test]
fn too_few_descriptors_are_reported_at_start() {
    let limited = "ulimit -n 40; exec \"$0\" load ws://127.0.0.1:1/ --clients 100";
    let done = Command::new("/bin/sh").args(["-c", limited, PROGRAM]).output().unwrap();
    let err = String::from_utf8(done.stderr).unwrap();
    let start = "wspulse: --clients 100: the limit of 40 descriptors leaves room for ";
    assert!(err.starts_with(start) && err.lines().count() == 1, "{err}");
    assert!(err.contains(": raise it (ulimit -n 1"), "{err}");
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn an_interrupt_prints_the_report() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let hold = ["--messages", "2", "--hold", "1h"];
    let load = Running::start(&[&["load", &url, "--clients", "4"], &hold[..]].concat());
    // A client sends its second message when it has read the first answer. None ends on its own.
    while received(&server) < 8 {}
    load.signal("INT");
    let (code, page) = load.end();
    assert_eq!(code, 4);
    let page = page.join("\n");
    assert!(page.contains("interrupted a signal ended the test before its time"), "{page}");
    assert!(page.contains("connected   4 of 4 clients"), "{page}");
    assert!(page.contains("closed      1000 OK"), "{page}");
}

/// Messages that the server has received.
fn received(server: &Server) -> u64 {
    let mut stream = TcpStream::connect(server.admin).unwrap();
    stream.write_all(b"GET /stats HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let body = response.split_once("\r\n\r\n").unwrap().1;
    let stats: Value = serde_json::from_str(body).unwrap();
    stats["messages"]["received"].as_u64().unwrap()
}

fn server_has(server: &mut Server, clients: u64) -> bool {
    server.signal("USR1");
    server.wait_for("report")["websockets"].as_u64().unwrap() == clients
}

/// The second signal does not wait for a server that does not close.
#[test]
fn a_second_interrupt_ends_at_once() {
    let mut server = Server::start(&["--faults"]);
    let url = format!("ws://{}/echo?fault=stall-read", server.main);
    let mut load = Running::start(&["load", &url, "--clients", "2", "--duration", "1h"]);
    while !server_has(&mut server, 2) {}
    load.signal("INT");
    // Two signals before the loop turns are one.
    while load.is_running() {
        load.signal("TERM");
    }
    let (code, page) = load.end();
    assert_eq!(code, 4);
    // The server has accepted both; the second client may not have read its 101 yet.
    assert!(page.join("\n").contains(" of 2 clients"), "{page:?}");
    assert!(!page.join("\n").contains("failed"), "{page:?}");
}

/// Reports of two generators become one, with the thresholds of the last step.
#[test]
fn reports_are_merged() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let folder = std::env::temp_dir().join(format!("wspulse-merge-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files = ["one", "other"].map(|name| folder.join(name).to_string_lossy().into_owned());
    let start = wspulse::time::rfc3339(wspulse::net::clock::now().wall_ms + 300);
    let generators = files.each_ref().map(|_| {
        let words = ["load", &url, "--json", "--messages", "200", "--start-at", &start];
        Running::start(&words)
    });
    for (generator, file) in generators.into_iter().zip(&files) {
        let (code, lines) = generator.end();
        assert_eq!(code, 0);
        std::fs::write(file, lines.join("\n")).unwrap();
    }
    let merge = |flags: &[&str]| {
        let words = [&["load", "--merge", &files[0], &files[1]], flags].concat();
        run(&words, b"")
    };
    let (code, page, err) = merge(&[]);
    assert_eq!((code, &*err), (0, ""));
    for part in [
        "   2 generators with 10 clients, 200 messages each\n",
        "\nconnected   20 of 20 clients",
        "\nmessages    4000 sent, 4000 answered in ",
        "\nclosed      1000 OK                      by us                20\n",
    ] {
        assert!(page.contains(part), "{part} in\n{page}");
    }
    let (code, json, _) = merge(&["--json", "--max-p99", "1us"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &report["latency"]["count"]), (3, &4_000.into()));
    std::fs::write(&files[1], &json[..json.len() / 2]).unwrap();
    let (code, out, err) = merge(&[]);
    assert_eq!((code, &*out), (1, ""));
    assert!(
        err.starts_with(&format!("wspulse: --merge: {}, line 1: it is not a", files[1])),
        "{err}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
    let (code, _, err) = merge(&[]);
    assert!(code == 1 && err.starts_with("wspulse: --merge: cannot read /"), "{err}");
}

#[test]
fn clients_reconnect_when_they_are_closed() {
    let server = Server::start(&["--faults"]);
    let url = format!("ws://{}/echo?close_after=300ms&code=1012&reason=again", server.main);
    let flags = "--clients 5 --hold 1s --reconnect --max-errors 0 --max-downtime 2s";
    let (code, report) = load(&url, flags);
    assert_eq!((code, &report["errors"], &report["lost"]), (0, &0.into(), &0.into()));
    let (opened, away) = (report["opened"].as_u64().unwrap(), &report["closes"]["1012"]);
    assert_eq!(report["downtime"]["count"].as_u64().unwrap(), away.as_u64().unwrap());
    assert!(opened > 5 && report["storm_peak"].as_u64().unwrap() > 0, "{report}");
}

#[test]
fn a_ramp_and_a_rate_take_their_time() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let (code, report) = load(&url, "--clients 20 --messages 1 --ramp 100/s");
    let took_ms = report["connect_ms"].as_f64().unwrap();
    assert!(code == 0 && (185.0..3_000.0).contains(&took_ms), "{report}");
    let (code, report) = load(&url, "--clients 4 --rate 50/s --duration 400ms");
    let sent = report["sent"].as_u64().unwrap();
    // On a busy machine the last messages may miss the end.
    assert!(code == 0 && (40..=84).contains(&sent), "{sent}, not about 80");
}

#[test]
fn one_worker_is_compared_with_its_ideal() {
    let server = Server::start(&["--mount", "/work=echo?work=100ms"]);
    let url = format!("ws://{}/work", server.main);
    // Whether there is one worker shows in the times, which a busy machine can distort.
    let mut tries = (0..3).map(|_| load(&url, "--clients 4 --messages 2").1);
    let report = tries.find(|report| !report["ideal_ms"].is_null()).unwrap();
    let at = |name: &str| report[name].as_f64().unwrap_or_else(|| panic!("{name} in {report}"));
    assert!((790.0..3_000.0).contains(&at("elapsed_ms")), "{report}");
    assert!((760.0..3_000.0).contains(&at("ideal_ms")), "{report}");
    let (_, report) = load(&format!("ws://{}/echo", server.main), "--clients 5 --messages 6");
    assert!(report["ideal_ms"].is_null(), "an echo has none: {report}");
}
