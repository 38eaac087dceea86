//! Where templates come from.

use std::fs;
use std::path::Path;

use bitnet_gguf::{Array, Gguf, Writer};
use bitnet_inference::chat::{ChatError, ChatTemplate, Conversation, Data};
use bitnet_inference::{Checkpoint, Error, Notice};
use safetensors::tensor::TensorView;

use crate::{TOKENIZER, now};

/// A GGUF file with nothing but these strings.
fn gguf(metadata: &[(&str, &str)]) -> Checkpoint {
    let mut writer = Writer::new()
        .metadata("tokenizer.ggml.tokens", ["<a>", "<b>"].into_iter().collect::<Array>())
        .metadata("tokenizer.ggml.bos_token_id", 1_u32)
        .metadata("tokenizer.ggml.padding_token_id", 7_u32);
    for (key, value) in metadata {
        writer = writer.metadata(key, (*value).to_owned());
    }
    let mut file = Vec::new();
    writer.write_to(&mut file).unwrap();
    Checkpoint::from_gguf(Gguf::from_vec("model.gguf", file).unwrap()).unwrap()
}

/// A folder with no weights.
fn folder(path: &Path, files: &[(&str, &str)]) -> Checkpoint {
    let none: Vec<(String, TensorView<'_>)> = Vec::new();
    safetensors::serialize_to_file(none, None, &path.join("model.safetensors")).unwrap();
    fs::write(path.join("config.json"), "{}").unwrap();
    for (name, text) in files {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    Checkpoint::open(path).unwrap()
}

/// What a template makes of one message; with tools if asked for.
fn print(template: &ChatTemplate, tools: bool) -> String {
    let message = Conversation::message("user", "hello");
    let mut conversation = Conversation::new(vec![message], now());
    if tools {
        conversation.tools = vec![Data::Null];
    }
    template.render(&conversation, &TOKENIZER).unwrap().text()
}

#[test]
fn gguf_files_have_templates() {
    let key = "tokenizer.chat_template";
    let model = gguf(&[
        (key, "{{ bos_token }}{{ pad_token }}"),
        ("tokenizer.chat_template.tool_use", "tools"),
    ]);
    let template = model.chat_template(None).unwrap();
    assert_eq!(
        (print(&template, false), print(&template, true)),
        ("<b>".to_owned(), "tools".to_owned())
    );
    assert_eq!(template.origin(), "model.gguf: tokenizer.chat_template");
    assert_eq!(template.notice(), None);
    let error = gguf(&[]).chat_template(None).unwrap_err().to_string();
    for words in ["model.gguf", "--chat-template", "bitnet, chatml, falcon3, llama3"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn folders_have_templates() {
    let config = r#"{"chat_template": "config {{ bos_token }} {{ eos_token }}", "bos_token": "<b>", "eos_token": {"content": "<e>"}}"#;
    let several = r#"{"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}"#;
    type Files<'f> = &'f [(&'f str, &'f str)];
    let cases: [(Files<'_>, &str, &str); 5] = [
        (&[("tokenizer_config.json", config)], "config <b> <e>", "config <b> <e>"),
        (&[("tokenizer_config.json", several)], "D", "T"),
        (
            &[("chat_template.jinja", "file {{ bos_token }}"), ("tokenizer_config.json", config)],
            "file <b>",
            "file <b>",
        ),
        (&[("chat_template.jinja", "file"), ("tokenizer_config.json", several)], "file", "file"),
        (
            &[("chat_template.jinja", "file"), ("additional_chat_templates/tool_use.jinja", "T")],
            "file",
            "T",
        ),
    ];
    for (files, plain, tools) in cases {
        let place = tempfile::tempdir().unwrap();
        let template = folder(place.path(), files).chat_template(None).unwrap();
        assert_eq!(
            (&*print(&template, false), &*print(&template, true)),
            (plain, tools),
            "{files:?}"
        );
    }
    let place = tempfile::tempdir().unwrap();
    let model = folder(place.path(), &[("tokenizer_config.json", r#"{"chat_template": 7}"#)]);
    assert!(model.chat_template(None).unwrap_err().to_string().contains("chat_template"));
    let place = tempfile::tempdir().unwrap();
    let model = folder(place.path(), &[]);
    let missing = model.chat_template(None).unwrap_err();
    assert!(matches!(missing, Error::Chat(ChatError::Missing { .. })), "{missing}");
    let plain = model.chat_template_or_plain(None).unwrap();
    assert_eq!(
        (print(&plain, false).as_str(), plain.notice()),
        ("hello", Some(&Notice::NoChatTemplate))
    );
}

#[test]
fn the_user_has_the_last_word() {
    let model = gguf(&[
        ("tokenizer.chat_template", "model"),
        ("tokenizer.chat_template.tool_use", "tools"),
    ]);
    let asked = |asked: &str| model.chat_template(Some(asked));
    assert_eq!(print(&asked("{{ bos_token }}!").unwrap(), true), "<b>!");
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("my.jinja");
    fs::write(&file, "mine {{ messages[0].content }}").unwrap();
    let template = asked(file.to_str().unwrap()).unwrap();
    assert_eq!(
        (print(&template, true).as_str(), template.origin()),
        ("mine hello", file.to_str().unwrap())
    );
    let error = asked("no-such-file.jinja").unwrap_err().to_string();
    for words in ["--chat-template no-such-file.jinja", "llama3"] {
        assert!(error.contains(words), "{error}");
    }
    let known = [
        ("bitnet", "<b>User: hello<|eot_id|>Assistant: "),
        ("chatml", "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"),
        ("falcon3", "<|user|>\nhello\n<|assistant|>\n"),
        (
            "llama3",
            "<b><|start_header_id|>user<|end_header_id|>\n\nhello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    ];
    for (name, text) in known {
        assert_eq!(print(&asked(name).unwrap(), false), text, "{name}");
    }
}

/// The file of BitNet b1.58 2B-4T has a template that the model was not trained with.
#[test]
fn the_template_of_2b_4t_is_replaced() {
    let broken = "{% for m in messages %}Human: {{ m.content }}\n\nBITNETAssistant: {% endfor %}";
    let model = gguf(&[("tokenizer.chat_template", broken)]);
    let template = model.chat_template(None).unwrap();
    assert_eq!(print(&template, false), "<b>User: hello<|eot_id|>Assistant: ");
    let notice = template.notice().unwrap();
    assert!(matches!(notice, Notice::ChatTemplate { file } if file == "model.gguf"), "{notice}");
    // Who asks for it gets it.
    let asked = model.chat_template(Some(broken)).unwrap();
    assert_eq!(
        (print(&asked, false).as_str(), asked.notice()),
        ("Human: hello\n\nBITNETAssistant: ", None)
    );
}
