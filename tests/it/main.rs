//! All tests that need more than one file of the library, in one binary.

#![expect(clippy::unwrap_used, reason = "a test that finds something missing has failed")]
#![expect(clippy::disallowed_types, reason = "streams and the test share the simulated network")]

mod house;
mod peer;
mod scenarios;
mod sim;
mod world;
