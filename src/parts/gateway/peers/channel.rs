//! A connection between two replicas, without I/O: a handshake, then sealed frames. The keys of the
//! frames are derived from the peer key, both randoms, the owner's boot and the direction, and the
//! nonce counts frames: nothing can be replayed in another connection, in the other direction,
//! twice, or after a restart. The owner sends nothing before a valid tag. The dialler's first frame
//! is empty: it proves that the dialler received the owner's random, so this is not a replay.

// dialler → owner   version 1 | key id 1 | random 16 | tag 16
// owner → dialler   random 16 | sealed: boot 8 | tag 16
// then both ways    length 4 | sealed: message | tag 16

use core::ops::Range;

use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};

use super::keys::{KeyId, PeerKey, PeerKeys};
use super::message::{ANSWER_BYTES_MAX, REQUEST_BYTES_MAX};
use super::sealed_id::Boot;

/// The version of this protocol.
pub const VERSION: u8 = 1;
/// Length of the dialler's first bytes.
pub const HELLO_BYTES: usize = 2 + RANDOM_BYTES + TAG_BYTES;
/// Length of the owner's first bytes.
pub const GREETING_BYTES: usize = RANDOM_BYTES + 8 + TAG_BYTES;
const RANDOM_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// An empty buffer with a larger capacity is freed.
const IDLE_BUFFER_BYTES: usize = 4 * 1024;

/// Random bytes that each side adds to a connection.
pub type Random = [u8; RANDOM_BYTES];

/// Why a connection must be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelFault {
    /// The dialler has another version.
    Version(u8),
    /// The dialler uses a key that we do not have.
    UnknownKey(KeyId),
    /// Invalid tag: the sender is not a peer, or the bytes were modified.
    Forged,
    /// A frame exceeds the maximum length.
    TooLong,
    /// A frame has an invalid message.
    InvalidMessage,
    /// The peer is another run of the process than the one that was dialled.
    OtherBoot,
}

/// One direction of a connection.
#[derive(Debug)]
struct Direction {
    key: LessSafeKey,
    count: u64,
}

impl Direction {
    fn next_nonce(&mut self) -> Nonce {
        let nonce = counted(self.count);
        self.count += 1;
        nonce
    }

    /// Appends a frame of these pieces.
    fn seal(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) {
        let length = pieces.iter().map(|piece| piece.len()).sum::<usize>() + TAG_BYTES;
        out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        let from = out.len();
        for piece in pieces {
            out.extend_from_slice(piece);
        }
        let nonce = self.next_nonce();
        // Fails only beyond 256 GiB; the peer rejects a frame without a tag.
        if let Ok(tag) = self.key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut out[from..])
        {
            out.extend_from_slice(tag.as_ref());
        }
    }
}

/// Frames in both directions.
#[derive(Debug)]
struct Frames {
    outbound: Direction,
    inbound: Direction,
}

/// Received bytes.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    /// How many of them are consumed.
    used: usize,
}

impl Input {
    /// Consumes `count` bytes, once they are received.
    fn take(&mut self, count: usize) -> Option<Range<usize>> {
        let range = self.used..self.used + count;
        (range.end <= self.bytes.len()).then(|| {
            self.used = range.end;
            range
        })
    }

    /// Consumes and opens the next frame. Its message is at most `max` bytes long.
    fn frame(
        &mut self,
        direction: &mut Direction,
        max: usize,
    ) -> Result<Option<Range<usize>>, ChannelFault> {
        let Some(length) = self.bytes.get(self.used..self.used + LENGTH_BYTES) else {
            return Ok(None);
        };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > max + TAG_BYTES {
            return Err(ChannelFault::TooLong);
        }
        let Some(range) = self.take(LENGTH_BYTES + length) else { return Ok(None) };
        let sealed = &mut self.bytes[range.start + LENGTH_BYTES..range.end];
        let nonce = direction.next_nonce();
        let opened = direction.key.open_in_place(nonce, Aad::empty(), sealed);
        let opened = opened.map_err(|_| ChannelFault::Forged)?.len();
        let start = range.start + LENGTH_BYTES;
        Ok(Some(start..start + opened))
    }

