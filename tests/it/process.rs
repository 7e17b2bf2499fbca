//! The binary: arguments, environment, exit codes, log lines, signals, real sockets.
//! Tests wait for conditions, not for fixed times, and each wait has a timeout.

mod exposure;
mod health;
#[cfg(feature = "gateway")]
mod json;
mod local;
mod proxied;
#[cfg(feature = "gateway")]
mod replicas;
pub(crate) mod running;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tls")]
mod tls_client;
#[cfg(feature = "tls")]
mod tls_facts;
#[cfg(all(feature = "tls", feature = "gateway"))]
mod tls_gateway;
#[cfg(feature = "tls")]
mod tls_handshakes;
#[cfg(all(feature = "tls", feature = "informer"))]
mod tls_kube;
#[cfg(all(feature = "tls", feature = "tools"))]
mod tls_tools;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::peer::{close, frame, text};
use crate::unique_keys;
use running::{Client, LISTENERS, PROGRAM, Server};

#[test]
fn serves_on_both_listeners() {
    let server = Server::start(&[]);
    let (mut main, mut admin) = (Client::connect(server.main), Client::connect(server.admin));
    assert!(main.get("/").starts_with("200 content-type=\"text/html; charset=utf-8\""));
    for client in [&mut main, &mut admin] {
        assert!(client.get("/healthz").ends_with("\"OK\\n\""));
        assert!(client.get("/readyz").ends_with("\"OK\\n\""));
    }
    assert!(admin.get("/").starts_with("404 "));
    assert!(admin.get("/whoami").starts_with("404 "));
}

#[test]
fn echoes_up_to_a_mebibyte() {
    let server = Server::start(&[]);
    let mut client = Client::upgraded(server.main, "/echo", &[]);
    client.send(&text("hello"));
    assert_eq!(client.line(), "text \"hello\"");
    client.send(&frame(0x82, &vec![b'x'; 1 << 20]));
    assert_eq!(client.line(), "binary (1048576 bytes)");
    client.send(&close(1000, "bye"));
    assert_eq!(client.line(), "close 1000 \"bye\"");
    client.expect_end();
}

/// TCP urgent data is not part of the byte stream.
#[test]
fn urgent_data_is_not_part_of_the_stream() {
    let server = Server::start(&[]);
    let mut client = Client::upgraded(server.main, "/echo", &[]);
    socket2::SockRef::from(&client.stream).send_out_of_band(b"!").unwrap();
    client.send(&text("hello"));
    assert_eq!(client.line(), "text \"hello\"");
}

