//! Text that a command is given: in a file or on stdin.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::{Context, Result};
use bitnet_inference::read_text;

use crate::exit::Usage;

/// Bytes of a text at most.
const LONGEST: u64 = 1 << 30;

/// All of a file, as it is; `-` is stdin.
pub(crate) fn file(path: &Path) -> Result<String> {
    if path.to_str() == Some("-") {
        return stdin();
    }
    let text = File::open(path).and_then(|file| read_text(file, LONGEST));
    text.with_context(|| format!("cannot read {}", path.display()))
}

/// All of stdin, as it is.
pub(crate) fn stdin() -> Result<String> {
    read_text(io::stdin().lock(), LONGEST).context("cannot read stdin")
}

/// All of stdin, unless somebody would have to type it unasked.
pub(crate) fn piped(what: &str) -> Result<String> {
    if io::stdin().is_terminal() {
        return Err(Usage(what.to_owned()).into());
    }
    stdin()
}
