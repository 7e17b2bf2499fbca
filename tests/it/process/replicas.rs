//! Two real gateways with one key: each passes callbacks on to the other.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::Folder;
use super::running::{Client, PATIENCE, Server};

/// A backend that answers 200, and the connection ids that it receives.
fn backend() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, ids) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || answer(stream, &sender));
        }
    });
    (address, ids)
}

fn answer(stream: TcpStream, ids: &Sender<String>) {
    let mut out = stream.try_clone().unwrap();
    let mut length = 0;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|n| n > 0) {
        if let Some(id) = line.strip_prefix("ConnectionId: ") {
            // The test may be over.
            let _ = ids.send(id.trim().to_owned());
        } else if let Some(bytes) = line.strip_prefix("Content-Length: ") {
            length = bytes.trim().parse().unwrap();
        } else if line == "\r\n" {
            reader.read_exact(&mut vec![0; std::mem::take(&mut length)]).unwrap();
            out.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
        line.clear();
    }
}

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn post(server: &Server, id: &str, body: &str) -> String {
    let mut caller = Client::connect(server.admin);
    let head = format!(
        "POST /prod/@connections/{id} HTTP/1.1\r\nHost: h\r\ntraceparent: {TRACEPARENT}\r\n"
    );
    caller.send(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    caller.line()[..3].to_owned()
}

#[test]
fn any_replica_takes_a_callback() {
    let folder = Folder::new("replicas");
    let keys = folder.0.join("keys");
    fs::write(&keys, "5a".repeat(32)).unwrap();
    let (address, ids) = backend();
    let url = format!("http://{address}");
    let args = [
        "--gateway-backend",
        &url,
        "--gateway-peer-key-file",
        keys.to_str().unwrap(),
        "--gateway-peer-listen",
        "127.0.0.1:0",
        "--log-level",
        "debug",
    ];
    let (mut owner, other) = (Server::start(&args), Server::start(&args));
    let mut client = Client::upgraded(owner.main, "/gateway/prod", &[]);
    let id = ids.recv_timeout(PATIENCE).unwrap();
    assert_eq!(id.len(), 63);
    assert_eq!(post(&other, &id, "through another"), "200");
    assert_eq!(client.line(), "text \"through another\"");
    assert_eq!(owner.wait_for("callback")["trace"], TRACEPARENT);
    assert_eq!(post(&owner, &id, "through its own"), "200");
    assert_eq!(client.line(), "text \"through its own\"");
    owner.child.kill().unwrap();
    owner.child.wait().unwrap();
    let mut status = post(&other, &id, "too late");
    // It went out before the other replica noticed: nobody knows whether it arrived.
    if status == "502" {
        status = post(&other, &id, "too late as well");
    }
    // The address of a killed process refuses connections at once: its ids are gone.
    assert_eq!(status, "410");
}
