//! Signals as bytes in pipes that the loop polls, so that no code of ours runs in a handler.

use core::ffi::c_int;
use std::io;
use std::os::unix::net::UnixStream as Pipe;

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::pipe;

use crate::engine::Signal;

const STOP: (Signal, &[c_int]) = (Signal::Stop, &[SIGTERM, SIGINT]);
const OTHERS: [(Signal, &[c_int]); 2] = [(Signal::Report, &[SIGUSR1]), (Signal::Reload, &[SIGHUP])];

/// One pipe for each [`Signal`].
pub(crate) fn pipes() -> io::Result<Vec<(Signal, UnixStream)>> {
    [STOP].into_iter().chain(OTHERS).map(pipe_for).collect()
}

/// Only the pipe of [`Signal::Stop`]; the other signals keep their default action.
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
