//! Tokenizers go with the model: from metadata to `tokenizer.json` and back.

use std::fs;

use bitnet_inference::tokenizer::Special;

use super::{convert, demo, open};

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
