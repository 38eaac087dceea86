//! The `bitnet` command as people and programs use it.

use std::fs;
use std::process::{Command as Process, Stdio};

use serde_json::Value;

use crate::{bitnet, program, stderr, stdout};

const GREEDY: &str = " there lived a king who had three sons";
const GREEDY_TOKENS: [u32; 8] = [437, 1024, 258, 530, 394, 342, 752, 1968];

#[test]
fn run_continues_a_prompt_of_the_demo_model() {
    let output = bitnet().args(["run", "Once upon a time", "--temp", "0", "-n", "8"]).unwrap();
    assert_eq!(stdout(&output), format!("{GREEDY}\n"));
    let last = stderr(&output).lines().last().unwrap();
    for figure in ["prompt 6 tok", "generated 8 tok", "tok/s", "first token", "peak memory", "seed"]
    {
        assert!(last.contains(figure), "{last:?} lacks {figure}");
    }
}

#[test]
fn the_prompt_comes_from_wherever_people_put_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("prompt.txt");
    fs::write(&file, "Once upon a time\n").unwrap();
    let greedy = ["run", "--temp", "0", "-n", "8", "--no-display-prompt"];
    let ways: [(&[&str], &str); 5] = [
        (&["-p", "Once upon a time"], ""),
        (&["--prompt", "Once upon a time"], ""),
        (&["-f", file.to_str().unwrap()], ""),
        (&[], "Once upon a time\r\n"),
        (&["-"], "Once upon a time"),
    ];
    for (args, stdin) in ways {
        let output = bitnet().args(greedy).args(args).write_stdin(stdin).unwrap();
        assert_eq!(stdout(&output), format!("{GREEDY}\n"), "{args:?}");
    }
}

#[test]
fn json_is_one_object_with_everything_in_it() {
    let args = ["run", "-p", "Once upon a time", "--temp", "0", "-n", "8", "--json", "-s", "11"];
    let output = bitnet().args(args).args(["-t", "1", "--isa", "scalar"]).unwrap();
    let json: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert_eq!(json["text"], GREEDY);
    assert_eq!(json["tokens"], serde_json::json!(GREEDY_TOKENS));
    assert_eq!(json["prompt_tokens"][0], 2040);
    assert_eq!(json["seed"], 11);
    assert_eq!(json["finish_reason"], "length");
    assert_eq!(json["model"]["architecture"], "bitnet-b1.58");
    assert_eq!(json["model"]["type"], "I2_S");
    assert_eq!(json["model"]["sha256"].as_str().unwrap().len(), 64);
    let figure = |name: &str| json["timings"][name].as_f64().unwrap();
    let decode = 7.0 / figure("decode_ms") * 1e3;
    assert!((figure("decode_per_second") / decode - 1.0).abs() < 1e-6);
    let prompt = 6.0 / figure("prompt_ms") * 1e3;
    assert!((figure("prompt_per_second") / prompt - 1.0).abs() < 1e-6);
    assert!(figure("first_token_ms") >= figure("prompt_ms"));
    assert!(json["timings"]["peak_memory_bytes"].as_u64().unwrap() > 1 << 20);

    // One prompt of 6 tokens and 7 of the 8 tokens are run, through 4 layers of 7 matrices.
    let kernels = &json["kernels"];
    assert_eq!(kernels["gemm_i2s_r32_q8_scalar"], 4 * 7);
    assert_eq!(kernels["gemv_i2s_r32_q8_scalar"], 7 * 4 * 7);
    assert_eq!(kernels["attend_f16_scalar"], 13 * 4 * 4);
    assert_eq!(kernels["norm_f32_scalar"], 13 * 4 * 4 + 8);
    assert_eq!(kernels["head_f16_f32_scalar"], 8);
    assert!(kernels.as_object().unwrap().keys().all(|id| id.ends_with("_scalar")), "{kernels}");
}

