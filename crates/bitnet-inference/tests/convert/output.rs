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
    let path = folder.path().join("model");
    let file = Conversion::plan(contents, Target::Gguf(Format::Tq2_0), None).unwrap();
    let hf = Conversion::plan(contents, Target::Folder, None).unwrap();
    let refused = |conversion: &Conversion<'_>, replace| {
        let error = conversion.write(&path, replace, &|_| true).unwrap_err();
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(names(folder.path()), ["model"]);
    };
    // A file, which only another file can replace.
    fs::write(&path, "precious").unwrap();
    refused(&file, false);
    refused(&hf, true);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    file.write(&path, true, &|_| true).unwrap();
    // Again, over what it has written.
    file.write(&path, true, &|_| true).unwrap();
    assert!(Checkpoint::open(&path).is_ok());
    fs::remove_file(&path).unwrap();
    // A folder, which nothing replaces, unless it is empty.
    fs::create_dir(&path).unwrap();
    refused(&file, true);
    hf.write(&path, false, &|_| true).unwrap();
    assert!(Checkpoint::open(&path).is_ok());
    let before = names(&path).len();
    fs::write(path.join("notes"), "precious").unwrap();
    refused(&hf, true);
    assert_eq!(names(&path).len(), before + 1);
}

#[cfg(unix)]
#[test]
fn a_link_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let [link, file] = ["link", "file"].map(|name| folder.path().join(name));
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let checkpoint = Checkpoint::open(demo()).unwrap();
    let contents = Contents::new(&checkpoint, None).unwrap();
    let conversion = Conversion::plan(contents, Target::Gguf(Format::I2S), None).unwrap();
    assert!(conversion.write(&link, false, &|_| true).is_err());
    conversion.write(&link, true, &|_| true).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert!(Checkpoint::open(&file).is_ok());
    let missing = folder.path().join("missing");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&missing, &link).unwrap();
    assert!(conversion.write(&link, true, &|_| true).is_err());
}

/// The demo model with a norm of a number that is too great for half precision, or is none.
#[test]
fn numbers_that_a_format_cannot_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    let bytes = fs::read(demo()).unwrap();
    let norm = Checkpoint::open(demo()).unwrap().tensor("output_norm.weight").unwrap().offset;
    for (number, embedding, words) in [
        (1e6_f32, Some(Format::F16), "output_norm.weight"),
        (f32::NAN, None, "element 1 is NaN"),
        (f32::INFINITY, Some(Format::Bf16), "element 1 is inf"),
    ] {
        let mut bytes = bytes.clone();
        bytes[norm as usize + 4..][..4].copy_from_slice(&number.to_le_bytes());
        fs::write(&from, bytes).unwrap();
        let error = convert(&from, &to, "hf", embedding).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert!(!to.exists());
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
