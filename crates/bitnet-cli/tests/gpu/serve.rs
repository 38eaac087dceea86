//! `bitnet serve` and `bitnet bench` on several GPUs, and who takes only one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use fake_cuda::cases::{Library, folder};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{bitnet, run, stderr};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server with the demo model, which ends with the test.
struct Server {
    child: Child,
    address: String,
    _driver: TempDir,
}

impl Server {
    fn start(config: &str, device: &str) -> Server {
        let driver = folder(Library::Fake);
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
        command.env("LD_LIBRARY_PATH", driver.path()).env("BITNET_FAKE_CUDA", config);
        command.env("BITNET_TUNING", "none").args(["serve", "--port", "0", "--threads", "1"]);
        command.args(["-c", "256", "--parallel", "1", "--device", device]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let listening = lines.find(|line| line.contains("listening on http://")).unwrap();
        let address = listening.split("http://").nth(1).unwrap().to_owned();
        assert!(lines.any(|line| line.contains("is ready")), "{config}");
        // Nobody reads the rest, and it must not be waited for.
        thread::spawn(move || lines.for_each(drop));
        Server { child, address, _driver: driver }
    }

    /// The status and the body of an answer.
    fn ask(&self, head: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let (host, length) = (&self.address, body.len());
        let rest = format!("host: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(format!("{head} HTTP/1.1\r\n{rest}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.ask(&format!("GET {path}"), "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// How some prompts go on, which are asked for at the same time.
    fn continue_all(&self, prompts: &[&str]) -> Vec<String> {
        let one = |prompt: &&str| {
            let body = json!({ "prompt": prompt, "max_tokens": 5, "temperature": 0 });
            let (status, body) = self.ask("POST /v1/completions", &body.to_string());
            assert_eq!(status, 200, "{body}");
            let answer: Value = serde_json::from_str(&body).unwrap();
            answer["choices"][0]["text"].as_str().unwrap().to_owned()
        };
        thread::scope(|scope| {
            let asked: Vec<_> =
                prompts.iter().map(|prompt| scope.spawn(move || one(prompt))).collect();
            asked.into_iter().map(|answer| answer.join().unwrap()).collect()
        })
    }

    /// A figure of a device, or of all.
    fn figure(&self, name: &str, device: Option<&str>) -> f64 {
        let label = device.map_or(String::new(), |device| format!(",device=\"{device}\""));
        let begin = format!("bitnet_{name}{{model_name=\"bitnet-tales\"{label}}} ");
        let (_, text) = self.ask("GET /metrics", "");
        let line = text.lines().find(|line| line.starts_with(&begin));
        line.expect(&begin)[begin.len()..].parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROMPTS: [&str; 4] = ["Once upon a time", "The fox ran", "A king had", "In the wood"];

#[test]
fn several_devices_answer_together() {
    let expected = Server::start("", "cpu").continue_all(&PROMPTS);
    assert!(expected.iter().all(|text| !text.is_empty()), "{expected:?}");
    let mut server = Server::start("devices=2", "cuda:all");
    assert_eq!(server.continue_all(&PROMPTS), expected);
    let told = json!({ "status": "ok", "devices": { "cuda:0": "ok", "cuda:1": "ok" } });
    assert_eq!((server.json("/health"), server.json("/livez")), (told.clone(), told));
    assert_eq!(server.json("/props")["total_slots"], json!(2));
    let name = "device_generation_tokens_total";
    let each = ["cuda:0", "cuda:1"].map(|device| server.figure(name, Some(device)));
    assert!(each.iter().all(|tokens| *tokens > 0.0), "{each:?}");
    assert_eq!(each[0] + each[1], server.figure("generation_tokens_total", None));
    assert_eq!(server.figure("requests_running", None), 0.0);

    let body = json!({ "input": ["A fox", "The king"] }).to_string();
    let (status, found) = server.ask("POST /v1/embeddings", &body);
    assert_eq!(status, 200, "{found}");
    // It ends in order.
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_device_that_fails_is_told() {
    let expected = Server::start("", "cpu").continue_all(&PROMPTS);
    let server = Server::start("devices=2 fail=cuGraphLaunch@1:2:700", "cuda:0,1");
    assert_eq!(server.continue_all(&PROMPTS), expected);
    let told = json!({ "status": "ok", "devices": { "cuda:0": "ok", "cuda:1": "failed" } });
    assert_eq!(server.json("/health"), told);
    let failed = ["cuda:0", "cuda:1"].map(|device| server.figure("device_failed", Some(device)));
    assert_eq!(failed, [0.0, 1.0]);
}

#[test]
fn lists_of_devices_are_for_who_has_work_for_several() {
    for (device, said) in [
        ("cuda:0,1", "is several devices"),
        ("cuda:all", "is several devices"),
        ("cuda:0,0", "cuda:0 is there twice"),
        ("cuda:0,x", "is no device"),
    ] {
        let output = run(Library::Fake, "devices=2", device);
        assert_eq!(output.status.code(), Some(2), "{device}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{device}: {}", stderr(&output));
    }
    let serve = ["serve", "--port", "0", "--device"];
    for (library, config, device, said) in [
        (Library::Fake, "devices=2", "cuda:0,7", "there is no cuda:7"),
        (Library::Nothing, "", "cuda:all", "no NVIDIA driver"),
    ] {
        let output = bitnet(library, config, &[&serve[..], &[device]].concat());
        assert_eq!(output.status.code(), Some(2), "{device}: {}", stderr(&output));
        assert!(stderr(&output).contains(said), "{device}: {}", stderr(&output));
    }
}

#[test]
fn speed_is_that_of_all_devices() {
    let args = ["bench", "-p", "5", "-n", "0", "-r", "1", "-o", "json", "--device", "cuda:0,1"];
    let output = bitnet(Library::Fake, "devices=2", &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found[0]["backend"], json!("CUDA Fake GPU 0 + Fake GPU 1"));
    let seconds = found[0]["samples_ns"][0].as_f64().unwrap() / 1e9;
    let speed = found[0]["samples_ts"][0].as_f64().unwrap();
    assert!((speed * seconds - 10.0).abs() < 1e-3, "{found}");
}
