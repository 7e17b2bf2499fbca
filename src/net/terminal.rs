//! Standard input and output as one stream. Neither is made non-blocking, since that would affect
//! every process on the terminal: each read and write polls the descriptor first.

use std::io::{self, IoSlice, IsTerminal, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::engine::Screen;

/// A writable pipe takes this much without blocking, and a writable terminal less.
const PIPE_PIECE: usize = 4096;
const TERMINAL_PIECE: usize = 256;

#[derive(Debug)]
pub(crate) struct Terminal {
    input: io::Stdin,
    output: io::Stdout,
    /// At most this much is written at a time.
    piece: usize,
}

impl Default for Terminal {
    fn default() -> Self {
        let (input, output) = (io::stdin(), io::stdout());
        let piece = if output.is_terminal() { TERMINAL_PIECE } else { PIPE_PIECE };
        Self { input, output, piece }
    }
}

impl Terminal {
    /// Registers both descriptors. epoll refuses files and `/dev/null`, which are always ready;
    /// returns whether it refused either.
    pub(super) fn watch(&self, registry: &Registry, token: Token) -> io::Result<bool> {
        let mut always = false;
        for (descriptor, interest) in [
            (self.input.as_raw_fd(), Interest::READABLE),
            (self.output.as_raw_fd(), Interest::WRITABLE),
        ] {
            match registry.register(&mut SourceFd(&descriptor), token, interest) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => always = true,
                other => other?,
            }
        }
        Ok(always)
    }

    /// The size of what output is shown on; `None` if that is no terminal.
    pub(super) fn screen(&self) -> Option<Screen> {
        let size = rustix::termios::tcgetwinsize(&self.output).ok()?;
        Some(Screen { columns: size.ws_col, rows: size.ws_row })
    }
}

/// `WouldBlock` unless the descriptor is ready.
pub(super) fn ready(descriptor: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    let mut asked = [PollFd::new(&descriptor, what)];
    match poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        _ => Ok(()),
    }
}

impl Read for Terminal {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        ready(self.input.as_fd(), PollFlags::IN)?;
        // Not through `Stdin`: no event follows for bytes that it has buffered.
        Ok(rustix::io::read(&self.input, buffer)?)
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        // As much as fits: the next event comes only after it was full.
        while written < bytes.len() {
            let rest = &bytes[written..];
            let some = ready(self.output.as_fd(), PollFlags::OUT).and_then(|()| {
                Ok(rustix::io::write(&self.output, &rest[..rest.len().min(self.piece)])?)
            });
            match some {
                Ok(n) => written += n,
                Err(_) if written > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write(pieces.first().map_or(&[], |piece| piece))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
