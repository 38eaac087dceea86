//! `bitnet tokenize` and `bitnet detokenize`.

use std::fs;

use serde_json::{Value, json};

use crate::{bitnet, stderr, stdout};

fn out(args: &[&str], stdin: &str) -> String {
    stdout(&bitnet().args(args).write_stdin(stdin).unwrap()).to_owned()
}

#[test]
fn text_becomes_tokens_as_llama_tokenize_prints_them() {
    let text = "Once upon a time";
    let lines = out(&["tokenize", text], "");
    assert!(lines.starts_with("  2040 -> '<|begin_of_text|>'\n"), "{lines}");
    let pieces: String =
        lines.lines().skip(1).map(|line| &line["  2040 -> '".len()..line.len() - 1]).collect();
    assert_eq!(pieces, text);

    let ids: Vec<u32> = serde_json::from_str(&out(&["tokenize", "--ids", text], "")).unwrap();
    assert_eq!((ids[0], ids.len()), (2040, 6));
    let list = format!("{ids:?}\n");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    for (args, stdin) in [
        (&["-p", text][..], ""),
        (&["-f", file], ""),
        (&["-f", "-"], text),
        (&["-"], text),
        (&[], text),
    ] {
        assert_eq!(out(&[&["tokenize", "--ids"], args].concat(), stdin), list, "{args:?}");
    }
    assert_eq!(out(&["tokenize", "--ids", "--no-bos", text], ""), format!("{:?}\n", &ids[1..]));
    let counted = out(&["tokenize", "--ids", "--show-count", text], "");
    assert_eq!(counted, format!("{list}Total number of tokens: 6\n"));
    // A newline is a token, too.
    assert_ne!(out(&["tokenize", "--ids"], "Once\n"), out(&["tokenize", "--ids"], "Once"));
    assert_eq!(out(&["tokenize", "--ids", ""], ""), "[2040]\n");
    assert_eq!(out(&["tokenize", "--no-bos", ""], ""), "");
}

#[test]
fn control_tokens_and_odd_bytes_are_told_apart() {
    let end = "<|end_of_text|>";
    assert_eq!(out(&["tokenize", "--no-bos", end], ""), format!("  2041 -> '{end}'\n"));
    let text = out(&["tokenize", "--no-bos", "--no-parse-special", end], "");
    assert!(text.lines().count() > 3, "{text}");
    // A character of three bytes that no token has: parts of it are no text.
    let lines = out(&["tokenize", "--no-bos", "\n\u{6f22}"], "");
    assert!(lines.contains("'\\n'") && lines.contains("\\x"), "{lines}");
    let report: Value =
        serde_json::from_str(&out(&["tokenize", "--json", "a\u{6f22}"], "")).unwrap();
    let tokens = report["tokens"].as_array().unwrap();
    assert_eq!(tokens[0], json!({"id": 2040, "piece": "<|begin_of_text|>"}));
    assert_eq!(report["count"], tokens.len());
    let mut bytes = Vec::new();
    for token in &tokens[1..] {
        match &token["piece"] {
            Value::String(text) => bytes.extend(text.bytes()),
            piece => bytes.extend(serde_json::from_value::<Vec<u8>>(piece.clone()).unwrap()),
        }
    }
    assert_eq!(bytes, "a\u{6f22}".as_bytes());
    let ids: Value = serde_json::from_str(&out(&["tokenize", "--json", "--ids", "a"], "")).unwrap();
    assert_eq!((&ids["tokens"][0], &ids["count"]), (&json!(2040), &json!(2)));
}

#[test]
fn tokens_become_text() {
    let text = "The king said:\n \u{6f22}\u{1f409}\"Go!\"  ";
    let ids = out(&["tokenize", "--ids", text], "");
    assert_eq!(out(&["detokenize"], &ids), format!("{text}\n"));
    assert_eq!(out(&["detokenize", "-"], &ids.replace(", ", "\n")), format!("{text}\n"));
    let list: Vec<u32> = serde_json::from_str(&ids).unwrap();
    let words: Vec<_> = list.iter().map(ToString::to_string).collect();
    let mut args = vec!["detokenize", "--special"];
    args.extend(words.iter().map(String::as_str));
    assert_eq!(out(&args, ""), format!("<|begin_of_text|>{text}\n"));
    let report: Value = serde_json::from_str(&out(&["detokenize", "--json"], &ids)).unwrap();
    assert_eq!(report, json!({"text": text, "tokens": list}));
    assert_eq!(out(&["detokenize", "[]"], ""), "\n");
}

#[test]
fn no_weights_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (demo, cut) =
        (concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bitnet-tales-i2_s.gguf"), "cut.gguf");
    // A matrix with a code that no weight has, which loading refuses.
    let mut bytes = fs::read(demo).unwrap();
    bytes[1_111_744] |= 0xff;
    let path = folder.path().join(cut);
    fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap();
    bitnet().args(["run", "x", "-m", path]).assert().code(3);
    let want = out(&["tokenize", "Once upon"], "");
    assert_eq!(out(&["tokenize", "-m", path, "Once upon"], ""), want);
    assert_eq!(out(&["detokenize", "-m", path, "437"], ""), " there\n");
}

#[test]
fn what_is_no_token_is_refused() {
    for (args, code, words) in [
        (&["detokenize", "2048"][..], 2, "token id 2048 is not in the vocabulary of 2048 tokens"),
        (&["detokenize", "1", "two"], 2, "`two` is no token id"),
        (&["detokenize", "1", "-m", "missing.gguf"], 3, "missing.gguf"),
        (&["tokenize", "x", "-m", "missing.gguf"], 3, "missing.gguf"),
        (&["tokenize", "x", "-f", "y"], 2, "cannot be used with"),
        (&["tokenize", "-f", "missing.txt"], 1, "missing.txt"),
    ] {
        let output = bitnet().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    let output = bitnet().arg("tokenize").write_stdin(&b"\xff"[..]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
}
