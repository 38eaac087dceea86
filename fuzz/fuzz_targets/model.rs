//! GGUF files as models: what loads also runs.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(bitnet_fuzz::model(input)));
