//! The parts that this build has: the only place that knows all of them. A part is a folder here
//! and one row in each function; without its feature both are not compiled, and nothing else
//! changes.

#[cfg(feature = "gateway")]
pub mod backend;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "informer")]
pub mod informer;

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

/// What each part was told by flags and files; a part that is not told anything is not there.
#[derive(Clone, Debug, Default)]
pub struct Plans {
    /// Whose Deployments are shown.
    #[cfg(feature = "informer")]
    pub informer: Option<informer::flags::Setup>,
    /// Where messages of the gateway go.
    #[cfg(feature = "gateway")]
    pub gateway: Option<Box<gateway::Plan>>,
    /// What `wspulse backend` does.
    #[cfg(feature = "gateway")]
    pub backend: Option<Box<backend::Plan>>,
}

impl Plans {
    /// The parts that a server is given. The seed is for jitter.
    #[must_use]
    pub fn build(self, seed: u64) -> Vec<Box<dyn Part>> {
        let parts: Vec<Option<Box<dyn Part>>> = vec![
            #[cfg(feature = "informer")]
            self.informer.map(|setup| informer::part::new(setup.kube, seed)),
            #[cfg(feature = "gateway")]
            self.gateway.map(|plan| gateway::part::new(*plan, seed)),
            #[cfg(feature = "gateway")]
            self.backend.map(|plan| backend::part::new(*plan, seed)),
        ];
        // A build without parts has no use for it.
        let _ = seed;
        parts.into_iter().flatten().collect()
    }

    /// Files that have to be read before it can be said what parts do.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let paths: Vec<Option<Vec<String>>> = vec![
            #[cfg(feature = "informer")]
            self.informer.as_ref().map(informer::flags::Setup::paths),
        ];
        paths.into_iter().flatten().flatten().collect()
    }

    /// Takes into account what those files say, as far as they are there.
    ///
    /// # Errors
    /// Why what was asked for cannot be had.
    pub fn resolve(&mut self, files: Vec<File>, reach: Reach) -> Result<(), String> {
        #[cfg(feature = "informer")]
        if let Some(setup) = &mut self.informer {
            return setup.resolve(files, reach);
        }
        let _ = (files, reach);
        Ok(())
    }

    /// Whether parts may be reached at this address of the admin listener, from other machines.
    ///
    /// # Errors
    /// Why not.
    pub fn check_admin(&self, address: &str) -> Result<(), String> {
        #[cfg(feature = "gateway")]
        if let Some(plan) = &self.gateway {
            return plan.check_callers(address);
        }
        let _ = address;
        Ok(())
    }

    /// Takes ids that cannot be guessed from here. Without it they are counted, for tests.
    pub fn draw_from(&mut self, draw: fn(u64) -> Option<[u8; 16]>) {
        #[cfg(feature = "gateway")]
        if let Some(plan) = &mut self.gateway {
            plan.draw = draw;
        }
        let _ = draw;
    }

    /// Descriptors that connections of parts may need, and those that they are reached by.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        #[cfg(feature = "gateway")]
        if self.gateway.is_some() {
            return crate::limits::OWN_CONNECTIONS + crate::limits::CALLBACK_CONNECTIONS;
        }
        0
    }
}

/// What flags are written into, before they are looked at together.
#[derive(Clone, Default)]
pub(crate) struct Drafts {
    #[cfg(feature = "informer")]
    pub(crate) informer: informer::flags::KubeWish,
    #[cfg(feature = "gateway")]
    pub(crate) gateway: gateway::flags::Wish,
    #[cfg(feature = "gateway")]
    pub(crate) backend: backend::flags::Wish,
}

/// The flags of `wspulse serve` that parts bring.
pub(crate) const FLAGS: &[Group<Draft>] = &[
    #[cfg(feature = "informer")]
    informer::flags::MAIN,
    #[cfg(feature = "informer")]
    informer::flags::MORE,
    #[cfg(feature = "gateway")]
    gateway::flags::MAIN,
    #[cfg(feature = "gateway")]
    gateway::flags::MORE,
];

/// What follows from the flags of parts, for `wspulse serve`.
#[allow(clippy::unnecessary_wraps, reason = "a build may have no part that can refuse")]
pub(crate) fn settle(filled: &mut Filled<Draft>, env: &Environment) -> Result<(), Usage> {
    #[cfg(feature = "informer")]
    informer::flags::settle(&mut filled.draft, env);
    #[cfg(feature = "gateway")]
    gateway::flags::settle(filled)?;
    let _ = (filled, env);
    Ok(())
}

/// A command that a part brings.
pub(crate) struct Command {
    pub(crate) verb: Verb,
    pub(crate) rows: fn() -> (&'static str, String),
    pub(crate) chapter: fn() -> (&'static str, &'static Page, Vec<manual::Entry>),
}

/// The commands that parts bring.
pub(crate) const COMMANDS: &[Command] = &[
    #[cfg(feature = "gateway")]
    backend::command::COMMAND,
];

/// What a part brings that is known without having one.
struct Brought {
    behaviour: Option<(&'static Entry, &'static [&'static str])>,
    routes: &'static [Route],
    metrics: &'static [Metric],
}

const BROUGHT: &[Brought] = &[
    #[cfg(feature = "informer")]
    Brought {
        behaviour: Some((&informer::part::BEHAVIOUR, informer::part::MOUNTS)),
        routes: &[],
        metrics: informer::part::METRICS,
    },
    #[cfg(feature = "gateway")]
    Brought {
        behaviour: Some((&gateway::part::BEHAVIOUR, &[])),
        routes: gateway::part::ROUTES,
        metrics: gateway::part::METRICS,
    },
    #[cfg(feature = "gateway")]
    Brought { behaviour: None, routes: backend::part::ROUTES, metrics: backend::part::METRICS },
];

/// All behaviours of this build, and their mounts.
#[must_use]
pub fn catalogue() -> Catalogue {
    let mut all = behaviours::catalogue();
    for (entry, mounts) in BROUGHT.iter().filter_map(|brought| brought.behaviour) {
        all.entries.push(entry);
        all.mounts.extend(mounts);
    }
    all
}

/// The paths that parts bring, for documents.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    BROUGHT.iter().flat_map(|brought| brought.routes)
}

/// The metrics that parts bring, for documents.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    BROUGHT.iter().flat_map(|brought| brought.metrics)
}
