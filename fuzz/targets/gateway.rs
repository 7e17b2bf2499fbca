//! The gateway between clients and backends.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wspulse_fuzz::properties::gateway(data));
