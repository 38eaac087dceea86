//! How a server begins.

use std::net::TcpListener;

use super::Server;
use crate::{bitnet, stderr};

#[test]
fn flags_that_cannot_be_are_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = |args: &[&str], code: i32, says: &str| {
        let output = bitnet().arg("serve").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    };
    refused(&["--port", &port], 1, &format!("cannot listen on 127.0.0.1, port {port}"));
    refused(&["--host", "no such host"], 1, "no such host");
    refused(&["--api-key", ""], 2, "all could ask");
    refused(&["--api-key-file", "/no/such/file"], 1, "/no/such/file");
    refused(&["--port", "0", "-m", "/no/such/model.gguf"], 3, "/no/such/model.gguf");
    refused(&["--port", "0", "--parallel", "0"], 2, "sequences");
    refused(&["--port", "0", "--parallel", &usize::MAX.to_string()], 2, "sequences");
    refused(&["--port", "0", "--timeout", "0"], 2, "--timeout");
    refused(&["--port", "0", "--temp", "warm"], 2, "--temp");
    refused(&["--port", "0", "--max-queue", "18446744073709551615"], 2, "--max-queue");
    refused(&["--port", "0", "--chat-template", "/no/such/file.jinja"], 2, "/no/such/file.jinja");
}

/// What is automatic in llama.cpp is so here: threads, seeds, lengths.
#[test]
fn negative_numbers_are_automatic() {
    let more = ["--threads", "-1", "--seed", "-1", "--predict", "-1", "--repeat-last-n", "-1"];
    let server = Server::start(&more);
    let body = serde_json::json!({ "prompt": "Once", "max_tokens": 2 });
    assert_eq!(server.post("/v1/completions", &body).ok()["usage"]["completion_tokens"], 2);
}

#[test]
fn who_can_ask_is_said() {
    let server = Server::listening(&["--host", "0.0.0.0"], "none");
    assert!(server.line("note: ").contains("--api-key"));
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "sesame\n\nopen\nschlüssel\n").unwrap();
    let server = Server::start(&["--api-key-file", keys.path().to_str().unwrap()]);
    assert_eq!(server.ask("GET /v1/models", &["x-api-key: open"], b"").status, 200);
    assert_eq!(server.ask("GET /v1/models", &["authorization: Bearer schlüssel"], b"").status, 200);
    assert_eq!(server.ask("GET /v1/models", &["x-api-key: "], b"").status, 401);
    assert_eq!(server.get("/v1/models").status, 401);
}
