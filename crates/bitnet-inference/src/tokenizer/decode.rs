//! Decoding token by token.

use super::Tokenizer;

/// Turns tokens into text as they come, and never gives out half a character: a token may end
/// inside one, and its bytes then wait for the next.
///
/// All that [`push`](Self::push) and [`finish`](Self::finish) gave out, joined, is what
/// [`Tokenizer::decode`] makes of all ids.
///
/// ```
/// # use bitnet_inference::tokenizer::Tokenizer;
/// fn print(tokenizer: &Tokenizer, ids: &[u32]) {
///     let mut stream = tokenizer.stream();
///     for &id in ids {
///         print!("{}", stream.push(id));
///     }
///     println!("{}", stream.finish());
/// }
/// ```
#[derive(Debug)]
pub struct Stream<'a> {
    tokenizer: &'a Tokenizer,
    /// The bytes of a character not yet complete, three at most; during `push`, those of the new
    /// token after them.
    bytes: Vec<u8>,
    /// What the last `push` gave out.
    text: String,
    /// A space is taken from the text, which has not begun yet.
    strip: bool,
}

impl<'a> Stream<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer, strip: bool) -> Self {
        Self { tokenizer, bytes: Vec::new(), text: String::new(), strip }
    }

    /// Takes the next token and gives out the text that is now complete, which may be none. Bytes
    /// that can no longer become a character are given out as U+FFFD, as
    /// [`String::from_utf8_lossy`] would have it.
    pub fn push(&mut self, id: u32) -> &str {
        let mut bytes = self.tokenizer.bytes(id).unwrap_or_default();
        if self.strip && !bytes.is_empty() {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
            self.strip = false;
        }
        self.bytes.extend_from_slice(bytes);
        self.text.clear();
        let mut taken = 0;
        for chunk in self.bytes.utf8_chunks() {
            self.text.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            let unfinished = taken + invalid.len() == self.bytes.len()
                && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if !invalid.is_empty() && !unfinished {
                self.text.push(char::REPLACEMENT_CHARACTER);
                taken += invalid.len();
            }
        }
        self.bytes.drain(..taken);
        &self.text
    }

    /// Ends the text: U+FFFD if it stopped inside a character, else nothing.
    pub fn finish(self) -> &'static str {
        if self.bytes.is_empty() { "" } else { "\u{FFFD}" }
    }
}
