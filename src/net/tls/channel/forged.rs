//! Records that no library sends, from a client that has ended its handshake: it encrypts them with
//! the keys of the session.

use mio::net::UnixStream;
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{ClientConnection, ConnectionTrafficSecrets, ContentType, SupportedCipherSuite};

use super::tests::configs;
use super::*;

/// A client's end of a session, which encrypts anything.
struct Forger {
    socket: UnixStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Forger {
    /// A forger, and the server that takes it for an honest client.
    fn new() -> (Self, Tls) {
        let (mut socket, ours) = UnixStream::pair().unwrap();
        let (server, client) = configs(&[&rustls::version::TLS13]);
        let mut server = Tls::accept(Socket::Unix(ours), server, &[]).unwrap();
        let mut config = (*client).clone();
        config.enable_secret_extraction = true;
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            while client.wants_write() {
                client.write_tls(&mut socket).unwrap();
            }
            assert_eq!(server.read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            client.read_tls(&mut socket).unwrap();
            client.process_new_packets().unwrap();
        }
        let Some(SupportedCipherSuite::Tls13(suite)) = client.negotiated_cipher_suite() else {
            panic!("no suite of TLS 1.3");
        };
        let (sequence, secrets) = client.dangerous_extract_secrets().unwrap().tx;
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            panic!("another suite is preferred");
        };
        let encrypter = suite.aead_alg.encrypter(key, iv);
        (Self { socket, encrypter, sequence }, server)
    }

    fn send(&mut self, typ: ContentType, bytes: &[u8]) {
        let payload = OutboundChunks::Single(bytes);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(message, self.sequence).unwrap().encode();
        self.sequence += 1;
        // The server may have closed.
        let _ = self.socket.write_all(&record);
    }
}

/// Reads until nothing is left; returns what was read and how it ended.
fn drain(tls: &mut Tls) -> (usize, io::ErrorKind) {
    let mut read = 0;
    loop {
        match tls.read(&mut [0; 4096]) {
            Ok(n) => read += n,
            Err(error) => return (read, error.kind()),
        }
    }
}

/// Regression: a client that began a message of 64 KiB after its handshake was given 80 KiB.
#[test]
fn a_message_that_never_ends_is_given_up() {
    for piece in [1, 1_000, 16_000] {
        let (mut forger, mut server) = Forger::new();
        forger.send(ContentType::Handshake, &[24, 0, 0xff, 0xff]);
        let mut sent = 0;
        while sent < 60_000 {
            forger.send(ContentType::Handshake, &vec![0; piece]);
            sent += piece;
            match drain(&mut server) {
                (0, io::ErrorKind::WouldBlock) => {}
                (0, io::ErrorKind::InvalidData) => break,
                other => panic!("{other:?}"),
            }
            assert!(server.held_bytes() < 24 * 1024, "{piece}: {}", server.held_bytes());
        }
        assert!(sent < 60_000, "{piece}: it may go on");
    }
}

#[test]
fn a_message_in_pieces_does_not_disturb_our_records() {
    let (mut forger, mut server) = Forger::new();
    // A key update, a byte at a time; between them the server writes.
    for byte in [24, 0, 0, 1, 0] {
        forger.send(ContentType::Handshake, &[byte]);
        assert_eq!(drain(&mut server), (0, io::ErrorKind::WouldBlock));
        assert_eq!(server.write(&[IoSlice::new(b"abc")]).unwrap(), 3);
    }
    assert_eq!(server.held_bytes(), 0);
}

#[test]
fn empty_records_and_odd_ones_end_the_session() {
    let (mut forger, mut server) = Forger::new();
    for _ in 0..30 {
        forger.send(ContentType::ApplicationData, &[]);
    }
    forger.send(ContentType::ApplicationData, b"abc");
    assert_eq!(drain(&mut server), (3, io::ErrorKind::WouldBlock));
    for _ in 0..40 {
        forger.send(ContentType::ApplicationData, &[]);
    }
    assert_eq!(drain(&mut server), (0, io::ErrorKind::InvalidData));
    for (typ, bytes) in [
        (ContentType::Handshake, &[99, 0, 0, 1, 0][..]),
        (ContentType::Handshake, &[]),
        (ContentType::Handshake, &[24, 0, 0, 1, 7]),
        (ContentType::Alert, &[2, 40]),
        (ContentType::Alert, &[1]),
        (ContentType::Alert, &[9, 9, 9]),
        (ContentType::ChangeCipherSpec, &[1]),
        (ContentType::Unknown(7), b"x"),
    ] {
        let (mut forger, mut server) = Forger::new();
        forger.send(ContentType::ApplicationData, b"abc");
        for _ in 0..40 {
            forger.send(typ, bytes);
        }
        assert_eq!(drain(&mut server), (3, io::ErrorKind::InvalidData), "{typ:?} {bytes:?}");
    }
}
