//! What a client learns of a TLS handshake: version, protocol, and the expiry of the certificate.
//! The servers are those of `rustls`.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use wspulse::engine::{
    Action, Alpn, Engine, HTTP_1_1, HangUp, Id, Now, Out, Secured, Signal, Target, TlsFacts,
    TlsFault, Trust,
};
use wspulse::run::{self, SignalMode};

use super::tls::Authority;
use super::*;

const H2_FIRST: Alpn = &[b"h2", b"http/1.1"];

/// Connects several times, one after the other.
#[derive(Debug)]
struct Asker {
    target: Target,
    id: Id,
    left: u32,
    actions: VecDeque<Action>,
    /// The facts before each outcome, and the outcome.
    seen: Vec<(Option<TlsFacts>, Result<(), HangUp>)>,
    facts: Option<TlsFacts>,
}

impl Asker {
    /// What is seen in this many connections.
    fn ask(target: Target, times: u32) -> Vec<(Option<TlsFacts>, Result<(), HangUp>)> {
        let id = Id { key: 0, generation: 0 };
        let actions = [Action::Connect(id, target.clone())].into();
        let asker = Self { target, id, left: times, actions, seen: Vec::new(), facts: None };
        run::drive(asker, SignalMode::Default).unwrap().1.seen
    }
}

impl Engine for Asker {
    fn secured(&mut self, _: Now, id: Id, facts: &TlsFacts) {
        assert_eq!(id, self.id);
        assert_eq!(self.facts.replace(facts.clone()), None, "the facts are reported once");
    }

    fn connected(&mut self, _: Now, id: Id, how: Result<(), HangUp>, _: &mut Out) {
        self.seen.push((self.facts.take(), how));
        self.actions.push_back(Action::Reset(id));
    }

    fn closed(&mut self, _: Now, _: Id) {
        self.left -= 1;
        self.id.generation += 1;
        self.actions.push_back(match self.left {
            0 => Action::Exit(0),
            _ => Action::Connect(self.id, self.target.clone()),
        });
    }

    fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn room<'a>(&'a mut self, _: Id, shared: &'a mut [u8]) -> &'a mut [u8] {
        shared
    }

    fn received(&mut self, _: Now, _: Id, _: usize, _: &mut [u8], _: &mut Out) {}
    fn ended(&mut self, _: Now, _: Id, _: HangUp, _: &mut Out) {}
    fn keep(&mut self, _: Now, _: Id, _: &[u8], _: &mut Out, _: usize) {}
    fn sent(&mut self, _: Now, _: Id, _: usize) {}
    fn render(&mut self, _: Now, _: Id, _: &mut Out) {}
    fn fire(&mut self, _: Now) {}
    fn signal(&mut self, _: Now, _: Signal) {}

    fn unsent(&self, _: Id) -> &[u8] {
        &[]
    }

    fn next_deadline(&self) -> Option<u64> {
        None
    }
}

/// A server that completes handshakes and reads until its client has gone.
fn server(folder: &Folder, version: &'static SupportedProtocolVersion, alpn: Alpn) -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
    let chain = vec![CertificateDer::from_pem_file(folder.0.join("a.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.0.join("a.key")).unwrap();
    let mut config = config.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |mut socket: TcpStream| {
        let mut session = ServerConnection::new(Arc::clone(&config)).unwrap();
        while session.complete_io(&mut socket).is_ok_and(|(read, written)| read + written > 0) {}
    };
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(serve));
    port
}

#[test]
fn the_facts_of_a_handshake() {
    // 1 January 2031.
    const EXPIRES_S: i64 = 1_924_992_000;
    let (folder, authority) = (Folder::new("facts"), Authority::new());
    authority.issue(&folder, "a", 2031);
    let trusts = [Trust::pem(authority.certificate.pem().as_bytes()), Trust::unverified()];
    for (version, name) in [(&version::TLS12, "TLS 1.2"), (&version::TLS13, "TLS 1.3")] {
        for (offered, supported, chosen) in [
            (H2_FIRST, H2_FIRST, Some("h2")),
            (HTTP_1_1, H2_FIRST, Some("http/1.1")),
            (H2_FIRST, HTTP_1_1, Some("http/1.1")),
            (H2_FIRST, &[], None),
            (&[], H2_FIRST, None),
        ] {
            let port = server(&folder, version, supported);
            for trust in &trusts {
                let to = Target::host("127.0.0.1", port);
                let secured = Secured { alpn: offered, ..tls(to, trust) };
                let facts = TlsFacts {
                    version: name,
                    alpn: chosen.map(Into::into),
                    expires_s: Some(EXPIRES_S),
                    lacks_issuer: true,
                };
                // The second and third connection resume the session where that is possible.
                let seen = Asker::ask(Target::Tls(Box::new(secured)), 3);
                assert_eq!(seen, vec![(Some(facts), Ok(())); 3]);
            }
        }
    }
}

fn tls(to: Target, trust: &Trust) -> Secured {
    Secured { to, name: "localhost".into(), trust: trust.clone(), alpn: HTTP_1_1 }
}

#[test]
fn there_are_no_facts_without_a_handshake() {
    let (folder, authority) = (Folder::new("no_facts"), Authority::new());
    authority.issue(&folder, "a", 2031);
    let at = |alpn| Target::host("127.0.0.1", server(&folder, &version::TLS13, alpn));
    let failed = |fault| vec![(None, Err(HangUp::Tls(fault)))];
    let untrusted = at(HTTP_1_1).secured("localhost", Trust::public());
    assert_eq!(Asker::ask(untrusted, 1), failed(TlsFault::NotTrusted));
    // A server without a common protocol refuses with an alert.
    let other = at(&[b"h2"]).secured("localhost", Trust::unverified());
    assert_eq!(Asker::ask(other, 1), failed(TlsFault::Refused));
    assert_eq!(Asker::ask(at(HTTP_1_1), 1), vec![(None, Ok(()))]);
}
