//! Conversion: the same model comes out, and nothing else is left behind.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

#[path = "../common/mod.rs"]
mod common;
mod formats;
#[path = "../common/reference.rs"]
mod models;
mod output;
#[path = "../common/rewritten.rs"]
mod rewritten;
mod table;
mod tokenizers;

use std::path::{Path, PathBuf};

use bitnet_inference::convert::{Conversion, Proof, Target};
use bitnet_inference::{Checkpoint, Contents, Engine, Error, Options, ReadAs};
use bitnet_kernels::Format;
use rewritten::rewritten;

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

/// How much logits changed, relative to their size.
fn change(found: &[u32], expected: &[u32]) -> f64 {
    let pairs = found.iter().zip(expected).map(|(a, b)| (f32::from_bits(*a), f32::from_bits(*b)));
    let (change, size) = pairs.fold((0.0, 0.0), |(change, size), (a, b)| {
        (change + f64::from(a - b).powi(2), size + f64::from(b).powi(2))
    });
    (change / size).sqrt()
}
