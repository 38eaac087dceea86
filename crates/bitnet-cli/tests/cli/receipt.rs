//! `bitnet run --receipt` and `bitnet verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::{bitnet, stderr, stdout};

fn receipt(folder: &Path, more: &[&str], fake: Option<&str>) -> PathBuf {
    let path = folder.join("receipt.json");
    let mut command = bitnet();
    if let Some(fake) = fake {
        command.env("BITNET_GPU_FAKE", fake);
    }
    command
        .args(["run", "Once upon a time", "-n", "5", "--receipt"])
        .arg(&path)
        .args(more)
        .unwrap();
    path
}

fn verify(path: &Path, more: &[&str]) -> Output {
    bitnet().arg("verify").arg(path).args(more).output().expect("it runs")
}

#[test]
fn a_receipt_of_the_demo_model_is_run_again() {
    let folder = tempfile::tempdir().unwrap();
    for more in [&["--temp", "0"][..], &["--dequantize"], &["--cache-type", "q8_0"], &["-c", "64"]]
    {
        let path = receipt(folder.path(), more, None);
        let found = verify(&path, &["--isa", "scalar"]);
        assert_eq!(found.status.code(), Some(0), "{more:?}: {}", stdout(&found));
        assert!(stdout(&found).lines().all(|line| line.starts_with("ok ")));
        assert!(stdout(&found).contains("ok    the same run again"));
        assert!(stderr(&found).contains("the same run gave the same result"));
    }
}

#[test]
fn a_changed_receipt_does_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = receipt(folder.path(), &[], None);
    let changed = fs::read_to_string(&path).unwrap().replace("\"threads\": ", "\"threads\": 1");
    fs::write(&path, changed).unwrap();
    let found = verify(&path, &[]);
    assert_eq!(found.status.code(), Some(5));
    assert!(stdout(&found).contains("WRONG hash of the receipt"), "{}", stdout(&found));
    let found = verify(&path, &["--json"]);
    let report: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!((&report["verified"], &report["rerun"]), (&json!(false), &json!(true)));
    let wrong: Vec<_> = report["checks"].as_array().unwrap().iter().collect();
    assert_eq!(wrong.iter().filter(|check| !check["wrong"].is_null()).count(), 1);
}

#[test]
fn a_receipt_of_a_faked_gpu_never_holds() {
    let folder = tempfile::tempdir().unwrap();
    for fake in ["cuda", "none"] {
        let path = receipt(folder.path(), &[], Some(fake));
        let found = verify(&path, &[]);
        assert_eq!(found.status.code(), Some(5));
        assert!(stdout(&found).contains("WRONG no GPU is faked"), "{}", stdout(&found));
    }
}

#[test]
fn what_is_no_receipt_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = verify(&folder.path().join("missing.json"), &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("missing.json"));
    let path = folder.path().join("no.json");
    for (content, words) in [
        ("{", "no.json is no receipt"),
        ("{\"schema\": 2}", "of version 2"),
        ("{\"schema\": 1}", "missing field"),
        ("[]", "no receipt"),
    ] {
        fs::write(&path, content).unwrap();
        let found = verify(&path, &[]);
        assert_eq!(found.status.code(), Some(3), "{}", stderr(&found));
        assert!(stderr(&found).contains(words), "{}", stderr(&found));
    }
    let output = bitnet().args(["run", "hi", "-n", "1", "--receipt", "no/such/folder"]).output();
    assert_eq!(output.unwrap().status.code(), Some(1));
}
