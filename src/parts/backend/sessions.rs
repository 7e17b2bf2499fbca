//! Who has been heard of: here in memory, or in a table that several backends share.

mod memory;
mod table;

use crate::aws::endpoint::Endpoint;
pub use memory::{Memory, SESSIONS_MAX};
pub(super) use table::{Event, Table};

/// A session is kept so long after its last message: a connection to AWS' gateway lives two hours.
pub const KEEP_MS: u64 = 2 * 60 * 60 * 1000;

/// Where they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this process, for as long as it lives.
    Memory,
    /// In a table.
    Table(Wanted),
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// In which region.
    pub region: String,
    /// Make it if it is not there.
    pub create: bool,
}
