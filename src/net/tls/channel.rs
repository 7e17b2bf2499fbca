//! TLS between a socket and the loop, which treats it like a plain stream. A byte counts as written
//! once the kernel has its record, except that one is withheld while records wait.
//! It buffers at most [`HANDSHAKE_BYTES`] or one record of the peer, and [`UNSENT_BYTES`] of ours.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, Error, ProtocolVersion,
    ServerConfig, ServerConnection,
};

use super::super::socket::Socket;
use super::expiry;
use crate::engine::{TlsFacts, TlsFault};
use crate::limits::HANDSHAKE_BYTES;

/// Most bytes of our records that wait for the kernel.
const UNSENT_BYTES: usize = 32 * 1024;
/// By how much the read buffer of a `rustls` session grows; each session has one.
const READ_BYTES: usize = 4 * 1024;
/// Overhead of a record.
const RECORD_BYTES: usize = 22;
/// Most bytes read per call, so that endless empty records cannot block other streams.
const PULLED_BYTES: usize = 128 * 1024;

#[derive(Debug)]
pub(crate) struct Tls {
    socket: Socket,
    session: Connection,
    state: State,
    pending: Pending,
    /// Bytes encrypted but not reported as written: one while records wait, so that the caller
    /// knows that output is unsent.
    withheld: usize,
    /// Sent in plaintext to a client that does not speak TLS.
    plaintext_response: &'static [u8],
    buffered: Buffered,
}

