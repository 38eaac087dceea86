//! Answers as they come.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{ONCE, STORY, Server};

fn values(lines: &[String]) -> Vec<Value> {
    let json = |line: &String| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    lines.iter().map(json).collect()
}

#[test]
fn pieces_are_the_whole() {
    let server = Server::start(&[]);
    let body =
        json!({ "prompt": [ONCE, "The king"], "n": 2, "max_tokens": 24, "seed": 3, "logprobs": 1 });
    let whole = server.post("/v1/completions", &body).ok();
    let mut body = body;
    body["stream"] = true.into();
    body["stream_options"] = json!({ "include_usage": true });
    let lines = server.stream("/v1/completions", &body).rest();
    let (done, lines) = lines.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let chunks = values(lines);
    let (last, chunks) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(96)));
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    for choice in whole["choices"].as_array().unwrap() {
        let own = chunks.iter().map(|chunk| &chunk["choices"][0]);
        let own: Vec<_> = own.filter(|it| it["index"] == choice["index"]).collect();
        let text: String = own.iter().filter_map(|it| it["text"].as_str()).collect();
        assert_eq!(choice["text"], text);
        let ends: Vec<_> = own.iter().filter(|it| !it["finish_reason"].is_null()).collect();
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0]["finish_reason"], choice["finish_reason"]);
        let scored = own.iter().filter_map(|it| it["logprobs"]["token_logprobs"][0].as_f64());
        let all = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        assert_eq!(
            scored.collect::<Vec<_>>(),
            all.iter().filter_map(Value::as_f64).collect::<Vec<_>>()
        );
    }
    assert!(chunks.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == last["id"]));
}

#[test]
fn a_chat_begins_with_its_role() {
    let server = Server::start(&[]);
    let body = json!({ "messages": [{ "role": "user", "content": ONCE }], "max_tokens": 8, "temperature": 0,
        "stream": true });
    let lines = server.stream("/v1/chat/completions", &body).rest();
    let chunks = values(&lines[..lines.len() - 1]);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert_eq!(chunks[0]["object"], "chat.completion.chunk");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, STORY);
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    // As llama.cpp has it, there is nothing behind the last piece.
    let body = json!({ "prompt": ONCE, "n_predict": 8, "temperature": 0, "stream": true });
    let pieces = values(&server.stream("/completion", &body).rest());
    let text: String = pieces.iter().filter_map(|piece| piece["content"].as_str()).collect();
    assert_eq!(text, STORY);
    let last = pieces.last().unwrap();
    assert_eq!((&last["stop"], &last["stop_type"]), (&json!(true), &json!("limit")));
}

#[test]
fn calls_come_whole() {
    let server = Server::start(&[]);
    let parameters = json!({ "type": "object", "properties": { "n": { "enum": [1, 2] } }, "required": ["n"],
        "additionalProperties": false });
    let tools =
        json!([{ "type": "function", "function": { "name": "dice", "parameters": parameters } }]);
    let body = json!({ "messages": [{ "role": "user", "content": ONCE }], "max_tokens": 80, "tools": tools,
        "tool_choice": "required", "stream": true });
    let lines = server.stream("/v1/chat/completions", &body).rest();
    let chunks = values(&lines[..lines.len() - 1]);
    let calls: Vec<_> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"])
        .filter(|it| !it.is_null())
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0][0]["function"]["name"], "dice");
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    let said = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(said.collect::<String>(), "");
}

#[test]
fn events_have_their_order() {
    let server = Server::start(&[]);
    let names = |lines: &[String]| {
        let mut names = String::new();
        for value in values(lines) {
            let name = value["type"].as_str().unwrap().to_owned();
            if !names.ends_with(&format!("{name} ")) {
                write!(names, "{name} ").unwrap();
            }
        }
        names
    };
    let body = json!({ "messages": [{ "role": "user", "content": ONCE }], "max_tokens": 8, "temperature": 0,
        "stream": true });
    let lines = server.stream("/v1/messages", &body).rest();
    assert_eq!(
        names(&lines),
        "message_start content_block_start content_block_delta content_block_stop message_delta message_stop "
    );
    let text: String =
        values(&lines).iter().filter_map(|it| it["delta"]["text"].as_str()).collect();
    assert_eq!(text, STORY);
    // Nothing is said, in a block.
    let mut nothing = body.clone();
    nothing["stop_sequences"] = json!([" there"]);
    let events = values(&server.stream("/v1/messages", &nothing).rest());
    assert_eq!(events[1]["content_block"], json!({ "type": "text", "text": "" }));
    assert_eq!(events[3]["delta"]["stop_sequence"], " there");
    let body = json!({ "input": ONCE, "max_output_tokens": 8, "temperature": 0, "stream": true });
    let lines = server.stream("/v1/responses", &body).rest();
    assert_eq!(
        names(&lines),
        "response.created response.in_progress response.output_item.added response.content_part.added \
         response.output_text.delta response.output_text.done response.content_part.done \
         response.output_item.done response.incomplete "
    );
    let events = values(&lines);
    let numbers = events.iter().map(|event| event["sequence_number"].as_u64().unwrap());
    assert!(numbers.eq(0..events.len() as u64));
    let text: String = events.iter().filter_map(|it| it["delta"].as_str()).collect();
    assert_eq!(text, STORY);
}

/// Stop strings and bytes of characters that lie across tokens never go out in part.
#[test]
fn nothing_goes_out_that_does_not_stay() {
    let server = Server::start(&[]);
    let mut body = json!({ "prompt": ONCE, "max_tokens": 24, "temperature": 0, "stream": true });
    for stop in ["king who", "d a k", "sons", "who had three s"] {
        body["stop"] = json!([stop, "nothing of this"]);
        let lines = server.stream("/v1/completions", &body).rest();
        let chunks = values(&lines[..lines.len() - 1]);
        let text: String =
            chunks.iter().filter_map(|it| it["choices"][0]["text"].as_str()).collect();
        assert_eq!(text, STORY[..STORY.find(stop).unwrap()]);
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    }
    // Bytes of a character one by one: the model is made to say them.
    let bytes = server.post("/tokenize", &json!({ "content": "\u{1f451}" })).ok()["tokens"].clone();
    let ids = bytes.as_array().unwrap();
    assert!(ids.len() > 1, "the crown is one token");
    body["stop"] = Value::Null;
    body["grammar"] = json!("root ::= \"\u{1f451}\u{1f451}\"");
    let lines = server.stream("/v1/completions", &body).rest();
    let chunks = values(&lines[..lines.len() - 1]);
    let texts: Vec<_> = chunks.iter().filter_map(|it| it["choices"][0]["text"].as_str()).collect();
    assert_eq!(texts.concat(), "\u{1f451}\u{1f451}");
    assert!(texts.iter().all(|text| !text.contains('\u{fffd}')));
}
