//! The table of parts, and what a part declares before it is built. A part is a folder and one
//! line of `parts!`; no other file names the parts, so removing both removes the part.

use crate::behaviours::{self, Catalogue, Entry};
use crate::engine::{File, Trust};
use crate::listen::Listen;
use crate::options::help::Page;
use crate::options::manual;
use crate::options::read::{Environment, Filled};
use crate::options::serve::Draft;
use crate::options::table::Group;
use crate::options::{Reach, Usage, Verb};
use crate::server::part::Part;
use crate::server::{Metric, Route};

/// Declares the parts. Each is a module with a `MANIFEST`, a type `Draft` that collects the values
/// of its flags, and a function `settle` that makes its [`Plan`] from them.
macro_rules! parts {
    ($($(#[$built:meta])* $name:ident,)*) => {
        $($(#[$built])* pub mod $name;)*

        #[derive(Default)]
        pub(crate) struct Drafts {
            $($(#[$built])* pub(crate) $name: $name::Draft,)*
        }

        const MANIFESTS: &[Manifest] = &[$($(#[$built])* $name::MANIFEST,)*];

        /// The parts' flags of `wspulse serve`.
        pub(crate) const FLAGS: &[&[Group<Draft>]] = &[$($(#[$built])* $name::MANIFEST.flags,)*];

        /// Makes the plans of the parts from the flags of `wspulse serve`.
        #[allow(unused_variables, clippy::unnecessary_wraps, reason = "a build may have no parts")]
        pub(crate) fn settle(filled: &mut Filled<Draft>, env: &Environment) -> Result<(), Usage> {
            $($(#[$built])* $name::settle(filled, env)?;)*
            Ok(())
        }
    };
}

parts! {
    #[cfg(feature = "informer")] informer,
    #[cfg(feature = "gateway")] gateway,
    #[cfg(feature = "gateway")] backend,
}

/// What a part adds to the program, whether or not it is used.
pub(crate) struct Manifest {
    pub(crate) behaviour: Option<&'static Entry>,
    pub(crate) mounts: &'static [&'static str],
    pub(crate) routes: &'static [Route],
    pub(crate) metrics: &'static [Metric],
    /// Flags of `wspulse serve`.
    #[allow(dead_code, reason = "read by the code that `parts!` generates, if there are parts")]
    pub(crate) flags: &'static [Group<Draft>],
    pub(crate) command: Option<Command>,
}

pub(crate) struct Command {
    pub(crate) verb: Verb,
    pub(crate) page: &'static Page,
    /// The marker and the table of its flags in docs/REFERENCE.md.
    pub(crate) rows: fn() -> (&'static str, String),
    /// Its flags, for the manual page.
    pub(crate) entries: fn() -> Vec<manual::Entry>,
}

/// Draws an unguessable id; the argument counts the ids. `None`: the kernel has no randomness.
pub type DrawId = fn(u64) -> Option<[u8; 16]>;

/// The configuration of a part.
pub trait Plan {
    /// Builds the part. The seed is for jitter.
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part>;

    /// Files to read before [`Plan::resolve`].
    fn paths(&self) -> Vec<String> {
        Vec::new()
    }

    /// Completes the configuration with the files that could be read.
    ///
    /// # Errors
    /// Why the configuration cannot be used.
    fn resolve(&mut self, _files: &[File], _reach: Reach) -> Result<(), String> {
        Ok(())
    }

    /// Checks settings that are in files, for `--check`. It may run on another machine than the
    /// server, so missing secrets and surroundings are no errors.
    ///
    /// # Errors
    /// Why the configuration cannot be used.
    fn check(&mut self, _files: &[File], _reach: Reach) -> Result<(), String> {
        Ok(())
    }

    /// Checks that the part may be exposed on an admin listener that other machines can reach.
    ///
    /// # Errors
    /// What has to be configured first.
    fn check_admin(&self, _address: &str) -> Result<(), String> {
        Ok(())
    }

    /// Its own listener, if any: the flag and the address. Its connections are passed to
    /// [`Connections::accepted`](crate::server::part::Connections::accepted).
    fn listener(&self) -> Option<(&'static str, Listen)> {
        None
    }

    /// The listeners are bound. The arguments are the addresses of its own and of the admin one.
    ///
    /// # Errors
    /// Why these addresses cannot be used.
    fn bound(&mut self, _own: Option<&str>, _admin: Option<&str>) -> Result<(), String> {
        Ok(())
    }

    /// Sets the source of ids. The default counts them, for tests.
    fn draw_from(&mut self, _draw: DrawId) {}

    /// Maximum file descriptors of its outgoing and incoming connections.
    fn descriptors(&self) -> usize {
        0
    }

    /// How many it gets.
    fn granted(&mut self, _descriptors: usize) {}
}

/// The authorities in a CA file that was read at start.
///
/// # Errors
/// The file is missing or has no certificate; `flag` names it.
#[allow(dead_code, reason = "a build may have no parts")]
pub(crate) fn authorities(files: &[File], path: &str, flag: &str) -> Result<Trust, String> {
    let file = files.iter().find(|file| file.name == path);
    let file = file.ok_or_else(|| format!("{flag}: cannot read {path}"))?;
    let is_certificate = |line: &[u8]| line.trim_ascii() == b"-----BEGIN CERTIFICATE-----";
    if file.bytes.split(|byte| *byte == b'\n').any(is_certificate) {
        Ok(Trust::pem(&file.bytes))
    } else {
        Err(format!("{flag}: {path} has no certificate in PEM"))
    }
}

/// Does not show the configuration, which has paths of secrets.
impl core::fmt::Debug for dyn Plan {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Plan")
    }
}

/// Builds the parts. The seed is for jitter.
#[must_use]
pub fn build(plans: Vec<Box<dyn Plan>>, seed: u64) -> Vec<Box<dyn Part>> {
    plans.into_iter().map(|plan| plan.build(seed)).collect()
}

/// All behaviours of this build, and the default mounts.
#[must_use]
pub fn catalogue() -> Catalogue {
    let mut all = behaviours::catalogue();
    for part in MANIFESTS {
        all.entries.extend(part.behaviour);
        all.mounts.extend(part.mounts);
    }
    all
}

/// The parts' routes, for the documentation.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    MANIFESTS.iter().flat_map(|part| part.routes)
}

/// The parts' metrics, for the documentation.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    MANIFESTS.iter().flat_map(|part| part.metrics)
}

pub(crate) fn commands() -> impl Iterator<Item = &'static Command> {
    MANIFESTS.iter().filter_map(|part| part.command.as_ref())
}
