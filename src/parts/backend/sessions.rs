//! Sessions, in memory or in a table that several backends share.

mod memory;
mod table;

use crate::aws::endpoint::Endpoint;
pub use memory::{Memory, SESSIONS_MAX};
pub(super) use table::{Event, Table};

/// How long a session is kept after its last message: the lifetime of a connection in AWS.
pub const KEEP_MS: u64 = 2 * 60 * 60 * 1000;

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionStorage {
    /// In this process.
    Memory,
    /// In a `DynamoDB` table.
    Table(TableConfig),
}

/// The configuration of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableConfig {
    /// Table name.
    pub name: String,
    /// The service.
    pub endpoint: Endpoint,
    /// Region for signatures.
    pub region: String,
    /// Whether to create the table if it does not exist.
    pub create: bool,
}
