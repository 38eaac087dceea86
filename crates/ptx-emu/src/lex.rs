//! PTX text to words and marks.

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    /// A word: a name, directive, opcode or number; or one mark.
    pub(crate) text: &'a str,
    /// From 1.
    pub(crate) line: usize,
}

/// Whether names, opcodes and numbers have this in them.
fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$' | '%')
}

/// Bytes of the word that a text begins with. It may have parts, as `shared::cta`.
fn word(text: &str) -> usize {
    let end = text.find(|c| !in_word(c)).unwrap_or(text.len());
    match text[end..].strip_prefix("::") {
        Some(rest) => end + 2 + word(rest),
        None => end,
    }
}

/// The text without comments, cut up.
pub(crate) fn lex(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut in_comment = false;
    for (index, whole) in text.lines().enumerate() {
        let mut rest = whole;
        while let Some(c) = rest.chars().next() {
            if in_comment {
                in_comment = !rest.starts_with("*/");
                rest = &rest[if in_comment { c.len_utf8() } else { 2 }..];
                continue;
            }
            if rest.starts_with("//") {
                break;
            }
            if rest.starts_with("/*") {
                in_comment = true;
                rest = &rest[2..];
                continue;
            }
            let length = match c {
                '"' => rest[1..].find('"').map_or(rest.len(), |end| end + 2),
                c if in_word(c) => word(rest),
                '-' => 1 + rest[1..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - 1),
                c => c.len_utf8(),
            };
            if !c.is_whitespace() {
                tokens.push(Token { text: &rest[..length], line: index + 1 });
            }
            rest = &rest[length..];
        }
    }
    tokens
}
