//! A file cut off at any length is refused, and so is every use of what is missing.

use bitnet_gguf::{Error, Gguf};

use crate::raw::Raw;
use crate::sample::{writer, written};

/// What opening and then using every tensor gives.
fn read(bytes: &[u8]) -> Result<(), Error> {
    let gguf = Gguf::from_vec("cut.gguf", bytes.to_vec())?;
    gguf.tensors().iter().try_for_each(|tensor| gguf.data(tensor).map(drop))
}

/// Checks every prefix of a file whose last tensor ends at byte `end`.
fn check(bytes: &[u8], end: usize) {
    for length in 0..end {
        let error = read(&bytes[..length]).expect_err("a cut file is refused");
        let message = error.to_string();
        assert!(message.starts_with("cut.gguf: "), "{length}: {message}");
        assert!(message.contains(" at byte "), "{length}: {message}");
        assert!(message.contains("cut off"), "{length}: {message}");
        assert!(message.contains("download it again"), "{length}: {message}");
    }
    // The padding after the last tensor may be missing.
    for length in end..=bytes.len() {
        read(&bytes[..length]).expect("nothing but padding is missing");
    }
}

#[test]
fn at_every_length() {
    let bytes = written(&writer());
    let gguf = Gguf::from_vec("x.gguf", bytes.clone()).unwrap();
    let last = gguf.tensors().last().unwrap();
    check(&bytes, last.offset as usize + gguf.data(last).unwrap().len());
}

#[test]
fn with_i2_s_last() {
    let bytes = Raw::new(vec![("a", vec![2048], 36, 0), ("b", vec![2048], 36, 544)], 1088).bytes();
    check(&bytes, bytes.len());
}

#[test]
fn with_tables_last() {
    for (type_id, bytes) in [(38, 544), (39, 800)] {
        let tensors = vec![("a", vec![1], 0, 0), ("b", vec![64, 32], type_id, 32)];
        let bytes = Raw::new(tensors, 32 + bytes).bytes();
        check(&bytes, bytes.len());
    }
}
