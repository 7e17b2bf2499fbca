//! A build without the sample backend: nobody asks for it.

#![expect(clippy::unused_self, reason = "the real one has something to look at")]

use super::Server;
use super::config::Config;
use super::routes::{Reply, Taken};
use super::shared::Cx;
use super::stats::Row;
use crate::engine::{File, Now};
use crate::proto::http::Request;
use crate::proto::response::Response;

#[derive(Debug)]
pub(super) struct Rest;

impl Rest {
    pub(super) fn new(_: &Config, _: u64) -> Self {
        Self
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        None
    }

    pub(super) fn memory(&self) -> usize {
        0
    }

    pub(super) fn is_degraded(&self) -> bool {
        false
    }

    pub(super) fn fetched(&mut self, _: Now, _: &[String], _: &[File]) {}

    pub(super) fn reload(&mut self) {}

    pub(super) fn each(&self, _: &str, _: Row<'_>) {}

    pub(super) fn summary(&self, _: Now) -> Option<()> {
        None
    }
}

pub(super) fn root(_: &Request<'_, '_>, _: Taken<'_>, _: &mut Cx<'_>) -> Reply {
    Reply::Now(Response::text(404, "this build has no backend\n"))
}

pub(super) fn connect(request: &Request<'_, '_>, body: Taken<'_>, cx: &mut Cx<'_>) -> Reply {
    root(request, body, cx)
}

impl Server {
    pub(super) fn fire_backend(&mut self, _: Now) {}

    pub(super) fn tend_backend(&mut self, _: Now) {}
}
