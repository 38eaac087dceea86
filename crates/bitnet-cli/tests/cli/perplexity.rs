//! `bitnet perplexity`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{bitnet, stderr, stdout};

const HELDOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/heldout.txt");

/// The beginning of the held-out text: about 450 tokens.
fn text(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    let all = fs::read_to_string(HELDOUT).unwrap();
    fs::write(&path, all.chars().take(1500).collect::<String>() + "\n").unwrap();
    path
}

fn json(args: &[&str], file: &Path) -> Value {
    let mut command = bitnet();
    let output = command.args(["perplexity", "--json", "-f"]).arg(file).args(args).unwrap();
    serde_json::from_str(stdout(&output)).unwrap()
}

#[test]
fn it_prints_as_llama_perplexity_does() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(folder.path());
    let run = |args: &[&str]| {
        let mut command = bitnet();
        command.args(["perplexity", "-c", "64", "-f"]).arg(&file).args(args).unwrap()
    };
    let output = run(&[]);
    let lines: Vec<_> = stdout(&output).lines().collect();
    let [figures, last] = lines[..] else { panic!("{lines:?}") };
    let figures: Vec<_> = figures.strip_suffix(',').unwrap().split(',').collect();
    for (index, figure) in figures.iter().enumerate() {
        let figure = figure.strip_prefix(&format!("[{}]", index + 1)).unwrap();
        assert!(figure.parse::<f64>().unwrap() > 1.0);
        assert_eq!(figure.split('.').nth(1).unwrap().len(), 4);
    }
    let (ppl, error) =
        last.strip_prefix("Final estimate: PPL = ").unwrap().split_once(" +/- ").unwrap();
    assert!(figures.last().unwrap().ends_with(&format!("]{ppl}")));
    assert!(error.parse::<f64>().unwrap() > 0.0);
    assert!(stderr(&output).contains("nats a token") && !stderr(&output).contains("scoring ["));
    let report = json(&["-c", "64"], &file);
    assert_eq!(format!("{:.4}", report["ppl"].as_f64().unwrap()), ppl);
    assert_eq!(format!("{:.5}", report["ppl_error"].as_f64().unwrap()), error);
    assert_eq!(report["chunks"], figures.len());

    // Neither how many at a time, nor what computes.
    for args in [&["-b", "7"][..], &["-b", "2048"], &["-t", "1", "--isa", "scalar"]] {
        assert_eq!(stdout(&run(args)), stdout(&output), "{args:?}");
    }
    let some = run(&["--chunks", "2"]);
    assert!(stdout(&output).starts_with(stdout(&some).lines().next().unwrap()));
    assert_eq!(stdout(&some).matches('[').count(), 2);
}

#[test]
fn json_has_the_figures_of_each_method() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(folder.path());
    let number = |report: &Value, field: &str| report[field].as_f64().unwrap();
    let check = |report: &Value, method: &str| {
        assert_eq!(report["method"], method, "{report}");
        assert!(
            (number(report, "nats_per_token").exp() / number(report, "ppl") - 1.0).abs() < 1e-9
        );
        let error = number(report, "nats_per_token_error") * number(report, "ppl");
        assert!((error - number(report, "ppl_error")).abs() < 1e-9);
        let bits = number(report, "nats_per_token") * number(report, "scored_tokens")
            / 2_f64.ln()
            / number(report, "scored_bytes");
        assert!((bits - number(report, "bits_per_byte")).abs() < 1e-9);
        assert_eq!(report["model"]["sha256"].as_str().unwrap().len(), 64);
        assert_eq!(report["model"]["type"], "I2_S");
    };
    let halves = json(&["-c", "64"], &file);
    check(&halves, "halves");
    assert_eq!(halves["scored_tokens"], halves["chunks"].as_u64().unwrap() * 31);
    assert_eq!((&halves["n_ctx"], &halves["stride"]), (&64.into(), &Value::Null));

    let strided = json(&["-c", "64", "--ppl-stride", "16"], &file);
    check(&strided, "strided");
    assert_eq!((&strided["n_ctx"], &strided["stride"]), (&72.into(), &16.into()));
    assert_eq!(strided["scored_tokens"], strided["chunks"].as_u64().unwrap() * 16);

    // The text with the newline at its end, in windows of 512.
    let all = json(&["--all-tokens"], &file);
    check(&all, "all-tokens");
    assert_eq!((&all["n_ctx"], &all["scored_bytes"]), (&512.into(), &1501.into()));
    let tokens = all["text_tokens"].as_u64().unwrap();
    assert_eq!(all["scored_tokens"], tokens - 1);
    let again = json(&["--all-tokens", "-c", "100"], &file);
    assert_eq!(again["chunks"], (tokens - 1).div_ceil(100));
    assert!(number(&again, "ppl") > number(&all, "ppl"), "less context, less is known");

    let text = fs::read_to_string(&file).unwrap();
    let mut command = bitnet();
    let piped = command.args(["perplexity", "--all-tokens", "--json", "-f", "-"]);
    let piped: Value = serde_json::from_str(stdout(&piped.write_stdin(text).unwrap())).unwrap();
    assert_eq!(piped["ppl"], all["ppl"]);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = text(folder.path());
    let file = file.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["-f", file], 2, "1024 are needed at a context of 512: give a longer text, a smaller"),
        (&["-f", file, "-c", "2"], 2, "3 or more"),
        (&["-f", file, "-c", "64", "--ppl-stride", "200"], 2, "stride of 200"),
        (&["-f", file, "--all-tokens", "--ppl-stride", "4"], 2, "cannot be used with"),
        (&["-f", file, "-c", "64", "--chunks", "0"], 2, "--chunks is 0"),
        (&["-f", file, "-b", "0"], 2, "--batch-size"),
        (&["-f", "missing.txt"], 1, "missing.txt"),
        (&[], 2, "--file"),
        (&["-f", file, "-m", "missing.gguf"], 3, "missing.gguf"),
    ];
    for (args, code, words) in cases {
        let output = bitnet().arg("perplexity").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
    }
}

