//! The `bitnet` command with GPUs, whose driver runs kernels in an interpreter, and without.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod serve;

use std::process::Output;

use assert_cmd::Command;
use bitnet_inference::receipt::Receipt;
use fake_cuda::cases::{Library, folder};
use serde_json::{Value, json};

/// What the program gives where such a driver is found, which pretends to be this.
fn bitnet(library: Library, config: &str, args: &[&str]) -> Output {
    let folder = folder(library);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    command.env("LD_LIBRARY_PATH", folder.path()).env("BITNET_FAKE_CUDA", config);
    command.env("BITNET_TUNING", "none").args(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

const RUN: [&str; 6] = ["run", "Once upon a time", "-n", "6", "--temp", "0"];

fn run(library: Library, config: &str, device: &str) -> Output {
    bitnet(library, config, &[&RUN[..], &["--device", device]].concat())
}

fn devices(library: Library, config: &str) -> Vec<Value> {
    let output = bitnet(library, config, &["devices", "--json"]);
    let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
    serde_json::from_value(report["devices"].take()).unwrap()
}

#[test]
fn a_text_is_the_same_on_a_gpu() {
    let [cpu, gpu] = ["cpu", "cuda"].map(|device| run(Library::Fake, "", device));
    assert_eq!(gpu.status.code(), Some(0), "{}", stderr(&gpu));
    assert_eq!(stdout(&gpu), stdout(&cpu));
    assert!(stdout(&cpu).len() > 10);
}

#[test]
fn devices_are_listed_with_what_would_run_there() {
    let found = devices(Library::Fake, "devices=2 cc=8.6");
    let names: Vec<_> = found.iter().map(|row| row["device"].as_str().unwrap()).collect();
    assert_eq!(names, ["cpu", "cuda:0", "cuda:1", "metal", "llama"]);
    let [cpu, gpu, ..] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&cpu["usable"], &gpu["usable"]), (&json!(true), &json!(true)));
    assert_eq!(gpu["kernels"], json!(["i2s_gpu_gemv_mma_u8s8", "gemm_i2s_mma_u8s8_64"]));
    let gpu = &gpu["gpu"];
    assert_eq!((&gpu["compute_capability"], &gpu["target"]), (&json!("8.6"), &json!("sm_80")));
    assert_eq!((&gpu["memory_bytes"], &gpu["peers"]), (&json!(1 << 30), &json!(["cuda:1"])));

    let old = &devices(Library::Fake, "cc=5.2")[1];
    assert_eq!((&old["usable"], &old["kernels"]), (&json!(false), &json!([])));
    assert!(old["reason"].as_str().unwrap().contains("6.1 is the least"), "{old}");

    let none = &devices(Library::Nothing, "")[1];
    assert_eq!(none["usable"], json!(false));
    assert!(none["reason"].as_str().unwrap().contains("no NVIDIA driver"), "{none}");

    let text = bitnet(Library::Fake, "devices=2", &["devices"]);
    assert!(stdout(&text).contains("reaches the memory of cuda:1"), "{}", stdout(&text));
}

#[test]
fn kernels_are_listed_with_the_gpus_that_run_them() {
    let list = |library, config| -> Vec<Value> {
        let output = bitnet(library, config, &["kernels", "--json"]);
        let mut report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let kernels: Vec<Value> = serde_json::from_value(report["kernels"].take()).unwrap();
        kernels.into_iter().filter(|kernel| !kernel["devices"].is_null()).collect()
    };
    let found = list(Library::Fake, "devices=2 cc=8.6");
    let of = |id: &str| found.iter().find(|kernel| kernel["id"] == id).unwrap();
    let product = of("i2s_gpu_gemv_mma_u8s8");
    assert_eq!((&product["runs"], &product["reason"]), (&json!(true), &Value::Null));
    assert_eq!(product["devices"], json!(["cuda:0", "cuda:1"]));
    assert_eq!(product["target"], "NVIDIA GPUs of compute capability 8.0 or later");
    let other = of("gemm_i2s_wgmma_s8");
    assert_eq!((&other["runs"], &other["devices"]), (&json!(false), &json!([])));
    let why = other["reason"].as_str().unwrap();
    assert!(why.ends_with("needs compute capability 9.0 and no other: it has 8.6"), "{why}");

    for (library, config, why) in [
        (Library::Fake, "cc=5.2", "it has 5.2"),
        (Library::Fake, "driver=12020", "too old"),
        (Library::Nothing, "", "no NVIDIA driver"),
    ] {
        let kernels = list(library, config);
        assert_eq!(kernels.len(), found.len());
        for kernel in kernels {
            let reason = kernel["reason"].as_str().unwrap();
            assert!(kernel["runs"] == json!(false) && reason.contains(why), "{kernel}");
        }
    }
    let text = bitnet(Library::Fake, "", &["kernels"]);
    let line = stdout(&text).lines().find(|line| line.starts_with("gemm_i2s_wgmma_s8 ")).unwrap();
    assert!(line.ends_with("  runs on cuda:0"), "{line}");
}

