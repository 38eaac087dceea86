//! Writes `tokenizer.json` and what lies beside it.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::pre_tokenizer::expression;
use crate::tokenizer::sentence_piece::SPACE;
use crate::tokenizer::split::{ByteStage, Stage};
use crate::tokenizer::{
    ByteLevel, MergeOrder, Model, SentencePiece, SpacePrefix, TokenType, Vocabulary,
};

/// The name of a file, and what it says.
pub(crate) type File = (&'static str, Map<String, Value>);

/// The files of a vocabulary by their names, and in what the one that is read from them will not be the
/// same.
pub(crate) fn to_json(vocabulary: &Vocabulary) -> ([File; 3], Option<&'static str>) {
    let v = vocabulary;
    let (mut parts, lost) = match &v.model {
        Model::ByteLevel(model) => (byte_level(model), None),
        Model::SentencePiece(model) => sentence_piece(v, model),
    };
    // Ids without a token are unused when the file is read.
    let normal = v.entries().filter(|(_, _, kind)| *kind != TokenType::Unused);
    let vocab: Map<_, _> = normal.map(|(id, text, _)| (text.to_owned(), id.into())).collect();
    parts["model"]["vocab"] = vocab.into();
    let special = |kind| match kind {
        TokenType::Control | TokenType::Unknown => Some(true),
        TokenType::UserDefined => Some(false),
        _ => None,
    };
    let added = v.entries().filter_map(|(id, text, kind)| {
        Some(json!({
            "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": v.normalized.binary_search(&id).is_ok(), "special": special(kind)?,
        }))
    });
    let mut tokenizer = object(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Value>(),
        "post_processor": post_processor(v),
    }));
    tokenizer.extend(object(parts));
    let text = |id: Option<u32>| id.and_then(|id| v.tokens.get(id as usize));
    let config = object(json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": false,
        "bos_token": text(v.bos), "eos_token": text(v.eos),
        "add_bos_token": v.add_bos, "add_eos_token": v.suffix.is_some(),
    }));
    let mut ends: Vec<u32> = v.eos.into_iter().collect();
    ends.extend(v.ends.iter().filter(|&&id| Some(id) != v.eos));
    let generation = object(json!({ "bos_token_id": v.bos, "eos_token_id": ends }));
    let files = [
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", config),
        ("generation_config.json", generation),
    ];
    (files, lost)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map.into_iter().filter(|(key, value)| kept(key, value)).collect(),
        _ => Map::new(),
    }
}

/// Tokens that there are not have no place in a file.
fn kept(key: &str, value: &Value) -> bool {
    !(value.is_null() && (key.ends_with("_token") || key.ends_with("_token_id")))
}

/// The tokens around a text.
fn post_processor(v: &Vocabulary) -> Value {
    let before = v.bos.filter(|_| v.add_bos);
    let around: Vec<_> = before.into_iter().chain(v.suffix).collect();
    if around.is_empty() {
        return Value::Null;
    }
    let text = |id: u32| v.tokens.get(id as usize).cloned().unwrap_or_default();
    let token = |id: u32| json!({ "SpecialToken": { "id": text(id), "type_id": 0 } });
    let single = |name: &str| {
        let sequence = json!({ "Sequence": { "id": name, "type_id": 0 } });
        before.map(token).into_iter().chain([sequence]).chain(v.suffix.map(token))
    };
    let tokens = around
        .iter()
        .map(|&id| (text(id), json!({ "id": text(id), "ids": [id], "tokens": [text(id)] })));
    json!({
        "type": "TemplateProcessing", "single": single("A").collect::<Value>(),
        "pair": single("A").chain(single("B")).collect::<Value>(),
        "special_tokens": tokens.collect::<Map<_, _>>(),
    })
}

