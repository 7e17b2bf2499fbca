//! Answers of AWS' services, and files with credentials.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wspulse_fuzz::properties::aws(data));
