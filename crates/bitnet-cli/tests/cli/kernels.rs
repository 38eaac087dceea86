//! `bitnet kernels`, and the flags that choose kernels.

use std::process::Output;

use bitnet_inference::device_features::{gpu_compiled, gpu_kernels};
use bitnet_kernels::{Cpu, Format, KERNELS, Line};
use serde_json::{Value, json};

use crate::{bitnet, stderr, stdout};

fn object(args: &[&str]) -> Value {
    serde_json::from_str(stdout(&bitnet().args(args).unwrap())).expect("one JSON object")
}

/// The kernel with an id, in what `bitnet kernels --json` prints.
fn kernel<'a>(report: &'a Value, id: &str) -> &'a Value {
    let kernels = report["kernels"].as_array().unwrap();
    kernels.iter().find(|kernel| kernel["id"] == id).unwrap_or_else(|| panic!("no {id}"))
}

#[test]
fn every_kernel_is_listed_and_runs_or_says_why_not() {
    let report = object(&["kernels", "--json"]);
    let kernels = report["kernels"].as_array().unwrap();
    let here = KERNELS.iter().flat_map(Line::ids).count();
    let gpus = gpu_kernels();
    assert_eq!(kernels.len(), here + gpus.len());
    for (kernel, gpu) in kernels[here..].iter().zip(&gpus) {
        assert_eq!(
            (&kernel["id"], &kernel["operation"]),
            (&json!(gpu.id.name()), &json!(gpu.id.operation()))
        );
        assert_eq!(kernel["compute_capability"], gpu.id.needs().to_string());
        assert_eq!(kernel["runs"], gpu.devices.is_ok(), "{kernel}");
        if !gpu_compiled() {
            assert!(kernel["reason"].as_str().unwrap().contains("build with --features cuda"));
            assert_eq!(kernel["devices"], json!([]));
        }
    }
    let cpu = Cpu::detect();
    for (kernel, id) in kernels.iter().zip(KERNELS.iter().flat_map(Line::ids)) {
        assert_eq!(kernel["id"], id.to_string());
        assert_eq!(kernel["runs"], cpu.has(id.isa), "{kernel}");
        assert_eq!(kernel["reason"].is_null(), cpu.has(id.isa), "{kernel}");
        let best = cpu.isas().iter().all(|&isa| isa.within(id.isa));
        let used = !kernel["selected_for"].as_array().unwrap().is_empty();
        // The dense layout waits for matrices that need it; the best of each other line is used.
        let dense = kernel["format"] == "tl2_r32";
        assert!(!best || dense || used, "{kernel}");
        assert!(!used || cpu.has(id.isa), "{kernel}");
    }
    assert_eq!(report["architecture"], std::env::consts::ARCH);
}

#[test]
fn the_table_says_the_same() {
    let output = bitnet().args(["kernels"]).unwrap();
    let lines = stdout(&output).lines().skip(2).count();
    assert_eq!(lines, KERNELS.iter().flat_map(Line::ids).count() + gpu_kernels().len());
    let foreign = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    let why = format!("no: not compiled: it is for {foreign}");
    assert!(stdout(&output).contains(&why), "{}", stdout(&output));
    let scalar = bitnet().args(["kernels", "--isa", "scalar"]).unwrap();
    let all = Format::TERNARY.map(Format::name).join(", ");
    assert!(stdout(&scalar).contains(&format!("used for {all}")));
}

#[test]
fn switches_narrow_what_is_used() {
    let preferred = "gemv_tl2_r32_q8_scalar,norm_f32_scalar";
    let report = object(&["kernels", "--json", "--kernel", preferred]);
    assert_eq!(kernel(&report, "norm_f32_scalar")["selected_for"][0], "norm");
    let gemv = &kernel(&report, "gemv_tl2_r32_q8_scalar")["selected_for"];
    assert_eq!(gemv.as_array().unwrap().len(), Format::TERNARY.len());
    let other = &kernel(&report, "gemv_i2s_r32_q8_scalar")["reason"];
    assert!(other.as_str().unwrap().contains("excluded by --kernel"), "{other}");

    let output = bitnet().env("BITNET_KERNELS", preferred).args(["kernels", "--json"]).unwrap();
    assert_eq!(serde_json::from_str::<Value>(stdout(&output)).unwrap(), report);

    let args = ["run", "Once", "--temp", "0", "-n", "2", "--json", "--kernel", preferred];
    let called = &object(&args)["kernels"];
    for id in preferred.split(',') {
        assert!(called[id].as_u64().unwrap() > 0, "{called}");
    }
    let args = ["run", "Once", "-n", "1", "--kernel", "I2S_QK256_CUDA, I2S_QK256_Scalar"];
    let said = bitnet().args(args).unwrap();
    let note = "note: --kernel I2S_QK256_CUDA has no effect: not of this processor";
    assert!(stderr(&said).contains(note), "{}", stderr(&said));
    assert_eq!(stderr(&said).matches("note: --").count(), 1, "{}", stderr(&said));
}

