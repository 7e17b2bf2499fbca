//! TLS, and what stands for it in a build without: a channel around a socket, the certificate of
//! the main doors, and whom our own connections trust.

#[cfg(feature = "tls")]
mod channel;
#[cfg(feature = "tls")]
mod expiry;
#[cfg(feature = "tls")]
mod keeper;
#[cfg(not(feature = "tls"))]
mod none;
#[cfg(feature = "tls")]
mod trust;

#[cfg(feature = "tls")]
pub(super) use channel::Tls;
#[cfg(feature = "tls")]
pub(crate) use keeper::Keeper;
#[cfg(not(feature = "tls"))]
pub(crate) use none::Keeper;
#[cfg(not(feature = "tls"))]
pub(super) use none::{Tls, Trusts};
#[cfg(feature = "tls")]
pub(super) use trust::Trusts;

use core::fmt;
use std::io;
use std::path::PathBuf;

/// Where the certificate of the main doors lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The certificate and those between it and its root.
    pub(crate) cert: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// Why a certificate and its key cannot be used.
#[derive(Debug)]
pub enum KeepError {
    /// A file cannot be read.
    Unreadable {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// A file has not what it should have.
    Wrong {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The two do not belong together.
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
}

impl fmt::Display for KeepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { flag, path, error } => {
                write!(f, "{flag}: cannot read {}: {error}", path.display())
            }
            Self::Wrong { flag, path, what } => write!(f, "{flag}: {} {what}", path.display()),
            Self::Mismatch { key, cert } => write!(
                f,
                "--tls-key: the key in {} does not belong to the certificate in {}",
                key.display(),
                cert.display()
            ),
        }
    }
}
