//! Reads the `tokenizer.json` of Hugging Face's `tokenizers`, and what lies beside it.
//!
//! The file describes a pipeline of many possible parts. Those of the model families we know are
//! read here and become a [`Vocabulary`]; all others are refused by name, for leaving a part out
//! would give other tokens.

mod beside;
mod pipeline;
mod pre_tokenizer;
mod vocab;
mod write;

use std::mem;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::{ByteLevel, MergeOrder, Model, SentencePiece, Splitter, TokenizerError, Vocabulary};
use beside::Beside;
use pipeline::{Decoding, Normalizing, Template};
use pre_tokenizer::PreTokenizing;
pub(super) use vocab::MOST_TOKENS;
use vocab::{ModelJson, Tokens};
pub(crate) use write::to_json;

/// The files of a Hugging Face repository that say what its tokenizer is, as bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`: the vocabulary, and how text is cut and merged.
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`: the names of BOS and EOS, and whether texts are to have them.
    pub tokenizer_config: Option<&'a [u8]>,
    /// `generation_config.json`: the tokens that end a generation.
    pub generation_config: Option<&'a [u8]>,
    /// `config.json`: these tokens again.
    pub config: Option<&'a [u8]>,
}

/// `tokenizer.json` as a whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    // What a caller may want of a batch of texts; nothing of it is in the encoding of one.
    #[serde(rename = "truncation")]
    _truncation: Option<IgnoredAny>,
    #[serde(rename = "padding")]
    _padding: Option<IgnoredAny>,
    #[serde(default)]
    added_tokens: Vec<Value>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Option<Value>,
    model: ModelJson,
}

/// As much of `tokenizer.json` as says which kind of model it is.
#[derive(Deserialize)]
struct Kind {
    model: KindOfModel,
}

/// As much of the model as says which kind it is; files older than the others do not.
#[derive(Deserialize)]
struct KindOfModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl Vocabulary {
    /// The vocabulary of a `tokenizer.json`, with what the files beside it say of its special
    /// tokens.
    ///
    /// Where files differ, `add_bos_token` and `add_eos_token` of `tokenizer_config.json` go before
    /// the post-processor of `tokenizer.json`, the names of tokens in `tokenizer_config.json` before
    /// the ids in `generation_config.json`, and these before those in `config.json`. Every end token
    /// that any of them names ends a generation.
    ///
    /// # Errors
    ///
    /// [`TokenizerError`] says which part of which file is damaged or is not one we have.
    pub fn from_json(files: &TokenizerFiles<'_>) -> Result<Self, TokenizerError> {
        let kind: Kind = read("tokenizer.json", files.tokenizer)?;
        if let Some(kind) = kind.model.kind.filter(|kind| kind != "BPE") {
            return Err(unsupported("model", format!("type {kind:?}")));
        }
        let mut file: File = read("tokenizer.json", files.tokenizer)?;
        let template = Template::read(file.post_processor)?;
        let mut tokens = Tokens::new(mem::take(&mut file.model.vocab), file.added_tokens)?;
        let parts = (file.normalizer, file.pre_tokenizer, file.decoder);
        let model = model(file.model, parts, &mut tokens)?;
        Beside::read(files, &tokens)?.vocabulary(tokens, model, template)
    }
}

/// The model: normaliser, pre-tokenizer and decoder must be of the same kind.
fn model(
    json: ModelJson,
    (normalizer, pre_tokenizer, decoder): (Option<Value>, Option<Value>, Option<Value>),
    tokens: &mut Tokens,
) -> Result<Model, TokenizerError> {
    json.check()?;
    let normalizing = Normalizing::read(normalizer)?;
    let unknown = json.unk_token.filter(|text| !text.is_empty());
    let unknown = unknown.map(|text| tokens.id("tokenizer.json", "unknown", &text)).transpose()?;
    match (PreTokenizing::read(pre_tokenizer)?, Decoding::read(decoder)?) {
        (PreTokenizing::ByteLevel(stages, byte_stages), Decoding::ByteLevel) => {
            Ok(Model::ByteLevel(ByteLevel {
                merges: json.merges.0,
                splitter: Splitter::of(&stages, &byte_stages),
                ignore_merges: json.ignore_merges,
                nfc: normalizing.byte_level()?,
            }))
        }
        (PreTokenizing::Spaces(metaspace), Decoding::Spaces { strip }) => {
            if json.ignore_merges {
                return Err(unsupported("model", "ignore_merges without ByteLevel"));
            }
            if json.byte_fallback {
                tokens.mark_bytes();
            }
            let (prefix, split) = normalizing.spaces(metaspace)?;
            Ok(Model::SentencePiece(SentencePiece {
                order: MergeOrder::Merges(json.merges.0),
                prefix,
                strip,
                split,
                unknown,
                fuse_unknown: json.fuse_unk,
            }))
        }
        (PreTokenizing::ByteLevel(..), _) => Err(unsupported("decoder", "no ByteLevel")),
        (PreTokenizing::Spaces(_), _) => Err(unsupported("pre_tokenizer", "no ByteLevel")),
    }
}

/// Reads a file. The name is for errors.
fn read<'a, T: Deserialize<'a>>(file: &'static str, bytes: &'a [u8]) -> Result<T, TokenizerError> {
    let fail = |error: serde_json::Error| TokenizerError::Json { file, message: error.to_string() };
    serde_json::from_slice(bytes).map_err(fail)
}

/// Reads a part of `tokenizer.json`.
fn part<T: DeserializeOwned>(name: &str, value: Value) -> Result<T, TokenizerError> {
    serde_json::from_value(value).map_err(|error| TokenizerError::Json {
        file: "tokenizer.json",
        message: format!("{name}: {error}"),
    })
}

fn unsupported(part: impl Into<String>, what: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { part: part.into(), what: what.into() }
}
