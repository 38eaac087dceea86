//! What each route answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ONCE, STORY, Server};

/// A tale whose next tokens are always the likeliest.
fn tale() -> Value {
    json!({ "prompt": ONCE, "max_tokens": 8, "temperature": 0 })
}

fn with(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn texts_go_on() {
    let server = Server::start(&[]);
    let ask = |fields: Value| server.post("/v1/completions", &with(tale(), fields)).ok();
    let answer = ask(json!({}));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(
        answer["choices"][0],
        json!({ "index": 0, "text": STORY, "logprobs": null, "finish_reason": "length" })
    );
    let usage = &answer["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(6), &json!(8)));
    assert_eq!(answer["timings"]["predicted_n"], 8);
    // Several prompts, as texts and as tokens, several times each.
    let ids = server.post("/tokenize", &json!({ "content": ONCE, "add_special": true })).ok();
    let answer = ask(json!({ "prompt": [ids["tokens"], ids["tokens"]], "n": 2 }));
    let texts: Vec<_> =
        answer["choices"].as_array().unwrap().iter().map(|it| &it["text"]).collect();
    assert_eq!(texts, [STORY; 4]);
    assert_eq!(answer["usage"]["prompt_tokens"], 12);
    assert_eq!(answer["usage"]["completion_tokens"], 32);
    // Ends.
    let answer = ask(json!({ "max_tokens": 40, "stop": "king who" }));
    assert_eq!(answer["choices"][0]["text"], " there lived a ");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let answer = ask(json!({ "echo": true, "max_tokens": 0 }));
    assert!(answer["choices"][0]["text"].as_str().unwrap().ends_with(ONCE));
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    // Log-probabilities.
    let answer = ask(json!({ "logprobs": 2 }));
    let logprobs = &answer["choices"][0]["logprobs"];
    let tokens = logprobs["tokens"].as_array().unwrap();
    assert_eq!(tokens.iter().filter_map(Value::as_str).collect::<String>(), STORY);
    assert_eq!(logprobs["text_offset"][1], tokens[0].as_str().unwrap().len());
    assert!(
        logprobs["top_logprobs"].as_array().unwrap().iter().all(|top| top
            .as_object()
            .unwrap()
            .len()
            == 2)
    );
    // A token that cannot be, and one that must.
    let there = answer["choices"][0]["logprobs"]["tokens"][0].as_str().unwrap().to_owned();
    let id = server.post("/tokenize", &json!({ "content": there })).ok()["tokens"][0].to_string();
    let answer = ask(json!({ "logit_bias": { &id: -100 } }));
    assert!(!answer["choices"][0]["text"].as_str().unwrap().starts_with(&there));
    let answer = ask(json!({ "logit_bias": { &id: 100 }, "max_tokens": 3 }));
    assert_eq!(answer["choices"][0]["text"], there.repeat(3));
    // What nobody knows is ignored; null is nothing.
    let answer =
        ask(json!({ "model": "gpt-x", "user": "me", "king": { "of": "nothing" }, "stop": null,
        "ignore_eos": null, "stream_options": null, "seed": null }));
    assert_eq!(answer["choices"][0]["text"], STORY);
}

#[test]
fn seeds_decide() {
    let server = Server::start(&["--temp", "1.5", "-n", "12"]);
    let text = |server: &Server, fields: Value| {
        let body = with(json!({ "prompt": ONCE }), fields);
        server.post("/v1/completions", &body).ok()["choices"].clone()
    };
    let texts = |fields: Value| {
        (0..4).map(|_| text(&server, fields.clone()).to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(texts(json!({ "seed": 7 })).len(), 1);
    assert!(texts(json!({})).len() > 1);
    assert!(texts(json!({ "seed": -1 })).len() > 1);
    let two = text(&server, json!({ "seed": 7, "n": 2 }));
    assert_eq!(two[0], text(&server, json!({ "seed": 7 }))[0]);
    assert_ne!(two[0]["text"], two[1]["text"]);
    // What the server is told holds where a request says nothing.
    let same = Server::start(&["--seed", "7", "--temp", "1.5", "-n", "12"]);
    assert_eq!(text(&same, json!({})), text(&server, json!({ "seed": 7 })));
    let told = Server::start(&["--temp", "0", "-n", "8", "-r", "king who", "--alias", "tale"]);
    assert_eq!(text(&told, json!({}))[0]["text"], " there lived a ");
    assert_eq!(text(&told, json!({ "stop": [] }))[0]["text"], STORY);
    assert_eq!(text(&told, json!({ "stop": [], "max_tokens": 100 }))[0]["text"], STORY);
    assert_eq!(told.get("/v1/models").ok()["data"][0]["id"], "tale");
    let told =
        Server::start(&["--temp", "0", "--grammar", "root ::= \" a \" [a-z]+ \".\"", "-n", "50"]);
    let bound = text(&told, json!({}))[0]["text"].as_str().unwrap().to_owned();
    assert!(bound.starts_with(" a ") && !bound.contains(|c: char| c.is_uppercase()), "{bound}");
}

#[test]
fn conversations_are_answered() {
    let server = Server::start(&[]);
    let messages =
        json!([{ "role": "system", "content": "Tell." }, { "role": "user", "content": ONCE }]);
    let body = json!({ "messages": messages, "max_tokens": 8, "temperature": 0 });
    let ask = |fields: Value| server.post("/v1/chat/completions", &with(body.clone(), fields)).ok();
    let answer = ask(json!({ "logprobs": true, "top_logprobs": 3, "n": 2 }));
    assert_eq!(answer["object"], "chat.completion");
    let (one, other) = (&answer["choices"][0], &answer["choices"][1]);
    assert_eq!(one["message"], other["message"]);
    let tokens = one["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().filter_map(|token| token["token"].as_str()).collect();
    assert_eq!(one["message"]["content"], text);
    assert!(tokens.iter().all(|token| token["top_logprobs"].as_array().unwrap().len() == 3));
    // Parts are one text; the prompt is what the template makes of it.
    let parts =
        json!([{ "type": "text", "text": "Once upon" }, { "type": "text", "text": " a time" }]);
    let messages = json!([messages[0], { "role": "user", "content": parts }]);
    assert_eq!(ask(json!({ "messages": messages }))["choices"][0]["message"], one["message"]);
    let prompt = server.post("/apply-template", &json!({ "messages": messages })).ok();
    assert!(prompt["prompt"].as_str().unwrap().ends_with(ONCE));
    // All interfaces say the same.
    let body =
        json!({ "input": ONCE, "instructions": "Tell.", "max_output_tokens": 8, "temperature": 0 });
    let response = server.post("/v1/responses", &body).ok();
    assert_eq!(response["output"][0]["content"][0]["text"], text);
    assert_eq!(response["status"], "incomplete");
    let body = json!({ "messages": [{ "role": "user", "content": ONCE }], "system": "Tell.", "max_tokens": 8,
        "temperature": 0 });
    let message = server.post("/v1/messages", &body).ok();
    assert_eq!(message["content"], json!([{ "type": "text", "text": text }]));
    assert_eq!(message["stop_reason"], "max_tokens");
    let counted = server.post("/v1/messages/count_tokens", &body).ok();
    let usage = &message["usage"];
    let prompt = usage["input_tokens"].as_u64().unwrap()
        + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(counted["input_tokens"], prompt);
}

#[test]
fn answers_are_bound() {
    let server = Server::start(&[]);
    let schema = json!({
        "type": "object", "properties": { "n": { "type": "integer", "minimum": 3, "maximum": 9 } },
        "required": ["n"], "additionalProperties": false,
    });
    let body = json!({ "messages": [{ "role": "user", "content": ONCE }], "max_tokens": 80 });
    let ask = |fields: Value| server.post("/v1/chat/completions", &with(body.clone(), fields)).ok();
    let fits = |text: &Value| {
        let value: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert!((3..=9).contains(&value["n"].as_i64().unwrap()), "{value}");
    };
    for fields in [
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": schema } } }),
        json!({ "response_format": { "type": "json_object", "schema": schema } }),
        json!({ "json_schema": schema }),
    ] {
        fits(&ask(fields)["choices"][0]["message"]["content"]);
    }
    let answer = ask(json!({ "grammar": "root ::= \"yes\" | \"no\"" }));
    assert!(["yes", "no"].contains(&answer["choices"][0]["message"]["content"].as_str().unwrap()));
    let tools =
        json!([{ "type": "function", "function": { "name": "dice", "parameters": schema } }]);
    for choice in [json!("required"), json!({ "type": "function", "function": { "name": "dice" } })]
    {
        let answer = ask(json!({ "tools": tools, "tool_choice": choice }));
        let choice = &answer["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls");
        assert_eq!(choice["message"]["content"], Value::Null);
        let call = &choice["message"]["tool_calls"][0];
        assert_eq!(
            (&call["type"], &call["function"]["name"]),
            (&json!("function"), &json!("dice"))
        );
        fits(&call["function"]["arguments"]);
    }
    // Definitions of its own.
    let parameters = json!({
        "type": "object", "properties": { "dice": { "$ref": "#/$defs/Dice" } }, "required": ["dice"],
        "additionalProperties": false, "$defs": { "Dice": schema },
    });
    let tools =
        json!([{ "type": "function", "function": { "name": "dice", "parameters": parameters } }]);
    let answer = ask(json!({ "tools": tools, "tool_choice": "required" }));
    let call = &answer["choices"][0]["message"]["tool_calls"][0]["function"];
    let arguments: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["dice"]["n"].is_i64(), "{arguments}");
    let tools = json!([{ "name": "dice", "input_schema": schema }]);
    let body = json!({ "messages": [{ "role": "user", "content": ONCE }], "max_tokens": 80, "tools": tools,
        "tool_choice": { "type": "tool", "name": "dice" } });
    let message = server.post("/v1/messages", &body).ok();
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(message["content"][0]["name"], "dice");
    assert!(message["content"][0]["input"]["n"].is_i64());
    // A call and what came of it.
    let said = json!([
        { "role": "user", "content": ONCE },
        { "role": "assistant", "content": null, "tool_calls": [
            { "id": "call_1", "type": "function", "function": { "name": "dice", "arguments": "{\"n\": 3}" } } ] },
        { "role": "tool", "tool_call_id": "call_1", "content": "3" },
    ]);
    assert!(ask(json!({ "messages": said }))["choices"][0]["message"]["content"].is_string());
}

#[test]
fn embeddings_have_length_one() {
    let server = Server::start(&[]);
    // Longer than a piece, so that it is run in several.
    let small = Server::start(&["--ubatch-size", "16"]);
    let text = "The king had three sons, and the youngest of them was a simpleton. ".repeat(4);
    let ids = server.post("/tokenize", &json!({ "content": text, "add_special": true })).ok();
    let ask =
        |server: &Server, body: Value| server.post("/v1/embeddings", &body).ok()["data"].clone();
    let both = ask(&server, json!({ "input": [text, ONCE] }));
    let numbers = |one: &Value| -> Vec<f64> {
        one["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    for one in both.as_array().unwrap() {
        let squares: f64 = numbers(one).iter().map(|x| x * x).sum();
        assert!((squares - 1.0).abs() < 1e-5);
    }
    assert_ne!(both[0]["embedding"], both[1]["embedding"]);
    assert_eq!(
        ask(&server, json!({ "input": ids["tokens"] }))[0]["embedding"],
        both[0]["embedding"]
    );
    assert_eq!(ask(&small, json!({ "input": [text, ONCE] })), both);
    let packed = ask(&server, json!({ "input": ONCE, "encoding_format": "base64" }));
    assert_eq!(packed[0]["embedding"].as_str().unwrap().len(), (256_usize * 4).div_ceil(3) * 4);
}

#[test]
fn a_server_says_what_it_is() {
    let server = Server::start(&["--parallel", "3"]);
    for path in ["/health", "/healthz", "/v1/health", "/readyz", "/livez"] {
        assert_eq!(server.get(path).ok(), json!({ "status": "ok" }));
    }
    assert_eq!(server.get("/version").ok()["version"], env!("CARGO_PKG_VERSION"));
    let model = server.get("/v1/models").ok()["data"][0].clone();
    assert_eq!(model["id"], "bitnet-tales");
    assert_eq!(model["max_model_len"], 512);
    assert_eq!(server.get("/v1/models/bitnet-tales").ok(), model);
    let props = server.get("/props").ok();
    assert_eq!(props["total_slots"], 3);
    assert_eq!(props["default_generation_settings"]["params"]["top_k"], 40);
    assert!(!props["kernels"]["layouts"].as_array().unwrap().is_empty());
    assert_eq!(server.get("/slots").ok().as_array().unwrap().len(), 3);
    let ids = server.post("/tokenize", &json!({ "content": STORY })).ok()["tokens"].clone();
    assert_eq!(server.post("/detokenize", &json!({ "tokens": ids })).ok()["content"], STORY);
    let body = json!({ "content": STORY, "with_pieces": true });
    let pieces = server.post("/tokenize", &body).ok()["tokens"].clone();
    let text: String =
        pieces.as_array().unwrap().iter().filter_map(|it| it["piece"].as_str()).collect();
    assert_eq!(text, STORY);
    let page = server.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(Server::start(&["--no-webui"]).get("/").status, 404);
    // A name that is given comes back; one that is none does not.
    let answer = server.ask("GET /health", &["x-request-id: mine"], b"");
    assert_eq!(answer.header("x-request-id"), Some("mine"));
    let answer = server.ask("GET /health", &["x-request-id: not mine"], b"");
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    let allowed = "access-control-allow-origin";
    let answer = server.ask("GET /health", &["origin: http://localhost:3000"], b"");
    assert_eq!(answer.header(allowed), Some("http://localhost:3000"));
    let named = Server::start(&["--cors-origins", "https://example.com"]);
    let answer = named.ask("GET /health", &["origin: https://example.com"], b"");
    assert_eq!(answer.header(allowed), Some("https://example.com"));
    let answer = named.ask("GET /health", &["host: example.com"], b"");
    assert_eq!(answer.status, 200);
    let answer = named.ask("GET /health", &["origin: http://localhost:3000"], b"");
    assert_eq!((answer.status, answer.header(allowed)), (403, None));
}

#[test]
fn all_figures_are_there_from_the_start() {
    let server = Server::start(&["--metrics-compat", "vllm"]);
    let families = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect()
    };
    let metrics = server.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let before = families(&metrics.text);
    let prompt = "The king had three sons, and the youngest of them was a simpleton. ";
    let body = json!({ "prompt": prompt, "max_tokens": 8 });
    for _ in 0..2 {
        server.post("/v1/completions", &body).ok();
    }
    assert_eq!(families(&server.get("/metrics").text), before);
    for name in [
        "vllm:num_requests_waiting gauge",
        "vllm:num_requests_running gauge",
        "vllm:kv_cache_usage_perc gauge",
        "vllm:cache_config_info gauge",
        "bitnet_requests_waiting gauge",
    ] {
        assert!(before.contains(name), "{name}");
    }
    assert_eq!(server.figure("generation_tokens_total", ""), 16.0);
    assert_eq!(server.figure("requests_total", "finished_reason=\"length\""), 2.0);
    assert!(server.figure("prefix_cache_hits_total", "") >= 16.0);
    assert_eq!(server.figure("time_to_first_token_seconds_count", ""), 2.0);
    assert_eq!(server.figure("inter_token_latency_seconds_count", ""), 14.0);
    assert!(server.figure("cache_config_info", "block_size=\"16\",num_gpu_blocks=\"256\"") == 1.0);
    let plain = Server::start(&[]).get("/metrics").text;
    assert!(!plain.contains("vllm"), "{plain}");
}
