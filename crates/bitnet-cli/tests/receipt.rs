//! `bitnet run --receipt` and `bitnet verify`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};

fn bitnet() -> Command {
    let mut command = Command::cargo_bin("bitnet").expect("the program under test");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BITNET_")) {
        command.env_remove(name);
    }
    // Whatever was measured on this machine.
    command.env("BITNET_TUNING", "none");
    command
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).expect("UTF-8")
}

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
        assert_eq!(found.status.code(), Some(0), "{more:?}: {}", text(&found.stdout));
        assert!(text(&found.stdout).lines().all(|line| line.starts_with("ok ")));
        assert!(text(&found.stdout).contains("ok    the same run again"));
        assert!(text(&found.stderr).contains("the same run gave the same result"));
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
    assert!(text(&found.stdout).contains("WRONG hash of the receipt"), "{}", text(&found.stdout));
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
        assert!(text(&found.stdout).contains("WRONG no GPU is faked"), "{}", text(&found.stdout));
    }
}

#[test]
fn what_is_no_receipt_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let missing = verify(&folder.path().join("missing.json"), &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("missing.json"));
    let path = folder.path().join("no.json");
    for (content, words) in
        [("{", "no.json is no receipt"), ("{\"schema\": 2}", "missing field"), ("[]", "no receipt")]
    {
        fs::write(&path, content).unwrap();
        let found = verify(&path, &[]);
        assert_eq!(found.status.code(), Some(3), "{}", text(&found.stderr));
        assert!(text(&found.stderr).contains(words), "{}", text(&found.stderr));
    }
    let output = bitnet().args(["run", "hi", "-n", "1", "--receipt", "no/such/folder"]).output();
    assert_eq!(output.unwrap().status.code(), Some(1));
}
