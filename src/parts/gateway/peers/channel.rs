//! A connection between two replicas, without I/O: a handshake, then sealed frames. The keys of the
//! frames are derived from the peer key, both randoms, the owner's boot and the direction, and the
//! nonce counts frames: nothing can be replayed in another connection, in the other direction,
//! twice, or after a restart. An owner answers nothing without a valid tag. The dialler's first
//! frame is empty: it proves that the owner's random was received, and longer ones may follow.

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
/// The dialler's first bytes.
pub const HELLO_BYTES: usize = 2 + RANDOM_BYTES + TAG_BYTES;
/// The owner's first bytes.
pub const GREETING_BYTES: usize = RANDOM_BYTES + 8 + TAG_BYTES;
const RANDOM_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const LENGTH_BYTES: usize = 4;
/// A buffer that is larger is freed when it is empty.
const IDLE_BUFFER_BYTES: usize = 4 * 1024;

/// Randomness that each side adds to a connection.
pub type Random = [u8; RANDOM_BYTES];

/// Why a connection must be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelFault {
    /// The dialler has another version.
    Version(u8),
    /// The dialler uses a key that we do not have.
    UnknownKey(KeyId),
    /// A tag is wrong: it is not a peer, or somebody changed what it sent.
    Forged,
    /// A frame is longer than any of ours.
    TooLong,
    /// A frame is no message: the peer has another version.
    NoMessage,
    /// It is a peer, but another run of the process than the one that was dialled.
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
        // It fails only beyond 256 GiB; without a tag, the peer refuses the frame.
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

/// The bytes of a peer that are not used yet.
#[derive(Debug, Default)]
struct Input {
    bytes: Vec<u8>,
    /// How many of them are used.
    used: usize,
}

impl Input {
    /// The next so many bytes, if they are there.
    fn take(&mut self, count: usize) -> Option<Range<usize>> {
        let range = self.used..self.used + count;
        (range.end <= self.bytes.len()).then(|| {
            self.used = range.end;
            range
        })
    }

    /// The next frame, opened; it is at most `most` bytes long.
    fn frame(
        &mut self,
        direction: &mut Direction,
        most: usize,
    ) -> Result<Option<Range<usize>>, ChannelFault> {
        let Some(length) = self.bytes.get(self.used..self.used + LENGTH_BYTES) else {
            return Ok(None);
        };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > most + TAG_BYTES {
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

    /// Frees what is used.
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
    /// After the owner's greeting.
    frames: Option<Frames>,
    input: Input,
}

impl Dialler {
    /// For a connection to this run of a process. The randomness must be used only once.
    #[must_use]
    pub fn new(key: PeerKey, boot: Boot, random: Random) -> Self {
        Self { key, boot, random, frames: None, input: Input::default() }
    }

    /// The key that it uses.
    pub(super) fn key(&self) -> &PeerKey {
        &self.key
    }

    /// Appends the first bytes to send.
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

    /// Bytes of the owner. Each of its messages is passed to `deliver`, which returns whether it is
    /// one.
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
            let greeting: [u8; GREETING_BYTES] = fixed(&self.input.bytes[range]);
            self.frames = Some(self.greeted(greeting)?);
        }
        if let Some(frames) = &mut self.frames {
            while let Some(range) = self.input.frame(&mut frames.inbound, ANSWER_BYTES_MAX)? {
                if !deliver(&self.input.bytes[range]) {
                    return Err(ChannelFault::NoMessage);
                }
            }
        }
        self.input.compact();
        Ok(())
    }

    fn greeted(&self, mut greeting: [u8; GREETING_BYTES]) -> Result<Frames, ChannelFault> {
        let (random, sealed) = greeting.split_at_mut(RANDOM_BYTES);
        let random: Random = fixed(random);
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

    /// Appends the empty frame that comes first; see the head of this file.
    pub fn confirm(&mut self, out: &mut Vec<u8>) {
        self.seal(&[], out);
    }

    /// Appends a frame of these pieces; nothing before [`Dialler::is_open`].
    pub fn seal(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) {
        if let Some(frames) = &mut self.frames {
            frames.outbound.seal(pieces, out);
        }
    }

    /// Bytes of its buffer.
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
    /// After the dialler's hello: the key that it uses, and the frames.
    open: Option<(PeerKey, Frames)>,
    /// A frame of the dialler was opened.
    is_proven: bool,
    input: Input,
}

impl Acceptor {
    /// Of this process. The randomness must be used only once.
    #[must_use]
    pub fn new(boot: Boot, random: Random) -> Self {
        Self { boot, random, open: None, is_proven: false, input: Input::default() }
    }

    /// The key that the dialler uses.
    pub(super) fn key(&self) -> Option<&PeerKey> {
        self.open.as_ref().map(|(key, _)| key)
    }

    /// Whether a frame of the dialler was opened: it is a peer, and there now.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Bytes of the dialler. Each of its messages is passed to `serve`, which returns the answer.
    ///
    /// # Errors
    /// The connection must be reset, without a word.
    pub fn received(
        &mut self,
        keys: &PeerKeys,
        bytes: &[u8],
        out: &mut Vec<u8>,
        serve: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<(), ChannelFault> {
        self.input.bytes.extend_from_slice(bytes);
        if self.open.is_none() {
            // Another version is noticed by its first byte, however long its hello is.
            if let Some(version) = self.input.bytes.first().filter(|byte| **byte != VERSION) {
                return Err(ChannelFault::Version(*version));
            }
            let Some(range) = self.input.take(HELLO_BYTES) else { return Ok(()) };
            let hello: [u8; HELLO_BYTES] = fixed(&self.input.bytes[range]);
            self.open = Some(self.greet(keys, hello, out)?);
        }
        if let Some((_, frames)) = &mut self.open {
            loop {
                let most = if self.is_proven { REQUEST_BYTES_MAX } else { 0 };
                let frame = self.input.frame(&mut frames.inbound, most)?;
                let Some(range) = frame else { break };
                if std::mem::replace(&mut self.is_proven, true) {
                    let answer = serve(&self.input.bytes[range]);
                    let answer = answer.ok_or(ChannelFault::NoMessage)?;
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
        let (head, random): ([u8; 2], Random) = (fixed(&head[..2]), fixed(&head[2..]));
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

    /// Bytes of its buffer.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.input.bytes.capacity()
    }
}

/// The frames of the dialler, and those of the owner.
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

/// Appends this, sealed with a key that is used for nothing else.
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

/// A copy; the caller knows the length.
fn fixed<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or([0; N])
}

#[cfg(test)]
mod tests;
