//! `tokenizer.json` of byte-level model families, with vocabularies trained here, against the
//! `tokenizers` crate.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bitnet_inference::tokenizer::{Special, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::tokenizer::{
    OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
};
use tokenizers::{NormalizedString, Normalizer, Tokenizer as Oracle};
use unicode_general_category::get_general_category;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::canonical_combining_class;

use crate::texts::{HARD, HELDOUT, texts};
use crate::{as_text, theirs, vocabulary};

/// A tokenizer of ours and theirs from the same file.
pub(crate) struct Pair {
    pub(crate) name: &'static str,
    pub(crate) ours: Tokenizer,
    pub(crate) theirs: Oracle,
    theirs_text: Oracle,
}

impl Pair {
    pub(crate) fn new(name: &'static str, json: &Value) -> Self {
        let theirs: Oracle = json.to_string().parse().unwrap();
        let ours = Tokenizer::new(vocabulary(json)).unwrap();
        Self { name, ours, theirs_text: as_text(theirs.clone()), theirs }
    }

    /// All four ways to encode a text, and back, at once and token by token.
    pub(crate) fn hold(&self, text: &str) {
        for around in [true, false] {
            for (parse, oracle) in [(true, &self.theirs), (false, &self.theirs_text)] {
                let ids = self.ours.encode(text, Special { bos: around, suffix: around, parse });
                assert_eq!(ids, theirs(oracle, text, around), "{}: {text:?}, {parse}", self.name);
                let decoded = self.ours.decode(&ids);
                // The oracle does not skip special tokens that are looked for in normalised text.
                let text_of = |id: &u32| !self.ours.bytes(*id).unwrap().is_empty();
                let with_text: Vec<u32> = ids.iter().copied().filter(text_of).collect();
                assert_eq!(decoded, oracle.decode(&with_text, true).unwrap(), "{}", self.name);
                let mut stream = self.ours.stream();
                let mut pieces: String = ids.iter().map(|&id| stream.push(id).to_owned()).collect();
                pieces.push_str(stream.finish());
                assert_eq!(pieces, decoded, "{}: {text:?}", self.name);
            }
        }
    }

    pub(crate) fn hold_hard(&self) {
        HARD.iter().for_each(|text| self.hold(text));
        self.hold(&HARD.concat());
        self.hold(&HARD.join("\n"));
        // Characters cut in two.
        let bytes = HARD.concat().into_bytes();
        let cut: Vec<&[u8]> = bytes.chunks(7).map(|chunk| &chunk[..chunk.len() - 1]).collect();
        self.hold(&String::from_utf8_lossy(&cut.concat()));
        HELDOUT.lines().take(200).for_each(|text| self.hold(text));
    }
}

/// A `tokenizer.json` without tokens.
pub(crate) fn empty(normalizer: Value, pre_tokenizer: Value, decoder: Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": decoder,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": {}, "merges": []
        }
    })
}

/// Trains the vocabulary of a `tokenizer.json`.
pub(crate) fn train(json: &mut Value, builder: tokenizers::models::bpe::BpeTrainerBuilder) {
    let mut oracle: Oracle = json.to_string().parse().unwrap();
    let mut trainer = TrainerWrapper::BpeTrainer(builder.show_progress(false).build());
    let texts = HELDOUT.lines().chain(HARD.iter().copied());
    oracle.train(&mut trainer, texts).unwrap();
    let trained: Value = serde_json::from_str(&oracle.to_string(false).unwrap()).unwrap();
    json["model"]["vocab"] = trained["model"]["vocab"].clone();
    json["model"]["merges"] = trained["model"]["merges"].clone();
    assert!(json["model"]["merges"].as_array().unwrap().len() > 200);
}

/// Adds tokens after those there are; which are special is said beside them.
pub(crate) fn add(json: &mut Value, tokens: &[(&str, bool)]) {
    for (content, special) in tokens {
        let id = json["model"]["vocab"].as_object().unwrap().len()
            + json["added_tokens"].as_array().unwrap().len();
        json["added_tokens"].as_array_mut().unwrap().push(added(id, content, *special));
    }
}