    /// Frees consumed bytes.
    fn compact(&mut self) {
        self.bytes.drain(..std::mem::take(&mut self.used));
        if self.bytes.is_empty() && self.bytes.capacity() > IDLE_BUFFER_BYTES {
            self.bytes = Vec::new();
        }
    }
}

/// The side that sends requests.
#[derive(Debug)]
pub struct Dialler {
    key: PeerKey,
    boot: Boot,
    random: Random,
    /// Set by the owner's greeting.
    frames: Option<Frames>,
    input: Input,
}

impl Dialler {
    /// Begins a connection to this run of a process. `random` must be used only once.
    #[must_use]
    pub fn new(key: PeerKey, boot: Boot, random: Random) -> Self {
        Self { key, boot, random, frames: None, input: Input::default() }
    }

    /// The peer key in use.
    pub(super) fn key(&self) -> &PeerKey {
        &self.key
    }

    /// Appends the hello, the first bytes to send.
    pub fn hello(&self, out: &mut Vec<u8>) {
        let head = [VERSION, self.key.id()];
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.random);
        seal_once(self.key.derive(&[b"hello", &self.random]), head, &mut [], out);
    }

    /// Whether requests can be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.frames.is_some()
    }

    /// Bytes were received. Messages are passed to `deliver`, which returns whether they are valid.
    ///
    /// # Errors
    /// The connection must be reset.
    pub fn received(
        &mut self,
        bytes: &[u8],
        deliver: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), ChannelFault> {
        self.input.bytes.extend_from_slice(bytes);
        if self.frames.is_none() {
            let Some(range) = self.input.take(GREETING_BYTES) else { return Ok(()) };
            let greeting: [u8; GREETING_BYTES] = array(&self.input.bytes[range]);
            self.frames = Some(self.greeted(greeting)?);
        }
        if let Some(frames) = &mut self.frames {
            while let Some(range) = self.input.frame(&mut frames.inbound, ANSWER_BYTES_MAX)? {
                if !deliver(&self.input.bytes[range]) {
                    return Err(ChannelFault::InvalidMessage);
                }
            }
        }
        self.input.compact();
        Ok(())
    }

    fn greeted(&self, mut greeting: [u8; GREETING_BYTES]) -> Result<Frames, ChannelFault> {
        let (random, sealed) = greeting.split_at_mut(RANDOM_BYTES);
        let random: Random = array(random);
        let key = self.key.derive(&[b"greeting", &self.random, &random]);
        let key = key.ok_or(ChannelFault::Forged)?;
        let boot = key.open_in_place(counted(0), Aad::empty(), sealed);
        let boot = boot.map_err(|_| ChannelFault::Forged)?;
        if *boot != self.boot.0 {
            return Err(ChannelFault::OtherBoot);
        }
        let [outbound, inbound] = directions(&self.key, self.boot, &self.random, &random)?;
        Ok(Frames { outbound, inbound })
    }

    /// Appends the empty first frame, see the head of this file.
    pub fn confirm(&mut self, out: &mut Vec<u8>) {
        self.seal(&[], out);
    }

    /// Appends a frame of these pieces. Does nothing before [`Dialler::is_open`].
    pub fn seal(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) {
        if let Some(frames) = &mut self.frames {
            frames.outbound.seal(pieces, out);
        }
    }

    /// Accounted bytes of the input buffer.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.input.bytes.capacity()
    }
}

/// The side that owns connections and answers requests.
#[derive(Debug)]
pub struct Acceptor {
    boot: Boot,
    random: Random,
    /// Set by the dialler's hello: its peer key, and the frames.
    open: Option<(PeerKey, Frames)>,
    /// Whether a frame of the dialler was opened.
    is_authenticated: bool,
    input: Input,
}

impl Acceptor {
    /// Accepts a connection. `random` must be used only once.
    #[must_use]
    pub fn new(boot: Boot, random: Random) -> Self {
        Self { boot, random, open: None, is_authenticated: false, input: Input::default() }
    }