/// What the session buffers, as far as that is visible from outside.
#[derive(Debug, Default)]
struct Buffered {
    /// Bytes of an incomplete handshake or record.
    incoming: usize,
    /// Decrypted bytes not read yet.
    unread: usize,
    /// Bytes of our records that wait for the kernel.
    queued: usize,
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
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self::new(socket, tls.into(), plaintext_response))
    }

    /// The client side of a session.
    pub(super) fn connect(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = ClientConnection::new(config, name).map_err(|error| fault(&error))?;
        Ok(Self::new(socket, tls.into(), &[]))
    }

    fn new(socket: Socket, mut session: Connection, plaintext_response: &'static [u8]) -> Self {
        session.set_buffer_limit(Some(UNSENT_BYTES));
        let (state, pending) = (State::Fresh, Pending::Nothing);
        Self {
            socket,
            session,
            state,
            pending,
            withheld: 0,
            plaintext_response,
            buffered: Buffered::default(),
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
        let Buffered { incoming, unread, queued } = self.buffered;
        let buffer = (incoming + READ_BYTES).next_power_of_two();
        buffer - READ_BYTES + unread + queued
    }

    pub(crate) fn holds_more(&self) -> bool {
        self.pending == Pending::Perhaps
    }

    /// Advances the handshake; returns true once it is complete.
    pub(crate) fn handshake(&mut self) -> io::Result<bool> {
        while self.session.is_handshaking() {
            self.push()?;
            match self.pull() {
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
        let (mut n, mut pulled) = (0, 0);
        self.pending = Pending::Perhaps;
        loop {
            match self.session.reader().read(&mut buffer[n..]) {
                // The peer sent `close_notify`.
                Ok(0) => return Ok(n),
                Ok(more) => {
                    n += more;
                    self.buffered.unread = self.buffered.unread.saturating_sub(more);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) if n > 0 => return Ok(n),
                Err(error) => return self.unexpected_eof(error),
            }
            if n == buffer.len() || (n > 0 && self.pending == Pending::Nothing) {
                return Ok(n);
            }
            if pulled >= PULLED_BYTES {
                return if n > 0 { Ok(n) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
            match self.pull() {
                Ok(Pulled { bytes: 0, .. }) if n > 0 => return Ok(n),
                // A client may close before its handshake is complete.
                Ok(Pulled { bytes: 0, .. }) if self.session.is_handshaking() => return Ok(0),
                Ok(Pulled { bytes, short }) => {
                    pulled += bytes;
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
    fn unexpected_eof(&self, error: io::Error) -> io::Result<usize> {
        match self.session {
            Connection::Server(_) => Ok(0),
            Connection::Client(_) => Err(error),
        }
    }

    /// Reads once from the kernel, processes it and sends what that caused.
    fn pull(&mut self) -> io::Result<Pulled> {
        if self.state == State::Broken {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut source = Source { socket: &mut self.socket, first: None, short: false };
        let bytes = self.session.read_tls(&mut source)?;
        let (first, short) = (source.first, source.short);
        let fresh = self.state == State::Fresh && bytes > 0;
        if fresh {
            self.state = State::Talking;
            if first.is_some_and(|byte| byte.is_ascii_uppercase())
                && !self.plaintext_response.is_empty()
            {
                return Err(self.reject_plaintext());
            }
        }
        let (unread, ended) = match self.session.process_new_packets() {
            Ok(state) => (state.plaintext_bytes_to_read(), state.peer_has_closed()),
            Err(error) => return Err(self.fail(&error)),
        };
        self.count_pulled(bytes, unread)?;
        self.push()?;
        // A `close_notify` is still to be read.
        Ok(Pulled { bytes, short: short && !ended })
    }

    /// Counts incomplete bytes; a client whose handshake is too long is rejected.
    fn count_pulled(&mut self, bytes: usize, unread: usize) -> io::Result<()> {
        self.buffered.unread = unread;
        let handshaking = self.session.is_handshaking();
        self.buffered.incoming = match unread {
            0 if handshaking => self.buffered.incoming + bytes,
            0 => (self.buffered.incoming + bytes).min(UNSENT_BYTES),
            // A record was complete, and the rest of this read is shorter than a read.
            _ => 0,
        };
        let is_client = matches!(self.session, Connection::Server(_));
        if handshaking && is_client && self.buffered.incoming > HANDSHAKE_BYTES {
            log::debug!(target: "tls", bytes = self.buffered.incoming; "handshake too long");
            self.shut_down();
            return Err(io::ErrorKind::InvalidData.into());
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

    /// Sends the alert for this error, as far as it fits, and shuts the session down.
    fn fail(&mut self, error: &Error) -> io::Error {
        let handshaking = self.session.is_handshaking();
        log::debug!(target: "tls", error:% = error, handshake = handshaking; "TLS failed");
        let pushed = self.push();
        drop(pushed);
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
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Ok(false),
                Ok(n) => self.buffered.queued = self.buffered.queued.saturating_sub(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.state = State::Broken;
                    return Err(error);
                }
            }
        }
        self.buffered.queued = 0;
        Ok(true)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.push()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    pub(crate) fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.session.is_handshaking() {
            // Nothing can be encrypted yet: the caller keeps it until the handshake is complete.
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.flush()?;
        let (mut taken, mut skipped) = (0, std::mem::take(&mut self.withheld));
        for piece in pieces {
            let mut left = &piece[skipped.min(piece.len())..];
            taken += piece.len() - left.len();
            skipped -= piece.len() - left.len();
            while !left.is_empty() {
                let n = self.session.writer().write(left)?;
                self.buffered.queued += n + RECORD_BYTES;
                taken += n;
                left = &left[n..];
                if !left.is_empty() && !self.push()? {
                    return self.withhold(taken);
                }
            }
        }
        if self.push()? { Ok(taken) } else { self.withhold(taken) }
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
            self.session.send_close_notify();
            // Best effort: the peer may be gone, or may not read.
            let pushed = self.push();
            drop(pushed);
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
    /// The read was short: the kernel has no more bytes.
    short: bool,
}

/// Records the first byte of a read and whether the read was short.
struct Source<'s> {
    socket: &'s mut Socket,
    first: Option<u8>,
    short: bool,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.socket.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) => {
                    self.first = buffer.first().copied().filter(|_| n > 0);
                    self.short = n < buffer.len();
                    return Ok(n);
                }
                Err(error) => return Err(error),
            }
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
mod tests {
    use mio::net::UnixStream;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// A raw client socket and the server's session.
    fn pair() -> (UnixStream, Tls) {
        let (peer, ours) = UnixStream::pair().unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(rustls::DEFAULT_VERSIONS).unwrap();
        let shown = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(shown.signing_key.serialize_der()).unwrap();
        let chain = vec![shown.cert.der().clone()];
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        (peer, Tls::accept(Socket::Unix(ours), Arc::new(config), &[]).unwrap())
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
        let error = tls.read(&mut [0; 64]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(!tls.is_handshaking(), "it was given up");
    }

    /// An early write fails with `WouldBlock`, so that the engine keeps the bytes.
    #[test]
    fn nothing_is_written_before_the_handshake() {
        let (_peer, mut tls) = pair();
        let error = tls.write(&[IoSlice::new(b"too early")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
