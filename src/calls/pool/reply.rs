//! A complete HTTP response.

use crate::heap;
use crate::proto::http_client::Head;

/// The header fields that callers read; the others are dropped.
const FIELDS: [&str; 3] = ["content-type", "sec-websocket-protocol", "x-amzn-errortype"];

/// A complete response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// The body, bounded by the limits of the call.
    pub body: Vec<u8>,
    fields: Vec<(&'static str, Vec<u8>)>,
}

impl Reply {
    /// A response without header fields.
    #[must_use]
    pub fn new(status: u16, body: &[u8]) -> Self {
        Self { status, body: body.to_vec(), fields: Vec::new() }
    }

    /// The value of one of the kept fields, if it occurs exactly once.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.fields.iter().filter(|(known, _)| *known == name);
        let (_, value) = found.next()?;
        found.next().is_none().then_some(value)
    }

    /// Heap memory in bytes.
    #[must_use]
    pub fn cost(&self) -> usize {
        let fields = self.fields.iter().map(|(_, value)| heap::cost(value.capacity()));
        heap::cost(self.body.capacity())
            + heap::table::<(&str, Vec<u8>)>(self.fields.capacity())
            + fields.sum::<usize>()
    }

    /// Copies status and fields.
    pub fn take_head(&mut self, head: &Head<'_>) {
        self.status = head.status();
        self.fields = head.fields().filter_map(kept).collect();
    }
}

fn kept((name, value): (&str, &[u8])) -> Option<(&'static str, Vec<u8>)> {
    let name = FIELDS.iter().find(|known| known.eq_ignore_ascii_case(name))?;
    Some((*name, value.to_vec()))
}
