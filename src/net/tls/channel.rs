//! TLS between a socket and the loop, which must not notice: what the peer says comes out of
//! `read`, and a byte counts as written once the kernel has what became of it, all but one.
//! Nothing is kept beyond [`HANDSHAKE_BYTES`] or one record of the peer and [`UNSENT_BYTES`] of
//! ours.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use super::super::stream::Socket;
use super::trust;
use crate::engine::TlsFault;
use crate::limits::HANDSHAKE_BYTES;

/// Our records that wait for the kernel.
const UNSENT_BYTES: usize = 32 * 1024;
/// By so much the buffer of `rustls` grows for a read; each session has one such.
const READ_BYTES: usize = 4 * 1024;
/// What a record adds to the bytes in it.
const RECORD_BYTES: usize = 22;
/// Read from the kernel in one go: an endless row of empty records must not hold up the others.
const PULLED_BYTES: usize = 128 * 1024;

/// A socket with TLS around it.
#[derive(Debug)]
pub(crate) struct Tls {
    socket: Socket,
    session: Connection,
    state: State,
    rest: Rest,
    /// Bytes that are on their way, but that nobody was told of: one, while records wait. So
    /// whoever writes knows that something is unsent.
    withheld: usize,
    /// The last words to a peer that does not speak TLS, in clear.
    plain_words: &'static [u8],
    held: Held,
}

/// What the session keeps, as far as it can be known from outside.
#[derive(Debug, Default)]
struct Held {
    /// Of a handshake, or of a record, that is not complete.
    incoming: usize,
    /// Understood, and not read.
    unread: usize,
    /// Our records that wait for the kernel.
    queued: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not one byte has come.
    Fresh,
    Talking,
    /// Our last word is said.
    Finished,
    /// Nothing more can be understood.
    Broken,
}

/// What the kernel still has for us, as far as we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    Perhaps,
}

impl Tls {
    /// The peer begins.
    pub(super) fn accept(
        socket: Socket,
        config: Arc<ServerConfig>,
        plain_words: &'static [u8],
    ) -> io::Result<Self> {
        let tls = ServerConnection::new(config).map_err(io::Error::other)?;
        Ok(Self::new(socket, tls.into(), plain_words))
    }

    /// We begin.
    pub(super) fn connect(
        socket: Socket,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tls = ClientConnection::new(config, name).map_err(|error| trust::fault(&error))?;
        Ok(Self::new(socket, tls.into(), &[]))
    }

    fn new(socket: Socket, mut session: Connection, plain_words: &'static [u8]) -> Self {
        session.set_buffer_limit(Some(UNSENT_BYTES));
        let (state, rest) = (State::Fresh, Rest::Nothing);
        Self { socket, session, state, rest, withheld: 0, plain_words, held: Held::default() }
    }

    pub(in crate::net) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    pub(in crate::net) fn is_shaking(&self) -> bool {
        self.session.is_handshaking() && self.state != State::Broken
    }

    /// What it keeps beyond what every session costs.
    pub(in crate::net) fn held_bytes(&self) -> usize {
        let Held { incoming, unread, queued } = self.held;
        let buffer = (incoming + READ_BYTES).next_power_of_two();
        buffer - READ_BYTES + unread + queued
    }

    pub(in crate::net) fn holds_more(&self) -> bool {
        self.rest == Rest::Perhaps
    }

