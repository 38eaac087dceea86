//! What the metadata of a GGUF file say of its tokenizer.

use bitnet_gguf::{Array, Value};
use bitnet_inference::{Engine, Error, Notice};

use crate::parts::Parts;

/// The demo model with other metadata of its tokenizer; `None` takes a key away.
fn with(changes: &[(&str, Option<Value>)]) -> Result<Engine, Error> {
    let mut parts = Parts::demo();
    for (key, value) in changes {
        let key = format!("tokenizer.ggml.{key}");
        parts.metadata.retain(|(other, _)| *other != key);
        parts.metadata.extend(value.clone().map(|value| (key, value)));
    }
    parts.load()
}

fn encode(changes: &[(&str, Option<Value>)], text: &str) -> Vec<u32> {
    with(changes).unwrap().encode(text).unwrap()
}

fn refused(changes: &[(&str, Option<Value>)], message: &str) {
    let error = with(changes).err().unwrap().to_string();
    assert!(error.contains(message), "{error:?} does not say {message:?}");
    assert!(error.contains("variant.gguf"), "{error:?} does not say where");
}

/// A vocabulary of 2048 tokens as Llama 2 has it.
fn llama2() -> Vec<(&'static str, Option<Value>)> {
    let words = ["▁", "t", "h", "e", "▁t", "he", "▁the", "▁the▁", "x"].map(String::from);
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let first = ["<unk>", "<s>", "</s>"].map(String::from);
    let mut tokens: Vec<String> = first.into_iter().chain(bytes).chain(words).collect();
    tokens.extend((tokens.len()..2048).map(|id| format!("unused{id}")));
    let kind = |id| match id {
        0 => 2,
        1 | 2 => 3,
        3..259 => 6,
        _ => 1,
    };
    vec![
        ("model", Some("llama".into())),
        ("pre", Some("default".into())),
        ("merges", None),
        ("tokens", Some(tokens.iter().map(String::as_str).collect::<Array>().into())),
        ("token_type", Some((0..2048).map(kind).collect::<Array>().into())),
        ("scores", Some((0..2048).map(|id| -(id as f32)).collect::<Array>().into())),
        ("bos_token_id", Some(1_u32.into())),
        ("eos_token_id", Some(2_u32.into())),
        ("eot_token_id", None),
        ("add_bos_token", None),
        ("unknown_token_id", Some(0_u32.into())),
    ]
}

#[test]
fn sentence_piece() {
    let engine = with(&llama2()).unwrap();
    assert_eq!(engine.notices(), []);
    // The merge of ▁ and t comes before that of h and e, and both before that of what they make.
    assert_eq!(engine.encode("the").unwrap(), [1, 265]);
    assert_eq!(engine.encode("the x").unwrap(), [1, 266, 267]);
    assert_eq!(engine.encode("é</s>the").unwrap(), [1, 259, 3 + 0xc3, 3 + 0xa9, 2, 265]);
    assert_eq!(engine.tokenizer().unwrap().decode(&[1, 265, 266, 198, 172]), "the the é");
    let mut bare = llama2();
    bare.push(("add_space_prefix", Some(false.into())));
    bare.push(("add_bos_token", Some(false.into())));
    assert_eq!(encode(&bare, "the"), [260, 264]);
    assert_eq!(with(&bare).unwrap().tokenizer().unwrap().decode(&[265]), " the");
    let mut scoreless = llama2();
    scoreless.push(("scores", None));
    refused(&scoreless, "metadata `tokenizer.ggml.scores` is missing");
}

#[test]
fn splitters() {
    let demo = encode(&[], "It's 12345, caf\u{e9}");
    let llama3 = encode(&[("pre", Some("llama-v3".into()))], "It's 12345, caf\u{e9}");
    assert_eq!(demo, llama3);
    // Qwen 2 has digits one by one, composed characters, and no BOS unless it is said.
    let qwen2 = |text| encode(&[("pre", Some("qwen2".into())), ("add_bos_token", None)], text);
    let digits: Vec<u32> = ["1", "2", "3"].into_iter().flat_map(qwen2).collect();
    assert_eq!(qwen2("123"), digits);
    assert_eq!(qwen2("cafe\u{301}"), qwen2("caf\u{e9}"));
    assert_ne!(encode(&[], "cafe\u{301}"), encode(&[], "caf\u{e9}"));
    for name in ["gpt-2", "default", "falcon", "falcon3", "falcon_e", "falcon-e"] {
        let engine = with(&[("pre", Some(name.into()))]).unwrap();
        assert_eq!(engine.tokenizer().unwrap().decode(&engine.encode("a, 1").unwrap()), "a, 1");
        assert_eq!(engine.notices(), []);
    }
    refused(&[("pre", Some("viking".into()))], "unknown pre-tokenizer \"viking\"");
}

/// Without the name of a splitter, the vocabulary says whether it is Llama 3's.
#[test]
fn a_vocabulary_unlike_llama_3_is_cut_as_llama_cpp_does() {
    let Some(Value::Array(tokens)) = Parts::demo()
        .metadata
        .into_iter()
        .find_map(|(key, value)| (key == "tokenizer.ggml.tokens").then_some(value))
    else {
        panic!("no tokens")
    };
    let tokens: Vec<String> = tokens.strings().unwrap().map(str::to_owned).collect();
    let begin = tokens.iter().position(|token| token == "<|begin_of_text|>").unwrap();
    let renamed = (0..).zip(&tokens).map(|(id, token)| if id == begin { "<s>" } else { token });
    let renamed: Value = renamed.collect::<Array>().into();
    let engine = with(&[("pre", None), ("tokens", Some(renamed.clone()))]).unwrap();
    let file = "variant.gguf".to_owned();
    let notice = Notice::NoSplitter { file, used: "default" };
    assert_eq!(engine.notices(), [notice]);
    assert!(engine.notices()[0].to_string().contains("splitting text as `default` does"));
    let named = [("pre", Some("default".into())), ("tokens", Some(renamed))];
    let text = "It's 12345 o'clock,\n\n  isn't it?";
    assert_eq!(engine.encode(text).unwrap(), encode(&named, text));
}

#[test]
fn texts_may_end_with_eos() {
    assert_eq!(encode(&[("add_eos_token", Some(true.into()))], "a"), [2040, 64, 2041]);
    assert_eq!(encode(&[("add_eos_token", Some(false.into()))], "a"), [2040, 64]);
    let unnamed = [("add_eos_token", Some(true.into())), ("eos_token_id", None)];
    refused(&unnamed, "texts are to end with the eos token, but the file does not name one");
    refused(&[("model", Some("t5".into()))], "tokenizer `t5` is not supported");
    refused(&[("merges", None)], "tokenizer.ggml.merges");
}
