//! Servers that lie, refuse or fail: nothing of theirs gets a name in the cache.

use std::fs;

use crate::server::{Asked, COMMIT, Hub, Reply, Server};
use crate::{Home, assert_ended, below};

const FILE: &str = "m-i2_s.gguf";
const BYTES: &[u8] = b"These are the weights.";

fn demo() -> Hub {
    Hub::new([(FILE, BYTES)])
}

/// A hub with other answers to what `change` takes.
fn spoiled(change: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Server {
    let hub = demo();
    Server::new(move |asked| change(asked).unwrap_or_else(|| hub.answer(asked)))
}

/// That a pull fails so, and that nothing is left of it but locks.
#[track_caller]
fn assert_refused(server: &Server, args: &[&str], code: i32, words: &str) {
    let home = Home::new();
    assert_ended(&home.pull(server, args), code, words);
    let left: Vec<_> = below(home.0.path());
    let locks = home.0.path().join("hub/.locks");
    assert!(left.iter().all(|path| path.starts_with(&locks)), "{left:?}");
}

#[test]
fn wrong_bytes_are_deleted() {
    let server =
        spoiled(|asked| asked.is_download().then(|| Reply::new(200, "Those are the weights.")));
    assert_refused(&server, &["tales/demo"], 1, "has the hash");
    assert_eq!(server.downloads(), [None]);

    // Small files have the hash that git has for them.
    let hub = Hub::new([("config.json", &b"{}"[..]), ("model.safetensors", b"x")]);
    let server = Server::new(move |asked| match asked.is_download() {
        true if asked.path.ends_with("config.json") => Reply::new(200, "[]"),
        _ => hub.answer(asked),
    });
    assert_refused(&server, &["tales/demo"], 1, "config.json has the hash");
}

#[test]
fn wrong_parts_are_noticed() {
    let home = Home::new();
    let server = spoiled(|asked| match asked.from() {
        None if asked.is_download() => Some(Reply { cut: Some(5), ..Reply::new(200, BYTES) }),
        Some(_) => Some(Reply::new(206, &BYTES[3..]).with("Content-Range", "bytes 3-21/22")),
        None => None,
    });
    assert_ended(&home.pull(&server, &["tales/demo"]), 1, "bytes from 5, it sends `bytes 3-");
    // What came before it may be good.
    assert_eq!(
        fs::read(home.repository().join("blobs").join(&home.blobs()[0])).unwrap(),
        &BYTES[..5]
    );
}

#[test]
fn wrong_lengths_are_noticed() {
    let short = |asked: &Asked| asked.is_download().then(|| Reply::new(200, &BYTES[..9]));
    assert_refused(&spoiled(short), &["tales/demo"], 1, "has 9 bytes, and the hub says 22");
    let long =
        |asked: &Asked| asked.is_download().then(|| Reply::new(200, [BYTES, BYTES].concat()));
    assert_refused(&spoiled(long), &["tales/demo"], 1, "has 44 bytes");
    // Without a length before it.
    let chunked = |asked: &Asked| {
        let reply =
            Reply::new(200, "30\r\n0123456789012345678901234567890123456789.......!\r\n0\r\n\r\n");
        let reply = reply.with("Transfer-Encoding", "chunked");
        asked.is_download().then_some(reply)
    };
    assert_refused(&spoiled(chunked), &["tales/demo"], 1, "more bytes");
    let total = |asked: &Asked| match asked.from() {
        None => asked.is_download().then(|| Reply { cut: Some(5), ..Reply::new(200, BYTES) }),
        Some(_) => Some(Reply::new(206, &BYTES[5..]).with("Content-Range", "bytes 5-21/23")),
    };
    assert_refused(&spoiled(total), &["tales/demo"], 1, "has 23 bytes");
}

#[test]
fn what_never_goes_on_is_given_up() {
    let home = Home::new();
    let server = spoiled(|asked| asked.is_download().then(|| Reply::again(500)));
    assert_ended(&home.pull(&server, &["tales/demo"]), 1, "answers 500");
    assert_eq!(server.downloads().len(), 3);
    let server = spoiled(|asked| asked.path.starts_with("/api").then(|| Reply::again(429)));
    assert_ended(&home.pull(&server, &["tales/demo"]), 1, "answers 429");
    assert_eq!(server.asked().len(), 3);
    // A hub that is not there at all.
    let url = server.url();
    drop(server);
    let mut command = home.bitnet(&["pull", "tales/demo", "--retries", "0", "--endpoint", &url]);
    assert_ended(&command.output().unwrap(), 1, "cannot reach");
}

#[test]
fn refusals_say_what_to_do() {
    let refuse = |status: u16, reason: &'static str| {
        spoiled(move |_| Some(Reply::new(status, "").with("X-Error-Code", reason)))
    };
    let cases = [
        (401, "RepoNotFound", "the token in use does not open it"),
        (403, "", "the token in use does not open it"),
        (401, "GatedRepo", "accept its conditions at http"),
        (403, "GatedRepo", "HF_TOKEN"),
        (404, "RevisionNotFound", "check the name"),
    ];
    for (status, reason, words) in cases {
        let server = refuse(status, reason);
        assert_refused(&server, &["tales/demo"], 3, words);
        assert_eq!(server.asked().len(), 1, "{status}");
    }
    let (home, server) = (Home::new(), refuse(401, ""));
    let mut command = home.bitnet(&["pull", "tales/demo", "--endpoint", &server.url()]);
    assert_ended(&command.output().unwrap(), 3, "set HF_TOKEN");
    let mut command = home.bitnet(&["pull", "tales/demo", "--endpoint", &server.url()]);
    let output = command.env("HF_TOKEN", "hf_a\nhf_b").output().unwrap();
    assert_ended(&output, 1, "the token of HF_TOKEN has characters");
    assert!(!super::stderr(&output).contains("hf_b"));
}

