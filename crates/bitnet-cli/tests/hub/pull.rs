//! Downloads that go well in the end.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bitnet_inference::sha256;

use crate::server::{Asked, COMMIT, Hub, Reply, Server};
use crate::{Home, TOKEN, assert_ended, below, stderr, stdout};

const DEMO: &[u8] = include_bytes!("../../../../models/bitnet-tales-i2_s.gguf");
const FILE: &str = "bitnet-tales-i2_s.gguf";

/// The demo model on a hub.
fn demo() -> Hub {
    Hub::new([(FILE, DEMO), ("README.md", b"text")])
}

/// A server that answers the downloads in turn with `changed` replies, and then as it should.
fn spoiled(change: impl Fn(usize, &Asked, Reply) -> Reply + Send + Sync + 'static) -> Server {
    let (hub, count) = (demo(), AtomicUsize::new(0));
    Server::new(move |asked| {
        let reply = hub.answer(asked);
        match asked.is_download() {
            true => change(count.fetch_add(1, Ordering::SeqCst), asked, reply),
            false => reply,
        }
    })
}

#[test]
fn a_pulled_model_runs() {
    let home = Home::new();
    let files = demo();
    let cdn = Server::new(move |asked| {
        let asked = Asked { path: asked.path.replace("?signature=1", ""), ..asked.clone() };
        files.answer(&asked)
    });
    let hub = Hub { elsewhere: Some(cdn.url()), ..demo() };
    let server = Server::new(move |asked| hub.answer(asked));

    let output = home.pull(&server, &["tales/demo"]);
    assert_ended(&output, 0, "hash checked");
    let path = home.repository().join("snapshots").join(COMMIT).join(FILE);
    assert_eq!(stdout(&output).trim_end(), path.to_str().unwrap());
    assert_eq!(fs::read(&path).unwrap(), DEMO);
    assert_eq!(fs::read_to_string(home.repository().join("refs/main")).unwrap(), COMMIT);
    if cfg!(unix) {
        let hash = sha256(DEMO);
        assert_eq!(fs::read_link(&path).unwrap().to_str().unwrap(), format!("../../blobs/{hash}"));
        assert_eq!(home.blobs(), [hash]);
    }
    // The token goes to the hub, and not to where the bytes are.
    let bearer = format!("Bearer {TOKEN}");
    assert!(server.asked().iter().all(|asked| asked.header("authorization") == Some(&bearer)));
    assert_eq!(cdn.asked().len(), 1);
    assert_eq!(cdn.asked()[0].header("authorization"), None);

    // Once more: only the commit is asked for.
    let before = server.asked().len();
    assert_ended(&home.pull(&server, &["tales/demo:i2_s"]), 0, "in the cache already");
    assert_eq!(server.asked().len(), before + 1);

    drop((server, cdn));
    let args = ["run", "Once upon a time", "--temp", "0", "-n", "8", "-m", "tales/demo"];
    let output = home.bitnet(&args).output().unwrap();
    assert_eq!(stdout(&output), " there lived a king who had three sons\n");
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let home = Home::new();
    let server = spoiled(|count, _, reply| match count {
        0 => Reply { cut: Some(100_000), ..reply },
        1 => Reply { cut: Some(200_000), ..reply },
        2 => Reply::again(503),
        _ => reply,
    });
    assert_ended(&home.pull(&server, &["tales/demo"]), 0, "trying again");
    assert_eq!(server.downloads(), [None, Some(100_000), Some(300_000), Some(300_000)]);
}

