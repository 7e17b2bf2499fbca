//! TLS: a channel around a socket, the certificate of the main listeners, and verification for
//! outgoing connections. `none` replaces all of it in a build without TLS.

#[cfg(feature = "tls")]
mod certificate;
#[cfg(feature = "tls")]
mod channel;
#[cfg(feature = "tls")]
mod expiry;
#[cfg(not(feature = "tls"))]
mod none;
#[cfg(feature = "tls")]
mod session;
#[cfg(feature = "tls")]
mod trust;

#[cfg(feature = "tls")]
pub(crate) use certificate::Certificate;
#[cfg(feature = "tls")]
pub(super) use channel::Tls;
#[cfg(not(feature = "tls"))]
pub(crate) use none::Certificate;
#[cfg(not(feature = "tls"))]
pub(super) use none::{Tls, Trusts};
#[cfg(feature = "tls")]
pub(super) use trust::Trusts;

use core::fmt;
use std::io;
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    /// The certificate and its intermediates.
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Why a certificate or its key cannot be used.
#[derive(Debug)]
pub enum CertificateError {
    /// A file cannot be read.
    Unreadable {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system call.
        error: io::Error,
    },
    /// A file has unusable contents.
    Unusable {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason, as a clause.
        why: &'static str,
    },
    /// The key is not the certificate's.
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { flag, path, error } => {
                write!(f, "{flag}: cannot read {}: {error}", path.display())
            }
            Self::Unusable { flag, path, why } => write!(f, "{flag}: {} {why}", path.display()),
            Self::Mismatch { key, cert } => write!(
                f,
                "--tls-key: the key in {} does not belong to the certificate in {}",
                key.display(),
                cert.display()
            ),
        }
    }
}
