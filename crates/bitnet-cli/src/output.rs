//! What goes to stdout.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

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

/// Whether a file can be written, or be replaced by another. What is in it stays.
pub(crate) fn can_write(path: &Path) -> io::Result<()> {
    if path.exists() {
        return OpenOptions::new().append(true).open(path).map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::tempfile_in(folder.unwrap_or(Path::new("."))).map(drop)
}

/// A text with its control characters as escapes, but for ends of lines: what files are called and what
/// is in them must not move the cursor.
pub(crate) fn plain(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' | '\t' => vec![c],
        _ if c.is_control() => c.escape_debug().collect(),
        _ => vec![c],
    };
    text.chars().flat_map(escape).collect()
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
