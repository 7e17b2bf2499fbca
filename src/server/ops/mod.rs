//! Operation: how the server drains, what it does when memory is short, what it counts and shows,
//! and what an operator may ask for.

pub(in crate::server) mod admin;
pub(in crate::server) mod drain;
pub(in crate::server) mod metrics;
pub(in crate::server) mod pressure;
pub(in crate::server) mod stats;
