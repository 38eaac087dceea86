//! Cuts text into the pieces that are encoded on their own.
//!
//! Vocabularies are trained on pieces cut by regular expressions, and a text must be cut the same
//! way. The expressions are followed by hand here (`words.rs`, `class.rs`): without backtracking,
//! so that no text takes more than linear time, and without a regular-expression engine.

mod class;
#[cfg(test)]
mod tests;
mod words;

use std::str::FromStr;

use super::TokenizerError;
use class::{Class, is_punctuation};

/// How a text is cut into pieces: by each stage in turn, which cuts the pieces of the one before.
/// What the expression of a stage does not match stays a piece of its own.
///
/// Two splitters are equal if they have the same stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splitter {
    stages: Vec<Stage>,
    /// These follow, and may cut inside a character.
    byte_stages: Vec<ByteStage>,
}

/// What cuts text at the bounds of characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Llama 3's expression; of its alternatives the first that matches is taken, here and in the
    /// others:
    ///
    /// ```text
    /// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
    ///  ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    /// ```
    Llama3 {
        /// The most digits in a piece: 3 for Llama 3, 1 for Qwen 2.
        digits: usize,
    },
    /// GPT-2's expression:
    ///
    /// ```text
    /// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
    /// ```
    ///
    /// llama.cpp leaves out the last alternative. It only ever matches one character of white
    /// space, which is a piece of its own in either case.
    Gpt2,
    /// `` [\p{P}\$\+<=>\^~\|`]+ ``, or one character of these.
    Punctuation {
        /// One character is a piece, not all that stand side by side.
        single: bool,
    },
    /// `[\p{P}\$\+<=>\^~\|]+`, which is [`Self::Punctuation`] without the backtick.
    PunctuationButBacktick,
    /// `\p{N}+`, or `\p{N}`.
    Numbers {
        /// One character is a piece, not all that stand side by side.
        single: bool,
    },
}

/// What cuts bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteStage {
    /// `[0-9]`.
    Digit,
    /// `[0-9][0-9][0-9]`.
    ThreeDigits,
    /// `\p{N}+` or `\p{N}` of the text as it is spelled in GPT-2's alphabet: beside digits these
    /// are the bytes B2, B3, B9, BC, BD and BE, whatever character they are part of, as they are
    /// spelled `²³¹¼½¾`. It is what `Digits` after `ByteLevel` does in a `tokenizer.json`.
    SpelledNumbers {
        /// One byte is a piece, not all that stand side by side.
        single: bool,
    },
}

impl Splitter {
    /// Llama 3 (GGUF: `llama-bpe`).
    pub fn llama3() -> Self {
        Self::of(&[Stage::Llama3 { digits: 3 }], &[])
    }

    /// Qwen 2 and 3 (GGUF: `qwen2`): as Llama 3, but each digit is a piece.
    pub fn qwen2() -> Self {
        Self::of(&[Stage::Llama3 { digits: 1 }], &[])
    }

    /// GPT-2 (GGUF: `gpt-2`).
    pub fn gpt2() -> Self {
        Self::of(&[Stage::Gpt2], &[])
    }

    /// What llama.cpp does with a byte-level vocabulary whose splitter is not named (GGUF:
    /// `default`): punctuation without the backtick, words, numbers, three digits.
    pub fn unnamed() -> Self {
        let numbers = Stage::Numbers { single: false };
        Self::of(&[Stage::PunctuationButBacktick, Stage::Gpt2, numbers], &[ByteStage::ThreeDigits])
    }

    /// Falcon 7B and 40B, as llama.cpp has them (GGUF: `falcon`): punctuation, words, three digits.
    pub fn falcon() -> Self {
        Self::of(&[Stage::Punctuation { single: false }, Stage::Gpt2], &[ByteStage::ThreeDigits])
    }

    /// Falcon 3 and Falcon-E (GGUF: `falcon3`, `falcon_e`): punctuation, words, digits.
    ///
    /// It rests on the llama.cpp of bitnet.cpp, whose support for these models came from their
    /// makers. Other programs cut them as Llama 3, which they were not trained with.
    pub fn falcon3() -> Self {
        Self::of(&[Stage::Punctuation { single: false }, Stage::Gpt2], &[ByteStage::Digit])
    }

