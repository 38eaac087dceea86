//! What a `tokenizer.json` and the files beside it may and may not say.

use bitnet_gguf::Gguf;
use bitnet_inference::tokenizer::{Special, TokenType, Tokenizer, TokenizerFiles, Vocabulary};
use bitnet_inference::{Engine, Options};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::texts::HARD;
use crate::{JSON, OURS, PARSE, demo_json, read, theirs, vocabulary};

/// The demo model, with the tokenizer of the file.
static DEMO: &[u8] = include_bytes!("../../../../models/bitnet-tales-i2_s.gguf");

#[test]
fn the_same_model_in_two_formats_is_the_same() {
    let gguf = Gguf::from_static("model.gguf", DEMO).unwrap();
    let engine = Engine::load(gguf, &Options::default()).unwrap();
    let of_gguf = engine.tokenizer().unwrap();
    for text in HARD {
        for special in [Special::PROMPT, Special::TEXT, PARSE] {
            assert_eq!(of_gguf.encode(text, special), OURS.encode(text, special));
        }
    }
    assert_eq!(of_gguf.len(), OURS.len());
    assert_eq!((of_gguf.bos(), of_gguf.eos()), (OURS.bos(), OURS.eos()));
    for id in 0..OURS.len() as u32 {
        assert_eq!(of_gguf.bytes(id), OURS.bytes(id));
        assert_eq!(of_gguf.is_end(id), OURS.is_end(id), "{id}");
    }
}

/// Reads the demo model's file with others beside it.
fn beside(tokenizer_config: Value, generation_config: Value, config: Value) -> Vocabulary {
    let files = [tokenizer_config, generation_config, config].map(|json| json.to_string());
    let [tokenizer_config, generation_config, config] = &files;
    Vocabulary::from_json(&TokenizerFiles {
        tokenizer: JSON.as_bytes(),
        tokenizer_config: Some(tokenizer_config.as_bytes()),
        generation_config: Some(generation_config.as_bytes()),
        config: Some(config.as_bytes()),
    })
    .unwrap()
}

#[test]
fn special_tokens_are_those_of_all_files() {
    let alone = vocabulary(&demo_json());
    assert_eq!((alone.bos, alone.eos, alone.add_bos, alone.suffix), (Some(2040), None, true, None));
    let all = beside(
        json!({"bos_token": "<|begin_of_text|>", "eos_token": {"content": "<|eot_id|>"}, "x": 1}),
        json!({"eos_token_id": [2041, 2044], "temperature": 0.7}),
        json!({"eos_token_id": 2045, "bos_token_id": 2040, "hidden_size": 64}),
    );
    assert_eq!((all.bos, all.eos, all.add_bos), (Some(2040), Some(2044), true));
    assert_eq!(all.ends, [2044, 2041, 2044, 2045]);
    let ours = Tokenizer::new(all).unwrap();
    let ends: Vec<u32> = (0..2048).filter(|&id| ours.is_end(id)).collect();
    assert_eq!(ends, [2041, 2044, 2045]);
    // Where the names say nothing, the ids do; null says nothing.
    let ids = beside(
        json!({"eos_token": null}),
        json!({"eos_token_id": null}),
        json!({
            "eos_token_id": [2042, 2041]
        }),
    );
    assert_eq!((ids.eos, ids.ends), (Some(2042), vec![2042, 2041]));
    let stated = json!({"add_bos_token": false, "add_eos_token": true, "eos_token": "<|eot_id|>"});
    let stated = beside(stated, json!({}), json!({}));
    assert_eq!((stated.add_bos, stated.suffix), (false, Some(2044)));
}

