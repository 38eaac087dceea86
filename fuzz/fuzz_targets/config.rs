//! The settings of a Hugging Face folder.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(bitnet_fuzz::config(input)));
