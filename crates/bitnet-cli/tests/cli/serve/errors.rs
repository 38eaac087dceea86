//! Each documented error comes about, with its status, type, code and a message.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;

use serde_json::{Value, json};

use super::{Answer, ONCE, Server};

const PAGE: &str = include_str!("../../../../../docs/server.md");

/// Those that cannot be brought about from outside; the tests of `bitnet-server` have them.
const INSIDE: [&str; 4] = ["device_failed", "internal_error", "out_of_memory", "stuck"];

type Row = (u16, String, String);

/// Those that the page lists.
fn documented() -> BTreeSet<Row> {
    let rows = PAGE.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let status = cells.next()?.parse().ok()?;
        let mut code = || Some(cells.next()?.trim_matches('`').to_owned());
        Some((status, code()?, code()?))
    });
    rows.collect()
}

/// What came about.
#[derive(Default)]
struct Seen(BTreeSet<Row>);

impl Seen {
    fn see(&mut self, answer: &Answer, code: &str, param: Value) {
        let (kind, found, about) = answer.error();
        assert_eq!((found.as_str(), &about), (code, &param), "{}", answer.text);
        assert!(answer.header("x-request-id").is_some());
        self.0.insert((answer.status, kind, found));
    }
}

#[test]
fn each_documented_error_comes_about() {
    let mut seen = Seen::default();
    fields(&mut seen);
    bodies(&mut seen);
    doors(&mut seen);
    busy(&mut seen);
    #[cfg(unix)]
    ends(&mut seen);
    let mut documented = documented();
    documented.retain(|(_, _, code)| !INSIDE.contains(&code.as_str()));
    if !cfg!(unix) {
        documented.retain(|(_, _, code)| !["loading", "draining"].contains(&code.as_str()));
    }
    assert_eq!(seen.0, documented);
}