#[test]
fn an_earlier_download_is_gone_on_with() {
    let home = Home::new();
    let partial = home.repository().join("blobs").join(format!("{}.incomplete", sha256(DEMO)));
    fs::create_dir_all(partial.parent().unwrap()).unwrap();
    fs::write(&partial, &DEMO[..1000]).unwrap();
    let server = spoiled(|_, _, reply| reply);
    assert_ended(&home.pull(&server, &["tales/demo"]), 0, "");
    assert_eq!(server.downloads(), [Some(1000)]);
    assert!(!partial.exists());

    // One that is whole already needs a check and a name, one that is too long is begun again.
    for (length, expected) in [(DEMO.len(), vec![]), (DEMO.len() + 1, vec![None])] {
        let home = Home::new();
        let partial = home.repository().join("blobs").join(format!("{}.incomplete", sha256(DEMO)));
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, &[DEMO, b"x"].concat()[..length]).unwrap();
        let server = spoiled(|_, _, reply| reply);
        assert_ended(&home.pull(&server, &["tales/demo"]), 0, "");
        assert_eq!(server.downloads(), expected);
    }
}

#[test]
fn a_server_that_knows_no_ranges_sends_it_all_again() {
    let home = Home::new();
    let server = spoiled(|count, _, reply| match count {
        0 => Reply { cut: Some(100_000), ..reply },
        1 => Reply { cut: Some(150_000), ..Reply::new(200, DEMO) },
        _ => Reply::new(200, DEMO),
    });
    assert_ended(&home.pull(&server, &["tales/demo"]), 0, "hash checked");
    assert_eq!(server.downloads(), [None, Some(100_000), Some(150_000)]);
}

#[test]
fn a_range_that_the_server_refuses_is_begun_again() {
    let home = Home::new();
    let server = spoiled(|count, _, reply| match count {
        0 => Reply { cut: Some(100_000), ..reply },
        1 => Reply::new(416, "").with("Content-Range", "bytes */5"),
        _ => reply,
    });
    assert_ended(&home.pull(&server, &["tales/demo"]), 0, "416");
    assert_eq!(server.downloads(), [None, Some(100_000), None]);
}

#[test]
fn busy_servers_are_asked_again() {
    let home = Home::new();
    let (hub, seen) = (demo(), Mutex::new(Vec::new()));
    let server = Server::new(move |asked| {
        let mut seen = seen.lock().unwrap();
        let key = (asked.method.clone(), asked.path.clone());
        let before = seen.iter().filter(|other| **other == key).count();
        seen.push(key);
        [429, 500].get(before).map_or_else(|| hub.answer(asked), |&status| Reply::again(status))
    });
    assert_ended(&home.pull(&server, &["tales/demo"]), 0, "answers 429; trying again in 0 s");
    assert_eq!(server.asked().len(), 9);
}

