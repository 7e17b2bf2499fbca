//! No JSON response has a duplicate key, with all features on. `peer` checks it when it parses a
//! response, here and in all other tests.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};

use wspulse::{parts, server};

use super::running::{Client, PATIENCE, PROGRAM, Server};

/// Routes that end the server or block it for a while.
const NOT_ASKED: [&str; 3] = ["/api/shutdown", "/inemuri", "/seppuku"];

/// A backend that answers 200, and the connection ids that it receives.
fn agreeable() -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, ids) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut bytes = [0; 4096];
            let n = stream.read(&mut bytes).unwrap_or(0);
            let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            let head = String::from_utf8_lossy(&bytes[..n]);
            let id = head.lines().find_map(|line| line.strip_prefix("ConnectionId: "));
            // The client and the test may have finished already.
            let _ = (sender.send(id.unwrap_or_default().to_owned()), stream.write_all(answer));
        }
    });
    (url, ids)
}

/// The paths with a JSON response.
fn answer_json(client: &mut Client, id: &str, there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let rows = server::routes().chain(parts::routes());
    let rows = rows.filter(|row| there(&row.place()) && !NOT_ASKED.contains(&row.path));
    let asked = rows.filter(|row| {
        let path = row.path.replace("{stage}", "prod").replace("{id}", id);
        let line = client.get(&path);
        assert!(!line.starts_with("404 "), "{path}: {line}");
        line.contains("application/json")
    });
    asked.map(|row| row.path).collect()
}

#[test]
fn no_duplicate_keys() {
    let (url, ids) = agreeable();
    let server = Server::start(&["--faults", "--gateway-backend", &url, "--memory-limit", "1GiB"]);
    let _member = Client::upgraded(server.main, "/gateway/prod", &[]);
    let id = ids.recv_timeout(PATIENCE).unwrap();
    let main = |place: &str| {
        place == "main" || (place.starts_with("both") && !place.contains("wspulse backend"))
    };
    let found = answer_json(&mut Client::connect(server.main), &id, main);
    assert_eq!(found, ["/version", "/whoami"]);
    let admin = |place: &str| {
        place.starts_with("admin")
            || (place.starts_with("both") && !place.contains("wspulse backend"))
    };
    let found = answer_json(&mut Client::connect(server.admin), &id, admin);
    let callbacks = ["/{stage}/@connections/{id}", "/@connections/{id}"];
    assert_eq!(found, [&["/stats", "/drain"][..], &callbacks].concat());
    // Messages are checked as well.
    let mut greeted = Client::upgraded(server.main, "/echo?hello=1", &[]);
    assert!(greeted.line().contains("connection"));
    let mut mirrored = Client::upgraded(server.main, "/socket", &[]);
    mirrored.line();
}

#[test]
fn no_duplicate_keys_in_the_backend() {
    let mut command = Command::new(PROGRAM);
    command.args(["backend", "--listen", "127.0.0.1:0"]);
    let mut server = Server::spawn(command);
    server.wait_for("start");
    let address = server.logged("listening")[0]["address"].as_str().unwrap().parse().unwrap();
    let all = |place: &str| {
        place == "both" || place.contains("wspulse backend") || place == "admin, backend"
    };
    assert_eq!(answer_json(&mut Client::connect(address), "", all), ["/stats"]);
}
