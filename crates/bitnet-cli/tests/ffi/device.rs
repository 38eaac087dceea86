//! A library behind the engine: `--device llama`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bitnet;
use crate::fakes::{Fake, can_build};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bitnet-tales-i2_s.gguf");

/// A library that takes the demo model for one of its own; of its tokens each is followed by the next.
fn fake(macros: &[&str]) -> Fake {
    Fake::llama(&[&["VOCABULARY=2048"], macros].concat())
}

/// Runs a command on it: the exit code, and what was said.
fn run(library: &Path, command: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let mut program = bitnet();
    program.args([command, "-m", DEMO, "-c", "60", "--device", "llama", "--reference"]);
    let output = program.arg(library).args(more).write_stdin("").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn receipt(library: &Path, path: &Path, more: &[&str]) -> Value {
    let path = path.to_str().unwrap();
    let args = ["Once upon a time", "-n", "8", "--temp", "0", "--receipt", path];
    let (code, _, said) = run(library, "run", &[&args, more].concat());
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn what_computed_stands_in_the_receipt() {
    if !can_build() {
        return;
    }
    let (fake, other) = (fake(&[]), fake(&["VERSION=\"2.0.0\""]));
    let path = fake.folder.path().join("receipt.json");
    let found = receipt(&fake.library, &path, &["--ignore-eos"]);
    assert_eq!(found["machine"]["device"], "llama");
    assert_eq!(found["machine"]["library"]["file"], "libllama.so");
    let sha256 = bitnet_inference::sha256(fs::read(&fake.library).unwrap());
    assert_eq!(found["machine"]["library"]["sha256"], json!(sha256));
    // One pass for the prompt, and one for each token but the last.
    assert_eq!(found["kernels"], json!({ "Llama_CPU": 8 }));
    assert_eq!(found["model"]["matrices"], json!([]));
    let verify = |library: &Path, model: bool| {
        let mut program = bitnet();
        program.arg("verify").arg(&path).arg("--reference").arg(library);
        let output = program.args(if model { &["-m", DEMO][..] } else { &[] }).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    for model in [false, true] {
        let (code, said) = verify(&fake.library, model);
        assert!(code == Some(0) && said.contains("ok    passes of the library"), "{said}");
        assert_eq!(said.contains("ok    the same run again"), model, "{said}");
    }
    // Another library is another, even if it computes the same.
    let (code, said) = verify(&other.library, true);
    assert!(code == Some(5) && said.contains("WRONG the library"), "{said}");
    // Nor are counts what somebody writes.
    let mut forged: Vec<_> = vec![found.clone(); 4];
    forged[0]["kernels"]["Llama_CPU"] = json!(9);
    forged[1]["kernels"] = json!({ "Llama_CUDA": 4, "Llama_CPU": 4 });
    forged[2]["machine"]["device"] = json!("cpu");
    forged[3]["machine"]["library"]["sha256"] = json!("none");
    for (forged, word) in forged.into_iter().zip(["passes", "Llama_CUDA", "library", "no file"]) {
        fs::write(&path, forged.to_string()).unwrap();
        let (code, said) = verify(&fake.library, false);
        assert!(code == Some(5) && said.contains(word), "{word}: {said}");
    }
}

/// What is generated is what the library predicts, whoever asks.
#[test]
fn what_it_predicts_is_generated() {
    if !can_build() {
        return;
    }
    let fake = fake(&[]);
    let tokens = |text: &str| -> Vec<u64> {
        let output = bitnet().args(["tokenize", "-m", DEMO, "--ids", text]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (code, text, said) =
        run(&fake.library, "run", &["Once upon a time", "-n", "4", "--temp", "0"]);
    assert_eq!(code, Some(0), "{said}");
    let last = *tokens("Once upon a time").last().unwrap();
    let expected: Vec<_> = (1..=4).map(|i| (last + i) % 2048).collect();
    let mut command = bitnet();
    command.args(["detokenize", "-m", DEMO]);
    let ids: Vec<_> = expected.iter().map(u64::to_string).collect();
    let output = command.args(ids).output().unwrap();
    assert_eq!(text.trim_end(), String::from_utf8(output.stdout).unwrap().trim_end());
}

#[test]
fn what_it_cannot_do_is_said() {
    if !can_build() {
        return;
    }
    let fake = fake(&[]);
    for (command, more, words) in [
        ("run", &["hello", "--cache-type", "q8_0"][..], "keys and values in q8_0"),
        ("run", &["hello", "--dequantize"], "--dequantize"),
        ("run", &["hello", "--isa", "scalar"], "--isa"),
        ("run", &["hello", "--layout", "i2s_r32"], "--layout"),
        ("run", &["hello", "--read-as", "i2s_arm"], "--read-as"),
        ("run", &["hello", "--prompt-cache", "keys.cache"], "--prompt-cache"),
        ("embed", &["hello"], "embeddings"),
    ] {
        let (code, _, said) = run(&fake.library, command, more);
        assert!(code == Some(2) && said.contains(words), "{more:?}: {code:?} {said}");
    }
    let (code, _, said) = run(Path::new("no/such.so"), "run", &["hello"]);
    assert!(code == Some(3) && said.contains("no/such.so"), "{said}");
    let mut demo = bitnet();
    demo.args(["run", "hello", "--device", "llama", "--reference"]).arg(&fake.library);
    let output = demo.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(3) && said.contains("reads a GGUF file"), "{said}");
}

/// Ctrl-C is for the program: what has been generated stays, and the library hears nothing of it.
#[cfg(unix)]
#[test]
fn it_hears_no_interrupt() {
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};
    if !can_build() {
        return;
    }
    let fake = fake(&["SLEEP"]);
    let mut program = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    program.args(["run", "hello", "-m", DEMO, "-c", "60", "-n", "50", "--ignore-eos"]);
    program.args(["--device", "llama", "--reference"]).arg(&fake.library).process_group(0);
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    // The first token has come.
    let mut byte = [0];
    std::io::Read::read_exact(&mut stdout, &mut byte).unwrap();
    let group = format!("-{}", child.id());
    assert!(Command::new("kill").args(["-INT", "--", &group]).status().unwrap().success());
    let said: Vec<_> = BufReader::new(child.stderr.take().unwrap()).lines().collect();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said:?}");
}

/// Another process of it takes the place of one that died, for texts that begin.
#[test]
fn a_server_survives_it() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::process::{Command, Stdio};
    if !can_build() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let once = format!("ABORT_ONCE=\"{}\"", folder.path().join("once").display());
    let fake = fake(&[&once]);
    let mut server = Command::new(env!("CARGO_BIN_EXE_bitnet"));
    server.args(["serve", "-m", DEMO, "-c", "60", "--port", "0", "--parallel", "2"]);
    server.args(["--device", "llama"]);
    let mut server =
        server.arg("--reference").arg(&fake.library).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let address =
        lines.find_map(|line| line.ok()?.strip_prefix("listening on http://").map(str::to_owned));
    let address = address.unwrap();
    // Somebody must read what it says.
    std::thread::spawn(move || lines.for_each(drop));
    let ask = |route: &str, body: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = "Content-Type: application/json\r\nConnection: close\r\nHost: localhost";
        let length = body.len();
        write!(stream, "POST {route} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let text = r#"{"prompt": "Once", "max_tokens": 3, "temperature": 0}"#;
    // It loads the model meanwhile.
    let first = loop {
        let answer = ask("/v1/completions", text);
        if !answer.starts_with("HTTP/1.1 503") {
            break answer;
        }
    };
    assert!(first.starts_with("HTTP/1.1 500") && first.contains("SIGABRT"), "{first}");
    let second = ask("/v1/completions", text);
    assert!(second.starts_with("HTTP/1.1 200"), "{second}");
    let embeddings = ask("/v1/embeddings", r#"{"input": "Once"}"#);
    assert!(embeddings.starts_with("HTTP/1.1 400"), "{embeddings}");
    assert!(embeddings.contains("does not do this: embeddings"), "{embeddings}");
    server.kill().unwrap();
    server.wait().unwrap();
}

/// It dies, and the program says so and ends as it should.
#[test]
fn its_death_is_an_error() {
    if !can_build() {
        return;
    }
    for (how, words) in [("ABORT", "SIGABRT"), ("CRASH", "SIGSEGV")] {
        let (code, _, said) = run(&fake(&[how]).library, "run", &["hello", "-n", "4"]);
        assert!(code == Some(1) && said.contains(words), "{how}: {said}");
    }
}
