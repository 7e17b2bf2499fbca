//! Outgoing bytes: [`Out`], the one buffer for all output of a call; [`Block`], a message in
//! memory of its own; [`Outbox`], output that a stream has not taken yet. None of them knows what
//! the bytes mean.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::Range;

use memmap2::MmapMut;

use crate::heap;

/// Blocks from this size on are anonymous maps: an allocator may keep freed megabytes, while the
/// kernel takes an unmapped one back at once and backs only pages that were touched.
pub const MAP_MIN: usize = 128 * 1024;
/// Temporary memory of a connection becomes a map already above this size: growing allocations
/// fragment the heap, whose freed pages still count against the memory limit.
const HEAP_MAX: usize = 2 * 1024;
/// Space before a block's bytes, enough for the longest frame header.
pub const HEADROOM: usize = 10;
/// The out buffer shrinks to this when it has grown beyond it.
const OUT_KEPT: usize = 256 * 1024;
/// Unsent bytes are merged into chunks of up to this size, so that fewer writes are needed.
const CHUNK_MAX: usize = 32 * 1024;
/// Maps kept for the next large message: a fresh one costs 0.3 ms of page faults.
const MAPS_KEPT: usize = 4;
/// How long an unused map is kept.
const MAP_KEPT_NS: u64 = 100_000_000;

/// A message in memory of its own, with [`HEADROOM`] for a frame header.
#[derive(Debug)]
pub struct Block {
    store: Store,
    start: usize,
    end: usize,
}

impl Clone for Block {
    fn clone(&self) -> Self {
        Self::of(self.bytes())
    }
}

#[derive(Debug)]
enum Store {
    /// Grows with the bytes that arrive: a declared length allocates nothing.
    Heap(Vec<u8>),
    /// Mapped in full from the start, but only pages that were touched take memory.
    Map(Map),
}

/// A map and how many of its bytes an earlier message has touched.
#[derive(Debug)]
struct Map {
    bytes: MmapMut,
    touched: usize,
}

impl Block {
    /// A block with a copy of these bytes, without a pool.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Blocks::without_idle().with(bytes)
    }

    /// A block with what `write` appends, about `size` bytes, without a pool.
    ///
    /// # Errors
    /// That of `write`.
    pub fn written<E>(
        size: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut block = Self::heap(size);
        if let Store::Heap(bytes) = &mut block.store {
            write(bytes)?;
            if bytes.len() > HEAP_MAX {
                return Ok(Self::of(&bytes[HEADROOM..]));
            }
            block.end = bytes.len();
        }
        Ok(block)
    }

    /// With room for so many bytes.
    fn heap(room: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADROOM + room);
        bytes.resize(HEADROOM, 0);
        Self { store: Store::Heap(bytes), start: HEADROOM, end: HEADROOM }
    }

    fn map(map: Map) -> Self {
        Self { store: Store::Map(map), start: HEADROOM, end: HEADROOM }
    }

    fn memory(&self) -> &[u8] {
        match &self.store {
            Store::Heap(bytes) => bytes,
            Store::Map(map) => &map.bytes,
        }
    }

    fn memory_mut(&mut self) -> &mut [u8] {
        match &mut self.store {
            Store::Heap(bytes) => bytes,
            Store::Map(map) => &mut map.bytes,
        }
    }

    /// The contents, without the headroom.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory()[self.start..self.end]
    }

    /// The contents from `from` on.
    pub fn bytes_mut(&mut self, from: usize) -> &mut [u8] {
        let (start, end) = (self.start + from, self.end);
        &mut self.memory_mut()[start..end]
    }

    /// The length of the contents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether the contents are empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its memory cost; of a map only the touched pages count.
    #[must_use]
    pub fn cost(&self) -> usize {
        match &self.store {
            Store::Heap(bytes) => heap::cost(bytes.capacity()),
            Store::Map(map) => self.end.max(map.touched).next_multiple_of(4096),
        }
    }

    /// Space that can be read into directly; empty unless the block is a map.
    pub fn spare(&mut self) -> &mut [u8] {
        match &mut self.store {
            Store::Heap(_) => &mut [],
            Store::Map(map) => &mut map.bytes[self.end..],
        }
    }

    /// `n` bytes were read into [`Block::spare`].
    pub fn filled(&mut self, n: usize) {
        assert!(self.end + n <= self.memory().len(), "more was read than there was room");
        self.end += n;
    }

    /// Drops the first `n` bytes.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "more was consumed than there is");
        self.start += n;
    }

    /// Appends as many of these bytes as fit without more memory, up to `most` in all; returns the
    /// rest.
    fn fill<'b>(&mut self, bytes: &'b [u8], most: usize) -> &'b [u8] {
        let Store::Map(map) = &mut self.store else { return bytes };
        let room = most.saturating_sub(self.end - self.start).min(map.bytes.len() - self.end);
        let (fits, more) = bytes.split_at(bytes.len().min(room));
        map.bytes[self.end..self.end + fits.len()].copy_from_slice(fits);
        self.end += fits.len();
        more
    }

    /// Puts a header before the contents; it must fit the headroom.
    pub fn prepend(&mut self, header: &[u8]) {
        let start = self.start.checked_sub(header.len()).expect("the headroom fits any header");
        self.start = start;
        self.memory_mut()[start..start + header.len()].copy_from_slice(header);
    }
}

