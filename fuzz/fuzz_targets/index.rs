//! The list of the files that weights were split into.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(bitnet_fuzz::index(input)));
