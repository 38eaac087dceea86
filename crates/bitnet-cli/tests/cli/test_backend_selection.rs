//! The brief's tests of what a build can compute with, under its names, on the program itself.

use std::fs;

use assert_cmd::Command;
use bitnet_ffi::analyze_library;
use serde_json::{Value, json};

use crate::{bitnet, program};

fn doctor(command: &mut Command) -> Value {
    serde_json::from_slice(&command.args(["doctor", "--json"]).unwrap().stdout).unwrap()
}

/// No build takes anything of CUDA, of C++ or of its engines from the system when it starts, and the default build
/// names no such library to open either.
#[test]
fn test_cpu_feature_no_cuda_linking() {
    let found = analyze_library(&program()).unwrap();
    assert!(found.imported.contains("memcpy"), "the imports are read: {:?}", found.imported);
    let foreign = ["stdc++", "libc++", "cuda", "cublas", "llama", "ggml", "bitnet"];
    for library in &found.needed {
        assert!(!foreign.iter().any(|name| library.contains(name)), "{library}");
    }
    for symbol in &found.imported {
        // Names of C++ are mangled so, but for those of its exceptions.
        let cpp = ["_ZN", "_ZS", "_Znw", "_Zna", "_Zdl", "_Zda", "__cxa_throw", "__gxx_"];
        let engine = ["llama_", "ggml_", "gguf_", "bitnet_", "quantize_", "dequantize_"];
        let is = cpp.iter().chain(&engine).any(|begin| symbol.starts_with(begin));
        assert!(!is, "{symbol}");
    }
    assert!(found.cuda_symbols.is_empty(), "{:?}", found.cuda_symbols);
    if cfg!(any(feature = "ffi", feature = "cuda")) {
        return;
    }
    let program = fs::read(program()).unwrap();
    let has = |name: &str| program.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(has("bitnet"), "the program is searched");
    for name in
        ["libcuda", "cudart", "nvcuda", "cuInit", "libllama.so", "libggml.so", "llama_decode"]
    {
        assert!(!has(name), "{name}");
    }
}

/// A GPU needs a build with kernels for it; one that has none says so. Here is no driver in any case.
#[test]
fn test_gpu_feature_requires_cuda() {
    let output = bitnet().args(["run", "hello", "--device", "gpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = match cfg!(feature = "cuda") {
        true => "cuda:0 is not available: no NVIDIA driver",
        false => "cuda:0 is not available: not compiled with `gpu`",
    };
    assert!(said.contains(expected), "{said}");
    assert_eq!(doctor(&mut bitnet())["gpus"]["found"], json!([]));
}

/// A library is found where bitnet.cpp's build leaves it, by builds that could open it.
#[test]
fn test_ffi_library_discovery() {
    let folder = tempfile::tempdir().unwrap();
    let lib = folder.path().join("build/3rdparty/llama.cpp/src/libllama.so");
    fs::create_dir_all(lib.parent().unwrap()).unwrap();
    let found = |folder| {
        let report = doctor(bitnet().env("BITNET_CPP_DIR", folder));
        let found = report["libraries"]["found"].as_array();
        found.is_some_and(|found| found.iter().any(|library| library["path"] == json!(lib)))
    };
    assert!(!found(folder.path()));
    fs::write(&lib, "").unwrap();
    assert_eq!(found(folder.path()), cfg!(feature = "ffi"));
    let report = doctor(bitnet().env("BITNET_CPP_DIR", folder.path()));
    let reason = report["libraries"]["reason"].as_str().unwrap_or_default();
    if !cfg!(feature = "ffi") {
        assert!(reason.contains("build with --features ffi"), "{reason}");
        return;
    }
    assert!(reason.contains("the file is empty"), "{reason}");
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        let odd = folder.path().join(name);
        // Not every file system takes such names.
        if fs::create_dir(&odd).and_then(|()| fs::write(odd.join("libllama.so"), "")).is_ok() {
            let report = doctor(bitnet().env("BITNET_CPP_DIR", &odd));
            let found = report["libraries"]["found"][0]["path"].as_str().unwrap();
            assert!(found.ends_with("libllama.so"), "{found}");
        }
    }
}