/// A post-processor that puts tokens around a text, as in models that embed texts.
fn template(before: &[&str], after: &[&str]) -> Value {
    let special = |name: &&str| json!({"SpecialToken": {"id": name, "type_id": 0}});
    let mut single: Vec<Value> = before.iter().map(special).collect();
    single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
    single.extend(after.iter().map(special));
    let ids = [("<|begin_of_text|>", 2040), ("<|end_of_text|>", 2041)];
    let tokens: Value = ids
        .map(|(name, id)| (name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]})))
        .into_iter()
        .collect::<serde_json::Map<_, _>>()
        .into();
    json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": tokens})
}

#[test]
fn templates_put_tokens_around_a_text() {
    let (bos, eos) = ("<|begin_of_text|>", "<|end_of_text|>");
    for (before, after) in [(&[][..], &[][..]), (&[bos], &[]), (&[], &[eos]), (&[bos], &[eos])] {
        let mut json = demo_json();
        json["post_processor"] = template(before, after);
        let ours = Tokenizer::new(vocabulary(&json)).unwrap();
        let oracle = json.to_string().parse().unwrap();
        assert_eq!(ours.encode("The king", Special::PROMPT), theirs(&oracle, "The king", true));
    }
}

#[test]
fn ids_without_tokens_are_unused() {
    let mut json = demo_json();
    json["added_tokens"][7]["id"] = json!(2050);
    let vocabulary = vocabulary(&json);
    assert_eq!(vocabulary.tokens.len(), 2051);
    assert_eq!(vocabulary.types[2047..2050], [TokenType::Unused; 3]);
    let ours = Tokenizer::new(vocabulary).unwrap();
    assert_eq!(ours.encode("<|reserved_special_token_2|>", PARSE), [2050]);
    assert_eq!(ours.bytes(2048), Some(&b""[..]));
}

/// For `tokenizers` the last of two same merges counts.
#[test]
fn a_merge_listed_twice_is_done_at_its_last_place() {
    let mut json = demo_json();
    let first = json["model"]["merges"][2].clone();
    json["model"]["merges"].as_array_mut().unwrap().push(first);
    let ours = Tokenizer::new(vocabulary(&json)).unwrap();
    let oracle = json.to_string().parse().unwrap();
    for text in HARD {
        assert_eq!(ours.encode(text, PARSE), theirs(&oracle, text, false));
    }
}

