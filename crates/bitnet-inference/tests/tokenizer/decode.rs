//! Ids to bytes and text, at once and one by one.

use bitnet_inference::tokenizer::{Special, TokenType, Tokenizer};
use proptest::prelude::*;

use crate::{OURS, THEIRS, demo};

#[test]
fn tokens_as_bytes() {
    let mut vocabulary = demo();
    let extra = [
        ("漢", TokenType::Normal),
        (" é ", TokenType::UserDefined),
        ("<unk>", TokenType::Unknown),
        ("[PAD]", TokenType::Unused),
        ("<|im_end|>", TokenType::Control),
        ("<|endoftext|>", TokenType::Normal),
    ];
    vocabulary.tokens.extend(extra.map(|(text, _)| text.to_owned()));
    vocabulary.types.extend(extra.map(|(_, kind)| kind));
    let tokenizer = Tokenizer::new(vocabulary).unwrap();
    let bytes = |id| tokenizer.bytes(id).map(String::from_utf8_lossy);
    assert_eq!(bytes(0).unwrap(), "!");
    assert_eq!(bytes(2020).unwrap(), " dragon");
    assert_eq!(bytes(2040).unwrap(), "");
    assert_eq!(bytes(2048).unwrap(), "漢");
    assert_eq!(bytes(2049).unwrap(), " é ");
    assert_eq!([2050, 2051, 2052].map(|id| bytes(id).unwrap()), ["", "", ""]);
    assert_eq!(bytes(2054), None);
    let pieces = |id| tokenizer.piece(id).map(String::from_utf8_lossy);
    assert_eq!([2020, 2049, 2050].map(|id| pieces(id).unwrap()), [" dragon", " é ", "<unk>"]);
    assert_eq!([2051, 2052].map(|id| pieces(id).unwrap()), ["", "<|im_end|>"]);
    assert_eq!(pieces(2054), None);
    assert_eq!(tokenizer.len(), 2054);
    let text = tokenizer.encode("漢[PAD]<unk>", Special::TEXT);
    assert!(text.iter().all(|&id| id < 2040));
    assert_eq!(tokenizer.encode("<unk>", Special::PROMPT), [2040, 2050]);
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (Some(2040), Some(2041)));
    let ends: Vec<u32> = (0..3000).filter(|&id| tokenizer.is_end(id)).collect();
    assert_eq!(ends, [2041, 2044, 2052]);
    assert_eq!(tokenizer.decode(&[2040, 2020, 2054, u32::MAX, 2049, 2041]), " dragon é ");
}

/// The token of one byte.
fn byte(byte: u8) -> u32 {
    let is = |&id: &u32| OURS.bytes(id) == Some(&[byte]);
    (0..256).find(is).unwrap()
}

/// Ids of which many are single bytes, so that most characters are broken and some are whole.
fn ids() -> impl Strategy<Value = Vec<u32>> {
    let id = prop_oneof![
        6 => (0x80_u8..).prop_map(|b| vec![byte(b)]),
        2 => (0_u32..2050).prop_map(|id| vec![id]),
        3 => any::<char>().prop_map(|c| c.to_string().bytes().map(byte).collect()),
    ];
    proptest::collection::vec(id, 0..30).prop_map(|ids| ids.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_stream_is_the_whole(ids in ids()) {
        let whole = OURS.decode(&ids);
        let mut stream = OURS.stream();
        let mut text = String::new();
        let mut bytes = Vec::new();
        for &id in &ids {
            bytes.extend_from_slice(OURS.bytes(id).unwrap_or_default());
            text.push_str(stream.push(id));
            // Nothing is held back but an unfinished character.
            let held = String::from_utf8_lossy(&bytes);
            let held = held.strip_prefix(text.as_str());
            prop_assert!(matches!(held, Some("" | "\u{FFFD}")), "{held:?} held back");
        }
        text.push_str(stream.finish());
        prop_assert_eq!(&text, &whole);
        prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
        let known: Vec<u32> = ids.into_iter().filter(|&id| id < 2048).collect();
        prop_assert_eq!(&text, &THEIRS.decode(&known, true).unwrap());
    }
}

#[test]
fn a_stream_waits_for_whole_characters() {
    let mut stream = OURS.stream();
    let mut given = Vec::new();
    for b in *b"\xf0\x9f\x98\x80a\xe2\x82!\xff\xc3" {
        given.push(stream.push(byte(b)).to_owned());
    }
    assert_eq!(given, ["", "", "", "😀", "a", "", "", "\u{FFFD}!", "\u{FFFD}", ""]);
    assert_eq!(stream.finish(), "\u{FFFD}");
}
