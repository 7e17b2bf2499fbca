//! Unix sockets in the file system: a stale one is replaced, one in use and any other kind of file
//! is left alone, and our own is removed with its listener.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mio::net::UnixListener;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::limits;

#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file of the same name created by others is not ours.
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
            // If that fails the file is stale, and the next start replaces it.
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
pub(super) fn listen(path: &Path) -> io::Result<(SocketFile, UnixListener)> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_stale(path, &address, error)?;
        socket.bind(&address)?;
    }
    let file = SocketFile::at(path)?;
    socket.listen(limits::BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok((file, UnixListener::from_std(socket.into())))
}

/// Removes a stale socket, or returns why it cannot.
fn remove_stale(path: &Path, address: &SockAddr, in_use: io::Error) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists"));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Connecting would block on a full queue, which proves as well that the socket is in use.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        // It accepted, or would accept a connection of another type.
        Ok(()) | Err(_) => Err(in_use),
    }
}

/// Advice for an error of [`listen`].
pub(crate) fn remedy(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "stop the other process, or choose another path",
        io::ErrorKind::AlreadyExists => "only a stale socket is replaced: move the file away",
        io::ErrorKind::NotFound => "create its directory first",
        io::ErrorKind::PermissionDenied => "this user needs write access to its directory",
        _ => "choose another path",
    }
}
