//! `bitnet embed`.

use std::fs;

use serde_json::Value;

use crate::{bitnet, stderr, stdout};

const TEXTS: [&str; 3] =
    ["The king had three sons.", "The queen had two sons.", "Seven ravens flew."];

fn embed(args: &[&str]) -> String {
    stdout(&bitnet().arg("embed").args(args).unwrap()).to_owned()
}

fn array(args: &[&str]) -> Vec<Vec<f64>> {
    serde_json::from_str(&embed(&[&["--embd-output-format", "array"], args].concat())).unwrap()
}

#[test]
fn each_text_has_its_embedding_however_it_comes() {
    let want = array(&TEXTS);
    assert_eq!((want.len(), want[0].len()), (3, 256));
    for (text, embedding) in TEXTS.iter().zip(&want) {
        let length: f64 = embedding.iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-5);
        assert_eq!(array(&[text])[0], *embedding, "alone as beside others");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("texts.txt");
    let path = file.to_str().unwrap();
    fs::write(&file, TEXTS.join("\r\n") + "\r\n").unwrap();
    assert_eq!(array(&["-f", path]), want);
    fs::write(&file, TEXTS.join("<#sep#>") + "\n").unwrap();
    assert_eq!(array(&["-f", path, "--separator", "<#sep#>"]), want);
    let piped = bitnet()
        .args(["embed", "--embd-output-format", "array"])
        .write_stdin(TEXTS.join("\n"))
        .unwrap();
    assert_eq!(serde_json::from_str::<Vec<Vec<f64>>>(stdout(&piped)).unwrap(), want);
    let ids = bitnet().args(["tokenize", "--ids", TEXTS[0]]).unwrap();
    let ids = stdout(&ids).trim().trim_matches(['[', ']']).replace(' ', "");
    assert_eq!(array(&["--ids", &ids])[0], want[0]);
}

#[test]
fn the_formats_of_llama_embedding() {
    let want = array(&TEXTS);
    let json: Value = serde_json::from_str(&embed(&[&["--json"], &TEXTS[..]].concat())).unwrap();
    assert_eq!((&json["object"], &json["model"]), (&"list".into(), &"the demo model".into()));
    for (index, row) in want.iter().enumerate() {
        let entry = &json["data"][index];
        assert_eq!((&entry["object"], &entry["index"]), (&"embedding".into(), &index.into()));
        assert_eq!(serde_json::from_value::<Vec<f64>>(entry["embedding"].clone()).unwrap(), *row);
    }
    assert!(json["usage"]["prompt_tokens"].as_u64().unwrap() > 15);
    assert!(json.get("cosineSimilarity").is_none());
    let plus = embed(&[&["--embd-output-format", "json+"], &TEXTS[..]].concat());
    let plus: Value = serde_json::from_str(&plus).unwrap();
    assert_eq!(plus["data"], json["data"]);
    for i in 0..3 {
        for j in 0..3 {
            let dot: f64 = want[i].iter().zip(&want[j]).map(|(a, b)| a * b).sum();
            let found = plus["cosineSimilarity"][i][j].as_f64().unwrap();
            assert!((found - dot).abs() < 1e-5, "{found} {dot}");
        }
    }

    let raw = embed(&[&["--raw"], &TEXTS[..]].concat());
    for (line, row) in raw.lines().zip(&want) {
        let numbers: Vec<f64> = line.split(' ').map(|x| x.parse().unwrap()).collect();
        assert_eq!(numbers.len(), row.len());
        assert!(numbers.iter().zip(row).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    let lines = embed(&TEXTS);
    let numbers = |line: &str| line.split_whitespace().filter(|w| w.contains('.')).count();
    let lines: Vec<_> = lines.lines().collect();
    assert!(lines[2].starts_with("embedding 2: ") && numbers(lines[2]) == 16, "{lines:?}");
    assert_eq!(lines[4], "cosine similarity matrix:");
    assert!(lines[6].starts_with("  1.00 ") && lines[6].ends_with(" The king h"), "{lines:?}");
    assert_eq!(numbers(embed(&[TEXTS[0]]).lines().next().unwrap()), 256);
}

#[test]
fn norms_are_those_asked_for() {
    let two = &array(&[TEXTS[0]])[0];
    for (p, want) in [("1", 1.0), ("3", 3.0), ("2", 2.0)] {
        let row = &array(&["--embd-normalize", p, TEXTS[0]])[0];
        let sum: f64 = row.iter().map(|x| x.abs().powf(want)).sum();
        assert!((sum - 1.0).abs() < 1e-4, "{p}: {sum}");
        let ratio = row[0] / two[0];
        assert!(row.iter().zip(two).all(|(a, b)| (a - b * ratio).abs() < 1e-5), "{p}");
    }
    let whole = &array(&["--embd-normalize", "0", TEXTS[0]])[0];
    assert!(whole.iter().all(|x| x.fract() == 0.0));
    assert_eq!(whole.iter().fold(0.0_f64, |most, x| most.max(x.abs())), 32760.0);
}

#[test]
fn models_for_it_and_others_are_told_apart() {
    let note = "note: this model was trained to continue text, not for embeddings";
    assert!(stderr(&bitnet().args(["embed", "x"]).unwrap()).contains(note));
    for (name, width) in [("qwen3-embedding", 64), ("gemma3-embedding", 48)] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../bitnet-inference/tests/references/");
        let args = ["embed", "--ids", "1,2,3", "--json", "-m", &format!("{folder}{name}")];
        let output = bitnet().args(args).unwrap();
        assert!(!stderr(&output).contains(note), "{}", stderr(&output));
        let json: Value = serde_json::from_str(stdout(&output)).unwrap();
        assert_eq!(json["data"][0]["embedding"].as_array().unwrap().len(), width);
    }
}

#[test]
fn what_has_no_embedding_is_refused() {
    let long = "word ".repeat(600);
    for (args, stdin, code, words) in [
        (&["x", &long][..], "", 4, "text 2: "),
        (&["x", ""], "", 2, "text 2 is empty"),
        (&[], "one\n\nthree\n", 2, "text 2 is empty"),
        (&[], "", 2, "text 1 is empty"),
        (&["x", "--embd-normalize", "-1"], "", 2, "--embd-normalize -1 needs"),
        (&["x", "--embd-normalize", "-2"], "", 2, "-2"),
        (&["x", "--embd-output-format", "xml"], "", 2, "json+"),
        (&["x", "--json", "--raw"], "", 2, "cannot be used with"),
        (&["-", "--separator", ""], "x", 2, "--separator"),
        (&["--ids", "4096"], "", 2, "4096"),
        (&["-f", "missing.txt"], "", 1, "missing.txt"),
        (&["x", "-m", "missing.gguf"], "", 3, "missing.gguf"),
    ] {
        let output = bitnet().arg("embed").args(args).write_stdin(stdin).output().unwrap();
        let what = &args[..args.len().min(2)];
        assert_eq!(output.status.code(), Some(code), "{what:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{what:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}
