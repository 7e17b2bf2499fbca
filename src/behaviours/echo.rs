//! Echoes every message.

use super::{Answer, Behaviour, Ctx, Kind};

/// Zero-sized, so that boxing it allocates nothing.
#[derive(Debug)]
pub(super) struct Echo;

impl Behaviour for Echo {
    fn on_message(&mut self, _kind: Kind, _payload: &[u8], _ctx: &mut Ctx<'_>) -> Answer {
        Answer::Same
    }

    fn only_echoes(&self) -> bool {
        true
    }
}
