//! Key files, ids and peer connections of several gateways.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wspulse_fuzz::properties::peers(data));
