//! Conversion: the same model comes out, and nothing else is left behind.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

#[path = "../common/mod.rs"]
mod common;
mod formats;
#[path = "../common/reference.rs"]
mod models;
mod output;
mod table;
mod tokenizers;

use std::path::{Path, PathBuf};

use bitnet_gguf::{Gguf, TensorType, Writer};
use bitnet_inference::convert::{Conversion, Proof, Target};
use bitnet_inference::{Checkpoint, Contents, Engine, Error, Options, ReadAs};
use bitnet_kernels::{Format, format};

/// The demo model as a file.
fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/bitnet-tales-i2_s.gguf")
}

/// Converts a model.
fn convert(
    from: &Path,
    to: &Path,
    target: &str,
    embedding: Option<Format>,
) -> Result<Proof, Error> {
    convert_read_as(from, to, (target, embedding), None)
}

fn convert_read_as(
    from: &Path,
    to: &Path,
    (target, embedding): (&str, Option<Format>),
    read_as: Option<ReadAs>,
) -> Result<Proof, Error> {
    let checkpoint = Checkpoint::open(from)?;
    let target: Target = target.parse().unwrap();
    let contents = Contents::new(&checkpoint, read_as)?;
    Conversion::plan(contents, target, embedding)?.write(to, false, &|_| true)
}

fn open(path: &Path) -> Engine {
    Engine::open(path, &Options::default()).unwrap()
}

/// The logits after each token of a prompt, bit by bit.
fn bits(engine: &Engine) -> Vec<u32> {
    let tokens = engine.config().vocabulary.unwrap_or(96).min(96) as u32;
    let ids: Vec<_> = (0..24).map(|i| (i * i * 7 + i * 31) % tokens).collect();
    common::logits(engine, &ids).iter().map(|x| x.to_bits()).collect()
}

/// The demo model with its matrices in a format that the file does not tell, in the place of I2_S.
fn rewritten(to: Format) -> Vec<u8> {
    let demo = Gguf::from_static("demo.gguf", common::DEMO).unwrap();
    let mut writer = Writer::new();
    for (key, value) in demo.metadata() {
        writer = writer.metadata(key, value.clone());
    }
    for t in demo.tensors() {
        let mut data = demo.data(t).unwrap().to_vec();
        if t.type_id == TensorType::I2S.id() {
            let (cols, rows) = (t.dims[0] as usize, t.dims[1] as usize);
            let scale = format::check(Format::I2S, &data, rows, cols).unwrap();
            let weights = format::decode(Format::I2S, &data, rows, cols).unwrap();
            data = format::encode(to, &weights, rows, cols, scale).unwrap();
        }
        writer = writer.tensor(&t.name, &t.dims, t.type_id, data);
    }
    let mut file = Vec::new();
    writer.write_to(&mut file).unwrap();
    file
}

/// How much logits changed, relative to their size.
fn change(found: &[u32], expected: &[u32]) -> f64 {
    let pairs = found.iter().zip(expected).map(|(a, b)| (f32::from_bits(*a), f32::from_bits(*b)));
    let (change, size) = pairs.fold((0.0, 0.0), |(change, size), (a, b)| {
        (change + f64::from(a - b).powi(2), size + f64::from(b).powi(2))
    });
    (change / size).sqrt()
}
