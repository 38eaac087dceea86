//! Commands that look into models and change what they are stored as.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{bitnet, stderr, stdout};

pub(crate) fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/bitnet-tales-i2_s.gguf")
}

fn json(args: &[&str]) -> Value {
    let output = bitnet().args(args).arg("--json").unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn inspect_tells_what_the_demo_model_is() {
    let output = bitnet().args(["inspect", "--ternary", "--tensors"]).unwrap();
    let text = stdout(&output);
    for part in [
        "GGUF, 1.7 MB, 2.89 M parameters",
        "architecture bitnet-b1.58",
        "4 layers of width 256",
        "I2_S            28 tensors",
        "in memory as",
        "tokenizer.ggml.pre = llama-bpe",
        "blk.0.attn_q.weight        I2_S              256 x 256 at 1111744",
        "░░░",
        "1.585 b",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(!text.contains("warnings"), "{text}");
    assert_eq!(stderr(&output), "");
    // Less is asked for, less is told.
    let text = bitnet().args(["inspect", demo().to_str().unwrap()]).unwrap();
    assert!(!stdout(&text).contains("blk.0"));
}

#[test]
fn inspect_counts_weights() {
    let report = json(&["inspect", "--ternary"]);
    let matrices = report["ternary"].as_array().unwrap();
    assert_eq!(matrices.len(), 28);
    for matrix in matrices {
        let shares = matrix["shares"].as_array().unwrap();
        let sum: f64 = shares.iter().map(|share| share.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-12);
        assert!((1.4..1.59).contains(&matrix["entropy"].as_f64().unwrap()));
    }
    assert_eq!(report["architecture"], "bitnet-b1.58");
    assert_eq!(report["config"]["hidden"], 256);
    assert_eq!(report["parameters"], 2_888_960);
    assert_eq!(report["ternary_sha256"].as_str().unwrap().len(), 64);
    assert!(report.get("tensors").is_none());
    let metadata = &report["metadata"];
    assert_eq!(metadata["bitnet-b1.58.attention.layer_norm_rms_epsilon"], 1e-5);
    assert_eq!(metadata["tokenizer.ggml.add_bos_token"], true);
    assert_eq!(metadata["tokenizer.ggml.tokens"]["length"], 2048);
}

#[test]
fn inspect_warns_of_what_was_converted_wrongly() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("zeros.gguf");
    let mut bytes = fs::read(demo()).unwrap();
    // The first matrix: 256 x 256 weights, the code of zero is 1.
    bytes[1_111_744..][..16_384].fill(0x55);
    // The scale of the second, 128 x 256.
    bytes[1_128_160 + 8192..][..4].copy_from_slice(&50_f32.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let report = json(&["inspect", path.to_str().unwrap(), "--ternary"]);
    let warnings: Vec<_> =
        report["warnings"].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("blk.0.attn_q.weight: all 65536 weights are zero"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("scale 50 is unusually large"), "{warnings:?}");
    // What an unknown architecture is, and that it does not run.
    let mut bytes = fs::read(demo()).unwrap();
    let name = bytes.windows(12).position(|window| window == b"bitnet-b1.58").unwrap();
    bytes[name..][..12].copy_from_slice(b"mamba-b1.58!");
    fs::write(&path, bytes).unwrap();
    let output = bitnet().arg("inspect").arg(&path).unwrap();
    assert!(stdout(&output).contains("architecture `mamba-b1.58!` is not supported"));
}

#[test]
fn convert_says_what_changed_and_diff_that_nothing_did() {
    let folder = tempfile::tempdir().unwrap();
    let [gguf, hf] = ["model.gguf", "hf"].map(|name| folder.path().join(name));
    let output = bitnet().arg("convert").arg(demo()).arg(&gguf).args(["--to", "tq1_0"]).unwrap();
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    for part in
        ["28 tensors: I2_S -> TQ1_0", "28 ternary matrices with the same weights and scales"]
    {
        assert!(said.contains(part), "{said}");
    }
    let report = json(&["convert", gguf.to_str().unwrap(), hf.to_str().unwrap(), "--to", "hf"]);
    let [before, after] = [0, 1].map(|i| report["ternary_sha256"][i].as_str().unwrap().to_owned());
    assert_eq!(before, after);
    let inspected = json(&["inspect", "--ternary"]);
    assert_eq!(inspected["ternary_sha256"], before);

    let output = bitnet().arg("diff").arg(demo()).arg(&hf).unwrap();
    let verdict =
        "the same model: 28 ternary matrices and 18 other tensors are the same, 0 are not\n";
    assert_eq!(stdout(&output), verdict);

    // Something is there.
    let mut again = bitnet();
    let refused = again.arg("convert").arg(demo()).arg(&gguf).assert().code(2);
    assert!(stderr(refused.get_output()).contains("--force replaces it"));
    bitnet().arg("convert").arg(demo()).arg(&gguf).arg("--force").assert().success();
    for (args, code) in [(["--to", "q4_0"], 2), (["--embed", "q2_k"], 2)] {
        bitnet()
            .arg("convert")
            .arg(demo())
            .arg(folder.path().join("x"))
            .args(args)
            .assert()
            .code(code);
    }
    bitnet().args(["convert", "nowhere.gguf"]).arg(folder.path().join("x")).assert().code(3);
    let nowhere = folder.path().join("no/where");
    bitnet().arg("convert").arg(demo()).arg(nowhere).assert().code(1);
}

#[test]
fn diff_finds_the_first_difference() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.gguf");
    let mut bytes = fs::read(demo()).unwrap();
    // A code of blk.0.attn_k, 128 x 256: byte 32 has the columns 128, 160, 192 and 224 of the first row.
    let at = 1_128_160 + 32;
    bytes[at] = if bytes[at] & 3 == 0 { bytes[at] | 1 } else { bytes[at] & !3 };
    fs::write(&path, &bytes).unwrap();
    let output = bitnet().arg("diff").arg(demo()).arg(&path).assert().code(5);
    let text = stdout(output.get_output());
    assert!(
        text.starts_with(
            "first difference in blk.0.attn_k.weight: 1 of 32768 weights, first in row 0, column 224: "
        ),
        "{text}"
    );
    let output = bitnet().arg("diff").arg(demo()).arg(&path).arg("--json").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["same"], &report["same_matrices"]), (&false.into(), &27.into()));
    bitnet().arg("diff").arg(demo()).arg("nowhere.gguf").assert().code(3);
    // What ends a generation, and what is said first.
    let hf = folder.path().join("hf");
    bitnet().arg("convert").arg(demo()).arg(&hf).args(["--to", "hf"]).assert().success();
    let ends = r#"{ "bos_token_id": 2040, "eos_token_id": [2041, 258] }"#;
    fs::write(hf.join("generation_config.json"), ends).unwrap();
    fs::write(hf.join("chat_template.jinja"), "{{ messages }}").unwrap();
    let output = bitnet().arg("diff").arg(demo()).arg(&hf).assert().code(5);
    let text = stdout(output.get_output());
    assert!(text.contains("tokenizer: a generation ends at {2041}, and {258, 2041}"), "{text}");
    assert!(text.contains("chat templates"), "{text}");
}