    /// As far as the peer's words go; true once the two understand each other.
    pub(in crate::net) fn shake(&mut self) -> io::Result<bool> {
        while self.session.is_handshaking() {
            self.push()?;
            match self.pull() {
                Ok(Pulled { bytes: 0, .. }) => return Err(io::ErrorKind::ConnectionReset.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        // The peer waits for this: what does not fit is pushed with the first word.
        self.push()?;
        Ok(true)
    }

    pub(in crate::net) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (mut n, mut pulled) = (0, 0);
        self.rest = Rest::Perhaps;
        loop {
            match self.session.reader().read(&mut buffer[n..]) {
                // The peer's last word.
                Ok(0) => return Ok(n),
                Ok(more) => {
                    n += more;
                    self.held.unread = self.held.unread.saturating_sub(more);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) if n > 0 => return Ok(n),
                Err(error) => return self.cut_off(error),
            }
            if n == buffer.len() || (n > 0 && self.rest == Rest::Nothing) {
                return Ok(n);
            }
            if pulled >= PULLED_BYTES {
                return if n > 0 { Ok(n) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
            match self.pull() {
                Ok(Pulled { bytes: 0, .. }) if n > 0 => return Ok(n),
                // Whoever leaves before a word was understood has said nothing wrong.
                Ok(Pulled { bytes: 0, .. }) if self.session.is_handshaking() => return Ok(0),
                Ok(Pulled { bytes, short }) => {
                    pulled += bytes;
                    self.rest = if short { Rest::Nothing } else { Rest::Perhaps };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.rest = Rest::Nothing;
                    return if n > 0 { Ok(n) } else { Err(error) };
                }
                // What was understood comes first; the next read meets the error again.
                Err(_) if n > 0 => return Ok(n),
                Err(error) => return Err(error),
            }
        }
    }

    /// The peer's end without its last word. Many clients end like that, and what they say tells
    /// where it ends; of a server's answer it may be the only end.
    fn cut_off(&self, error: io::Error) -> io::Result<usize> {
        match self.session {
            Connection::Server(_) => Ok(0),
            Connection::Client(_) => Err(error),
        }
    }

    /// One read from the kernel, and what follows from it.
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
            if first.is_some_and(|byte| byte.is_ascii_uppercase()) && !self.plain_words.is_empty() {
                return Err(self.answer_plainly());
            }
        }
        let (unread, ended) = match self.session.process_new_packets() {
            Ok(state) => (state.plaintext_bytes_to_read(), state.peer_has_closed()),
            Err(error) => return Err(self.give_up(&error)),
        };
        self.note_pulled(bytes, unread)?;
        self.push()?;
        // The peer's last word is something that is still to be read.
        Ok(Pulled { bytes, short: short && !ended })
    }

    /// Counts what is not complete; a client that says too much before it is understood is refused.
    fn note_pulled(&mut self, bytes: usize, unread: usize) -> io::Result<()> {
        self.held.unread = unread;
        let shaking = self.session.is_handshaking();
        self.held.incoming = match unread {
            0 if shaking => self.held.incoming + bytes,
            0 => (self.held.incoming + bytes).min(UNSENT_BYTES),
            // A record was complete, and what is left of this read is less than a read.
            _ => 0,
        };
        let is_client = matches!(self.session, Connection::Server(_));
        if shaking && is_client && self.held.incoming > HANDSHAKE_BYTES {
            log::debug!(target: "tls", bytes = self.held.incoming; "handshake is too long");
            self.hang_up();
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(())
    }

    /// A handshake begins with another byte: whoever speaks plainly should learn what is wrong.
    fn answer_plainly(&mut self) -> io::Error {
        // As far as it fits: it is a favour.
        let written = self.socket.write(self.plain_words);
        drop(written);
        self.hang_up();
        TlsFault::NotTls.into()
    }

    /// The peer is told by an alert, as far as it listens.
    fn give_up(&mut self, error: &rustls::Error) -> io::Error {
        let shaking = self.session.is_handshaking();
        log::debug!(target: "tls", error:% = error, handshake = shaking; "cannot go on");
        let pushed = self.push();
        drop(pushed);
        self.hang_up();
        trust::fault(error).into()
    }

    fn hang_up(&mut self) {
        self.state = State::Broken;
        self.socket.finish();
        // Unread bytes would make the kernel reset the connection, last word included.
        let drained = self.socket.read(&mut [0; 4096]);
        drop(drained);
    }

    /// Gives the kernel what waits; false when it does not take all.
    fn push(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Ok(false),
                Ok(n) => self.held.queued = self.held.queued.saturating_sub(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.state = State::Broken;
                    return Err(error);
                }
            }
        }
        self.held.queued = 0;
        Ok(true)
    }

    pub(in crate::net) fn flush(&mut self) -> io::Result<()> {
        if self.push()? { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    pub(in crate::net) fn write(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.session.is_handshaking() {
            // Nobody could read it yet: it is kept until they understand each other.
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
                self.held.queued += n + RECORD_BYTES;
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

    /// Our last word, then the end.
    pub(in crate::net) fn finish(&mut self) {
        if self.session.is_handshaking() {
            // To go on with it would be work for nobody.
            return self.hang_up();
        }
        self.say_goodbye();
        self.socket.finish();
    }

    fn say_goodbye(&mut self) {
        if self.state == State::Talking && !self.session.is_handshaking() {
            self.state = State::Finished;
            self.session.send_close_notify();
            // To a peer that is gone, or that takes nothing, there is nothing more to say.
            let pushed = self.push();
            drop(pushed);
        }
    }

    /// The connection is to end without another word.
    pub(in crate::net) fn forget(&mut self) {
        self.state = State::Broken;
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.say_goodbye();
    }
}

/// What one read from the kernel brought.
struct Pulled {
    bytes: usize,
    /// It had no more.
    short: bool,
}

/// Looks at what comes from the kernel.
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

#[cfg(test)]
mod tests {
    use mio::net::UnixStream;
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// What the peer holds, and the server's side.
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
    fn half_a_handshake_is_told_and_has_an_end() {
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
        assert!(!tls.is_shaking(), "nothing more is done for it");
    }

    /// An answer before the handshake would be lost; the engine keeps it until then.
    #[test]
    fn nothing_is_written_before_the_handshake() {
        let (_peer, mut tls) = pair();
        let error = tls.write(&[IoSlice::new(b"too early")]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
