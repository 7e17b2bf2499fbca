//! Files: those of `--assets`, read at start and on SIGHUP (`assets`), and small ones, such as
//! tokens, read again on request.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::engine::File;
use crate::limits;
use crate::units::show_size;

/// Most nested folders; deeper than this it is a loop of links.
const DEPTH: usize = 16;

/// Reads a whole directory. Links are followed, as Kubernetes mounts files through them, but not
/// out of the directory: a link to `/etc` would serve files that were never meant to be. Names
/// that begin with a dot are skipped, among them the folders that those links point to.
pub(crate) fn read(directory: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut left = limits::ASSETS_BYTES;
    let root = fs::canonicalize(directory).map_err(|error| named(directory, &error))?;
    read_folder(directory, &root, "", DEPTH, &mut left, &mut files)?;
    Ok(files)
}

fn read_folder(
    folder: &Path,
    root: &Path,
    prefix: &str,
    depth: usize,
    left: &mut u64,
    files: &mut Vec<File>,
) -> io::Result<()> {
    if depth == 0 {
        return Err(wrong(folder, "has too many nested folders"));
    }
    for entry in fs::read_dir(folder).map_err(|error| named(folder, &error))? {
        let entry = entry.map_err(|error| named(folder, &error))?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(wrong(&path, "has a name that is not UTF-8"));
        };
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(|error| named(&path, &error))?;
        if kind.is_symlink() {
            let target = fs::canonicalize(&path).map_err(|error| named(&path, &error))?;
            if !target.starts_with(root) {
                return Err(wrong(
                    &path,
                    "is a link that leads out of the directory: replace it by a copy",
                ));
            }
        }
        let metadata = fs::metadata(&path).map_err(|error| named(&path, &error))?;
        if metadata.is_dir() {
            read_folder(&path, root, &format!("{prefix}{name}/"), depth - 1, left, files)?;
        } else if metadata.is_file() {
            if metadata.len() > limits::ASSET_BYTES {
                return Err(wrong(&path, "is larger than 1 MiB, the limit for a served file"));
            }
            let bytes = fs::read(&path).map_err(|error| named(&path, &error))?;
            let rest = left.checked_sub(bytes.len() as u64);
            *left = rest.ok_or_else(|| wrong(folder, "has more than 8 MiB of files"))?;
            let modified =
                metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let modified_ms = modified.map_or(0, |at| i64::try_from(at.as_millis()).unwrap_or(0));
            let name = format!("{prefix}{name}");
            files.push(File { name, bytes, modified_ms, prepared: None });
        }
    }
    Ok(())
}

/// Reads small files by path; failures are logged and left out.
pub(super) fn found(paths: &[String]) -> Vec<File> {
    let mut found = Vec::new();
    for path in paths {
        match read_small(Path::new(path)) {
            Ok(bytes) => {
                found.push(File { name: path.clone(), bytes, modified_ms: 0, prepared: None });
            }
            Err(error) => log::warn!(target: "files", error:% = error; "cannot read a file"),
        }
    }
    found
}

/// As [`found`], but files that do not exist are not logged.
pub(crate) fn present(paths: &[String]) -> Vec<File> {
    let there = paths.iter().filter(|path| Path::new(path).try_exists().unwrap_or(true));
    found(&there.cloned().collect::<Vec<_>>())
}

/// Reads at most [`limits::ASSET_BYTES`] of a file.
pub(crate) fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    read_most(path, limits::ASSET_BYTES)
}

/// Reads a file of at most this many bytes, to its end.
pub(crate) fn read_whole(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let bytes = read_most(path, most + 1)?;
    if bytes.len() as u64 > most {
        return Err(wrong(path, &format!("is longer than {}", show_size(most))));
    }
    Ok(bytes)
}

fn read_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path).map_err(|error| named(path, &error))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|error| named(path, &error))?;
    Ok(bytes)
}

/// Replaces the contents of a file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn wrong(path: &Path, what: &str) -> io::Error {
    io::Error::other(format!("{} {what}", path.display()))
}
