//! GGUF files: metadata and tensors.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| drop(bitnet_fuzz::gguf(input)));
