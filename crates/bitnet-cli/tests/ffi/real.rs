//! A real libllama: where `BITNET_CROSSVAL_LIBDIR` names one.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use bitnet_ffi::discover::Discovery;
use bitnet_ffi::{analyze_library, detect_kernel_backends, validate_ffi_library};
use bitnet_gguf::{Gguf, Writer};
use bitnet_kernels::manager::KernelBackend;
use serde_json::Value;

use crate::bitnet;

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bitnet-tales-i2_s.gguf");

/// The library, if there is one. A test that does nothing without is news.
fn library() -> Option<PathBuf> {
    let found = std::env::var_os("BITNET_CROSSVAL_LIBDIR").and_then(|_| {
        let found = Discovery::find();
        found.backend().ok().filter(|library| library.shared).map(|library| library.path.clone())
    });
    if found.is_none() {
        let required = std::env::var_os("BITNET_REQUIRE_REFERENCE").is_some();
        assert!(!required, "there is no library where BITNET_CROSSVAL_LIBDIR says");
        eprintln!("not tested: BITNET_CROSSVAL_LIBDIR names no library of llama.cpp");
    }
    found
}

/// The demo model in another format, as if it were of another architecture.
fn model(folder: &Path, format: &str, architecture: &str) -> PathBuf {
    let (converted, path) =
        (folder.join("converted.gguf"), folder.join(format!("{architecture}-{format}.gguf")));
    let (from, to) = (converted.to_str().unwrap(), "--to");
    let output = bitnet().args(["convert", DEMO, from, to, format, "--force"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let gguf = Gguf::open(&converted).unwrap();
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata() {
        writer = match key {
            "general.architecture" => writer.metadata(key, architecture.to_owned()),
            _ => writer.metadata(&key.replace("bitnet-b1.58", architecture), value.clone()),
        };
    }
    for tensor in gguf.tensors() {
        // Only BitNet has norms within its blocks.
        if architecture == "bitnet" || !tensor.name.contains("sub_norm") {
            writer = writer.tensor(
                &tensor.name,
                &tensor.dims,
                tensor.type_id,
                gguf.data(tensor).unwrap(),
            );
        }
    }
    writer.write_to(&mut BufWriter::new(File::create(&path).unwrap())).unwrap();
    path
}

fn crossval(args: &[&str]) -> (Option<i32>, String, Value) {
    let output =
        bitnet().args(["crossval", "--json", "--threads", "1"]).args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code(), said, report)
}

#[test]
fn it_is_understood() {
    let Some(path) = library() else { return };
    let found = analyze_library(&path).unwrap();
    assert!(found.is_for_this_machine() && found.llama_symbols.len() > 50, "{found:?}");
    assert!(found.needed.iter().any(|library| library.contains("ggml")), "{:?}", found.needed);
    assert!(found.evidence().iter().any(|evidence| evidence.backend == KernelBackend::LlamaCpu));
    let build = found.with_build();
    assert!(build.quantization_symbols.len() > 50, "{:?}", build.quantization_symbols);
    // Those for GPUs lie beside it, where it has some.
    let cuda = build.cuda_symbols.iter().any(|symbol| symbol.starts_with("ggml_backend_cuda"));
    let backends = detect_kernel_backends(&build);
    assert!(backends.contains(&KernelBackend::Iq2sCpu), "{backends:?}");
    assert_eq!(backends.contains(&KernelBackend::LlamaCuda), cuda, "{backends:?}");
    assert!(validate_ffi_library(&path).is_ok());
}

#[test]
fn formats_and_kernels_are_the_same() {
    if library().is_none() {
        return;
    }
    let (code, said, report) = crossval(&["--no-model"]);
    assert_eq!(code, Some(0), "{said}{report:#}");
    let kernels = report["kernels"].as_array().unwrap();
    for (format, test) in [
        ("TQ1_0", "read"),
        ("TQ1_0", "write"),
        ("TQ2_0", "read"),
        ("TQ2_0", "write"),
        ("IQ2_S", "read"),
        ("Q6_K", "read"),
    ] {
        let found = kernels.iter().find(|one| one["format"] == format && one["test"] == test);
        assert_eq!(found.unwrap_or_else(|| panic!("{format} {test}"))["different"], 0);
    }
    let products = kernels.iter().filter(|one| one["test"] == "product").count();
    assert!(products >= 3, "{report:#}");
}

/// The demo model needs nothing but a library.
#[test]
fn the_demo_model_computes_the_same() {
    if library().is_none() {
        return;
    }
    let (code, said, report) = crossval(&["--no-kernels", "-r", "1"]);
    assert_eq!(code, Some(0), "{said}{report:#}");
    assert!(report["model"]["described"].as_str().unwrap().contains("bitnet"), "{report:#}");
    assert_eq!(report["model"]["texts"].as_array().unwrap().len(), 6);
}

/// What `bitnet check` has besides, where a library is named.
#[test]
fn what_computes_is_held_to_it() {
    let Some(path) = library() else { return };
    let check = ["check", "--json", "--reference", path.to_str().unwrap()];
    let output = bitnet().args(check).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!(report["success"], true);
    let beside = &report["cross_check"];
    assert!(beside["library"]["path"].as_str().is_some_and(|found| !found.is_empty()));
    assert_eq!(beside["model"]["texts"].as_array().unwrap().len(), 1);
    assert!(beside["model"]["agreement"]["positions"].as_u64().unwrap() > 20, "{report:#}");
}

/// Whole models: tokens are the same, predictions alike, and so is what is generated.
#[test]
fn models_compute_the_same() {
    if library().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (format, architecture) in [("tq2_0", "llama"), ("tq1_0", "llama"), ("tq2_0", "bitnet")] {
        let path = model(folder.path(), format, architecture);
        let args = ["-m", path.to_str().unwrap(), "--no-kernels"];
        let (code, said, report) = crossval(&args);
        assert_eq!(code, Some(0), "{architecture} {format}: {said}{report:#}");
        let found = &report["model"];
        for text in found["texts"].as_array().unwrap() {
            assert_eq!(text["other_token"], Value::Null, "{architecture} {format}");
        }
        assert!(found["agreement"]["positions"].as_u64().unwrap() >= 64, "{report:#}");
        assert!(found["agreement"]["min_cosine"].as_f64().unwrap() > 0.99, "{report:#}");
    }
}

/// Behind the same engine: the same text, and a receipt that says who computed it.
#[test]
fn a_text_is_the_same() {
    let Some(library) = library() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (path, receipt) =
        (model(folder.path(), "tq2_0", "bitnet"), folder.path().join("receipt.json"));
    let run = |more: &[&str]| {
        let args = ["run", "Once upon a time", "-n", "16", "--temp", "0"];
        let output = bitnet().args(args).args(["-m", path.to_str().unwrap()]).args(more).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let theirs = run(&["--device", "llama", "--receipt", receipt.to_str().unwrap()]);
    assert_eq!(run(&[]), theirs);
    let found: Value = serde_json::from_str(&std::fs::read_to_string(&receipt).unwrap()).unwrap();
    assert_eq!(found["kernels"]["Llama_CPU"], 16);
    assert_eq!(
        found["machine"]["library"]["file"].as_str(),
        library.file_name().and_then(std::ffi::OsStr::to_str)
    );
    let mut verify = bitnet();
    verify.arg("verify").arg(&receipt).arg("-m").arg(&path);
    let output = verify.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What the library does not know it refuses, and what it says of it is shown.
#[test]
fn models_that_it_does_not_know_are_refused() {
    if library().is_none() {
        return;
    }
    let (code, said, _) = crossval(&["-m", DEMO, "--no-kernels"]);
    // Some abort at a type that they do not know.
    assert!(matches!(code, Some(1 | 3)), "{code:?} {said}");
    assert!(said.contains("cannot load") || said.contains("GGML_ASSERT"), "{said}");
    assert!(said.contains("--as tq2_0"), "{said}");
}
