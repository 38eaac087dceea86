//! The tokenizer against the `tokenizers` crate, with the demo model's vocabulary and made-up ones.

#![expect(clippy::unwrap_used, reason = "a fixture that fails is a test that fails")]

mod decode;
mod encode;
mod vocabulary;

use std::sync::LazyLock;

use bitnet_inference::tokenizer::{
    ByteLevel, Model, Special, Splitter, TokenType, Tokenizer, Vocabulary,
};
use serde_json::{Value, json};
use tokenizers::Tokenizer as Oracle;

/// The demo model's tokenizer, as its makers saved it.
const JSON: &str = include_str!("../data/tokenizer.json");
/// Read as tokens, but without BOS.
const PARSE: Special = Special { bos: false, suffix: false, parse: true };

static OURS: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::new(vocabulary(&demo_json())).unwrap());
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

/// What a GGUF file says of the tokenizer in a `tokenizer.json`.
fn vocabulary(json: &Value) -> Vocabulary {
    let model = &json["model"];
    let mut tokens: Vec<(u64, String, TokenType)> = Vec::new();
    for (text, id) in model["vocab"].as_object().unwrap() {
        tokens.push((id.as_u64().unwrap(), text.clone(), TokenType::Normal));
    }
    for added in json["added_tokens"].as_array().unwrap() {
        let text = added["content"].as_str().unwrap().to_owned();
        let kind = if added["special"] == json!(true) {
            TokenType::Control
        } else {
            TokenType::UserDefined
        };
        tokens.push((added["id"].as_u64().unwrap(), text, kind));
    }
    tokens.sort_by_key(|token| token.0);
    assert!((0..).zip(&tokens).all(|(id, token)| token.0 == id));
    let merges: Vec<[String; 2]> = serde_json::from_value(model["merges"].clone()).unwrap();
    let merges = merges.iter().map(|pair| pair.join(" ")).collect();
    Vocabulary {
        types: tokens.iter().map(|token| token.2).collect(),
        tokens: tokens.into_iter().map(|token| token.1).collect(),
        model: Model::ByteLevel(ByteLevel::new(merges, Splitter::llama3())),
        bos: Some(2040),
        eos: Some(2041),
        ends: vec![2044],
        add_bos: true,
        suffix: None,
    }
}

fn demo() -> Vocabulary {
    vocabulary(&demo_json())
}

fn theirs(oracle: &Oracle, text: &str, bos: bool) -> Vec<u32> {
    oracle.encode(text, bos).unwrap().get_ids().to_vec()
}
