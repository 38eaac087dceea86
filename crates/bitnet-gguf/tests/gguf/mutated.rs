//! Damaged headers: an error that names the file or a file that can be used, never a panic.

use bitnet_gguf::{Error, Gguf, Value};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::sample::{writer, written};

/// Opens the bytes and, where that works, uses everything.
fn read(bytes: Vec<u8>) {
    let length = bytes.len() as u64;
    let gguf = match Gguf::from_vec("damaged.gguf", bytes) {
        Ok(gguf) => gguf,
        Err(error) => return check(&error),
    };
    for (key, value) in gguf.metadata() {
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len(), "{key}");
            assert_eq!(array.strings().map_or(array.len(), Iterator::count), array.len(), "{key}");
        }
        let _ = [gguf.u32(key).map(drop), gguf.f32(key).map(drop), gguf.i32s(key).map(drop)]
            .map(|result| result.map_err(|error| check(&error)));
    }
    for tensor in gguf.tensors() {
        assert!(tensor.offset < length && tensor.room <= length - tensor.offset, "{tensor:?}");
        match gguf.data(tensor) {
            Ok(data) => assert!(data.len() as u64 <= tensor.room, "{tensor:?}"),
            Err(error) => check(&error),
        }
    }
}

fn check(error: &Error) {
    let message = error.to_string();
    assert!(message.starts_with("damaged.gguf: "), "{message}");
}

/// The sample file and the length of its header.
fn sample() -> (Vec<u8>, usize) {
    let bytes = written(&writer());
    let gguf = Gguf::from_vec("x.gguf", bytes.clone()).expect("a valid file");
    let first = gguf.tensors().iter().map(|tensor| tensor.offset).min();
    (bytes, first.expect("tensors") as usize)
}

/// Every byte of the header, with one bit flipped or set to a value that is a type, a count or a
/// limit somewhere.
#[test]
fn every_byte() {
    let (bytes, header) = sample();
    for at in 0..header {
        let flipped = (0..8).map(|bit| bytes[at] ^ 1 << bit);
        for value in flipped.chain(0..=16).chain([0x7f, 0x80, 0xfe, 0xff]) {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            read(damaged);
        }
    }
}

/// Absurd counts, lengths, dimensions and offsets, wherever they may be read.
#[test]
fn huge_numbers_everywhere() {
    let (bytes, header) = sample();
    for at in 0..header - 8 {
        for shift in (0..64).step_by(3) {
            for number in [u64::MAX >> shift, 1 << shift, u64::MAX << shift] {
                let mut damaged = bytes.clone();
                damaged[at..at + 8].copy_from_slice(&number.to_le_bytes());
                read(damaged);
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Damage {
    Byte(usize, u8),
    Word(usize, u32),
    Number(usize, u64),
    Insert(usize, Vec<u8>),
    Remove(usize, usize),
}

fn any_damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, value)| Damage::Byte(at, value)),
        (at(), 0u32..400).prop_map(|(at, value)| Damage::Word(at, value)),
        (at(), any::<u64>(), 0u32..64)
            .prop_map(|(at, value, shift)| Damage::Number(at, value >> shift)),
        (at(), vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1usize..40).prop_map(|(at, length)| Damage::Remove(at, length)),
    ]
}

fn apply(bytes: &mut Vec<u8>, header: usize, damage: Damage) {
    let mut put = |at: usize, new: &[u8]| {
        let at = at % (header - new.len());
        bytes[at..at + new.len()].copy_from_slice(new);
    };
    match damage {
        Damage::Byte(at, value) => put(at, &[value]),
        Damage::Word(at, value) => put(at, &value.to_le_bytes()),
        Damage::Number(at, value) => put(at, &value.to_le_bytes()),
        Damage::Insert(at, new) => {
            let at = at % header;
            bytes.splice(at..at, new);
        }
        Damage::Remove(at, length) => {
            let at = at % header;
            bytes.drain(at..at + length);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn several_damages(damages in vec(any_damage(), 1..6)) {
        let (mut bytes, header) = sample();
        for damage in damages {
            apply(&mut bytes, header, damage);
        }
        read(bytes);
    }

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..300)) {
        read([b"GGUF\x03\0\0\0", &bytes[..]].concat());
        read(bytes);
    }
}
