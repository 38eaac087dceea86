//! Tokenizers go with the model: from metadata to `tokenizer.json` and back.

use std::fs;

use bitnet_gguf::{Gguf, Writer};
use bitnet_inference::Checkpoint;
use bitnet_inference::chat::{Conversation, Data, Moment};

use bitnet_inference::tokenizer::Special;

use super::{convert, demo, open};
use crate::common::DEMO;

const TEXTS: [&str; 6] = [
    "Once upon a time there was a fox.",
    "  spaces   and\n\n lines\t tabs",
    "don't 12345 6 x=y+z; `code` $5",
    "<|eot_id|> naïve 日本語 🙂\u{301}",
    "",
    "\r\n \r\n",
];

#[test]
fn the_tokens_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [hf, gguf] = ["hf", "gguf"].map(|name| folder.path().join(name));
    convert(&demo(), &hf, "hf", None).unwrap();
    convert(&hf, &gguf, "i2_s", None).unwrap();
    let engines = [demo(), hf.clone(), gguf].map(|path| open(&path));
    let [demo, hf_, gguf] = engines.each_ref().map(|engine| engine.tokenizer().unwrap());
    assert_eq!(demo.len(), hf_.len());
    for text in TEXTS.iter().chain([&include_str!("../data/heldout.txt")]) {
        for special in [Special::PROMPT, Special::TEXT] {
            let expected = demo.encode(text, special);
            assert_eq!(hf_.encode(text, special), expected, "{text:?}");
            assert_eq!(gguf.encode(text, special), expected, "{text:?}");
        }
    }
    assert_eq!(engines[1].notices(), []);
    let written = fs::read_to_string(hf.join("tokenizer.json")).unwrap();
    let other = tokenizers::Tokenizer::from_bytes(written.as_bytes()).unwrap();
    for text in TEXTS {
        let expected = demo.encode(text, Special::PROMPT);
        assert_eq!(other.encode(text, true).unwrap().get_ids(), expected, "{text:?}");
    }
}

/// Templates, and the tokens that they call by name.
#[test]
fn chat_templates_stay_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let [with, hf, gguf] = ["with", "hf", "gguf"].map(|name| folder.path().join(name));
    let plain = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ pad_token }}{% endfor %}";
    let demo = Gguf::from_static("demo", DEMO).unwrap();
    let mut writer = Writer::new();
    for (key, value) in demo.metadata() {
        writer = writer.metadata(key, value.clone());
    }
    writer = writer
        .metadata("tokenizer.ggml.padding_token_id", 17_u32)
        .metadata("tokenizer.chat_template", plain)
        .metadata("tokenizer.chat_template.tool_use", "tools: {{ tools | length }}");
    for t in demo.tensors() {
        writer = writer.tensor(&t.name, &t.dims, t.type_id, demo.data(t).unwrap().to_vec());
    }
    writer.write_to(&mut fs::File::create(&with).unwrap()).unwrap();
    convert(&with, &hf, "hf", None).unwrap();
    convert(&hf, &gguf, "i2_s", None).unwrap();
    let tokens: Vec<_> = demo.require_strings("tokenizer.ggml.tokens").unwrap().collect();
    for path in [with, hf, gguf] {
        let engine = open(&path);
        let template = Checkpoint::open(&path).unwrap().chat_template(None).unwrap();
        let now = Moment::new(0);
        let mut chat = Conversation::new(vec![Conversation::message("user", "Hi")], now);
        let render = |chat: &Conversation| {
            template.render(chat, engine.tokenizer().unwrap()).unwrap().text()
        };
        assert_eq!(render(&chat), format!("<|begin_of_text|>Hi{}", tokens[17]), "{path:?}");
        chat.tools = vec![Data::from("a"), Data::from("b")];
        assert_eq!(render(&chat), "tools: 2", "{path:?}");
    }
}
