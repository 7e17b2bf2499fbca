//! `wspulse healthcheck`: its URL, its output, its exit code.

use std::os::unix::net::UnixListener;

use super::*;

/// Returns the exit code and the one line of output.
fn healthcheck(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let (code, line, errors) = output(&[&["healthcheck"], arguments].concat(), variables);
    assert_eq!((line.lines().count(), &*errors), (1, ""), "{line}");
    (code, line.trim_end().to_owned())
}

#[test]
fn asks_the_running_server() {
    let mut server = Server::start(&["--profile", "kubernetes"]);
    let (main, admin) = (format!("http://{}", server.main), format!("http://{}", server.admin));
    let fine = |url: &str| (0, format!("{url}: 200 OK"));
    assert_eq!(healthcheck(&[&main], &[]), fine(&format!("{main}/healthz")));
    let place = server.admin.to_string();
    let variables = [("WSPULSE_ADMIN_LISTEN", &*place)];
    assert_eq!(healthcheck(&[], &variables), fine(&format!("{admin}/healthz")));
    let port = server.main.port().to_string();
    let variables = [("WSPULSE_ADMIN_LISTEN", "off"), ("PORT", &port)];
    let local = format!("http://localhost:{port}/readyz");
    assert_eq!(healthcheck(&["--ready"], &variables), fine(&local));
    assert_eq!(healthcheck(&[&format!("{main}/echo")], &[]).0, 1, "426 is not healthy");
    // An open connection keeps the drain going.
    let _client = Client::upgraded(server.main, "/echo", &[]);
    server.signal("TERM");
    server.wait_for("drain");
    assert_eq!(healthcheck(&[&main], &[]).0, 0);
    let draining = (1, format!("{main}/readyz: 503 draining"));
    assert_eq!(healthcheck(&["--ready", &main], &[]), draining);
    server.child.kill().unwrap();
    server.exit();
    let refused = (1, format!("{main}/healthz: connection refused"));
    assert_eq!(healthcheck(&[&main], &[]), refused);
}

#[test]
fn says_why_there_is_no_answer() {
    let folder = Folder::new("health");
    // It listens and never accepts.
    let path = folder.0.join("silent");
    let _silent = UnixListener::bind(&path).unwrap();
    let url = format!("unix:{}", path.display());
    let slow = format!("{url} /healthz: timed out after 50ms: no response");
    assert_eq!(healthcheck(&[&url, "--timeout", "50ms"], &[]), (1, slow));
    let nothing = format!("{url}x /healthz: address unreachable");
    assert_eq!(healthcheck(&[&format!("{url}x")], &[]), (1, nothing));
    let rude = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = rude.local_addr().unwrap();
    let answers = std::thread::spawn(move || {
        for answer in ["SSH-2.0-x\r\n", "", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi"] {
            let mut stream = rude.accept().unwrap().0;
            stream.read_exact(&mut [0; 16]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            // Reads to the end, since an early close would reset it.
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    for why in [
        "the response is not HTTP",
        "the connection was closed without a response",
        "the connection was closed in the middle of the response",
    ] {
        let line = format!("http://{address}/healthz: {why}");
        assert_eq!(healthcheck(&[&format!("http://{address}")], &[]), (1, line));
    }
    answers.join().unwrap();
    // `.invalid` never resolves (RFC 6761 §6.4), but the resolver may not answer.
    let (code, line) = healthcheck(&["http://no.invalid", "--timeout", "300ms"], &[]);
    let whys = ["its name cannot be looked up", "timed out after 300ms: cannot connect"];
    let possible = whys.map(|why| format!("http://no.invalid/healthz: {why}"));
    assert!(code == 1 && possible.contains(&line), "{line}");
}
