//! The model of a `tokenizer.json` and its tokens.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{part, unsupported};
use crate::tokenizer::sentence_piece;
use crate::tokenizer::{TokenType, TokenizerError};

/// Ids are below this. The largest vocabularies have a quarter of it, and the ids between those of a
/// file become tokens, too.
pub(in crate::tokenizer) const MOST_TOKENS: usize = 1 << 20;

/// `model`, which is BPE.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelJson {
    #[serde(rename = "type")]
    _kind: Option<String>,
    dropout: Option<f32>,
    pub(super) unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) fuse_unk: bool,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    pub(super) ignore_merges: bool,
    pub(super) vocab: Vocab,
    pub(super) merges: MergeList,
}

impl ModelJson {
    /// Refuses what changes the merging.
    pub(super) fn check(&self) -> Result<(), TokenizerError> {
        if self.dropout.is_some_and(|dropout| dropout != 0.0) {
            return Err(unsupported("model", "dropout"));
        }
        let affixes = [
            ("continuing_subword_prefix", &self.continuing_subword_prefix),
            ("end_of_word_suffix", &self.end_of_word_suffix),
        ];
        for (name, affix) in affixes {
            if let Some(affix) = affix.as_ref().filter(|affix| !affix.is_empty()) {
                return Err(unsupported("model", format!("{name} {affix:?}")));
            }
        }
        Ok(())
    }
}

/// `vocab`: a map from text to id, in which a text may be listed again.
#[derive(Default)]
pub(super) struct Vocab(Vec<(String, u32)>);

/// `merges` as `"left right"`. Where the file has the same merge again, only the last is here: it is
/// the one that counts for `tokenizers`.
pub(super) struct MergeList(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocab;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tokens to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Vocab(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A merge: `"left right"` or `["left", "right"]`. Nothing for the header of `merges.txt`, which is
/// in the lists of old files.
struct MergeText(Option<String>);

impl<'de> Deserialize<'de> for MergeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = MergeText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge: \"left right\" or [\"left\", \"right\"]")
            }

            fn visit_str<E>(self, text: &str) -> Result<MergeText, E> {
                Ok(MergeText((!text.starts_with("#version")).then(|| text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MergeText, A::Error> {
                let mut next = || -> Result<_, A::Error> {
                    let text: Option<String> = seq.next_element()?;
                    Ok(text.filter(|text| !text.contains(' ')))
                };
                match (next()?, next()?, next()?) {
                    (Some(left), Some(right), None) => {
                        Ok(MergeText(Some(format!("{left} {right}"))))
                    }
                    _ => Err(A::Error::custom("a merge is to be two texts without spaces")),
                }
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl<'de> Deserialize<'de> for MergeList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list: Vec<MergeText> = Vec::deserialize(deserializer)?;
        let mut list: Vec<String> = list.into_iter().filter_map(|merge| merge.0).collect();
        let mut seen = HashSet::with_capacity(list.len());
        let last: Vec<bool> = list.iter().rev().map(|text| seen.insert(text.as_str())).collect();
        let mut last = last.into_iter().rev();
        list.retain(|_| last.next().unwrap_or(true));
        Ok(Self(list))
    }
}

/// One of `added_tokens`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    id: u32,
    content: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// The tokens by id.
pub(super) struct Tokens {
    pub(super) texts: Vec<String>,
    pub(super) types: Vec<TokenType>,
    /// Ascending: see [`Vocabulary::normalized`](crate::tokenizer::Vocabulary::normalized).
    pub(super) normalized: Vec<u32>,
}

impl Tokens {
    /// Those of the model and those added. Ids that no token has become unused tokens.
    pub(super) fn new(vocab: Vocab, added: Vec<Value>) -> Result<Self, TokenizerError> {
        let added = added.into_iter().map(|value| part("added_tokens", value));
        let added: Vec<Added> = added.collect::<Result<_, _>>()?;
        let ids: HashMap<&str, u32> =
            added.iter().map(|added| (added.content.as_str(), added.id)).collect();
        let mut tokens = Self { texts: Vec::new(), types: Vec::new(), normalized: Vec::new() };
        for (text, first) in vocab.0 {
            match ids.get(text.as_str()) {
                Some(&second) if first != second => {
                    return Err(TokenizerError::DuplicateToken { first, second, text });
                }
                _ => tokens.add((first, text), TokenType::Normal)?,
            }
        }
        for added in added {
            tokens.add_added(added)?;
        }
        tokens.normalized.sort_unstable();
        Ok(tokens)
    }

    fn add_added(&mut self, added: Added) -> Result<(), TokenizerError> {
        let name = || format!("added token {:?}", added.content);
        let flags = [
            ("single_word", added.single_word),
            ("lstrip", added.lstrip),
            ("rstrip", added.rstrip),
        ];
        if let Some((flag, _)) = flags.into_iter().find(|&(_, set)| set) {
            return Err(unsupported(name(), flag));
        }
        if added.content.is_empty() {
            return Err(unsupported(name(), "a text of no characters"));
        }
        if added.normalized {
            self.normalized.push(added.id);
        }
        let kind = if added.special { TokenType::Control } else { TokenType::UserDefined };
        self.add((added.id, added.content), kind)
    }

    /// Adds a token; one that is added may be one of the model.
    fn add(&mut self, (id, text): (u32, String), kind: TokenType) -> Result<(), TokenizerError> {
        let index = id as usize;
        if index >= MOST_TOKENS {
            return Err(TokenizerError::IdTooLarge { text, id, limit: MOST_TOKENS });
        }
        if index >= self.texts.len() {
            self.texts.resize(index + 1, String::new());
            self.types.resize(index + 1, TokenType::Unused);
        }
        let same = self.types[index] == TokenType::Normal && self.texts[index] == text;
        if self.types[index] != TokenType::Unused && !(same && kind != TokenType::Normal) {
            let first = self.texts[index].clone();
            return Err(TokenizerError::DuplicateId { id, first, second: text });
        }
        self.texts[index] = text;
        self.types[index] = kind;
        Ok(())
    }

    /// Makes those that name bytes, such as `<0x0A>`, bytes.
    pub(super) fn mark_bytes(&mut self) {
        for (text, kind) in self.texts.iter().zip(&mut self.types) {
            if *kind == TokenType::Normal && sentence_piece::byte(text).is_some() {
                *kind = TokenType::Byte;
            }
        }
    }

    /// The id of the token that `file` names as `role`.
    pub(super) fn id(
        &self,
        file: &'static str,
        role: &'static str,
        text: &str,
    ) -> Result<u32, TokenizerError> {
        let mut tokens = (0..).zip(self.texts.iter().zip(&self.types));
        let found = tokens.find(|(_, (of, kind))| *of == text && **kind != TokenType::Unused);
        let missing = || TokenizerError::NoSuchToken { file, role, text: text.to_owned() };
        found.map(|(id, _)| id).ok_or_else(missing)
    }
}
