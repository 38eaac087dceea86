//! The tokenizer against the `tokenizers` crate, with the demo model's vocabulary and made-up ones.

#![expect(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

mod decode;
mod encode;
mod families;
mod json;
mod sentence_piece;
mod texts;
mod vocabulary;

use std::sync::LazyLock;

use bitnet_inference::tokenizer::{Special, Tokenizer, TokenizerError, TokenizerFiles, Vocabulary};
use serde_json::Value;
use tokenizers::Tokenizer as Oracle;

/// The demo model's tokenizer, as its makers saved it.
const JSON: &str = include_str!("../data/tokenizer.json");
/// Read as tokens, but without BOS.
const PARSE: Special = Special { bos: false, suffix: false, parse: true };

static OURS: LazyLock<Tokenizer> = LazyLock::new(|| Tokenizer::new(demo()).unwrap());
static THEIRS: LazyLock<Oracle> = LazyLock::new(|| JSON.parse().unwrap());
/// The oracle with control tokens read as text.
static THEIRS_TEXT: LazyLock<Oracle> = LazyLock::new(|| as_text(THEIRS.clone()));

fn demo_json() -> Value {
    serde_json::from_str(JSON).unwrap()
}

fn as_text(mut oracle: Oracle) -> Oracle {
    oracle.set_encode_special_tokens(true);
    oracle
}

/// The vocabulary of a `tokenizer.json` with nothing beside it.
fn vocabulary(json: &Value) -> Vocabulary {
    read(&json.to_string()).unwrap()
}

fn read(json: &str) -> Result<Vocabulary, TokenizerError> {
    let tokenizer = json.as_bytes();
    Vocabulary::from_json(&TokenizerFiles { tokenizer, ..TokenizerFiles::default() })
}

fn demo() -> Vocabulary {
    Vocabulary { eos: Some(2041), ..vocabulary(&demo_json()) }
}

fn theirs(oracle: &Oracle, text: &str, bos: bool) -> Vec<u32> {
    oracle.encode(text, bos).unwrap().get_ids().to_vec()
}
