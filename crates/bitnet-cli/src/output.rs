//! What goes to stdout.

use std::io::{self, Write};

use anyhow::{Context, Result};
use serde::Serialize;

/// Writes at once; false if nobody reads any more.
pub(crate) fn print(out: &mut impl Write, text: &str) -> Result<bool> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to stdout"),
    }
}

/// Prints a report: as one line of JSON, or for people.
pub(crate) fn report(
    report: &impl Serialize,
    json: bool,
    text: impl FnOnce() -> String,
) -> Result<()> {
    let text = if json { serde_json::to_string(report)? + "\n" } else { text() };
    print(&mut io::stdout(), &text).map(|_| ())
}
