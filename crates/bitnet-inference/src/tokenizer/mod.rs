//! BPE tokenizers, byte-level and SentencePiece: text to token ids and back.
//!
//! [`Vocabulary`] holds what a model file says (`tokenizer.ggml.*` in GGUF; [`Vocabulary::from_json`]
//! reads a `tokenizer.json`); [`Tokenizer::new`] checks it once, so that encoding and decoding
//! cannot fail. A text is encoded in steps:
//!
//! 1. special tokens written in the text are found (`special.rs`), and what lies between them is
//!    normalised;
//! 2. byte-level (`byte_level.rs`): the text is cut into pieces, roughly words (`split/`), and each
//!    piece starts as single bytes. If the model says so (`ignore_merges` in `tokenizer.json`), a
//!    piece that is a token as a whole becomes that token (`table.rs`);
//! 3. SentencePiece (`sentence_piece.rs`): a space is put before the text, and the whole of it
//!    starts as single characters;
//! 4. neighbours are merged, in the order of the merge list or of the scores of tokens (`bpe.rs`).
//!
//! Decoding joins the bytes of the tokens (`decode.rs`). In the model file a byte-level token is
//! spelled in GPT-2's alphabet of printable characters, one per byte (`alphabet.rs`), and a
//! SentencePiece token with `▁` for a space; here both are bytes.

mod alphabet;
mod bpe;
mod byte_level;
mod decode;
mod error;
mod json;
#[cfg(test)]
pub(crate) mod samples;
mod sentence_piece;
mod special;
mod split;
mod table;
mod vocabulary;

pub(crate) use alphabet::spelling;
pub use decode::Stream;
pub use error::TokenizerError;
pub use json::TokenizerFiles;
pub(crate) use json::to_json;
pub use split::Splitter;
pub use vocabulary::{
    ByteLevel, MergeOrder, Model, SentencePiece, SpacePrefix, TokenType, Vocabulary,
};

use std::borrow::Cow;
use std::fmt;

use bpe::Work;
use byte_level::ByteLevelEncoder;
use sentence_piece::SentencePieceEncoder;
use special::{Part, SpecialTokens};
use table::TokenTable;

/// Control tokens that end a generation in the model families we know, whether or not the file
/// names them as such.
const END_TEXTS: [&str; 5] =
    ["<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>", "<end_of_turn>"];

/// What [`Tokenizer::encode`] does about special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Begin with the BOS token, if the model asks for it ([`Vocabulary::add_bos`]).
    pub bos: bool,
    /// End with the token that the model wants after a text ([`Vocabulary::suffix`]).
    pub suffix: bool,
    /// Read control tokens written in the text, such as `<|eot_id|>`, as those tokens. Without it
    /// they are text like any other, which is what text of unknown origin needs. User-defined
    /// tokens are read as tokens in either case.
    pub parse: bool,
}

impl Special {
    /// A whole prompt: the tokens around a text, control tokens read.
    pub const PROMPT: Self = Self { bos: true, suffix: true, parse: true };
    /// Nothing but text: no tokens around it, no control tokens.
    pub const TEXT: Self = Self { bos: false, suffix: false, parse: false };
}

/// Turns text into token ids and back.
pub struct Tokenizer {
    tokens: TokenTable,
    encoder: Encoder,
    /// Those found in the text as it is.
    special: SpecialTokens,
    /// Those found in the normalised text.
    special_normalized: SpecialTokens,
    /// What a text begins with if the caller wants it: `bos`, or nothing if the model does not ask
    /// for it.
    prefix: Option<u32>,
    /// What follows a text if the caller wants it.
    suffix: Option<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// The tokens that end a generation.
    ends: Vec<u32>,
    /// Whether decoding takes one space from the beginning of a text.
    strip: bool,
}

/// What turns text without special tokens into ids.
enum Encoder {
    ByteLevel(ByteLevelEncoder),
    SentencePiece(SentencePieceEncoder),
}

