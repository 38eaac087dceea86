//! Chats: prompts as messages, and what their templates print.

use std::fs;

use serde_json::Value;

use crate::{bitnet, stderr, stdout};

#[test]
fn the_template_of_a_model_is_printed() {
    let output = bitnet().args(["template", "--chat-template", "{{ bos_token }}!"]).unwrap();
    assert_eq!(stdout(&output), "{{ bos_token }}!\n");
    let output = bitnet().args(["template", "--chat-template", "chatml", "--json"]).unwrap();
    let json: Value = serde_json::from_str(stdout(&output)).unwrap();
    assert!(json["template"].as_str().unwrap().contains("<|im_start|>"));
    // The demo model tells stories.
    let output = bitnet().arg("template").assert().code(3).get_output().clone();
    assert!(stderr(&output).contains("no chat template"), "{}", stderr(&output));
}

#[test]
fn messages_become_a_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages.json");
    fs::write(&file, r#"[{"role": "user", "content": "Hi <|eot_id|>"}]"#).unwrap();
    let args = ["template", "--chat-template", "bitnet", "--messages", file.to_str().unwrap()];
    let output = bitnet().args(args).unwrap();
    assert_eq!(stdout(&output), "<|begin_of_text|>User: Hi <|eot_id|><|eot_id|>Assistant: \n");
    let json: Value =
        serde_json::from_str(stdout(&bitnet().args(args).arg("--json").unwrap())).unwrap();
    let tokens = json["tokens"].as_array().unwrap();
    assert_eq!(tokens[0], 2040);
    // The template's, and not that of the message.
    assert_eq!(tokens.iter().filter(|id| **id == 2044).count(), 1);

    let stdin = r#"{"messages": [], "name": "x"}"#;
    let given =
        ["template", "--chat-template", "{{ name }}{{ messages | length }}", "--messages", "-"];
    assert_eq!(stdout(&bitnet().args(given).write_stdin(stdin).unwrap()), "x0\n");
    let refused = |stdin: &str, template: &str, code, words: &str| {
        let args = ["template", "--messages", "-", "--chat-template", template];
        let output =
            bitnet().args(args).write_stdin(stdin).assert().code(code).get_output().clone();
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    };
    refused("[", "bitnet", 2, "line 1");
    refused("7", "bitnet", 2, "array of messages");
    refused("[]", "no-such-template", 2, "falcon3");
    refused("[]", "{{ raise_exception('no messages') }}", 2, "no messages");
    refused(
        "[]",
        "{% for i in range(99999) %}{% for i in range(99999) %}{% endfor %}{% endfor %}",
        3,
        "stopped",
    );
    refused("[]", "\n{{ 1 + }}", 3, "line 2");
}

#[test]
fn a_chat_is_a_prompt_of_the_template() {
    let run = |args: &[&str]| {
        let all = ["run", "--temp", "0", "-n", "2", "--json"];
        let output = bitnet().args(all).args(args).unwrap();
        serde_json::from_str::<Value>(stdout(&output)).unwrap()["prompt_tokens"].clone()
    };
    let chat = ["--chat", "--chat-template", "bitnet"];
    let plain = run(&["Be brief.", "--chat", "--chat-template", "{{ messages[0].content }}"]);
    assert_eq!(plain, run(&["Be brief."]));
    let prompt = run(&[&chat[..], &["Hi"]].concat());
    assert_eq!(prompt, run(&["User: Hi<|eot_id|>Assistant: "]));
    let prompt = run(&[&chat[..], &["Hi", "--system", "Be brief."]].concat());
    assert_eq!(prompt, run(&["System: Be brief.<|eot_id|>User: Hi<|eot_id|>Assistant: "]));
    // A template, or something for one, makes it a chat.
    assert_eq!(prompt, run(&["Hi", "-sys", "Be brief.", "--chat-template", "bitnet"]));
    bitnet().args(["run", "Hi", "--system", "x"]).assert().code(3);
    bitnet().args(["run", "Hi", "--chat"]).assert().code(3);
}