/// Allocates blocks and reuses their maps.
#[derive(Debug)]
pub struct Blocks {
    idle: Vec<Map>,
    idle_max: usize,
    used_ns: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { idle: Vec::new(), idle_max: MAPS_KEPT, used_ns: 0 }
    }
}

impl Blocks {
    /// Reuses no maps: for owners that do not call [`Blocks::fire`].
    #[must_use]
    pub fn without_idle() -> Self {
        Self { idle_max: 0, ..Self::default() }
    }

    /// An empty block for about `size` bytes.
    pub fn take(&mut self, size: usize) -> Block {
        if size + HEADROOM < MAP_MIN { Block::heap(0) } else { self.map(size, size) }
    }

    /// A map with space for `size` bytes, of which `expected` will be used.
    fn map(&mut self, size: usize, expected: usize) -> Block {
        let size = size + HEADROOM;
        let fits = |map: &Map| map.bytes.len() >= size && map.bytes.len() <= 4 * size;
        // Touched pages take memory: a small message must not pin a map that had a large one.
        let fits = |map: &Map| fits(map) && map.touched <= 2 * expected.max(4096);
        if let Some(at) = self.idle.iter().position(fits) {
            return Block::map(self.idle.swap_remove(at));
        }
        // If the kernel refuses a map (too many maps, no address space), the heap does as well: it
        // grows with the bytes that arrive and only costs a copy.
        MmapMut::map_anon(size.next_multiple_of(4096))
            .map_or_else(|_| Block::heap(0), |bytes| Block::map(Map { bytes, touched: 0 }))
    }

    /// A block with a copy of these bytes.
    pub fn with(&mut self, bytes: &[u8]) -> Block {
        let mut block = self.sized(bytes.len());
        self.append(&mut block, bytes);
        block
    }

    /// An empty block in which so many bytes fit.
    pub fn sized(&mut self, bytes: usize) -> Block {
        if bytes > HEAP_MAX - HEADROOM {
            self.map(bytes.max(MAP_MIN), bytes)
        } else {
            Block::heap(bytes)
        }
    }

    /// Appends bytes to a block, and moves it to a larger one if it is full.
    pub fn append(&mut self, block: &mut Block, bytes: &[u8]) {
        match &mut block.store {
            Store::Heap(heap) if heap.len() + bytes.len() <= HEAP_MAX => {
                // By half, where a vector would double: the capacity stays close to the length.
                if heap.capacity() - heap.len() < bytes.len() {
                    heap.reserve_exact(bytes.len().max(heap.len() / 2));
                }
                heap.extend_from_slice(bytes);
                block.end += bytes.len();
                return;
            }
            Store::Map(map) if map.bytes.len() - block.end >= bytes.len() => {
                map.bytes[block.end..block.end + bytes.len()].copy_from_slice(bytes);
                block.end += bytes.len();
                return;
            }
            Store::Heap(_) | Store::Map(_) => {}
        }
        self.grow(block, bytes.len());
        match &mut block.store {
            Store::Heap(heap) => heap.extend_from_slice(bytes),
            Store::Map(map) => {
                map.bytes[block.end..block.end + bytes.len()].copy_from_slice(bytes);
            }
        }
        block.end += bytes.len();
    }

