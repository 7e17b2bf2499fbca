//! Operation: draining, memory pressure, metrics, and the admin endpoints.

pub(in crate::server) mod admin;
pub(in crate::server) mod drain;
pub(in crate::server) mod metrics;
pub(in crate::server) mod pressure;
pub(in crate::server) mod stats;
