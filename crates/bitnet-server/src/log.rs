//! Lines on stderr: one for each request, and what goes wrong later.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use serde::Serialize;

/// Lines that wait for whoever reads stderr; more are lost, and counted.
const WAITING: usize = 1024;
/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);

/// Whether there are lines for requests, and how they look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Log {
    /// There are none.
    Off,
    /// For people.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

/// What a line says.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'l> {
    pub(crate) method: &'l str,
    pub(crate) route: &'l str,
    pub(crate) status: u16,
    /// To the beginning of the answer.
    pub(crate) milliseconds: f64,
    pub(crate) id: &'l str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'l str>,
    /// The same in words, where it is the server's fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<&'l str>,
}

enum Entry {
    Text(String),
    /// Asks for a sign that all before it is written.
    Flush(SyncSender<()>),
}

/// Writes lines in a thread of its own: who does not read them holds nobody up.
pub(crate) struct Logger {
    log: Log,
    to: SyncSender<Entry>,
    lost: AtomicU64,
}

impl Logger {
    pub(crate) fn new(log: Log) -> io::Result<Logger> {
        let (to, entries) = mpsc::sync_channel(WAITING);
        let write = move || {
            for entry in entries {
                match entry {
                    // That nobody reads it is no failure.
                    Entry::Text(text) => drop(io::stderr().write_all(text.as_bytes())),
                    Entry::Flush(done) => drop(done.send(())),
                }
            }
        };
        thread::Builder::new().name("bitnet-log".into()).spawn(write)?;
        Ok(Logger { log, to, lost: AtomicU64::new(0) })
    }

    /// A line about a request.
    pub(crate) fn line(&self, line: &Line<'_>) {
        let text = match self.log {
            Log::Off => return,
            Log::Text => {
                let Line { method, route, status, milliseconds, id, code, message } = line;
                let why = [*code, *message].into_iter().flatten();
                let why: String = why.map(|why| format!(" {why}")).collect();
                format!("{method} {route} {status} {milliseconds:.1} ms {id}{why}\n")
            }
            Log::Json => match serde_json::to_string(line) {
                Ok(json) => json + "\n",
                Err(_) => return,
            },
        };
        self.say(text);
    }

    /// That an answer failed which had begun.
    pub(crate) fn failed(&self, code: Option<&str>, message: &str) {
        let code = code.unwrap_or_default();
        match self.log {
            Log::Json => {
                self.say(serde_json::json!({ "code": code, "message": message }).to_string() + "\n")
            }
            Log::Off | Log::Text => {
                self.say(format!("an answer that had begun failed: {code} {message}\n"))
            }
        }
    }

    fn say(&self, text: String) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let text = match lost {
            0 => text,
            lost => format!("{lost} lines are missing here\n{text}"),
        };
        if let Err(TrySendError::Full(_)) = self.to.try_send(Entry::Text(text)) {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    /// Waits a little until all is written.
    pub(crate) fn flush(&self) {
        let (done, written) = mpsc::sync_channel(1);
        if self.to.try_send(Entry::Flush(done)).is_ok() {
            let _ = written.recv_timeout(LAST);
        }
    }
}
