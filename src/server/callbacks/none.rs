//! A build without the gateway: there is nobody to be called back.

use super::routes::{self, Reply, Taken, View};
use super::shared::Cx;
use crate::proto::http::Request;

pub(super) fn callback(_: &Request<'_, '_>, _: Taken<'_>, cx: &mut Cx<'_>) -> Reply {
    Reply::Now(routes::not_found(View::of(cx)))
}
