//! Unix sockets, socket activation, and notifications to the service manager.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;

use super::running::PATIENCE;
use super::*;

/// Sends a request to a Unix socket; returns the response.
fn ask(path: &PathBuf, request: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
}

/// A server on Unix sockets in this folder.
fn start(folder: &Folder) -> (Server, PathBuf, PathBuf) {
    let (main, admin) = (folder.0.join("main"), folder.0.join("admin"));
    let mut command = Command::new(PROGRAM);
    command.arg("--listen").arg(format!("unix:{}", main.display()));
    command.arg("--admin-listen").arg(format!("unix:{}", admin.display()));
    let mut server = Server::spawn(command);
    server.wait_for("start");
    (server, main, admin)
}

#[test]
fn serves_on_unix_sockets_and_removes_them() {
    let folder = Folder::new("unix");
    let (mut server, main, admin) = start(&folder);
    let banner = server.logged("listening");
    assert_eq!(banner[0]["address"], format!("unix:{}", main.display()));
    assert!(ask(&main, &get("/whoami")).contains("\"peer\":\"unix\""));
    assert!(ask(&admin, &get("/healthz")).ends_with("\r\n\r\nOK\n"));
    let mut client = UnixStream::connect(&main).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&crate::peer::upgrade("/echo", &[])).unwrap();
    client.write_all(&frame(0x82, &vec![b'x'; 1 << 20])).unwrap();
    let mut answer = vec![0; 1 << 20];
    client.read_exact(&mut answer).unwrap();
    server.signal("TERM");
    assert_eq!(server.wait_for("drain")["message"], "draining");
    drop(client);
    let closed = server.wait_for("close");
    assert_eq!(closed["peer"], "unix");
    assert_eq!(server.exit(), Some(0));
    assert!(!main.exists() && !admin.exists(), "the socket files are removed");
}

#[test]
fn a_stale_unix_socket_is_replaced_and_nothing_else_is() {
    let folder = Folder::new("stale");
    let (mut server, main, _) = start(&folder);
    // Killed, so the files stay.
    server.child.kill().unwrap();
    server.exit();
    assert!(main.exists());
    let (mut server, main, admin) = start(&folder);
    assert!(ask(&main, &get("/healthz")).ends_with("OK\n"));
    let refused = |path: &PathBuf, why: &str| {
        let at = format!("unix:{}", path.display());
        let arguments = ["--listen", &at, "--admin-listen", "off", "--log-format", "text"];
        let line = format!("wspulse: --listen: cannot listen on {at}: {why}\n");
        assert_eq!(output(&arguments, &[]), (1, String::new(), line));
    };
    let in_use =
        "Address already in use (os error 98): stop the other process, or choose another path";
    refused(&main, in_use);
    let datagrams = folder.0.join("datagrams");
    let _bound = UnixDatagram::bind(&datagrams).unwrap();
    refused(&datagrams, in_use);
    let file = folder.0.join("file");
    fs::write(&file, "precious").unwrap();
    let there = "the file exists: only a stale socket is replaced: move the file away";
    refused(&file, there);
    refused(&folder.0, there);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    let nowhere = "No such file or directory (os error 2): create its directory first";
    refused(&folder.0.join("no/where"), nowhere);
    // Replaced by another process: it stays.
    fs::remove_file(&admin).unwrap();
    let _taken_over = UnixListener::bind(&admin).unwrap();
    assert!(ask(&main, &get("/healthz")).ends_with("OK\n"), "the refused servers did no harm");
    server.signal("TERM");
    assert_eq!(server.exit(), Some(0));
    assert!(!main.exists() && admin.exists());
}

/// A server with these sockets as descriptors 3 and 4, and these variables.
fn passed(sockets: [OwnedFd; 2], variables: &str, arguments: &[&str]) -> Server {
    let script = format!("{variables} exec \"$0\" \"$@\" 3<&0 4<&1 </dev/null >/dev/null");
    let mut command = Command::new("/bin/sh");
    let [third, fourth] = sockets;
    command.args(["-c", &script, PROGRAM]).args(arguments);
    command.stdin(Stdio::from(third)).stdout(Stdio::from(fourth));
    Server::spawn(command)
}

#[test]
fn passed_sockets_win_over_flags() {
    let folder = Folder::new("passed");
    let (tcp, path) = (TcpListener::bind("127.0.0.1:0").unwrap(), folder.0.join("admin"));
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let variables = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=admin:other";
    let sockets = [unix.into(), tcp.into()];
    let mut server = passed(sockets, variables, &["--listen", "192.0.2.1:1"]);
    server.wait_for("start");
    assert_eq!(server.logged("listening").len(), 2);
    assert_eq!(server.logged("passed").len(), 1);
    assert!(Client::connect(address).get("/whoami").starts_with("200 "));
    assert!(ask(&path, &get("/whoami")).starts_with("HTTP/1.1 404 "));
    server.signal("TERM");
    assert_eq!(server.exit(), Some(0));
    assert!(path.exists(), "it belongs to the parent");
}