impl Tokenizer {
    /// Checks a vocabulary and builds the tables to encode and decode with.
    ///
    /// # Errors
    ///
    /// [`TokenizerError`] names what is wrong: types that are not as many as the tokens, an id
    /// outside the vocabulary, a byte that no token stands for, a text listed as two tokens, a
    /// merge that is not two tokens making a third, a score that is not a number.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        vocabulary.check()?;
        let tokens = TokenTable::new(&vocabulary)?;
        let special = SpecialTokens::new(&vocabulary, false)?;
        let special_normalized = SpecialTokens::new(&vocabulary, true)?;
        let named = vocabulary.eos.into_iter().chain(vocabulary.ends.iter().copied());
        let known = vocabulary
            .entries()
            .filter(|(_, text, kind)| *kind == TokenType::Control && END_TEXTS.contains(text))
            .map(|(id, _, _)| id);
        let ends = named.chain(known).collect();
        let (encoder, strip) = match &vocabulary.model {
            Model::ByteLevel(model) => {
                (Encoder::ByteLevel(ByteLevelEncoder::new(model, &tokens)?), false)
            }
            Model::SentencePiece(model) => {
                let encoder = SentencePieceEncoder::new(model, &vocabulary, &tokens)?;
                (Encoder::SentencePiece(encoder), model.strip)
            }
        };
        Ok(Self {
            tokens,
            encoder,
            special,
            special_normalized,
            prefix: vocabulary.bos.filter(|_| vocabulary.add_bos),
            suffix: vocabulary.suffix,
            bos: vocabulary.bos,
            eos: vocabulary.eos,
            ends,
            strip,
        })
    }

    /// The token ids of `text`.
    ///
    /// Time and memory are proportional to the length of the text, up to the logarithm of its
    /// longest piece.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        self.encode_without(None, text, special)
    }

    /// The token ids of a prompt with marks in it, which [`Tokenizer::mark`] puts where a control token
    /// is only text: control tokens are read, and the mark is taken out of the text between them. If the
    /// model wants texts to begin with BOS, this one does, once.
    pub(crate) fn encode_marked(&self, text: &str, mark: char) -> Vec<u32> {
        let special = Special { bos: false, suffix: false, parse: true };
        let mut ids = self.encode_without(Some(mark), text, special);
        if let Some(bos) = self.prefix.filter(|bos| ids.first() != Some(bos)) {
            ids.insert(0, bos);
        }
        ids
    }

    /// The text with a mark in each control token that is spelled in it, and in the beginning of one at
    /// its end, which what comes after it could complete.
    pub(crate) fn mark(&self, text: &str, mark: char) -> String {
        let specials = [&self.special, &self.special_normalized];
        let end = text.trim_end().len();
        let mut marked = String::with_capacity(text.len());
        for (at, c) in text.char_indices() {
            marked.push(c);
            if specials
                .iter()
                .any(|special| special.begins_control(&text[at..], &text[at.min(end)..end]))
            {
                marked.push(mark);
            }
        }
        marked
    }

    /// As [`Tokenizer::encode`], without the characters `mark` in the text between special tokens.
    fn encode_without(&self, mark: Option<char>, text: &str, special: Special) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut work = Work::default();
        ids.extend(self.prefix.filter(|_| special.bos));
        self.special.parts(text, special.parse, |part| match part {
            Part::Token(id) => ids.push(id),
            Part::Text(text, first) => {
                let text = self.normalize(text);
                self.special_normalized.parts(&text, special.parse, |part| match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text(text, also) => {
                        let text = match mark {
                            Some(mark) if text.contains(mark) => Cow::Owned(text.replace(mark, "")),
                            _ => Cow::Borrowed(text),
                        };
                        self.encode_text((&text, first && also), &mut work, &mut ids);
                    }
                });
            }
        });
        ids.extend(self.suffix.filter(|_| special.suffix));
        ids
    }

    fn normalize<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match &self.encoder {
            Encoder::ByteLevel(encoder) => encoder.normalize(text),
            Encoder::SentencePiece(encoder) => sentence_piece::normalize(encoder.prefix, text),
        }
    }

    /// Appends the ids of normalised text without special tokens. `first`: the whole text begins
    /// here.
    fn encode_text(&self, (text, first): (&str, bool), work: &mut Work, ids: &mut Vec<u32>) {
        match &self.encoder {
            Encoder::ByteLevel(encoder) => encoder.encode(&self.tokens, text, work, ids),
            Encoder::SentencePiece(encoder) => {
                encoder.encode(&self.tokens, (text, first), work, ids);
            }
        }
    }

    /// The bytes a token stands for: none for a control, unknown or unused token. They need not be
    /// whole characters.
    ///
    /// `None` if there is no such id.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.tokens.bytes(id)
    }

    /// The bytes by which a token is shown: those it stands for, or those of the text of a control or
    /// unknown token, which stands for none. An unused token has neither.
    ///
    /// `None` if there is no such id.
    pub fn piece(&self, id: u32) -> Option<&[u8]> {
        let bytes = self.bytes(id)?;
        let special = || self.special.text(id).or_else(|| self.special_normalized.text(id));
        Some(if bytes.is_empty() { special().map_or(bytes, str::as_bytes) } else { bytes })
    }

    /// The text of some tokens. Bytes that are not UTF-8 when all are joined become U+FFFD, as in
    /// [`String::from_utf8_lossy`]; an id outside the vocabulary stands for no text. If encoding
    /// put a space before the text, decoding takes it away.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().filter_map(|&id| self.bytes(id)).flatten().copied().collect();
        let text = bytes.strip_prefix(b" ").filter(|_| self.strip).unwrap_or(&bytes);
        String::from_utf8_lossy(text).into_owned()
    }

    /// Starts decoding a text token by token.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self, self.strip)
    }

    /// Starts decoding token by token what follows the text of `ids`, such as an answer after its
    /// prompt: a space at its beginning stays, if there is text before it.
    pub fn stream_after(&self, ids: &[u32]) -> Stream<'_> {
        let empty = ids.iter().all(|&id| self.bytes(id).unwrap_or_default().is_empty());
        Stream::new(self, self.strip && empty)
    }

    /// Whether a generation ends with this token: EOS, one of [`Vocabulary::ends`], or a control token
    /// that ends a text or a turn in the known model families (`<|eot_id|>`, `<|end_of_text|>`,
    /// `<|im_end|>`, `<|endoftext|>`, `<end_of_turn>`).
    pub fn is_end(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// The number of tokens; ids are below it.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a tokenizer has at least a token for each of the 256 bytes"
    )]
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The token a text begins with, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.len())
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}
