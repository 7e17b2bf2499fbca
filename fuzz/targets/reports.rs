//! Reports of load generators.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wspulse_fuzz::properties::reports(data));
