//! Signals, as bytes in pipes that the loop watches: no handler runs any code of ours.

use core::ffi::c_int;
use std::io;
use std::os::unix::net::UnixStream as Pipe;

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

use crate::engine::Signal;

const STOP: (Signal, &[c_int]) = (Signal::Stop, &[SIGTERM, SIGINT]);
const OTHERS: [(Signal, &[c_int]); 2] = [(Signal::Report, &[SIGUSR1]), (Signal::Reload, &[SIGHUP])];

/// A pipe for each thing that an operator can ask for.
pub(crate) fn pipes() -> io::Result<Vec<(Signal, UnixStream)>> {
    [STOP].into_iter().chain(OTHERS).map(pipe_for).collect()
}

/// For a program that can only be told to stop; the other signals do what they do anywhere.
pub(crate) fn stop_pipe() -> io::Result<Vec<(Signal, UnixStream)>> {
    pipe_for(STOP).map(|pipe| vec![pipe])
}

fn pipe_for((meaning, signals): (Signal, &[c_int])) -> io::Result<(Signal, UnixStream)> {
    let (ours, theirs) = Pipe::pair()?;
    for signal in signals {
        pipe::register(*signal, theirs.try_clone()?)?;
    }
    ours.set_nonblocking(true)?;
    Ok((meaning, UnixStream::from_std(ours)))
}
