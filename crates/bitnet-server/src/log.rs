//! A line on stderr for each request.

use std::io::{self, Write};

use serde::Serialize;

/// Whether there are such lines, and how they look.
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

impl Log {
    pub(crate) fn line(self, line: &Line<'_>) {
        let text = match self {
            Log::Off => return,
            Log::Text => {
                let Line { method, route, status, milliseconds, id, code, message } = line;
                let why: String =
                    [*code, *message].into_iter().flatten().map(|why| format!(" {why}")).collect();
                format!("{method} {route} {status} {milliseconds:.1} ms {id}{why}\n")
            }
            Log::Json => match serde_json::to_string(line) {
                Ok(json) => json + "\n",
                Err(_) => return,
            },
        };
        // That nobody reads it is no failure.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}
