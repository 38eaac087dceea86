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
            assert_eq!(Some(data.len() as u64), kind.payload(&tensor.dims))
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

/// Checks that tensor `t` is refused for what its id may be, with a message that has all of `said`.
fn check_shared(raw: &Raw, said: &[&str]) {
    let error = judge(raw).expect_err(said[0]);
    assert!(matches!(error, Error::SharedType { .. }), "{error:?}");
    let message = error.to_string();
    for part in said {
        assert!(message.contains(part), "{message}: not {part:?}");
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
        let named = format!("1056 bytes in a file of architecture {architecture:?}");
        let size = "1056 bytes, as here, in I2_S, 1280 bytes in BitNet32F16";
        check_shared(
            &raw(architecture),
            &["type 36 and", &named, size, "use a file of one of these"],
        );
    }
    let mut without = raw("bitnet");
    without.entries.clear();
    let gguf = Gguf::from_vec("x.gguf", without.bytes()).unwrap();
    let error = gguf.tensor_type(&gguf.tensors()[0]).unwrap_err();
    assert!(matches!(error, Error::MissingKey { .. }), "{error}");
}

#[test]
fn other_layouts_under_the_id_of_i2_s() {
    let cut = ["1024 bytes, as here, in I2_S without its scale", "appends the scale"];
    check_shared(&one(&[1024, 4], 36, 1024), &cut);
    assert_eq!(judge(&one(&[1024, 4], 36, 1280)).unwrap(), TensorType::BitNet32F16);
    let removed = ["2304 bytes, as here, in IQ4_NL_4_4, removed", "Q8_0 or Q6_K"];
    check_shared(&one(&[1024, 4], 36, 2304), &removed);
    for bytes in [1088, 1200, 1312, 2400, 16384] {
        let sizes = "1056 bytes in I2_S, 1280 bytes in BitNet32F16, 1024 bytes in I2_S without its \
                     scale, 2304 bytes in IQ4_NL_4_4";
        check_shared(&one(&[1024, 4], 36, bytes), &[&format!("type 36 and {bytes} bytes"), sizes]);
    }
    // As the last tensor it need not be padded; one byte less is not I2_S any more.
    assert_eq!(judge(&one(&[1024, 4], 36, 1056 + 31)).unwrap(), TensorType::I2S);
    check_shared(&one(&[1024, 4], 36, 1055), &cut);
    // 512 elements take 160 bytes in either: it is the more common one.
    assert_eq!(judge(&one(&[512], 36, 160)).unwrap(), TensorType::I2S);
}

#[test]
fn i2_s_blocks_run_over_rows() {
    assert_eq!(judge(&one(&[64, 6], 36, 128)).unwrap(), TensorType::I2S);
    assert_eq!(judge(&one(&[5460, 96], 36, 131_072)).unwrap(), TensorType::I2S);
    check_shared(&one(&[64, 37], 36, 624), &["no whole blocks in I2_S, 740 bytes in BitNet32F16"]);
}

#[test]
fn tables_of_bitnet_cpp_or_quantised_numbers() {
    // TL1 of 64 x 1024: a quarter byte each; TL2: as reserved; the others 18 or 17 bytes for 32.
    for (type_id, kind, bytes, other, next) in [
        (38, TensorType::Tl1, 16_416, "36864 bytes, as here, in IQ4_NL_8_8", 36_864),
        (39, TensorType::Tl2, 14_368, "34816 bytes, as here, in MXFP4", 34_816),
    ] {
        let raw = |bytes| one(&[1024, 64], type_id, bytes);
        for architecture in ["bitnet", "bitnet-b1.58", "llama", "falcon", "qwen3", "gemma3"] {
            assert_eq!(judge(&raw(bytes).architecture(architecture)).unwrap(), kind);
        }
        let named = format!("{bytes} bytes, as here, in {}", kind.name());
        check_shared(&raw(bytes).architecture("gpt-oss"), &["\"gpt-oss\"", &named]);
        check_shared(&raw(next), &[other, "convert the model again to F16"]);
        check_shared(&raw(20_000), &[&format!("{bytes} bytes in {}", kind.name())]);
    }
    check_shared(&one(&[1024, 64], 37, 65_536), &["65536 bytes, as here, in I8_S"]);
    check_shared(&one(&[1024, 64], 37, 36_864), &["36864 bytes, as here, in IQ4_NL_4_8"]);
    // Where both take as many bytes, padding included, a ternary model has TL2.
    assert_eq!(judge(&one(&[32, 32], 39, 608)).unwrap(), TensorType::Tl2);
}

#[test]
fn two_bits_by_size() {
    let raw = |bytes| one(&[1024, 4], 42, bytes);
    for architecture in ["qwen3", "phi3"] {
        let judged = |bytes| judge(&raw(bytes).architecture(architecture)).unwrap();
        assert_eq!(judged(1152), TensorType::Q2_0);
        assert_eq!(judged(1088), TensorType::Q2_0G128);
    }
    check_shared(&raw(1216), &["1152 bytes in Q2_0, 1088 bytes in Q2_0_G128"]);
    // 36 or 34 bytes and padding: blocks as they are now.
    assert_eq!(judge(&one(&[128], 42, 36)).unwrap(), TensorType::Q2_0);
    assert_eq!(judge(&one(&[128], 42, 34)).unwrap(), TensorType::Q2_0G128);
}

#[test]
fn rows_of_ik_llama_have_scales() {
    for (type_id, kind, bytes) in [
        (134, TensorType::Iq1Bn, 4 * (2 + 208)),
        (135, TensorType::Iq2Bn, 4 * (4 + 256)),
        (335, TensorType::Iq2BnR4, 4 * (4 + 256)),
    ] {
        let raw = |dims: &[u64], bytes| one(dims, type_id, bytes).architecture("phi3");
        assert_eq!(judge(&raw(&[1024, 4], bytes)).unwrap(), kind);
        let error = judge(&raw(&[1024, 4], bytes + 64)).unwrap_err();
        assert!(matches!(error, Error::Size { .. }), "{error}");
        let error = judge(&raw(&[96, 4], 1024)).unwrap_err();
        assert!(matches!(error, Error::Block { length: 96, block: 64, .. }), "{error}");
    }
    let error = judge(&one(&[64, 6], 335, 120)).unwrap_err();
    assert!(error.to_string().contains("6 rows, IQ2_BN_R4 needs a multiple of 4"), "{error}");
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
        (2, TensorType::Q4_0, 144),
        (8, TensorType::Q8_0, 272),
        (12, TensorType::Q4K, 144),
        (22, TensorType::Iq2S, 82),
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
        (3, "Q4_1"),
        (11, "Q3_K"),
        (31, "Q4_0_4_4, removed"),
        (40, "NVFP4"),
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