    /// Makes space for `more` bytes behind the contents.
    pub fn grow(&mut self, block: &mut Block, more: usize) {
        let mut larger = self.take((block.len() + more).max(block.len() * 2).max(MAP_MIN));
        match &mut larger.store {
            Store::Heap(heap) => heap.extend_from_slice(block.bytes()),
            Store::Map(map) => {
                map.bytes[HEADROOM..HEADROOM + block.len()].copy_from_slice(block.bytes());
            }
        }
        larger.end += block.len();
        *block = larger;
    }

    /// Takes a block back, to reuse its map.
    pub fn give_back(&mut self, block: Block, now_ns: u64) {
        if let Store::Map(mut map) = block.store
            && self.idle.len() < self.idle_max
        {
            map.touched = map.touched.max(block.end);
            self.idle.push(map);
            self.used_ns = now_ns;
        }
    }

    /// Unmaps the idle maps.
    pub fn forget_idle(&mut self) {
        self.idle.clear();
    }

    /// The cost of the idle maps.
    #[must_use]
    pub fn idle_bytes(&self) -> usize {
        self.idle.iter().map(|map| map.touched).sum()
    }

    /// When [`Blocks::fire`] unmaps the idle maps.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        (!self.idle.is_empty()).then_some(self.used_ns + MAP_KEPT_NS)
    }

    /// Unmaps the idle maps if none was used for a while.
    pub fn fire(&mut self, now_ns: u64) {
        if self.next_deadline().is_some_and(|due| due <= now_ns) {
            self.idle.clear();
        }
    }
}

/// A contiguous part of the output.
#[derive(Debug)]
pub enum Piece {
    /// A range of the out buffer.
    Out(Range<usize>),
    /// A range of the read buffer: an echo sent from where it was received.
    Shared(Range<usize>),
    /// A message in memory of its own.
    Block(Block),
}

/// The output of one call, written in one go.
#[derive(Debug, Default)]
pub struct Out {
    /// Short output is copied here.
    pub bytes: Vec<u8>,
    pieces: Vec<Piece>,
    /// How many of `bytes` are covered by `pieces`; the rest follows the last piece.
    listed: usize,
    elsewhere: usize,
}

impl Out {
    /// The length of the output.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() + self.elsewhere
    }

    /// Whether there is no output.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all of it is in `bytes`.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Appends a range of the read buffer.
    pub fn share(&mut self, range: Range<usize>) {
        self.list();
        self.elsewhere += range.len();
        self.pieces.push(Piece::Shared(range));
    }

    /// Appends a block.
    pub fn give(&mut self, block: Block) {
        self.list();
        self.elsewhere += block.len();
        self.pieces.push(Piece::Block(block));
    }

    fn list(&mut self) {
        if self.listed < self.bytes.len() {
            self.pieces.push(Piece::Out(self.listed..self.bytes.len()));
            self.listed = self.bytes.len();
        }
    }

    /// All output in order, as slices.
    pub fn slices<'a>(&'a self, shared: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let tail = &self.bytes[self.listed..];
        self.pieces
            .iter()
            .map(move |piece| match piece {
                Piece::Out(range) => &self.bytes[range.clone()],
                Piece::Shared(range) => &shared[range.clone()],
                Piece::Block(block) => block.bytes(),
            })
            .chain(std::iter::once(tail).filter(|tail| !tail.is_empty()))
    }

    /// Clears it and gives back the memory of an unusually long output.
    #[inline]
    pub fn clear(&mut self) {
        self.bytes.clear();
        if self.bytes.capacity() > OUT_KEPT {
            self.bytes.shrink_to(OUT_KEPT);
        }
        self.pieces.clear();
        (self.listed, self.elsewhere) = (0, 0);
    }
}

#[derive(Debug)]
enum Chunk {
    Bytes(Vec<u8>),
    Block(Block),
}

