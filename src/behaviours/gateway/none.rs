//! A build without the gateway has nobody to hand messages to, and says so.

use super::{Answer, Behaviour, Close, Ctx, Kind};

#[derive(Debug)]
pub(super) struct Gateway;

impl Gateway {
    pub(super) fn new() -> Self {
        Self
    }
}

impl Behaviour for Gateway {
    fn on_open(&mut self, _ctx: &mut Ctx<'_>) -> Option<Close> {
        Some(Close { code: 1011, reason: "this build has no gateway".to_owned() })
    }

    fn on_message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Nothing
    }
}
