//! A build without the informer: there is nothing to be watched, and no connection of our own.

#![expect(clippy::unused_self, reason = "the real one has something to look at")]

use super::Server;
use super::config::Kube;
use crate::engine::{File, HangUp, Id, Now};

/// Counts of what does not happen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    pub(super) relists: u64,
    pub(super) watch_errors: u64,
}

#[derive(Debug)]
pub(super) struct Upstream;

impl Upstream {
    pub(super) fn new(_: &Kube, _: u64) -> Self {
        Self
    }

    pub(super) fn figures(&self) -> Figures {
        Figures::default()
    }

    pub(super) fn is_synced(&self) -> bool {
        false
    }

    pub(super) fn memory(&self) -> usize {
        0
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        None
    }

    pub(super) fn connected(&mut self, _: Now, _: Id, _: Result<(), HangUp>, _: &mut Vec<u8>) {}

    pub(super) fn received(&mut self, _: Now, _: Id, _: &[u8], _: &mut Vec<u8>) {}

    pub(super) fn ended(&mut self, _: Now, _: Id, _: HangUp) {}

    pub(super) fn closed(&mut self, _: Now, _: Id) {}

    pub(super) fn fetched(&mut self, _: Now, _: &[File]) {}

    pub(super) fn reload(&mut self, _: Now) {}
}

impl Server {
    pub(super) fn tend_upstream(&mut self, _: Now) {}

    pub(super) fn fire_upstream(&mut self, _: Now) {}
}
