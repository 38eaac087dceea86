//! What a model file says about its tokenizer.

use std::iter;

use super::{Splitter, TokenizerError};

/// What a model file says about its tokenizer.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// The tokens by id, spelled as [`Model`] says. GGUF: `tokenizer.ggml.tokens`.
    pub tokens: Vec<String>,
    /// The type of each token, or nothing at all: then every token is normal. GGUF:
    /// `tokenizer.ggml.token_type`.
    pub types: Vec<TokenType>,
    /// How text becomes tokens.
    pub model: Model,
    /// The token a text begins with.
    pub bos: Option<u32>,
    /// The token that ends a text.
    pub eos: Option<u32>,
    /// Other tokens that end a generation, such as one that ends a turn of a conversation.
    pub ends: Vec<u32>,
    /// Whether the model wants texts to begin with `bos`. GGUF: `tokenizer.ggml.add_bos_token`.
    pub add_bos: bool,
    /// The token that the model wants after a text. Models that embed texts want one. GGUF: EOS, if
    /// `tokenizer.ggml.add_eos_token` says so.
    pub suffix: Option<u32>,
}

/// How text becomes tokens.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Model {
    /// Bytes are merged. GGUF: `tokenizer.ggml.model` is `gpt2`.
    ByteLevel(ByteLevel),
}

impl Model {
    /// Whether texts begin with BOS where the file says nothing: those of Llama 3 do.
    pub(crate) fn usually_adds_bos(&self) -> bool {
        let Self::ByteLevel(model) = self;
        model.splitter == Splitter::llama3()
    }
}

/// Byte-level BPE. Normal tokens are spelled in GPT-2's byte alphabet (`"Ġthe"` is `" the"`), all
/// others as plain text.
#[derive(Clone, Debug)]
pub struct ByteLevel {
    /// Pairs to merge, first to last, each as `"left right"`. GGUF: `tokenizer.ggml.merges`.
    pub merges: Vec<String>,
    /// How text is cut into pieces. GGUF: `tokenizer.ggml.pre`.
    pub splitter: Splitter,
    /// Whether a piece that is a token becomes that token, even if no merges make it.
    pub ignore_merges: bool,
    /// Whether the text is brought to Unicode's normalisation form C first.
    pub nfc: bool,
}

impl ByteLevel {
    /// What goes with a splitter in the model families we know. The vocabulary of Llama 3 has
    /// tokens that no merges make, and Qwen was trained with text in normalisation form C.
    /// (llama.cpp does not normalise.)
    pub fn new(merges: Vec<String>, splitter: Splitter) -> Self {
        let ignore_merges = splitter == Splitter::llama3();
        let nfc = splitter == Splitter::qwen2();
        Self { merges, splitter, ignore_merges, nfc }
    }
}

impl Vocabulary {
    /// Checks what can be checked without looking at the texts.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        let (tokens, types) = (self.tokens.len(), self.types.len());
        let Model::ByteLevel(model) = &self.model;
        for (what, count) in [("tokens", tokens), ("merges", model.merges.len())] {
            // The largest number is kept free: it means "no token" in the tables.
            if count >= u32::MAX as usize {
                return Err(TokenizerError::TooMany { what, count });
            }
        }
        if types != 0 && types != tokens {
            return Err(TokenizerError::TypeCount { tokens, types });
        }
        let named = [("bos", self.bos), ("eos", self.eos), ("last", self.suffix)];
        let named = named.into_iter().filter_map(|(role, id)| Some((role, id?)));
        for (role, id) in named.chain(self.ends.iter().map(|&id| ("end", id))) {
            if id as usize >= tokens {
                return Err(TokenizerError::IdOutOfRange { role, id, tokens });
            }
        }
        if self.add_bos && self.bos.is_none() {
            return Err(TokenizerError::MissingBos);
        }
        Ok(())
    }

    /// Each token's id, text and type.
    pub(super) fn entries(&self) -> impl Iterator<Item = (u32, &str, TokenType)> {
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
    /// One byte of a SentencePiece vocabulary (`<0x0A>`).
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
