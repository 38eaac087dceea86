//! Small vocabularies of every kind, for tests.

use super::split::{ByteStage, Stage};
use super::{
    ByteLevel, MergeOrder, Model, SentencePiece, SpacePrefix, Special, Splitter, TokenType,
    Tokenizer, Vocabulary, spelling,
};

const TEXTS: [&str; 5] = [
    "The year 2026, and 12345 more; it's 10:30.",
    "  two  spaces\n\n\tand  `code` = a+b $5 ~x^2|y",
    "Änderung ²³ ½ naïve 日本語 🙂\u{301} é e\u{301}",
    "<s>not</s> <unk> ▁ the the the",
    "",
];

/// That two vocabularies are the same, and make the same tokens of text.
pub(crate) fn same_tokens(a: &Vocabulary, b: &Vocabulary) {
    assert_eq!(a.difference(b), None);
    let [first, second] = [a, b].map(|v| Tokenizer::new(v.clone()).unwrap());
    for text in TEXTS {
        for special in [Special::PROMPT, Special::TEXT] {
            let ids = first.encode(text, special);
            assert_eq!(second.encode(text, special), ids, "{text:?}");
            assert_eq!(second.decode(&ids), first.decode(&ids), "{text:?}");
        }
    }
}

/// With every splitter that has a name in GGUF, and tokens before and behind a text.
pub(crate) fn byte_level() -> Vec<Vocabulary> {
    let splitters = [
        Splitter::llama3(),
        Splitter::qwen2(),
        Splitter::gpt2(),
        Splitter::unnamed(),
        Splitter::falcon(),
        Splitter::falcon3(),
    ];
    let before = splitters.into_iter().map(|splitter| with_splitter(splitter, true));
    before.chain([with_splitter(Splitter::qwen2(), false)]).collect()
}

/// With a splitter that has no name in GGUF.
pub(crate) fn nameless() -> Vocabulary {
    let stages =
        [Stage::Punctuation { single: true }, Stage::Numbers { single: true }, Stage::Gpt2];
    with_splitter(Splitter::of(&stages, &[ByteStage::SpelledNumbers { single: false }]), true)
}

fn with_splitter(splitter: Splitter, before: bool) -> Vocabulary {
    let pairs = ["t h", "th e", "Ġ th", "Ġt h", "Ġth e", "Ġ a", "1 2", "12 3", "Ġ Ġ"];
    let mut tokens: Vec<_> = (0..=u8::MAX).map(|byte| spelling(byte).to_string()).collect();
    tokens.push("Ġt".to_owned());
    tokens.extend(pairs.map(|pair| pair.replace(' ', "")));
    tokens.sort();
    tokens.dedup();
    let mut types = vec![TokenType::Normal; tokens.len()];
    let id = |n: usize| (types.len() + n) as u32;
    let (bos, eos) = (id(0), id(1));
    tokens.extend(["<s>", "</s>", "<unused 1>", "<user>"].map(str::to_owned));
    types.extend([TokenType::Control; 2]);
    types.extend([TokenType::Unused, TokenType::UserDefined]);
    Vocabulary {
        tokens,
        types,
        model: Model::ByteLevel(ByteLevel::new(pairs.map(str::to_owned).to_vec(), splitter)),
        normalized: Vec::new(),
        bos: Some(bos),
        eos: Some(eos),
        ends: vec![eos],
        add_bos: before,
        suffix: (!before).then_some(eos),
    }
}

/// With scores and with merges, and spaces before texts or none.
pub(crate) fn sentence_piece() -> Vec<Vocabulary> {
    let mut tokens: Vec<_> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    let mut types = vec![TokenType::Unknown, TokenType::Control, TokenType::Control];
    tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    types.extend([TokenType::Byte; 256]);
    tokens.extend(["▁t", "he", "▁the", "▁a", "in", "▁▁", "12"].map(str::to_owned));
    tokens.extend("▁theain12é".chars().map(String::from));
    types.resize(tokens.len(), TokenType::Normal);
    let scores: Vec<_> = (0..tokens.len()).map(|id| -(id as f32)).collect();
    let merges = ["▁ t", "h e", "▁t he", "▁ a", "i n", "▁ ▁", "1 2"];
    let merges = merges.map(str::to_owned).to_vec();
    let mut all = Vec::new();
    for order in [MergeOrder::Scores(scores), MergeOrder::Merges(merges)] {
        for prefix in [SpacePrefix::None, SpacePrefix::Always] {
            all.push(Vocabulary {
                tokens: tokens.clone(),
                types: types.clone(),
                model: Model::SentencePiece(SentencePiece {
                    order: order.clone(),
                    prefix,
                    strip: prefix != SpacePrefix::None,
                    split: false,
                    unknown: Some(0),
                    fuse_unknown: true,
                }),
                normalized: Vec::new(),
                bos: Some(1),
                eos: Some(2),
                ends: vec![2],
                add_bos: true,
                suffix: None,
            });
        }
    }
    all
}

/// `a`, `b`, `c`, `ab` and `bc` with scores.
pub(crate) fn scored(scores: &[f32; 6]) -> Vocabulary {
    Vocabulary {
        tokens: ["<unk>", "a", "b", "c", "ab", "bc"].map(str::to_owned).to_vec(),
        types: vec![TokenType::Normal; 6],
        model: Model::SentencePiece(SentencePiece {
            order: MergeOrder::Scores(scores.to_vec()),
            prefix: SpacePrefix::None,
            strip: false,
            split: false,
            unknown: Some(0),
            fuse_unknown: true,
        }),
        normalized: Vec::new(),
        bos: None,
        eos: None,
        ends: Vec::new(),
        add_bos: false,
        suffix: None,
    }
}