#[test]
fn tungstenite_understands_every_frame() {
    let server = Server::start(&[]);
    let client = Client::upgraded(server.main, "/echo", &[]);
    let mut socket = WebSocket::from_raw_socket(client.stream, Role::Client, None);
    let long: String = "κόσμε ☃ ".repeat(20_000);
    let messages = [
        Message::text(""),
        Message::text("hello"),
        Message::text(long),
        Message::binary(vec![0_u8; 0]),
        Message::binary(vec![0xff_u8; 126]),
        Message::binary(vec![7_u8; 65_536]),
        Message::binary(vec![7_u8; 1 << 20]),
    ];
    for message in messages {
        socket.send(message.clone()).unwrap();
        assert_eq!(socket.read().unwrap(), message);
    }
    socket.send(Message::Ping(b"here?"[..].into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(b"here?"[..].into()));
    socket.close(None).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Close(None));
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn a_signal_drains() {
    for signal in ["TERM", "INT"] {
        let mut server = Server::start(&[]);
        let mut client = Client::upgraded(server.main, "/echo", &[]);
        server.signal(signal);
        assert_eq!(client.line(), "close 1001 \"draining\"");
        client.send(&close(1001, ""));
        client.expect_end();
        drop(client);
        assert_eq!(server.exit(), Some(0));
        let drained = server.log.last().unwrap();
        assert_eq!((&drained["event"], &drained["message"]), (&"drain".into(), &"drained".into()));
        assert_eq!((&drained["clean"], &drained["forced"]), (&1.into(), &0.into()));
    }
}

#[test]
fn a_signal_right_after_the_banner_stops_cleanly() {
    for _ in 0..20 {
        let mut command = Command::new(PROGRAM);
        command.args(LISTENERS);
        let mut server = Server::spawn(command);
        // A shell that is already running: starting one would give the server milliseconds.
        let kill = format!("read go; kill -TERM {}", server.child.id());
        let shell = Command::new("/bin/sh").args(["-c", &kill]).stdin(Stdio::piped()).spawn();
        let mut shell = shell.unwrap();
        server.wait_for("listening");
        shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert!(shell.wait().unwrap().success());
        assert_eq!(server.exit(), Some(0), "a server that listens handles signals");
        assert_eq!(server.logged("drain").len(), 2);
    }
}

/// A server that has ignored the repetition of a signal. On a busy machine the second one may come
/// later than a second after the first, and count: then it is tried again.
fn twice_signalled() -> (Server, Client) {
    for _ in 0..5 {
        let server = Server::start(&[]);
        let mut client = Client::upgraded(server.main, "/echo", &[]);
        server.signal("TERM");
        assert_eq!(client.line(), "close 1001 \"draining\"");
        server.signal("TERM");
        if client.is_left_alone(1_100) {
            return (server, client);
        }
    }
    panic!("a repeat within a second is ignored")
}

#[test]
fn a_second_signal_ends_at_once_and_a_repeat_does_not() {
    let (mut server, mut client) = twice_signalled();
    server.signal("TERM");
    let mut rest = Vec::new();
    let ended = client.stream.read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
    assert_eq!(server.exit(), Some(0));
    let drained = *server.logged("drain").last().unwrap();
    assert_eq!((&drained["clean"], &drained["forced"]), (&0.into(), &1.into()));
    let elapsed_ms = drained["elapsed_ms"].as_u64().unwrap();
    assert!((1_000..2_500).contains(&elapsed_ms), "{elapsed_ms} ms");
}

/// Runs it until it exits.
fn output(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let variables = variables.iter().copied();
    let ended = Command::new(PROGRAM).args(arguments).env_clear().envs(variables).output();
    let Output { status, stdout, stderr } = ended.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A full disk lost the report, after more than a minute.
#[test]
#[cfg(feature = "tools")]
fn a_probe_prints_its_report_although_its_file_cannot_be_written() {
    let server = Server::start(&[]);
    let url = format!("ws://{}/echo", server.main);
    let (code, page, error) = output(&["probe", &url, "--quick", "--junit", "/dev/full"], &[]);
    assert!(page.contains("this path carries WebSockets"), "{page}");
    assert!(error.starts_with("wspulse: --junit: cannot write /dev/full: No space"), "{error}");
    assert_eq!(code, 1);
}

#[test]
fn invalid_arguments_are_reported_in_one_line() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let in_use =
        "Address already in use (os error 98): stop the other process, or choose another port";
    for (arguments, line) in [
        (&["--listen", &address][..], format!("--listen: cannot listen on {address}: {in_use}")),
        (
            &["--listen", "127.0.0.1:0", "--admin-listen", &address],
            format!("--admin-listen: cannot listen on {address}: {in_use}"),
        ),
        (
            &["--listen", "127.0.0.1:0", "--assets", "/nowhere"],
            "--assets: cannot serve /nowhere: No such file or directory (os error 2)".to_owned(),
        ),
    ] {
        let as_text = [arguments, &["--log-format", "text"]].concat();
        assert_eq!(output(&as_text, &[]), (1, String::new(), format!("wspulse: {line}\n")));
        let (code, _, json) = output(arguments, &[]);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((code, json["message"].as_str()), (1, Some(&*line)));
        assert_eq!((&json["level"], &json["event"]), (&"error".into(), &"exit".into()));
    }
}

#[test]
fn unusable_values_are_named_with_a_remedy() {
    let cases: [(&[&str], (&str, &str), &str); 9] = [
        (&["--nonsense"], ("", ""), "unknown flag --nonsense"),
        (&["--lissten", "x"], ("", ""), "unknown flag --lissten; did you mean --listen?"),
        (&["serf"], ("", ""), "unknown command serf; did you mean serve?"),
        (
            &["--max-message", "huge"],
            ("", ""),
            "--max-message \"huge\": must be a size such as 64KiB or 1MiB",
        ),
        (
            &["--drain-window", "9s"],
            ("", ""),
            "--drain-delay 0s + --drain-window 9s + 5s for close handshakes = 14s, longer than \
             --drain-timeout 8s: raise it or shorten the others",
        ),
        (&[], ("WSPULSE_NONSENSE", "1"), "unknown variable WSPULSE_NONSENSE"),
        (
            &[],
            ("WSPULSE_PING_INTERVAL", "soon"),
            "WSPULSE_PING_INTERVAL \"soon\": must be a time such as 250ms, 10s or 2h",
        ),
        (
            &["healthcheck", "--timeot", "2s"],
            ("", ""),
            "unknown flag --timeot; did you mean --timeout?",
        ),
        (&[], ("PORT", "http"), "PORT \"http\": must have a port from 0 to 65535"),
    ];
    for (arguments, (name, value), line) in cases {
        let variables: &[_] = if name.is_empty() { &[] } else { &[(name, value)] };
        let is_health = arguments.first() == Some(&"healthcheck");
        let command = if is_health { " healthcheck" } else { "" };
        let want = format!("wspulse: {line}\ntry: wspulse{command} --help\n");
        let want = (2, String::new(), want);
        assert_eq!(output(arguments, variables), want);
    }
}

#[test]
fn prints_its_settings_and_checks_them() {
    let (code, stdout, stderr) = output(&["--print-config", "--listen", ":9000"], &[]);
    assert_eq!((code, &*stderr), (0, ""));
    let setting = |words: &[&str]| {
        stdout.lines().any(|line| line.split_whitespace().eq(words.iter().copied()))
    };
    assert!(setting(&["listen", "[::]:9000", "flag"]), "{stdout}");
    assert!(setting(&["max-message", "1MiB", "default"]), "{stdout}");
    assert!(setting(&["request", "line", "4KiB", "414"]), "{stdout}");
    let (code, stdout, stderr) = output(&["--print-config"], &[("WSPULSE_FAULTS", "1")]);
    assert_eq!((code, &*stderr), (0, ""));
    assert!(stdout.contains("environment WSPULSE_FAULTS\n"), "{stdout}");
    let fine = (0, "the settings can be used\n".to_owned(), String::new());
    // --check opens nothing, so a port in use does not matter.
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    assert_eq!(output(&["--check", "--listen", &address], &[]), fine);
    assert_eq!(output(&["serve", "--check"], &[]), fine);
    assert_eq!(output(&["--check", "--max-message", "huge"], &[]).0, 2);
    // What they refer to is read.
    assert_eq!(output(&["--check", "--assets", "/nonexistent"], &[]).0, 1);
}

#[test]
fn variables_of_a_service_of_the_same_name_are_ignored() {
    let variables = [
        ("WSPULSE_SERVICE_HOST", "10.96.0.1"),
        ("WSPULSE_SERVICE_PORT", "8080"),
        ("WSPULSE_SERVICE_PORT_HTTP", "8080"),
        ("WSPULSE_PORT", "tcp://10.96.0.1:8080"),
        ("WSPULSE_PORT_8080_TCP", "tcp://10.96.0.1:8080"),
        ("WSPULSE_PORT_8080_TCP_PROTO", "tcp"),
        ("WSPULSE_PORT_8080_TCP_PORT", "8080"),
        ("WSPULSE_PORT_8080_TCP_ADDR", "10.96.0.1"),
        ("WSPULSE_PORT_53_UDP", "udp://10.96.0.1:53"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
    ];
    assert_eq!(output(&["--check"], &variables).0, 0);
    let (_, stdout, _) = output(&["--print-config"], &variables);
    assert!(stdout.contains("auto (kubernetes)") && stdout.contains("[::]:8080"), "{stdout}");
}

/// A directory that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("wspulse-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Leftovers are removed by the system.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn sighup_reloads_the_files() {
    let folder = Folder::new("assets");
    fs::write(folder.0.join("index.html"), "one").unwrap();
    let mut server = Server::start(&["--assets", folder.0.to_str().unwrap()]);
    let mut client = Client::connect(server.main);
    assert!(client.get("/").ends_with(" \"one\""));
    fs::write(folder.0.join("index.html"), "two").unwrap();
    fs::write(folder.0.join("new.txt"), "new").unwrap();
    assert!(client.get("/").ends_with(" \"one\""), "no file is read while serving");
    assert!(client.get("/new.txt").starts_with("404 "));
    server.signal("HUP");
    assert_eq!(server.wait_for("reload")["files"], 2);
    assert!(client.get("/").ends_with(" \"two\""));
    assert!(client.get("/new.txt").ends_with(" \"new\""));
    fs::remove_dir_all(&folder.0).unwrap();
    server.signal("HUP");
    assert_eq!(server.wait_for("reload")["level"], "warn");
    assert!(client.get("/").ends_with(" \"two\""), "unreadable files keep their old content");
}

/// Regression: with little CPU, compressing all files took seconds, and no client was served.
#[cfg(feature = "deflate")]
#[test]
fn sighup_does_not_block_the_loop() {
    let folder = Folder::new("many-assets");
    let words: Vec<String> = (0..150_000_u32).map(|n| format!("{:x}", n.wrapping_mul(n))).collect();
    let words = words.join(" ");
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        fs::write(folder.0.join(format!("{name}.txt")), &words[..1 << 20]).unwrap();
    }
    let mut server = Server::start(&["--assets", folder.0.to_str().unwrap()]);
    let mut admin = Client::connect(server.admin);
    assert!(admin.get("/healthz").starts_with("200 "));
    for _ in 0..3 {
        server.signal("HUP");
        assert!(admin.get("/healthz").starts_with("200 "));
    }
    assert!(server.lines.try_recv().is_err(), "it answers only when the files are read");
    // Any number of signals during a reload cause one more reload.
    assert_eq!(server.wait_for("reload")["files"], 7);
    assert_eq!(server.wait_for("reload")["files"], 7);
    server.signal("TERM");
    assert_eq!(server.exit(), Some(0));
    assert_eq!(server.logged("reload").len(), 2);
}

