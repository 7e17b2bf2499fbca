//! `wspulse connect`: its dialogue, piped and at a terminal, and its exit codes.

use super::*;

/// Runs it with these lines as its input.
fn piped(url: &str, flags: &[&str], input: &[u8]) -> (i32, String, String) {
    run(&[&["connect", url], flags].concat(), input)
}

#[test]
fn lines_from_a_pipe_and_their_answers() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let (code, out, err) =
        piped(&url, &["-H", "X-Any: thing"], b"hello\r\n\xff\xfe\n\nlast \x1b[2J");
    assert_eq!((code, &*err), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], format!("Connected to {url}."));
    assert!(lines[1].starts_with("Served by "), "{out}");
    let want = ["< hello", "< (binary) fffe", "< ", "< last \\u{1b}[2J"];
    assert_eq!(lines[2..6], want);
    assert_eq!(lines[6..], ["Connection closed: 1000 (OK)."]);
}

#[test]
fn lines_are_typed_and_ended_with_ctrl_d() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo?delay=1ms", server.main);
    let mut connect = Running::start(&["connect", &url, "--ping", "20ms"]);
    assert_eq!(connect.line(), format!("Connected to {url}."));
    assert!(connect.line().starts_with("Served by "));
    let mut lines = Vec::new();
    while lines.len() < 2 {
        // The round trip is printed between the lines.
        connect.types("abc\n");
        let line = connect.line();
        match line.strip_prefix("(ping) ") {
            Some(time) => {
                assert!(time.ends_with("µs") || time.ends_with("ms"), "{line}");
                lines.push(line);
            }
            None => assert_eq!(line, "< abc"),
        }
    }
    let (code, rest) = connect.end();
    assert_eq!((code, rest.last().unwrap().as_str()), (0, "Connection closed: 1000 (OK)."));
}

#[test]
fn the_server_closes() {
    let mut server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let connect = Running::start(&["connect", &url]);
    assert_eq!(connect.line(), format!("Connected to {url}."));
    server.signal("TERM");
    assert!(connect.line().starts_with("Served by "));
    assert_eq!(connect.line(), "Connection closed: 1001 (going away) draining.");
    assert_eq!(connect.end().0, 0);
    assert_eq!(server.exit(), Some(0));
}

#[test]
fn exit_codes_follow_the_close() {
    let server = Server::start(&["--faults"]);
    let url = |path: &str| format!("ws://{}{path}", server.main);
    for (path, flags, code, last) in [
        (
            "/echo",
            &["--close", "4000", "going home"][..],
            1,
            "Connection closed: 4000 (the application's own) going home.",
        ),
        (
            "/echo?close_after=10ms&code=1012&reason=x",
            &["--wait", "10s"],
            1,
            "Connection closed: 1012 (service restart) x.",
        ),
        (
            "/echo?close_after=10ms&code=1001",
            &["--wait", "10s"],
            0,
            "Connection closed: 1001 (going away).",
        ),
    ] {
        let (got, out, _) = piped(&url(path), flags, b"");
        assert_eq!((got, out.lines().last()), (code, Some(last)), "{path}");
    }
    let (code, out, _) = piped(&url("/echo?fault=rst"), &["--wait", "10s"], b"x\n");
    assert_eq!(code, 1);
    assert_eq!(out.lines().last(), Some("Connection closed: 1006 (broken without a Close)."));
}

/// epoll rejects a file and `/dev/null`.
#[test]
fn input_may_be_a_file_or_nothing() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    for (from, want) in [("/dev/null", None), ("/proc/self/comm", Some("< wspulse"))] {
        let shell = format!("exec \"$0\" connect {url} --subprotocol a < {from}");
        let done = Command::new("/bin/sh").args(["-c", &shell, PROGRAM]).output().unwrap();
        let out = String::from_utf8(done.stdout).unwrap();
        assert_eq!(done.status.code(), Some(0), "{out}");
        assert!(out.contains("Subprotocol a.\n"), "{out}");
        assert!(out.ends_with("Connection closed: 1000 (OK).\n"), "{out}");
        assert!(want.is_none_or(|line| out.contains(line)), "{out}");
    }
    // It fails if its output cannot be written.
    let shell = format!("echo hi | \"$0\" connect {url} > /dev/full; echo $?");
    let done = Command::new("/bin/sh").args(["-c", &shell, PROGRAM]).output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "1\n");
}

#[test]
fn large_messages_go_both_ways() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let mut connect = Running::start(&["connect", &url]);
    connect.types(&("x".repeat(999) + "\n").repeat(3_000));
    assert_eq!(connect.line(), format!("Connected to {url}."));
    assert!(connect.line().starts_with("Served by "));
    assert!((0..3_000).all(|_| connect.line().len() == 1_001));
    assert_eq!(connect.end().0, 0);
}

#[test]
fn a_failed_connection_is_one_line() {
    let server = Server::start(&[]);
    for (url, why) in [
        (format!("ws://{}/", closed()), "connection refused"),
        (
            format!("ws://{}/nothing", server.main),
            "upgrade answered with 404: no WebSocket at that path",
        ),
        (format!("ws://{}/", answering(b"\x15\x03\x01\x00\x02\x02\x46")), "the port requires TLS"),
    ] {
        let want = (1, String::new(), format!("Failed to connect to {url}: {why}.\n"));
        assert_eq!(piped(&url, &[], b"hello\n"), want);
    }
    let (code, out, err) = piped("https://localhost/", &[], b"");
    assert_eq!((code, &*out), (2, ""));
    assert!(err.starts_with("wspulse: URL \"https://localhost/\": must begin with ws://"), "{err}");
}
