//! Logs without waiting: a line goes into a bounded queue, one thread writes it to standard error.
//! A full queue, by lines or by bytes, drops the line and counts it, so that nobody who stops
//! reading our standard error can stop the loop. It knows what a record looks like, not what is
//! worth a record.

mod line;
mod ration;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::clock;
pub use line::Shape;
use ration::{Ration, Verdict};

/// Lines that wait for the writer.
const QUEUE_LINES_MAX: usize = 1024;
/// Bytes of those lines.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// How often the writer looks whether a burst is over, while there is one.
const BURST_CHECK: Duration = Duration::from_millis(250);
/// How long the writer leaves a descriptor alone that says that it would block.
const RETRY: Duration = Duration::from_millis(20);
/// How often the end of the process looks for room in the queue.
const ROOM_CHECK: Duration = Duration::from_millis(2);
/// The writer formats short lines and writes; it needs no more.
const STACK_BYTES: usize = 128 * 1024;

/// The one logger, from `start` to the end of the process.
static LOGS: OnceLock<Logs> = OnceLock::new();

/// What waits for the writer.
enum Item {
    /// A whole line with its newline.
    Line(String),
    /// Lines are being suppressed: look for the end of the burst.
    Burst,
    /// Everything before this is to be written: say when it is.
    Flush(SyncSender<()>),
}

struct Logs {
    filter: env_logger::Logger,
    shape: Shape,
    queue: SyncSender<Item>,
    ration: Mutex<Ration>,
    dropped: AtomicU64,
    /// Bytes of lines that are queued or being written.
    waiting: AtomicUsize,
}