#[test]
fn flags_say_how_weights_keys_and_values_are_kept() {
    let args = ["run", "-p", "Once upon a time", "--temp", "0", "-n", "8", "--json"];
    let how = ["--layout", "tl2_r32", "--cache-type", "q8_0", "--isa", "scalar"];
    let json: Value =
        serde_json::from_str(stdout(&bitnet().args(args).args(how).unwrap())).unwrap();
    assert_eq!(json["text"], GREEDY);
    let kernels = &json["kernels"];
    assert_eq!(kernels["gemm_tl2_r32_q8_scalar"], 4 * 7);
    assert_eq!(kernels["gemv_tl2_r32_q8_scalar"], 7 * 4 * 7);
    assert_eq!(kernels["attend_q8_0_scalar"], 13 * 4 * 4);
}

#[test]
fn a_seed_repeats_a_story_and_another_gives_another() {
    let run = |seed: &str, more: &[&str]| {
        let args = ["run", "Once upon a time", "-n", "30", "--seed", seed];
        stdout(&bitnet().args(args).args(more).unwrap()).to_owned()
    };
    let story = run("7", &[]);
    assert_eq!(story, run("7", &["-t", "2"]));
    assert_eq!(story, run("7", &["--isa", "scalar", "-t", "1"]));
    assert_ne!(story, run("8", &[]));
}

#[test]
fn logits_are_written_for_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (name, isa) in [("best", None), ("scalar", Some("scalar"))] {
        let out = folder.path().join(name);
        let mut command = bitnet();
        command.args(["logits", "--ids", "2040,1450,326", "--out"]).arg(&out);
        isa.map(|isa| command.args(["--isa", isa]));
        let output = command.unwrap();
        assert_eq!(stdout(&output), "");
        files.push(fs::read(&out).unwrap());
    }
    assert_eq!(files[0], files[1]);
    let tensors = safetensors::SafeTensors::deserialize(&files[0]).unwrap();
    let logits = tensors.tensor("logits").unwrap();
    assert_eq!(logits.dtype(), safetensors::Dtype::F32);
    assert_eq!(logits.shape(), [3, 2048]);
}

#[cfg(unix)]
#[test]
fn logits_go_where_a_link_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&real, "before").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    bitnet().args(["logits", "--ids", "1", "--out"]).arg(&link).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(fs::read(&real).unwrap().len() > 2048 * 4);
}

#[cfg(target_os = "linux")]
#[test]
fn a_stderr_that_is_full_changes_nothing() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Process::new(program())
        .args(["run", "Once upon a time", "-c", "99999", "--temp", "0", "-n", "8"])
        .stderr(Stdio::from(full))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(stdout(&output), format!("{GREEDY}\n"));
}

#[test]
fn errors_name_the_cause_and_have_their_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.gguf");
    fs::write(&broken, b"GGUF but not really").unwrap();
    let (folder, broken) = (folder.path().to_str().unwrap(), broken.to_str().unwrap());
    let long = "word ".repeat(600);
    let cases: [(&[&str], i32, &str); 22] = [
        (&["run", "hello", "-m", "missing.gguf"], 3, "missing.gguf"),
        (&["run", "hello", "-m", broken], 3, "broken.gguf"),
        (&["run", "hello", "-m", folder], 3, "folder"),
        (&["run", ""], 2, "empty"),
        (&["run", "hello", "-t", "0"], 2, "0 threads"),
        (&["run", "hello", "--isa", "sse9"], 2, "avx512vnni"),
        (&["run", "hello", "--layout", "tl3"], 2, "i2s_r32, tl2_r32"),
        (&["run", "hello", "--cache-type", "q4"], 2, "f32, f16, q8_0"),
        (&["run", "hello", "--device", "cuda"], 2, "cuda"),
        (&["run", "hello", "--top-p", "3"], 2, "top-p"),
        (&["run", "hello", "-p", "twice"], 2, "cannot be used with"),
        (&["run", "hello", "--no-such-flag"], 2, "--no-such-flag"),
        (&["run", &long], 4, "context"),
        (&["run", "hello there", "-c", "2"], 4, "context of 2"),
        (&["logits", "--ids", "4096", "--out", "unwritten"], 2, "4096"),
        (&["run", "-f", "missing.txt"], 1, "missing.txt"),
        (&["run", "hello", "-t", "9223372036854775807"], 2, "1 to 1024"),
        (&["run", "hello", "-t", "-2"], 2, "--threads"),
        (&["run", "hello", "-c", "-1"], 2, "--ctx-size"),
        (&["run", "hello", "-n", "-3"], 2, "--predict"),
        (&["run", "hello", "--temp", "nan"], 2, "must be a number"),
        (&["run", "hello", "--min-p", "-0.5"], 2, "min-p"),
    ];
    for (args, code, words) in cases {
        let output = bitnet().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
        let cause = stderr(&output).lines().next().unwrap();
        let said = cause.matches("os error").count();
        assert!(said <= 1, "{cause} says it twice");
    }
    // Whichever instruction set this machine lacks.
    let lacking = if cfg!(target_arch = "aarch64") { "avx2" } else { "neon" };
    let output = bitnet().args(["run", "hello", "--isa", lacking]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("it has scalar"), "{}", stderr(&output));
}