#[test]
fn what_has_no_effect_is_said() {
    let run = |args: &[&str]| bitnet().args(["run", "Once", "-n", "1"]).args(args).unwrap();
    let said = |args: &[&str]| -> Vec<String> {
        let output = run(args);
        let notes = stderr(&output).lines().filter(|line| line.contains("has no effect"));
        notes.filter_map(|line| Some(line.split(' ').nth(2)?.to_owned())).collect()
    };
    // Of keys and values in f32, and an output layer in half precision.
    let kernels = "attend_q8_0_scalar,head_q6_k_f32_scalar,gemv_i2s_r32_q8_scalar,norm_f32_scalar";
    assert_eq!(said(&["--kernel", kernels]), ["attend_q8_0_scalar", "head_q6_k_f32_scalar"]);
    assert_eq!(said(&["--kernel", "attend_q8_0_scalar", "--cache-type", "q8_0"]), [""; 0]);
    assert_eq!(said(&["--layout", "tl2_r32"]), [""; 0]);
    let floats = ["--dequantize", "--layout", "tl2_r32", "--kernel", "gemv_tl2_r32_q8_scalar"];
    assert_eq!(said(&floats), ["gemv_tl2_r32_q8_scalar", "tl2_r32"]);
    for command in ["kernels", "doctor", "verify"] {
        let output = bitnet().args([command, "--cache-type", "f16"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}");
    }
}

#[test]
fn variables_that_are_empty_are_not_set() {
    let names =
        ["ISA", "KERNELS", "LAYOUT", "CACHE_TYPE", "DEVICE", "DEQUANTIZE", "MODEL", "THREADS"];
    let mut command = bitnet();
    names.iter().for_each(|name| {
        command.env(format!("BITNET_{name}"), "");
    });
    let output = command.args(["run", "Once", "-n", "1"]).unwrap();
    // Which device computes is said where it might have been a GPU.
    let about_gpus = if gpu_compiled() { "computing on the processor" } else { "\n" };
    let mut notes = stderr(&output).lines().filter(|line| line.starts_with("note: "));
    assert!(notes.all(|note| note.contains(about_gpus)), "{}", stderr(&output));
    for (value, notes) in [("1", 1), ("true", 1), ("0", 0), ("false", 0)] {
        let run = ["run", "Once", "-n", "1"];
        let output = bitnet().env("BITNET_DEQUANTIZE", value).args(run).unwrap();
        assert_eq!(stderr(&output).matches("note: --dequantize").count(), notes, "{value}");
    }
}

#[test]
fn kernels_that_cannot_run_are_refused_with_those_that_can() {
    let foreign = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let foreign = format!("add_f32_{foreign}");
    let not_there = match gpu_compiled() {
        true => "cuda:1 is not available: ",
        false => "cuda:1 is not available: not compiled",
    };
    let cases: [(&[&str], &str); 6] = [
        (&["--kernel", "gemv_i3_q8_scalar"], "this processor runs gemv_i2s_r32_q8_scalar"),
        (&["--kernel", &foreign], "those that can run are add_f32_scalar"),
        (&["--kernel", "I2S_QK256_CUDA"], "take --device cuda"),
        (&["--kernel", "gemv_tl2_r32_q8_scalar", "--layout", "i2s_r32"], "--layout i2s_r32"),
        (&["--device", "cuda:1"], not_there),
        (&["--device", "tpu"], "known are cpu"),
    ];
    for (args, words) in cases {
        let output = bitnet().args(["run", "hello"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
    let fake = ["run", "hello", "--device", "cuda"];
    let output = bitnet().env("BITNET_GPU_FAKE", "cuda").args(fake).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("BITNET_GPU_FAKE only says so"), "{}", stderr(&output));
}

#[test]
fn what_is_measured_is_kept_used_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.json");
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bitnet-tales-i2_s.gguf");
    let tune = |args: &[&str]| {
        bitnet().args(["tune", "-m", demo, "--tuning"]).arg(&path).args(args).unwrap()
    };
    let output = tune(&[]);
    assert!(stderr(&output).contains("measuring kernels for 512 x 256"), "{}", stderr(&output));
    assert!(stdout(&output).contains("written to "), "{}", stdout(&output));
    let written: Value = serde_json::from_str(stdout(&tune(&["--json"]))).unwrap();
    let with = |args: &[&str]| bitnet().env("BITNET_TUNING", &path).args(args).output().unwrap();
    let shown: Value = serde_json::from_str(stdout(&with(&["kernels", "--json"]))).unwrap();
    assert_eq!(shown["tuning"], written);
    // Each shape has one gemv and one gemm.
    let used = |shape: &str| {
        let kernels = shown["kernels"].as_array().unwrap().iter();
        let used =
            kernels.filter(|k| k["selected_for"].as_array().unwrap().contains(&json!(shape)));
        used.map(|kernel| kernel["operation"].as_str().unwrap()).collect::<Vec<_>>()
    };
    for shape in ["256 x 256", "128 x 256", "512 x 256", "256 x 512"] {
        let mut found = used(shape);
        found.sort_unstable();
        assert_eq!(found, ["gemm", "gemv"], "{shape}");
    }
    let table = with(&["kernels"]);
    assert!(stdout(&table).contains("Measured, for models with matrices of these shapes"));

    let receipt = folder.path().join("receipt.json");
    let run = ["run", "Once upon a time", "--temp", "0", "-n", "4", "--receipt"];
    let tuned = with(&[&run[..], &[receipt.to_str().unwrap()]].concat());
    let plain = bitnet().args(&run[..run.len() - 1]).unwrap();
    assert_eq!(stdout(&tuned), stdout(&plain));
    let receipt: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    assert_eq!(receipt["machine"]["tuning"], written["sha256"]);

    let damaged = std::fs::read_to_string(&path).unwrap().replace("\"tile\": ", "\"tile\": 1");
    std::fs::write(&path, damaged).unwrap();
    let refused = with(&["run", "hello"]);
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("tuning.json: it was changed"), "{}", stderr(&refused));
    let endless = ["run", "hello", "--tuning", "/dev/zero"];
    if cfg!(unix) {
        let refused = bitnet().args(endless).output().unwrap();
        assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("it is longer than"), "{}", stderr(&refused));
    }
    tune(&[]);
    let other = std::fs::read_to_string(&path).unwrap().replace("\"0.1.0\"", "\"0.0.9\"");
    std::fs::write(&path, other).unwrap();
    let noted = with(&["run", "hello", "-n", "1"]);
    assert!(noted.status.success() && stderr(&noted).contains("note: "), "{}", stderr(&noted));
}

