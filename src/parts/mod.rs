//! The parts that this build has, and what is known of a part before it is there. This is the only
//! file that knows all of them: a part is a folder and one line of `parts!`. Where that line is
//! missing, nothing else changes.

use crate::behaviours::{self, Catalogue, Entry};
use crate::engine::File;
use crate::options::help::Page;
use crate::options::manual;
use crate::options::read::{Environment, Filled};
use crate::options::serve::Draft;
use crate::options::table::Group;
use crate::options::{Reach, Usage, Verb};
use crate::server::part::Part;
use crate::server::{Metric, Route};

/// Declares the parts. Each is a module with `BRINGS`, a type `Draft` that its flags are written
/// into, and a function `settle` that makes its [`Plan`] of them.
macro_rules! parts {
    ($($(#[$built:meta])* $name:ident,)*) => {
        $($(#[$built])* pub mod $name;)*

        /// What the flags of parts are written into.
        #[derive(Default)]
        pub(crate) struct Drafts {
            $($(#[$built])* pub(crate) $name: $name::Draft,)*
        }

        const BROUGHT: &[Brings] = &[$($(#[$built])* $name::BRINGS,)*];

        /// The flags of `wspulse serve` that parts bring.
        pub(crate) const FLAGS: &[&[Group<Draft>]] = &[$($(#[$built])* $name::BRINGS.flags,)*];

        /// What follows from the flags of parts, for `wspulse serve`.
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

/// What a part brings, whether it is used or not.
pub(crate) struct Brings {
    pub(crate) behaviour: Option<&'static Entry>,
    /// The default mounts of the behaviour.
    pub(crate) mounts: &'static [&'static str],
    pub(crate) routes: &'static [Route],
    pub(crate) metrics: &'static [Metric],
    /// Flags of `wspulse serve`.
    #[allow(dead_code, reason = "read by what `parts!` makes, where there are parts")]
    pub(crate) flags: &'static [Group<Draft>],
    pub(crate) command: Option<Command>,
}

/// A command that a part brings.
pub(crate) struct Command {
    pub(crate) verb: Verb,
    pub(crate) rows: fn() -> (&'static str, String),
    pub(crate) chapter: fn() -> (&'static str, &'static Page, Vec<manual::Entry>),
}

/// A source of ids.
pub type Draw = fn(u64) -> Option<[u8; 16]>;

/// What a part is told at start.
pub trait Plan {
    /// The part. The seed is for jitter.
    fn build(self: Box<Self>, seed: u64) -> Box<dyn Part>;

    /// Files that have to be read before it can be said what it does.
    fn paths(&self) -> Vec<String> {
        Vec::new()
    }

    /// Takes into account what those files say, as far as they are there.
    ///
    /// # Errors
    /// Why what was asked for cannot be had.
    fn resolve(&mut self, _files: &[File], _reach: Reach) -> Result<(), String> {
        Ok(())
    }

    /// Whether other machines may reach it at this address of the admin listener.
    ///
    /// # Errors
    /// Why not.
    fn check_admin(&self, _address: &str) -> Result<(), String> {
        Ok(())
    }

    /// Takes ids from here that cannot be guessed. Without it they are counted, for tests.
    fn draw_from(&mut self, _draw: Draw) {}

    /// Descriptors that it may need: for connections that it opens, and for those that reach it.
    fn descriptors(&self) -> usize {
        0
    }
}

/// Paths of secrets are not shown.
impl core::fmt::Debug for dyn Plan {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Plan")
    }
}

/// Makes the parts that a server is given. The seed is for jitter.
#[must_use]
pub fn build(plans: Vec<Box<dyn Plan>>, seed: u64) -> Vec<Box<dyn Part>> {
    plans.into_iter().map(|plan| plan.build(seed)).collect()
}

/// All behaviours of this build, and their mounts.
#[must_use]
pub fn catalogue() -> Catalogue {
    let mut all = behaviours::catalogue();
    for part in BROUGHT {
        all.entries.extend(part.behaviour);
        all.mounts.extend(part.mounts);
    }
    all
}

/// The paths that parts bring, for documents.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    BROUGHT.iter().flat_map(|part| part.routes)
}

/// The metrics that parts bring, for documents.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    BROUGHT.iter().flat_map(|part| part.metrics)
}

/// The commands that parts bring.
pub(crate) fn commands() -> impl Iterator<Item = &'static Command> {
    BROUGHT.iter().filter_map(|part| part.command.as_ref())
}