/// A change of the demo model's file, and what is wrong with it then.
type Damage = (fn(&mut Value), &'static str);

const DAMAGES: &[Damage] = &[
    (|j| j["model"]["type"] = json!("Unigram"), "model: type \"Unigram\" is not supported"),
    (|j| j["model"]["dropout"] = json!(0.1), "model: dropout is not supported"),
    (
        |j| j["model"]["end_of_word_suffix"] = json!("</w>"),
        "model: end_of_word_suffix \"</w>\" is not supported",
    ),
    (|j| j["model"]["new"] = json!(1), "unknown field `new`"),
    (|j| j["new"] = json!(1), "unknown field `new`"),
    (|j| j["model"]["vocab"] = json!([]), "a map from tokens to ids"),
    (|j| j["model"]["vocab"]["a"] = json!(-1), "invalid value: integer `-1`"),
    (|j| j["model"]["vocab"]["a"] = json!(5), "both have id 5"),
    (|j| j["model"]["vocab"]["a"] = json!(4_000_000_000_u32), "ids are to be below 1048576"),
    (|j| j["model"]["vocab"]["<|eot_id|>"] = json!(2048), "both stand for \"<|eot_id|>\""),
    (|j| j["model"]["merges"][3] = json!(["a", "b", "c"]), "two texts without spaces"),
    (|j| j["model"]["merges"][3] = json!(["a b", "c"]), "two texts without spaces"),
    (|j| j["model"]["merges"][3] = json!(7), "a merge: \"left right\""),
    (|j| j["model"]["unk_token"] = json!("<unk>"), "names \"<unk>\" as the unknown token"),
    (|j| j["added_tokens"][3]["lstrip"] = json!(true), "\"<|end_header_id|>\": lstrip is not"),
    (|j| j["added_tokens"][3]["rstrip"] = json!(true), "rstrip is not supported"),
    (|j| j["added_tokens"][3]["single_word"] = json!(true), "single_word is not supported"),
    (|j| j["added_tokens"][3]["content"] = json!(""), "a text of no characters"),
    (|j| j["added_tokens"][3]["id"] = json!(2044), "both have id 2044"),
    (|j| j["added_tokens"][3]["more"] = json!(1), "added_tokens: unknown field `more`"),
    (|j| j["normalizer"] = json!({"type": "Lowercase"}), "normalizer: unknown variant `Lowercase`"),
    (
        |j| j["normalizer"] = json!({"type": "Prepend", "prepend": "▁"}),
        "normalizer: [PrependSpace] before ByteLevel is not supported",
    ),
    (
        |j| j["normalizer"] = json!({"type": "Prepend", "prepend": "_"}),
        "normalizer: Prepend of \"_\" is not supported",
    ),
    (|j| j["normalizer"] = json!({"type": "NFC", "form": 1}), "normalizer: unknown field `form`"),
    (
        |j| j["pre_tokenizer"]["pretokenizers"][1]["new"] = json!(1),
        "pre_tokenizer: unknown field `new`",
    ),
    (
        |j| j["post_processor"]["processors"][1]["new"] = json!(1),
        "post_processor: unknown field `new`",
    ),
    (
        |j| {
            let twice = [j["decoder"].clone(), j["decoder"].clone()];
            j["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": twice});
            j["pre_tokenizer"]["pretokenizers"][0]["add_prefix_space"] = json!(false);
        },
        "pre_tokenizer: ByteLevel with add_prefix_space is not supported",
    ),
    (
        |j| {
            let parts = &mut j["pre_tokenizer"]["pretokenizers"];
            parts[0] = parts[1].clone();
        },
        "pre_tokenizer: ByteLevel twice is not supported",
    ),
    (|j| j["pre_tokenizer"] = json!({"type": "Whitespace"}), "unknown variant `Whitespace`"),
    (|j| j["pre_tokenizer"] = Value::Null, "pre_tokenizer: no ByteLevel is not supported"),
    (
        |j| j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(r"\w+"),
        r#"the expression "\\w+" is not supported"#,
    ),
    (
        |j| j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = json!("Removed"),
        "Split with Removed and invert false",
    ),
    (
        |j| j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = json!(true),
        "ByteLevel with add_prefix_space is not supported",
    ),
    (
        |j| j["pre_tokenizer"]["pretokenizers"].as_array_mut().unwrap().reverse(),
        "Llama3 { digits: 3 } after ByteLevel or digits is not supported",
    ),
    (
        |j| {
            let digits = json!({"type": "Digits", "individual_digits": true});
            j["pre_tokenizer"]["pretokenizers"] = json!(vec![digits; 9]);
        },
        "a Sequence of 9 parts is not supported",
    ),
    (|j| j["decoder"] = Value::Null, "decoder: [] is not supported"),
    (|j| j["decoder"] = json!({"type": "Fuse"}), "decoder: [Fuse] is not supported"),
    (|j| j["decoder"] = json!({"type": "WordPiece"}), "decoder: unknown variant `WordPiece`"),
    (
        |j| j["post_processor"] = json!({"type": "BertProcessing"}),
        "post_processor: unknown variant `BertProcessing`",
    ),
    (
        |j| j["post_processor"] = template(&["<|begin_of_text|>"; 2], &[]),
        "post_processor: [2040, 2040] before and [] after 1 texts is not supported",
    ),
    (
        |j| j["post_processor"] = template(&["<|x|>"], &[]),
        "\"<|x|>\", which is not of its special_tokens, is not supported",
    ),
    (
        |j| j["post_processor"]["processors"] = json!({"type": "ByteLevel"}),
        "post_processor: Sequence: processors: invalid type: map",
    ),
];

