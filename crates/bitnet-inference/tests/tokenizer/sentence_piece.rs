//! SentencePiece BPE: against the `tokenizers` crate where merges are listed, and against a plain
//! search where tokens have scores.

use std::collections::HashMap;
use std::sync::LazyLock;

use bitnet_inference::tokenizer::{
    MergeOrder, Model, SentencePiece, SpacePrefix, Special, TokenType, Tokenizer, TokenizerError,
    Vocabulary,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::models::bpe::BpeTrainer;

use crate::families::{Pair, add, added, empty, train};
use crate::texts::{HARD, HELDOUT, texts};
use crate::{PARSE, vocabulary};

/// The tokens before those that are merged: unknown, begin, end, and all bytes.
const FIRST: usize = 3 + 256;

/// A `tokenizer.json` of Llama 2 with a vocabulary trained here.
static LLAMA2: LazyLock<Value> = LazyLock::new(|| {
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let normalizer = json!({"type": "Sequence", "normalizers": [prepend, replace()]});
    let mut json = empty(normalizer, Value::Null, decoder(true));
    train(&mut json, BpeTrainer::builder().vocab_size(600).limit_alphabet(90));
    with_bytes(&mut json);
    let bos = json!({"SpecialToken": {"id": "<s>", "type_id": 0}});
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    });
    json
});

fn replace() -> Value {
    json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
}

fn decoder(strip: bool) -> Value {
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if strip {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": decoders})
}

/// Puts the unknown, begin and end tokens and those of bytes before the trained ones.
fn with_bytes(json: &mut Value) {
    let trained = json["model"]["vocab"].as_object().unwrap().clone();
    let mut vocab: serde_json::Map<String, Value> = serde_json::Map::new();
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let first = ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes);
    for (id, token) in first.enumerate() {
        vocab.insert(token, json!(id));
    }
    for (token, id) in trained {
        vocab.insert(token, json!(id.as_u64().unwrap() as usize + FIRST));
    }
    json["model"]["vocab"] = Value::Object(vocab);
    json["model"]["unk_token"] = json!("<unk>");
    json["model"]["fuse_unk"] = json!(true);
    json["model"]["byte_fallback"] = json!(true);
    let special = [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true)];
    json["added_tokens"] = json!(special);
}

/// Gives a file other parts.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut json = LLAMA2.clone();
    change(&mut json);
    json
}

fn metaspace(scheme: &str, split: bool) -> Value {
    changed(|json| {
        json["normalizer"] = Value::Null;
        json["pre_tokenizer"] = json!({
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split
        });
        json["decoder"] = decoder(scheme != "never");
    })
}

/// Gemma 3's parts: spaces are spelled, none is put before, runs of spaces are user-defined tokens.
fn gemma() -> Value {
    changed(|json| {
        json["normalizer"] = replace();
        json["pre_tokenizer"] = json!({
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
            "invert": false
        });
        json["decoder"] = decoder(false);
        // The one is a token of the model, too, which merges make; the others are not.
        let vocab = json["model"]["vocab"].as_object().unwrap();
        let lines = vocab["\n\n"].as_u64().unwrap() as usize;
        let next = vocab.len();
        assert!(!vocab.contains_key("▁▁▁▁▁"));
        json["added_tokens"].as_array_mut().unwrap().extend([
            added(lines, "\n\n", false),
            added(next, "▁▁▁▁▁", false),
            added(next + 1, "<start_of_turn>", true),
        ]);
    })
}

/// As old files have it: special tokens are looked for in normalised text, where a space was put
/// before them.
fn normalized() -> Value {
    changed(|json| {
        for added in json["added_tokens"].as_array_mut().unwrap() {
            added["normalized"] = json!(true);
        }
        let next = json["model"]["vocab"].as_object().unwrap().len();
        let mut line = added(next, "</line>", false);
        line["normalized"] = json!(true);
        json["added_tokens"].as_array_mut().unwrap().push(line);
    })
}

/// A vocabulary without bytes.
fn unknown(fuse: bool) -> Value {
    changed(|json| {
        json["model"]["byte_fallback"] = json!(false);
        json["model"]["fuse_unk"] = json!(fuse);
    })
}

static FILES: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    vec![
        Pair::new("llama2", &LLAMA2),
        Pair::new("first", &metaspace("first", false)),
        Pair::new("first, split", &metaspace("first", true)),
        Pair::new("always", &metaspace("always", false)),
        Pair::new("always, split", &metaspace("always", true)),
        Pair::new("never", &metaspace("never", true)),
        Pair::new("gemma", &gemma()),
        Pair::new("normalized", &normalized()),
        Pair::new("unknown", &unknown(false)),
        Pair::new("unknown fused", &unknown(true)),
    ]
});

#[test]
fn hard_texts_agree() {
    FILES.iter().for_each(Pair::hold_hard);
}

fn spaced() -> impl Strategy<Value = String> {
    let part = "( |▁|  |the|king|\n\n|é|漢|<s>|</s>|</line>|<unk>|<0x41>|    ){0,12}";
    prop_oneof![texts(), part]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_agrees(text in spaced()) {
        FILES.iter().for_each(|pair| pair.hold(&text));
    }
}

