//! Text to ids.

use bitnet_inference::tokenizer::{Special, TokenType, Tokenizer, Vocabulary};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::{AddedToken, Tokenizer as Oracle};

use crate::texts::{HARD, HELDOUT, texts};
use crate::{OURS, PARSE, THEIRS, THEIRS_TEXT, as_text, demo, demo_json, theirs, vocabulary};

/// All four ways to encode a text, and back.
fn hold(text: &str) {
    for bos in [true, false] {
        let parse = Special { bos, suffix: true, parse: true };
        assert_eq!(OURS.encode(text, parse), theirs(&THEIRS, text, bos), "{text:?}");
        let plain = Special { bos, suffix: true, parse: false };
        let ids = OURS.encode(text, plain);
        assert_eq!(ids, theirs(&THEIRS_TEXT, text, bos), "{text:?} as plain text");
        assert_eq!(OURS.decode(&ids), text);
    }
}

#[test]
fn hard_texts_agree() {
    HARD.iter().for_each(|text| hold(text));
    hold(&HARD.concat());
    hold(&HARD.join("\n"));
}

#[test]
fn held_out_text_agrees() {
    hold(HELDOUT);
    HELDOUT.lines().for_each(hold);
}

/// A piece can be as long as the text. These end at once or, if the time were quadratic, never.
#[test]
fn a_piece_of_a_megabyte() {
    let units = [
        "a",
        "th",
        " ",
        "\t",
        "\n",
        " \n",
        "\u{3000}",
        "-",
        "é",
        "漢",
        "\u{301}",
        "<",
        "<|eot_id|",
    ];
    for unit in units {
        let text = unit.repeat((1 << 20) / unit.len()) + "end";
        let ids = OURS.encode(&text, Special::PROMPT);
        assert_eq!(OURS.decode(&ids), text);
        assert!(ids == theirs(&THEIRS, &text, true), "{unit:?} again and again");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_agrees(text in texts()) {
        hold(&text);
    }
}

/// A vocabulary of all bytes and some random merges of few letters, as a `tokenizer.json`: so that
/// tokens can be made in several ways and merges get in each other's way.
fn random_json(picks: &[(usize, usize)]) -> Value {
    let mut json = demo_json();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut tokens: Vec<String> =
        vocab.keys().filter(|t| t.chars().count() == 1).cloned().collect();
    assert_eq!(tokens.len(), 256);
    let mut merged: Vec<String> = ["a", "b", "c", "Ġ"].map(String::from).to_vec();
    let mut merges: Vec<[String; 2]> = Vec::new();
    for (left, right) in picks {
        let pair = [left, right].map(|pick| merged[pick % merged.len()].clone());
        if merges.contains(&pair) {
            continue;
        }
        let result = pair.concat();
        if !merged.contains(&result) {
            merged.push(result.clone());
            tokens.push(result);
        }
        merges.push(pair);
    }
    let ids: serde_json::Map<String, Value> =
        tokens.into_iter().zip((0..).map(Value::from)).collect();
    for (id, added) in (ids.len()..).zip(json["added_tokens"].as_array_mut().unwrap()) {
        added["id"] = json!(id);
    }
    json["model"]["vocab"] = Value::Object(ids);
    json["model"]["merges"] = json!(merges);
    json["post_processor"] = Value::Null;
    json
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_merges_agree(
        picks in proptest::collection::vec(any::<(usize, usize)>(), 0..60),
        texts in proptest::collection::vec("[abc]{0,40}|[abc ]{0,40}", 8),
    ) {
        let json = random_json(&picks);
        let oracle: Oracle = json.to_string().parse().unwrap();
        let ours = Tokenizer::new(vocabulary(&json)).unwrap();
        for text in texts {
            prop_assert_eq!(ours.encode(&text, PARSE), theirs(&oracle, &text, false), "{}", text);
        }
    }

    /// User-defined tokens are found whether or not control tokens are, the longest first.
    #[test]
    fn user_defined_tokens_agree(
        text in "( ?(<\\||>|qing|qings|qi|  |\n|éé|\u{301}|<\\|eot_id\\|>|<\\|eot|x)){0,12}",
    ) {
        let added = ["<|eot", "qing", "qings", "qi", "  ", "    ", "\n\n", "éé", "\u{301}x"];
        let mut vocabulary = demo();
        vocabulary.tokens.extend(added.map(String::from));
        vocabulary.types.extend(added.map(|_| TokenType::UserDefined));
        let ours = Tokenizer::new(vocabulary).unwrap();
        let mut oracle = THEIRS.clone();
        oracle.add_tokens(added.map(|t| AddedToken::from(t, false).normalized(false))).unwrap();
        prop_assert_eq!(ours.encode(&text, PARSE), theirs(&oracle, &text, false));
        // The oracle skips all of a control token it does not read, user-defined parts included.
        if !text.contains("<|eot_id|>") {
            let ids = ours.encode(&text, Special::TEXT);
            prop_assert_eq!(&ids, &theirs(&as_text(oracle), &text, false));
            prop_assert_eq!(ours.decode(&ids), text);
        }
    }
}

#[test]
fn control_tokens_are_text_unless_parsed() {
    let text = "a<|eot_id|>b";
    assert_eq!(OURS.encode(text, PARSE), [64, 2044, 65]);
    let plain = OURS.encode(text, Special::TEXT);
    assert!(!plain.contains(&2044));
    assert_eq!(OURS.decode(&plain), text);
    assert_eq!(OURS.encode("a", Special::PROMPT), [2040, 64]);
    let suffixed = Tokenizer::new(Vocabulary { suffix: Some(2041), ..demo() }).unwrap();
    assert_eq!(suffixed.encode("a", Special::PROMPT), [2040, 64, 2041]);
    assert_eq!(suffixed.encode("a", Special::TEXT), [64]);
    let no_bos = Tokenizer::new(Vocabulary { add_bos: false, ..demo() }).unwrap();
    assert_eq!(no_bos.encode("a", Special::PROMPT), [64]);
}