/// Normaliser, pre-tokenizer, decoder and model.
fn byte_level(model: &ByteLevel) -> Value {
    let spell = || {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        })
    };
    let split = |expression: &str| {
        json!({
            "type": "Split", "pattern": { "Regex": expression }, "behavior": "Isolated", "invert": false,
        })
    };
    let (stages, byte_stages) = model.splitter.stages();
    let stage = |stage: &Stage| match *stage {
        Stage::Punctuation { single } => {
            let behavior = if single { "Isolated" } else { "Contiguous" };
            json!({ "type": "Punctuation", "behavior": behavior })
        }
        Stage::Numbers { single } => json!({ "type": "Digits", "individual_digits": single }),
        stage => split(expression(stage)),
    };
    let mut steps: Vec<_> = stages.iter().map(stage).collect();
    let digits = |stage: &ByteStage| match stage {
        ByteStage::Digit => Some(split("[0-9]")),
        ByteStage::ThreeDigits => Some(split("[0-9][0-9][0-9]")),
        ByteStage::SpelledNumbers { .. } => None,
    };
    steps.extend(byte_stages.iter().filter_map(digits));
    steps.push(spell());
    let spelled = |stage: &ByteStage| match *stage {
        ByteStage::SpelledNumbers { single } => {
            Some(json!({ "type": "Digits", "individual_digits": single }))
        }
        _ => None,
    };
    steps.extend(byte_stages.iter().filter_map(spelled));
    let normalizer = if model.nfc { json!({ "type": "NFC" }) } else { Value::Null };
    json!({
        "normalizer": normalizer,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": steps },
        "decoder": spell(),
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": model.ignore_merges, "merges": model.merges,
        },
    })
}

/// Normaliser, pre-tokenizer, decoder and model, and what is lost.
fn sentence_piece(v: &Vocabulary, model: &SentencePiece) -> (Value, Option<&'static str>) {
    let space = SPACE.to_string();
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": space });
    let metaspace = |scheme| {
        json!({
            "type": "Metaspace", "replacement": space, "prepend_scheme": scheme, "split": model.split,
        })
    };
    let (normalizer, pre_tokenizer) = match model.prefix {
        SpacePrefix::None if !model.split => (replace, Value::Null),
        SpacePrefix::None => (Value::Null, metaspace("never")),
        SpacePrefix::Always => {
            let prepend = json!({ "type": "Prepend", "prepend": space });
            (json!({ "type": "Sequence", "normalizers": [prepend, replace] }), Value::Null)
        }
        SpacePrefix::FirstIfMissing => (Value::Null, metaspace("first")),
        SpacePrefix::AlwaysIfMissing => (Value::Null, metaspace("always")),
    };
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": space }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if model.strip {
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let (merges, tied) = match &model.order {
        MergeOrder::Merges(merges) => (merges.clone(), false),
        MergeOrder::Scores(scores) => merges(v, scores),
    };
    let unknown = model.unknown.and_then(|id| v.tokens.get(id as usize));
    let bytes = v.entries().any(|(_, _, kind)| kind == TokenType::Byte);
    let parts = json!({
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": { "type": "Sequence", "decoders": decoders },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": model.fuse_unknown, "byte_fallback": bytes,
            "ignore_merges": false, "merges": merges,
        },
    });
    (parts, tied.then_some("tokens of the same score are merged in the order of their ids"))
}

/// The merges that make the tokens, those of the highest scores first, and whether scores are not enough
/// to tell their order.
fn merges(v: &Vocabulary, scores: &[f32]) -> (Vec<String>, bool) {
    let normal = || v.entries().filter(|(_, _, kind)| *kind == TokenType::Normal);
    let tokens: HashSet<&str> = normal().map(|(_, text, _)| text).collect();
    let mut found: Vec<(f32, u32, String)> = Vec::new();
    for (id, text, _) in normal() {
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            if tokens.contains(left) && tokens.contains(right) {
                found.push((scores[id as usize], id, format!("{left} {right}")));
            }
        }
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let tied = found.windows(2).any(|pair| pair[0].0 == pair[1].0 && pair[0].1 != pair[1].1);
    (found.into_iter().map(|(_, _, merge)| merge).collect(), tied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TokenizerFiles;
    use crate::tokenizer::samples::{byte_level, same_tokens, scored, sentence_piece};

    #[test]
    fn vocabularies_are_read_as_they_were_written() {
        for vocabulary in byte_level().into_iter().chain(sentence_piece()) {
            let (files, lost) = to_json(&vocabulary);
            let [tokenizer, config, generation] =
                files.map(|(_, json)| Value::Object(json).to_string());
            let files = TokenizerFiles {
                tokenizer: tokenizer.as_bytes(),
                tokenizer_config: Some(config.as_bytes()),
                generation_config: Some(generation.as_bytes()),
                config: None,
            };
            assert_eq!(lost, None);
            same_tokens(&vocabulary, &Vocabulary::from_json(&files).unwrap());
        }
    }

    #[test]
    fn scores_that_are_not_enough_are_said() {
        assert_eq!(to_json(&scored(&[0.0, 0.0, 0.0, 0.0, -1.0, -2.0])).1, None);
        assert!(to_json(&scored(&[0.0, 0.0, 0.0, 0.0, -1.0, -1.0])).1.is_some());
    }
}
