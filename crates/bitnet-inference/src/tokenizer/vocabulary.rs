//! What a model file says about its tokenizer.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::iter;

use super::json::MOST_TOKENS;
use super::{Splitter, TokenizerError, bpe, byte_level, sentence_piece};

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
    /// The user-defined and control tokens that are looked for in the normalised text, the others
    /// being looked for in the text as it is; in ascending order. GGUF: none.
    pub normalized: Vec<u32>,
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
    /// Characters are merged. GGUF: `tokenizer.ggml.model` is `llama`.
    SentencePiece(SentencePiece),
}

impl Model {
    /// Whether texts begin with BOS where a GGUF file says nothing: those of Llama 2 and 3 do.
    pub(crate) fn usually_adds_bos(&self) -> bool {
        match self {
            Self::ByteLevel(model) => model.splitter == Splitter::llama3(),
            Self::SentencePiece(_) => true,
        }
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

/// SentencePiece BPE. Tokens are spelled with `▁` (U+2581) for each space. Characters that are no
/// tokens become tokens of type byte, if the vocabulary has them.
#[derive(Clone, Debug)]
pub struct SentencePiece {
    /// Which parts are merged first.
    pub order: MergeOrder,
    /// Where a space is put before the text. GGUF: `tokenizer.ggml.add_space_prefix`.
    pub prefix: SpacePrefix,
    /// Whether decoding takes one space from the beginning of a text.
    pub strip: bool,
    /// Whether the text is cut before each space, so that no token has spaces but at its beginning.
    pub split: bool,
    /// What characters become that are no tokens, in a vocabulary without byte tokens. GGUF:
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<u32>,
    /// Whether such characters that stand side by side become one token.
    pub fuse_unknown: bool,
}

/// Which neighbours SentencePiece merges, and which first; of several, the leftmost.
#[derive(Clone, Debug)]
pub enum MergeOrder {
    /// Those that make a token, the one of the highest score first. The scores are those of all
    /// tokens, by id. GGUF: `tokenizer.ggml.scores`.
    Scores(Vec<f32>),
    /// Those listed as `"left right"`, first to last, as in a `tokenizer.json`.
    Merges(Vec<String>),
}

/// Where SentencePiece puts a space before the text, so that a word is the same token at its
/// beginning and elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpacePrefix {
    /// Nowhere.
    None,
    /// At the beginning and after each special token. GGUF; in `tokenizer.json` the normaliser
    /// `Prepend`.
    Always,
    /// At the beginning if the text does not begin with a space, nor with a special token: the
    /// pre-tokenizer `Metaspace` with `prepend_scheme` `first`.
    FirstIfMissing,
    /// At the beginning and after each special token, if there is no space: the pre-tokenizer
    /// `Metaspace` with `prepend_scheme` `always`.
    AlwaysIfMissing,
}

impl Vocabulary {
    /// Gives all ids below `rows` a token; those that stand for nothing are unused. Embedding tables are
    /// often larger than the vocabulary, for the sake of the shapes of kernels.
    ///
    /// # Errors
    ///
    /// Where there are more rows than any vocabulary has tokens: the shape of a table takes no bytes.
    pub(crate) fn pad(&mut self, rows: usize) -> Result<(), TokenizerError> {
        if rows > MOST_TOKENS {
            return Err(TokenizerError::TableTooLarge { rows, limit: MOST_TOKENS });
        }
        if self.types.is_empty() {
            self.types = vec![TokenType::Normal; self.tokens.len()];
        }
        for id in self.tokens.len()..rows {
            self.tokens.push(format!("<unused {id}>"));
            self.types.push(TokenType::Unused);
        }
        Ok(())
    }

