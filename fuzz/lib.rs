//! The library of the fuzz targets: the properties, and the simulated system of the tests.
//! `properties/` does not depend on libfuzzer; `cargo test` replays the corpora through it.

pub mod properties;

#[allow(dead_code, reason = "the tests use more of the simulated system than the properties do")]
#[path = "../tests/it/compression.rs"]
mod compression;
#[allow(dead_code, reason = "the tests use more of the simulated system than the properties do")]
#[path = "../tests/it/harness.rs"]
mod harness;
#[allow(
    dead_code,
    unused_imports,
    reason = "the tests use more of the simulated system than the properties do"
)]
#[path = "../tests/it/os/mod.rs"]
mod os;
#[allow(dead_code, reason = "the tests use more of the simulated system than the properties do")]
#[path = "../tests/it/watched.rs"]
mod watched;
