//! Text to ids.

use bitnet_inference::tokenizer::{Special, TokenType, Tokenizer, Vocabulary};
use proptest::prelude::*;
use proptest::string::string_regex;
use serde_json::{Value, json};
use tokenizers::{AddedToken, Tokenizer as Oracle};

use crate::{OURS, PARSE, THEIRS, THEIRS_TEXT, as_text, demo, demo_json, theirs, vocabulary};

/// The start of the demo model's held-out text.
const HELDOUT: &str = include_str!("../data/heldout.txt");

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

const HARD: &[&str] = &[
    "",
    " ",
    "Once upon a time, there was a king who had three sons.",
    "fn main() {\n    let x: Vec<u8> = vec![0x1F; 1_000];\n\tprintln!(\"{x:?}\");\r\n}\r\n",
    "#include <stdio.h>\nint main(void){return 0;}/*  end  */\n\n\n",
    "if (a&&b)||!c{d[i++]+=1e-5f;}//    x\n\t\t\treturn;\n",
    "https://example.org/a/b?c=d&e=%20#f_g user@example.org C:\\dir\\file.txt",
    "你好,世界!这是一个测试。 日本語のテキスト、カタカナとひらがな。한국어 문장입니다.",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽 tone 🇩🇪🇯🇵 ☺️ 1️⃣ \u{e0067}",
    "e\u{301}\u{302}a\u{308} \u{301}x Å\u{30a} Z\u{351}\u{36b}\u{343}a\u{31b}l\u{323}go \u{20dd}",
    "مرحبا بالعالم، كيف الحال؟ ١٢٣٤٥٦ שלום עולם נִקּוּד",
    "नमस्ते दुनिया, क्षत्रिय ज्ञान १२३४ ไทยไม่มีเว้นวรรค ភាសាខ្មែរ",
    "   leading, trailing   \t \t",
    "a  b   c    d     e          f                                                     g",
    "a\n\nb\n\n\nc\n \n  \nd \n e\t\n\t\nf\n\n\n\n\n\n\n\n",
    "a\r\nb\rc\n\rd\r\r\n\n e\r\n\r\n\r\n  f \r \n g",
    "!\n?\r\n...\n\n;;\r\r\n x\n!",
    "1 12 123 1234 12345 123456 1234567 3.14159 1,000,000 0x7fff 10^-9 ½ ² Ⅷ ৪৫৬৭ 一二三 𝟘𝟙𝟚𝟛𝟜",
    "I'm you're he's we'll they've I'd don't I'M YOU'RE HE'S WE'LL THEY'VE I'D DON'T 'Re'lL'vE",
    "'s''s'''s '' ' 'a 'S't'x'r'v'l're'sat 'tis ’s ’t it's'it rock'n'roll l'été",
    "it'ſ it'ſo 'ſ' ſ Maſſe 'ſſ \u{212a}elvin \u{212b}",
    "a\u{a0}b\u{a0}\u{a0}c \u{a0} d\u{a0}\n\u{3000}全角\u{3000}\u{3000}空白\u{2003}x\u{202f}y\u{1680}z",
    "\u{85}a\u{85}\u{85}b\u{2028}c\u{2029}\u{b}d\u{c}e\u{1c}f\u{1f}\u{180e}g",
    "\0\u{1}\u{2}a\u{7}\u{8}\u{1b}[31mred\u{1b}[0m\u{7f}\u{80}\u{9f}\u{ad}",
    "zero\u{200b}width\u{200c}non\u{200d}joiner\u{2060}\u{feff}bom \u{200b} \u{feff}",
    "\u{fffd}\u{fffe}\u{ffff}\u{10ffff}\u{e000}\u{378}",
    "<|begin_of_text|>User: hi<|eot_id|>Assistant:<|end_of_text|>",
    "<|eot_id|><|eot_id|> <|eot_id|>\n\n<|eot_id|>'s x<|eot_id|>'s",
    "<|eot_id|<|eot_id|><|eot_id <|<||>eot_id|> <|reserved_special_token_1|>",
    "word  <|start_header_id|>  word  <|end_header_id|>\n\n  word",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "thethethethethethetheandandandthethatthisthenthereingingingeded",
];

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

/// Words, spaces, quotes, digits, special tokens and their halves, and anything else.
fn texts() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        8 => string_regex("[ \t\r\n'a-eſ0-9.,!\u{a0}\u{301}]{0,12}").unwrap(),
        4 => string_regex("( ?(the|king|said|Princess|ing|'s|'LL|12345|\\.\"|\r\n)){0,8}").unwrap(),
        2 => string_regex("(<\\||\\|>|eot_id|<\\|eot_id\\|>|<\\|end_of_text\\|>){0,4}").unwrap(),
        2 => string_regex("\\PC{0,12}").unwrap(),
        1 => any::<String>(),
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
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
        let mut vocabulary = vocabulary(&json);
        (vocabulary.bos, vocabulary.eos) = (None, None);
        vocabulary.ends.clear();
        vocabulary.add_bos = false;
        let ours = Tokenizer::new(vocabulary).unwrap();
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