#[test]
fn damaged_files_are_refused() {
    for (change, message) in DAMAGES {
        let mut json = demo_json();
        change(&mut json);
        let error = read(&json.to_string()).expect_err(message).to_string();
        assert!(error.contains(message), "{error:?} does not say {message:?}");
        assert!(error.contains("token"), "{error:?} does not say where");
    }
}

/// A key that stands twice is seen only in the text.
#[test]
fn tokens_listed_twice_are_refused() {
    let twice = JSON.replacen("\"vocab\": {", "\"vocab\": {\"!\": 0,", 1);
    assert_ne!(twice, JSON);
    let error = read(&twice).unwrap_err().to_string();
    assert_eq!(error, "tokenizer.json: tokens \"!\" and \"!\" both have id 0");
    let twice = JSON.replacen("\"vocab\": {", "\"vocab\": {\"!\": 2048,", 1);
    let error = Tokenizer::new(read(&twice).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "tokens 0 and 2048 both stand for \"!\"");
}

#[test]
fn a_file_cut_off_is_refused() {
    for len in (0..JSON.len() - 2).step_by(997) {
        let error = read(&String::from_utf8_lossy(&JSON.as_bytes()[..len])).unwrap_err();
        assert!(error.to_string().starts_with("tokenizer.json: "), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What is read in spite of its damage can be used.
    #[test]
    fn no_damage_panics(
        damages in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        start in prop_oneof![Just(0), Just(JSON.find("\"vocab\"").unwrap())],
    ) {
        let mut bytes = JSON.as_bytes().to_vec();
        for (place, byte) in damages {
            // The parts before the vocabulary are short: half of the damages are there.
            let end = if start == 0 { JSON.find("\"vocab\"").unwrap() } else { bytes.len() };
            bytes[start + place.index(end - start)] = byte;
        }
        let files = TokenizerFiles { tokenizer: &bytes, ..TokenizerFiles::default() };
        if let Ok(ours) = Vocabulary::from_json(&files).and_then(Tokenizer::new) {
            let ids = ours.encode(HARD[3], Special::PROMPT);
            prop_assert!(!ours.decode(&ids).is_empty());
        }
    }
}

#[test]
fn damaged_files_beside_are_refused() {
    let beside = |bytes: &'static str| {
        let files = |bytes| TokenizerFiles { tokenizer: JSON.as_bytes(), ..bytes };
        let tokenizer_config = Some(bytes.as_bytes());
        let config = TokenizerFiles { tokenizer_config, ..TokenizerFiles::default() };
        let generation_config = Some(bytes.as_bytes());
        let generation = TokenizerFiles { generation_config, ..TokenizerFiles::default() };
        [config, generation].map(|bytes| {
            Vocabulary::from_json(&files(bytes)).map(Tokenizer::new).map_err(|e| e.to_string())
        })
    };
    let [config, generation] = beside("{");
    assert!(config.unwrap_err().starts_with("tokenizer_config.json: EOF"));
    assert!(generation.unwrap_err().starts_with("generation_config.json: EOF"));
    let [config, _] = beside(r#"{"bos_token": "<bos>"}"#);
    let message =
        "tokenizer_config.json names \"<bos>\" as the bos token, but there is no such token";
    assert_eq!(config.unwrap_err(), message);
    let [_, generation] = beside(r#"{"eos_token_id": [2041, 4096]}"#);
    let message = "the end token has id 4096, but there are only 2048 tokens";
    assert_eq!(generation.unwrap().unwrap_err().to_string(), message);
    let [_, generation] = beside(r#"{"eos_token_id": "x"}"#);
    assert!(generation.unwrap_err().contains("generation_config.json"));
    let [config, _] = beside(r#"{"add_eos_token": true}"#);
    assert_eq!(
        config.unwrap_err(),
        "texts are to end with the eos token, but the file does not name one"
    );
}