#[test]
fn names_that_escape_are_refused() {
    for file in
        ["../x.gguf", "/tmp/x.gguf", "a/../../x.gguf", "..\\x.gguf", "C:x.gguf", "a//x.gguf"]
    {
        let listing = serde_json::json!({ "sha": COMMIT, "siblings": [{ "rfilename": file }] });
        let server = spoiled(move |asked| {
            asked.path.starts_with("/api").then(|| Reply::new(200, listing.to_string()))
        });
        assert_refused(&server, &["tales/demo"], 1, "could leave the cache");
    }
    for sha in ["../../../x", "main", ""] {
        let listing = serde_json::json!({ "sha": sha, "siblings": [{ "rfilename": FILE }] });
        let server = spoiled(move |asked| {
            asked.path.starts_with("/api").then(|| Reply::new(200, listing.to_string()))
        });
        assert_refused(&server, &["tales/demo"], 1, "is no commit");
    }
    for etag in ["../../../x", "\"0123\"", "W/\"abc-def\""] {
        let server = spoiled(move |asked| {
            (asked.method == "HEAD").then(|| Reply::new(200, BYTES).with("ETag", etag))
        });
        assert_refused(&server, &["tales/demo"], 1, "nothing can be checked");
    }
    let server = spoiled(|_| None);
    assert_refused(&server, &["tales/demo", "--revision", "../x"], 1, "the revision `../x`");
    assert_refused(&server, &["../demo"], 2, "ORG/NAME");
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn lists_that_are_none_are_refused() {
    let list = |text: Vec<u8>| {
        spoiled(move |asked| asked.path.starts_with("/api").then(|| Reply::new(200, text.clone())))
    };
    assert_refused(&list(b"<html>".to_vec()), &["tales/demo"], 1, "is this a Hugging Face hub?");
    assert_refused(&list(b"{\"sha\": 1}".to_vec()), &["tales/demo"], 1, "cannot be read");
    assert_refused(&list(vec![b' '; (16 << 20) + 1]), &["tales/demo"], 1, "longer than");
    let escape =
        format!("{{\"sha\": \"{COMMIT}\", \"siblings\": [{{\"rfilename\": \"\\u001b[2J\"}}]}}");
    assert_refused(&list(escape.into_bytes()), &["tales/demo"], 1, "control characters");
    let nothing = format!("{{\"sha\": \"{COMMIT}\", \"siblings\": []}}");
    assert_refused(
        &list(nothing.into_bytes()),
        &["tales/demo"],
        3,
        "no model that bitnet could run",
    );
}

#[test]
fn redirects_do_not_go_on_for_ever() {
    let server = spoiled(|asked| {
        asked.is_download().then(|| Reply::new(302, "").with("Location", &asked.path))
    });
    assert_refused_with_partial(&server, "one redirect too many");
    assert_eq!(server.downloads().len(), 6);
    for to in ["", "file:///etc/passwd", "http://user@127.0.0.1/x", "//"] {
        let server = spoiled(move |asked| {
            asked.is_download().then(|| Reply::new(302, "").with("Location", to))
        });
        assert_refused_with_partial(&server, "that is no address");
    }
}

/// That a pull fails so, and nothing but an empty partial download is left.
#[track_caller]
fn assert_refused_with_partial(server: &Server, words: &str) {
    let home = Home::new();
    assert_ended(&home.pull(server, &["tales/demo"]), 1, words);
    assert!(home.blobs().iter().all(|name| name.ends_with(".incomplete")), "{:?}", home.blobs());
    assert!(!home.repository().join("snapshots").exists());
}

#[test]
fn a_full_disk_is_noticed_before() {
    let server = spoiled(|asked| {
        let reply = Reply::new(200, "").with("ETag", "0".repeat(64));
        (asked.method == "HEAD").then(|| reply.with("Content-Length", u64::MAX / 2))
    });
    assert_refused(&server, &["tales/demo"], 1, "make room");
    assert_eq!(server.downloads().len(), 0);
}

#[test]
fn offline_asks_nobody() {
    let (home, server) = (Home::new(), spoiled(|_| None));
    assert_ended(&home.pull(&server, &["tales/demo", "--offline"]), 3, "bitnet pull tales/demo");
    let mut command = home.bitnet(&["pull", "tales/demo", "--endpoint", &server.url()]);
    assert_ended(&command.env("HF_HUB_OFFLINE", "1").output().unwrap(), 3, "bitnet pull");
    assert_eq!(server.asked().len(), 0);
    let mut command = home.bitnet(&["pull", "tales/demo", "--endpoint", &server.url()]);
    assert_ended(&command.env("HF_HUB_OFFLINE", "0").output().unwrap(), 0, "");
    assert_ended(&home.pull(&server, &["tales/demo", "--offline"]), 0, "");
}
