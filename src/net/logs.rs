//! Logging that never blocks: lines go into a bounded queue, and a thread writes them to standard
//! error. A full queue, by lines or by bytes, drops the line and counts it, so that a reader of
//! our standard error that stops cannot stop the loop. It knows how records are formatted, not
//! which are logged.

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

/// Most lines in the queue.
const QUEUE_LINES_MAX: usize = 1024;
/// Most bytes of those lines.
const QUEUE_BYTES_MAX: usize = 256 * 1024;
/// During a burst, how often the writer checks whether it is over.
const BURST_CHECK: Duration = Duration::from_millis(250);
/// How long the writer waits after `WouldBlock`.
const RETRY: Duration = Duration::from_millis(20);
/// While exiting, how often to check for space in the queue.
const ROOM_CHECK: Duration = Duration::from_millis(2);
/// The writer formats short lines and writes, which needs little stack.
const STACK_BYTES: usize = 128 * 1024;

/// The only logger, set by `start` until the process ends.
static LOGS: OnceLock<Logs> = OnceLock::new();

enum Item {
    /// A complete line with its newline.
    Line(String),
    /// Lines are being suppressed: check for the end of the burst.
    Burst,
    /// Signal the sender once everything before this is written.
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

/// Starts logging: `filter` is a level or a filter in the syntax of `RUST_LOG`.
///
/// # Errors
/// When the thread or its descriptor cannot be created.
///
/// # Panics
/// When called twice.
pub fn start(filter: &str, shape: Shape) -> io::Result<()> {
    let stderr = io::stderr();
    // A descriptor of its own: a blocked writer would hold the lock of `std::io::stderr` and
    // block others that print a final error.
    let to = File::from(stderr.as_fd().try_clone_to_owned()?);
    let filter = env_logger::Builder::new().parse_filters(filter).build();
    let level = filter.filter();
    let (queue, lines) = sync_channel(QUEUE_LINES_MAX);
    let logs = Logs::new(filter, shape, queue);
    // The thread first: without it `fatal` would put its message into a queue without a reader.
    let writer = thread::Builder::new().name("logs".to_owned()).stack_size(STACK_BYTES);
    writer.spawn(move || write_lines(LOGS.wait(), &lines, to))?;
    assert!(LOGS.set(logs).is_ok(), "logging starts once");
    if log::set_logger(LOGS.wait()).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

/// Writes an error that ends the process, whatever the filter, and waits for it as `flush` does.
/// Before `start` it goes straight to standard error.
pub fn fatal(message: &str, timeout: Duration) {
    let text = format!("wspulse: {}\n", line::escaped(message));
    let Some(logs) = LOGS.get() else {
        // If standard error is closed there is no place to report that.
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
    if logs.enqueue(Item::Line(text), end_ns) {
        logs.flush_until(end_ns);
    } else {
        logs.waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Waits until all lines are written, but no longer than this: a standard error that is not read
/// must not block the exit. Returns whether they were.
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
        // Formats the line after the lock is released, since the writer may need it.
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
                // If the queue is full, the writer is awake and checks after the next line.
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

    /// Queues an item as soon as there is space; returns false if there was none in time.
    fn enqueue(&self, mut item: Item, end_ns: u64) -> bool {
        // Further logging stops, or the queue might never have space.
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
        if !self.enqueue(Item::Flush(written), end_ns) {
            return false;
        }
        let left_ns = end_ns.saturating_sub(clock::now().mono_ns);
        mark.recv_timeout(Duration::from_nanos(left_ns)).is_ok()
    }

    /// After a panic of another thread the counts are still good enough.
    fn rationed<T>(&self, work: impl FnOnce(&mut Ration) -> T) -> T {
        work(&mut self.ration.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lines for bursts that are over (`all`: for every burst), and whether others continue.
    fn burst_ends(&self, all: bool) -> (String, bool) {
        let now = clock::now();
        let (over, more) = self.rationed(|ration| ration.sweep(now.mono_ns, all));
        let lines =
            over.iter().map(|(kind, n)| line::suppressed(self.shape, now.wall_ms, kind, *n));
        (lines.collect(), more)
    }

    /// A line with the number of dropped lines, if any.
    fn loss(&self) -> Option<String> {
        let n = self.dropped.swap(0, Ordering::Relaxed);
        (n > 0).then(|| {
            let message = format!("dropped {n} log lines");
            line::plain(self.shape, clock::now().wall_ms, Level::Warn, "logs", &message)
        })
    }
}

/// The writer thread: sleeps unless there is a line to write or a burst to watch.
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
                // `Item::Burst` may have found the queue full.
                burst = true;
            }
            Ok(Item::Burst) => burst = true,
            Ok(Item::Flush(written)) => {
                put(&mut to, &logs.burst_ends(true).0);
                put(&mut to, &logs.loss().unwrap_or_default());
                burst = false;
                // The receiver may have timed out.
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

/// Writes all of it, or gives up on a broken descriptor: there is no place to report that.
fn put(to: &mut impl Write, text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        match to.write(rest) {
            Ok(0) => return,
            Ok(n) => rest = &rest[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Another process that shares our standard error has made it non-blocking.
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