/// Fields that are wrong.
fn fields(seen: &mut Seen) {
    let server = Server::start(&[]);
    let chat = |field: &str, value: Value| {
        let mut body =
            json!({ "messages": [{ "role": "user", "content": ONCE }], "max_tokens": 4 });
        body[field] = value;
        server.post("/v1/chat/completions", &body)
    };
    let wrong = |name: &str, values: &[Value]| {
        for value in values {
            let (_, code, param) = chat(name, value.clone()).error();
            assert!(["invalid_value", "invalid_type"].contains(&&*code), "{name} {value}: {code}");
            let param = param.as_str().unwrap();
            assert!(param == name || param.starts_with(&format!("{name}[")), "{name}: {param}");
        }
    };
    wrong("temperature", &[json!(-1), json!("warm"), json!(1e300)]);
    wrong("top_p", &[json!(-0.1), json!(1.1)]);
    wrong("min_p", &[json!(2)]);
    wrong("typical_p", &[json!(2)]);
    wrong("repeat_penalty", &[json!(0), json!(-1)]);
    wrong("dry_base", &[json!(0)]);
    wrong("dynatemp_exponent", &[json!(-1)]);
    wrong("n", &[json!(0), json!(-1), json!(129), json!(1.5)]);
    wrong("max_tokens", &[json!(-3), json!("many")]);
    wrong("stop", &[json!([""]), json!(vec!["x"; 65]), json!(3)]);
    wrong("logit_bias", &[json!({ "king": 1 }), json!([[1, true]]), json!(7)]);
    wrong("samplers", &[json!(["top_k", "luck"]), json!(vec!["top_k"; 19])]);
    wrong("dry_sequence_breakers", &[json!(vec!["a"; 65]), json!(["a".repeat(65 << 10)])]);
    wrong("seed", &[json!("seven")]);
    wrong("stream", &[json!("yes")]);
    wrong("top_logprobs", &[json!("all")]);
    let both = json!({ "messages": [{ "role": "user", "content": ONCE }], "logprobs": true, "top_logprobs": 21 });
    seen.see(&server.post("/v1/chat/completions", &both), "invalid_value", json!("top_logprobs"));
    seen.see(&chat("stream", json!(1)), "invalid_type", json!("stream"));
    seen.see(&chat("messages", json!([])), "invalid_messages", json!("messages"));
    let message =
        |message: Value| chat("messages", json!([{ "role": "user", "content": "a" }, message]));
    for (bad, param) in [
        (json!(3), ""),
        (json!({ "content": "a" }), ".role"),
        (json!({ "role": "king", "content": "a" }), ".role"),
        (json!({ "role": "user" }), ".content"),
        (json!({ "role": "user", "content": 3 }), ".content"),
        (json!({ "role": "user", "content": [{ "type": "image_url" }] }), ".content"),
        (json!({ "role": "assistant", "tool_calls": [{}] }), ".tool_calls"),
    ] {
        seen.see(&message(bad), "invalid_messages", json!(format!("messages[1]{param}")));
    }
    let tool = json!([{ "type": "function", "function": { "name": "dice" } }]);
    seen.see(&chat("tools", json!([{}])), "invalid_tools", json!("tools[0].function.name"));
    seen.see(&chat("tool_choice", json!("required")), "invalid_tools", json!("tool_choice"));
    let mut body = json!({ "messages": [{ "role": "user", "content": "a" }], "tools": tool });
    for choice in [json!("now"), json!({}), json!({ "function": { "name": "cards" } })] {
        body["tool_choice"] = choice;
        let answer = server.post("/v1/chat/completions", &body);
        seen.see(&answer, "invalid_tools", json!("tool_choice"));
    }
    body["tool_choice"] = json!("required");
    body["response_format"] = json!({ "type": "json_object" });
    let answer = server.post("/v1/chat/completions", &body);
    seen.see(&answer, "invalid_tools", json!("tool_choice"));
    for (name, value) in [
        ("grammar", json!("root ::= (")),
        ("json_schema", json!({ "type": "king" })),
        ("json_schema", json!({ "type": "integer", "minimum": 3, "maximum": 2 })),
    ] {
        let answer = chat(name, value);
        assert_eq!(answer.status, 400);
        seen.see(&answer, "invalid_constraint", json!(name));
    }
    let prompt = |prompt: Value| server.post("/v1/completions", &json!({ "prompt": prompt }));
    seen.see(&prompt(json!([5000])), "invalid_token", json!("prompt"));
    seen.see(&prompt(json!([])), "invalid_value", json!("prompt"));
    seen.see(&prompt(json!([[]])), "empty_prompt", json!("prompt"));
    seen.see(&prompt(json!("king ".repeat(600))), "context_length_exceeded", json!("prompt"));
    seen.see(&server.post("/v1/completions", &json!({})), "missing_field", json!("prompt"));
    seen.see(&server.post("/v1/embeddings", &json!({})), "missing_field", json!("input"));
    let body = json!({ "input": "a", "previous_response_id": "resp_1" });
    let answer = server.post("/v1/responses", &body);
    seen.see(&answer, "invalid_value", json!("previous_response_id"));
    let body = json!({ "input": "a", "max_output_tokens": -7 });
    let answer = server.post("/v1/responses", &body);
    seen.see(&answer, "invalid_value", json!("max_output_tokens"));
    seen.see(
        &server.get("/slots?fail_on_no_slot=1&fail_on_no_slot=0"),
        "invalid_value",
        Value::Null,
    );
    seen.see(&server.get("/v1/models/other"), "model_not_found", json!("model"));
    let answer = server.post("/detokenize", &json!({ "tokens": [2048] }));
    seen.see(&answer, "invalid_token", json!("tokens"));
}