#[test]
fn models_are_compared_as_llama_perplexity_does() {
    let folder = tempfile::tempdir().unwrap();
    let (file, base) = (text(folder.path()), folder.path().join("base"));
    let base = base.to_str().unwrap();
    let saved = json(&["-c", "64", "--kl-divergence-base", base], &file);
    let compare = |args: &[&str]| {
        let mut command = bitnet();
        let given = ["perplexity", "--kl-divergence", "--kl-divergence-base", base];
        command.args(given).args(args).unwrap()
    };
    let of = |args: &[&str]| -> Value {
        serde_json::from_str(stdout(&compare(&[&["--json"], args].concat()))).unwrap()
    };
    let same = of(&[]);
    let ppl = |report: &Value| report["ppl"].as_f64().unwrap();
    assert!((ppl(&same) / ppl(&saved) - 1.0).abs() < 1e-9);
    for field in ["chunks", "scored_tokens", "n_ctx"] {
        assert_eq!(same[field], saved[field]);
    }
    assert_eq!(same["same_top"]["value"], 1.0);
    assert!(same["kl_divergence"]["value"].as_f64().unwrap().abs() < 1e-4, "{same}");
    assert_eq!(same["kl_divergence_quantiles"].as_array().unwrap().len(), 11);
    let other = of(&["--cache-type", "q8_0"]);
    let kld = |report: &Value| report["kl_divergence"]["value"].as_f64().unwrap();
    assert!(kld(&other) > 10.0 * kld(&same).abs(), "{other}");

    let output = compare(&["--cache-type", "q8_0", "--chunks", "3"]);
    let lines: Vec<_> = stdout(&output).lines().collect();
    assert!(lines[0].starts_with("chunk             PPL "), "{lines:?}");
    assert!(lines[3].starts_with("   3  ") && lines[3].matches(" ± ").count() == 5, "{lines:?}");
    for words in ["Mean PPL(Q)", "Mean    KLD", "99.9%   KLD", "Median  Δp", "Same top p"] {
        assert!(lines.iter().any(|line| line.starts_with(words)), "{words} in {lines:?}");
    }

    let other = bitnet()
        .args(["perplexity", "-c", "80", "--kl-divergence", "--kl-divergence-base", base])
        .assert()
        .code(3);
    let said = stderr(other.get_output());
    assert!(said.contains("windows of 64 tokens, and the context is 80"), "{said}");
    fs::write(base, "_logits_ but not really").unwrap();
    let path = file.to_str().unwrap();
    for (args, code, words) in [
        (&["--kl-divergence-base", base][..], 3, "its header says more"),
        (&["--kl-divergence-base", "missing"], 3, "missing"),
        (&["--kl-divergence-base", base, "-f", path], 2, "cannot be used with"),
        (&[], 2, "--kl-divergence-base"),
    ] {
        let mut command = bitnet();
        let output = command.args(["perplexity", "--kl-divergence"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it() {
    use std::io::Read;
    use std::process::{Command, Stdio};

    // Scalar code, so that there is something to interrupt.
    let mut child = Command::new(crate::program())
        .args(["perplexity", "-f", HELDOUT, "--isa", "scalar", "-t", "1", "-c", "64"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stdout(&output).ends_with(",\n") && !stdout(&output).contains("Final"));
}