impl Chunk {
    /// A chunk with these bytes and space for `room` in all. A larger one is a map, which goes back
    /// to the kernel as soon as the peer has taken it.
    fn new(bytes: &[u8], room: usize, blocks: &mut Blocks) -> Self {
        if room <= HEAP_MAX {
            let mut chunk = Vec::with_capacity(room);
            chunk.extend_from_slice(bytes);
            return Self::Bytes(chunk);
        }
        let mut block = blocks.map(room.max(MAP_MIN), room);
        blocks.append(&mut block, bytes);
        Self::Block(block)
    }

    /// Appends as many of these bytes as fit without more memory; returns the rest.
    fn fill<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        match self {
            Self::Bytes(chunk) => {
                let (fits, more) = bytes.split_at(bytes.len().min(chunk.capacity() - chunk.len()));
                chunk.extend_from_slice(fits);
                more
            }
            Self::Block(block) => block.fill(bytes, CHUNK_MAX),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Block(block) => block.bytes(),
        }
    }

    fn cost(&self) -> usize {
        match self {
            Self::Bytes(bytes) => heap::cost(bytes.capacity()),
            Self::Block(block) => block.cost(),
        }
    }
}

/// Output that a stream has not taken yet.
#[derive(Debug, Default)]
pub struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are already sent.
    sent: usize,
    len: usize,
    cost: usize,
}

impl Outbox {
    /// The number of unsent bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything is sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its memory cost: more than [`Outbox::len`], since a chunk is freed only as a whole.
    #[must_use]
    pub fn cost(&self) -> usize {
        self.cost + heap::table::<Chunk>(self.chunks.capacity())
    }

    /// Keeps all of `out` but its first `taken` bytes. Blocks are moved, the rest is copied; blocks
    /// taken completely go back to `blocks`.
    pub fn keep(
        &mut self,
        out: &mut Out,
        shared: &[u8],
        taken: usize,
        blocks: &mut Blocks,
        now_ns: u64,
    ) {
        let mut skip = taken;
        out.list();
        for piece in out.pieces.drain(..) {
            match piece {
                Piece::Out(range) => self.copy(&out.bytes[range], &mut skip, blocks),
                Piece::Shared(range) => self.copy(&shared[range], &mut skip, blocks),
                Piece::Block(block) if skip >= block.len() => {
                    skip -= block.len();
                    blocks.give_back(block, now_ns);
                }
                Piece::Block(mut block) => {
                    block.start += std::mem::take(&mut skip);
                    self.len += block.len();
                    self.push(Chunk::Block(block));
                }
            }
        }
        out.clear();
    }

    fn copy(&mut self, bytes: &[u8], skip: &mut usize, blocks: &mut Blocks) {
        let skipped = bytes.len().min(*skip);
        *skip -= skipped;
        let mut rest = &bytes[skipped..];
        self.len += rest.len();
        let mut room = 0;
        if let Some(last) = self.chunks.back_mut() {
            // A chunk never grows: it would keep all that is already sent for as long as the peer
            // leaves a few bytes unread.
            self.cost -= last.cost();
            rest = last.fill(rest);
            self.cost += last.cost();
            room = CHUNK_MAX.min(2 * last.bytes().len());
        }
        if !rest.is_empty() {
            self.push(Chunk::new(rest, room.max(rest.len()), blocks));
        }
    }

    fn push(&mut self, chunk: Chunk) {
        self.cost += chunk.cost();
        self.chunks.push_back(chunk);
    }

    /// What to write next; the first chunk.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| &chunk.bytes()[self.sent..])
    }

    /// The first `n` bytes of [`Outbox::unsent`] were sent.
    pub fn sent(&mut self, n: usize, blocks: &mut Blocks, now_ns: u64) {
        assert!(n <= self.unsent().len(), "more was sent than waited");
        self.sent += n;
        self.len -= n;
        if self.unsent().is_empty() {
            self.sent = 0;
            let Some(chunk) = self.chunks.pop_front() else { return };
            self.cost -= chunk.cost();
            if let Chunk::Block(block) = chunk {
                blocks.give_back(block, now_ns);
            }
            if self.chunks.is_empty() {
                self.chunks = VecDeque::new();
            }
        }
    }
}
