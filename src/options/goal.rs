//! Where a client connects to and whom it trusts there, as flags say it: `--insecure`, `--ca-file`.
//! What lies in a file is read by whoever can.

use std::path::{Path, PathBuf};

use super::Usage;
use super::table::Taken;
use super::values;
use crate::engine::{Target, Trust};

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// The places; the next one is tried where nobody is.
    pub targets: Vec<Target>,
    /// With TLS: whom to find there.
    pub proof: Option<Proof>,
}

/// What a server has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Whom its certificate must be for.
    pub name: String,
    /// Who may vouch for it.
    pub voucher: Voucher,
}

/// Who may vouch for a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Voucher {
    /// Whoever Mozilla trusts.
    #[default]
    Public,
    /// Those in this file and nobody else.
    File(PathBuf),
    /// Nobody has to.
    Nobody,
}

impl Goal {
    /// The file that has to be read first.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.proof.as_ref()?.voucher {
            Voucher::File(path) => Some(path),
            Voucher::Public | Voucher::Nobody => None,
        }
    }

    /// What is connected to, given what was read of that file.
    #[must_use]
    pub fn targets(self, file: &[u8]) -> Vec<Target> {
        let Some(Proof { name, voucher }) = self.proof else { return self.targets };
        let trust = match voucher {
            Voucher::Public => Trust::public(),
            Voucher::File(_) => Trust::pem(file),
            Voucher::Nobody => Trust::unverified(),
        };
        let targets = self.targets.into_iter();
        targets.map(|target| target.secured(&name, trust.clone())).collect()
    }
}

/// What the two flags are written into.
#[derive(Clone, Debug, Default)]
pub(super) struct Doubts {
    insecure: bool,
    ca_file: Option<PathBuf>,
}

/// A draft that has such a part.
pub(super) trait Doubting {
    fn doubts(&mut self) -> &mut Doubts;
}

pub(super) const INSECURE: &str = "believe any certificate: for tests";
pub(super) const CA_FILE: &str = "trust these authorities (PEM) instead of Mozilla's list";

pub(super) fn insecure(draft: &mut impl Doubting, text: &str) -> Taken {
    values::switch(text).map(|on| draft.doubts().insecure = on)
}

pub(super) fn ca_file(draft: &mut impl Doubting, text: &str) -> Taken {
    values::tls_file(text).map(|path| draft.doubts().ca_file = path)
}

impl Doubts {
    pub(super) fn settle(self) -> Result<Voucher, Usage> {
        match (self.insecure, self.ca_file) {
            (false, None) => Ok(Voucher::Public),
            (false, Some(path)) => Ok(Voucher::File(path)),
            (true, None) => Ok(Voucher::Nobody),
            (true, Some(_)) => {
                Err(Usage::Unclear("--insecure believes any certificate: leave out --ca-file"))
            }
        }
    }
}
