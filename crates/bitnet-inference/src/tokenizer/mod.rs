//! Byte-level BPE tokenizer: text to token ids and back.
//!
//! [`Vocabulary`] holds what a model file says (`tokenizer.ggml.*` in GGUF); [`Tokenizer::new`]
//! checks it once, so that encoding and decoding cannot fail. A text is encoded in four steps:
//!
//! 1. special tokens written in the text are found (`special.rs`);
//! 2. what lies between them is cut into pieces, roughly words (`split.rs`);
//! 3. a piece that is a token as a whole becomes that token (`table.rs`; `ignore_merges` in
//!    `tokenizer.json`);
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

pub(crate) use alphabet::spelling;
pub use decode::Stream;
pub use error::TokenizerError;
pub use split::Splitter;

use std::{fmt, iter};

use bpe::{Bpe, Work};
use special::SpecialTokens;
use table::TokenTable;

/// Control tokens that end a generation in the model families we know, whether or not the file
/// names them as such.
const END_TEXTS: [&str; 4] = ["<|eot_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>"];

/// What a model file says about its tokenizer.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The tokens by id. Normal tokens are spelled in GPT-2's byte alphabet (`"Ġthe"` is `" the"`),
    /// all others as plain text. GGUF: `tokenizer.ggml.tokens`.
    pub tokens: Vec<String>,
    /// The type of each token, or nothing at all: then every token is normal. GGUF:
    /// `tokenizer.ggml.token_type`.
    pub types: Vec<TokenType>,
    /// Pairs to merge, first to last, each as `"left right"`. GGUF: `tokenizer.ggml.merges`.
    pub merges: Vec<String>,
    /// How text is cut into pieces. GGUF: `tokenizer.ggml.pre`.
    pub splitter: Splitter,
    /// The token a text begins with.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// The token that ends a turn of a conversation.
    pub eot: Option<u32>,
    /// Whether the model wants texts to begin with `bos`. GGUF: `tokenizer.ggml.add_bos_token`.
    pub add_bos: bool,
}

impl Vocabulary {
    /// Checks what can be checked without looking at the texts.
    fn check(&self) -> Result<(), TokenizerError> {
        let (tokens, types) = (self.tokens.len(), self.types.len());
        for (what, count) in [("tokens", tokens), ("merges", self.merges.len())] {
            // The largest number is kept free: it means "no token" in the tables.
            if count >= u32::MAX as usize {
                return Err(TokenizerError::TooMany { what, count });
            }
        }
        if types != 0 && types != tokens {
            return Err(TokenizerError::TypeCount { tokens, types });
        }
        for (role, id) in [("bos", self.bos), ("eos", self.eos), ("eot", self.eot)] {
            if let Some(id) = id.filter(|&id| id as usize >= tokens) {
                return Err(TokenizerError::IdOutOfRange { role, id, tokens });
            }
        }
        if self.add_bos && self.bos.is_none() {
            return Err(TokenizerError::MissingBos);
        }
        Ok(())
    }

    /// Each token's id, text and type.
    fn entries(&self) -> impl Iterator<Item = (u32, &str, TokenType)> {
        let types = self.types.iter().copied();
        let types = types.chain(iter::repeat(TokenType::Normal));
        let texts = self.tokens.iter().map(String::as_str);
        (0..).zip(texts).zip(types).map(|((id, text), kind)| (id, text, kind))
    }
}

/// What kind of token an id stands for; the numbers are those of GGUF's
/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// Text, made by merging bytes.
    Normal = 1,
    /// The placeholder for what the vocabulary cannot spell; byte-level vocabularies can spell
    /// everything.
    Unknown = 2,
    /// Marks structure, such as the end of a turn; it has no text.
    Control = 3,
    /// Text added after training, always matched as a whole before merging.
    UserDefined = 4,
    /// An id without a meaning.
    Unused = 5,
    /// One byte of a SentencePiece vocabulary (`<0x0A>`); [`Tokenizer::new`] refuses it.
    Byte = 6,
}

impl TryFrom<i32> for TokenType {
    type Error = TokenizerError;

    fn try_from(value: i32) -> Result<Self, TokenizerError> {
        Ok(match value {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(TokenizerError::UnknownTokenType { value }),
        })
    }
}

/// What [`Tokenizer::encode`] does about special tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Begin with the BOS token, if the model asks for it ([`Vocabulary::add_bos`]).
    pub bos: bool,
    /// Read control tokens written in the text, such as `<|eot_id|>`, as those tokens. Without it
    /// they are text like any other, which is what text of unknown origin needs. User-defined
    /// tokens are read as tokens in either case.
    pub parse: bool,
}

impl Special {
    /// A whole prompt: BOS first, control tokens read.
    pub const PROMPT: Self = Self { bos: true, parse: true };
    /// Nothing but text: no BOS, no control tokens.
    pub const TEXT: Self = Self { bos: false, parse: false };
}

/// Turns text into token ids and back.
pub struct Tokenizer {
    tokens: TokenTable,
    bpe: Bpe,
    special: SpecialTokens,
    splitter: Splitter,
    /// What a text begins with if the caller wants it: `bos`, or nothing if the model does not ask
    /// for it.
    prefix: Option<u32>,
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
        let bpe = Bpe::new(&tokens, &vocabulary.merges)?;
        let special = SpecialTokens::new(&vocabulary)?;
        let named = [vocabulary.eos, vocabulary.eot].into_iter().flatten();
        let known = vocabulary
            .entries()
            .filter(|(_, text, kind)| *kind == TokenType::Control && END_TEXTS.contains(text))
            .map(|(id, _, _)| id);
        Ok(Self {
            tokens,
            bpe,
            special,
            splitter: vocabulary.splitter,
            prefix: vocabulary.bos.filter(|_| vocabulary.add_bos),
            bos: vocabulary.bos,
            eos: vocabulary.eos,
            ends: named.chain(known).collect(),
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
        ids
    }

    /// Appends the ids of text without special tokens.
    fn encode_text(&self, text: &str, work: &mut Work, ids: &mut Vec<u32>) {
        for piece in self.splitter.pieces(text) {
            match self.tokens.id(piece.as_bytes()) {
                Some(id) => ids.push(id),
                None => self.bpe.encode(piece.as_bytes(), work, ids),
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

    /// Whether a generation ends with this token: EOS, EOT, or a control token that ends a text or
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