#[test]
fn two_pulls_at_once_download_once() {
    let home = Home::new();
    let (hub, heads) = (demo(), Arc::new((Mutex::new(0), Condvar::new())));
    // No byte before both processes have seen that the file is missing.
    let server = Server::new(move |asked| {
        let (count, changed) = &*heads;
        if asked.method == "HEAD" {
            *count.lock().unwrap() += 1;
            changed.notify_all();
        } else if asked.is_download() {
            let (count, limit) = (count.lock().unwrap(), Duration::from_secs(60));
            drop(changed.wait_timeout_while(count, limit, |count| *count < 2).unwrap());
        }
        hub.answer(asked)
    });
    let both = std::thread::scope(|scope| {
        let pull = || scope.spawn(|| home.pull(&server, &["tales/demo"]));
        [pull(), pull()].map(|pull| pull.join().unwrap())
    });
    for output in &both {
        assert_ended(output, 0, "");
    }
    assert_eq!(server.downloads(), [None]);
    assert_eq!(fs::read(stdout(&both[0]).trim_end()).unwrap(), DEMO);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_there_is() {
    use std::process::{Command, Stdio};

    let home = Home::new();
    let server = spoiled(|count, _, reply| match count {
        0 => Reply { slow: Some(500_000), ..reply },
        _ => reply,
    });
    let mut command = home.bitnet(&["pull", "tales/demo", "--endpoint", &server.url()]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let partial = home.repository().join("blobs").join(format!("{}.incomplete", sha256(DEMO)));
    while partial.metadata().map_or(0, |metadata| metadata.len()) < 500_000 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before");
        std::thread::yield_now();
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    assert_ended(&child.wait_with_output().unwrap(), 130, "interrupted");
    let args = ["run", "Once", "-m", "tales/demo"];
    assert_ended(&home.bitnet(&args).output().unwrap(), 3, "`bitnet pull tales/demo` goes on");
    let list = home.bitnet(&["list"]).output().unwrap();
    assert!(stdout(&list).contains("partial"), "{}", stdout(&list));
    assert_ended(&home.pull(&server, &["tales/demo"]), 0, "");
    assert!(server.downloads()[1].unwrap() >= 500_000);
}

#[test]
fn what_belongs_to_a_model_is_taken_and_nothing_else() {
    let shards = [
        ("chat_template.jinja", &b""[..]),
        ("config.json", b"{}"),
        ("generation_config.json", b"{}"),
        ("model-00001-of-00002.safetensors", b"first"),
        ("model-00002-of-00002.safetensors", b"second"),
        ("model.safetensors.index.json", b"{\"weight_map\": {}}"),
        ("tokenizer.json", b"{ }"),
    ];
    let others = [
        (".gitattributes", &b"x"[..]),
        ("README.md", b"x"),
        ("pytorch_model.bin", b"x"),
        ("onnx/model.safetensors", b"x"),
    ];
    let home = Home::new();
    let hub = Hub::new(shards.into_iter().chain(others));
    let server = Server::new(move |asked| hub.answer(asked));
    let output = home.pull(&server, &["tales/demo", "--revision", "refs/pr/1"]);
    assert_ended(&output, 0, "7 files");
    assert!(server.asked()[0].path.ends_with("/revision/refs%2Fpr%2F1"));
    let snapshot = home.repository().join("snapshots").join(COMMIT);
    assert_eq!(stdout(&output).trim_end(), snapshot.to_str().unwrap());
    let mut files: Vec<_> = below(&snapshot);
    files.sort();
    assert_eq!(files, shards.map(|(name, _)| snapshot.join(name)));
    for (name, bytes) in shards {
        assert_eq!(fs::read(snapshot.join(name)).unwrap(), bytes, "{name}");
    }
    assert_eq!(fs::read_to_string(home.repository().join("refs/refs/pr/1")).unwrap(), COMMIT);
}

#[test]
fn quantisations_and_parts_are_told_apart() {
    let files = [
        ("a-f16.gguf", &b"f16"[..]),
        ("a-i2_s-00001-of-00002.gguf", b"one"),
        ("a-i2_s-00002-of-00002.gguf", b"two"),
    ];
    let home = Home::new();
    let hub = Hub::new(files);
    let server = Server::new(move |asked| hub.answer(asked));
    assert_ended(&home.pull(&server, &["tales/demo"]), 2, "a-f16.gguf, a-i2_s-00001-of-00002.gguf");
    assert_ended(&home.pull(&server, &["tales/demo:q8_0"]), 3, "a-f16.gguf");
    let output = home.pull(&server, &["tales/demo:i2_s"]);
    assert_ended(&output, 0, "2 files");
    assert!(stdout(&output).trim_end().ends_with("a-i2_s-00001-of-00002.gguf"));
    assert_eq!(server.downloads().len(), 2);
}

#[test]
fn a_token_that_was_kept_is_used() {
    let home = Home::new();
    let server = spoiled(|_, _, reply| reply);
    fs::write(home.0.path().join("token"), "hf_kept\n").unwrap();
    let mut command = home.bitnet(&["pull", "tales/demo"]);
    let output = command.env("HF_ENDPOINT", server.url() + "/").output().unwrap();
    assert_ended(&output, 0, "");
    let tokens: Vec<_> = server.asked();
    assert!(tokens.iter().all(|asked| asked.header("authorization") == Some("Bearer hf_kept")));
    assert!(!stderr(&output).contains("hf_kept"));
}