/// Bodies that are none.
fn bodies(seen: &mut Seen) {
    let server = Server::start(&["--body-limit", "1"]);
    let post = |body: &[u8]| server.ask("POST /v1/completions", &[], body);
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    for body in [&b""[..], b"{", b"king", b"[]", b"\"a\"", b"{\"prompt\": \"\xff\"}", &deep] {
        seen.see(&post(body), "invalid_json", Value::Null);
    }
    let huge = format!("{{\"prompt\": \"{}\"}}", "a".repeat(2 << 20));
    seen.see(&post(huge.as_bytes()), "request_too_large", Value::Null);
    let begin = |server: &Server| {
        let mut stream = server.connect();
        let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
        let head = format!("{head}content-length: 99\r\n\r\n{{\"prompt\":");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let hasty = Server::start(&["--client-timeout", "1"]);
    seen.see(&Answer::read(&mut begin(&hasty)), "request_timeout", Value::Null);
    // A body that is cut off: who only stops to write can still be told.
    let mut cut = begin(&server);
    cut.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    cut.read_to_string(&mut answer).unwrap();
    if !answer.is_empty() {
        assert!(answer.contains("incomplete_body"), "{answer}");
    }
    let chunked = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\nking\r\n";
    let mut stream = server.connect();
    stream.write_all(chunked.as_bytes()).unwrap();
    seen.see(&Answer::read(&mut stream), "incomplete_body", Value::Null);
    assert_eq!(server.get("/health").status, 200);
}

/// Who may not come in, and where there is nothing.
fn doors(seen: &mut Seen) {
    let server = Server::start(&["--api-key", "sesame,open", "--protect-metrics"]);
    let get = |path: &str, headers: &[&str]| server.ask(&format!("GET {path}"), headers, b"");
    for path in ["/v1/models", "/props", "/slots", "/metrics", "/nowhere"] {
        let answer = get(path, &[]);
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        seen.see(&answer, "invalid_api_key", Value::Null);
    }
    for wrong in ["authorization: Bearer sesam", "authorization: sesame", "x-api-key: opened"] {
        assert_eq!(get("/v1/models", &[wrong]).status, 401, "{wrong}");
    }
    for right in ["authorization: Bearer sesame", "authorization: bearer open", "x-api-key: open"] {
        assert_eq!(get("/v1/models", &[right]).status, 200, "{right}");
    }
    for path in ["/", "/health", "/livez", "/readyz", "/openapi.json"] {
        assert_eq!(get(path, &[]).status, 200, "{path}");
    }
    let key = "x-api-key: open";
    seen.see(&get("/nowhere", &[key]), "not_found", Value::Null);
    seen.see(&get("/v1/completions", &[key]), "method_not_allowed", Value::Null);
    let origin = "origin: http://example.com";
    seen.see(&get("/health", &[key, origin]), "origin_not_allowed", Value::Null);
    seen.see(&get("/health", &[key, "host: example.com"]), "host_not_allowed", Value::Null);
    // As clients of Anthropic know it.
    let answer = server.ask("POST /v1/messages", &[], b"{}");
    assert_eq!((answer.status, &answer.json()["type"]), (401, &json!("error")));
    assert_eq!(answer.json()["error"]["type"], "authentication_error");
    for body in [&b"king"[..], b"{}", b"{\"messages\": [{\"role\": \"king\"}]}"] {
        let answer = server.ask("POST /v1/messages", &[key], body);
        assert_eq!((answer.status, &answer.json()["type"]), (400, &json!("error")));
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    }
    let answer = server.ask("GET /v1/messages", &[key], b"");
    assert_eq!((answer.status, &answer.json()["type"]), (405, &json!("error")));
}

/// What there is no place or no time for.
fn busy(seen: &mut Seen) {
    let server = Server::tireless(&["--parallel", "1", "--max-queue", "0"]);
    let long = json!({ "prompt": ONCE, "ignore_eos": true, "stream": true });
    let mut stream = server.stream("/v1/completions", &long);
    stream.next().unwrap();
    let short = json!({ "prompt": ONCE, "max_tokens": 1 });
    let answer = server.post("/v1/completions", &short);
    assert_eq!(answer.header("retry-after"), Some("1"));
    seen.see(&answer, "queue_full", Value::Null);
    let answer = server.get("/slots?fail_on_no_slot=1");
    seen.see(&answer, "no_slot", Value::Null);
    stream.leave();
    server.wait_for("requests_running", "", 0.0);
    assert_eq!(server.post("/v1/completions", &short).status, 200);
    let server = Server::tireless(&["--timeout", "1"]);
    let mut stream = server.stream("/v1/completions", &long);
    let last = stream.rest().pop().unwrap();
    assert!(last.contains("\"code\":\"timeout\""), "{last}");
    server.line("an answer that had begun failed: timeout");
    let long = json!({ "prompt": ONCE, "ignore_eos": true });
    let answer = server.post("/v1/completions", &long);
    seen.see(&answer, "timeout", Value::Null);
}

/// A server that is not there yet, or not any more.
#[cfg(unix)]
fn ends(seen: &mut Seen) {
    let folder = tempfile::tempdir().unwrap();
    // It waits for somebody to write what it is to read.
    let pipe = folder.path().join("tuning.json");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let server = Server::listening(&[], pipe.to_str().unwrap());
    for path in ["/health", "/readyz", "/v1/models", "/props"] {
        let answer = server.get(path);
        assert_eq!(answer.header("retry-after"), Some("1"));
        seen.see(&answer, "loading", Value::Null);
    }
    assert_eq!(server.get("/livez").status, 200);
    let server = Server::start(&[]);
    let long = json!({ "prompt": ONCE, "ignore_eos": true, "stream": true, "n": 32 });
    let mut stream = server.stream("/v1/completions", &long);
    stream.next().unwrap();
    server.signal("-TERM");
    while server.get("/readyz").status == 200 {}
    seen.see(&server.get("/readyz"), "draining", Value::Null);
    let answer = server.post("/v1/completions", &json!({ "prompt": ONCE }));
    seen.see(&answer, "draining", Value::Null);
    assert_eq!(stream.rest().last().unwrap(), "[DONE]");
}
