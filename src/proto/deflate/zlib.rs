//! The codec, based on `zlib-rs`: one compressor and one decompressor for the whole process,
//! created on first use and reset for each message.

use core::fmt;

use zlib_rs::{
    Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, ReturnCode, Status,
    compress_bound, compress_slice,
};

use super::{Agreed, COMPRESSED_MIN, Inflated, Level, Scratch, WINDOW_BITS_MAX};
use crate::outbox::{Block, Blocks};
use crate::proto::frame::{self, Fault, Kind};
use crate::proto::message::Utf8;

/// Messages are inflated in segments of this size; one that fits in the first stays in shared
/// memory.
const SEGMENT_BYTES: usize = 64 * 1024;
/// What a sender removes from the end of a message (RFC 7692 §7.2.1).
const SYNC_TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// Appended instead: the same, then an empty final block. It ends only a complete stream; after a
/// truncated one it is read as data.
const END: [u8; 6] = [0, 0, 0xff, 0xff, 3, 0];
/// Most final blocks in one message (RFC 7692 §7.2.3.4). One is normal; each costs a reset, and a
/// final block can be as short as two bytes.
const LAST_BLOCKS: u16 = 64;
/// Selects a gzip wrapper and a 32 KiB window in zlib.
const GZIP_WINDOW: i32 = 15 + 16;

/// Memory of a compressor and a decompressor, as allocated by the library.
const DEFLATE_BYTES: usize = 340 * 1024;
const INFLATE_BYTES: usize = 48 * 1024;

/// The compression state shared by all connections.
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
    /// Its current memory cost.
    #[must_use]
    pub fn cost(&self) -> usize {
        let deflate = if self.deflate.is_some() { DEFLATE_BYTES } else { 0 };
        let inflate = if self.inflate.is_some() { INFLATE_BYTES } else { 0 };
        deflate + inflate + self.scratch.capacity()
    }

    /// Appends a message as one compressed frame if that makes it smaller; returns false if nothing
    /// was appended.
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
        // The final header may be shorter than one for the full payload; then the body moves up.
        let body = start + frame::message_header(kind, payload.len()).1;
        let segment = segment(agreed.window_bits(), payload.len());
        out.resize(body + bound(payload.len(), segment), 0);
        let size = deflate(self.deflater(agreed.level()), payload, segment, &mut out[body..]);
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

    /// The compressor, reset and at this level.
    fn deflater(&mut self, level: Level) -> &mut Deflate {
        let new =
            || Deflater { state: Deflate::new(level.get().into(), false, WINDOW_BITS_MAX), level };
        let deflater = self.deflate.get_or_insert_with(new);
        deflater.state.reset();
        if deflater.level != level {
            // It fails if there is output to flush, and it was just reset.
            if deflater.state.set_level(level.get().into()).is_err() {
                *deflater = new();
            }
            deflater.level = level;
        }
        &mut deflater.state
    }

    /// Inflates a message of up to `limit` bytes, and validates text.
    pub fn inflate(
        &mut self,
        kind: Kind,
        wire: &[u8],
        limit: usize,
        blocks: &mut Blocks,
    ) -> Result<Inflated, Fault> {
        let mut memory = core::mem::take(&mut self.scratch);
        if memory.is_empty() {
            memory = vec![0; SEGMENT_BYTES];
        }
        let state = self.inflate.get_or_insert_with(|| Inflate::new(false, WINDOW_BITS_MAX));
        match inflate(state, kind, wire, limit, blocks, &mut memory) {
            Ok(Output::Scratch(len)) => Ok(Inflated::Short(Scratch { memory, len })),
            Ok(Output::Block(block)) => {
                self.scratch = memory;
                Ok(Inflated::Long(block))
            }
            Err(fault) => {
                self.scratch = memory;
                Err(fault)
            }
        }
    }

    /// Takes back the memory of a short message.
    pub fn give_back(&mut self, scratch: Scratch) {
        self.scratch = scratch.memory;
    }
}

