//! Serving one stream: read, call the engine, write at once, and flush when writable again.

use std::io::{self, IoSlice, Read, Write};
use std::ops::Range;

use super::accept::hang_up;
use super::marks::Marks;
use super::{Channel, Driver, Entry, Os, find};
use crate::engine::{Engine, HangUp, Id, Out, Peer};
use crate::limits;

/// Pieces per vectored write; the rest is left for the next write.
const PIECES: usize = 64;

impl<E: Engine, O: Os> Driver<E, O> {
    /// Does everything that a stream is marked for; returns how many bytes were read, inflated,
    /// produced and copied for it.
    pub(super) fn serve(&mut self, id: Id) -> usize {
        let before = self.engine.work();
        let Some(entry) = find(&mut self.streams, id) else { return 0 };
        entry.marks.take(Marks::QUEUED);
        let renders = entry.marks.take(Marks::RENDER);
        if self.engine.measures() {
            self.now = self.os.now();
        }
        let readable = if entry.marks.has(Marks::CONNECTING | Marks::WRITABLE | Marks::RESUME) {
            self.before_read(id)
        } else {
            entry.marks.has(Marks::READABLE)
        };
        let read = if readable { self.read(id) } else { 0 };
        if renders {
            self.render(id);
            self.act();
        }
        let worked = self.engine.work() - before;
        read + usize::try_from(worked).unwrap_or(usize::MAX)
    }

    /// Carries out [`Action::Request`](crate::engine::Action::Request). An event may be on its way:
    /// the stream itself is asked whether there is something to read.
    pub(super) fn render_request(&mut self, id: Id) {
        let Some(entry) = find(&mut self.streams, id) else { return };
        if !entry.stream.has_input() {
            return self.render(id);
        }
        entry.marks.set(Marks::READABLE | Marks::RENDER);
        self.queue(id);
    }

    /// Carries out [`Action::Write`](crate::engine::Action::Write), if the stream still exists.
    pub(super) fn render(&mut self, id: Id) {
        let Some(entry) = find(&mut self.streams, id) else { return };
        if let Some(size) = entry.stream.screen() {
            self.engine.sized(id, size);
        }
        self.engine.render(self.now, id, &mut self.out);
        self.deliver(id);
    }

    /// Connects, flushes and resumes; returns whether the stream is to be read.
    fn before_read(&mut self, id: Id) -> bool {
        let Some(entry) = find(&mut self.streams, id) else { return false };
        if entry.marks.has(Marks::CONNECTING) {
            entry.marks.take(Marks::WRITABLE);
            if !self.finish_connecting(id) {
                return false;
            }
        }
        let Some(entry) = find(&mut self.streams, id) else { return false };
        if entry.marks.take(Marks::WRITABLE) {
            self.flush(id);
        }
        let Some(entry) = find(&mut self.streams, id) else { return false };
        if entry.marks.take(Marks::RESUME) {
            self.engine.resume(self.now, id, &mut self.shared, &mut self.out);
            self.deliver(id);
            self.act();
        }
        find(&mut self.streams, id).is_some_and(|entry| entry.marks.has(Marks::READABLE))
    }

    /// One read, up to the budget; two if the first began a message that has a block of its own:
    /// more of it is most likely there, and another turn is not free.
    fn read(&mut self, id: Id) -> usize {
        let (mut bytes, mut is_first) = (0, true);
        loop {
            let (n, more) = self.read_once(id);
            bytes += n;
            if !more {
                return bytes;
            }
            if !is_first || !self.has_block(id) {
                break;
            }
            is_first = false;
        }
        self.queue(id);
        bytes
    }

    /// Whether the next bytes go to a block, which is larger than the read buffer. The stream may
    /// have been closed since the first read.
    fn has_block(&mut self, id: Id) -> bool {
        find(&mut self.streams, id).is_some()
            && self.engine.room(id, &mut self.shared).len() > limits::READ_BYTES_PER_TURN
    }

