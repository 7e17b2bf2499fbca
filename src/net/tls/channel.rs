//! TLS between a socket and the loop, which treats it like a plain stream. A byte counts as written
//! once the kernel has its record, except that one is withheld while records wait.
//! It holds at most [`HANDSHAKE_BYTES`] or one record of a client, [`WIRE_BYTES`] of a server, and
//! three records of ours.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, Error, ProtocolVersion, ServerConfig};

use super::super::socket::Socket;
use super::expiry;
use super::session::{
    Cut, Plain, Queue, Records, Scratch, Seal, Session, WIRE_BYTES, with_scratch,
};
use crate::engine::{TlsFacts, TlsFault};
use crate::limits::HANDSHAKE_BYTES;

/// So many bytes of our records are made before they are written, and one record more.
const SENT_BYTES: usize = 32 * 1024;
/// The longest record that is accepted, with its header (RFC 5246 §6.2.3).
const RECORD_WIRE_BYTES: usize = 5 + 16 * 1024 + 2048;
/// Fewest bytes to read at once, however few the caller has room for.
const READ_BYTES: usize = 4 * 1024;
/// Most bytes read per call, so that endless empty records cannot block other streams.
const PULLED_BYTES: usize = 128 * 1024;

#[derive(Debug)]
pub(crate) struct Tls {
    socket: Socket,
    session: Session,
    state: State,
    pending: Pending,
    /// The peer has sent `close_notify`.
    peer_ended: bool,
    /// Bytes encrypted but not reported as written: one while records wait, so that the caller
    /// knows that output is unsent.
    withheld: usize,
    /// Bytes of the peer's handshake so far.
    handshake_bytes: usize,
    /// Sent in plaintext to a client that does not speak TLS.
    plaintext_response: &'static [u8],
    /// The beginning of a record, or of a handshake message.
    incoming: Vec<u8>,
    /// Decrypted bytes not read yet.
    unread: Queue,
    /// Records of ours that the kernel has not taken.
    outgoing: Queue,
    /// They are session tickets, which go with the response to what came with the handshake's end.
    deferred: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has been received.
    Fresh,
    Talking,
    /// `close_notify` is sent.
    Finished,
    /// The session has failed, or is to end without `close_notify`.
    Broken,
}

/// Whether the kernel may have more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Perhaps,
}

impl Tls {
    /// The server side of a session.
    pub(super) fn accept(
        socket: Socket,
        config: Arc<ServerConfig>,
        plaintext_response: &'static [u8],
    ) -> io::Result<Self> {
        let session = Session::server(config).map_err(io::Error::other)?;
        Ok(Self::new(socket, session, plaintext_response))
    }

    /// The client side of a session.
    pub(super) fn connect(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let session = Session::client(config, name).map_err(|error| fault(&error))?;
        let mut tls = Self::new(socket, session, &[]);
        // Makes the ClientHello.
        tls.queue(Seal::Nothing).map_err(|error| fault(&error))?;
        Ok(tls)
    }

    fn new(socket: Socket, session: Session, plaintext_response: &'static [u8]) -> Self {
        Self {
            socket,
            session,
            state: State::Fresh,
            pending: Pending::Nothing,
            peer_ended: false,
            withheld: 0,
            handshake_bytes: 0,
            plaintext_response,
            incoming: Vec::new(),
            unread: Queue::default(),
            outgoing: Queue::default(),
            deferred: false,
        }
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.session.is_handshaking() && self.state != State::Broken
    }

