//! A build without requests of its own: nobody in it asks anybody anything.

#![expect(clippy::unused_self, reason = "the real one has something to look at")]

use super::Server;
use crate::engine::{HangUp, Id, Now};

#[derive(Debug)]
pub(super) struct Calls;

impl Calls {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn memory(&self) -> usize {
        0
    }

    pub(super) fn table_memory(&self) -> usize {
        0
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        None
    }

    pub(super) fn connected(&mut self, _: Id, _: Result<(), HangUp>) {}

    pub(super) fn render(&mut self, _: Id, _: &mut Vec<u8>) {}

    pub(super) fn kept(&mut self, _: Id, _: usize) {}

    pub(super) fn sent(&mut self, _: Id) {}

    pub(super) fn received(&mut self, _: Now, _: Id, _: &[u8]) {}

    pub(super) fn ended(&mut self, _: Id, _: HangUp) {}

    pub(super) fn closed(&mut self, _: Id) {}
}

impl Server {
    pub(super) fn tend_calls(&mut self, _: Now) -> bool {
        false
    }

    pub(super) fn fire_calls(&mut self, _: Now) {}
}
