//! What a model file may and may not say.

use bitnet_inference::tokenizer::{Model, TokenType, Tokenizer, TokenizerError, Vocabulary};

use crate::{OURS, PARSE, demo};

/// Changes the demo model's vocabulary, which must then be refused with `message`.
fn refused(change: impl FnOnce(&mut Vocabulary), message: &str) {
    let mut vocabulary = demo();
    change(&mut vocabulary);
    assert_eq!(Tokenizer::new(vocabulary).unwrap_err().to_string(), message);
}

fn merges(vocabulary: &mut Vocabulary) -> &mut Vec<String> {
    let Model::ByteLevel(model) = &mut vocabulary.model else { panic!("not byte-level") };
    &mut model.merges
}

#[test]
fn special_ids_must_be_tokens() {
    let high = |role, id| format!("the {role} token has id {id}, but there are only 2048 tokens");
    refused(|v| v.bos = Some(2048), &high("bos", 2048));
    refused(|v| v.eos = Some(9999), &high("eos", 9999));
    refused(|v| v.ends.push(u32::MAX), &high("end", u32::MAX));
    refused(|v| v.suffix = Some(2048), &high("last", 2048));
    let unnamed = "texts are to begin with the bos token, but the file does not name one";
    refused(|v| v.bos = None, unnamed);
}

#[test]
fn tokens_must_be_complete_and_distinct() {
    let count =
        "2048 tokens but 2047 token types: the file is damaged, or its tokenizer incomplete";
    refused(|v| v.types.truncate(2047), count);
    let missing = "no token stands for byte 0x61, but tokens for all bytes are needed";
    refused(|v| v.tokens[64] = "Ġ!!!".into(), missing);
    refused(|v| v.types[64] = TokenType::Unused, missing);
    let nothing = Vocabulary {
        tokens: Vec::new(),
        types: Vec::new(),
        bos: None,
        eos: None,
        ends: Vec::new(),
        add_bos: false,
        ..demo()
    };
    let error = Tokenizer::new(nothing).unwrap_err();
    assert_eq!(error, TokenizerError::MissingByte { byte: 0 });
    let byte = "token 5 \"&\" is of type byte, which a byte-level vocabulary has no use for";
    refused(|v| v.types[5] = TokenType::Byte, byte);
    let twice = "tokens 64 and 2000 both stand for \"a\"";
    refused(|v| v.tokens[2000] = "a".into(), twice);
    let twice = "tokens 2044 and 2045 both stand for \"<|eot_id|>\"";
    refused(|v| v.tokens[2045] = "<|eot_id|>".into(), twice);
}

#[test]
fn merges_must_be_two_tokens_making_a_third() {
    for merge in ["", " ", "the", "a ", " a", "a b c", "a  b"] {
        let message = format!("merge 3 is {merge:?}: expected two tokens with one space between");
        refused(|v| merges(v)[3] = merge.into(), &message);
    }
    for (merge, missing) in [
        ("xyzzy Ġt", "xyzzy"),
        ("Ġt xyzzy", "xyzzy"),
        ("Ġt q", "Ġtq"),
        ("a 漢", "漢"),
        ("漢 a", "漢"),
        ("<|eot_id|> a", "<|eot_id|>"),
    ] {
        let message = format!("merge 3 is {merge:?}, but {missing:?} is no token to merge");
        refused(|v| merges(v)[3] = merge.into(), &message);
    }
}

#[test]
fn a_merge_listed_twice_is_done_at_its_first_place() {
    let mut vocabulary = demo();
    let first: Vec<String> = merges(&mut vocabulary)[..100].to_vec();
    merges(&mut vocabulary).extend(first);
    let tokenizer = Tokenizer::new(vocabulary).unwrap();
    let text = "Untried sweethearts heartened another";
    assert_eq!(tokenizer.encode(text, PARSE), OURS.encode(text, PARSE));
}

#[test]
fn no_types_means_all_normal() {
    let tokenizer = Tokenizer::new(Vocabulary { types: Vec::new(), ..demo() }).unwrap();
    assert_eq!(tokenizer.bytes(2044), Some(b"<|eot_id|>".as_slice()));
    assert!(!tokenizer.encode("x<|eot_id|>", PARSE).contains(&2044));
    let named = Vocabulary { types: Vec::new(), ends: vec![2044], ..demo() };
    assert!(!tokenizer.is_end(2044) && Tokenizer::new(named).unwrap().is_end(2044));
}

#[test]
fn token_types_are_those_of_gguf() {
    use TokenType as T;
    let types = [T::Normal, T::Unknown, T::Control, T::UserDefined, T::Unused, T::Byte];
    assert_eq!([1, 2, 3, 4, 5, 6].map(TokenType::try_from), types.map(Ok));
    for value in [0, 7, -1, i32::MAX] {
        assert_eq!(TokenType::try_from(value), Err(TokenizerError::UnknownTokenType { value }));
    }
}