pub(crate) fn added(id: usize, content: &str, special: bool) -> Value {
    json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": special
    })
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": use_regex})
}

fn split(expression: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated",
        "invert": false})
}

fn sequence(parts: &[Value]) -> Value {
    json!({"type": "Sequence", "pretokenizers": parts})
}

/// A byte-level `tokenizer.json` with a trained vocabulary.
fn family(normalizer: Value, pre_tokenizer: Value) -> Value {
    let mut json = empty(normalizer, pre_tokenizer, byte_level(true));
    json["post_processor"] = byte_level(false);
    let alphabet = ByteLevel::alphabet().into_iter().collect();
    train(&mut json, BpeTrainer::builder().vocab_size(700).initial_alphabet(alphabet));
    json
}

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Qwen 2 and 3: normalisation, and tokens that are not special.
fn qwen2() -> Value {
    let mut json = family(json!({"type": "NFC"}), sequence(&[split(QWEN2), byte_level(false)]));
    let tokens = [
        ("<|endoftext|>", true),
        ("<|im_start|>", true),
        ("<|im_end|>", true),
        ("<think>", false),
        ("</think>", false),
    ];
    add(&mut json, &tokens);
    // Matched in normalised text only.
    add(&mut json, &[("nai\u{308}ve", false)]);
    json["added_tokens"][5]["normalized"] = json!(true);
    json
}

/// GPT-2, as old files have it: merges are texts, and much is left out.
fn gpt2() -> Value {
    let mut json = family(Value::Null, byte_level(true));
    json["pre_tokenizer"].as_object_mut().unwrap().remove("use_regex");
    let pairs: Vec<[String; 2]> = serde_json::from_value(json["model"]["merges"].clone()).unwrap();
    let mut merges = vec!["#version: 0.2".to_owned()];
    merges.extend(pairs.iter().map(|pair| pair.join(" ")));
    json["model"] = json!({
        "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
        "end_of_word_suffix": "", "fuse_unk": false, "vocab": json["model"]["vocab"],
        "merges": merges
    });
    add(&mut json, &[("<|endoftext|>", true)]);
    json
}

/// Falcon: special tokens that are tokens of the model, too, and digits after the spelling.
fn falcon(single: bool) -> Value {
    let parts = [
        json!({"type": "Punctuation", "behavior": "Contiguous"}),
        byte_level(true),
        json!({"type": "Digits", "individual_digits": single}),
        split("[0-9][0-9][0-9]"),
    ];
    let mut json = family(Value::Null, sequence(&parts));
    let id = json["model"]["vocab"].as_object().unwrap().len();
    json["model"]["vocab"][">>TITLE<<"] = json!(id);
    json["added_tokens"] = json!([added(id, ">>TITLE<<", true)]);
    add(&mut json, &[("<|endoftext|>", true)]);
    // The one is in the vocabulary: do not count it twice.
    json["added_tokens"][1]["id"] = json!(id + 1);
    json
}

/// As llama.cpp describes Falcon 3, and other orders of the same parts.
fn digits(parts: &[Value]) -> Value {
    let mut json = family(Value::Null, sequence(parts));
    add(&mut json, &[("<|endoftext|>", true)]);
    json
}

static FAMILIES: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let punctuation = json!({"type": "Punctuation", "behavior": "Contiguous"});
    let single = json!({"type": "Digits", "individual_digits": true});
    let runs = json!({"type": "Digits", "individual_digits": false});
    let nested = sequence(&[split(r"\p{N}"), sequence(&[split(GPT2), byte_level(false)])]);
    vec![
        Pair::new("qwen2", &qwen2()),
        Pair::new("gpt2", &gpt2()),
        Pair::new("falcon", &falcon(false)),
        Pair::new("falcon, digits one by one", &falcon(true)),
        Pair::new("falcon3", &digits(&[punctuation, byte_level(true), split("[0-9]")])),
        Pair::new("digits first", &digits(&[single, byte_level(true)])),
        Pair::new("isolated", &digits(&[json!({"type": "Punctuation"}), runs, byte_level(true)])),
        Pair::new("nested", &digits(&[nested])),
    ]
});

