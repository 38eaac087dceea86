//! `bitnet serve`, as clients meet it: over a socket, byte by byte where that matters.

mod answers;
mod begins;
mod errors;
mod faults;
#[cfg(unix)]
mod signals;
mod streams;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::{bitnet, program};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/bitnet-tales-i2_s.gguf");
/// Longer than anything takes; what comes later will never come.
const PATIENCE: Duration = Duration::from_secs(120);
/// The beginning of a tale, and how it goes on where always the likeliest token is taken.
const ONCE: &str = "Once upon a time";
const STORY: &str = " there lived a king who had three sons";

/// A server of its own, which ends with the test.
struct Server {
    child: Child,
    address: String,
    /// Lines on stderr, from the one that says that it is ready.
    lines: Mutex<Receiver<String>>,
}

impl Server {
    /// With the demo model.
    fn start(args: &[&str]) -> Server {
        let server = Server::listening(args, "none");
        server.line("is ready");
        server
    }

    /// With the demo model, which has forgotten how long texts may be: with `ignore_eos` they go on for longer than
    /// any test.
    fn tireless(args: &[&str]) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tireless");
        let path = path.to_str().unwrap();
        assert!(
            bitnet().args(["convert", DEMO, path, "--to", "hf"]).output().unwrap().status.success()
        );
        let config = format!("{path}/config.json");
        let text = std::fs::read_to_string(&config).unwrap();
        let mut values: Value = serde_json::from_str(&text).unwrap();
        values["max_position_embeddings"] = 100_000.into();
        std::fs::write(&config, values.to_string()).unwrap();
        let own = ["-m", path, "--alias", "bitnet-tales", "--chat-template", "plain"];
        Server::start(&[&own, args].concat())
    }

    /// As soon as it listens. What it is to know of this machine comes from `tuning`.
    fn listening(args: &[&str], tuning: &str) -> Server {
        let mut command = Command::new(program());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BITNET_")) {
            command.env_remove(name);
        }
        command.env("BITNET_TUNING", tuning).args(["serve", "--threads", "1"]);
        if !args.contains(&"--port") {
            command.args(["--port", "0"]);
        }
        let command = command.args(args).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // The test may be through.
                let _ = sender.send(line);
            }
        });
        let mut server = Server { child, address: String::new(), lines: Mutex::new(lines) };
        let line = server.line("listening on http://");
        server.address = line.split("http://").nth(1).unwrap().to_owned();
        server
    }

    /// The next line on stderr with this in it.
    fn line(&self, with: &str) -> String {
        loop {
            let line = self.lines.lock().unwrap().recv_timeout(PATIENCE).expect(with);
            if line.contains(with) {
                return line;
            }
        }
    }

    /// A connection.
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request, and gives the connection.
    fn send(&self, head: &str, headers: &[&str], body: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let mut request = format!("{head} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|header| header.starts_with("host:")) {
            request += &format!("host: {}\r\n", self.address);
        }
        for header in headers {
            request += &format!("{header}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all(request.as_bytes()).unwrap();
        // A server that has heard enough may already have answered.
        let _ = stream.write_all(body);
        stream
    }

    fn ask(&self, head: &str, headers: &[&str], body: &[u8]) -> Answer {
        Answer::read(&mut self.send(head, headers, body))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], b"")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(&format!("POST {path}"), &[], body.to_string().as_bytes())
    }

    /// Begins a stream, and gives what comes of it.
    fn stream(&self, path: &str, body: &Value) -> Lines {
        Lines(BufReader::new(self.send(&format!("POST {path}"), &[], body.to_string().as_bytes())))
    }

    /// A figure of `/metrics`, by its name and labels without that of the model.
    fn figure(&self, name: &str, labels: &str) -> f64 {
        let comma = if labels.is_empty() { "" } else { "," };
        let metrics = self.get("/metrics").text;
        let begin = format!("bitnet_{name}{{model_name=\"bitnet-tales\"{comma}{labels}}} ");
        let line = metrics.lines().find(|line| line.starts_with(&begin));
        line.expect(&begin)[begin.len()..].parse().unwrap()
    }

    /// Waits until a figure has a value.
    fn wait_for(&self, name: &str, labels: &str, value: f64) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.figure(name, labels) == value {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{name} is {}, not {value}", self.figure(name, labels));
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// Waits for its end, and gives the exit code.
    #[cfg(unix)]
    fn end(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    text: String,
}

impl Answer {
    /// Reads to the end of the connection.
    fn read(stream: &mut TcpStream) -> Answer {
        let mut bytes = Vec::new();
        // A connection that is reset has ended, too: what came is there.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header =
            |line: &str| line.split_once(": ").map(|(a, b)| (a.to_lowercase(), b.to_owned()));
        let headers: Vec<_> = lines.filter_map(header).collect();
        let mut answer = Answer { status, headers, text: String::new() };
        let body = &bytes[end + 4..];
        let body = match answer.header("transfer-encoding") {
            Some("chunked") => dechunked(body),
            _ => body.to_vec(),
        };
        answer.text = String::from_utf8(body).unwrap();
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| &**value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|why| panic!("{why}: {}", self.text))
    }

    /// The body of a success.
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    /// Type, code and param of the error, whose message there is.
    fn error(&self) -> (String, String, Value) {
        let error = &self.json()["error"];
        let message = error["message"].as_str();
        assert!(message.is_some_and(|text| !text.is_empty()), "{} {}", self.status, self.text);
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (text("type"), text("code"), error["param"].clone())
    }
}

/// A body that came in chunks, to its very end.
fn dechunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|window| window == b"\r\n").expect("a chunk");
        let size = usize::from_str_radix(str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        body = &body[end + 2..];
        if size == 0 {
            assert_eq!(body, b"\r\n", "what is behind the last chunk");
            return whole;
        }
        whole.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}

/// A stream, line by line as it comes.
struct Lines(BufReader<TcpStream>);

impl Lines {
    /// The data of the next event; nothing at the end.
    fn next(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.0.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(data.trim_end().to_owned());
            }
        }
    }

    /// Those that are left.
    fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Goes away without a word.
    fn leave(self) {
        self.0.into_inner().shutdown(Shutdown::Both).unwrap();
    }
}
