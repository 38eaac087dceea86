//! Byte-level BPE tokenizer: text to token ids and back.
//!
//! [`Vocabulary`] holds what a model file says (`tokenizer.ggml.*` in GGUF); [`Tokenizer::new`]
//! checks it once, so that encoding and decoding cannot fail. A text is encoded in four steps:
//!
//! 1. special tokens written in the text are found (`special.rs`);
//! 2. what lies between them is cut into pieces, roughly words (`split/`);
//! 3. if the model says so (`ignore_merges` in `tokenizer.json`), a piece that is a token as a whole
//!    becomes that token (`table.rs`);
//! 4. any other piece starts as single bytes, which are merged pair by pair in the order of the
//!    merge list (`bpe.rs`).
//!
//! Decoding joins the bytes of the tokens (`decode.rs`). In the model file a token is spelled in
//! GPT-2's alphabet of printable characters, one per byte (`alphabet.rs`); here it is bytes.

mod alphabet;
mod bpe;
mod decode;
mod error;
mod special;
mod split;
mod table;
mod vocabulary;

pub(crate) use alphabet::spelling;
pub use decode::Stream;
pub use error::TokenizerError;
pub use split::Splitter;
pub use vocabulary::{ByteLevel, Model, TokenType, Vocabulary};

use std::borrow::Cow;
use std::fmt;

use bpe::{Bpe, Work};
use special::SpecialTokens;
use table::TokenTable;
use unicode_normalization::UnicodeNormalization;

/// Control tokens that end a generation in the model families we know, whether or not the file
/// names them as such.
const END_TEXTS: [&str; 4] = ["<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"];

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
    bpe: Bpe,
    special: SpecialTokens,
    splitter: Splitter,
    ignore_merges: bool,
    nfc: bool,
    /// What a text begins with if the caller wants it: `bos`, or nothing if the model does not ask
    /// for it.
    prefix: Option<u32>,
    /// What follows a text if the caller wants it.
    suffix: Option<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// The tokens that end a generation.
    ends: Vec<u32>,
}

impl Tokenizer {
    /// Checks a vocabulary and builds the tables to encode and decode with.
    ///
    /// # Errors
    ///
    /// [`TokenizerError`] names what is wrong: types that are not as many as the tokens, an id
    /// outside the vocabulary, a byte that no token stands for, a text listed as two tokens, a
    /// merge that is not two tokens making a third.
    pub fn new(vocabulary: Vocabulary) -> Result<Self, TokenizerError> {
        vocabulary.check()?;
        let tokens = TokenTable::new(&vocabulary)?;
        let special = SpecialTokens::new(&vocabulary)?;
        let named = vocabulary.eos.into_iter().chain(vocabulary.ends.iter().copied());
        let known = vocabulary
            .entries()
            .filter(|(_, text, kind)| *kind == TokenType::Control && END_TEXTS.contains(text))
            .map(|(id, _, _)| id);
        let ends = named.chain(known).collect();
        let Model::ByteLevel(model) = vocabulary.model;
        Ok(Self {
            bpe: Bpe::new(&tokens, &model.merges)?,
            tokens,
            special,
            splitter: model.splitter,
            ignore_merges: model.ignore_merges,
            nfc: model.nfc,
            prefix: vocabulary.bos.filter(|_| vocabulary.add_bos),
            suffix: vocabulary.suffix,
            bos: vocabulary.bos,
            eos: vocabulary.eos,
            ends,
        })
    }

    /// The token ids of `text`.
    ///
    /// Time and memory are proportional to the length of the text, up to the logarithm of its
    /// longest piece.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        let mut ids = Vec::new();
        let mut work = Work::default();
        ids.extend(self.prefix.filter(|_| special.bos));
        let mut rest = text;
        while let Some((range, id)) = self.special.find(rest, special.parse) {
            self.encode_text(&rest[..range.start], &mut work, &mut ids);
            ids.push(id);
            rest = &rest[range.end..];
        }
        self.encode_text(rest, &mut work, &mut ids);
        ids.extend(self.suffix.filter(|_| special.suffix));
        ids
    }

    /// Appends the ids of text without special tokens.
    fn encode_text(&self, text: &str, work: &mut Work, ids: &mut Vec<u32>) {
        let text = if self.nfc { nfc(text) } else { Cow::Borrowed(text) };
        self.splitter.pieces(&text, |piece| {
            match self.tokens.id(piece).filter(|_| self.ignore_merges) {
                Some(id) => ids.push(id),
                None => self.bpe.encode(piece, work, ids),
            }
        });
    }

    /// The bytes a token stands for: none for a control, unknown or unused token. They need not be
    /// whole characters.
    ///
    /// `None` if there is no such id.
    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.tokens.bytes(id)
    }

    /// The text of some tokens. Bytes that are not UTF-8 when all are joined become U+FFFD, as in
    /// [`String::from_utf8_lossy`]; an id outside the vocabulary stands for no text.
    pub fn decode(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> =
            ids.iter().filter_map(|&id| self.bytes(id)).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Starts decoding token by token.
    pub fn stream(&self) -> Stream<'_> {
        Stream::new(self)
    }

    /// Whether a generation ends with this token: EOS, one of [`Vocabulary::ends`], or a control token that ends a text or
    /// a turn in the known model families (`<|eot_id|>`, `<|end_of_text|>`, `<|im_end|>`,
    /// `<|endoftext|>`).
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

/// The text in Unicode's normalisation form C, which ASCII is in already.
fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.len())
            .field("splitter", &self.splitter)
            .field("bos", &self.bos)
            .field("eos", &self.eos)
            .finish_non_exhaustive()
    }
}
