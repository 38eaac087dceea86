//! Exit codes: help and the README list them, and each comes about.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use assert_cmd::Command;

use crate::{bitnet, stderr, stdout};

const README: &str = include_str!("../../../../README.md");
const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bitnet-tales-i2_s.gguf");

/// Those that help lists.
fn documented() -> Vec<i32> {
    let help = bitnet().arg("--help").unwrap();
    let codes = stdout(&help).split_once("Exit codes:\n").unwrap().1;
    codes.lines().map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

#[test]
fn help_and_the_readme_list_the_same() {
    let line = README.lines().find(|line| line.contains("exit codes")).unwrap();
    let (_, listed) = line.split_once("exit codes ").unwrap();
    let listed: Vec<i32> = listed
        .split(['(', ')'])
        .step_by(2)
        .filter_map(|between| between.trim_matches([' ', ',', '.']).parse().ok())
        .collect();
    assert_eq!(listed, documented());
    assert_eq!(listed, [0, 1, 2, 3, 4, 5, 130]);
}

/// A model with one weight changed.
fn changed(folder: &Path) -> String {
    let mut bytes = fs::read(DEMO).unwrap();
    // A code of blk.0.attn_k: see `models.rs`.
    let at = 1_128_160 + 32;
    bytes[at] = if bytes[at] & 3 == 0 { bytes[at] | 1 } else { bytes[at] & !3 };
    let path = folder.join("changed.gguf");
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A file of some text.
fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn each_comes_about_as_it_is_documented() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let changed = changed(folder);
    let broken = file(folder, "broken.gguf", "GGUF but not really");
    let short = file(folder, "short.txt", "Once upon a time");
    let there = file(folder, "there.gguf", "");
    let nowhere = folder.join("no/where").to_str().unwrap().to_owned();
    let receipt = folder.join("receipt.json").to_str().unwrap().to_owned();
    bitnet().args(["run", "Once", "-n", "1", "--receipt", &receipt]).unwrap();
    let text = fs::read_to_string(&receipt).unwrap();
    let wrong = text.replace("\"threads\": ", "\"threads\": 1");
    let wrong = file(folder, "wrong.json", &wrong);
    let cases: [(i32, &[&[&str]]); 6] = [
        (0, &[&["kernels"], &["verify", &receipt], &["diff", DEMO, DEMO], &["--version"]]),
        (
            1,
            &[
                &["run", "-f", &nowhere],
                &["perplexity", "-f", &nowhere],
                &["verify", &nowhere],
                &["logits", "--ids", "1", "--out", &nowhere],
                &["man", "--out", &broken],
                &["convert", DEMO, &nowhere],
            ],
        ),
        (
            2,
            &[
                &["no-such-command"],
                &["run", "x", "--no-such-flag"],
                &["run", "x", "-t", "0"],
                &["run", "x", "--device", "tpu"],
                &["perplexity", "-f", &short],
                &["logits", "--ids", "4096", "--out", &nowhere],
                &["detokenize", "4096"],
                &["embed", ""],
                &["synth", "--shape", "0.7b", &there],
                &["bench", "-p", "0", "-n", "0"],
                &["rm", "no-name"],
            ],
        ),
        (
            3,
            &[
                &["run", "x", "-m", &nowhere],
                &["run", "x", "-m", &broken],
                &["tokenize", "x", "-m", &broken],
                &["inspect", &broken],
                &["verify", &broken],
                &["kernels", "--tuning", &broken],
                &["template"],
            ],
        ),
        (
            4,
            &[
                &["run", "one two three", "-c", "2"],
                &["embed", "one two three", "-c", "2"],
                &["bench", "-p", "600"],
            ],
        ),
        (5, &[&["diff", DEMO, &changed], &["verify", &wrong]]),
    ];
    let mut seen: BTreeMap<i32, usize> = BTreeMap::new();
    for (code, commands) in cases {
        for args in commands {
            let output = bitnet().args(*args).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
            // What failed says why; what was refuted is a result.
            let said = stderr(&output).contains("error: ");
            assert_eq!(said, (1..=4).contains(&code), "{args:?}: {}", stderr(&output));
            *seen.entry(code).or_default() += 1;
        }
    }
    // Ctrl-C is below.
    let tested: Vec<_> = seen.into_keys().chain([130]).collect();
    assert_eq!(tested, documented());
}

/// With a handler, and without, where a shell says the same of the signal.
#[cfg(unix)]
#[test]
fn ctrl_c_is_130() {
    use std::io::Read;
    use std::process::{Command, Stdio};

    let slow = ["--isa", "scalar", "-t", "1"];
    let commands: [&[&str]; 2] = [
        &["run", "Once upon a time", "--seed", "1"],
        &["bench", "-r", "1000", "-o", "jsonl", "-p", "1"],
    ];
    for args in commands {
        let mut child = Command::new(crate::program())
            .args(args)
            .args(slow)
            .env("BITNET_TUNING", "none")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It is at work once something was printed.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let id = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        let status = child.wait_with_output().unwrap().status;
        assert_eq!(status.code(), Some(130), "{args:?}");
    }
}

/// Commands whose result is a report say it in JSON, too, on one line of stdout.
#[test]
fn reports_come_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (logits, synth, short) = (out("logits"), out("synth.gguf"), out("text"));
    fs::write(&short, "Once upon a time there was a king").unwrap();
    let commands: [&[&str]; 12] = [
        &["run", "Once", "-n", "1"],
        &["logits", "--ids", "1", "--out", &logits],
        &["perplexity", "-f", &short, "--all-tokens"],
        &["embed", "Once"],
        &["tokenize", "Once"],
        &["detokenize", "1"],
        &["template", "--chat-template", "chatml"],
        &["kernels"],
        &["inspect"],
        &["diff", DEMO, DEMO],
        &["synth", "--shape", "0.7b", "-c", "16", &synth],
        &["list"],
    ];
    for args in commands {
        let mut command: Command = bitnet();
        let output = command.env("HF_HUB_CACHE", folder.path()).args(args).arg("--json").unwrap();
        let lines: Vec<_> = stdout(&output).lines().collect();
        assert_eq!(lines.len(), 1, "{args:?}");
        let value: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert!(value.is_object() || value.is_array(), "{args:?}");
    }
}
