//! Text of unknown length.

use std::io::{self, Read};

/// All of a text, unless it is longer than `longest` bytes: it may have no end.
///
/// # Errors
///
/// Where it cannot be read, is not UTF-8 or is longer.
pub fn read_text(from: impl Read, longest: u64) -> io::Result<String> {
    let mut text = String::new();
    if from.take(longest + 1).read_to_string(&mut text)? as u64 > longest {
        let what = format!("it is longer than {longest} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(text)
}
