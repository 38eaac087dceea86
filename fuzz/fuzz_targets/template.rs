//! Chat templates.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(bitnet_fuzz::template(input)));