    /// The name that GGUF has for it, if it has one.
    pub(crate) fn name(&self) -> Option<&'static str> {
        let names = ["llama-bpe", "qwen2", "gpt-2", "default", "falcon", "falcon3"];
        names.into_iter().find(|name| name.parse().is_ok_and(|known: Splitter| known == *self))
    }

    pub(super) fn of(stages: &[Stage], byte_stages: &[ByteStage]) -> Self {
        Self { stages: stages.to_vec(), byte_stages: byte_stages.to_vec() }
    }

    /// What cuts text, and what cuts bytes after that.
    pub(super) fn stages(&self) -> (&[Stage], &[ByteStage]) {
        (&self.stages, &self.byte_stages)
    }

    /// Gives the pieces of `text` to `take`, in order; joined, they are the text.
    pub(super) fn pieces(&self, text: &str, mut take: impl FnMut(&[u8])) {
        cut(&self.stages, text, str::split_at, &mut |piece| {
            cut(&self.byte_stages, piece.as_bytes(), <[u8]>::split_at, &mut take);
        });
    }
}

impl FromStr for Splitter {
    type Err = TokenizerError;

    /// The splitter that GGUF's `tokenizer.ggml.pre` names.
    fn from_str(name: &str) -> Result<Self, TokenizerError> {
        Ok(match name {
            "llama-bpe" | "llama3" | "llama-v3" => Self::llama3(),
            "qwen2" => Self::qwen2(),
            "gpt-2" => Self::gpt2(),
            "default" => Self::unnamed(),
            "falcon" => Self::falcon(),
            "falcon3" | "falcon_e" | "falcon-e" => Self::falcon3(),
            _ => return Err(TokenizerError::UnknownSplitter { name: name.to_owned() }),
        })
    }
}

/// What cuts a text, or bytes.
trait Cut<T: ?Sized> {
    /// The length in bytes of the first piece of a text that is not empty.
    fn first_len(&self, text: &T) -> usize;
}

/// Cuts `text` by the first stage, the pieces by the other stages, and gives the pieces to `take`.
fn cut<T: ?Sized + AsRef<[u8]>, S: Cut<T>>(
    stages: &[S],
    text: &T,
    split_at: fn(&T, usize) -> (&T, &T),
    take: &mut dyn FnMut(&T),
) {
    let Some((stage, later)) = stages.split_first() else { return take(text) };
    let mut rest = text;
    while !rest.as_ref().is_empty() {
        let (piece, after) = split_at(rest, stage.first_len(rest));
        cut(later, piece, split_at, take);
        rest = after;
    }
}

impl Cut<str> for Stage {
    fn first_len(&self, text: &str) -> usize {
        let chars = |of: &dyn Fn(char) -> bool, single| {
            alternating(text.char_indices().map(|(at, c)| (at, of(c))), text.len(), single)
        };
        match *self {
            Self::Llama3 { digits } => words::llama3(text, digits),
            Self::Gpt2 => words::gpt2(text),
            Self::Punctuation { single } => chars(&is_punctuation, single),
            Self::PunctuationButBacktick => chars(&|c| c != '`' && is_punctuation(c), false),
            Self::Numbers { single } => chars(&|c| Class::of(c) == Class::Number, single),
        }
    }
}

impl Cut<[u8]> for ByteStage {
    fn first_len(&self, bytes: &[u8]) -> usize {
        let each = |of: fn(&u8) -> bool, single| {
            alternating(bytes.iter().map(of).enumerate(), bytes.len(), single)
        };
        match *self {
            Self::Digit => each(u8::is_ascii_digit, true),
            Self::ThreeDigits => {
                let three = |three: &[u8; 3]| three.iter().all(u8::is_ascii_digit);
                match bytes.array_windows().position(three) {
                    Some(0) => 3,
                    Some(start) => start,
                    None => bytes.len(),
                }
            }
            Self::SpelledNumbers { single } => each(
                |byte| byte.is_ascii_digit() || matches!(byte, 0xb2 | 0xb3 | 0xb9 | 0xbc..=0xbe),
                single,
            ),
        }
    }
}

/// The length of the first piece of a text of `len` bytes whose pieces are what matches and what
/// does not. `marks` are its parts: where each begins and whether it matches. If `single`, each
/// that matches is a piece.
fn alternating(mut marks: impl Iterator<Item = (usize, bool)>, len: usize, single: bool) -> usize {
    let Some((_, first)) = marks.next() else { return len };
    let end = marks.find(|&(_, matches)| matches != first || (first && single));
    end.map_or(len, |(at, _)| at)
}
