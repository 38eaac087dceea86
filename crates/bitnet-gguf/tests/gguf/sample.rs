//! A small file with every kind of value and several tensor types.

use bitnet_gguf::{Array, TensorType, Value, Writer};

/// Every kind of value, alone and in arrays, empty and nested ones included.
pub(crate) fn values() -> Vec<(&'static str, Value)> {
    let nested: Array =
        [[1u8, 2].into_iter().collect(), Array::from_iter([3u8])].into_iter().collect();
    let arrays: [(&str, Array); 15] = [
        ("array.u8", [0u8, 255].into_iter().collect()),
        ("array.i8", [-128i8, 127].into_iter().collect()),
        ("array.u16", [65_535u16].into_iter().collect()),
        ("array.i16", [-32_768i16].into_iter().collect()),
        ("array.u32", [u32::MAX, 7].into_iter().collect()),
        ("array.i32", [i32::MIN, 1, 2].into_iter().collect()),
        ("array.u64", [u64::MAX].into_iter().collect()),
        ("array.i64", [i64::MIN].into_iter().collect()),
        ("array.f32", [0.5f32, -0.0].into_iter().collect()),
        ("array.f64", [1e300f64, 0.25].into_iter().collect()),
        ("array.bool", [true, false, true].into_iter().collect()),
        ("array.string", ["", "Ġa", "a longer string"].into_iter().collect()),
        ("array.none", Array::from_iter([0i16; 0])),
        ("array.no_strings", Array::from_iter([""; 0])),
        ("array.nested", nested),
    ];
    let scalars = [
        ("general.architecture", Value::from("bitnet-b1.58")),
        ("one.u8", Value::from(200u8)),
        ("one.i8", Value::from(-5i8)),
        ("one.u16", Value::from(60_000u16)),
        ("one.i16", Value::from(-30_000i16)),
        ("one.u32", Value::from(4_000_000_000u32)),
        ("one.i32", Value::from(-7i32)),
        ("one.f32", Value::from(1e-5f32)),
        ("one.bool", Value::from(true)),
        ("one.string", Value::from("Zwölf Boxkämpfer".to_owned())),
        ("one.u64", Value::from(u64::MAX)),
        ("one.i64", Value::from(5i64)),
        ("one.f64", Value::from(10_000.0f64)),
    ];
    let arrays = arrays.map(|(key, array)| (key, Value::from(array)));
    scalars.into_iter().chain(arrays).collect()
}

/// Name, dimensions, type; the payload follows from them. Tensors this small cannot be told from those
/// of the older Q2_0, nor from BitNet32F16, which are not here.
pub(crate) const TENSORS: [(&str, &[u64], TensorType); 17] = [
    ("f16", &[32, 2], TensorType::F16),
    ("i2_s", &[256, 3], TensorType::I2S),
    ("bf16", &[3, 1, 5, 1], TensorType::Bf16),
    ("q8_0", &[64, 2], TensorType::Q8_0),
    ("q6_k", &[256], TensorType::Q6K),
    ("tq1_0", &[256, 2], TensorType::Tq1_0),
    ("tq2_0", &[512], TensorType::Tq2_0),
    ("f32", &[5], TensorType::F32),
    ("q4_0", &[32, 3], TensorType::Q4_0),
    ("q4_k", &[256, 2], TensorType::Q4K),
    ("iq2_s", &[256], TensorType::Iq2S),
    ("q2_0", &[64, 2], TensorType::Q2_0),
    ("tl1", &[64, 32], TensorType::Tl1),
    ("tl2", &[96, 32], TensorType::Tl2),
    ("iq1_bn", &[64, 3], TensorType::Iq1Bn),
    ("iq2_bn", &[128, 2], TensorType::Iq2Bn),
    ("iq2_bn_r4", &[64, 4], TensorType::Iq2BnR4),
];

/// The data of the sample tensor `index`: bytes that differ from place to place and from zero.
pub(crate) fn payload(index: usize) -> Vec<u8> {
    let (_, dims, kind) = TENSORS[index];
    let length = kind.payload(dims).expect("whole blocks");
    (0..length).map(|byte| (byte % 89) as u8 + 1 + index as u8).collect()
}

/// A writer with all of it.
pub(crate) fn writer() -> Writer<'static> {
    let with_values =
        values().into_iter().fold(Writer::new(), |w, (key, value)| w.metadata(key, value));
    TENSORS.iter().enumerate().fold(with_values, |w, (index, (name, dims, kind))| {
        w.tensor(name, dims, kind.id(), payload(index))
    })
}

/// The bytes of a writer's file.
pub(crate) fn written(writer: &Writer<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    writer.write_to(&mut out).expect("a valid file");
    out
}
