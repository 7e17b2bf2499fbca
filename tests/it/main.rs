//! All tests that need more than one file of the library, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that finds something missing has failed")]
#![expect(clippy::disallowed_types, reason = "streams and the test share the simulated network")]

mod backend;
mod cluster;
mod corpus;
mod doors;
mod echoes;
#[cfg(feature = "gateway")]
mod gateway;
mod hostile;
mod house;
#[cfg(feature = "informer")]
mod kube;
mod once;
mod os;
mod peer;
mod process;
mod scenarios;
mod sim;
mod squeeze;
mod stages;
mod standstill;
mod sweep;
mod tidy;
#[cfg(feature = "tools")]
mod tools;
#[cfg(feature = "gateway")]
mod traceable;
mod watched;
