//! The brief's tests of what a build can compute with, under its names, on the program itself.

use std::fs;

use assert_cmd::Command;
use serde_json::{Value, json};

use crate::{bitnet, program};

fn doctor(command: &mut Command) -> Value {
    serde_json::from_slice(&command.args(["doctor", "--json"]).unwrap().stdout).unwrap()
}

/// The default build links nothing of CUDA, nor of the C++ engines, and names no such library to open.
#[test]
fn test_cpu_feature_no_cuda_linking() {
    let program = fs::read(program()).unwrap();
    let has = |name: &str| program.windows(name.len()).any(|window| window == name.as_bytes());
    assert!(has("bitnet"), "the program is searched");
    for name in
        ["libcuda", "cudart", "nvcuda", "cuInit", "libllama.so", "libggml.so", "llama_decode"]
    {
        assert!(!has(name), "{name}");
    }
}

/// A GPU needs a build with kernels for it; this one has none, and says so.
#[test]
fn test_gpu_feature_requires_cuda() {
    let output = bitnet().args(["run", "hello", "--device", "gpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("cuda:0 is not available: not compiled with `gpu`"), "{said}");
    assert_eq!(doctor(&mut bitnet())["gpus"]["found"], json!([]));
}

/// A library is found where bitnet.cpp's build leaves it.
#[test]
fn test_ffi_library_discovery() {
    let folder = tempfile::tempdir().unwrap();
    let lib = folder.path().join("build/3rdparty/llama.cpp/src/libllama.so");
    fs::create_dir_all(lib.parent().unwrap()).unwrap();
    let found = |folder| {
        let report = doctor(bitnet().env("BITNET_CPP_DIR", folder));
        report["libraries"]["found"].as_array().unwrap().contains(&json!(lib))
    };
    assert!(!found(folder.path()));
    fs::write(&lib, "").unwrap();
    assert!(found(folder.path()));
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"\xff");
        let odd = folder.path().join(name);
        // Not every file system takes such names.
        if fs::create_dir(&odd).and_then(|()| fs::write(odd.join("libllama.so"), "")).is_ok() {
            let report = doctor(bitnet().env("BITNET_CPP_DIR", &odd));
            assert!(report["libraries"]["found"][0].as_str().unwrap().ends_with("libllama.so"));
        }
    }
}
