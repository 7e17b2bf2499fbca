//! Unix sockets that are files: one that nobody listens on is replaced, one that is in use and any
//! other kind of file is left alone; our own goes away with its listener.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mio::net::UnixListener;
use socket2::{Domain, SockAddr, Socket, Type};

use super::stream::Listener;
use crate::limits;

/// The file of a socket that we made.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file of the same name that somebody else put there is not ours.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), identity: identity(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A file that stays is stale, and the next start replaces it.
            let removed = fs::remove_file(&self.path);
            drop(removed);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Binds and listens.
pub(super) fn listen(path: &Path) -> io::Result<Listener> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        make_way(path, &address, error)?;
        socket.bind(&address)?;
    }
    let file = SocketFile::at(path)?;
    socket.listen(limits::BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(socket.into());
    Ok(Listener::Unix { file: Some(file), listener })
}

/// Takes away a socket that nobody listens on any more, or says what keeps it there.
fn make_way(path: &Path, address: &SockAddr, in_use: io::Error) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file is there already"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue would keep us waiting; that it is full proves that somebody is there.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // It took our connection, or would take one of another type.
        Ok(()) | Err(_) => Err(in_use),
    }
}

/// What helps when [`listen`] has failed like this.
pub(crate) fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "stop what listens there, or choose another path",
        io::ErrorKind::AlreadyExists => "only a socket that nobody uses is replaced: move it away",
        io::ErrorKind::NotFound => "make its directory first",
        io::ErrorKind::PermissionDenied => "let this user write to its directory",
        _ => "choose another path",
    }
}
