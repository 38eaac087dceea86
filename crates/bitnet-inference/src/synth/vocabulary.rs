//! A byte-level vocabulary of any size: the bytes, made-up words, and two control tokens.

use bitnet_gguf::{Array, Writer};

use crate::tokenizer::{TokenType, spelling};

/// The smallest vocabulary: bytes, begin and end.
pub(super) const LEAST: usize = 258;

/// Two-letter words, which merge from letters.
const PAIRS: usize = 26 * 26;

/// Adds a tokenizer of `size` tokens, at least [`LEAST`].
pub(super) fn write(writer: Writer<'_>, size: usize) -> Writer<'_> {
    let words = size - LEAST;
    let tokens: Vec<String> = (0..=u8::MAX)
        .map(|byte| spelling(byte).to_string())
        .chain((0..words).map(token))
        .chain(["<|begin_of_text|>", "<|end_of_text|>"].map(str::to_owned))
        .collect();
    let merges: Vec<String> = (0..words.min(PAIRS))
        .map(word)
        .map(|pair| format!("{} {}", &pair[..1], &pair[1..]))
        .collect();
    let kind = |id| if id < size - 2 { TokenType::Normal } else { TokenType::Control };
    let strings = |list: &[String]| list.iter().map(String::as_str).collect::<Array>();
    writer
        .metadata("tokenizer.ggml.model", "gpt2")
        .metadata("tokenizer.ggml.pre", "llama-bpe")
        .metadata("tokenizer.ggml.tokens", strings(&tokens))
        .metadata(
            "tokenizer.ggml.token_type",
            (0..size).map(|id| kind(id) as i32).collect::<Array>(),
        )
        .metadata("tokenizer.ggml.merges", strings(&merges))
        .metadata("tokenizer.ggml.bos_token_id", size as u32 - 2)
        .metadata("tokenizer.ggml.eos_token_id", size as u32 - 1)
        .metadata("tokenizer.ggml.add_bos_token", true)
}

/// The spelling of a word as a token: longer ones come with a space before them.
fn token(n: usize) -> String {
    if n < PAIRS { word(n) } else { format!("{}{}", spelling(b' '), word(n)) }
}

/// Word `n` of "aa", "ab", ..., "zz", "aaa", ...
fn word(n: usize) -> String {
    // Numbers without a zero: digits from 1 to 26, and 27 is the first of two digits.
    let mut left = n + 27;
    let mut letters = Vec::new();
    while left > 0 {
        left -= 1;
        letters.push(char::from(b'a' + (left % 26) as u8));
        left /= 26;
    }
    letters.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_go_on_without_repeating() {
        assert_eq!([0, 1, 26, 675].map(word), ["aa", "ab", "ba", "zz"]);
        assert_eq!([676, 677, 676 + 17_575].map(word), ["aaa", "aab", "zzz"]);
        assert_eq!(token(676 + 17_576), "Ġaaaa");
    }
}
