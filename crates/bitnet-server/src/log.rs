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
pub(crate) struct Request<'r> {
    pub(crate) method: &'r str,
    pub(crate) route: &'r str,
    pub(crate) status: u16,
    /// To the beginning of the answer.
    pub(crate) milliseconds: f64,
    pub(crate) id: &'r str,
}

impl Log {
    pub(crate) fn line(self, request: &Request<'_>) {
        let line = match self {
            Log::Off => return,
            Log::Text => {
                let Request { method, route, status, milliseconds, id } = request;
                format!("{method} {route} {status} {milliseconds:.1} ms {id}\n")
            }
            Log::Json => match serde_json::to_string(request) {
                Ok(json) => json + "\n",
                Err(_) => return,
            },
        };
        // That nobody reads it is no failure.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}
