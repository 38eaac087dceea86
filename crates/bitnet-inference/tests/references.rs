//! Agreement with the Python reference implementation of every architecture but the first, whose
//! goldens are in `goldens.rs`. `references/make.py` made the models and what comes out of them.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;

use std::path::{Path, PathBuf};

use bitnet_inference::{Engine, Options};
use common::logits;
use safetensors::SafeTensors;

static REFERENCES: &[u8] = include_bytes!("references/references.safetensors");

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/references").join(name)
}

fn open(name: &str) -> Engine {
    Engine::open(folder(name), &Options::default()).unwrap()
}

/// The token ids of a prompt, and what the reference has for them.
fn reference(name: &str) -> (Vec<u32>, Vec<f32>) {
    let file = SafeTensors::deserialize(REFERENCES).unwrap();
    let words = |part: &str| {
        let data = file.tensor(&format!("{name}.{part}")).unwrap().data().to_vec();
        data.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect::<Vec<_>>()
    };
    (words("ids"), words("out").into_iter().map(f32::from_bits).collect())
}

/// The greatest difference, in units of the standard deviation of `want`.
fn difference(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let square = want.iter().map(|x| x * x).sum::<f32>() / want.len() as f32;
    let greatest = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    greatest / square.sqrt()
}

/// No activation of these prompts is near a rounding boundary: only the rounding of floats differs.
const BOUND: f32 = 2e-5;

#[test]
fn logits_are_those_of_the_reference() {
    for name in ["1bitllm", "llama", "qwen3"] {
        let engine = open(name);
        assert_eq!(engine.notices(), [], "{name}");
        for prompt in 0..3 {
            let (ids, want) = reference(&format!("{name}.{prompt}"));
            let difference = difference(&logits(&engine, &ids), &want);
            println!("{name}, {} tokens: greatest difference {difference:e}", ids.len());
            assert!(difference < BOUND, "{name}, {} tokens: {difference:e}", ids.len());
        }
    }
}

#[test]
fn embeddings_are_those_of_the_reference() {
    for name in ["qwen3-embedding", "gemma3-embedding"] {
        let engine = open(name);
        for prompt in 0..3 {
            let (ids, states) = reference(&format!("{name}.{prompt}"));
            let want = &states[states.len() - engine.config().hidden..];
            let length = want.iter().map(|x| x * x).sum::<f32>().sqrt();
            let want: Vec<_> = want.iter().map(|x| x / length).collect();
            let got = engine.session(1).unwrap().embed(0, &ids).unwrap();
            let difference = difference(&got, &want);
            println!("{name}, {} tokens: greatest difference {difference:e}", ids.len());
            assert!(difference < BOUND, "{name}, {} tokens: {difference:e}", ids.len());
        }
    }
}
