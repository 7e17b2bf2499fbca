//! Messages compressed and inflated by `zlib-rs`: one state each way for the whole process, made
//! when it is first needed and reset for each message.

use core::fmt;

use zlib_rs::{
    Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, ReturnCode, Status,
    compress_bound, compress_slice,
};

use super::{Agreed, COMPRESSED_MIN, Inflated, Level, Scratch, WINDOW_BITS_MAX};
use crate::outbox::{Block, Blocks};
use crate::proto::frame::{self, Fault, Kind};
use crate::proto::message::Utf8;

/// A message is inflated in stretches of this size; one that is no longer lies in memory that is
/// shared by all.
const STRETCH: usize = 64 * 1024;
/// What a sender leaves out at the end of a message (RFC 7692 §7.2.1).
const LEFT_OUT: [u8; 4] = [0, 0, 0xff, 0xff];
/// What is put there instead: the same, then a last block without a byte. Only behind a stream
/// that is whole does that end it; a truncated one takes it for something else.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];
/// Blocks of one message that say that they are the last (RFC 7692 §7.2.3.4). One is sound; each
/// costs a reset, and one of two bytes is the least of a message.
const LAST_BLOCKS: u16 = 64;
/// zlib's way to ask for a gzip wrapper around a 32 KiB window.
const GZIP_WINDOW: i32 = 15 + 16;

/// What the states cost, as the library allocates it.
const DEFLATE_BYTES: usize = 340 * 1024;
const INFLATE_BYTES: usize = 48 * 1024;

/// The states that all connections share.
#[derive(Default)]
pub struct Codec {
    deflate: Option<Deflater>,
    inflate: Option<Inflate>,
    scratch: Vec<u8>,
}

struct Deflater {
    state: Deflate,
    level: Level,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec")
            .field("deflate", &self.deflate.is_some())
            .field("inflate", &self.inflate.is_some())
            .finish_non_exhaustive()
    }
}

impl Codec {
    /// What it owns by now.
    #[must_use]
    pub fn cost(&self) -> usize {
        let deflate = if self.deflate.is_some() { DEFLATE_BYTES } else { 0 };
        let inflate = if self.inflate.is_some() { INFLATE_BYTES } else { 0 };
        deflate + inflate + self.scratch.capacity()
    }

    /// Appends a message as one compressed frame, if that makes it smaller; false: nothing was
    /// appended.
    pub fn compress(
        &mut self,
        agreed: Agreed,
        kind: Kind,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        if payload.len() < COMPRESSED_MIN {
            return false;
        }
        let start = out.len();
        // The header may turn out shorter than that of the whole; then what follows moves up.
        let body = start + frame::message_header(kind, payload.len()).1;
        let stretch = stretch(agreed.window_bits(), payload.len());
        out.resize(body + bound(payload.len(), stretch), 0);
        let size = deflate(self.deflater(agreed.level()), payload, stretch, &mut out[body..]);
        if size.is_none() {
            self.deflate = None;
        }
        let Some(size) = size.filter(|size| *size < payload.len()) else {
            out.truncate(start);
            return false;
        };
        let (header, header_size) = frame::compressed_header(kind, size);
        out[start..start + header_size].copy_from_slice(&header[..header_size]);
        out.copy_within(body..body + size, start + header_size);
        out.truncate(start + header_size + size);
        true
    }

    /// The state, ready for a message.
    fn deflater(&mut self, level: Level) -> &mut Deflate {
        let new =
            || Deflater { state: Deflate::new(level.get().into(), false, WINDOW_BITS_MAX), level };
        let deflater = self.deflate.get_or_insert_with(new);
        deflater.state.reset();
        if deflater.level != level {
            // It fails when there is something to flush first, and it was just reset.
            if deflater.state.set_level(level.get().into()).is_err() {
                *deflater = new();
            }
            deflater.level = level;
        }
        &mut deflater.state
    }

    /// Inflates a message, up to `limit` bytes; text is checked in passing.
    pub fn inflate(
        &mut self,
        kind: Kind,
        wire: &[u8],
        limit: usize,
        blocks: &mut Blocks,
    ) -> Result<Inflated, Fault> {
        let mut memory = core::mem::take(&mut self.scratch);
        if memory.is_empty() {
            memory = vec![0; STRETCH];
        }
        let state = self.inflate.get_or_insert_with(|| Inflate::new(false, WINDOW_BITS_MAX));
        match inflate(state, kind, wire, limit, blocks, &mut memory) {
            Ok(Place::Scratch(len)) => Ok(Inflated::Short(Scratch { memory, len })),
            Ok(Place::Block(block)) => {
                self.scratch = memory;
                Ok(Inflated::Long(block))
            }
            Err(fault) => {
                self.scratch = memory;
                Err(fault)
            }
        }
    }

    /// Takes back what a short message lay in.
    pub fn give_back(&mut self, scratch: Scratch) {
        self.scratch = scratch.memory;
    }
}

/// Nothing refers back across a full flush. So a narrow window needs no state of its own, only
/// stretches that are no longer than that.
fn stretch(window_bits: u8, length: usize) -> usize {
    if window_bits == WINDOW_BITS_MAX { length } else { 1 << window_bits }
}

/// The most that a message can become: nine bits for each byte, and the ends of its stretches.
fn bound(length: usize, stretch: usize) -> usize {
    length + length / 8 + (length / stretch + 1) * 16 + 64
}

