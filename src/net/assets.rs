//! Reads the directory of `--assets` again on a thread of its own: a slow disk may take seconds,
//! and so does preparing 8 MiB of files. Only one thread runs at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use mio::Waker;

use super::files;
use crate::engine::{File, Prepared};

/// Computes what a file is served with from its name and bytes. It may take long.
pub(crate) type Prepare = fn(&str, &[u8]) -> Prepared;

type Read = io::Result<Vec<File>>;

#[derive(Debug)]
pub(crate) struct AssetReader {
    directory: PathBuf,
    prepare: Prepare,
    state: State,
    /// Requested again while reading: the result may be older than the request.
    again: bool,
}

#[derive(Debug)]
enum State {
    Idle,
    Reading(Receiver<Read>),
    Finished(Read),
}

impl AssetReader {
    pub(crate) fn new(directory: PathBuf, prepare: Prepare) -> Self {
        Self { directory, prepare, state: State::Idle, again: false }
    }

    /// Starts to read; the waker is called at the end. If reading is in progress, everything is
    /// read once more after it.
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

    /// Whether there is a result to take, now or later.
    pub(super) fn is_reading(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether reading has just finished; true once per result.
    pub(super) fn has_finished(&mut self) -> bool {
        let State::Reading(thread) = &self.state else { return false };
        let read = match thread.try_recv() {
            Ok(read) => read,
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => Err(io::Error::other("the reading thread panicked")),
        };
        self.state = State::Finished(read);
        true
    }

    /// Takes the result, and reads again if that was requested meanwhile.
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
    // The receiver is gone when the process exits.
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
    fn requests_during_a_read_cause_one_more_read() {
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
            assert!(!reader.has_finished(), "reported once");
        };
        assert_eq!(reader.take(Arc::clone(&waker)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for _ in 0..5 {
            reader.begin(Arc::clone(&waker)).unwrap();
        }
        wait(&mut reader);
        // It has finished, but the result is older than this request.
        reader.begin(Arc::clone(&waker)).unwrap();
        assert_eq!(reader.take(Arc::clone(&waker)).unwrap().len(), 1);
        wait(&mut reader);
        let files = reader.take(Arc::clone(&waker)).unwrap();
        assert!(files[0].prepared.is_some() && !reader.is_reading());
        assert_eq!(PREPARED.load(Ordering::Relaxed), 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
