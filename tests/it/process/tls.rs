//! TLS on the main listeners, with a `rustls` client and certificates created here.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};

use super::running::PATIENCE;
use super::*;
use crate::peer::{Reader, upgrade};

/// A certificate authority.
pub(super) struct Authority {
    pub(super) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate for this name that expires in this year; writes it and its key.
    pub(super) fn issue(&self, folder: &Folder, name: &str, year: i32) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(folder.0.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.0.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A server with this certificate of the folder.
pub(super) fn start(folder: &Folder, name: &str, more: &[&str]) -> Server {
    let [cert, key] = ["pem", "key"].map(|ending| path(folder, &format!("{name}.{ending}")));
    Server::start(&[&["--tls-cert", &cert, "--tls-key", &key], more].concat())
}

fn path(folder: &Folder, name: &str) -> String {
    folder.0.join(name).to_str().unwrap().to_owned()
}

/// A socket that moves at most this many bytes in a call.
pub(super) struct Narrow {
    pub(super) socket: TcpStream,
    bytes: usize,
}

impl Read for Narrow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.bytes);
        self.socket.read(&mut buffer[..n])
    }
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.write(&bytes[..bytes.len().min(self.bytes)])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

pub(super) struct Secured {
    pub(super) stream: StreamOwned<ClientConnection, Narrow>,
    reader: Reader,
    lines: Vec<String>,
}

impl Secured {
    fn connect(
        address: SocketAddr,
        authority: &Authority,
        bytes: usize,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&[version]).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = "localhost".try_into().unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let stream = StreamOwned::new(session, Narrow { socket, bytes });
        Self { stream, reader: Reader::default(), lines: Vec::new() }
    }

    pub(super) fn usual(server: &Server, authority: &Authority) -> Self {
        Self::connect(server.main, authority, usize::MAX, &rustls::version::TLS13)
    }

    pub(super) fn upgraded(mut self) -> Self {
        self.send(&upgrade("/echo", &[]));
        assert!(self.line().starts_with("101 "));
        self
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(super) fn line(&mut self) -> String {
        while self.lines.is_empty() {
            let mut bytes = vec![0; 64 * 1024];
            let n = self.stream.read(&mut bytes).unwrap();
            assert!(n > 0, "the server closed the connection");
            self.lines = self.reader.read(&bytes[..n]);
            self.lines.reverse();
        }
        self.lines.pop().unwrap()
    }

    fn echoes(&mut self, message: &str) {
        self.send(&text(message));
        assert_eq!(self.line(), format!("text {message:?}"));
    }

    /// Reads without flushing writes.
    fn fill(&mut self, buffer: &mut [u8]) {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.stream.conn.reader().read(&mut buffer[filled..]) {
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    assert!(self.stream.conn.read_tls(&mut self.stream.sock).unwrap() > 0);
                    self.stream.conn.process_new_packets().unwrap();
                }
                Err(error) => panic!("reading: {error}"),
            }
        }
    }

    /// The server's certificate.
    fn certificate(&mut self) -> CertificateDer<'static> {
        self.stream.flush().unwrap();
        while self.stream.conn.is_handshaking() {
            self.stream.conn.complete_io(&mut self.stream.sock).unwrap();
        }
        self.stream.conn.peer_certificates().unwrap()[0].clone()
    }
}

