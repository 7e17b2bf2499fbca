//! A session of `rustls` that buffers nothing: the peer's records are decrypted in the memory that
//! they were read to, ours are encrypted to memory that all sessions share. So an idle session
//! holds its keys and no buffers. It knows no socket.

use core::fmt;
use std::cell::Cell;
use std::io::IoSlice;
use std::ops::Deref;
use std::sync::Arc;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

/// Most plaintext of a record (RFC 8446 §5.1).
const RECORD_BYTES: usize = 16 * 1024;
/// Overhead of a record of ours, and room for a key update before it.
const OVERHEAD_BYTES: usize = 128;
/// Most bytes of the peer that are processed at once.
pub(super) const WIRE_BYTES: usize = 84 * 1024;

pub(super) enum Session {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Session::Server",
            Self::Client(_) => "Session::Client",
        })
    }
}

impl Deref for Session {
    type Target = CommonState;

    fn deref(&self) -> &CommonState {
        match self {
            Self::Server(session) => session,
            Self::Client(session) => session,
        }
    }
}

/// What to encrypt once the peer's records are processed.
#[derive(Clone, Copy)]
pub(super) enum Seal<'p> {
    Nothing,
    /// At most [`RECORD_BYTES`].
    Plaintext(&'p [u8]),
    CloseNotify,
}

enum Next {
    Again,
    Blocked,
    Sealed,
}

impl Session {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::Server(Box::new(UnbufferedServerConnection::new(config)?)))
    }

    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        Ok(Self::Client(Box::new(UnbufferedClientConnection::new(config, name)?)))
    }

    /// Processes the peer's bytes, which begin with those that the last call left, then seals.
    /// Returns how many of them are done with; the others must come again, with more behind them.
    pub(super) fn process(
        &mut self,
        wire: &mut [u8],
        seal: Seal<'_>,
        plain: &mut Plain<'_>,
        records: &mut Records,
    ) -> (usize, Result<(), Error>) {
        let mut used = 0;
        loop {
            let (done, next) = self.step(&mut wire[used..], seal, plain, records);
            used += done;
            match (next, seal) {
                (Ok(Next::Again), _) => {}
                (Ok(Next::Sealed), _) | (Ok(Next::Blocked), Seal::Nothing) => {
                    return (used, Ok(()));
                }
                (Ok(Next::Blocked), _) => return (used, Err(Error::EncryptError)),
                (Err(error), _) => return (used, Err(error)),
            }
        }
    }

    /// Makes the records that a failed session still has: its alert. `wire` is what that call left.
    pub(super) fn alert(&mut self, wire: &mut [u8], plain: &mut Plain<'_>, records: &mut Records) {
        // Records come before bytes of the peer, which would fail again.
        while self.wants_write() {
            let (_, next) = self.step(wire, Seal::Nothing, plain, records);
            if !matches!(next, Ok(Next::Again)) {
                return;
            }
        }
    }

    fn step(
        &mut self,
        wire: &mut [u8],
        seal: Seal<'_>,
        plain: &mut Plain<'_>,
        records: &mut Records,
    ) -> (usize, Result<Next, Error>) {
        match self {
            Self::Server(session) => {
                handle(session.process_tls_records(wire), seal, plain, records)
            }
            Self::Client(session) => {
                handle(session.process_tls_records(wire), seal, plain, records)
            }
        }
    }
}

/// Handles one status.
fn handle<D>(
    status: UnbufferedStatus<'_, '_, D>,
    seal: Seal<'_>,
    plain: &mut Plain<'_>,
    records: &mut Records,
) -> (usize, Result<Next, Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let next = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.append(record.payload);
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(Next::Again),
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => encode(data, records).map(|()| Next::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            // The caller sends or keeps all records.
            data.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::PeerClosed) => {
            plain.ended = true;
            Ok(Next::Again)
        }
        Ok(ConnectionState::WriteTraffic(traffic)) => sealed(traffic, seal, records),
        // Early data is never accepted. Other states need more bytes of the peer.
        Ok(_) => Ok(Next::Blocked),
        Err(error) => Err(error),
    };
    (discard, next)
}

fn encode<D>(mut data: EncodeTlsData<'_, D>, records: &mut Records) -> Result<(), Error> {
    let mut room = OVERHEAD_BYTES;
    loop {
        match data.encode(records.room(room)) {
            Ok(n) => {
                records.filled += n;
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(size)) => room = size.required_size,
            Err(EncodeError::AlreadyEncoded) => return Err(Error::EncryptError),
        }
    }
}

fn sealed<D>(
    mut traffic: WriteTraffic<'_, D>,
    seal: Seal<'_>,
    records: &mut Records,
) -> Result<Next, Error> {
    let mut room = match seal {
        Seal::Nothing => return Ok(Next::Blocked),
        Seal::Plaintext(bytes) => bytes.len() + OVERHEAD_BYTES,
        Seal::CloseNotify => OVERHEAD_BYTES,
    };
    loop {
        let encrypted = match seal {
            Seal::Nothing => Ok(0),
            Seal::Plaintext(bytes) => traffic.encrypt(bytes, records.room(room)),
            Seal::CloseNotify => traffic.queue_close_notify(records.room(room)),
        };
        match encrypted {
            Ok(n) => {
                records.filled += n;
                return Ok(Next::Sealed);
            }
            Err(EncryptError::InsufficientSize(size)) => room = size.required_size,
            Err(EncryptError::EncryptExhausted) => return Err(Error::EncryptError),
        }
    }
}

