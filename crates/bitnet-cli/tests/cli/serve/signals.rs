//! How a server ends.

use serde_json::json;

use super::{ONCE, Server};

#[test]
fn what_runs_is_finished() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::tireless(&["--parallel", "1"]);
        let body =
            json!({ "prompt": ONCE, "ignore_eos": true, "max_tokens": 4000, "stream": true });
        let mut streams: Vec<_> = (0..3).map(|_| server.stream("/v1/completions", &body)).collect();
        // Whichever came first.
        server.wait_for("requests_waiting", "", 2.0);
        server.signal(signal);
        for stream in &mut streams {
            assert_eq!(stream.rest().last().unwrap(), "[DONE]");
        }
        assert_eq!(server.end(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut server = Server::tireless(&["--parallel", "1"]);
    let body = json!({ "prompt": ONCE, "ignore_eos": true, "stream": true });
    let mut stream = server.stream("/v1/completions", &body);
    stream.next().unwrap();
    server.signal("-TERM");
    while server.get("/readyz").status != 503 {}
    server.signal("-TERM");
    assert_eq!(server.end(), Some(0));
    assert_ne!(stream.rest().last().map(String::as_str), Some("[DONE]"));
    // So does a time.
    let mut server = Server::tireless(&["--parallel", "1", "--shutdown-timeout", "0"]);
    let mut stream = server.stream("/v1/completions", &body);
    stream.next().unwrap();
    server.signal("-TERM");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_killed_server_begins_anew() {
    let mut server = Server::tireless(&[]);
    let body = json!({ "prompt": ONCE, "ignore_eos": true, "stream": true });
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