/// Compresses into `room`, all of it, whatever comes of that: a stream of `zlib-rs` 0.6 that is
/// given up half-way does not survive its reset (it keeps an open block and the offset of what was
/// not taken, and panics later). `None` when there was no end: that state must not be used again.
fn deflate(state: &mut Deflate, payload: &[u8], stretch: usize, room: &mut [u8]) -> Option<usize> {
    let mut written = 0;
    let mut stretches = payload.chunks(stretch).peekable();
    while let Some(part) = stretches.next() {
        let last = stretches.peek().is_none();
        let flush = if last { DeflateFlush::SyncFlush } else { DeflateFlush::FullFlush };
        state.compress(part, &mut room[written..], flush).ok()?;
        written = usize::try_from(state.total_out()).ok()?;
        if written == room.len() {
            return None;
        }
    }
    room[..written].strip_suffix(&LEFT_OUT).map(<[u8]>::len)
}

/// Where an inflated message lies.
enum Place {
    Scratch(usize),
    Block(Block),
}

fn inflate(
    state: &mut Inflate,
    kind: Kind,
    wire: &[u8],
    limit: usize,
    blocks: &mut Blocks,
    memory: &mut [u8],
) -> Result<Place, Fault> {
    let mut stream = Stream::begin(state, kind, wire, limit);
    let mut stretch = stream.next(memory)?;
    if stretch.last {
        return Ok(Place::Scratch(stretch.len));
    }
    // What promises to become too big is counted before a byte of it is kept. Should the promise
    // be wrong, then inflating twice costs little: so dense is only what inflates fast.
    let expected = stretch.len.saturating_mul(wire.len()) / stream.used.max(1);
    if expected > limit {
        while !stretch.last {
            stretch = stream.next(memory)?;
        }
        stream = Stream::begin(state, kind, wire, limit);
        stretch = stream.next(memory)?;
    }
    let mut block = blocks.take(expected.min(limit));
    loop {
        blocks.append(&mut block, &memory[..stretch.len]);
        if stretch.last {
            return Ok(Place::Block(block));
        }
        stretch = stream.next(memory)?;
    }
}

/// A message that is being inflated.
struct Stream<'s, 'w> {
    state: &'s mut Inflate,
    rest: &'w [u8],
    /// What follows the rest, until it is the rest.
    end: &'static [u8],
    /// Of the wire's bytes.
    used: usize,
    made: usize,
    limit: usize,
    last_blocks: u16,
    utf8: Option<Utf8>,
}

/// Some of a message.
struct Stretch {
    len: usize,
    last: bool,
}

impl<'s, 'w> Stream<'s, 'w> {
    fn begin(state: &'s mut Inflate, kind: Kind, wire: &'w [u8], limit: usize) -> Self {
        state.reset(false);
        let utf8 = (kind == Kind::Text).then(Utf8::default);
        Self { state, rest: wire, end: &END, used: 0, made: 0, limit, last_blocks: 0, utf8 }
    }

    /// Inflates as much as there is room for, and one byte more than the limit at most.
    fn next(&mut self, room: &mut [u8]) -> Result<Stretch, Fault> {
        let most = room.len().min(self.limit + 1 - self.made);
        let mut len = 0;
        let last = loop {
            let (used, made) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(self.rest, &mut room[len..most], InflateFlush::NoFlush)
                .map_err(|_| Fault::Inflate)?;
            let used = (self.state.total_in() - used) as usize;
            let made = (self.state.total_out() - made) as usize;
            self.rest = &self.rest[used..];
            self.used += used;
            len += made;
            match status {
                // Most senders end no stream of theirs: this end is ours.
                Status::StreamEnd if self.rest.is_empty() => break true,
                Status::StreamEnd => self.begin_again()?,
                Status::Ok | Status::BufError if len == most => break false,
                Status::Ok | Status::BufError if self.rest.is_empty() => {
                    if self.end.is_empty() {
                        return Err(Fault::Inflate);
                    }
                    self.rest = core::mem::take(&mut self.end);
                }
                // It neither took nor made anything: nothing ever will.
                Status::Ok | Status::BufError if used + made == 0 => return Err(Fault::Inflate),
                Status::Ok | Status::BufError => {}
            }
        };
        self.made += len;
        if self.made > self.limit {
            return Err(Fault::TooBig);
        }
        if let Some(utf8) = &mut self.utf8 {
            utf8.feed(&room[..len])?;
            if last {
                utf8.finish()?;
            }
        }
        Ok(Stretch { len, last })
    }

    /// RFC 7692 §7.2.3.4: a sender may end its stream inside of a message.
    fn begin_again(&mut self) -> Result<(), Fault> {
        self.last_blocks += 1;
        if self.last_blocks > LAST_BLOCKS {
            return Err(Fault::Inflate);
        }
        self.state.reset(false);
        Ok(())
    }
}

/// A file as gzip, if that makes it smaller.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut compressed = vec![0; compress_bound(bytes.len()) + 18];
    let mut config = DeflateConfig::best_compression();
    config.window_bits = GZIP_WINDOW;
    let (written, code) = compress_slice(&mut compressed, bytes, config);
    if code != ReturnCode::Ok || written.len() >= bytes.len() {
        return None;
    }
    Some(written.to_vec())
}
