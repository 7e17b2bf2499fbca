//! Signals, as bytes in pipes that the loop watches: no handler runs any code of ours.

use std::io;
use std::os::unix::net::UnixStream as Pipe;

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

use crate::engine::Signal;

/// A pipe for each thing that an operator can ask for.
pub(super) fn pipes() -> io::Result<Vec<(Signal, UnixStream)>> {
    [
        (Signal::Stop, &[SIGTERM, SIGINT][..]),
        (Signal::Report, &[SIGUSR1]),
        (Signal::Reload, &[SIGHUP]),
    ]
    .into_iter()
    .map(|(meaning, signals)| {
        let (ours, theirs) = Pipe::pair()?;
        for signal in signals {
            pipe::register(*signal, theirs.try_clone()?)?;
        }
        ours.set_nonblocking(true)?;
        Ok((meaning, UnixStream::from_std(ours)))
    })
    .collect()
}