/// The characters that are single pieces of a text that has each of them between letters.
fn single(pre_tokenizer: &dyn PreTokenizer) -> BTreeSet<char> {
    let all: String = (char::MIN..=char::MAX).flat_map(|c| ['a', c]).collect();
    let mut text = PreTokenizedString::from(all.as_str());
    pre_tokenizer.pre_tokenize(&mut text).unwrap();
    let pieces = text.get_splits(OffsetReferential::Original, OffsetType::Byte);
    let single = pieces.into_iter().filter_map(|(piece, _, _)| {
        let mut chars = piece.chars();
        chars.next().filter(|&c| c != 'a' && chars.next().is_none())
    });
    single.collect()
}

/// The characters whose general category is one of `categories`.
fn of_category(categories: &str) -> BTreeSet<char> {
    let of = |c: &char| categories.contains(&get_general_category(*c).abbreviation()[..1]);
    (char::MIN..=char::MAX).filter(of).collect()
}

/// The characters beyond ASCII that are punctuation either for the oracle, which follows an older
/// Unicode, or for us.
static NEW_PUNCTUATION: LazyLock<BTreeSet<char>> = LazyLock::new(|| {
    let theirs = single(&Punctuation::new(SplitDelimiterBehavior::Isolated));
    let differ = of_category("P");
    differ.symmetric_difference(&theirs).copied().filter(|c| !c.is_ascii()).collect()
});

/// The characters that are numbers either for the oracle, which asks the standard library, or for
/// us.
static NEW_NUMBERS: LazyLock<BTreeSet<char>> = LazyLock::new(|| {
    of_category("N").symmetric_difference(&single(&Digits::new(true))).copied().collect()
});

/// The characters that the oracle, whose tables are older, puts elsewhere among combining marks.
static NEW_MARKS: LazyLock<BTreeSet<char>> = LazyLock::new(|| {
    let differs = |c: &char| {
        let text = format!("a\u{301}{c}\u{323}");
        let mut theirs = NormalizedString::from(text.as_str());
        NFC.normalize(&mut theirs).unwrap();
        text.nfc().collect::<String>() != theirs.get()
    };
    let combines = |c: &char| {
        let alone: String = c.nfd().collect();
        canonical_combining_class(*c) != 0 || !alone.chars().eq([*c])
    };
    ('\0'..=char::MAX).filter(combines).filter(differs).collect()
});

#[test]
fn few_characters_are_new() {
    for (new, most) in [(&NEW_PUNCTUATION, 200), (&NEW_NUMBERS, 100), (&NEW_MARKS, 250)] {
        assert!(new.len() < most && new.iter().all(|&c| c > '\u{500}'), "{} {new:?}", new.len());
    }
}

#[test]
fn hard_texts_agree() {
    FAMILIES.iter().for_each(Pair::hold_hard);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_text_agrees(text in texts()) {
        let new = |c: &char| {
            [&NEW_PUNCTUATION, &NEW_NUMBERS, &NEW_MARKS].iter().any(|new| new.contains(c))
        };
        let text: String = text.chars().filter(|c| !new(c)).collect();
        FAMILIES.iter().for_each(|pair| pair.hold(&text));
    }
}

/// These end at once or, if the time were quadratic, never.
#[test]
fn a_piece_of_a_megabyte() {
    for pair in FAMILIES.iter().step_by(3) {
        for unit in ["a", "7", "123 ", "ò", "\u{301}", ".", "'", " ", "12", "`"] {
            let text = unit.repeat((1 << 20) / unit.len()) + "end";
            let ids = pair.ours.encode(&text, Special::PROMPT);
            assert!(pair.ours.decode(&ids) == text, "{}: {unit:?}", pair.name);
            pair.hold(&unit.repeat(2000));
        }
    }
}
