//! What is written where: whole files or nothing.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bitnet_inference::convert::{Conversion, Target};
use bitnet_inference::{Checkpoint, Contents, Error};
use bitnet_kernels::Format;

use super::{convert, demo, models};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_there_stays_unless_it_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(demo()).unwrap();
    let contents = Contents::new(&checkpoint, None).unwrap();
    for target in [Target::Gguf(Format::Tq2_0), Target::Folder] {
        let path = folder.path().join("model");
        fs::write(&path, "precious").unwrap();
        let conversion = Conversion::plan(contents, target, None).unwrap();
        let error = conversion.write(&path, false, &|_| true).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        conversion.write(&path, true, &|_| true).unwrap();
        // Again, over what it has written.
        conversion.write(&path, true, &|_| true).unwrap();
        assert!(Checkpoint::open(&path).is_ok());
        assert_eq!(names(folder.path()), ["model"]);
        if target == Target::Folder {
            fs::remove_dir_all(&path).unwrap();
        } else {
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_conversion_that_is_stopped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(demo()).unwrap();
    let contents = Contents::new(&checkpoint, None).unwrap();
    for target in [Target::Gguf(Format::I2S), Target::Folder] {
        let conversion = Conversion::plan(contents, target, None).unwrap();
        // In the middle of writing, and of reading again.
        for share in [0.0, 0.5, 1.5] {
            let (seen, limit) = (AtomicU64::new(0), (share * conversion.size() as f64) as u64);
            let more = |n| seen.fetch_add(n, Ordering::Relaxed) + n <= limit;
            let error = conversion.write(&folder.path().join("model"), false, &more).unwrap_err();
            assert!(matches!(error, Error::Stopped), "{error}");
            assert!(names(folder.path()).is_empty());
        }
        let seen = AtomicU64::new(0);
        let count = |n| {
            seen.fetch_add(n, Ordering::Relaxed);
            true
        };
        let path = folder.path().join("whole");
        conversion.write(&path, true, &count).unwrap();
        assert_eq!(seen.into_inner(), 2 * conversion.size());
        assert_eq!(names(folder.path()), ["whole"]);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
}

#[test]
fn names_that_cannot_be_written_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nowhere/model.gguf");
    let error = convert(&demo(), &path, "i2_s", None).unwrap_err();
    assert!(matches!(error, Error::Output { .. }), "{error}");
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn what_a_format_cannot_hold_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // Rows of 212 weights are no whole number of blocks of 256.
    let error = convert(&models::folder("1bitllm"), &path, "tq2_0", None).unwrap_err();
    assert!(matches!(error, Error::Unsuitable { .. }), "{error}");
    assert!(error.to_string().contains("choose another format"), "{error}");
    let error = convert(&demo(), &path, "hf", Some(Format::Q6K)).unwrap_err();
    assert!(error.to_string().contains("f32, f16 or bf16"), "{error}");
    assert!(names(folder.path()).is_empty());
    assert!("q3_k".parse::<Target>().is_err());
}

#[test]
fn tensors_that_gguf_has_no_name_for_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let from = models::folder("llama");
    fs::copy(from.join("config.json"), folder.path().join("config.json")).unwrap();
    let mut weights = fs::read(from.join("model.safetensors")).unwrap();
    let name = b"model.layers.0.input_layernorm.weight";
    let at = weights.windows(name.len()).position(|window| window == name).unwrap();
    weights[at + 15..][..5].copy_from_slice(b"other");
    fs::write(folder.path().join("model.safetensors"), weights).unwrap();
    let out = folder.path().join("model.gguf");
    let error = convert(folder.path(), &out, "i2_s", None).unwrap_err();
    assert!(matches!(error, Error::UnknownTensor { .. }), "{error}");
    assert!(error.to_string().contains("model.layers.0.other_layernorm.weight"), "{error}");
    assert!(!out.exists());
}

#[cfg(unix)]
#[test]
fn others_may_read_what_is_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let path = folder.path().join("model.gguf");
    convert(&demo(), &path, "i2_s", None).unwrap();
    assert_eq!(mode(&path), mode(&plain));
}
