//! Synthetic models: whole files that load and run, the same everywhere.

use bitnet_gguf::Gguf;
use bitnet_inference::synth::{SHAPES, Shape, Synthetic};
use bitnet_inference::{Engine, Error, Generation, Options, Request, Sampling};
use bitnet_kernels::Format;
use bitnet_kernels::format::FormatError;
use sha2::{Digest, Sha256};

use crate::common;

const TINY: Synthetic = Synthetic {
    shape: Shape {
        name: "tiny",
        hidden: 256,
        ffn: 768,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        vocabulary: 1000,
        context: 64,
        rope_base: 10_000.0,
    },
    seed: 0,
    weights: Format::I2S,
    embedding: Format::F16,
};

fn bytes(model: &Synthetic) -> Vec<u8> {
    let mut file = Vec::new();
    model.write_to(&mut file).unwrap();
    file
}

fn engine(model: &Synthetic) -> Engine {
    let gguf = Gguf::from_vec("tiny.gguf", bytes(model)).unwrap();
    Engine::load(gguf, &Options::default()).unwrap()
}

fn logits(model: &Synthetic) -> Vec<f32> {
    let ids: Vec<u32> = (0..32).map(|i| i * 31 % 1000).collect();
    common::logits(&engine(model), &ids)
}

#[test]
fn a_seed_gives_the_same_bytes_everywhere() {
    let hash = |bytes: &[u8]| {
        Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let file = bytes(&TINY);
    assert_eq!(hash(&file), "db30a3c8f116fbf970754a12839159a7184a829e17f7e5496434e9d3aa0eee48");
    assert_eq!(file, bytes(&TINY));
    assert_ne!(file, bytes(&Synthetic { seed: 1, ..TINY }));
}

#[test]
fn every_ternary_format_holds_the_same_model() {
    let want = logits(&TINY);
    // Those that GGUF files are read and written with.
    for weights in [Format::I2S, Format::Tq1_0, Format::Tq2_0] {
        assert!(logits(&Synthetic { weights, ..TINY }) == want, "{weights}");
    }
}

#[test]
fn activations_stay_sane_through_all_layers() {
    for embedding in Format::FLOAT.into_iter().filter(|&format| format != Format::Iq2S) {
        let shape = Shape { layers: 24, ..TINY.shape };
        let logits = logits(&Synthetic { shape, embedding, ..TINY });
        let mean = logits.iter().map(|x| x * x).sum::<f32>() / logits.len() as f32;
        // Their deviation is 2, as the embeddings are made.
        assert!((1.7..2.3).contains(&mean.sqrt()), "{embedding}: {mean}");
        // What a token says depends on the tokens before it.
        assert!(logits[..1000] != logits[1000..2000]);
    }
}

#[test]
fn text_goes_in_and_comes_out() {
    let engine = engine(&TINY);
    assert_eq!(engine.vocabulary(), 1000);
    let tokenizer = engine.tokenizer().unwrap();
    // Begin; the merge "a b"; a word with its space; two bytes of one character.
    assert_eq!(engine.encode("ab aab é").unwrap(), [998, 257, 256 + 677, 32, 0xC3, 0xA9]);
    let prompt = engine.encode("x").unwrap();
    let mut text = Generation::new(&engine, Request::new(prompt, Sampling::default(), 8)).unwrap();
    while text.next(|| false).unwrap().is_some() {}
    assert!(!tokenizer.decode(text.generated()).is_empty());
}

#[test]
fn what_a_format_cannot_hold_is_refused_before_anything_is_written() {
    let mut out = Vec::new();
    let [_, _, three, _] = SHAPES;
    let coarse = Synthetic { shape: three, weights: Format::Tq2_0, ..TINY };
    let error = coarse.write_to(&mut out).unwrap_err();
    let Error::ShapeFormat { tensor, source, .. } = &error else { panic!("{error}") };
    assert_eq!(tensor, "blk.0.attn_q.weight");
    assert!(matches!(source, FormatError::Columns { cols: 3200, multiple: 256, .. }), "{error}");
    assert!(error.to_string().contains("bitnet-3b"), "{error}");
    for shape in [
        Shape { heads: 3, ..TINY.shape },
        Shape { kv_heads: 3, ..TINY.shape },
        Shape { layers: 0, ..TINY.shape },
        Shape { vocabulary: 257, ..TINY.shape },
    ] {
        let error = Synthetic { shape, ..TINY }.write_to(&mut out).unwrap_err();
        assert!(matches!(error, Error::Synthetic { .. }), "{error}");
    }
    assert!(out.is_empty());
}

#[test]
fn published_shapes_have_the_published_sizes() {
    // Millions of ternary weights; those of 2B-4T are 2.08 billion.
    let ternary = |s: &Shape| {
        let kv = s.hidden / s.heads * s.kv_heads;
        s.layers * (2 * s.hidden * s.hidden + 2 * kv * s.hidden + 3 * s.ffn * s.hidden) / 1_000_000
    };
    let found = SHAPES.map(|shape| (shape.name, ternary(&shape)));
    let want =
        [("bitnet-0.7b", 679), ("bitnet-2b-4t", 2084), ("bitnet-3b", 3221), ("bitnet-8b", 6979)];
    assert_eq!(found, want);
}