/// Regression: after SIGCONT timers fired before input that had arrived meanwhile was read.
#[test]
fn a_pong_that_came_while_the_process_was_stopped_counts() {
    let server = Server::start(&["--ping-interval", "100ms", "--pong-timeout", "200ms"]);
    let mut client = Client::upgraded(server.main, "/echo", &[]);
    assert_eq!(client.line(), "ping (8 bytes)");
    server.signal("STOP");
    client.send(&frame(0x8a, b""));
    // No event tells that a timeout has passed in a stopped process.
    assert!(client.is_left_alone(300));
    server.signal("CONT");
    assert_eq!(client.line(), "ping (8 bytes)");
    client.send(&text("still here"));
    assert_eq!(client.line(), "text \"still here\"");
}

#[test]
fn a_line_of_statistics_on_request() {
    let mut server = Server::start(&[]);
    let _client = Client::upgraded(server.main, "/echo", &[]);
    let mut admin = Client::connect(server.admin);
    admin.get("/healthz");
    server.signal("USR1");
    let report = server.wait_for("report");
    assert_eq!((&report["connections"], &report["websockets"]), (&1.into(), &1.into()));
    assert_eq!((&report["admin"], &report["buffered_bytes"]), (&1.into(), &0.into()));
}

#[test]
fn one_log_line_for_each_websocket_without_its_payloads() {
    let mut server = Server::start(&["--log-level", "trace"]);
    let fields = ["X-Forwarded-For: 203.0.113.7", "Cookie: hunter2"];
    let mut client = Client::upgraded(server.main, "/echo?delay=1ms", &fields);
    client.send(&text("hunter2"));
    assert_eq!(client.line(), "text \"hunter2\"");
    client.send(&frame(0x89, b"hunter2"));
    assert_eq!(client.line(), "pong \"hunter2\"");
    client.send(&close(4000, "hunter2"));
    assert_eq!(client.line(), "close 4000 \"hunter2\"");
    let closed = server.wait_for("close");
    assert_eq!(closed["mount"], "/echo");
    assert_eq!(closed["peer"], client.stream.local_addr().unwrap().to_string());
    assert_eq!(closed["forwarded"], "203.0.113.7");
    assert_eq!((&closed["code"], &closed["initiator"]), (&4000.into(), &"client".into()));
    assert_eq!((&closed["messages_in"], &closed["messages_out"]), (&1.into(), &1.into()));
    assert_eq!((&closed["bytes_in"], &closed["bytes_out"]), (&7.into(), &7.into()));
    assert!(closed["duration_ms"].as_u64().unwrap() < 4_000);
    // An incomplete request, and a field with a terminal escape sequence.
    Client::connect(server.main).send(b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: \xff\x1b");
    drop(Client::upgraded(
        server.main,
        "/echo",
        &["X-Forwarded-For: caf\u{e9}", "Origin: http://example.test"],
    ));
    assert_eq!(server.wait_for("close")["code"], 1006);
    server.signal("TERM");
    assert_eq!(server.exit(), Some(0));
    assert_eq!(server.logged("close").len(), 2);
    let log = format!("{:?}", server.log);
    assert!(!log.contains("hunter2") && !log.contains("caf"), "{log}");
    let mut server = Server::start(&["--log-payloads"]);
    let mut client = Client::upgraded(server.main, "/echo", &[]);
    client.send(&text("asked for \x1b[2J"));
    assert_eq!(server.wait_for("payload")["payload"], "asked for \x1b[2J");
}

/// CPU time of a process.
fn cpu_ns(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    stat.split(' ').next().unwrap().parse().unwrap()
}

/// A server with 40 descriptors, and clients that use all of them.
fn without_descriptors() -> (Server, Vec<Client>) {
    let mut command = Command::new("/bin/sh");
    let limited = "ulimit -n 40; exec \"$0\" \"$@\" --max-connections 1000";
    command.args(["-c", limited, PROGRAM]).args(LISTENERS);
    let server = Server::run(command);
    let mut clients = vec![Client::connect(server.main)];
    // Once it answers, it has opened all files of its own.
    assert!(clients[0].get("/healthz").starts_with("200 "));
    let open = fs::read_dir(format!("/proc/{}/fd", server.child.id())).unwrap();
    let number = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap().parse::<u32>();
    // Inherited descriptors above the limit do not count.
    let taken = open.filter(|open| number(open.as_ref().unwrap()).unwrap() < 40).count();
    clients.extend((taken..40).map(|_| Client::connect(server.main)));
    assert!(clients.len() > 10, "{taken} descriptors are in use at start");
    (server, clients)
}

#[test]
fn descriptors_run_out() {
    let (server, mut clients) = without_descriptors();
    let is_answered = |client: &mut Client| assert!(client.get("/healthz").starts_with("200 "));
    clients.iter_mut().for_each(is_answered);
    for _ in 0..10 {
        let mut refused = Client::connect(server.main);
        let line = refused.line();
        assert!(line.starts_with("503 ") && line.contains("retry-after="), "{line}");
        refused.expect_end();
    }
    clients.iter_mut().for_each(is_answered);
    for mut gone in clients.drain(..5) {
        gone.stream.shutdown(Shutdown::Write).unwrap();
        gone.expect_end();
    }
    let mut freed: Vec<Client> = (0..5).map(|_| Client::connect(server.main)).collect();
    freed.iter_mut().for_each(is_answered);
}

#[test]
fn without_descriptors_it_still_sleeps() {
    let (mut server, mut clients) = without_descriptors();
    for client in &mut clients {
        assert!(client.get("/livez").starts_with("200 "));
    }
    assert!(Client::connect(server.main).line().starts_with("503 "));
    assert!(clients[0].is_left_alone(300));
    server.log.extend(server.lines.try_iter().map(|line| unique_keys::read(&line)));
    let (logged, before_ns) = (server.log.len(), cpu_ns(server.child.id()));
    assert!(clients[0].is_left_alone(600));
    let spent_ns = cpu_ns(server.child.id()) - before_ns;
    assert!(spent_ns < 20_000_000, "{spent_ns} ns computed in 600 ms without anything to do");
    server.log.extend(server.lines.try_iter().map(|line| unique_keys::read(&line)));
    assert!(
        server.log.len() <= logged + 1,
        "log lines without a connection: {:?}",
        &server.log[logged..]
    );
}

/// Regression: lingering refusals used the descriptors that are reserved for probes.
#[test]
fn few_descriptors_leave_some_for_the_admin_side() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", PROGRAM]).args(LISTENERS);
    let server = Server::run(command);
    let clients: Vec<Client> = (0..100).map(|_| Client::connect(server.main)).collect();
    let mut probes: Vec<Client> = (0..8).map(|_| Client::connect(server.admin)).collect();
    for probe in &mut probes {
        assert!(probe.get("/healthz").starts_with("200 "));
    }
    drop(clients);
}
