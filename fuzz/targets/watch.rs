//! Answers of an API server.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wspulse_fuzz::properties::watch(data));
