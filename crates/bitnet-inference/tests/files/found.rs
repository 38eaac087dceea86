//! The seeds of the fuzz targets, and inputs that broke something once, with what is said of them now.
//!
//! An input that fuzzing finds goes to `tests/data/found/TARGET/`, under a name that says what it was,
//! and into the table below.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use bitnet_gguf::Value as Gguf;
use bitnet_inference::Checkpoint;
use serde_json::{Map, Value, json};

use crate::fuzz;

/// Folders of inputs, each with one for each target. Those of `library` are replayed by the crate that reads them.
const SEEDS: &str = "../../fuzz/seeds";
const FOUND: &str = "tests/data/found";

/// What is refused, and with which words; all other seeds are sound.
const REFUSED_SEEDS: [(&str, &str); 7] = [
    ("config/gemma3.json", "`blk.0.attn_q_norm.weight` is missing"),
    ("config/qwen3.json", "`blk.0.attn_q_norm.weight` is missing"),
    (
        "index/above.json",
        "`../foreign.safetensors` must be the name of a .safetensors file beside it",
    ),
    ("index/below.json", "`inner/foreign.safetensors` must be the name of a .safetensors file"),
    ("index/missing.json", "model-00001-of-00002.safetensors: cannot be read"),
    ("safetensors/empty.safetensors", "`token_embd.weight` is missing"),
    ("safetensors/none.safetensors", "I64 of 0 dimensions"),
];

/// The same for what was found; none of it is sound.
const REFUSED_FOUND: [(&str, &str); 3] = [
    // It took as much memory as so many layers have names.
    ("config/layers_beyond_memory.json", "`layer_types`"),
    // The sum of their elements overflowed.
    ("model/shapes_beyond_counting.gguf", "\"a\""),
    // The vocabulary was padded to the rows of the table.
    ("safetensors/rows_without_bytes.safetensors", "the embedding table has 1099511627776 rows"),
];

/// What a target says of an input.
fn replay(target: &str, input: &[u8]) -> Result<(), String> {
    match target {
        "gguf" => fuzz::gguf(input).map_err(|error| error.to_string()),
        "model" => fuzz::model(input).map_err(|error| error.to_string()),
        "safetensors" => fuzz::safetensors(input).map_err(|error| error.to_string()),
        "index" => fuzz::index(input).map_err(|error| error.to_string()),
        "config" => fuzz::config(input).map_err(|error| error.to_string()),
        "template" => fuzz::template(input).map_err(|error| error.to_string()),
        "tokenizer" => fuzz::tokenizer(input).map_err(|error| error.to_string()),
        other => panic!("there is no target {other}"),
    }
}

/// Replays all inputs of a folder; the names of those that were refused as the table says.
fn replay_all(folder: &str, refused: &[(&str, &str)]) -> (BTreeSet<String>, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let (mut found, mut sound) = (BTreeSet::new(), 0);
    for target in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
        let target_name = target.file_name().into_string().unwrap();
        if target_name == "library" {
            continue;
        }
        for input in fs::read_dir(target.path()).unwrap().map(|entry| entry.unwrap()) {
            let name = format!("{target_name}/{}", input.file_name().into_string().unwrap());
            let expected = refused.iter().find(|(of, _)| *of == name).map(|(_, words)| *words);
            match (replay(&target_name, &fs::read(input.path()).unwrap()), expected) {
                (Ok(()), None) => sound += 1,
                (Err(error), Some(words)) => {
                    assert!(error.contains(words), "{name}: {error} does not say {words}");
                    found.insert(name);
                }
                (result, expected) => panic!("{name}: {result:?} where {expected:?} is expected"),
            }
        }
    }
    (found, sound)
}

fn names(table: &[(&str, &str)]) -> BTreeSet<String> {
    table.iter().map(|(name, _)| (*name).to_owned()).collect()
}

#[test]
fn seeds_are_sound_or_refused() {
    let (refused, sound) = replay_all(SEEDS, &REFUSED_SEEDS);
    assert_eq!(refused, names(&REFUSED_SEEDS));
    assert!(sound > REFUSED_SEEDS.len(), "{sound} seeds are sound");
}

#[test]
fn what_was_found_is_refused() {
    let (refused, sound) = replay_all(FOUND, &REFUSED_FOUND);
    assert_eq!((refused, sound), (names(&REFUSED_FOUND), 0));
}

/// Scores for a list of merges took as long as the square of the length of a token: minutes for this one.
#[test]
fn long_tokens_are_scored_in_time() {
    let tokens: Vec<String> = (0..20).map(|power| "a".repeat(1 << power)).collect();
    let merges: Vec<String> =
        tokens.iter().rev().skip(1).rev().map(|t| format!("{t} {t}")).collect();
    let vocab: Map<String, Value> = tokens.iter().cloned().zip((0..).map(Value::from)).collect();
    let tokenizer = json!({
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "a"},
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
    });
    let folder = tempfile::tempdir().unwrap();
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join(SEEDS);
    for (seed, name) in [
        ("config/bitnet.json", "config.json"),
        ("safetensors/bitnet.safetensors", "model.safetensors"),
    ] {
        fs::copy(seeds.join(seed), folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let (metadata, _) = Checkpoint::open(folder.path()).unwrap().metadata().unwrap();
    let scores = metadata.into_iter().find(|(key, _)| key == "tokenizer.ggml.scores").unwrap().1;
    let Gguf::Array(scores) = scores else { panic!("{scores:?}") };
    let expected = (0..20).map(|rank| Gguf::F32(0.0 - rank as f32));
    assert!(scores.iter().eq(expected));
}