/// These end at once or, if the time were quadratic, never.
#[test]
fn a_text_of_a_megabyte() {
    let scored = Tokenizer::new(scored(SpacePrefix::Always)).unwrap();
    for unit in ["a", "th", " ", "the ", "\n", "漢", "▁", "<s", "\u{301}"] {
        let text = unit.repeat((1 << 20) / unit.len()) + "end";
        for pair in FILES.iter().step_by(4) {
            assert!(!pair.ours.encode(&text, Special::PROMPT).is_empty());
            pair.hold(&unit.repeat(2000));
        }
        let ids = scored.encode(&text, Special::TEXT);
        assert!(scored.decode(&ids) == text.replace('▁', " "), "{unit:?}");
    }
}

#[test]
fn a_text_comes_back() {
    let pair = &FILES[0];
    for text in HARD {
        let ids = pair.ours.encode(text, Special::TEXT);
        assert_eq!(pair.ours.decode(&ids), text.replace('▁', " "));
        // The second half follows the first, and its space stays.
        let (before, after) = ids.split_at(ids.len() / 2);
        let mut stream = pair.ours.stream_after(before);
        let mut text: String = after.iter().map(|&id| stream.push(id).to_owned()).collect();
        text.push_str(stream.finish());
        let bytes: Vec<u8> =
            after.iter().flat_map(|&id| pair.ours.bytes(id).unwrap()).copied().collect();
        let bytes = bytes.strip_prefix(b" ").filter(|_| before.is_empty()).unwrap_or(&bytes);
        assert_eq!(text, String::from_utf8_lossy(bytes));
    }
    let ids = pair.ours.encode("the king", Special::PROMPT);
    let mut stream = pair.ours.stream_after(&ids[..1]);
    assert_eq!(
        ids[1..].iter().map(|&id| stream.push(id).to_owned()).collect::<String>(),
        "the king"
    );
    let mut stream = pair.ours.stream_after(&ids);
    assert_eq!(stream.push(ids[1]).chars().next(), Some(' '));
}

/// The trained vocabulary as GGUF has it: with scores, of which some are the same, and with a token
/// of characters that are no tokens.
fn scored(prefix: SpacePrefix) -> Vocabulary {
    let mut vocabulary = vocabulary(&LLAMA2);
    vocabulary.tokens.extend(["ŹŻ", "ŹŻŹ", "aŻ"].map(String::from));
    vocabulary.types.extend([TokenType::Normal; 3]);
    let scores = (0..vocabulary.tokens.len()).map(|id| -((id / 3) as f32)).collect();
    vocabulary.model = Model::SentencePiece(SentencePiece {
        order: MergeOrder::Scores(scores),
        prefix,
        strip: prefix != SpacePrefix::None,
        split: false,
        unknown: Some(0),
        fuse_unknown: true,
    });
    vocabulary
}

/// Text without special tokens to ids by the scores: as long as two neighbours make a token, the
/// pair of the highest score is merged, the leftmost of these.
fn search(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
    let Model::SentencePiece(SentencePiece { order: MergeOrder::Scores(scores), prefix, .. }) =
        &vocabulary.model
    else {
        panic!("no scores")
    };
    let normal = (0..).zip(vocabulary.tokens.iter().zip(&vocabulary.types));
    let ids: HashMap<&str, usize> = normal
        .filter(|(_, (_, kind))| **kind == TokenType::Normal)
        .map(|(id, (text, _))| (text.as_str(), id))
        .collect();
    let mut text = text.replace(' ', "▁");
    if *prefix == SpacePrefix::Always && !text.is_empty() {
        text.insert(0, '▁');
    }
    let mut parts: Vec<String> = text.chars().map(String::from).collect();
    loop {
        let mut best: Option<(f32, usize)> = None;
        for (left, pair) in parts.windows(2).enumerate() {
            if let Some(&id) = ids.get(pair.concat().as_str())
                && best.is_none_or(|(score, _)| scores[id] > score)
            {
                best = Some((scores[id], left));
            }
        }
        let Some((_, left)) = best else { break };
        let right = parts.remove(left + 1);
        parts[left].push_str(&right);
    }
    let part_ids = parts.iter().flat_map(|part| match ids.get(part.as_str()) {
        Some(&id) => vec![id as u32],
        None => part.bytes().map(|byte| u32::from(byte) + 3).collect(),
    });
    part_ids.collect()
}

