//! The directory of `--assets`, read again on a thread of its own: a disk may take seconds, and so
//! does what is made of 8 MiB of files. One thread at a time, whatever is asked meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use mio::Waker;

use super::files;
use crate::engine::{File, Prepared};

/// What is made of a file, by its name and its bytes: a function that takes its time, and nothing
/// else.
pub(crate) type Prepare = fn(&str, &[u8]) -> Prepared;

type Read = io::Result<Vec<File>>;

/// Reads the directory whenever it is asked to.
#[derive(Debug)]
pub(crate) struct AssetReader {
    directory: PathBuf,
    prepare: Prepare,
    state: State,
    /// It was asked for after reading had begun: what is read may be older than that.
    again: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    Reading(Receiver<Read>),
    /// Read, and not taken.
    Finished(Read),
}

impl AssetReader {
    pub(crate) fn new(directory: PathBuf, prepare: Prepare) -> Self {
        Self { directory, prepare, state: State::Idle, again: false }
    }

    /// Begins to read; the waker tells when that is done. While it goes on, this only sees to it
    /// that everything is read once more after that.
    pub(super) fn begin(&mut self, waker: Arc<Waker>) -> io::Result<()> {
        match self.state {
            State::Reading(_) | State::Finished(_) => self.again = true,
            State::Idle => {
                let (sender, receiver) = sync_channel(1);
                let (directory, prepare) = (self.directory.clone(), self.prepare);
                let thread = thread::Builder::new().name("assets".into());
                thread.spawn(move || read(&directory, prepare, &sender, &waker))?;
                self.state = State::Reading(receiver);
            }
        }
        Ok(())
    }

    /// Whether there is anything to be taken, now or later.
    pub(super) fn is_reading(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether there is something to be taken now; the answer is yes once.
    pub(super) fn has_finished(&mut self) -> bool {
        let State::Reading(thread) = &self.state else { return false };
        let read = match thread.try_recv() {
            Ok(read) => read,
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("reading has failed")),
        };
        self.state = State::Finished(read);
        true
    }

    /// What was read. If it was asked for again meanwhile, reading begins anew.
    pub(super) fn take(&mut self, waker: Arc<Waker>) -> Read {
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Finished(read) => {
                if std::mem::take(&mut self.again) {
                    self.begin(waker)?;
                }
                read
            }
            other @ (State::Idle | State::Reading(_)) => {
                self.state = other;
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
    }
}

fn read(directory: &Path, prepare: Prepare, sender: &SyncSender<Read>, waker: &Waker) {
    let read = files::read(directory).map(|mut files| {
        for file in &mut files {
            file.prepared = Some(prepare(&file.name, &file.bytes));
        }
        files
    });
    // Nobody listens any more when the process is about to end.
    let told = sender.send(read);
    drop(told);
    let woken = waker.wake();
    drop(woken);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use mio::{Events, Poll, Token};

    use super::*;

    static PREPARED: AtomicU32 = AtomicU32::new(0);

    fn count(_: &str, _: &[u8]) -> Prepared {
        PREPARED.fetch_add(1, Ordering::Relaxed);
        Prepared { digest: [0; 10], gzip: None }
    }

    #[test]
    fn whatever_is_asked_while_it_reads_is_one_more_time() {
        let folder = std::env::temp_dir().join(format!("wspulse-reader-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("a.txt"), "a").unwrap();
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut reader = AssetReader::new(folder.clone(), count);
        let mut wait = |reader: &mut AssetReader| {
            let mut events = Events::with_capacity(1);
            poll.poll(&mut events, Some(Duration::from_secs(4))).unwrap();
            assert!(reader.has_finished());
            assert!(!reader.has_finished(), "it is told once");
        };
        assert_eq!(reader.take(Arc::clone(&waker)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for _ in 0..5 {
            reader.begin(Arc::clone(&waker)).unwrap();
        }
        wait(&mut reader);
        // It has finished, but what it has read is older than this.
        reader.begin(Arc::clone(&waker)).unwrap();
        assert_eq!(reader.take(Arc::clone(&waker)).unwrap().len(), 1);
        wait(&mut reader);
        let files = reader.take(Arc::clone(&waker)).unwrap();
        assert!(files[0].prepared.is_some() && !reader.is_reading());
        assert_eq!(PREPARED.load(Ordering::Relaxed), 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