    /// What a complete handshake has agreed.
    pub(crate) fn facts(&self) -> TlsFacts {
        let version = match self.session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            // `rustls` has no other version.
            Some(_) | None => "TLS",
        };
        let alpn = self.session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into());
        let chain = self.session.peer_certificates().unwrap_or_default();
        let expires = chain.first().and_then(|own| expiry::not_after_ms(own));
        let expires_s = expires.map(|ms| ms.div_euclid(1000));
        let lacks_issuer =
            matches!(chain, [own] if expiry::is_signed_by_another(own) == Some(true));
        TlsFacts { version, alpn, expires_s, lacks_issuer }
    }

    /// Buffered bytes beyond the fixed cost of a session.
    pub(crate) fn held_bytes(&self) -> usize {
        self.incoming.capacity() + self.unread.capacity() + self.outgoing.capacity()
    }

    pub(crate) fn holds_more(&self) -> bool {
        self.pending == Pending::Perhaps || !self.unread.is_empty()
    }

    /// Advances the handshake; returns true once it is complete.
    pub(crate) fn handshake(&mut self) -> io::Result<bool> {
        while self.session.is_handshaking() {
            self.push()?;
            match self.pull(&mut []) {
                Ok(Pulled { bytes: 0, .. }) => return Err(io::ErrorKind::ConnectionReset.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // The peer waits for these records; those that do not fit are sent with the first write.
        self.push()?;
        Ok(true)
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = self.unread.bytes().len().min(buffer.len());
        buffer[..n].copy_from_slice(&self.unread.bytes()[..n]);
        self.unread.consume(n);
        let mut pulled = 0;
        self.pending = Pending::Perhaps;
        loop {
            if n == buffer.len() || (n > 0 && self.pending == Pending::Nothing) || self.peer_ended {
                return Ok(n);
            }
            if pulled >= PULLED_BYTES {
                return if n > 0 { Ok(n) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
            match self.pull(&mut buffer[n..]) {
                Ok(Pulled { bytes: 0, .. }) if n > 0 => return Ok(n),
                // A client may close before its handshake is complete.
                Ok(Pulled { bytes: 0, .. }) => return self.unexpected_eof(),
                Ok(Pulled { bytes, plain, short }) => {
                    pulled += bytes;
                    n += plain;
                    self.pending = if short { Pending::Nothing } else { Pending::Perhaps };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pending = Pending::Nothing;
                    return if n > 0 { Ok(n) } else { Err(error) };
                }
                // Return the decrypted bytes first; the next read returns the error again.
                Err(_) if n > 0 => return Ok(n),
                Err(error) => return Err(error),
            }
        }
    }

    /// End of file without `close_notify`. Many clients do that, and their protocol marks where a
    /// message ends; a server's response may end only there, so truncation must be an error.
    fn unexpected_eof(&self) -> io::Result<usize> {
        match self.session {
            Session::Server(_) => Ok(0),
            Session::Client(_) if self.session.is_handshaking() => Ok(0),
            Session::Client(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads once from the kernel, processes it and sends what that caused.
    fn pull(&mut self, room: &mut [u8]) -> io::Result<Pulled> {
        if self.state == State::Broken {
            return Err(io::ErrorKind::InvalidData.into());
        }
        with_scratch(|scratch| self.pull_with(room, scratch))
    }

    fn pull_with(&mut self, room: &mut [u8], scratch: &mut Scratch) -> io::Result<Pulled> {
        let have = self.incoming.len();
        // Plaintext is shorter than its record, so most of the time all of it fits.
        let most = room.len().max(have + READ_BYTES).min(WIRE_BYTES);
        let Scratch { wire, records, .. } = scratch;
        let bytes = read_once(&mut self.socket, &mut wire[have..most])?;
        if bytes == 0 {
            return Ok(Pulled { bytes, plain: 0, short: false });
        }
        wire[..have].copy_from_slice(&self.incoming);
        if self.state == State::Fresh {
            self.state = State::Talking;
            if wire[0].is_ascii_uppercase() && !self.plaintext_response.is_empty() {
                return Err(self.reject_plaintext());
            }
        }
        let wire = &mut wire[..have + bytes];
        let was_handshaking = self.session.is_handshaking();
        let mut plain = Plain { room, filled: 0, rest: &mut self.unread, ended: self.peer_ended };
        let (used, result) = self.session.process(wire, Seal::Nothing, &mut plain, records);
        let (filled, ended) = (plain.filled, plain.ended);
        let rest = &mut wire[used..];
        if let Err(error) = result {
            self.session.alert(rest, &mut plain, records);
            let sent = self.send(records.bytes());
            drop(sent);
            let error = self.fail(&error);
            // What was decrypted before comes first; the next read fails.
            return if filled > 0 {
                Ok(Pulled { bytes, plain: filled, short: false })
            } else {
                Err(error)
            };
        }
        // Nothing counts after `close_notify`.
        self.keep(if ended { &[] } else { rest });
        self.peer_ended = ended;
        self.limit_handshake(bytes)?;
        if was_handshaking && filled > 0 && self.makes_tickets() {
            self.outgoing.append(records.bytes());
            self.deferred = true;
        } else {
            self.send(records.bytes())?;
        }
        let short = have + bytes < most;
        // A `close_notify` is still to be read.
        Ok(Pulled { bytes, plain: filled, short: short && !ended })
    }

    /// Whether the records that end the handshake are only session tickets: no client waits for
    /// them.
    fn makes_tickets(&self) -> bool {
        let is_tls13 = self.session.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let is_complete = !self.session.is_handshaking() && self.outgoing.is_empty();
        is_tls13 && is_complete && matches!(self.session, Session::Server(_))
    }

    /// Keeps the beginning of a record until the rest of it arrives.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.incoming = Vec::new();
        } else {
            self.incoming.clear();
            self.incoming.reserve_exact(rest.len());
            self.incoming.extend_from_slice(rest);
        }
    }

    /// A peer whose handshake, or handshake message, is too long is rejected. Certificates of a
    /// server may be long; after its handshake, a client has no message that is longer than a
    /// record.
    fn limit_handshake(&mut self, bytes: usize) -> io::Result<()> {
        let is_client = matches!(self.session, Session::Server(_));
        if self.session.is_handshaking() && is_client {
            self.handshake_bytes += bytes;
        }
        let handshaking = self.session.is_handshaking();
        let too_long = handshaking && self.handshake_bytes > HANDSHAKE_BYTES;
        let most = if is_client { RECORD_WIRE_BYTES } else { WIRE_BYTES - READ_BYTES };
        if too_long || self.incoming.len() > most {
            log::debug!(target: "tls", bytes = self.handshake_bytes; "handshake too long");
            self.shut_down();
            return Err(TlsFault::Broken.into());
        }
        Ok(())
    }

    /// A TLS handshake begins with 0x16; a client that speaks plaintext should learn what is wrong.
    fn reject_plaintext(&mut self) -> io::Error {
        // Best effort: written as far as it fits.
        let written = self.socket.write(self.plaintext_response);
        drop(written);
        self.shut_down();
        TlsFault::NotTls.into()
    }

    /// Shuts the session down; the alert for this error is sent as far as it fitted.
    fn fail(&mut self, error: &Error) -> io::Error {
        let handshaking = self.session.is_handshaking();
        log::debug!(target: "tls", error:% = error, handshake = handshaking; "TLS failed");
        self.shut_down();
        fault(error).into()
    }

    fn shut_down(&mut self) {
        self.state = State::Broken;
        self.socket.finish();
        // Unread bytes would make the kernel send RST, and the peer would lose the alert.
        let drained = self.socket.read(&mut [0; 4096]);
        drop(drained);
    }

    /// Sends waiting records; returns false if the kernel does not take all.
    fn push(&mut self) -> io::Result<bool> {
        self.deferred = false;
        while !self.outgoing.is_empty() {
            match self.socket.write(self.outgoing.bytes()) {
                Ok(0) => return Ok(false),
                Ok(n) => self.outgoing.consume(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.state = State::Broken;
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Sends these records after those that wait; returns false if some of them wait now.
    fn send(&mut self, mut records: &[u8]) -> io::Result<bool> {
        let mut takes_more = self.push()?;
        while takes_more && !records.is_empty() {
            match self.socket.write(records) {
                Ok(0) => takes_more = false,
                Ok(n) => records = &records[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => takes_more = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.state = State::Broken;
                    return Err(error);
                }
            }
        }
        self.outgoing.append(records);
        Ok(self.outgoing.is_empty())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.deferred || self.push()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    pub(crate) fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.session.is_handshaking() {
            // Nothing can be encrypted yet: the caller keeps it until the handshake is complete.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !self.deferred {
            self.flush()?;
        }
        with_scratch(|scratch| self.write_with(pieces, scratch))
    }

    fn write_with(&mut self, pieces: &[IoSlice<'_>], scratch: &mut Scratch) -> io::Result<usize> {
        let mut taken = std::mem::take(&mut self.withheld);
        let mut cut = Cut::new(pieces, taken);
        let Scratch { records, joined, .. } = scratch;
        if std::mem::take(&mut self.deferred) {
            records.append(std::mem::take(&mut self.outgoing).bytes());
        }
        loop {
            let mut ended = false;
            while !ended && records.bytes().len() < SENT_BYTES {
                let plaintext = cut.next(joined);
                ended = plaintext.is_empty();
                taken += plaintext.len();
                if !ended && let Err(error) = self.seal(Seal::Plaintext(plaintext), records) {
                    return Err(fault(&error).into());
                }
            }
            let sent = self.send(records.bytes())?;
            records.clear();
            if !sent {
                return self.withhold(taken);
            }
            if ended {
                return Ok(taken);
            }
        }
    }

    /// Appends the records of this. The peer's bytes are processed already, except for the
    /// beginning of a record.
    fn seal(&mut self, seal: Seal<'_>, records: &mut Records) -> Result<(), Error> {
        let mut plain =
            Plain { room: &mut [], filled: 0, rest: &mut self.unread, ended: self.peer_ended };
        let (used, result) = self.session.process(&mut self.incoming, seal, &mut plain, records);
        self.peer_ended = plain.ended;
        self.incoming.drain(..used);
        result
    }

    /// The same, for records that are sent later.
    fn queue(&mut self, seal: Seal<'_>) -> Result<(), Error> {
        with_scratch(|scratch| {
            self.seal(seal, &mut scratch.records)?;
            self.outgoing.append(scratch.records.bytes());
            Ok(())
        })
    }

    fn withhold(&mut self, taken: usize) -> io::Result<usize> {
        self.withheld = taken.min(1);
        match taken - self.withheld {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            told => Ok(told),
        }
    }

    /// Sends `close_notify`, then shuts down the writing side.
    pub(crate) fn finish(&mut self) {
        if self.session.is_handshaking() {
            // Completing the handshake would be wasted work.
            return self.shut_down();
        }
        self.close_notify();
        self.socket.finish();
    }

    fn close_notify(&mut self) {
        if self.state == State::Talking && !self.session.is_handshaking() {
            self.state = State::Finished;
            // Best effort: the peer may be gone, or may not read.
            let queued = self.queue(Seal::CloseNotify);
            let pushed = self.push();
            drop((queued, pushed));
        }
    }

    /// Prevents the drop from sending `close_notify`.
    pub(crate) fn skip_close_notify(&mut self) {
        self.state = State::Broken;
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.close_notify();
    }
}

struct Pulled {
    bytes: usize,
    /// Decrypted bytes that the caller has.
    plain: usize,
    /// The read was short: the kernel has no more bytes.
    short: bool,
}

/// One read that no signal interrupts.
fn read_once(socket: &mut Socket, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Why a session failed.
fn fault(error: &Error) -> TlsFault {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                TlsFault::Expired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsFault::NotValidYet
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFault::WrongName
            }
            // A certificate of `openssl req -x509`. The type of the error belongs to a dependency
            // of `rustls`, so its text has to do.
            CertificateError::Other(why) if why.to_string() == "CaUsedAsEndEntity" => {
                TlsFault::Authority
            }
            _ => TlsFault::NotTrusted,
        },
        Error::InvalidMessage(_) => TlsFault::NotTls,
        Error::AlertReceived(_) => TlsFault::Refused,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => TlsFault::Incompatible,
        _ => TlsFault::Broken,
    }
}

#[cfg(test)]
mod exchange;
#[cfg(test)]
mod forged;

#[cfg(test)]
mod tests {
    use mio::net::UnixStream;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::{DEFAULT_VERSIONS, RootCertStore, SupportedProtocolVersion};

    use super::*;

    /// Configurations of both sides.
    pub(super) fn configs(
        versions: &[&'static SupportedProtocolVersion],
    ) -> (Arc<ServerConfig>, Arc<ClientConfig>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let shown = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(shown.signing_key.serialize_der()).unwrap();
        let chain = vec![shown.cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_protocol_versions(versions).unwrap();
        let mut server = server.with_no_client_auth().with_single_cert(chain, key).unwrap();
        server.ticketer = rustls::crypto::ring::Ticketer::new().unwrap();
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_protocol_versions(versions).unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        (Arc::new(server), Arc::new(client))
    }

    /// A raw client socket and the server's session.
    fn pair() -> (UnixStream, Tls) {
        let (peer, ours) = UnixStream::pair().unwrap();
        (peer, Tls::accept(Socket::Unix(ours), configs(DEFAULT_VERSIONS).0, &[]).unwrap())
    }

    /// A client that has ended its handshake, and a server that has not.
    fn connected() -> (Tls, Tls) {
        let (theirs, ours) = UnixStream::pair().unwrap();
        let (server, client) = configs(DEFAULT_VERSIONS);
        let mut server = Tls::accept(Socket::Unix(ours), server, &[]).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut client = Tls::connect(Socket::Unix(theirs), client, name).unwrap();
        assert!(!client.handshake().unwrap());
        assert_eq!(server.read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(client.handshake().unwrap());
        (client, server)
    }

    #[test]
    fn an_idle_session_holds_nothing() {
        let (mut client, mut server) = connected();
        let message = vec![7; 100_000];
        let mut sent = 0;
        let mut received = Vec::new();
        // A small buffer makes decrypted bytes wait.
        let mut buffer = [0; 1_000];
        while received.len() < message.len() {
            if sent < message.len() {
                sent += client.write(&[IoSlice::new(&message[sent..])]).unwrap_or(0);
            }
            client.flush().unwrap_or(());
            while let Ok(n) = server.read(&mut buffer) {
                received.extend_from_slice(&buffer[..n]);
            }
        }
        assert!(received == message);
        server.write(&[IoSlice::new(b"a"), IoSlice::new(b"b")]).unwrap();
        assert_eq!(client.read(&mut buffer).unwrap(), 2);
        assert_eq!((client.held_bytes(), server.held_bytes()), (0, 0));
        assert!(!server.holds_more() || server.read(&mut buffer).is_err());
    }

    #[test]
    fn tickets_are_sent_with_the_response() {
        let (mut client, mut server) = connected();
        client.write(&[IoSlice::new(b"request")]).unwrap();
        assert_eq!(server.read(&mut [0; 64]).unwrap(), 7);
        server.flush().unwrap();
        let mut first = [0; 8];
        let nothing = client.socket().read(&mut first).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert!(server.held_bytes() > 0, "the tickets wait");
        server.write(&[IoSlice::new(b"response")]).unwrap();
        assert_eq!(server.held_bytes(), 0);
        assert_eq!(client.read(&mut first).unwrap(), 8);
        assert_eq!(&first, b"response");
    }

    /// A record that cannot be decrypted must not take those before it along.
    #[test]
    fn bytes_before_a_broken_record_are_read() {
        let (mut client, mut server) = connected();
        client.write(&[IoSlice::new(b"request")]).unwrap();
        client.socket().write_all(&[&[23, 3, 3, 0, 30][..], &[9; 30]].concat()).unwrap();
        assert_eq!(server.read(&mut [0; 64]).unwrap(), 7);
        assert_eq!(server.read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let error = client.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "the server's alert");
    }

    /// The end without `close_notify` is an error for a client only.
    #[test]
    fn ends_are_told_apart() {
        let (mut client, mut server) = connected();
        client.finish();
        assert_eq!(server.read(&mut [0; 64]).unwrap(), 0);
        server.skip_close_notify();
        drop(server);
        let error = client.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn an_incomplete_handshake_is_counted_and_limited() {
        let (mut peer, mut tls) = pair();
        assert_eq!(tls.held_bytes(), 0);
        // The beginning of a ClientHello with 65 000 bytes, in a record of 16 000.
        peer.write_all(&[0x16, 3, 1, 0x3e, 0x80, 1, 0, 0xfd, 0xe8]).unwrap();
        let mut said = 9;
        while said < HANDSHAKE_BYTES {
            let error = tls.read(&mut [0; 64]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!((said..=16 * 1024).contains(&tls.held_bytes()), "{said}");
            peer.write_all(&[3; 1000]).unwrap();
            said += 1000;
        }
        assert_eq!(fault_of(&tls.read(&mut [0; 64]).unwrap_err()), Some(TlsFault::Broken));
        assert!(!tls.is_handshaking(), "it was given up");
    }

    fn fault_of(error: &io::Error) -> Option<TlsFault> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// Regression: it was reported as "no route to the address".
    #[test]
    fn a_certificate_that_never_ends_violates_the_protocol() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let client = configs(DEFAULT_VERSIONS).1;
        let mut client = Tls::connect(Socket::Unix(ours), client, name).unwrap();
        assert!(!client.handshake().unwrap());
        let fault = (0..7).find_map(|_| {
            peer.write_all(&[&[22, 3, 3, 0x40, 0, 11, 0, 0xff, 0xff][..], &[0; 16_380]].concat())
                .unwrap();
            client.handshake().err()
        });
        assert_eq!(fault.as_ref().and_then(fault_of), Some(TlsFault::Broken));
    }

    /// An early write fails with `WouldBlock`, so that the engine keeps the bytes.
    #[test]
    fn nothing_is_written_before_the_handshake() {
        let (_peer, mut tls) = pair();
        let error = tls.write(&[IoSlice::new(b"too early")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