    /// The peer key that the dialler uses.
    pub(super) fn key(&self) -> Option<&PeerKey> {
        self.open.as_ref().map(|(key, _)| key)
    }

    /// Whether a frame of the dialler was opened, so that it is a peer and not a replay.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Bytes were received. Messages are passed to `serve`, which returns the answer.
    ///
    /// # Errors
    /// The connection must be reset, without any output.
    pub fn received(
        &mut self,
        keys: &PeerKeys,
        bytes: &[u8],
        out: &mut Vec<u8>,
        serve: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<(), ChannelFault> {
        self.input.bytes.extend_from_slice(bytes);
        if self.open.is_none() {
            // The hello of another version may have another length.
            if let Some(version) = self.input.bytes.first().filter(|byte| **byte != VERSION) {
                return Err(ChannelFault::Version(*version));
            }
            let Some(range) = self.input.take(HELLO_BYTES) else { return Ok(()) };
            let hello: [u8; HELLO_BYTES] = array(&self.input.bytes[range]);
            self.open = Some(self.greet(keys, hello, out)?);
        }
        if let Some((_, frames)) = &mut self.open {
            loop {
                let max = if self.is_authenticated { REQUEST_BYTES_MAX } else { 0 };
                let frame = self.input.frame(&mut frames.inbound, max)?;
                let Some(range) = frame else { break };
                if std::mem::replace(&mut self.is_authenticated, true) {
                    let answer = serve(&self.input.bytes[range]);
                    let answer = answer.ok_or(ChannelFault::InvalidMessage)?;
                    frames.outbound.seal(&[&answer], out);
                }
            }
        }
        self.input.compact();
        Ok(())
    }

    fn greet(
        &self,
        keys: &PeerKeys,
        mut hello: [u8; HELLO_BYTES],
        out: &mut Vec<u8>,
    ) -> Result<(PeerKey, Frames), ChannelFault> {
        let (head, sealed) = hello.split_at_mut(2 + RANDOM_BYTES);
        let (head, random): ([u8; 2], Random) = (array(&head[..2]), array(&head[2..]));
        let key = keys.find(head[1]).ok_or(ChannelFault::UnknownKey(head[1]))?;
        let once = key.derive(&[b"hello", &random]).ok_or(ChannelFault::Forged)?;
        let opened = once.open_in_place(counted(0), Aad::from(head), sealed);
        opened.map_err(|_| ChannelFault::Forged)?;
        let [inbound, outbound] = directions(key, self.boot, &random, &self.random)?;
        out.extend_from_slice(&self.random);
        let once = key.derive(&[b"greeting", &random, &self.random]);
        seal_once(once, [], &mut self.boot.0.clone(), out);
        Ok((key.clone(), Frames { outbound, inbound }))
    }

    /// Accounted bytes of the input buffer.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.input.bytes.capacity()
    }
}

/// The direction from the dialler to the owner, and the reverse.
fn directions(
    key: &PeerKey,
    boot: Boot,
    dialler: &Random,
    owner: &Random,
) -> Result<[Direction; 2], ChannelFault> {
    let direction = |name: &[u8]| {
        let key = key.derive(&[name, dialler, owner, &boot.0]).ok_or(ChannelFault::Forged)?;
        Ok(Direction { key, count: 0 })
    };
    Ok([direction(b"requests")?, direction(b"answers")?])
}

/// Seals and appends `plain`. The key must not be used for anything else.
fn seal_once<const N: usize>(
    key: Option<LessSafeKey>,
    aad: [u8; N],
    plain: &mut [u8],
    out: &mut Vec<u8>,
) {
    let sealed =
        key.and_then(|key| key.seal_in_place_separate_tag(counted(0), Aad::from(aad), plain).ok());
    if let Some(tag) = sealed {
        out.extend_from_slice(plain);
        out.extend_from_slice(tag.as_ref());
    }
}

fn counted(count: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[NONCE_LEN - 8..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Copies into an array. The caller has checked the length.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
