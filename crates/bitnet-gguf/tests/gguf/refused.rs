//! Each way a header can be wrong has its own error, which names file and offset.

use std::path::Path;

use bitnet_gguf::{Error, Gguf};

use crate::raw::{Raw, array, string};

/// The error of opening `bytes`, after checking that its message names the file.
#[track_caller]
fn refused(bytes: Vec<u8>) -> Error {
    let error = Gguf::from_vec("x.gguf", bytes).expect_err("refused");
    let message = error.to_string();
    assert!(message.starts_with("x.gguf: "), "{message}");
    error
}

/// Asserts that opening the bytes gives an error that matches the pattern.
macro_rules! check {
    ($bytes:expr, $pattern:pat $(if $guard:expr)?) => {
        let error = refused($bytes);
        assert!(matches!(&error, $pattern $(if $guard)?), "{error:?}");
    };
}

#[test]
fn magic() {
    for (start, said) in [
        ("version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        ("<!DOCTYPE html>", "web server"),
        ("PK\u{3}\u{4}....", "PyTorch"),
        ("lmgg....", "older than GGUF"),
        ("FUGG....", "other byte order"),
        ("\u{1b}[2J....", "not a GGUF file"),
    ] {
        let error = refused(start.as_bytes().to_vec());
        assert!(matches!(error, Error::BadMagic { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(said), "{message}");
        assert!(!message.contains('\u{1b}'), "control characters are escaped: {message}");
    }
}

#[test]
fn versions() {
    let with = |version| Raw { version, ..Raw::new(Vec::new(), 0) }.bytes();
    for version in [2, 3] {
        assert_eq!(Gguf::from_vec("x.gguf", with(version)).unwrap().version(), version);
    }
    for (version, said) in [(0, "damaged"), (1, "2023"), (4, "update"), (70_000, "update")] {
        let error = refused(with(version));
        assert!(matches!(error, Error::Version { offset: 4, version: v, .. } if v == version));
        assert!(error.to_string().contains(said), "{error}");
    }
    for version in [1u32, 2, 3] {
        check!(with(version.swap_bytes()), Error::BigEndian { offset: 4, .. });
    }
}

#[test]
fn counts() {
    let raw = Raw::new(vec![("t", vec![1], 0, 0)], 4);
    for at in [8, 16] {
        for count in [10u64, 1 << 32, 1 << 60, u64::MAX] {
            let mut bytes = raw.bytes();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            check!(bytes, Error::Count { offset, count: found, .. }
                if (*offset, *found) == (at as u64, count));
        }
    }
    for (type_id, count) in [(0, 100), (4, 1 << 62), (8, 1 << 61), (9, 9), (12, u64::MAX)] {
        let raw = Raw::entry("list", 9, array(type_id, count));
        check!(raw.bytes(), Error::Count { offset, count: found, .. }
            if (*offset, *found) == (raw.position("list") + 20, count));
    }
}

#[test]
fn strings() {
    let long = |length: u64| [&length.to_le_bytes()[..], b"abc"].concat();
    for length in [200, 1 << 40, u64::MAX] {
        let raw = Raw::entry("text", 8, long(length));
        check!(raw.bytes(), Error::Truncated { what, needed, .. }
            if what.contains("\"text\"") && *needed == length);
    }
    let raw = Raw::entry("text", 8, [&3u64.to_le_bytes()[..], b"a\xffb"].concat());
    check!(raw.bytes(), Error::NotUtf8 { what, offset, .. }
        if what.contains("\"text\"") && *offset == raw.position("text") + 25);
    let list = [array(8, 2), string("ok"), [&2u64.to_le_bytes()[..], b"\xc3("].concat()].concat();
    let raw = Raw::entry("list", 9, list);
    check!(raw.bytes(), Error::NotUtf8 { what, .. } if what.contains("list"));

    let mut bytes = Raw::entry("key", 0, vec![1]).bytes();
    let at = bytes.windows(3).position(|window| window == b"key").unwrap();
    bytes[at] = 0xff;
    check!(bytes.clone(), Error::NotUtf8 { what, offset, .. }
        if what == "a metadata key" && *offset == at as u64);
    bytes[at - 8..at].copy_from_slice(&65_536u64.to_le_bytes());
    check!(bytes, Error::NameLength { length: 65_536, limit: 65_535, .. });
}

#[test]
fn values() {
    for type_id in [13, 255, u32::MAX] {
        let raw = Raw::entry("k", type_id, vec![0; 8]);
        check!(raw.bytes(), Error::ValueType { id, offset, .. }
            if (*id, *offset) == (type_id, raw.position("k") + 9));
        check!(Raw::entry("k", 9, array(type_id, 0)).bytes(), Error::ValueType { .. });
    }
    let raw = Raw::entry("k", 7, vec![2]);
    check!(raw.bytes(), Error::Bool { found: 2, offset, .. } if *offset == raw.position("k") + 13);
    let list = [array(7, 3), vec![1, 0, 9]].concat();
    check!(Raw::entry("k", 9, list).bytes(), Error::Bool { found: 9, .. });

    let nested = |depth: usize| vec![array(9, 1); depth - 1].concat();
    let innermost = [array(0, 1), vec![5]].concat();
    let deep = |depth| Raw::entry("k", 9, [nested(depth), innermost.clone()].concat()).bytes();
    assert!(Gguf::from_vec("x.gguf", deep(4)).is_ok());
    check!(deep(5), Error::Depth { limit: 4, .. });
    check!(deep(100_000), Error::Depth { limit: 4, .. });
}

#[test]
fn duplicates() {
    let mut raw = Raw::entry("k", 0, vec![1]);
    raw.entries.push(("k", 0, vec![1]));
    check!(raw.bytes(), Error::DuplicateKey { key, offset, .. }
        if key == "k" && *offset == raw.position("k") + 14);
    let raw = Raw::new(vec![("t", vec![1], 0, 0), ("t", vec![1], 0, 32)], 64);
    check!(raw.bytes(), Error::DuplicateTensor { tensor, offset, .. }
        if tensor == "t" && *offset == raw.position("t") + 33);
}

#[test]
fn alignments() {
    for alignment in [0u32, 1, 4, 12, 24, 33, u32::MAX] {
        let raw = Raw::entry("general.alignment", 4, alignment.to_le_bytes().to_vec());
        check!(raw.bytes(), Error::Alignment { found, .. } if *found == format!("u32 {alignment}"));
    }
    let raw = Raw::entry("general.alignment", 8, string("32"));
    check!(raw.bytes(), Error::Alignment { .. });
    // A header that ends long before the next multiple of a huge alignment.
    let mut raw = Raw::new(vec![("t", vec![1], 0, 0)], 64);
    raw.entries.push(("general.alignment", 4, (1u32 << 31).to_le_bytes().to_vec()));
    check!(raw.bytes(), Error::Outside { .. });
}

#[test]
fn dimensions() {
    let with = |dims: Vec<u64>| Raw::new(vec![("t", dims, 0, 0)], 64);
    for rank in [0, 5, 9] {
        let raw = with(vec![1; rank]);
        check!(raw.bytes(), Error::DimCount { found, offset, .. }
            if (*found as usize, *offset) == (rank, raw.position("t") + 9));
    }
    let mut raw = with(vec![1, 0]);
    check!(raw.bytes(), Error::ZeroDim { offset, .. } if *offset == raw.position("t") + 21);
    raw.tensors[0].1 = vec![0, u64::MAX, u64::MAX];
    check!(raw.bytes(), Error::ZeroDim { .. });
    check!(with(vec![1 << 32, 1 << 32]).bytes(), Error::TooManyElements { .. });
    check!(with(vec![u64::MAX, 1, 2]).bytes(), Error::TooManyElements { .. });
    check!(with(vec![u64::MAX]).bytes(), Error::Truncated { needed: u64::MAX, .. });
}

#[test]
fn offsets() {
    let with = |offset| Raw::new(vec![("t", vec![1], 0, offset)], 64);
    for offset in [1, 8, 31, u64::MAX] {
        let raw = with(offset);
        check!(raw.bytes(), Error::Misaligned { found, alignment: 32, offset: at, .. }
            if (*found, *at) == (offset, raw.position("t") + 25));
    }
    for offset in [64, 96, 1 << 40, u64::MAX - 31] {
        check!(with(offset).bytes(), Error::Outside { found, .. } if *found == offset);
    }
}

#[test]
fn overlaps() {
    let with = |first, second| {
        let tensors = vec![("a", vec![16], 0, first), ("b", vec![16], 0, second)];
        Raw::new(tensors, 128).bytes()
    };
    for (first, second) in [(0, 64), (64, 0)] {
        assert!(Gguf::from_vec("x.gguf", with(first, second)).is_ok());
    }
    check!(with(0, 32), Error::Overlap { tensor, other, needed: 64, room: 32, .. }
        if (tensor.as_str(), other.as_str()) == ("a", "b"));
    check!(with(32, 0), Error::Overlap { tensor, .. } if tensor == "b");
    check!(with(32, 32), Error::Overlap { room: 0, .. });
    check!(with(0, 96), Error::Truncated { what, needed: 64, available: 32, .. }
        if what.contains("\"b\""));
    // Of an unknown type only the start is known; I2_S takes a quarter byte per element at least.
    let kinds = |a, b| {
        let tensors = vec![("a", vec![1024], a, 0), ("b", vec![1], b, 32)];
        Raw::new(tensors, 64).bytes()
    };
    assert!(Gguf::from_vec("x.gguf", kinds(11, 11)).is_ok());
    check!(kinds(36, 11), Error::Overlap { needed: 256, .. });
    check!(kinds(39, 11), Error::Overlap { needed: 200, .. });
    check!(kinds(12, 11), Error::Overlap { needed: 576, .. });
}

#[test]
fn paths() {
    let directory = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        let error = Gguf::open(path).expect_err("refused");
        assert!(error.to_string().starts_with(&path.display().to_string()), "{error}");
        error
    };
    assert!(matches!(open(directory.path()), Error::NotAFile { .. }));
    assert!(matches!(open(&directory.path().join("absent.gguf")), Error::Io { .. }));
    let empty = directory.path().join("empty.gguf");
    std::fs::write(&empty, "").unwrap();
    assert!(matches!(open(&empty), Error::Truncated { offset: 0, available: 0, .. }));
}
