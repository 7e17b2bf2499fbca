//! An accepted upgrade before its 101 is sent: immediately, or when a part has decided.

use crate::behaviours::Behaviour;
use crate::engine::Id;
use crate::heap;
use crate::proto::deflate::Agreed;
use crate::server::websocket::extras::Extras;

/// Everything needed to open the WebSocket.
#[derive(Debug)]
pub(in crate::server) struct Pending {
    pub(in crate::server) accept: String,
    /// The client's subprotocols, separated by commas.
    pub(in crate::server) offered: Box<str>,
    pub(in crate::server) deflate: Option<(String, Agreed)>,
    pub(in crate::server) behaviour: Box<dyn Behaviour>,
    pub(in crate::server) extras: Option<Box<Extras>>,
    pub(in crate::server) mount: u16,
}

impl Pending {
    pub(in crate::server) fn offers(&self, subprotocol: &str) -> bool {
        self.offered.split(',').any(|offered| offered == subprotocol)
    }

    /// Memory owned, including its entry in the table.
    pub(in crate::server) fn cost(&self) -> usize {
        let answer = self.deflate.as_ref().map_or(0, |(answer, _)| answer.capacity());
        heap::tree_entry::<(Id, Self)>()
            + heap::cost(self.accept.capacity())
            + heap::cost(self.offered.len())
            + heap::cost(answer)
            + heap::cost(size_of_val(&*self.behaviour))
            + self.extras.as_ref().map_or(0, |extras| extras.cost(0))
    }
}