/// Nothing refers back across a full flush. So a small window needs no compressor of its own, only
/// a flush after each window's length.
fn segment(window_bits: u8, length: usize) -> usize {
    if window_bits == WINDOW_BITS_MAX { length } else { 1 << window_bits }
}

/// The longest compressed form: nine bits per byte, and the flushes.
fn bound(length: usize, segment: usize) -> usize {
    length + length / 8 + (length / segment + 1) * 16 + 64
}

/// Compresses all of `payload`, even if the result turns out useless: a stream of `zlib-rs` 0.6
/// abandoned half-way does not survive its reset (it keeps an open block and an offset into the
/// remaining input, and panics later). `None` if `room` was too small: discard the compressor.
fn deflate(state: &mut Deflate, payload: &[u8], segment: usize, room: &mut [u8]) -> Option<usize> {
    let mut written = 0;
    let mut segments = payload.chunks(segment).peekable();
    while let Some(part) = segments.next() {
        let last = segments.peek().is_none();
        let flush = if last { DeflateFlush::SyncFlush } else { DeflateFlush::FullFlush };
        state.compress(part, &mut room[written..], flush).ok()?;
        written = usize::try_from(state.total_out()).ok()?;
        if written == room.len() {
            return None;
        }
    }
    room[..written].strip_suffix(&SYNC_TAIL).map(<[u8]>::len)
}

enum Output {
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
) -> Result<Output, Fault> {
    let mut stream = Stream::begin(state, kind, wire, limit);
    let mut segment = stream.next(memory)?;
    if segment.last {
        return Ok(Output::Scratch(segment.len));
    }
    // A message that seems too big is measured before any of it is stored. If the estimate is
    // wrong, inflating twice costs little: data that dense inflates fast.
    let expected = segment.len.saturating_mul(wire.len()) / stream.used.max(1);
    if expected > limit {
        while !segment.last {
            segment = stream.next(memory)?;
        }
        stream = Stream::begin(state, kind, wire, limit);
        segment = stream.next(memory)?;
    }
    let mut block = blocks.take(expected.min(limit));
    loop {
        blocks.append(&mut block, &memory[..segment.len]);
        if segment.last {
            return Ok(Output::Block(block));
        }
        segment = stream.next(memory)?;
    }
}

struct Stream<'s, 'w> {
    state: &'s mut Inflate,
    rest: &'w [u8],
    /// [`END`], until it becomes `rest`.
    end: &'static [u8],
    /// Compressed bytes consumed.
    used: usize,
    made: usize,
    limit: usize,
    last_blocks: u16,
    utf8: Option<Utf8>,
}

struct Segment {
    len: usize,
    last: bool,
}

impl<'s, 'w> Stream<'s, 'w> {
    fn begin(state: &'s mut Inflate, kind: Kind, wire: &'w [u8], limit: usize) -> Self {
        state.reset(false);
        let utf8 = (kind == Kind::Text).then(Utf8::default);
        Self { state, rest: wire, end: &END, used: 0, made: 0, limit, last_blocks: 0, utf8 }
    }

    /// Inflates as much as `room` holds, and at most one byte more than the limit.
    fn next(&mut self, room: &mut [u8]) -> Result<Segment, Fault> {
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
                // Most senders do not end their stream: this is the end we appended.
                Status::StreamEnd if self.rest.is_empty() => break true,
                Status::StreamEnd => self.restart()?,
                Status::Ok | Status::BufError if len == most => break false,
                Status::Ok | Status::BufError if self.rest.is_empty() => {
                    if self.end.is_empty() {
                        return Err(Fault::Inflate);
                    }
                    self.rest = core::mem::take(&mut self.end);
                }
                // No progress: the data is invalid.
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
        Ok(Segment { len, last })
    }

    /// RFC 7692 §7.2.3.4: a sender may end its stream inside a message.
    fn restart(&mut self) -> Result<(), Fault> {
        self.last_blocks += 1;
        if self.last_blocks > LAST_BLOCKS {
            return Err(Fault::Inflate);
        }
        self.state.reset(false);
        Ok(())
    }
}

/// Compresses a file with gzip; `None` if that does not make it smaller.
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
