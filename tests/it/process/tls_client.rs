//! Outgoing connections: names, TLS, trust, and error messages. The clients are those of `load`;
//! the servers are real.

use wspulse::behaviours::Kind;
use wspulse::engine::{HangUp, Roots, Target, TlsFault, Trust};
use wspulse::load::{
    Answers, ConnectError, Life, Load, Outcome, Pace, Plan, Report, ServerKind, WhenLost,
};
use wspulse::proto::upgrade::Ask;
use wspulse::run::{self, SignalMode};

use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::tls::{Authority, start};
use super::*;

fn load(target: Target, clients: usize) -> Report {
    run(target, clients, ServerKind::WebSocket)
}

fn run(target: Target, clients: usize, server_kind: ServerKind) -> Report {
    let plan = Plan {
        targets: vec![target],
        ask: Ask { host: "localhost".to_owned(), path: "/echo".to_owned(), ..Ask::default() },
        clients,
        ramp: None,
        when_lost: WhenLost::Leave,
        life: Life::Messages(3),
        size: 1000,
        kind: Kind::Text,
        pace: Pace::Closed { depth: 2 },
        fragment: 0,
        server_kind,
        answers: Answers::Same,
        patience_ms: 3_000,
        progress_ms: None,
        start_ms: None,
    };
    let (code, load) = run::drive(Load::new(plan, 1), SignalMode::Default).unwrap();
    assert_eq!(code, 0);
    load.report().clone()
}

/// The outcome of one client.
fn outcome(target: Target) -> Outcome {
    let ends = load(target, 1).ends;
    assert_eq!(ends.values().sum::<u64>(), 1);
    *ends.keys().next().unwrap()
}

const GONE_WELL: Outcome = Outcome::Closed(1000);

fn without_tls(fault: TlsFault) -> Outcome {
    Outcome::NotConnected(ConnectError::Tls(fault))
}

#[test]
fn names_are_resolved_and_each_address_is_tried() {
    let server = Server::start(&[]);
    let port = server.main.port();
    assert_eq!(outcome(Target::host("127.0.0.1", port)), GONE_WELL);
    // If localhost is also ::1, that address refuses.
    let report = load(Target::host("localhost", port), 100);
    assert_eq!(report.ends[&GONE_WELL], 100, "{report:?}");
    assert_eq!(
        outcome(Target::host("a..b", port)),
        Outcome::NotConnected(ConnectError::NoSuchName)
    );
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = Outcome::NotConnected(ConnectError::Refused);
    assert_eq!(outcome(Target::host("localhost", unused)), refused);
    assert_eq!(outcome(Target::host("127.0.0.1", unused)), refused);
}

#[test]
fn only_trusted_servers_are_accepted() {
    let (folder, authority, other) = (Folder::new("trust"), Authority::new(), Authority::new());
    authority.issue(&folder, "a", 2100);
    authority.issue(&folder, "gone", 2021);
    let (server, expired) = (start(&folder, "a", &[]), start(&folder, "gone", &[]));
    let pem = |authority: &Authority| Trust::pem(authority.certificate.pem().as_bytes());
    let at = |server: &Server| Target::host("localhost", server.main.port());
    let ask = |name: &str, trust: Trust| outcome(at(&server).secured(name, trust));
    let report = load(at(&server).secured("localhost", pem(&authority)), 100);
    assert_eq!(report.ends[&GONE_WELL], 100, "{report:?}");
    assert_eq!(ask("localhost", Trust::unverified()), GONE_WELL);
    assert_eq!(ask("elsewhere", Trust::unverified()), GONE_WELL);
    assert_eq!(ask("localhost", pem(&other)), without_tls(TlsFault::NotTrusted));
    assert_eq!(ask("localhost", Trust::public()), without_tls(TlsFault::NotTrusted));
    assert_eq!(ask("elsewhere", pem(&authority)), without_tls(TlsFault::WrongName));
    assert_eq!(ask("127.0.0.1", pem(&authority)), without_tls(TlsFault::WrongName));
    assert_eq!(ask("localhost", Trust::pem(b"")), without_tls(TlsFault::RootsUnusable));
    let half = Trust { roots: Roots::Unverified, identity: None }.with_identity(b"", b"");
    assert_eq!(ask("localhost", half), without_tls(TlsFault::IdentityUnusable));
    let late = at(&expired).secured("localhost", pem(&authority));
    assert_eq!(outcome(late), without_tls(TlsFault::Expired));
    let plain = Server::start(&[]);
    let secured = at(&plain).secured("localhost", pem(&authority));
    assert_eq!(outcome(secured), without_tls(TlsFault::NotTls));
    assert_eq!(outcome(at(&server)), Outcome::Refused(400), "plain HTTP to a TLS port");
    let text = HangUp::Tls(TlsFault::WrongName).to_string();
    assert_eq!(text, "its certificate is for another name");
}

/// An echo server that requires a client certificate.
fn guarded_echo(folder: &Folder, authority: &Authority) -> u16 {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots);
    let guard = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
    let config = config.with_client_cert_verifier(guard.build().unwrap());
    let chain = vec![CertificateDer::from_pem_file(folder.0.join("a.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.0.join("a.key")).unwrap();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |socket: TcpStream| {
        let session = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(session, socket);
        let mut output = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut output) {
            stream.write_all(&output[..n]).unwrap();
        }
    };
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    port
}

#[test]
fn a_client_certificate_is_sent_on_request() {
    let (folder, authority) = (Folder::new("identity"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let port = guarded_echo(&folder, &authority);
    let trust = Trust::pem(authority.certificate.pem().as_bytes());
    let [chain, key] = ["a.pem", "a.key"].map(|name| fs::read(folder.0.join(name)).unwrap());
    let ours = trust.clone().with_identity(&chain, &key);
    let known = Target::host("localhost", port).secured("localhost", ours);
    let report = run(known, 1, ServerKind::PlainEcho);
    assert_eq!(report.answered, 3, "{report:?}");
    let unknown = Target::host("localhost", port).secured("localhost", trust);
    let ends = run(unknown, 1, ServerKind::PlainEcho).ends;
    assert_eq!(ends.keys().next(), Some(&without_tls(TlsFault::Refused)));
}
