//! A build without the gateway: no connection is its, and no upgrade waits.

#![expect(clippy::unused_self, reason = "the real one has something to look at")]

use super::Server;
use super::config::Config;
use super::metrics::Histogram;
use super::shared::Cx;
use super::websocket::WebSocket;
use crate::engine::{Id, Now};
use crate::proto::response::Response;

#[derive(Debug)]
pub(super) struct Front {
    pub(super) took: Histogram,
}

impl Front {
    pub(super) fn new() -> Self {
        Self { took: Histogram::latency() }
    }

    pub(super) fn memory(&self) -> usize {
        0
    }

    pub(super) fn is_busy(&self) -> bool {
        false
    }

    pub(super) fn numbers(&self) -> Option<(usize, usize)> {
        None
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = (&str, &'static str, u64)> {
        std::iter::empty()
    }

    pub(super) fn dropped(&self) -> u64 {
        0
    }

    pub(super) fn left(&mut self, _: Now, _: Id, _: u16, _: bool) {}

    pub(super) fn gone(&mut self, _: Id) {}

    pub(super) fn cost_of(&self, _: Id) -> usize {
        0
    }

    pub(super) fn has_verdict(&self, _: Id) -> bool {
        true
    }
}

pub(super) fn shown(_: &Config) -> Option<()> {
    None
}

pub(super) fn conclude(_: &mut Cx<'_>) -> Result<WebSocket, Response<'static>> {
    Err(Response::text(502, "this build has no gateway\n"))
}

impl Server {
    pub(super) fn tend_gateway(&mut self, _: Now) {}
}