/// What is asked for is used, or it is an error.
#[test]
fn a_gpu_that_cannot_be_used_is_an_error() {
    for (library, config, code, said) in [
        (Library::Nothing, "", 2, "no NVIDIA driver"),
        (Library::Fake, "devices=0", 2, "has no device"),
        (Library::Fake, "driver=12020", 2, "too old"),
        (Library::Fake, "wrong=yes", 1, "computes wrong"),
        (Library::Fake, "memory=400000", 4, "the weights need"),
        (Library::Fake, "fail=cuGraphLaunch:1:700", 1, "cuGraphLaunch failed"),
    ] {
        let output = run(library, config, "cuda");
        assert_eq!(output.status.code(), Some(code), "{config}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{config}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{config}");
    }
}

/// Whoever does not ask for a device is told what computes.
#[test]
fn the_processor_computes_where_there_is_no_gpu_and_the_reason_is_said() {
    let expected = run(Library::Nothing, "", "cpu");
    for (library, config, said) in [
        (Library::Nothing, "", "no NVIDIA driver"),
        (Library::Fake, "wrong=yes", "computes wrong"),
        (Library::Fake, "memory=400000", "the weights need"),
    ] {
        for device in [&[][..], &["--device", "auto"]] {
            let output = bitnet(library, config, &[&RUN[..], device].concat());
            assert_eq!(output.status.code(), Some(0), "{config}");
            let found = stderr(&output);
            assert!(found.contains("note: computing on the processor: "), "{config}: {found}");
            assert!(found.contains(said), "{config}: {found}");
            assert_eq!(stdout(&output), stdout(&expected), "{config}");
        }
    }
    // What is wrong with a model is wrong everywhere.
    let output = bitnet(Library::Nothing, "", &[&RUN[..], &["-m", "/no/such/model"]].concat());
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_receipt_names_the_gpu_and_what_it_ran() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    let path = path.to_str().unwrap();
    let output =
        bitnet(Library::Fake, "", &[&RUN[..], &["--device", "cuda", "--receipt", path]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let receipt: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(receipt["machine"]["device"], json!("cuda:0"));
    assert_eq!(receipt["machine"]["gpu"]["name"], json!("Fake GPU 0"));
    let kernels = receipt["kernels"].as_object().unwrap();
    for prefix in ["i2s_gpu_gemv_", "gemv_head_", "attn_gqa_", "rope_kv_append_"] {
        assert!(kernels.keys().any(|name| name.starts_with(prefix)), "{prefix}: {kernels:?}");
    }
    // A driver that computes in place of a GPU does not pass for one.
    let verdict = bitnet(Library::Nothing, "", &["verify", path]);
    assert_eq!(verdict.status.code(), Some(5), "{}", stderr(&verdict));
    let wrong: Vec<_> = stdout(&verdict).lines().filter(|line| line.starts_with("WRONG")).collect();
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("its driver computed in place of it"), "{wrong:?}");
}

#[test]
fn lesser_precisions_are_repeated_on_gpus_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("receipt.json");
    let path = path.to_str().unwrap();
    let flags = ["--device", "cuda", "--gpu-precision", "bf16", "--receipt", path];
    let output = bitnet(Library::Fake, "", &[&RUN[..], &flags].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let receipt: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(receipt["machine"]["gpu"]["attention"], json!("bf16"));
    // As if a device had computed: the hash has to be made again.
    let mut real = Receipt::read(&std::fs::read_to_string(path).unwrap()).unwrap();
    real.machine.gpu.as_mut().unwrap().uuid = "1234567890abcdef".repeat(2);
    real.sha256 = real.digest();
    std::fs::write(path, serde_json::to_string(&real).unwrap()).unwrap();
    for (library, config, code, said) in [
        (Library::Fake, "", 0, "the same run gave the same result"),
        (Library::Nothing, "", 1, "no NVIDIA driver"),
        (Library::Fake, "cc=7.5", 1, "8.0 at least"),
        (
            Library::Fake,
            "cc=8.6",
            1,
            "only by the same kernels on a GPU of the same compute capability",
        ),
    ] {
        let verdict = bitnet(library, config, &["verify", path, "--json"]);
        let found: Value = serde_json::from_slice(&verdict.stdout).unwrap();
        assert_eq!(found["rerun"], json!(code == 0), "{config}");
        assert_eq!(found["verified"], json!(true), "{config}");
        let note = stderr(&verdict);
        assert!(verdict.status.code() == Some(code) && note.contains(said), "{note}");
    }
    let refused = bitnet(Library::Nothing, "", &[&RUN[..], &["--gpu-precision", "fp16"]].concat());
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("leave out --gpu-precision"), "{}", stderr(&refused));
}

