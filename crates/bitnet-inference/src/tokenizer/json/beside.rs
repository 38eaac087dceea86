//! What the files beside `tokenizer.json` say of its special tokens.

use serde::Deserialize;

use super::pipeline::Template;
use super::vocab::Tokens;
use super::{TokenizerFiles, read};
use crate::tokenizer::{Model, TokenizerError, Vocabulary};

/// `tokenizer_config.json`, as far as we need it.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
}

/// A token by its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenName {
    Text(String),
    Added { content: String },
}

/// `generation_config.json` or `config.json`, as far as we need them.
#[derive(Default, Deserialize)]
struct Ids {
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMore>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(u32),
    More(Vec<u32>),
}

/// The special tokens that the files name.
pub(super) struct Beside {
    bos: Option<u32>,
    /// The first that is named, then all others.
    ends: Vec<u32>,
    add_bos: Option<bool>,
    add_eos: Option<bool>,
}

impl Beside {
    pub(super) fn read(
        files: &TokenizerFiles<'_>,
        tokens: &Tokens,
    ) -> Result<Self, TokenizerError> {
        let file = "tokenizer_config.json";
        let config: TokenizerConfig = read_or_default(file, files.tokenizer_config)?;
        let named = |role, name: Option<TokenName>| match name {
            Some(TokenName::Text(text) | TokenName::Added { content: text }) => {
                tokens.id(file, role, &text).map(Some)
            }
            None => Ok(None),
        };
        let mut bos = named("bos", config.bos_token)?;
        let mut ends: Vec<u32> = named("eos", config.eos_token)?.into_iter().collect();
        let others = [
            read_or_default("generation_config.json", files.generation_config)?,
            read_or_default("config.json", files.config)?,
        ];
        for ids in others {
            let Ids { bos_token_id, eos_token_id } = ids;
            bos = bos.or(bos_token_id);
            match eos_token_id {
                Some(OneOrMore::One(id)) => ends.push(id),
                Some(OneOrMore::More(ids)) => ends.extend(ids),
                None => {}
            }
        }
        Ok(Self { bos, ends, add_bos: config.add_bos_token, add_eos: config.add_eos_token })
    }

    /// The vocabulary, with what the template says where these files say nothing.
    ///
    /// # Errors
    ///
    /// Where texts are to end with EOS, but no file names it.
    pub(super) fn vocabulary(
        self,
        tokens: Tokens,
        model: Model,
        template: Template,
    ) -> Result<Vocabulary, TokenizerError> {
        let bos = template.before.or(self.bos);
        let eos = self.ends.first().copied();
        let suffix = match self.add_eos {
            Some(true) => Some(template.after.or(eos).ok_or(TokenizerError::MissingEos)?),
            Some(false) => None,
            None => template.after,
        };
        Ok(Vocabulary {
            tokens: tokens.texts,
            types: tokens.types,
            model,
            normalized: tokens.normalized,
            bos,
            eos,
            ends: self.ends,
            add_bos: self.add_bos.unwrap_or(template.before.is_some()),
            suffix,
        })
    }
}

/// What a file says, or nothing if there is none.
fn read_or_default<'a, T: Default + Deserialize<'a>>(
    file: &'static str,
    bytes: Option<&'a [u8]>,
) -> Result<T, TokenizerError> {
    bytes.map_or_else(|| Ok(T::default()), |bytes| read(file, bytes))
}
