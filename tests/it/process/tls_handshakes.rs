//! TLS handshakes that the server does not want, or that never end: what they cost, and what their
//! clients hear.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use super::running::PATIENCE;
use super::tls::{Authority, Secured, start};
use super::*;

const GET: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";

/// A `ClientHello` that says it has 65 000 bytes, as far as this many of them.
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

/// 256 of them were 16 MiB, and the end of a server with as much.
#[test]
fn half_handshakes_cost_little() {
    let (folder, authority) = (Folder::new("tls-endless"), Authority::new());
    authority.vouch(&folder, "a", 2100);
    let server = start(&folder, "a", &[]);
    let mut admin = Client::connect(server.admin);
    let before_kib = resident_kib(&server);
    let attackers = (0..300).map(|_| {
        let mut stream = TcpStream::connect(server.main).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be refused before it has said all.
        let _ = stream.write_all(&endless_hello(60_000));
        stream
    });
    let attackers: Vec<TcpStream> = attackers.collect();
    for mut stream in attackers {
        let mut heard = Vec::new();
        let ended = stream.read_to_end(&mut heard);
        let reset = ended.as_ref().is_err_and(|why| why.kind() == ErrorKind::ConnectionReset);
        assert!(heard.is_empty() && (ended.is_ok() || reset), "it is refused at once");
    }
    assert!(admin.get("/healthz").starts_with("200 "));
    let grown_kib = resident_kib(&server).saturating_sub(before_kib);
    assert!(grown_kib < 10 * 1024, "{grown_kib} KiB for 300 handshakes");
    // Those that say less than is refused stay for a while, and keep no more than they said.
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
fn a_full_server_says_so_through_tls() {
    let (folder, authority) = (Folder::new("tls-full"), Authority::new());
    authority.vouch(&folder, "a", 2100);
    let server = start(&folder, "a", &["--max-connections", "1"]);
    let _taken = Secured::usual(&server, &authority).upgraded();
    let mut refused = Secured::usual(&server, &authority);
    refused.send(GET);
    let line = refused.line();
    assert!(line.starts_with("503 ") && line.contains("retry-after"), "{line}");
    assert_eq!(refused.stream.read(&mut [0; 16]).unwrap(), 0, "with a last word");
}

#[test]
fn a_draining_server_says_so_through_tls() {
    let (folder, authority) = (Folder::new("tls-drain"), Authority::new());
    authority.vouch(&folder, "a", 2100);
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
    // Its turn comes while its handshake has not begun.
    let waits = &accepted.stream.sock.socket;
    waits.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let early = (&*waits).read(&mut [0; 1]);
    assert!(early.is_err_and(|why| why.kind() == ErrorKind::WouldBlock), "it is not hung up on");
    waits.set_read_timeout(Some(PATIENCE)).unwrap();
    for late in [&mut queued, &mut accepted] {
        late.send(GET);
        let line = late.line();
        assert!(line.starts_with("503 ") && line.contains("about to stop"), "{line}");
        assert_eq!(late.stream.read(&mut [0; 16]).unwrap(), 0, "with a last word");
    }
    talking.send(&close(1001, ""));
    drop((talking, queued, accepted));
    assert_eq!(server.exit(), Some(0));
}

/// A place of those who only hear 503 is not kept for ever, nor does it hold up the exit.
#[test]
fn who_is_refused_and_leads_no_handshake_to_its_end_is_let_go() {
    let (folder, authority) = (Folder::new("tls-let-go"), Authority::new());
    authority.vouch(&folder, "a", 2100);
    let server = start(&folder, "a", &["--max-connections", "1", "--head-timeout", "300ms"]);
    let _taken = Secured::usual(&server, &authority).upgraded();
    let mut silent = TcpStream::connect(server.main).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    // It may end with a reset: the 503 that nobody could read was never sent.
    let _ = silent.read_to_end(&mut heard);
    assert!(heard.is_empty(), "{heard:?}");
}

#[test]
fn a_handshake_in_single_bytes_ends_with_the_head_timeout() {
    let (folder, authority) = (Folder::new("tls-drip"), Authority::new());
    authority.vouch(&folder, "a", 2100);
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
