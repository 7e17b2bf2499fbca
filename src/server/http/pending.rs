//! An accepted upgrade before its 101 is sent: immediately, or when a part has decided.

use crate::behaviours::Behaviour;
use crate::engine::Id;
use crate::heap;
use crate::proto::deflate::Agreed;
use crate::proto::handshake::Accept;
use crate::server::websocket::extras::Extras;

/// Everything needed to open the WebSocket.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) accept: Accept,
    /// The client's subprotocols, separated by commas.
    pub(crate) offered: Box<str>,
    pub(crate) deflate: Option<(String, Agreed)>,
    pub(crate) behaviour: Box<dyn Behaviour>,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) mount: u16,
}

impl Pending {
    pub(crate) fn offers(&self, subprotocol: &str) -> bool {
        // Without an offer, an empty name would be one of the list.
        !subprotocol.is_empty() && self.offered.split(',').any(|offered| offered == subprotocol)
    }

    /// Memory owned, including its entry in the table.
    pub(crate) fn cost(&self) -> usize {
        let answer = self.deflate.as_ref().map_or(0, |(answer, _)| answer.capacity());
        heap::tree_entry::<(Id, Self)>()
            + heap::cost(self.offered.len())
            + heap::cost(answer)
            + heap::cost(size_of_val(&*self.behaviour))
            + self.extras.as_ref().map_or(0, |extras| extras.cost(0))
    }
}
