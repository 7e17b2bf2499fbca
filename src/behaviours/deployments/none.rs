//! A build without the informer has nothing to tell of a cluster, and says so.

use super::{Answer, Behaviour, Ctx, Kind, NO_CLIENT, Params};

#[derive(Debug)]
pub(super) struct Deployments;

impl Deployments {
    pub(super) fn new(_: &Params) -> Self {
        Self
    }
}

impl Behaviour for Deployments {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) {
        ctx.send(Kind::Text, NO_CLIENT.as_bytes());
        *ctx.farewell = Some((1011, "this build has no informer".to_owned()));
    }

    fn on_message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Nothing
    }
}
