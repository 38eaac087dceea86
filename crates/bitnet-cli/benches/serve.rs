//! `bitnet serve` under load: what 1, 8 and 64 clients get, and whether memory stays where it is.
//!
//! `cargo bench -p bitnet-cli --bench serve -- [--smoke] [--threads=N] [--slots=N] [MODEL]`. Clients are threads of this
//! process, on the same machine and processors as the server.
#![expect(clippy::unwrap_used, reason = "a failure ends the measurement")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

/// Tokens of an answer.
const TOKENS: usize = 64;
/// Requests that memory is watched over, and how often.
const REQUESTS: usize = 10_000;
const LOOKS: usize = 5;

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(threads: &str, slots: &str, model: Option<&str>) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitnet"));
        command.args(["serve", "--port", "0", "--access-log", "none", "--no-cache-prompt"]);
        command.args(["--threads", threads, "--parallel", slots, "--max-queue", "1024"]);
        command.args(model.iter().flat_map(|model| ["-m", *model]));
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        for line in &mut lines {
            if let Some((_, found)) = line.split_once("listening on http://") {
                address = found.to_owned();
            }
            if line.contains("is ready") {
                break;
            }
        }
        assert!(!address.is_empty(), "the server did not start");
        // What else it says is read, so that it can be said.
        thread::spawn(move || lines.for_each(drop));
        Server { child, address }
    }

    /// Memory that the process has, in MiB.
    fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.map_or(f64::NAN, |kib| kib / 1024.0)
    }

    /// Asks for a tale, and gives the times to its first token and to its end, and its tokens.
    fn ask(&self, seed: usize, tokens: usize) -> (Duration, Duration, usize) {
        // Prompts of different beginnings and lengths, as those of different people.
        let prompt = format!("{seed} years ago, {}there was a king", "far away, ".repeat(seed % 7));
        let body = format!(
            "{{\"prompt\": \"{prompt}\", \"max_tokens\": {tokens}, \"seed\": {seed}, \"stream\": true, \"ignore_eos\": true}}"
        );
        let start = Instant::now();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
        let length = body.len();
        stream
            .write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes())
            .unwrap();
        let (mut first, mut pieces, mut is_done) = (None, 0, false);
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let Some(data) = line.strip_prefix("data: ") else { continue };
            assert!(!data.contains("\"error\""), "{data}");
            is_done = data == "[DONE]";
            if !is_done {
                first.get_or_insert_with(|| start.elapsed());
                pieces += 1;
            }
        }
        assert!(is_done, "a request was lost");
        // The last one has no token.
        (first.unwrap(), start.elapsed(), pieces - 1)
    }

    /// Has so many clients ask so many requests, one after another each.
    fn load(
        &self,
        clients: usize,
        requests: usize,
        tokens: usize,
    ) -> Vec<(Duration, Duration, usize)> {
        let next = AtomicUsize::new(0);
        let one = || {
            let mut times = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= requests {
                    return times;
                }
                times.push(self.ask(seed, tokens));
            }
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..clients).map(|_| scope.spawn(one)).collect();
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value below which this share of them lies, in milliseconds.
fn quantile(sorted: &[Duration], share: f64) -> f64 {
    let at = (sorted.len() as f64 * share) as usize;
    sorted[at.min(sorted.len() - 1)].as_secs_f64() * 1e3
}

fn main() {
    let args: Vec<String> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let is_smoke = args.iter().any(|arg| arg == "--smoke");
    let value = |name: &str, other: &str| {
        let found = args.iter().find_map(|arg| arg.strip_prefix(name));
        found.unwrap_or(other).to_owned()
    };
    let (threads, slots) = (value("--threads=", "-1"), value("--slots=", "8"));
    let model = args.iter().find(|arg| !arg.starts_with("--"));
    let server = Server::start(&threads, &slots, model.map(String::as_str));
    println!("{} slots, answers of {TOKENS} tokens", slots);
    println!("clients  requests/s  tokens/s  first token ms: p50     p99  whole ms: p50     p99");
    for clients in [1, 8, 64] {
        let rounds = if is_smoke { 1 } else { 4 };
        let requests = if is_smoke { clients } else { (clients * rounds).max(32) };
        let start = Instant::now();
        let times = server.load(clients, requests, TOKENS);
        let all = start.elapsed().as_secs_f64();
        let mut firsts: Vec<_> = times.iter().map(|(first, ..)| *first).collect();
        let mut wholes: Vec<_> = times.iter().map(|(_, whole, _)| *whole).collect();
        firsts.sort();
        wholes.sort();
        let tokens: usize = times.iter().map(|(.., tokens)| tokens).sum();
        println!(
            "{clients:7}  {:10.2}  {:8.1}  {:19.1} {:7.1}  {:13.1} {:7.1}",
            requests as f64 / all,
            tokens as f64 / all,
            quantile(&firsts, 0.5),
            quantile(&firsts, 0.99),
            quantile(&wholes, 0.5),
            quantile(&wholes, 0.99),
        );
    }
    if model.is_none() {
        let requests = if is_smoke { LOOKS } else { REQUESTS };
        println!("memory after 0 of {requests} short requests: {:.1} MiB", server.memory());
        for look in 1..=LOOKS {
            server.load(8, requests / LOOKS, 4);
            println!("memory after {}: {:.1} MiB", look * requests / LOOKS, server.memory());
        }
    }
}
