//! Clients that do not behave, and more of them than there are slots.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Answer, ONCE, Server};

/// What takes longer than any test, where the model is tireless.
fn long() -> Value {
    json!({ "prompt": ONCE, "ignore_eos": true, "stream": true })
}

#[test]
fn many_share_few_slots_and_none_is_lost() {
    let server = Server::start(&["--parallel", "8"]);
    let body =
        |seed: u64| json!({ "prompt": ONCE, "max_tokens": 24, "seed": seed, "temperature": 1.2 });
    let ask =
        |seed| server.post("/v1/completions", &body(seed)).ok()["choices"][0]["text"].to_string();
    let alone: BTreeMap<u64, String> = (0..8).map(|seed| (seed, ask(seed))).collect();
    thread::scope(|scope| {
        let clients = (0..64).map(|client: u64| {
            let (ask, alone) = (&ask, &alone);
            scope.spawn(move || {
                for round in 0..3 {
                    let seed = (client + round) % 8;
                    assert_eq!(ask(seed), alone[&seed]);
                }
            })
        });
        clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
    });
    assert_eq!(
        server.figure("requests_total", "finished_reason=\"length\""),
        f64::from(8 + 64 * 3)
    );
    server.wait_for("requests_running", "", 0.0);
    assert_eq!(server.figure("kv_cache_usage_ratio", ""), 0.0);
}

#[test]
fn who_goes_away_ends_what_was_done_for_them() {
    let server = Server::tireless(&["--parallel", "2"]);
    // In a stream, and before a whole answer.
    let mut streams: Vec<_> = (0..2).map(|_| server.stream("/v1/completions", &long())).collect();
    for stream in &mut streams {
        stream.next().unwrap();
    }
    // These wait.
    let body = long().to_string();
    let waiting: Vec<_> =
        (0..4).map(|_| server.send("POST /v1/completions", &[], body.as_bytes())).collect();
    server.wait_for("requests_waiting", "", 4.0);
    drop(waiting);
    streams.into_iter().for_each(super::Lines::leave);
    server.wait_for("requests_running", "", 0.0);
    server.wait_for("requests_waiting", "", 0.0);
    assert_eq!(server.figure("requests_total", "finished_reason=\"cancelled\""), 6.0);
    assert_eq!(server.figure("requests_total", "finished_reason=\"length\""), 0.0);
    let mut whole = long();
    whole["stream"] = false.into();
    let stream = server.send("POST /v1/completions", &[], whole.to_string().as_bytes());
    server.wait_for("requests_running", "", 1.0);
    drop(stream);
    server.wait_for("requests_running", "", 0.0);
    assert_eq!(server.figure("requests_total", "finished_reason=\"cancelled\""), 7.0);
    assert_eq!(server.figure("kv_cache_usage_ratio", ""), 0.0);
}

#[test]
fn who_reads_slowly_holds_nobody_up() {
    let server = Server::start(&["--parallel", "4", "--client-timeout", "2"]);
    // More than what lies on the way can hold: log-probabilities of many tokens.
    let body = json!({ "messages": [{ "role": "user", "content": ONCE }], "ignore_eos": true, "max_tokens": 450,
        "stream": true, "n": 8, "logprobs": true, "top_logprobs": 20 });
    let mut slow: Vec<_> = (0..2).map(|_| server.stream("/v1/chat/completions", &body)).collect();
    for stream in &mut slow {
        stream.next().unwrap();
    }
    // Nobody reads on. Others get their answers all the same, and the places of these in the end.
    for _ in 0..8 {
        server.post("/v1/completions", &json!({ "prompt": ONCE, "max_tokens": 8 })).ok();
    }
    server.wait_for("requests_running", "", 0.0);
    // These are too late: there is no more for them, and it does not look like the end.
    thread::sleep(Duration::from_secs(4));
    for mut stream in slow {
        assert_ne!(stream.rest().last().map(String::as_str), Some("[DONE]"));
    }
    // Who reads slowly but reads has all of it.
    let mut patient = server.stream("/v1/completions", &long());
    let mut pieces = 0;
    while let Some(data) = patient.next() {
        pieces += usize::from(data != "[DONE]");
        if pieces % 150 == 0 {
            thread::sleep(Duration::from_millis(500));
        }
    }
    assert!(pieces > 300, "{pieces}");
}

#[test]
fn what_is_no_http_ends_with_its_connection() {
    let server = Server::start(&["--client-timeout", "1"]);
    let garbage: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"king\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /health HTTP/1.1\r\ncontent-length: many\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n",
    ];
    for bytes in garbage {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    }
    // A head that never ends, and one that is too large.
    let mut stream = server.connect();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: ").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let head = format!("x-king: {}", "a".repeat(1 << 20));
    let mut stream = server.send("GET /health", &[&head], b"");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", answer.len());
    // Strange paths.
    for path in
        ["/..%2f..%2fetc/passwd", "/%00", "//", "/v1/models/%ff", "/v1/models/../x", "/metrics/"]
    {
        let answer = server.get(path);
        assert_eq!(answer.status, 404, "{path}");
        answer.error();
    }
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn connections_are_kept() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    let body = json!({ "prompt": ONCE, "max_tokens": 2 }).to_string();
    for _ in 0..3 {
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        // A head, and as many bytes as it says.
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            bytes.push(byte[0]);
        }
        let head = String::from_utf8(bytes).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
        assert!(serde_json::from_slice::<Value>(&body).unwrap()["choices"].is_array());
    }
}

#[test]
fn few_blocks_are_enough_for_many() {
    let server = Server::start(&["--parallel", "8", "--cache-tokens", "512"]);
    let body = |seed: u64| json!({ "prompt": ONCE, "max_tokens": 120, "seed": seed, "temperature": 1.2, "ignore_eos": true });
    let ask =
        |seed| server.post("/v1/completions", &body(seed)).ok()["choices"][0]["text"].to_string();
    let alone: Vec<String> = (0..8).map(ask).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|seed| scope.spawn(move || ask(seed))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
    assert!(server.figure("preemptions_total", "") > 0.0);
}

#[test]
fn nothing_of_what_is_asked_is_said() {
    let server = Server::start(&["--access-log", "json"]);
    let secret = "Rumpelstiltskin";
    let body =
        json!({ "prompt": secret, "stop": [secret], "grammar": format!("root ::= {secret}") });
    for path in ["/v1/completions", "/v1/chat/completions", &format!("/{secret}"), "/tokenize"] {
        server.post(path, &body);
    }
    server.post("/v1/completions", &json!({ "prompt": secret, "max_tokens": 4 })).ok();
    server.post("/tokenize", &json!({ "content": secret })).ok();
    server.ask("GET /health?king=Rumpelstiltskin", &["authorization: Bearer Rumpelstiltskin"], b"");
    let mut answer = server.send("POST /tokenize", &["x-request-id: last"], b"{}");
    Answer::read(&mut answer);
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.contains("\"last\"")) {
        said.push(server.line(""));
    }
    let lines: Vec<Value> =
        said.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(lines.len(), 7);
    assert!(lines.iter().all(|line| line["status"].is_u64() && line["route"].is_string()));
    assert!(!said.concat().contains(secret), "{said:?}");
}