/// A process that is ended from outside leaves nothing that looks like a model.
#[cfg(unix)]
#[test]
fn a_killed_conversion_leaves_no_model() {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use crate::program;
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large.gguf");
    bitnet().args(["synth", "--shape", "0.7b", "-c", "64"]).arg(&large).assert().success();
    let out = folder.path().join("out.gguf");
    let mut child = Command::new(program())
        .arg("convert")
        .args([&large, &out])
        .args(["--to", "tq2_0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Until there is something half written.
    let part = || {
        let names = fs::read_dir(folder.path()).unwrap().flatten();
        names.map(|entry| entry.file_name().into_string().unwrap()).find(|n| n.ends_with(".part"))
    };
    while part().is_none() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let half = part();
    child.kill().unwrap();
    child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(half.is_some(), "{said}");
    assert!(!out.exists());
    // What is left is no file of a model by its name, and does not stand in the way.
    bitnet().arg("convert").args([&large, &out]).args(["--to", "tq2_0"]).assert().success();
    assert!(out.exists());
}

/// Names of files and in files must not move the cursor.
#[cfg(unix)]
#[test]
fn control_characters_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("\x1b[31m\x07.gguf");
    let mut bytes = fs::read(demo()).unwrap();
    let name = b"blk.0.attn_norm.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..][..6].copy_from_slice(b"\x1b[31m\x07");
    fs::write(&path, bytes).unwrap();
    let run = bitnet().args(["run", "-p", "x", "-m"]).arg(&path).assert().code(3);
    let diff = bitnet().arg("diff").arg(demo()).arg(&path).assert().code(5);
    for text in [stderr(run.get_output()), stdout(diff.get_output())] {
        assert!(!text.contains(['\x1b', '\x07']) && text.contains("\\u{1b}[31m\\u{7}"), "{text:?}");
    }
}