#[test]
fn a_context_beyond_the_model_is_cut_and_said() {
    let output = bitnet().args(["run", "Once", "-c", "100000", "-n", "1"]).unwrap();
    let notes: Vec<_> = stderr(&output).lines().filter(|line| line.starts_with("note:")).collect();
    assert!(notes.len() == 1 && notes[0].contains("using 512"), "{notes:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Process::new(program())
        .args(["run", "Once upon a time", "-n", "400", "--seed", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_cleanly_with_what_there_is() {
    use std::io::Read;

    // Scalar code, so that the story is long enough to interrupt.
    let mut child = Process::new(program())
        .args(["run", "Once upon a time", "--isa", "scalar", "-t", "1", "--seed", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let id = child.id().to_string();
    assert!(Process::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stdout(&output).ends_with('\n'));
    assert!(stderr(&output).lines().last().unwrap().contains("generated"), "{}", stderr(&output));
}

#[test]
fn a_synthetic_model_that_cannot_be_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let (there, new) = (folder.path().join("there.gguf"), folder.path().join("new.gguf"));
    fs::write(&there, "before").unwrap();
    let (there_path, new_path) = (there.to_str().unwrap(), new.to_str().unwrap());
    let cases: [(&[&str], &str); 7] = [
        (&["--shape", "bitnet-2b-4t", there_path], "--force"),
        (&["--shape", "3b", "--format", "tq2_0", new_path], "3200 columns"),
        (&["--shape", "3b", "--format", "tq1_0", there_path, "--force"], "choose another format"),
        (&["--shape", "70b", new_path], "bitnet-0.7b"),
        (&["--shape", "0.7b", new_path, "--format", "q8_0"], "i2_s"),
        (&["--shape", "0.7b", new_path, "--embedding", "i2_s"], "q8_0"),
        (&["--shape", "0.7b", new_path, "-c", "0"], "from 1"),
    ];
    for (args, words) in cases {
        let output = bitnet().arg("synth").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{args:?}: {}", stderr(&output));
    }
    assert_eq!(fs::read(&there).unwrap(), b"before");
    assert!(!new.exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_synthetic_model_on_a_full_disk_is_an_error() {
    let args = ["synth", "--shape", "0.7b", "--force", "/dev/full"];
    let output = bitnet().args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot be written"), "{}", stderr(&output));
    assert!(fs::exists("/dev/full").unwrap(), "a device is not ours to remove");
}

#[test]
fn samplers_are_those_of_llama_cpp() {
    let run = |args: &[&str]| {
        let output = bitnet().args(["run", "Once upon a time", "-n", "8"]).args(args).output();
        let output = output.unwrap();
        (output.status.code(), stdout(&output).to_owned(), stderr(&output).to_owned())
    };
    let greedy = format!("{GREEDY}\n");
    // Each leaves the likeliest tokens alone.
    for args in [
        &["--top-k", "1"][..],
        &["--top-n-sigma", "0.01"],
        &["--samplers", "top_k;temperature", "--top-k", "1"],
        &["--temp", "0", "--dry-multiplier", "0"],
    ] {
        assert_eq!(run(args).1, greedy, "{args:?}");
    }
    // The second token is " lived": it is made unlikely, or never drawn.
    for args in [
        &["--logit-bias", "1024-100"][..],
        &["-l", "1024-inf"],
        &["-l", "437+0", "-l", "1024-inf"],
        &["--xtc-probability", "1", "--xtc-threshold", "0.01"],
        &["--typical", "0.05"],
    ] {
        let (code, text, _) = run(&[args, &["--temp", "0"]].concat());
        assert_eq!(code, Some(0), "{args:?}");
        assert_ne!(text, greedy, "{args:?}");
    }
    for (args, what) in [
        (&["--samplers", "top_k;best"][..], "no sampler best"),
        (&["-l", "1024"], "ID+BIAS"),
        (&["-l", "4000+1"], "4000 is not in the vocabulary of 2048"),
        (&["--xtc-probability", "2"], "xtc-probability"),
        (&["--dry-base", "0"], "dry-base"),
        (&["--stop", ""], "stop string is empty"),
        (&["--json-schema", "{"], "is not JSON"),
        (&["--json-schema", "{\"enum\":[]}"], "JSON schema"),
        (&["--regex", "("], "regular expression"),
        (&["--grammar", "root ::= missing"], "missing"),
        (&["--grammar", "root ::= root"], "grammar"),
        (&["--grammar-file", "no/such/file"], "no/such/file"),
    ] {
        let (code, text, said) = run(args);
        let expected = if args[0] == "--grammar-file" { Some(1) } else { Some(2) };
        assert_eq!((code, text.as_str()), (expected, ""), "{args:?}: {said}");
        assert!(said.contains(what), "{args:?}: {said}");
    }
}

#[test]
fn texts_end_at_stop_strings_and_are_what_they_must_be() {
    let run = |args: &[&str]| {
        let output = bitnet().args(["run", "Once upon a time", "--temp", "0"]).args(args).unwrap();
        stdout(&output).to_owned()
    };
    assert_eq!(run(&["-n", "20", "-r", "king who"]), " there lived a \n");
    assert_eq!(run(&["-n", "20", "--stop", "three", "--stop", "a king"]), " there lived \n");
    assert_eq!(run(&["--regex", "[A-Z]{3}-[0-9]{2}"]).trim_end().len(), 6);
    let schema = r#"{"type":"object","properties":{"n":{"type":"integer","minimum":3,"maximum":9}},
        "required":["n"],"additionalProperties":false}"#;
    let json: Value = serde_json::from_str(&run(&["-j", schema])).unwrap();
    assert!((3..=9).contains(&json["n"].as_i64().unwrap()), "{json}");
    let yes = run(&["--grammar", "root ::= (\"yes\" | \"no\") \"!\""]);
    assert!(["yes!\n", "no!\n"].contains(&yes.as_str()), "{yes}");
}

#[test]
fn guesses_change_no_text() {
    let run = |args: &[&str]| {
        let args = [&["run", "the king and the king and the king", "-n", "60", "-s", "4"], args];
        let output = bitnet().args(args.concat()).unwrap();
        (stdout(&output).to_owned(), stderr(&output).to_owned())
    };
    let (plain, said) = run(&[]);
    assert!(!said.contains("guesses"));
    let (guessed, said) = run(&["--spec", "ngram", "--draft-max", "8"]);
    assert_eq!(plain, guessed);
    assert!(said.contains("guesses right"), "{said}");
}

#[test]
fn prompts_are_kept_in_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache");
    let file = path.to_str().unwrap();
    let prompt =
        "Once upon a time there was a king who had a daughter, and she was so beautiful that ";
    let run = |args: &[&str]| {
        let all = [&["run", prompt, "-n", "20", "--temp", "0", "--prompt-cache", file], args];
        let output = bitnet().args(all.concat()).output().unwrap();
        (output.status.code(), stdout(&output).to_owned(), stderr(&output).to_owned())
    };
    let (_, first, said) = run(&["--prompt-cache-ro"]);
    assert!(!said.contains("cached") && !path.exists());
    assert_eq!(run(&[]).1, first);
    let (_, again, said) = run(&[]);
    assert!(said.contains("(16 cached)"), "{said}");
    assert_eq!(again, first);
    run(&["--prompt-cache-all"]);
    let longer = format!("{prompt}{first}");
    let all = ["run", &longer, "-n", "4", "--prompt-cache", file];
    let said = stderr(&bitnet().args(all).unwrap()).to_owned();
    assert!(said.contains("(32 cached)"), "{said}");
    // Of another format, of another model, and damaged.
    let (code, text, said) = run(&["--cache-type", "q8_0"]);
    assert_eq!((code, text.as_str()), (Some(3), ""));
    assert!(said.contains("--cache-type f16"), "{said}");
    let other = folder.path().join("other.gguf");
    let demo = crate::models::demo();
    bitnet().arg("convert").args([&demo, &other]).args(["--to", "tq2_0"]).unwrap();
    let (code, text, said) = run(&["-m", other.to_str().unwrap()]);
    assert_eq!((code, text.as_str()), (Some(3), ""));
    assert!(said.contains("another model"), "{said}");
    let whole = fs::read(&path).unwrap();
    for (at, damage) in [(whole.len() - 9, "a bit"), (30, "the header"), (0, "the length")] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let (code, text, said) = run(&[]);
        assert_eq!((code, text.as_str()), (Some(3), ""), "{damage}: {said}");
        assert!(said.contains(file), "{damage}: {said}");
    }
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(run(&[]).0, Some(3));
    // Of other weights, which the same file has when it is read otherwise.
    fs::write(&path, &whole).unwrap();
    let (code, _, said) = run(&["-m", demo.to_str().unwrap(), "--read-as", "i2s_arm"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("read as i2s_arm"), "{said}");
    // The prompt alone; a link stays one.
    fs::remove_file(&path).unwrap();
    let (_, text, said) = run(&["-n", "0"]);
    assert_eq!(text, "\n");
    assert!(said.contains("generated 0"), "{said}");
    #[cfg(unix)]
    std::os::unix::fs::symlink(&path, folder.path().join("link")).unwrap();
    #[cfg(unix)]
    let file = folder.path().join("link").display().to_string();
    let all = ["run", prompt, "-n", "20", "--temp", "0", "--prompt-cache", &file];
    let output = bitnet().args(all).unwrap();
    assert!(stderr(&output).contains("(16 cached)"), "{output:?}");
    assert_eq!(stdout(&output), first);
    #[cfg(unix)]
    assert!(fs::symlink_metadata(&file).unwrap().is_symlink());
    // What cannot be read or written is said before anything is computed.
    for file in ["/dev/null", "no/such/folder/file", folder.path().to_str().unwrap()] {
        let all = ["run", prompt, "-n", "20", "--prompt-cache", file];
        let output = bitnet().args(all).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(stderr(&output).contains(file), "{output:?}");
    }
}

#[test]
fn flags_of_llama_cpp_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema");
    fs::write(&schema, r#"{"const":7}"#).unwrap();
    let run = |args: &[&str]| {
        let all = [&["run", "Once upon a time", "--temp", "0", "-n", "4"], args];
        let output = bitnet().args(all.concat()).output().unwrap();
        (output.status.code(), stdout(&output).to_owned(), stderr(&output).to_owned())
    };
    let (_, text, _) = run(&[]);
    // The last of several counts.
    assert_eq!(run(&["-n", "1", "-n", "4"]).1, text);
    for same in [
        &["-temp", "0.9", "--top-nsigma", "0.001"][..],
        &["-temp", "0.9", "--samplers", "top-k;temp", "--top-k", "1"],
        &["-ctk", "f16", "-ctv", "f16"],
    ] {
        let (code, again, said) = run(same);
        assert_eq!((code, &again), (Some(0), &text), "{same:?}: {said}");
    }
    assert_eq!(run(&["-jf", schema.to_str().unwrap()]).1, "7\n");
    assert!(run(&["-ngl", "99"]).2.contains("--device"));
    for (args, code, what) in [
        (&["-ctk", "q8_0", "-ctv", "f16"][..], 2, "kept alike"),
        (&["-hf", "nobody/nothing"], 3, "nobody/nothing"),
    ] {
        let (found, text, said) = run(args);
        assert_eq!((found, text.as_str()), (Some(code), ""), "{said}");
        assert!(said.contains(what), "{said}");
    }
}