#[test]
fn sockets_passed_to_another_process_or_of_another_kind() {
    let pair = || {
        let (one, two) = UnixStream::pair().unwrap();
        [one.into(), two.into()]
    };
    // Variables that were meant for a parent process.
    for variables in ["LISTEN_PID=1 LISTEN_FDS=2", "LISTEN_FDS=2", "LISTEN_PID=$$ LISTEN_FDS=no"] {
        let mut server = passed(pair(), variables, &LISTENERS);
        server.wait_for("start");
        assert_eq!(server.logged("passed").len(), 0, "{variables}");
    }
    for (variables, want) in [
        ("LISTEN_PID=$$ LISTEN_FDS=2", "descriptor 3 is not a listening TCP or Unix stream socket"),
        ("LISTEN_PID=$$ LISTEN_FDS=65", "65 sockets were passed"),
    ] {
        let mut server = passed(pair(), variables, &LISTENERS);
        let why = server.wait_for("exit");
        assert!(why["message"].as_str().unwrap().contains(want), "{why}");
        assert_eq!(server.exit(), Some(1));
    }
}

/// The next notification.
fn notification(manager: &UnixDatagram) -> String {
    let mut news = [0; 4096];
    let n = loop {
        match manager.recv(&mut news) {
            // With a socket timeout the kernel does not restart the call after a signal.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            received => break received.unwrap(),
        }
    };
    String::from_utf8(news[..n].to_vec()).unwrap()
}

#[test]
fn the_service_manager_is_notified() {
    let folder = Folder::new("notify");
    let path = folder.0.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let (one, two) = UnixStream::pair().unwrap();
    let variables = format!("NOTIFY_SOCKET={}", path.display());
    let mut server = passed([one.into(), two.into()], &variables, &LISTENERS);
    assert_eq!(notification(&manager), "READY=1\nSTATUS=0 connections, 0 WebSockets\n");
    server.wait_for("start");
    let address = |side: usize| {
        server.logged("listening")[side]["address"].as_str().unwrap().parse().unwrap()
    };
    let (main, admin) = (address(0), address(1));
    let mut client = Client::upgraded(main, "/echo", &[]);
    // Within seconds of the first notification: delayed, but sent.
    assert_eq!(notification(&manager), "STATUS=1 connection, 1 WebSocket\n");
    // A drain announced by a hook can be cancelled, so it is not reported as STOPPING.
    let mut hook = Client::connect(admin);
    hook.send(b"POST /drain HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(hook.line().starts_with("200 "));
    server.signal("HUP");
    let reloading = notification(&manager);
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(notification(&manager), "READY=1\n");
    server.signal("TERM");
    let stopping = notification(&manager);
    let lines: Vec<&str> = stopping.lines().collect();
    assert_eq!((lines[0], lines[2]), ("STOPPING=1", "STATUS=draining, 1 connection, 1 WebSocket"));
    let extended_us: u64 = lines[1].strip_prefix("EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
    assert!((9_000_000..=10_000_000).contains(&extended_us), "{extended_us}");
    assert_eq!(client.line(), "close 1001 \"draining\"");
    client.send(&close(1001, ""));
    client.expect_end();
    drop(client);
    assert_eq!(server.exit(), Some(0));
}

#[test]
fn the_loop_pings_the_watchdog() {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("wspulse-notify-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = UnixDatagram::bind_addr(&address).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let pair = || {
        let (one, two) = UnixStream::pair().unwrap();
        [one.into(), two.into()]
    };
    let variables = format!("NOTIFY_SOCKET=@{name} WATCHDOG_USEC=100000");
    let mut server = passed(pair(), &format!("{variables} WATCHDOG_PID=$$"), &LISTENERS);
    assert!(notification(&manager).ends_with("WATCHDOG=1\n"));
    assert_eq!(notification(&manager), "WATCHDOG=1\n");
    // A stopped loop sends no ping.
    server.signal("STOP");
    manager.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    // Notifications from before the stop are still queued.
    assert!((0..4).any(|_| manager.recv(&mut [0; 64]).is_err()), "pings from a stopped process");
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    server.signal("CONT");
    assert_eq!(notification(&manager), "WATCHDOG=1\n");
    server.child.kill().unwrap();
    server.exit();
    let server = passed(pair(), &format!("{variables} WATCHDOG_PID=1"), &LISTENERS);
    let mut first = notification(&manager);
    while first == "WATCHDOG=1\n" {
        first = notification(&manager);
    }
    assert_eq!(first, "READY=1\nSTATUS=0 connections, 0 WebSockets\n", "not meant for us");
    drop(server);
}