#[test]
fn floating_point_weights_give_the_same_text_and_say_so() {
    let args = ["run", "Once upon a time", "--temp", "0", "-n", "4"];
    let plain = bitnet().args(args).unwrap();
    let floats = bitnet().args(args).arg("--dequantize").unwrap();
    assert_eq!(stdout(&floats), stdout(&plain));
    let said = |output: &Output| stderr(output).matches("note: --dequantize").count();
    assert_eq!((said(&floats), said(&plain)), (1, 0));
}

#[test]
fn the_doctor_says_what_there_is_and_what_would_run() {
    let report = object(&["doctor", "--json", "--tuning", "no/such/file"]);
    let isas = &report["machine"]["isas"];
    assert_eq!(isas.as_array().unwrap().len(), Cpu::detect().isas().len());
    assert_eq!(report["formats"].as_array().unwrap().len(), Format::TERNARY.len());
    for format in report["formats"].as_array().unwrap() {
        assert!(format["gemv"].as_str().unwrap().starts_with("gemv_i2s_r32"), "{format}");
    }
    for measured in report["measured"].as_array().unwrap() {
        assert!(measured["bandwidth_gbps"].as_f64().unwrap() > 0.0, "{measured}");
        assert!(measured["peak_gmacs"].as_f64().unwrap() > 0.0, "{measured}");
    }
    let none = report["gpus"]["reason"].as_str().unwrap();
    assert!(none.contains("not compiled") != gpu_compiled(), "{none}");
    let warnings = report["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|w| w.as_str().unwrap().contains("bitnet tune")), "{report}");

    let output =
        bitnet().env("BITNET_GPU_FAKE", "gpu").args(["doctor", "--isa", "scalar"]).unwrap();
    let text = stdout(&output);
    for words in [
        "processor",
        "GB/s (read_f32_scalar)",
        "I2_S        gemv_i2s_r32_q8_scalar",
        "BITNET_GPU_FAKE",
    ] {
        assert!(text.contains(words), "{words} in {text}");
    }
}
