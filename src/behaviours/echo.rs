//! Every message back as it came.

use super::{Answer, Behaviour, Ctx, Kind};

/// It remembers nothing, so it costs a connection no memory.
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
