//! What the writer wrote, the reader reads.

use bitnet_gguf::{Array, Bytes, Error, Gguf, TensorType, Value, Writer};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::raw::Raw;
use crate::sample::{TENSORS, payload, values, writer, written};

fn check_sample(gguf: &Gguf) {
    let found: Vec<_> = gguf.metadata().map(|(key, value)| (key, value.clone())).collect();
    for (key, value) in values() {
        assert!(found.contains(&(key, value.clone())), "{key}");
        assert_eq!(gguf.value(key), Some(&value));
    }
    assert_eq!(gguf.tensors().len(), TENSORS.len());
    for (index, (name, dims, kind)) in TENSORS.into_iter().enumerate() {
        let tensor = gguf.tensor(name).expect(name);
        assert_eq!(tensor, &gguf.tensors()[index]);
        assert_eq!(tensor.dims, dims);
        assert_eq!(tensor.type_id, kind.id());
        assert_eq!(tensor.offset % gguf.alignment(), 0);
        assert_eq!(gguf.tensor_type(tensor).expect(name), kind);
        assert_eq!(gguf.data(tensor).expect(name)[..], payload(index), "{name}");
    }
}

#[test]
fn every_value_type_in_both_versions_and_several_alignments() {
    for version in [2, 3] {
        let gguf = Gguf::from_vec("x.gguf", written(&writer().version(version))).unwrap();
        assert_eq!((gguf.version(), gguf.alignment()), (version, 32));
        assert_eq!(gguf.metadata().count(), values().len());
        check_sample(&gguf);
    }
    for alignment in [8, 16, 64, 4096] {
        let gguf = Gguf::from_vec("x.gguf", written(&writer().alignment(alignment))).unwrap();
        assert_eq!(gguf.alignment(), alignment.into());
        check_sample(&gguf);
    }
}

#[test]
fn mapped_static_and_owned_are_the_same() {
    let bytes = written(&writer());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sample.gguf");
    std::fs::write(&path, &bytes).unwrap();
    let mapped = Gguf::open(&path).unwrap();
    assert_eq!(mapped.name(), path.display().to_string());
    let fixed = Gguf::from_static("s", bytes.clone().leak()).unwrap();
    let owned = Gguf::from_vec("v", bytes).unwrap();
    for gguf in [&mapped, &fixed, &owned] {
        check_sample(gguf);
        assert_eq!(gguf.bytes(), mapped.bytes());
    }
    // The data outlive the file they were taken from.
    let data = mapped.data(&mapped.tensors()[0]).unwrap();
    drop(mapped);
    assert_eq!(data[..], payload(0));
}

/// Against the field-by-field builder, so that reader and writer cannot be wrong together.
#[test]
fn bytes_are_those_of_the_format() {
    let mut raw = Raw::new(vec![("a", vec![2, 3], 0, 0), ("b", vec![1], 0, 32)], 64);
    raw.entries.push(("n", 5, (-2i32).to_le_bytes().to_vec()));
    raw.entries.push(("list", 9, [&[0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..], &[7, 8]].concat()));
    let built = Writer::new()
        .metadata("general.architecture", "bitnet-b1.58")
        .metadata("n", -2i32)
        .metadata("list", Array::from_iter([7u8, 8]))
        .tensor("a", &[2, 3], 0, [0; 24])
        .tensor("b", &[1], 0, [0; 4]);
    assert_eq!(written(&built), raw.bytes());
}

#[test]
fn getters_convert_in_range_only() {
    let gguf = Gguf::from_vec("x.gguf", written(&writer())).unwrap();
    assert_eq!(gguf.architecture().unwrap(), "bitnet-b1.58");
    assert_eq!(gguf.u32("one.u8").unwrap(), Some(200));
    assert_eq!(gguf.u32("one.i64").unwrap(), Some(5));
    assert_eq!(gguf.u32("absent").unwrap(), None);
    assert_eq!(gguf.f32("one.f32").unwrap(), Some(1e-5));
    assert_eq!(gguf.f32("one.f64").unwrap(), Some(10_000.0));
    assert_eq!(gguf.bool("one.bool").unwrap(), Some(true));
    assert_eq!(gguf.str("one.string").unwrap(), Some("Zwölf Boxkämpfer"));
    assert_eq!(gguf.i32s("array.i32").unwrap(), Some(vec![i32::MIN, 1, 2]));
    assert_eq!(gguf.i32s("array.none").unwrap(), Some(vec![]));
    assert_eq!(gguf.u32s("array.u8").unwrap(), Some(vec![0, 255]));
    assert_eq!(gguf.f32s("array.f32").unwrap(), Some(vec![0.5, -0.0]));
    let strings = gguf.require_strings("array.string").unwrap();
    assert_eq!(strings.len(), 3);
    assert_eq!(strings.collect::<Vec<_>>(), ["", "Ġa", "a longer string"]);

    let wrong = |result: Result<bool, Error>, key: &str, found: &str| {
        let error = result.expect_err(key);
        assert!(matches!(error, Error::WrongType { .. }), "{error}");
        let message = error.to_string();
        assert!(message.starts_with("x.gguf: ") && message.contains(found), "{message}");
        assert!(message.contains(key), "{message}");
    };
    for (key, found) in [
        ("one.i32", "i32 -7"),
        ("one.u64", "u64 18446744073709551615"),
        ("one.f32", "f32 0.00001"),
        ("one.string", "a string of 18 bytes"),
        ("array.bool", "an array of 3 bool"),
    ] {
        wrong(gguf.u32(key).map(|_| true), key, found);
    }
    wrong(gguf.f32("one.u8").map(|_| true), "one.u8", "u8 200");
    wrong(gguf.bool("one.u8").map(|_| true), "one.u8", "u8 200");
    wrong(gguf.str("one.u8").map(|_| true), "one.u8", "u8 200");
    wrong(gguf.strings("array.u8").map(|_| true), "array.u8", "an array of 2 u8");
    wrong(gguf.i32s("array.u32").map(|_| true), "array.u32", "an array of 2 u32");
    wrong(gguf.i32s("array.no_strings").map(|_| true), "array.no_strings", "of 0 string");
    wrong(gguf.u32s("array.f32").map(|_| true), "array.f32", "an array of 2 f32");
    wrong(gguf.f32s("array.f64").map(|_| true), "array.f64", "an array of 2 f64");
    wrong(gguf.require_str("one.u8").map(|_| true), "one.u8", "u8 200");
}

