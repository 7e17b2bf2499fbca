//! Answers to our own requests, cut anywhere.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| wspulse_fuzz::properties::answers(data));
