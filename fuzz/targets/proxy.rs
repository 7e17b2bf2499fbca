//! Headers of the PROXY protocol.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wspulse_fuzz::properties::proxy(data));