#[test]
fn required_keys_are_named_when_missing() {
    let gguf = Gguf::from_vec("x.gguf", written(&Writer::new())).unwrap();
    for error in [
        gguf.require_u32("absent").unwrap_err(),
        gguf.require_f32("absent").unwrap_err(),
        gguf.require_str("absent").unwrap_err(),
        gguf.require_strings("absent").unwrap_err(),
    ] {
        assert!(matches!(&error, Error::MissingKey { key, .. } if key == "absent"), "{error}");
    }
    let error = gguf.architecture().unwrap_err();
    assert!(error.to_string().starts_with("x.gguf: has no metadata key \"general.architecture\""));
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let refuse = |writer: Writer<'_>| {
        let mut out = Vec::new();
        let error = writer.write_to(&mut out).expect_err("refused");
        assert!(out.is_empty(), "nothing is written before the check");
        error
    };
    let f32s = |dims: &[u64], bytes: usize| Writer::new().tensor("t", dims, 0, vec![0; bytes]);
    assert!(matches!(refuse(Writer::new().version(1)), Error::Version { version: 1, .. }));
    assert!(matches!(refuse(Writer::new().alignment(12)), Error::Alignment { .. }));
    let twice = Writer::new().alignment(64).alignment(64);
    assert!(matches!(refuse(twice), Error::DuplicateKey { .. }));
    assert!(matches!(
        refuse(f32s(&[1], 4).tensor("t", &[1], 0, [0; 4])),
        Error::DuplicateTensor { .. }
    ));
    assert!(matches!(refuse(f32s(&[], 4)), Error::DimCount { found: 0, .. }));
    assert!(matches!(refuse(f32s(&[0], 4)), Error::ZeroDim { .. }));
    assert!(matches!(refuse(f32s(&[1], 0)), Error::Outside { .. }));
    assert!(matches!(refuse(f32s(&[9], 32)), Error::Truncated { .. }));
    let short = refuse(f32s(&[8], 28));
    assert!(matches!(short, Error::Payload { expected: 32, found: 28, .. }), "{short}");
    assert!(matches!(refuse(f32s(&[1], 8)), Error::Payload { expected: 4, found: 8, .. }));
}

#[test]
fn data_that_are_made_while_they_are_written_are_the_same_file() {
    let data: Vec<u8> = (0..80).collect();
    let kept = Writer::new().tensor("t", &[20], 0, &data).tensor("u", &[1], 0, [7; 4]);
    let made = Writer::new()
        .tensor_from("t", &[20], 0, (80, |out| data.chunks(7).try_for_each(|c| out.write_all(c))))
        .tensor_from("u", &[1], 0, (4, |out| out.write_all(&[7; 4])));
    assert_eq!(written(&made), written(&kept));
}

#[test]
fn data_of_another_length_than_was_said_are_refused() {
    for (pieces, found) in [(0, 0), (4, 28), (6, 42), (1000, 42)] {
        let writer = Writer::new().tensor_from(
            "t",
            &[10],
            0,
            (40, move |out| (0..pieces).try_for_each(|_| out.write_all(&[1; 7]))),
        );
        let mut out = Vec::new();
        let error = writer.write_to(&mut out).unwrap_err();
        assert!(
            matches!(error, Error::Payload { expected: 40, found: n, .. } if n == found),
            "{error}"
        );
        assert!(out.len() < 200, "no more than was said");
    }
    let short = Writer::new().tensor_from("t", &[10], 0, (36, |_| panic!("checked before")));
    let error = short.write_to(&mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Payload { expected: 40, found: 36, .. }), "{error}");
    let full = Writer::new().tensor_from(
        "t",
        &[10],
        0,
        (40, |_| Err(std::io::ErrorKind::StorageFull.into())),
    );
    let error = full.write_to(&mut Vec::new()).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
}