#[test]
fn echoes_through_tls_of_both_versions_cut_anywhere() {
    let (folder, authority) = (Folder::new("tls-echo"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &[]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for bytes in [1, 7, 1000, usize::MAX] {
            let client = Secured::connect(server.main, &authority, bytes, version);
            let mut client = client.upgraded();
            client.echoes("hello");
            assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            if bytes > 7 {
                client.send(&frame(0x82, &vec![b'x'; 1 << 20]));
                assert_eq!(client.line(), "binary (1048576 bytes)");
            }
            client.send(&close(1000, "bye"));
            assert_eq!(client.line(), "close 1000 \"bye\"");
            // Without a close_notify this would be an error.
            assert_eq!(client.stream.read(&mut [0; 16]).unwrap(), 0);
        }
    }
    assert!(Client::connect(server.admin).get("/healthz").starts_with("200 "), "admin is plain");
}

#[test]
fn a_tls_peer_that_reads_late_gets_everything_in_order() {
    let (folder, authority) = (Folder::new("tls-late"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &[]);
    let mut client = Secured::usual(&server, &authority).upgraded();
    let socket = client.stream.sock.socket.try_clone().unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let message = |number: u32| {
        let mut payload = vec![0; 50_000];
        payload[..4].copy_from_slice(&number.to_be_bytes());
        payload
    };
    // Until both directions are full: the server reads no more than it can answer.
    let mut sent: u32 = 0;
    while client.stream.write_all(&frame(0x82, &message(sent))).is_ok() {
        sent += 1;
        assert!(sent < 2_000, "the server has no backpressure");
    }
    // The last ones may still be in the client's own buffer.
    sent -= 3;
    assert!(sent > 2);
    for number in 0..sent {
        let mut echo = vec![0; 4 + 50_000];
        client.fill(&mut echo);
        assert_eq!(echo[..4], [0x82, 126, 0xc3, 0x50], "{number}");
        assert!(echo[4..] == message(number), "{number}");
    }
}

#[test]
fn unusable_certificates() {
    let (folder, authority) = (Folder::new("tls-bad"), Authority::new());
    for name in ["a", "b"] {
        authority.issue(&folder, name, 2100);
    }
    fs::write(folder.0.join("empty"), "").unwrap();
    fs::write(folder.0.join("torn"), "-----BEGIN CERTIFICATE-----\nMII").unwrap();
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    fs::write(folder.0.join("locked"), locked).unwrap();
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(folder.0.join("junk"), junk).unwrap();
    let file = |name: &str| path(&folder, name);
    for (cert, key, want) in [
        ("no", "a.key", format!("--tls-cert: cannot read {}: No such file or", file("no"))),
        ("a.pem", "no", format!("--tls-key: cannot read {}: No such file or", file("no"))),
        ("empty", "a.key", format!("--tls-cert: {} has no certificate in PEM", file("empty"))),
        ("a.pem", "empty", format!("--tls-key: {} has no private key in PEM", file("empty"))),
        ("a.key", "a.key", format!("--tls-cert: {} has no certificate in PEM", file("a.key"))),
        ("torn", "a.key", format!("--tls-cert: {} is not valid PEM", file("torn"))),
        ("junk", "a.key", format!("--tls-cert: {} has a malformed certificate", file("junk"))),
        ("a.pem", "locked", format!("--tls-key: {} is encrypted: decrypt it", file("locked"))),
        (
            "a.pem",
            "b.key",
            format!(
                "--tls-key: the key in {} does not belong to the certificate in {}\n",
                file("b.key"),
                file("a.pem")
            ),
        ),
    ] {
        let (cert, key) = (file(cert), file(key));
        let arguments = ["--tls-cert", &cert, "--tls-key", &key, "--log-format", "text"];
        let (code, stdout, stderr) = output(&[&LISTENERS[..], &arguments].concat(), &[]);
        assert_eq!((code, &*stdout, stderr.lines().count()), (1, "", 1), "{stderr}");
        assert!(stderr.starts_with(&format!("wspulse: {want}")), "{stderr} is not {want}");
        let checked = output(&[&["--check"], &arguments[..]].concat(), &[]);
        assert_eq!(checked, (code, stdout, stderr), "--check says what a start would say");
    }
    let (code, _, stderr) = output(&["--tls-cert", "x"], &[]);
    assert_eq!(code, 2);
    assert!(stderr.starts_with("wspulse: --tls-cert needs --tls-key\n"), "{stderr}");
}

#[test]
fn a_new_certificate_is_loaded_and_a_bad_one_is_not() {
    let (folder, authority) = (Folder::new("tls-reload"), Authority::new());
    for name in ["a", "b"] {
        authority.issue(&folder, name, 2100);
    }
    // As Kubernetes mounts a secret: links through a directory link that is swapped.
    let swap = |name: &str| {
        let version = folder.0.join(format!("..{name}"));
        fs::create_dir_all(&version).unwrap();
        for (from, to) in [("pem", "tls.crt"), ("key", "tls.key")] {
            fs::copy(folder.0.join(format!("{name}.{from}")), version.join(to)).unwrap();
        }
        let link = folder.0.join("..data_tmp");
        std::os::unix::fs::symlink(&version, &link).unwrap();
        fs::rename(link, folder.0.join("..data")).unwrap();
    };
    swap("a");
    let [cert, key] = ["tls.crt", "tls.key"].map(|name| path(&folder, &format!("..data/{name}")));
    let mut server = Server::start(&["--tls-cert", &cert, "--tls-key", &key]);
    let mut old = Secured::usual(&server, &authority).upgraded();
    let first = old.certificate();
    swap("b");
    server.signal("HUP");
    assert_eq!(server.wait_for("tls")["message"], "certificate reloaded");
    let mut new = Secured::usual(&server, &authority).upgraded();
    let second = new.certificate();
    assert!(first != second);
    // The key of another certificate: the old pair stays.
    fs::copy(folder.0.join("a.key"), folder.0.join("..b/tls.key")).unwrap();
    server.signal("HUP");
    let kept = server.wait_for("tls");
    assert_eq!((&kept["level"], kept["days_left"].is_null()), (&"warn".into(), true), "{kept}");
    assert!(Secured::usual(&server, &authority).certificate() == second);
    old.echoes("still here");
    new.echoes("me too");
    // Without a signal, new connections get the new pair after a few seconds.
    swap("a");
    let third = (0..80).any(|_| {
        assert!(old.stream.sock.socket.set_read_timeout(Some(Duration::from_millis(100))).is_ok());
        assert!(old.stream.read(&mut [0; 1]).is_err(), "nothing was sent");
        Secured::usual(&server, &authority).certificate() == first
    });
    assert!(third, "the files are not checked");
    old.stream.sock.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    old.echoes("still here");
}

#[test]
fn an_expired_certificate_is_logged() {
    let (folder, authority) = (Folder::new("tls-end"), Authority::new());
    authority.issue(&folder, "gone", 2021);
    let mut server = start(&folder, "gone", &[]);
    let record = server.wait_for("tls");
    assert_eq!(record["level"], "error");
    assert_eq!(record["message"], "the certificate has expired: clients will reject it");
}

#[test]
fn plain_http_gets_a_400_that_names_tls() {
    let (folder, authority) = (Folder::new("tls-plain"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &[]);
    let mut client = Client::connect(server.main);
    client.send(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n");
    let line = client.line();
    assert!(line.starts_with("400 ") && line.contains("https:// or wss://"), "{line}");
    client.expect_end();
    // Neither TLS nor HTTP: an alert, or nothing.
    let mut stream = TcpStream::connect(server.main).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[0x80; 64]).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert!(rest.len() < 16, "{rest:?}");
}

#[test]
fn a_stalled_handshake_ends_with_the_head_timeout() {
    let (folder, authority) = (Folder::new("tls-half"), Authority::new());
    authority.issue(&folder, "a", 2100);
    let server = start(&folder, "a", &["--head-timeout", "300ms"]);
    let silent = TcpStream::connect(server.main).unwrap();
    let mut half = TcpStream::connect(server.main).unwrap();
    half.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1]).unwrap();
    // An incomplete message in the first record.
    let mut endless = TcpStream::connect(server.main).unwrap();
    endless.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0xff, 0xff]).unwrap();
    for mut stream in [silent, half, endless] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    }
}
