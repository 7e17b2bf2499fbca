//! A build without the informer has nothing to tell of a cluster, and says so.

use super::{Answer, Behaviour, Close, Ctx, Kind, NO_CLIENT, Params};

#[derive(Debug)]
pub(super) struct Deployments;

impl Deployments {
    pub(super) fn new(_: &Params) -> Self {
        Self
    }
}

impl Behaviour for Deployments {
    fn on_open(&mut self, ctx: &mut Ctx<'_>) -> Option<Close> {
        ctx.send(Kind::Text, NO_CLIENT.as_bytes());
        Some(Close { code: 1011, reason: "this build has no informer".to_owned() })
    }

    fn on_message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Nothing
    }
}