    /// The text by which a user-defined or a control token is found: its own or, if it is one of
    /// [`Vocabulary::normalized`], what normalisation makes of it.
    pub(super) fn matched<'t>(&self, id: u32, text: &'t str) -> Cow<'t, str> {
        match &self.model {
            _ if self.normalized.binary_search(&id).is_err() => Cow::Borrowed(text),
            Model::ByteLevel(model) if model.nfc => byte_level::nfc(text),
            Model::ByteLevel(_) => Cow::Borrowed(text),
            Model::SentencePiece(model) => sentence_piece::normalize(model.prefix, text),
        }
    }

    /// Checks what can be checked without looking at the texts.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        let (tokens, types) = (self.tokens.len(), self.types.len());
        let (merges, scores, unknown) = match &self.model {
            Model::ByteLevel(model) => (model.merges.len(), None, None),
            Model::SentencePiece(model) => match &model.order {
                MergeOrder::Scores(scores) => (0, Some(scores.len()), model.unknown),
                MergeOrder::Merges(merges) => (merges.len(), None, model.unknown),
            },
        };
        for (what, count) in [("tokens", tokens), ("merges", merges)] {
            // The largest numbers are kept free: they mean "no token" in the tables.
            if count >= bpe::UNKNOWN as usize {
                return Err(TokenizerError::TooMany { what, count });
            }
        }
        if types != 0 && types != tokens {
            return Err(TokenizerError::TypeCount { tokens, types });
        }
        if let Some(scores) = scores.filter(|&scores| scores != tokens) {
            return Err(TokenizerError::ScoreCount { tokens, scores });
        }
        self.check_ids(unknown)?;
        if self.add_bos && self.bos.is_none() {
            return Err(TokenizerError::MissingBos);
        }
        Ok(())
    }

    /// Checks that all ids are those of tokens.
    fn check_ids(&self, unknown: Option<u32>) -> Result<(), TokenizerError> {
        let named = [
            ("bos", self.bos),
            ("eos", self.eos),
            ("last", self.suffix),
            ("unknown", unknown),
            ("normalized", self.normalized.last().copied()),
        ];
        let named = named.into_iter().filter_map(|(role, id)| Some((role, id?)));
        let tokens = self.tokens.len();
        for (role, id) in named.chain(self.ends.iter().map(|&id| ("end", id))) {
            if id as usize >= tokens {
                return Err(TokenizerError::IdOutOfRange { role, id, tokens });
            }
        }
        Ok(())
    }

    /// The first difference to another vocabulary, if there is one. That one has merges and the other
    /// scores is none.
    pub(crate) fn difference(&self, other: &Vocabulary) -> Option<String> {
        let how = |v: &Vocabulary| match &v.model {
            Model::ByteLevel(model) => format!(
                "byte-level, split as {}{}{}",
                model.splitter.name().unwrap_or("no model of GGUF"),
                if model.nfc { ", in normalisation form C" } else { "" },
                if model.ignore_merges { ", whole words first" } else { "" },
            ),
            Model::SentencePiece(model) => format!(
                "SentencePiece, {} before text{}",
                match model.prefix {
                    SpacePrefix::None => "no space",
                    SpacePrefix::Always => "a space",
                    SpacePrefix::FirstIfMissing => "a space, if there is none,",
                    SpacePrefix::AlwaysIfMissing => "a space, if there is none, everywhere",
                },
                if model.split { ", cut before spaces" } else { "" },
            ),
        };
        let both = |what: &str, a: String, b: String| Some(format!("{what}{a}, and {b}"));
        if how(self) != how(other) {
            return both("", how(self), how(other));
        }
        // Ids without a meaning have no text that matters.
        let used = |v: &Vocabulary| {
            let unused = v.types.iter().rev().take_while(|kind| **kind == TokenType::Unused);
            v.tokens.len() - unused.count()
        };
        if used(self) != used(other) {
            return Some(format!("{} tokens, and {}", used(self), used(other)));
        }
        let kind = |kind| match kind {
            TokenType::Control | TokenType::Unknown => "special",
            TokenType::UserDefined => "found whole",
            TokenType::Unused => "unused",
            TokenType::Normal | TokenType::Byte => "text",
        };
        for ((id, a, x), (_, b, y)) in self.entries().zip(other.entries()) {
            let (x, y) = (kind(x), kind(y));
            if x != y || a != b && x != "unused" {
                return Some(format!("token {id} is {a:?} ({x}), and {b:?} ({y})"));
            }
        }
        let id = |id: Option<u32>| id.map_or_else(|| "none".to_owned(), |id| id.to_string());
        for (what, a, b) in [
            ("BOS ", self.bos, other.bos),
            ("EOS ", self.eos, other.eos),
            (
                "before a text ",
                self.bos.filter(|_| self.add_bos),
                other.bos.filter(|_| other.add_bos),
            ),
            ("behind a text ", self.suffix, other.suffix),
        ] {
            if a != b {
                return both(what, id(a), id(b));
            }
        }
        let ends = |v: &Vocabulary| {
            let all: BTreeSet<u32> = v.eos.into_iter().chain(v.ends.iter().copied()).collect();
            format!("{all:?}")
        };
        if ends(self) != ends(other) {
            return both("a generation ends at ", ends(self), ends(other));
        }
        let merges = |v: &'_ Vocabulary| match &v.model {
            Model::ByteLevel(model) => Some(model.merges.clone()),
            Model::SentencePiece(SentencePiece { order: MergeOrder::Merges(merges), .. }) => {
                Some(merges.clone())
            }
            Model::SentencePiece(_) => None,
        };
        let (a, b) = (merges(self)?, merges(other)?);
        let at = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
        let name =
            |merges: &[String]| merges.get(at).map_or("none".to_owned(), |m| format!("{m:?}"));
        if a.len() != at || b.len() != at {
            both(&format!("merge {at} is "), name(&a), name(&b))
        } else {
            None
        }
    }

    /// Each token's id, text and type.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, &str, TokenType)> {
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
