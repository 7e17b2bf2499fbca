//! TLS handshakes that are refused or never end: their cost, and what clients receive.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use super::running::PATIENCE;
use super::tls::{Authority, Secured, start};
use super::*;

const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

/// The first bytes of a `ClientHello` with a length of 65 000.
fn endless_hello(bytes: usize) -> Vec<u8> {
    let mut hello = vec![1, 0, 0xfd, 0xe8];
    hello.resize(bytes, 3);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[0x16, 3, 1][..], &length, part].concat()
    };
    hello.chunks(16_000).flat_map(record).collect()
}

fn resident_kib(server: &Server) -> usize {
    let statm = fs::read_to_string(format!("/proc/{}/statm", server.child.id())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// Regression: 256 of them used 16 MiB.
#[test]
fn half_handshakes_cost_little() {
    let (folder, authority) = (Folder::new("tls-endless"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &[]);
    let mut admin = Client::connect(server.admin);
    let before_kib = resident_kib(&server);
    let attackers = (0..300).map(|_| {
        let mut stream = TcpStream::connect(server.main).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be refused before it has sent everything.
        let _ = stream.write_all(&endless_hello(60_000));
        stream
    });
    let attackers: Vec<TcpStream> = attackers.collect();
    for mut stream in attackers {
        let mut output = Vec::new();
        let ended = stream.read_to_end(&mut output);
        let reset = ended.as_ref().is_err_and(|why| why.kind() == ErrorKind::ConnectionReset);
        assert!(output.is_empty() && (ended.is_ok() || reset), "refused at once");
    }
    assert!(admin.get("/healthz").starts_with("200 "));
    let grown_kib = resident_kib(&server).saturating_sub(before_kib);
    assert!(grown_kib < 10 * 1024, "{grown_kib} KiB for 300 handshakes");
    // Shorter ones stay until the timeout and hold no more than they sent.
    let silent = (0..300).map(|_| {
        let mut stream = TcpStream::connect(server.main).unwrap();
        stream.write_all(&endless_hello(12_000)).unwrap();
        stream
    });
    let silent: Vec<TcpStream> = silent.collect();
    assert!(admin.get("/healthz").starts_with("200 "));
    let grown_kib = resident_kib(&server).saturating_sub(before_kib);
    assert!(grown_kib < 10 * 1024, "{grown_kib} KiB for 300 handshakes that wait");
    drop(silent);
}

#[test]
fn a_full_server_answers_503_through_tls() {
    let (folder, authority) = (Folder::new("tls-full"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &["--max-connections", "1"]);
    let _taken = Secured::usual(&server, &authority).upgraded();
    let mut refused = Secured::usual(&server, &authority);
    refused.send(GET);
    let line = refused.line();
    assert!(line.starts_with("503 ") && line.contains("retry-after"), "{line}");
    assert_eq!(refused.stream.read(&mut [0; 16]).unwrap(), 0, "with a close_notify");
}

#[test]
fn a_draining_server_answers_503_through_tls() {
    let (folder, authority) = (Folder::new("tls-drain"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let mut server = start(&folder, "a", &[]);
    let mut talking = Secured::usual(&server, &authority).upgraded();
    let mut accepted = Secured::usual(&server, &authority);
    let mut admin = Client::connect(server.admin);
    assert!(admin.get("/healthz").starts_with("200 "));
    server.signal("STOP");
    let mut queued = Secured::usual(&server, &authority);
    server.signal("TERM");
    server.signal("CONT");
    assert_eq!(talking.line(), "close 1001 \"draining\"");
    // It is to be closed before its handshake has begun.
    let waits = &accepted.stream.sock.socket;
    waits.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let early = (&*waits).read(&mut [0; 1]);
    assert!(
        early.is_err_and(|why| why.kind() == ErrorKind::WouldBlock),
        "its connection stays open"
    );
    waits.set_read_timeout(Some(PATIENCE)).unwrap();
    for late in [&mut queued, &mut accepted] {
        late.send(GET);
        let line = late.line();
        assert!(line.starts_with("503 ") && line.contains("about to stop"), "{line}");
        assert_eq!(late.stream.read(&mut [0; 16]).unwrap(), 0, "with a close_notify");
    }
    talking.send(&close(1001, ""));
    drop((talking, queued, accepted));
    assert_eq!(server.exit(), Some(0));
}

/// A refused client with an incomplete handshake times out and does not delay the exit.
#[test]
fn refused_clients_without_a_complete_handshake_are_closed() {
    let (folder, authority) = (Folder::new("tls-let-go"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &["--max-connections", "1", "--head-timeout", "300ms"]);
    let _taken = Secured::usual(&server, &authority).upgraded();
    let mut silent = TcpStream::connect(server.main).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut output = Vec::new();
    // It may end with a reset, since the 503 was never sent.
    let _ = silent.read_to_end(&mut output);
    assert!(output.is_empty(), "{output:?}");
}

#[test]
fn a_handshake_in_single_bytes_ends_with_the_head_timeout() {
    let (folder, authority) = (Folder::new("tls-drip"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &["--head-timeout", "300ms"]);
    let mut stream = TcpStream::connect(server.main).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    for byte in endless_hello(100) {
        let gone = stream.write_all(&[byte]).is_err();
        let waits = |why: io::Error| why.kind() == ErrorKind::WouldBlock;
        if gone || !stream.read(&mut [0; 1]).is_err_and(waits) {
            return;
        }
    }
    panic!("it may go on for ever");
}

/// Regression: the refusal of a client that never ends its handshake waited for the hard stop.
#[test]
fn a_silent_handshake_does_not_delay_an_exit() {
    let (folder, authority) = (Folder::new("tls-silent"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let drain = ["--drain-delay", "0s", "--drain-window", "0s", "--drain-timeout", "1h"];
    let mut server = start(&folder, "a", &drain);
    let mut half = TcpStream::connect(server.main).unwrap();
    half.write_all(&endless_hello(12_000)).unwrap();
    let silent = TcpStream::connect(server.main).unwrap();
    assert!(Client::connect(server.admin).get("/healthz").starts_with("200 "));
    server.signal("TERM");
    assert_eq!(server.exit(), Some(0));
    drop((half, silent));
}
