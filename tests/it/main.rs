//! All tests that need more than one file of the library, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that finds something missing has failed")]
#![expect(clippy::disallowed_types, reason = "streams and the test share the simulated network")]

mod accept;
mod api_server;
mod backend;
mod compression;
mod corpus;
#[cfg(feature = "gateway")]
mod delivery;
mod fast_path;
mod fault_sweep;
#[cfg(feature = "gateway")]
mod fleet;
#[cfg(feature = "gateway")]
mod gateway;
mod harness;
mod hostile;
#[cfg(feature = "informer")]
mod kube;
mod os;
mod peer;
#[cfg(feature = "tools")]
mod probe;
mod process;
mod scenarios;
mod sim;
mod stages;
mod stalls;
mod tidy;
#[cfg(feature = "tools")]
mod tools;
mod unique_keys;
mod watched;
