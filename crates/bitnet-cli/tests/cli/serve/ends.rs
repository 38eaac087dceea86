//! How a server begins and ends.

use std::net::TcpListener;

use serde_json::json;

use super::{ONCE, Server};
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
    refused(&["--port", "0", "--timeout", "0"], 2, "--timeout");
    refused(&["--port", "0", "--temp", "warm"], 2, "--temp");
}

#[test]
fn who_can_ask_is_said() {
    let server = Server::listening(&["--host", "0.0.0.0"], "none");
    assert!(server.line("note: ").contains("--api-key"));
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "sesame\n\nopen\n").unwrap();
    let server = Server::start(&["--api-key-file", keys.path().to_str().unwrap()]);
    assert_eq!(server.ask("GET /v1/models", &["x-api-key: open"], b"").status, 200);
    assert_eq!(server.ask("GET /v1/models", &["x-api-key: "], b"").status, 401);
    assert_eq!(server.get("/v1/models").status, 401);
}

#[cfg(unix)]
#[test]
fn what_runs_is_finished() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start(&["--parallel", "1"]);
        let body = json!({ "prompt": ONCE, "ignore_eos": true, "max_tokens": 300, "stream": true });
        let mut streams: Vec<_> = (0..3).map(|_| server.stream("/v1/completions", &body)).collect();
        streams[0].next().unwrap();
        server.wait_for("requests_waiting", "", 2.0);
        server.signal(signal);
        for stream in &mut streams {
            assert_eq!(stream.rest().last().unwrap(), "[DONE]");
        }
        assert_eq!(server.end(), Some(0));
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::start(&["--parallel", "1"]);
    let body =
        json!({ "prompt": ONCE, "ignore_eos": true, "max_tokens": 450, "stream": true, "n": 8 });
    let mut stream = server.stream("/v1/completions", &body);
    stream.next().unwrap();
    server.signal("-TERM");
    while server.get("/readyz").status != 503 {}
    server.signal("-TERM");
    assert_eq!(server.end(), Some(0));
    assert_ne!(stream.rest().last().map(String::as_str), Some("[DONE]"));
    // So does a time.
    let mut server = Server::start(&["--parallel", "1", "--shutdown-timeout", "0"]);
    let mut stream = server.stream("/v1/completions", &body);
    stream.next().unwrap();
    server.signal("-TERM");
    assert_eq!(server.end(), Some(0));
}

#[cfg(unix)]
#[test]
fn a_killed_server_begins_anew() {
    let mut server = Server::start(&[]);
    let body = json!({ "prompt": ONCE, "ignore_eos": true, "max_tokens": 450, "stream": true });
    let mut stream = server.stream("/v1/completions", &body);
    stream.next().unwrap();
    server.signal("-KILL");
    assert_eq!(server.end(), None);
    assert_ne!(stream.rest().last().map(String::as_str), Some("[DONE]"));
    // On the same port, at once.
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let again = Server::start(&["--port", &port]);
    again.post("/v1/completions", &json!({ "prompt": ONCE, "max_tokens": 2 })).ok();
}