#[test]
fn scores_are_followed() {
    for prefix in [SpacePrefix::Always, SpacePrefix::None] {
        let vocabulary = scored(prefix);
        let ours = Tokenizer::new(vocabulary.clone()).unwrap();
        let hold = |text: &str| {
            let ids = ours.encode(text, Special::TEXT);
            assert_eq!(ids, search(&vocabulary, text), "{text:?}");
            assert_eq!(ours.decode(&ids), text.replace('▁', " "));
        };
        HARD.iter().for_each(|text| hold(text));
        HELDOUT.lines().take(100).for_each(hold);
        ["ŹŻ", "aŹŻŹŹb", "ŹaŻŹŻ", "aŻŻ", "Ź ŻŹŻaŹŻŹ"].into_iter().for_each(hold);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn scores_are_followed_anywhere(text in prop_oneof![spaced(), "[aŹŻ the]{0,30}"]) {
        let vocabulary = scored(SpacePrefix::Always);
        let ours = Tokenizer::new(vocabulary.clone()).unwrap();
        prop_assert_eq!(ours.encode(&text, Special::TEXT), search(&vocabulary, &text));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_stream_is_the_whole(
        ids in proptest::collection::vec(prop_oneof![0x80_u32..0x103, 0_u32..900], 0..30),
    ) {
        for pair in FILES.iter() {
            let mut stream = pair.ours.stream();
            let mut text = String::new();
            for &id in &ids {
                text.push_str(stream.push(id));
            }
            text.push_str(stream.finish());
            prop_assert_eq!(text, pair.ours.decode(&ids));
        }
    }
}

#[test]
fn special_tokens_take_a_space_after_them() {
    let ours = Tokenizer::new(scored(SpacePrefix::Always)).unwrap();
    let parts = [&[1][..], &ours.encode("the", Special::TEXT), &[2], &ours.encode("king", PARSE)];
    assert_eq!(ours.encode("<s>the</s>king", PARSE), parts.concat());
    assert_eq!(ours.encode("", Special::PROMPT), [1]);
}

/// Refused with `message`.
fn refused(change: impl FnOnce(&mut Vocabulary, &mut SentencePiece), message: &str) {
    let mut vocabulary = scored(SpacePrefix::Always);
    let Model::SentencePiece(mut model) = vocabulary.model.clone() else { panic!("a constant") };
    change(&mut vocabulary, &mut model);
    vocabulary.model = Model::SentencePiece(model);
    assert_eq!(Tokenizer::new(vocabulary).unwrap_err().to_string(), message);
}

fn scores(model: &mut SentencePiece) -> &mut Vec<f32> {
    let MergeOrder::Scores(scores) = &mut model.order else { panic!("a constant") };
    scores
}

#[test]
fn vocabularies_must_be_complete() {
    let tokens = scored(SpacePrefix::Always).tokens.len();
    let count =
        format!("{tokens} tokens but 7 scores: the file is damaged, or its tokenizer incomplete");
    refused(|_, model| scores(model).truncate(7), &count);
    let not_a_number = "the score of token 300 is not a number: the file is damaged";
    refused(|_, model| scores(model)[300] = f32::NAN, not_a_number);
    let id = format!("the unknown token has id {tokens}, but there are only {tokens} tokens");
    refused(|_, model| model.unknown = Some(tokens as u32), &id);
    let byte = "no token stands for byte 0x41, but tokens for all bytes are needed";
    refused(|v, _| v.types[3 + 0x41] = TokenType::Unused, byte);
    let text = "token 68 \"<0xG1>\" is of type byte: expected a byte in hexadecimal, as in <0x0A>";
    refused(|v, _| v.tokens[68] = "<0xG1>".into(), text);
    refused(|v, _| v.tokens[68] = "<0x40>".into(), "tokens 67 and 68 both stand for \"<0x40>\"");
    refused(
        |v, model| {
            v.types
                .iter_mut()
                .filter(|k| **k == TokenType::Byte)
                .for_each(|k| *k = TokenType::Unused);
            model.unknown = None;
        },
        "there is neither an unknown token nor a token for each byte, so that not every text can be \
         encoded",
    );
    let last = tokens - 1;
    refused(
        |v, _| v.tokens[last - 1] = v.tokens[last].clone(),
        &format!("tokens {} and {last} both stand for \"aŻ\"", last - 1),
    );
}

#[test]
fn infinite_scores_have_an_order() {
    let mut vocabulary = scored(SpacePrefix::Always);
    let Model::SentencePiece(model) = &mut vocabulary.model else { panic!("a constant") };
    let last = model_scores(model);
    last[0] = f32::INFINITY;
    last[1] = f32::NEG_INFINITY;
    last[2] = -0.0;
    let ours = Tokenizer::new(vocabulary.clone()).unwrap();
    assert_eq!(ours.encode("aŻŹŻŹ", Special::TEXT), search(&vocabulary, "aŻŹŻŹ"));
}

fn model_scores(model: &mut SentencePiece) -> &mut [f32] {
    let scores = scores(model);
    let start = scores.len() - 3;
    &mut scores[start..]
}

#[test]
fn merges_by_text_are_refused_as_in_byte_level_models() {
    let json = changed(|json| json["model"]["merges"][0] = json!(["xyzzy", "a"]));
    let error = Tokenizer::new(vocabulary(&json)).unwrap_err();
    assert!(matches!(&error, TokenizerError::MergeToken { missing, .. } if missing == "xyzzy"));
    let mut json = changed(|_| {});
    add(&mut json, &[]);
    assert!(Tokenizer::new(vocabulary(&json)).is_ok());
}
