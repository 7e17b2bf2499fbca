//! What the loop needs of an operating system: implemented by the kernel (`kernel`), and by the
//! simulation's faulty one in the tests.

use std::io::{self, Read, Write};
use std::time::Duration;

use crate::engine::{File, Id, Now, Peer, Side, Signal, Source, Standing, Target};

/// Something that happened while the loop slept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Connections wait in this listener's queue.
    Knock(usize),
    /// A stream changed: only changes are told, so whoever stops before the end must remember.
    Stream {
        /// Which one; it may be gone by now.
        id: Id,
        /// Bytes, or the end, can be read.
        readable: bool,
        /// Bytes can be written, or writing will fail.
        writable: bool,
        /// The end follows the bytes that are there, and no further event will say so.
        ended: bool,
        /// It is dead in both directions.
        broken: bool,
    },
    /// The operator asks something.
    Signal(Signal),
    /// The assets have been read: [`Os::take_assets`].
    AssetsRead,
}

/// A connection to a peer. Dropping it closes it; what it has taken and not passed on,
/// [`Write::flush`] passes on.
pub trait Channel: Read + Write {
    /// It stopped before the kernel had no more, or holds something back: no event will tell.
    fn holds_more(&self) -> bool {
        false
    }

    /// What it keeps for its peer, beyond what every connection of its kind costs.
    fn held_bytes(&self) -> usize {
        0
    }

    /// It and its peer do not understand each other yet: to serve it now costs as much as hundreds
    /// of messages.
    fn is_costly(&self) -> bool {
        false
    }
}

/// An operating system.
pub trait Os {
    /// A connection to a peer.
    type Stream: Channel;

    /// The clock, asked once a turn.
    fn now(&mut self) -> Now;

    /// Sleeps until something happens, or for so long; `None` is for ever.
    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// What has happened on the admin side meanwhile, without sleeping.
    fn glance(&mut self, events: &mut Vec<Event>) -> io::Result<()>;

    /// Sleeps for so long; nothing but a signal is noticed, and it ends the sleep.
    fn sleep(&mut self, time: Duration, events: &mut Vec<Event>) -> io::Result<()>;

    /// The side of each listener, by its number.
    fn listeners(&self) -> Vec<Side>;

    /// Accepts a connection of this listener.
    fn accept(&mut self, listener: usize) -> io::Result<(Self::Stream, Peer)>;

    /// Accepts a connection although descriptors have run out, writes these last
    /// words and hangs up.
    fn turn_away(&mut self, listener: usize, last_words: &[u8]) -> io::Result<()>;

    /// Begins to open a connection.
    fn connect(&mut self, target: &Target) -> io::Result<Self::Stream>;

    /// Whether a connection that was begun stands; an error when it never will.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<bool>;

    /// Tells of this stream's changes from now on, the present state included.
    fn watch(&mut self, stream: &mut Self::Stream, side: Side, id: Id) -> io::Result<()>;

    /// Says that no more bytes follow.
    fn finish(&mut self, stream: &mut Self::Stream);

    /// Closes, so that the peer learns at once and nothing waits to be sent.
    fn reset(&mut self, stream: Self::Stream);

    /// Closes the main doors; those who wait there are sent away by the kernel.
    fn close_listeners(&mut self);

    /// Tells whoever supervises us how we are, as far as they want to know it now; says when it
    /// has more to tell even if nothing happens. Most have nobody to tell.
    fn tell(&mut self, _now: Now, _standing: Standing) -> Option<u64> {
        None
    }

    /// Shows this to whoever looks on. Most have nobody there.
    fn show(&mut self, _text: &str) {}

    /// Bytes that count against the memory limit of this process, if it has one.
    fn memory_used(&mut self) -> Option<u64> {
        None
    }

    /// The assets that [`Os::fetch`] began to read.
    fn take_assets(&mut self) -> io::Result<Vec<File>> {
        Err(io::ErrorKind::NotFound.into())
    }

    /// Reads files. `WouldBlock`: that goes on beside the loop, and [`Event::AssetsRead`] tells
    /// when it is done.
    fn fetch(&mut self, source: &Source) -> io::Result<Vec<File>>;
}