#[test]
fn a_gpu_is_held_to_the_processor() {
    let check = |config: &str| {
        bitnet(Library::Fake, config, &["check", "--device", "cuda", "--no-speed", "--json"])
    };
    // Of devices with tensor cores also passes as a kernel, and attention in lesser precisions.
    for (config, models, near) in [("", 6, 2), ("cc=7.5", 3, 0)] {
        let output = check(config);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&found["success"], &found["device"]), (&json!(true), &json!("Fake GPU 0")));
        let results = found["accuracy_results"].as_array().unwrap();
        assert!(results.len() > 10, "{results:?}");
        for result in results {
            assert!(result["compared"].as_u64().unwrap() > 0, "{result}");
            let [bound, distance] =
                ["bound", "distance"].map(|number| result[number].as_f64().unwrap());
            let same = result["different"] == json!(0);
            assert!(
                same == (bound == 0.0) && same == (distance == 0.0) && distance <= bound,
                "{result}"
            );
        }
        assert_eq!(results.iter().filter(|result| result["different"] != json!(0)).count(), near);
        // A prompt and a token are recorded, three tokens more are as the one.
        let stats = found["performance_stats"].as_array().unwrap();
        assert_eq!(stats.len(), models);
        for stats in stats {
            assert_eq!((&stats["cache_misses"], &stats["cache_hits"]), (&json!(2), &json!(3)));
            let each = stats["kernel_launches"].as_object().unwrap().values();
            let all: u64 = each.map(|launches| launches.as_u64().unwrap()).sum();
            assert!(all > 0 && stats["total_kernel_launches"] == all, "{stats}");
        }
        let memory = &found["memory_results"];
        assert_eq!((&memory["wrong_bytes"], &memory["leaked_bytes"]), (&json!(0), &json!(0)));
        assert!(memory["tested_bytes"].as_u64().unwrap() > 1 << 20, "{memory}");
    }
    let none = bitnet(Library::Nothing, "", &["check", "--device", "cuda"]);
    assert_eq!(none.status.code(), Some(2), "{}", stderr(&none));
}

#[test]
fn speed_is_measured_on_a_gpu() {
    let bench = |more: &[&str]| {
        let args = ["bench", "-p", "5", "-n", "2", "-r", "1", "-o", "json", "--device", "cuda"];
        bitnet(Library::Fake, "", &[&args[..], more].concat())
    };
    let output = bench(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let tests = found.as_array().unwrap();
    assert_eq!(tests.len(), 2, "{found}");
    for test in tests {
        assert_eq!(
            (&test["backend"], &test["layout"]),
            (&json!("CUDA Fake GPU 0"), &json!("i2_tiles"))
        );
        assert!(test["avg_ts"].as_f64().unwrap() > 0.0, "{test}");
    }
    // That is of the processor.
    assert_eq!(bench(&["--roofline"]).status.code(), Some(2));
}
