//! Operation: draining, memory pressure, metrics, and the admin endpoints.

pub(crate) mod admin;
pub(crate) mod drain;
pub(crate) mod metrics;
pub(crate) mod pressure;
pub(crate) mod stats;