    /// Returns how many bytes were read, and whether there may be more.
    fn read_once(&mut self, id: Id) -> (usize, bool) {
        let Some(entry) = find(&mut self.streams, id) else { return (0, false) };
        let room = self.engine.room(id, &mut self.shared);
        if room.is_empty() {
            // Paused. The mark stays, and `Action::Resume` leads here again.
            if entry.marks.has(Marks::BROKEN) {
                self.abort(id);
                self.act();
            } else if entry.marks.has(Marks::ENDED) {
                self.engine.hung_up(self.now, id, &mut self.out);
                self.deliver(id);
                self.act();
            }
            return (0, false);
        }
        let budget = room.len();
        let read = entry.stream.read(room);
        let is_plain = entry.stream.is_plain();
        let (entry, more) = if is_plain {
            (entry, false)
        } else {
            let broken = read.as_ref().is_err_and(|why| why.kind() != io::ErrorKind::WouldBlock);
            let more = self.after_read(id, broken);
            let Some(entry) = find(&mut self.streams, id) else { return (0, false) };
            (entry, more)
        };
        let read = match read {
            Ok(0) => {
                entry.marks.take(Marks::READABLE);
                self.hang_up(id, HangUp::Eof);
                (0, false)
            }
            Ok(n) => {
                // After a short read there is no more, unless the end arrived with it.
                let more = more || n == budget || entry.marks.has(Marks::ENDED);
                if !more {
                    entry.marks.take(Marks::READABLE);
                }
                self.engine.received(self.now, id, n, &mut self.shared, &mut self.out);
                self.deliver(id);
                (n, more)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !more {
                    entry.marks.take(Marks::READABLE);
                    // Set by an attempt to connect to another address of the same name.
                    entry.marks.take(Marks::ENDED | Marks::BROKEN);
                }
                (0, more)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (0, true),
            Err(error) => {
                let how = match hang_up(&error) {
                    how @ HangUp::Tls(_) => how,
                    _ => HangUp::Reset,
                };
                self.abort_with(id, how);
                (0, false)
            }
        };
        // Not before the bytes were received: the engine may close a connection that holds much,
        // and drop what it was about to receive.
        if !is_plain {
            self.report_held(id);
        }
        self.act();
        read
    }

    /// What a stream that is more than a socket has to do after a read; returns whether it holds
    /// more.
    fn after_read(&mut self, id: Id, broken: bool) -> bool {
        let Some(entry) = find(&mut self.streams, id) else { return false };
        if let Some(client) = entry.stream.take_client() {
            self.engine.introduced(self.now, id, Peer::new(client));
        }
        // TLS may have to answer what it just read.
        if entry.stream.flush().is_err() && block(entry, id, &mut self.os).is_err() {
            self.abort(id);
            return false;
        }
        let more = entry.stream.holds_more();
        if entry.marks.has(Marks::HANDSHAKING) && !broken {
            self.finish_handshake(id);
        }
        more
    }

    /// Reports the stream's buffered bytes to the engine if they changed.
    fn report_held(&mut self, id: Id) {
        let Some(entry) = find(&mut self.streams, id) else { return };
        let held = entry.stream.held_bytes();
        if held != entry.held {
            entry.held = held;
            self.engine.held_outside(self.now, id, held);
        }
    }

    /// If the handshake has just ended: writes what waited for it before anything is received.
    fn finish_handshake(&mut self, id: Id) {
        let Some(entry) = find(&mut self.streams, id) else { return };
        if entry.stream.is_costly() || !entry.marks.take(Marks::HANDSHAKING) {
            return;
        }
        self.engine.ready(self.now, id);
        self.act();
        self.flush(id);
    }

    fn hang_up(&mut self, id: Id, how: HangUp) {
        self.engine.ended(self.now, id, how, &mut self.out);
        self.deliver(id);
    }

    /// The stream is broken: output can no longer be written, so the id is released here.
    pub(super) fn abort(&mut self, id: Id) {
        self.abort_with(id, HangUp::Reset);
    }

    fn abort_with(&mut self, id: Id, how: HangUp) {
        self.out.clear();
        if find(&mut self.streams, id).is_some() {
            self.engine.ended(self.now, id, how, &mut self.out);
            self.out.clear();
            self.close(id);
        }
    }

    /// Writes what a call left in the out buffer; the engine keeps the rest.
    pub(super) fn deliver(&mut self, id: Id) {
        if self.out.is_empty() {
            return;
        }
        let Some(entry) = find(&mut self.streams, id) else { return self.out.clear() };
        let total = self.out.len();
        let is_plain = entry.stream.is_plain();
        let mut taken = 0;
        while taken < total && !entry.marks.has(Marks::BLOCKED) {
            match write(&mut entry.stream, &self.out, &self.shared, taken) {
                Ok(Wrote { offered, taken: n }) => {
                    taken += n;
                    if n < offered && block(entry, id, &mut self.os).is_err() {
                        return self.abort(id);
                    }
                }
                Err(_) => return self.abort(id),
            }
        }
        if taken < total || !self.out.is_plain() {
            self.engine.keep(self.now, id, &self.shared, &mut self.out, taken);
        }
        self.out.clear();
        // What the stream held may have been sent with this output.
        if taken < total || !is_plain {
            self.report_held(id);
        }
    }

    fn flush(&mut self, id: Id) {
        loop {
            let Some(entry) = find(&mut self.streams, id) else { return };
            let unsent = self.engine.unsent(id);
            if unsent.is_empty() {
                if entry.stream.flush().is_ok() {
                    entry.marks.take(Marks::BLOCKED);
                }
                break;
            }
            let length = unsent.len().min(limits::WRITE_BYTES_MAX);
            match entry.stream.write(&unsent[..length]) {
                Ok(taken) => {
                    self.engine.sent(self.now, id, taken);
                    if taken < length {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.abort(id);
                    break;
                }
            }
        }
        self.report_held(id);
        self.end_if_written(id);
        self.act();
    }

    /// Carries out a `Finish` or `Close` that waited for the last byte.
    pub(super) fn end_if_written(&mut self, id: Id) {
        let Some(entry) = find(&mut self.streams, id) else { return };
        if entry.marks.has(Marks::BLOCKED) {
            return;
        }
        if entry.marks.take(Marks::FINISH) {
            self.os.finish(&mut entry.stream);
        }
        if entry.marks.has(Marks::CLOSE) {
            self.close(id);
        }
    }

    fn close(&mut self, id: Id) {
        if let Some(entry) = self.remove(id) {
            drop(entry.stream);
            self.release(id);
        }
    }

    pub(super) fn reset(&mut self, id: Id) {
        if let Some(entry) = self.remove(id) {
            self.os.reset(entry.stream);
            self.release(id);
        }
    }

    fn remove(&mut self, id: Id) -> Option<Entry<O::Stream>> {
        find(&mut self.streams, id)?;
        self.streams.get_mut(id.key as usize)?.take()
    }

    pub(super) fn release(&mut self, id: Id) {
        self.engine.closed(self.now, id);
        self.resume_paused_listeners(true);
    }
}

/// A write was short: an event reports when the stream is writable again.
#[cold]
fn block<O: Os>(entry: &mut Entry<O::Stream>, id: Id, os: &mut O) -> io::Result<()> {
    entry.marks.set(Marks::BLOCKED);
    if entry.marks.has(Marks::WRITES_WATCHED) {
        return Ok(());
    }
    entry.marks.set(Marks::WRITES_WATCHED);
    os.watch_writes(&mut entry.stream, entry.side, id)
}

struct Wrote {
    offered: usize,
    taken: usize,
}

/// One write, starting at byte `from` of the output.
#[inline]
fn write(stream: &mut impl Write, out: &Out, shared: &[u8], from: usize) -> io::Result<Wrote> {
    let to = out.len().min(from + limits::WRITE_BYTES_MAX);
    if out.is_plain() {
        let offered = to - from;
        return offer(offered, || stream.write(&out.bytes[from..to]));
    }
    write_pieces(stream, out, shared, from..to)
}

/// The same for output in several pieces; not inlined, to keep short writes fast.
#[inline(never)]
fn write_pieces(
    stream: &mut impl Write,
    out: &Out,
    shared: &[u8],
    range: Range<usize>,
) -> io::Result<Wrote> {
    let mut slices = [IoSlice::new(&[]); PIECES];
    let (mut count, mut offered) = (0, 0);
    for (slice, piece) in slices.iter_mut().zip(cut(out.slices(shared), range)) {
        *slice = IoSlice::new(piece);
        count += 1;
        offered += piece.len();
    }
    offer(offered, || stream.write_vectored(&slices[..count]))
}

/// Writes, again if a signal interrupts; `WouldBlock` counts as 0 bytes written.
fn offer(offered: usize, mut write: impl FnMut() -> io::Result<usize>) -> io::Result<Wrote> {
    loop {
        match write() {
            Ok(taken) => return Ok(Wrote { offered, taken }),
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(Wrote { offered, taken: 0 }),
                _ => return Err(error),
            },
        }
    }
}

/// The parts of the pieces within this range of their concatenation.
fn cut<'a>(
    pieces: impl Iterator<Item = &'a [u8]>,
    range: Range<usize>,
) -> impl Iterator<Item = &'a [u8]> {
    let mut start = 0;
    pieces
        .map(move |piece| {
            let end = start + piece.len();
            let inside = range.start.clamp(start, end)..range.end.clamp(start, end);
            let part = &piece[inside.start - start..inside.end - start];
            start = end;
            part
        })
        .filter(|part| !part.is_empty())
}
