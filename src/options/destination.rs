//! The destination of a client command, and the certificates that it trusts: `--insecure` and
//! `--ca-file`. The caller reads the CA file.

use std::path::{Path, PathBuf};

use super::Usage;
use super::table::{Fallback, Flag, Takes, row};
use super::values;
use crate::engine::{Target, Trust};

/// The destination of a client command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Addresses in order: when one does not accept the connection, the next is tried.
    pub targets: Vec<Target>,
    /// `None`: no TLS.
    pub tls: Option<Tls>,
}

/// How the server's certificate is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The host name that the certificate must be valid for.
    pub name: String,
    /// Trusted certificate authorities.
    pub roots: Roots,
}

/// Trusted certificate authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// Mozilla's list.
    #[default]
    Public,
    /// Only those in this file.
    File(PathBuf),
    /// The certificate is not verified.
    Unverified,
}

impl Goal {
    /// The CA file whose content [`targets`](Self::targets) needs.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.tls.as_ref()?.roots {
            Roots::File(path) => Some(path),
            Roots::Public | Roots::Unverified => None,
        }
    }

    /// The targets with their TLS settings; `file` is the content of the CA file.
    #[must_use]
    pub fn targets(self, file: &[u8]) -> Vec<Target> {
        let Some(Tls { name, roots }) = self.tls else { return self.targets };
        let trust = match roots {
            Roots::Public => Trust::public(),
            Roots::File(_) => Trust::pem(file),
            Roots::Unverified => Trust::unverified(),
        };
        let targets = self.targets.into_iter();
        targets.map(|target| target.secured(&name, trust.clone())).collect()
    }
}

/// The values of `--insecure` and `--ca-file`.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustFlags {
    insecure: bool,
    ca_file: Option<PathBuf>,
}

pub(super) trait HasTrustFlags {
    fn trust(&mut self) -> &mut TrustFlags;
}

pub(super) const fn insecure_flag<D: HasTrustFlags>() -> Flag<D> {
    const HELP: &str = "skip certificate verification: for tests";
    row("insecure", Takes::Nothing, Fallback::Off, HELP, |draft, text| {
        values::switch(text).map(|on| draft.trust().insecure = on)
    })
}

pub(super) const fn ca_file_flag<D: HasTrustFlags>() -> Flag<D> {
    const HELP: &str = "trust the CAs in this file (PEM) instead of Mozilla's list";
    row("ca-file", Takes::One("FILE"), Fallback::Off, HELP, |draft, text| {
        values::tls_file(text).map(|path| draft.trust().ca_file = path)
    })
}

impl TrustFlags {
    pub(super) fn settle(self) -> Result<Roots, Usage> {
        match (self.insecure, self.ca_file) {
            (false, None) => Ok(Roots::Public),
            (false, Some(path)) => Ok(Roots::File(path)),
            (true, None) => Ok(Roots::Unverified),
            (true, Some(_)) => {
                Err(Usage::Conflict("--insecure and --ca-file exclude each other: leave one out"))
            }
        }
    }
}