/// Where decrypted bytes go.
#[derive(Debug)]
pub(super) struct Plain<'r> {
    pub(super) room: &'r mut [u8],
    /// Bytes of `room` that are filled.
    pub(super) filled: usize,
    /// What does not fit.
    pub(super) rest: &'r mut Queue,
    /// The peer has sent `close_notify`.
    pub(super) ended: bool,
}

impl Plain<'_> {
    fn append(&mut self, bytes: &[u8]) {
        let n = bytes.len().min(self.room.len() - self.filled);
        self.room[self.filled..self.filled + n].copy_from_slice(&bytes[..n]);
        self.filled += n;
        self.rest.append(&bytes[n..]);
    }
}

/// Bytes that wait; an empty queue has no memory.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    start: usize,
}

impl Queue {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes.reserve_exact(bytes.len());
            self.bytes.extend_from_slice(bytes);
        }
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start == self.bytes.len() {
            *self = Self::default();
        }
    }
}

/// Our records on their way to the kernel.
#[derive(Debug, Default)]
pub(super) struct Records {
    memory: Vec<u8>,
    filled: usize,
}

impl Records {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[..self.filled]
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Room for at least so many bytes behind the others.
    fn room(&mut self, n: usize) -> &mut [u8] {
        if self.memory.len() < self.filled + n {
            self.memory.resize(self.filled + n, 0);
        }
        &mut self.memory[self.filled..]
    }
}

/// Memory that all sessions of a thread share; nothing in it outlives a call.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The peer's bytes, [`WIRE_BYTES`] of them.
    pub(super) wire: Vec<u8>,
    pub(super) records: Records,
    /// Short pieces that become one record.
    pub(super) joined: Vec<u8>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = const {
        Cell::new(Scratch {
            wire: Vec::new(),
            records: Records { memory: Vec::new(), filled: 0 },
            joined: Vec::new(),
        })
    };
}

/// Lends the memory that all sessions share, without records in it.
pub(super) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take();
    scratch.wire.resize(WIRE_BYTES, 0);
    scratch.records.clear();
    let result = work(&mut scratch);
    SCRATCH.set(scratch);
    result
}

/// Plaintext cut into records: neighbours that fit become one, long pieces stay where they lie.
#[derive(Debug)]
pub(super) struct Cut<'p> {
    pieces: &'p [IoSlice<'p>],
    /// Bytes of the first piece that are done with.
    at: usize,
}

impl<'p> Cut<'p> {
    /// Without the first `skipped` bytes.
    pub(super) fn new(pieces: &'p [IoSlice<'p>], skipped: usize) -> Self {
        Self { pieces, at: skipped }
    }

    /// What is left of the first piece that is not done with.
    fn first(&mut self) -> &'p [u8] {
        while let [first, rest @ ..] = self.pieces {
            if self.at < first.len() {
                return &first[self.at..];
            }
            self.at -= first.len();
            self.pieces = rest;
        }
        &[]
    }

    /// The plaintext of the next record; empty at the end.
    pub(super) fn next<'s>(&'s mut self, joined: &'s mut Vec<u8>) -> &'s [u8] {
        let first = self.first();
        let second = self.pieces.get(1).map_or(0, |piece| piece.len());
        if second == 0 || first.len() + second > RECORD_BYTES {
            let n = first.len().min(RECORD_BYTES);
            self.at += n;
            return &first[..n];
        }
        joined.clear();
        loop {
            let first = self.first();
            if first.is_empty() || joined.len() + first.len() > RECORD_BYTES {
                return joined;
            }
            joined.extend_from_slice(first);
            self.at += first.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(lengths: &[usize], skipped: usize) -> Vec<usize> {
        let pieces: Vec<Vec<u8>> = lengths.iter().map(|length| vec![7; *length]).collect();
        let pieces: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let (mut cut, mut joined) = (Cut::new(&pieces, skipped), Vec::new());
        let mut records = Vec::new();
        loop {
            match cut.next(&mut joined).len() {
                0 => return records,
                n => records.push(n),
            }
        }
    }

    #[test]
    fn pieces_become_records() {
        assert!(cut(&[], 0).is_empty());
        assert!(cut(&[0, 0], 0).is_empty());
        assert_eq!(cut(&[4, 100], 0), [104]);
        assert_eq!(cut(&[4, 100], 1), [103]);
        assert_eq!(cut(&[4, 100], 50), [54]);
        assert_eq!(cut(&[4, 16_384], 0), [4, 16_384]);
        assert_eq!(cut(&[4, 16_380, 2], 0), [16_384, 2]);
        assert_eq!(cut(&[40_000, 3, 4], 0), [16_384, 16_384, 7_239]);
        assert_eq!(cut(&[5, 0, 6], 0), [5, 6]);
    }

    #[test]
    fn a_queue_without_bytes_has_no_memory() {
        let mut queue = Queue::default();
        queue.append(b"abc");
        queue.consume(2);
        assert_eq!(queue.bytes(), b"c");
        queue.append(b"d");
        assert_eq!(queue.bytes(), b"cd");
        queue.consume(2);
        assert_eq!((queue.is_empty(), queue.capacity()), (true, 0));
    }
}
