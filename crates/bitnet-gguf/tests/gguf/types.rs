//! What a type id means is judged by architecture and size.

use bitnet_gguf::{Error, Gguf, TensorType};

use crate::raw::Raw;

/// A file with one tensor `t` of `bytes` bytes.
fn one(dims: &[u64], type_id: u32, bytes: usize) -> Raw {
    Raw::new(vec![("t", dims.to_vec(), type_id, 0)], bytes)
}

/// The type of tensor `t`, after checking that `data` agrees.
fn judge(raw: &Raw) -> Result<TensorType, Error> {
    let gguf = Gguf::from_vec("x.gguf", raw.bytes()).expect("the header is valid");
    let tensor = gguf.tensor("t").expect("t");
    let kind = gguf.tensor_type(tensor);
    match (&kind, gguf.data(tensor)) {
        (Ok(kind), Ok(data)) => {
            assert_eq!(Some(data.len() as u64), kind.payload(tensor.elements()))
        }
        (Err(kind), Err(data)) => {
            assert_eq!(kind.to_string(), data.to_string());
            let message = kind.to_string();
            assert!(message.starts_with("x.gguf: tensor \"t\" at byte "), "{message}");
            assert!(message.contains(&tensor.offset.to_string()), "{message}");
        }
        (kind, data) => panic!("{kind:?} but {data:?}"),
    }
    kind
}

/// Checks that tensor `t` is refused as an unsupported type with a name that contains `name`.
fn check_unsupported(raw: &Raw, name: &str) {
    match judge(raw) {
        Err(Error::UnsupportedType { name: found, next, .. }) => {
            assert!(found.contains(name), "{found} is not {name}");
            assert!(!next.is_empty());
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn i2_s_by_architecture_and_size() {
    // 4 x 1024 elements: 1024 bytes of codes and 32 of tail.
    let raw = |architecture: &str| one(&[1024, 4], 36, 1056).architecture(architecture);
    for architecture in
        ["bitnet", "bitnet-25", "bitnet-b1.58", "llama", "falcon", "qwen3", "gemma3"]
    {
        assert_eq!(judge(&raw(architecture)).unwrap(), TensorType::I2S, "{architecture}");
    }
    for architecture in ["phi3", "qwen35", "", "a-bitnet"] {
        check_unsupported(&raw(architecture), "I2_S or IQ4_NL_4_4");
    }
    let mut without = raw("bitnet");
    without.entries.clear();
    let gguf = Gguf::from_vec("x.gguf", without.bytes()).unwrap();
    let error = gguf.tensor_type(&gguf.tensors()[0]).unwrap_err();
    assert!(matches!(error, Error::MissingKey { .. }), "{error}");
}

#[test]
fn other_layouts_under_the_id_of_i2_s() {
    check_unsupported(&one(&[1024, 4], 36, 1024), "I2_S without its scale");
    check_unsupported(&one(&[1024, 4], 36, 1280), "BitNet32F16");
    check_unsupported(&one(&[1024, 4], 36, 2304), "IQ4_NL_4_4");
    for bytes in [1088, 1200, 1312, 2400, 16384] {
        let error = judge(&one(&[1024, 4], 36, bytes)).unwrap_err();
        let found =
            matches!(error, Error::Size { expected: 1056, found, .. } if found == bytes as u64);
        assert!(found, "{error}");
    }
    // As the last tensor it need not be padded; one byte less is not I2_S any more.
    assert_eq!(judge(&one(&[1024, 4], 36, 1056 + 31)).unwrap(), TensorType::I2S);
    check_unsupported(&one(&[1024, 4], 36, 1055), "I2_S without its scale");
}

#[test]
fn i2_s_blocks_run_over_rows() {
    assert_eq!(judge(&one(&[64, 6], 36, 128)).unwrap(), TensorType::I2S);
    let error = judge(&one(&[64, 37], 36, 624)).unwrap_err();
    assert!(matches!(error, Error::Block { length: 2368, block: 128, .. }), "{error}");
}

#[test]
fn rows_hold_whole_blocks() {
    for (type_id, row, block) in [(8, 48, 32), (14, 128, 256), (34, 384, 256), (35, 128, 256)] {
        // The elements would be whole blocks, the rows are not.
        let error = judge(&one(&[row, 16], type_id, 16384)).unwrap_err();
        let found =
            matches!(error, Error::Block { length, block: b, .. } if (length, b) == (row, block));
        assert!(found, "{error}");
    }
}

#[test]
fn the_room_must_fit_every_type() {
    for (type_id, kind, bytes) in [
        (0, TensorType::F32, 1024),
        (1, TensorType::F16, 512),
        (8, TensorType::Q8_0, 272),
        (14, TensorType::Q6K, 210),
        (30, TensorType::Bf16, 512),
        (34, TensorType::Tq1_0, 54),
        (35, TensorType::Tq2_0, 66),
    ] {
        assert_eq!(judge(&one(&[256], type_id, bytes)).unwrap(), kind);
        assert_eq!(judge(&one(&[256], type_id, bytes + 31)).unwrap(), kind);
        let error = judge(&one(&[256], type_id, bytes + 32)).unwrap_err();
        let (wanted, room) = (bytes as u64, bytes as u64 + 32);
        let Error::Size { expected, found, .. } = error else { panic!("{error}") };
        assert_eq!((expected, found), (wanted, room));
    }
}

/// Padding between tensors is judged by the alignment of the file.
#[test]
fn the_alignment_bounds_the_padding() {
    let aligned = |alignment: u32| {
        let second = u64::from(alignment.max(64));
        let tensors = vec![("t", vec![3], 0, 0), ("u", vec![1], 0, second)];
        let mut raw = Raw::new(tensors, second as usize + 4);
        raw.entries.push(("general.alignment", 4, alignment.to_le_bytes().to_vec()));
        raw.alignment = alignment as usize;
        raw
    };
    assert_eq!(judge(&aligned(64)).unwrap(), TensorType::F32);
    let error = judge(&aligned(32)).unwrap_err();
    assert!(matches!(error, Error::Size { expected: 12, found: 64, .. }), "{error}");
}

#[test]
fn unknown_types_open_and_are_named() {
    for (type_id, name) in [
        (2, "Q4_0"),
        (12, "Q4_K"),
        (37, "I8_S"),
        (38, "TL1"),
        (39, "TL2 or MXFP4"),
        (40, "NVFP4"),
        (42, "Q2_0"),
        (134, "IQ1_BN"),
        (135, "IQ2_BN"),
        (335, "IQ2_BN_R4"),
        (142, "PQ2_0"),
        (143, "PTQ1_0"),
        (5, "without a known name"),
        (u32::MAX, "without a known name"),
    ] {
        check_unsupported(&one(&[1024], type_id, 7), name);
    }
}

#[test]
fn a_tensor_of_another_file() {
    let large = Gguf::from_vec("large", one(&[4096], 0, 16384).bytes()).unwrap();
    let small = Gguf::from_vec("small", one(&[1], 0, 4).bytes()).unwrap();
    let error = small.data(large.tensor("t").unwrap()).unwrap_err();
    assert!(matches!(error, Error::ForeignTensor { .. }), "{error}");
}
