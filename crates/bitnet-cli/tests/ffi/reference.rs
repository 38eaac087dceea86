//! A library in a process of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bitnet_ffi::compare::top;
use bitnet_ffi::contract::Contract;
use bitnet_ffi::{
    Error, Host, Patience, Reference, Row, Settings, analyze_library, validate_ffi_library,
};

use crate::bitnet;
use crate::fakes::{Fake, can_build, host};

fn settings() -> Settings {
    Settings {
        context: 32,
        batch: 4,
        threads: 1,
        sequences: 2,
        gpu_layers: 0,
        exact_cache: true,
        layers: false,
        vocabulary: 16,
    }
}

fn row(sequence: usize, position: usize, token: u32, logits: bool) -> Row {
    Row { sequence, position, token, logits }
}

#[test]
fn a_library_computes() {
    if !can_build() {
        return;
    }
    let fake = Fake::llama(&[]);
    let mut reference = fake.open().unwrap();
    let info = reference.info();
    assert_eq!(info.contract, Contract::LlamaMemory);
    assert_eq!(info.versions, [("llama_version".to_owned(), "1.0.0".to_owned())]);
    assert_eq!(info.layouts, ["b5590 to b10361", "b6431 to b7347"]);
    assert_eq!((info.backends.as_slice(), info.cuda), (&["Llama_CPU"][..], false));
    assert_eq!(info.sha256.len(), 64);
    // Nothing is computed without a model.
    let error = reference.run(&[row(0, 0, 1, true)]).unwrap_err();
    assert!(error.to_string().contains("no model has been loaded"), "{error}");
    let loaded = reference.load(&fake.model(), &settings()).unwrap();
    assert_eq!((loaded.context, &*loaded.description), (64, "a model of 16 tokens"));
    assert!(!loaded.offloads);
    let other = Settings { vocabulary: 17, ..settings() };
    let error = reference.load(&fake.model(), &other).unwrap_err();
    assert!(error.to_string().contains("16 tokens in the model's vocabulary, not 17"), "{error}");
    let error = reference.load(Path::new("missing"), &settings()).unwrap_err().to_string();
    assert!(error.contains("cannot load missing; it wrote:"), "{error}");
    assert!(error.contains("llama_model_load: cannot open missing"), "{error}");
    reference.load(&fake.model(), &settings()).unwrap();
    assert_eq!(reference.tokenize("AB\0", true, true).unwrap(), [0, 1, 2, 0]);
    assert_eq!(reference.tokenize("", false, false).unwrap(), [0; 0]);
    // More rows than a pass has, of two sequences, some with logits.
    let mut rows: Vec<_> = (0..10).map(|i| row(0, i, i as u32, i % 3 == 0)).collect();
    rows.push(row(1, 0, 15, true));
    let found = reference.run(&rows).unwrap();
    assert_eq!(found.values.len(), 5 * 16);
    let tops: Vec<_> = found.values.chunks(16).map(top).collect();
    assert_eq!(tops, [1, 4, 7, 10, 0]);
    assert_eq!(found.values[4 * 16 + 1], 0.25);
    // Positions must follow; what is forgotten can be written again.
    for (wrong, words) in [
        (row(0, 3, 1, true), "position 3 of sequence 0 does not follow 10 tokens"),
        (row(2, 0, 1, true), "there is no sequence 2"),
        (row(1, 1, 16, true), "token 16 is not in a vocabulary of 16"),
    ] {
        let error = reference.run(&[wrong]).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(reference.truncate(9, 0).is_err());
    reference.truncate(0, 3).unwrap();
    assert_eq!(top(&reference.run(&[row(0, 3, 8, true)]).unwrap().values), 9);
    let many: Vec<_> = (1..64).map(|i| row(1, i, 0, false)).chain([row(1, 64, 0, false)]).collect();
    let error = reference.run(&many).unwrap_err();
    assert!(error.to_string().contains("no room"), "{error}");
}

#[test]
fn the_interface_of_bitnet_cpp_computes() {
    if !can_build() {
        return;
    }
    let fake = Fake::bitnet(&[]);
    let mut reference = fake.open().unwrap();
    assert_eq!(reference.info().contract, Contract::Bitnet);
    reference.load(&fake.model(), &settings()).unwrap();
    assert_eq!(reference.tokenize("AB", true, false).unwrap(), [0, 1, 2]);
    assert!(reference.tokenize("A\0B", true, false).unwrap_err().to_string().contains("zero"));
    let found =
        reference.run(&[row(0, 0, 3, true), row(0, 1, 4, true), row(1, 0, 5, true)]).unwrap();
    assert_eq!(found.values.chunks(16).map(top).collect::<Vec<_>>(), [4, 6, 6]);
    reference.truncate(0, 1).unwrap();
    assert_eq!(top(&reference.run(&[row(0, 1, 7, true)]).unwrap().values), 9);
    let error = reference.load(Path::new("missing"), &settings()).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

/// What a library does to its process is an error here, with what it wrote.
#[test]
fn failures_are_errors() {
    if !can_build() {
        return;
    }
    for (how, words) in [
        ("ABORT", &["signal 6 (SIGABRT)", "`run`", "GGML_ASSERT(n_tokens == 0) failed"][..]),
        ("CRASH", &["signal 11 (SIGSEGV)", "`run`"]),
        ("EXIT", &["exit status: 3", "`run`"]),
    ] {
        let fake = Fake::llama(&[how]);
        let mut reference = fake.open().unwrap();
        reference.load(&fake.model(), &settings()).unwrap();
        let error = reference.run(&[row(0, 0, 1, true)]).unwrap_err();
        assert!(matches!(error, Error::Died { .. }), "{how}: {error}");
        let text = error.to_string();
        words.iter().for_each(|word| assert!(text.contains(word), "{how}: {text}"));
        // And stays one.
        let error = reference.tokenize("a", true, true).unwrap_err();
        assert!(matches!(error, Error::Died { call: "tokenize", .. }), "{how}: {error}");
    }
    // Even where a process of its own goes on.
    let fake = Fake::llama(&["FORK"]);
    let mut reference = fake.open_within(Duration::from_secs(30)).unwrap();
    reference.load(&fake.model(), &settings()).unwrap();
    let error = reference.run(&[row(0, 0, 1, true)]).unwrap_err();
    assert!(matches!(error, Error::Died { .. }), "{error}");
    let error = Fake::llama(&["ABORT_ON_OPEN"]).open().unwrap_err();
    assert!(matches!(error, Error::Died { call: "open", .. }), "{error}");
    assert!(error.to_string().contains("GGML_ASSERT(opened) failed"), "{error}");
}

#[test]
fn a_library_that_hangs_is_given_up() {
    if !can_build() {
        return;
    }
    let start = Instant::now();
    let fake = Fake::llama(&["HANG"]);
    let mut reference = Reference::open(
        &fake.library,
        host(),
        Patience { open: Duration::from_secs(60), call: Duration::from_secs(1) },
    )
    .unwrap();
    reference.load(&fake.model(), &settings()).unwrap();
    let error = reference.run(&[row(0, 0, 1, true)]).unwrap_err();
    assert!(matches!(error, Error::Late { call: "run", seconds: 1, .. }), "{error}");
    assert!(error.to_string().contains("thinking"), "{error}");
    let error = Fake::llama(&["HANG_ON_OPEN"]).open_within(Duration::from_secs(1)).unwrap_err();
    assert!(matches!(error, Error::Late { call: "open", .. }), "{error}");
    // One that is only slow is waited for.
    Fake::llama(&["SLOW"]).open().unwrap();
    assert!(start.elapsed() < Duration::from_secs(100), "it was not given up");
}

/// Where nobody asks any more, it ends by itself. A library that reads standard input reads nothing.
#[cfg(unix)]
#[test]
fn its_process_ends_when_it_is_done() {
    if !can_build() {
        return;
    }
    let fake = Fake::llama(&["READ_STDIN"]);
    let path = fake.folder.path().join("code");
    let code = format!("{} ffi-host; echo $? >{}", env!("CARGO_BIN_EXE_bitnet"), path.display());
    let host = Host { program: "sh".into(), args: vec!["-c".to_owned(), code] };
    let reference = Reference::open(&fake.library, host, Patience::default()).unwrap();
    assert!(!path.exists());
    drop(reference);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "0\n");
}

/// Functions are called with what they take, or not at all.
#[test]
fn sizes_are_checked_before_a_call() {
    if !can_build() {
        return;
    }
    let fake = Fake::llama(&[]);
    let mut reference = fake.open().unwrap();
    let refused = |result: Result<(), Error>, words: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    let read = |reference: &mut Reference, name: &str, bytes: usize, count| {
        reference.dequantize(name, &vec![0; bytes], count).map(|_| ())
    };
    refused(read(&mut reference, "dequantize_row_tq2_0", 1, 256), "1 bytes are not 256 numbers");
    refused(read(&mut reference, "dequantize_row_tq2_0", 66, 300), "300");
    refused(read(&mut reference, "llama_free", 66, 256), "for no format that is known");
    refused(read(&mut reference, "dequantize_row_other", 66, 256), "for no format");
    refused(read(&mut reference, "dequantize_row_tq2_0", 66, 256), "it has no function");
    let write = reference.quantize("quantize_q8_0", &[0.0; 64], (1, 1)).map(|_| ());
    refused(write, "are not 1 bytes");
    let write = reference.quantize("quantize_row_q8_0", &[0.0; 64], (1, 68)).map(|_| ());
    refused(write, "for no format");
    let mut dot = |names, bytes: usize, cols| {
        reference.dot(names, (&vec![0; bytes], 2), &vec![0.0; cols], 1).map(|_| ())
    };
    let names = ("ggml_vec_dot_q8_0_q8_0", "quantize_row_q8_0");
    refused(dot(names, 68, 64), "are not 2 rows of 64 numbers");
    refused(dot(names, 2, 1), "1");
    refused(dot(("ggml_vec_dot_q8_0_q8_0", "llama_free"), 136, 64), "makes no activations");
    refused(dot(names, 136, 64), "it has no function");
}

/// What cannot be known is not used.
#[test]
fn other_structures_are_refused() {
    if !can_build() {
        return;
    }
    for (how, words) in [
        ("OTHER_MODEL", "llama_model_params, of 104 bytes"),
        ("OTHER_CONTEXT", "llama_context_params, of 128 bytes"),
    ] {
        let fake = Fake::llama(&[how]);
        let error = fake.open().unwrap_err();
        assert!(matches!(error, Error::Layout { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("libllama.so"), "{error}");
    }
    // It need not say which version it is.
    assert!(Fake::llama(&["NO_VERSION"]).open().unwrap().info().versions.is_empty());
}

#[test]
fn missing_functions_are_named() {
    if !can_build() {
        return;
    }
    let fake = Fake::llama(&["NO_DECODE"]);
    let error = fake.open().unwrap_err();
    assert!(
        matches!(&error, Error::Missing { missing, .. } if missing == &["llama_decode"]),
        "{error}"
    );
    assert!(
        error.to_string().contains("not llama.cpp since June 2025: without llama_decode"),
        "{error}"
    );
    let error = validate_ffi_library(&Fake::bitnet(&["NO_EVAL"]).library).unwrap_err();
    assert!(
        error.to_string().contains("the C interface of bitnet.cpp: without bitnet_eval"),
        "{error}"
    );
}

/// Another build in place of the first, with the same model; or the first, if the other is none.
#[test]
fn libraries_are_exchanged() {
    if !can_build() {
        return;
    }
    let (first, second) = (Fake::llama(&[]), Fake::llama(&["VERSION=\"2.0.0\""]));
    let mut reference = first.open().unwrap();
    reference.load(&first.model(), &settings()).unwrap();
    reference.reload_backend(&second.library).unwrap();
    assert_eq!(reference.info().versions[0].1, "2.0.0");
    assert_eq!(top(&reference.run(&[row(0, 0, 3, true)]).unwrap().values), 4);
    for broken in [
        Fake::llama(&["NO_DECODE"]),
        Fake::llama(&["OTHER_MODEL"]),
        Fake::llama(&["ABORT_ON_OPEN"]),
    ] {
        assert!(reference.reload_backend(&broken.library).is_err());
        assert_eq!(reference.info().versions[0].1, "2.0.0");
        reference.truncate(0, 1).unwrap();
        assert_eq!(top(&reference.run(&[row(0, 1, 7, true)]).unwrap().values), 8);
    }
    // Between calls nothing is held: the files can go.
    drop(second);
    assert!(reference.tokenize("a", true, true).is_ok());
}

/// A library that needs another beside it: nobody has to tell the system where that is.
#[test]
fn what_is_needed_lies_beside() {
    if !can_build() {
        return;
    }
    let fake = Fake::llama(&[]);
    let base = fake.folder.path().join("libggml-base.so");
    let source = fake.folder.path().join("base.c");
    std::fs::write(&source, "const char *ggml_version(void) { return \"0.9\"; }").unwrap();
    let cc = |args: &[&str]| {
        let status =
            Command::new("cc").current_dir(fake.folder.path()).args(args).status().unwrap();
        assert!(status.success());
    };
    cc(&["-shared", "-fPIC", "-Wl,-soname,libggml-base.so", "-o", "libggml-base.so", "base.c"]);
    let code = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ffi/llama.c");
    cc(&["-shared", "-fPIC", "-o", "libllama.so", code, "-Wl,--no-as-needed", "libggml-base.so"]);
    assert_eq!(analyze_library(&fake.library).unwrap().needed[0], "libggml-base.so");
    let versions = fake.open().unwrap().info().versions.clone();
    assert!(versions.contains(&("ggml_version".to_owned(), "0.9".to_owned())), "{versions:?}");
    std::fs::remove_file(&base).unwrap();
    let error = fake.open().unwrap_err().to_string();
    assert!(error.contains("libggml-base.so"), "{error}");
}

/// Archives can be looked at.
#[test]
fn archives_are_read_and_not_opened() {
    if !can_build() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).current_dir(folder.path()).args(args).status().unwrap();
        assert!(status.success());
    };
    let code = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ffi/llama.c");
    run("cc", &["-c", "-o", "llama.o", code]);
    run("ar", &["rcs", "libllama.a", "llama.o"]);
    let path = folder.path().join("libllama.a");
    let found = analyze_library(&path).unwrap();
    assert!(found.llama_symbols.contains(&"llama_decode".to_owned()));
    assert!(found.imported.contains("fopen") && found.needed.is_empty());
    let error = validate_ffi_library(&path).unwrap_err();
    assert!(matches!(error, Error::Static { .. }), "{error}");
    assert!(error.to_string().contains("-DBUILD_SHARED_LIBS=ON"), "{error}");
}

#[test]
fn a_program_that_cannot_serve_is_an_error() {
    if !can_build() {
        return;
    }
    let fake = Fake::llama(&[]);
    let open = |program: &str, args: &[&str]| {
        let args = args.iter().map(|&arg| arg.to_owned()).collect();
        let host = Host { program: program.into(), args };
        Reference::open(&fake.library, host, Patience::default()).unwrap_err()
    };
    assert!(matches!(open("no/such/program", &[]), Error::Start { .. }));
    let error = open("sh", &["-c", "echo hello; exit 7"]);
    assert!(
        error.to_string().contains("exit status: 7") && error.to_string().contains("hello"),
        "{error}"
    );
}

/// `bitnet crossval` with what is no second backend: a clear answer, and a code for it.
#[test]
fn the_command_says_what_is_wrong() {
    if !can_build() {
        return;
    }
    let run = |library: &Path, more: &[&str]| {
        let mut command = bitnet();
        let output =
            command.arg("crossval").arg("--reference").arg(library).args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(Path::new("no/such"), &[]);
    assert!(code == Some(3) && said.contains("no/such"), "{said}");
    let (code, said) = run(&Fake::llama(&["NO_DECODE"]).library, &[]);
    assert!(code == Some(3) && said.contains("llama_decode"), "{said}");
    // It opens, and has another vocabulary than the demo model.
    let fake = Fake::llama(&[]);
    let (code, said) = run(&fake.library, &[]);
    assert!(said.contains("FFI library validated"), "{said}");
    assert!(code == Some(3) && said.contains("16 tokens in the model"), "{said}");
    let (code, said) = run(&Fake::llama(&["ABORT"]).library, &["--no-model"]);
    assert!(code == Some(3) && said.contains("there is nothing to compare"), "{said}");
    // With itself it always agrees.
    let (code, said) = run(&fake.library, &["--device", "llama"]);
    assert!(code == Some(2) && said.contains("with itself"), "{said}");
    // And with what has the same vocabulary there must be something to compare.
    let fake = Fake::llama(&["VOCABULARY=2048"]);
    let (code, said) = run(&fake.library, &["-c", "16", "-n", "16"]);
    assert!(code == Some(2) && said.contains("no token to compare on"), "{said}");
    let (code, said) = run(&fake.library, &["-c", "60", "-n", "4"]);
    assert_eq!(code, Some(5), "{said}");
}
