//! Libraries of C++ engines: what a library has, and what it is reported to have. The seeds are files that the tests of
//! `bitnet-ffi` make, and replay.
#![no_main]

use std::path::Path;

use bitnet_ffi::{detect_kernel_backends, symbols};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Ok(found) = symbols::analyze(Path::new("libllama.so"), input) {
        let shown = found.report(1);
        assert!(shown.starts_with("Library: libllama.so\n"), "{shown}");
        assert!(detect_kernel_backends(&found).len() <= found.evidence().len());
    }
});