#[test]
fn types_have_names() {
    for (_, _, kind) in TENSORS {
        assert_eq!(TensorType::named(kind.name()), Some(kind));
    }
    assert_eq!(TensorType::named("I2_X"), None);
}

#[test]
fn a_full_disk_is_an_error() {
    let mut room = [0u8; 100];
    let error = writer().write_to(&mut &mut room[..]).unwrap_err();
    assert!(matches!(error, Error::Write { .. }), "{error}");
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        proptest::num::f32::NORMAL.prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        vec(any::<i32>(), 0..9).prop_map(|list| Value::from(Array::from_iter(list))),
        vec(".{0,9}", 0..9)
            .prop_map(|list| Value::from(list.iter().map(String::as_str).collect::<Array>())),
    ]
}

proptest! {
    #[test]
    fn any_metadata_and_any_tensors(
        metadata in proptest::collection::hash_map(".{0,30}", any_value(), 0..12),
        tensors in proptest::collection::hash_map("[a-z.]{0,30}", vec(any::<u8>(), 1..200), 0..12),
        alignment in (3u32..9).prop_map(|shift| 1 << shift),
    ) {
        prop_assume!(!metadata.contains_key("general.alignment"));
        let mut writer = Writer::new().alignment(alignment);
        for (key, value) in &metadata {
            writer = writer.metadata(key, value.clone());
        }
        // Type 24 (I8) is not read, so only the place of the data is checked.
        for (name, data) in &tensors {
            writer = writer.tensor(name, &[data.len() as u64], 24, data);
        }
        let gguf = Gguf::from_vec("x.gguf", written(&writer)).unwrap();
        prop_assert_eq!(gguf.metadata().count(), metadata.len() + 1);
        for (key, value) in &metadata {
            prop_assert_eq!(gguf.value(key), Some(value));
        }
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        for (name, data) in &tensors {
            let tensor = gguf.tensor(name).unwrap();
            let start = tensor.offset as usize;
            let found: Bytes = gguf.bytes().slice(start..start + tensor.room as usize);
            prop_assert_eq!(&found[..data.len()], &data[..]);
            prop_assert!(found[data.len()..].iter().all(|&byte| byte == 0));
        }
    }
}

#[test]
fn payload_sizes() {
    let sizes: [(TensorType, &[u64], Option<u64>); 37] = [
        (TensorType::F32, &[3], Some(12)),
        (TensorType::F16, &[3], Some(6)),
        (TensorType::Bf16, &[3], Some(6)),
        (TensorType::Q4_0, &[64, 3], Some(108)),
        (TensorType::Q8_0, &[64], Some(68)),
        (TensorType::Q8_0, &[33], None),
        (TensorType::Q4K, &[512], Some(288)),
        (TensorType::Q6K, &[512], Some(420)),
        (TensorType::Q6K, &[128], None),
        (TensorType::Iq2S, &[256, 2], Some(164)),
        (TensorType::Q2_0, &[128, 2], Some(72)),
        (TensorType::Q2_0G128, &[128, 2], Some(68)),
        (TensorType::Q2_0G128, &[64, 2], None),
        (TensorType::I2S, &[128], Some(64)),
        (TensorType::I2S, &[2560, 6912], Some(4_423_712)),
        (TensorType::I2S, &[5460, 96], Some(131_072)),
        (TensorType::I2S, &[64], None),
        (TensorType::BitNet32F16, &[64, 3], Some(60)),
        (TensorType::Tl1, &[1536, 4096], Some(1536 * 1024 + 32)),
        (TensorType::Tl1, &[1536, 48], None),
        (TensorType::Tl1, &[12, 64], None),
        // As bitnet.cpp counts them.
        (TensorType::Tl2, &[6912, 2560], Some(3_713_760)),
        (TensorType::Tl2, &[512, 128], Some(15_072)),
        (TensorType::Tl2, &[32, 32], Some(608)),
        (TensorType::Tl2, &[96, 33], None),
        (TensorType::Tq1_0, &[256], Some(54)),
        (TensorType::Tq2_0, &[256], Some(66)),
        (TensorType::Iq1Bn, &[512, 128], Some(13_568)),
        (TensorType::Iq2Bn, &[512, 128], Some(16_896)),
        (TensorType::Iq2Bn, &[64, 3], Some(60)),
        (TensorType::Iq2BnR4, &[512, 128], Some(16_896)),
        (TensorType::Iq2BnR4, &[64, 3], None),
        (TensorType::F32, &[u64::MAX / 2], None),
        (TensorType::Tq2_0, &[u64::MAX - 255], Some((u64::MAX - 255) / 256 * 66)),
        (TensorType::Iq2Bn, &[64, u64::MAX / 64], Some(u64::MAX / 64 * 20)),
        (TensorType::Tl2, &[8, u64::MAX / 256 * 32], None),
        (TensorType::F32, &[], None),
    ];
    for (kind, dims, bytes) in sizes {
        assert_eq!(kind.payload(dims), bytes, "{kind} {dims:?}");
    }
}
