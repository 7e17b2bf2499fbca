//! Composition: builds an engine from the options of a command, an operating system for it, and a
//! driver. It reads files and binds sockets before the loop starts, and is the only place that
//! knows options, engines and `net`. `serve` is the server, `clients` are the other commands.

mod borrowed;
mod clients;
mod serve;

pub use clients::{
    Probed, SignalMode, ToolError, connect, drive, healthcheck, load, measure, merge, probe,
};
pub use serve::{StartError, check, serve, start_logs};

use crate::net::clock;

/// The seed of an engine's jitter; ids and masks come from the kernel directly.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // A kernel without entropy: the clock spreads jitter well enough.
        Err(_) => clock::now().wall_ms.unsigned_abs(),
    }
}