/// Turns logging on: `filter` is a level, or what `env_logger` reads from `RUST_LOG`.
///
/// # Errors
/// When there is no thread or no descriptor for the writer.
///
/// # Panics
/// The second time: there is one logger.
pub fn start(filter: &str, shape: Shape) -> io::Result<()> {
    let stderr = io::stderr();
    // A descriptor of its own: the lock of `std::io::stderr` would let a blocked writer hold up
    // whoever else prints a last word.
    let to = File::from(stderr.as_fd().try_clone_to_owned()?);
    let filter = env_logger::Builder::new().parse_filters(filter).build();
    let level = filter.filter();
    let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
    let logs = Logs::new(filter, shape, queue);
    // The thread first: without it a last word must not end up in a queue that nobody empties.
    let writer = thread::Builder::new().name("logs".to_owned()).stack_size(STACK_BYTES);
    writer.spawn(move || write_lines(LOGS.wait(), &lines, to))?;
    assert!(LOGS.set(logs).is_ok(), "logging starts once");
    if log::set_logger(LOGS.wait()).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Writes an error that ends the process, whatever the filter says, and waits for it as `flush`
/// does. Before `start` it goes straight to standard error.
pub fn last_word(message: &str, timeout: Duration) {
    let text = format!("wspulse: {}\n", line::escaped(message));
    let Some(logs) = LOGS.get() else {
        // Nobody is left to be told that standard error is gone.
        let _ = io::stderr().write_all(text.as_bytes());
        return;
    };
    let text = match logs.shape {
        Shape::Text => text,
        Shape::Json => {
            let wall_ms = clock::now().wall_ms;
            line::plain(Shape::Json, wall_ms, Level::Error, "exit", message)
        }
    };
    let end_ns = deadline(timeout);
    let bytes = text.capacity();
    logs.waiting.fetch_add(bytes, Ordering::Relaxed);
    if logs.wait_in_line(Item::Line(text), end_ns) {
        logs.flush_until(end_ns);
    } else {
        logs.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Waits until all lines are written, at most this long: a standard error that nobody reads must
/// not hold up the exit. Says whether they were.
pub fn flush(timeout: Duration) -> bool {
    LOGS.get().is_none_or(|logs| logs.flush_until(deadline(timeout)))
}

impl Log for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let now = clock::now();
        // The guard goes before the line is made: the writer may want the table meanwhile.
        let verdict = self.rationed(|ration| ration.weigh(record.target(), now.mono_ns));
        match verdict {
            Verdict::Write { suppressed } => {
                if suppressed > 0 {
                    let kind = record.target();
                    self.push(line::suppressed(self.shape, now.wall_ms, kind, suppressed));
                }
                self.push(line::render(self.shape, now.wall_ms, record));
            }
            Verdict::SuppressFirst => {
                // When it does not fit, the writer is awake and looks after the next line.
                let _ = self.queue.try_send(Item::Burst);
            }
            Verdict::Suppress => {}
        }
    }

    fn flush(&self) {}
}

impl Logs {
    fn new(filter: env_logger::Logger, shape: Shape, queue: SyncSender<Item>) -> Self {
        let (dropped, waiting) = (AtomicU64::new(0), AtomicUsize::new(0));
        Self { filter, shape, queue, ration: Mutex::default(), dropped, waiting }
    }

    fn push(&self, line: String) {
        let bytes = line.capacity();
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > QUEUE_BYTES_MAX || self.queue.try_send(Item::Line(line)).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Puts an item into the queue as soon as there is room; says whether there was any in time.
    fn wait_in_line(&self, mut item: Item, end_ns: u64) -> bool {
        // From here on nobody may log faster than the writer takes, or there might never be room.
        log::set_max_level(LevelFilter::Off);
        loop {
            match self.queue.try_send(item) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => item = back,
            }
            if clock::now().mono_ns >= end_ns {
                return false;
            }
            thread::park_timeout(ROOM_CHECK);
        }
    }

    fn flush_until(&self, end_ns: u64) -> bool {
        let (written, mark) = sync_channel(1);
        if !self.wait_in_line(Item::Flush(written), end_ns) {
            return false;
        }
        let left_ns = end_ns.saturating_sub(clock::now().mono_ns);
        mark.recv_timeout(Duration::from_nanos(left_ns)).is_ok()
    }

    /// A panic elsewhere leaves counts that are still good enough.
    fn rationed<T>(&self, work: impl FnOnce(&mut Ration) -> T) -> T {
        work(&mut self.ration.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lines for bursts that are over; at the end of the process all of them are.
    fn burst_ends(&self, all: bool) -> (String, bool) {
        let now = clock::now();
        let (over, more) = self.rationed(|ration| ration.sweep(now.mono_ns, all));
        let lines =
            over.iter().map(|(kind, n)| line::suppressed(self.shape, now.wall_ms, kind, *n));
        (lines.collect(), more)
    }

    /// The line that admits what a full queue has cost.
    fn loss(&self) -> Option<String> {
        let n = self.dropped.swap(0, Ordering::Relaxed);
        (n > 0).then(|| {
            let message = format!("dropped {n} log lines");
            line::plain(self.shape, clock::now().wall_ms, Level::Warn, "logs", &message)
        })
    }
}

/// The writer: sleeps while there is nothing to write and no burst to watch.
fn write_lines(logs: &Logs, lines: &Receiver<Item>, mut to: impl Write) {
    let mut burst = false;
    loop {
        let next = if burst {
            lines.recv_timeout(BURST_CHECK)
        } else {
            lines.recv().map_err(RecvTimeoutError::from)
        };
        match next {
            Ok(Item::Line(text)) => {
                put(&mut to, &text);
                logs.waiting.fetch_sub(text.capacity(), Ordering::Relaxed);
                // The mark of a burst may have found the queue full.
                burst = true;
            }
            Ok(Item::Burst) => burst = true,
            Ok(Item::Flush(written)) => {
                put(&mut to, &logs.burst_ends(true).0);
                put(&mut to, &logs.loss().unwrap_or_default());
                burst = false;
                // Whoever asked may have given up waiting.
                let _ = written.try_send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let Some(text) = logs.loss() {
            put(&mut to, &text);
        }
        if burst {
            let (text, more) = logs.burst_ends(false);
            put(&mut to, &text);
            burst = more;
        }
    }
}

/// Writes all of it, or gives up on a descriptor that is broken: there is no place to complain.
fn put(to: &mut impl Write, text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return,
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody who shares our standard error has made it non-blocking.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(RETRY),
            Err(_) => return,
        }
    }
}

fn deadline(timeout: Duration) -> u64 {
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    clock::now().mono_ns.saturating_add(timeout_ns)
}

#[cfg(test)]
mod tests;
