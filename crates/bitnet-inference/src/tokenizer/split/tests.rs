use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::string::string_regex;
use tokenizers::utils::SysRegex;

use super::*;

const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// llama.cpp's form.
const WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";

/// A splitter, and the expressions of its stages in the engine that the `tokenizers` crate uses.
struct Case {
    splitter: Splitter,
    stages: Vec<SysRegex>,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let case = |splitter, stages: &[&str]| Case {
        splitter,
        stages: stages.iter().map(|expression| SysRegex::new(expression).unwrap()).collect(),
    };
    let punctuation = r"[\p{P}\$\+<=>\^~\|`]+";
    let unnamed = [r"[\p{P}\$\+<=>\^~\|]+", WORDS, r"\p{N}+", "[0-9][0-9][0-9]"];
    let single =
        |single| Splitter::of(&[Stage::Punctuation { single }, Stage::Numbers { single }], &[]);
    vec![
        case(Splitter::llama3(), &[LLAMA3]),
        case(Splitter::qwen2(), &[QWEN2]),
        case(Splitter::gpt2(), &[GPT2]),
        case(Splitter::gpt2(), &[WORDS]),
        case(Splitter::unnamed(), &unnamed),
        case(Splitter::falcon(), &[punctuation, WORDS, "[0-9][0-9][0-9]"]),
        case(Splitter::falcon3(), &[punctuation, WORDS, "[0-9]"]),
        case(single(true), &[r"[\p{P}\$\+<=>\^~\|`]", r"\p{N}"]),
        case(single(false), &[punctuation, r"\p{N}+"]),
    ]
});

fn ours(splitter: &Splitter, text: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    splitter.pieces(text, |piece| pieces.push(str::from_utf8(piece).unwrap().to_owned()));
    pieces
}

fn matches<'t>(regex: &SysRegex, text: &'t str) -> Vec<&'t str> {
    regex.find_iter(text).map(|(start, end)| &text[start..end]).collect()
}

/// What matches and what lies between, stage by stage.
fn theirs<'t>(stages: &[SysRegex], text: &'t str) -> Vec<&'t str> {
    let mut pieces = vec![text];
    for regex in stages {
        let cut = pieces.iter().flat_map(|piece| {
            let mut parts = Vec::new();
            let mut done = 0;
            for (start, end) in regex.find_iter(piece) {
                parts.extend([&piece[done..start], &piece[start..end]]);
                done = end;
            }
            parts.push(&piece[done..]);
            parts
        });
        pieces = cut.filter(|piece| !piece.is_empty()).collect();
    }
    pieces
}

/// Every character there is, against the oracle's `\p{L}`, `\p{N}`, `\s` and `\p{P}`.
#[test]
fn classes_agree_for_every_character() {
    let all: String = (char::MIN..=char::MAX).collect();
    let mut differ = BTreeSet::new();
    let mut hold = |pattern: &str, ours: &dyn Fn(char) -> bool| {
        let theirs: String = matches(&SysRegex::new(pattern).unwrap(), &all).concat();
        let theirs: BTreeSet<char> = theirs.chars().collect();
        assert!(theirs.len() > 20, "{pattern}");
        differ.extend(all.chars().filter(|c| ours(*c) != theirs.contains(c)));
    };
    hold(r"\p{L}", &|c| Class::of(c) == Class::Letter);
    hold(r"\p{N}", &|c| Class::of(c) == Class::Number);
    hold(r"\s", &|c| Class::of(c).is_space());
    hold(r"[\p{P}\$\+<=>\^~\|`]", &is_punctuation);
    println!("our classes follow Unicode {:?}", unicode_general_category::UNICODE_VERSION);
    assert!(differ.is_empty(), "the classes of these characters differ: {differ:?}");
}

/// Every assigned character that is not for private use (and some more), at each place of a piece
/// where its class or its case decides.
#[test]
fn pieces_agree_for_every_character() {
    for c in (char::MIN..'\u{40000}').chain('\u{e0000}'..'\u{e0200}') {
        let text = format!("'{c}a'r{c}  {c} {c}a1{c}\n{c}.{c}");
        for Case { splitter, stages } in CASES.iter() {
            assert_eq!(ours(splitter, &text), theirs(stages, &text), "{c:?} in {text:?}");
        }
    }
}

/// Digits after the spelling in GPT-2's alphabet: `ò` is C3 B2, and B2 is spelled `²`.
#[test]
fn spelled_numbers_cut_inside_characters() {
    let pieces = |single, text: &str| {
        let splitter = Splitter::of(&[], &[ByteStage::SpelledNumbers { single }]);
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        splitter.pieces(text, |piece| pieces.push(piece.to_vec()));
        pieces
    };
    assert_eq!(pieces(false, "aò12²b"), [&b"a\xc3"[..], b"\xb212", b"\xc2", b"\xb2", b"b"]);
    let single: [&[u8]; 7] = [b"a\xc3", b"\xb2", b"1", b"2", b"\xc2", b"\xb2", b"b"];
    assert_eq!(pieces(true, "aò12²b"), single);
    let numeric: Vec<u8> =
        (0..=u8::MAX).filter(|&byte| super::super::spelling(byte).is_numeric()).collect();
    assert_eq!(numeric, b"0123456789\xb2\xb3\xb9\xbc\xbd\xbe");
}

#[test]
fn names() {
    let names = [
        (Splitter::llama3(), &["llama-bpe", "llama3", "llama-v3"][..]),
        (Splitter::qwen2(), &["qwen2"]),
        (Splitter::gpt2(), &["gpt-2"]),
        (Splitter::unnamed(), &["default"]),
        (Splitter::falcon(), &["falcon"]),
        (Splitter::falcon3(), &["falcon3", "falcon_e", "falcon-e"]),
    ];
    for (splitter, names) in names {
        assert!(names.iter().all(|name| name.parse() == Ok(splitter.clone())), "{names:?}");
    }
    let error = "viking".parse::<Splitter>().unwrap_err();
    assert_eq!(error, TokenizerError::UnknownSplitter { name: "viking".to_owned() });
    assert!(error.to_string().contains("viking"));
}

/// Texts of the characters that the expressions tell apart, and of any others.
fn texts() -> impl Strategy<Value = String> {
    let marked = "[ \t\r\n\u{85}\u{a0}\u{3000}'’sStTrReEvVmMlLdDſa1２٣½éक्٠.,$`_«\u{301}\u{200d}😀]";
    prop_oneof![
        3 => string_regex(&format!("{marked}{{0,40}}")).unwrap(),
        1 => string_regex("[0-9a. `]{0,40}").unwrap(),
        1 => string_regex(&format!("({marked}|\\PC){{0,40}}")).unwrap(),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn pieces_agree(text in texts()) {
        for Case { splitter, stages } in CASES.iter() {
            prop_assert_eq!(ours(splitter, &text), theirs(stages, &text));
        }
    }
}
