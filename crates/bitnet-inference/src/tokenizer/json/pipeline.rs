//! What a `tokenizer.json` does before and after its model: normaliser, post-processor, decoder.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::pre_tokenizer::Metaspace;
use super::{part, unsupported};
use crate::tokenizer::sentence_piece::SPACE;
use crate::tokenizer::{SpacePrefix, TokenizerError};

/// What a part looks for.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum NormalizerJson {
    #[serde(rename = "NFC")]
    Nfc {},
    Prepend {
        prepend: String,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
}

/// What the normaliser does, step by step.
pub(super) struct Normalizing(Vec<Normalizer>);

#[derive(Debug, PartialEq, Eq)]
enum Normalizer {
    Nfc,
    PrependSpace,
    ReplaceSpaces,
}

impl Normalizing {
    pub(super) fn read(value: Option<Value>) -> Result<Self, TokenizerError> {
        let mut steps = Vec::new();
        for value in flatten("normalizer", "normalizers", value)? {
            steps.push(match part("normalizer", value)? {
                NormalizerJson::Nfc {} => Normalizer::Nfc,
                NormalizerJson::Prepend { prepend } if is_space(&prepend) => {
                    Normalizer::PrependSpace
                }
                NormalizerJson::Replace { pattern, content }
                    if pattern == Pattern::String(" ".to_owned()) && is_space(&content) =>
                {
                    Normalizer::ReplaceSpaces
                }
                NormalizerJson::Prepend { prepend } => {
                    return Err(unsupported("normalizer", format!("Prepend of {prepend:?}")));
                }
                NormalizerJson::Replace { pattern, content } => {
                    let what = format!("Replace of {pattern:?} by {content:?}");
                    return Err(unsupported("normalizer", what));
                }
            });
        }
        Ok(Self(steps))
    }

    /// For a byte-level model: whether text is brought to normalisation form C.
    pub(super) fn byte_level(&self) -> Result<bool, TokenizerError> {
        match self.0[..] {
            [] => Ok(false),
            [Normalizer::Nfc] => Ok(true),
            _ => Err(unsupported("normalizer", format!("{:?} before ByteLevel", self.0))),
        }
    }

    /// For a model with spelled spaces: where a space is put before text, and whether text is cut
    /// before spaces.
    pub(super) fn spaces(
        &self,
        metaspace: Option<Metaspace>,
    ) -> Result<(SpacePrefix, bool), TokenizerError> {
        match (&self.0[..], metaspace) {
            ([Normalizer::ReplaceSpaces], None) => Ok((SpacePrefix::None, false)),
            ([Normalizer::PrependSpace, Normalizer::ReplaceSpaces], None) => {
                Ok((SpacePrefix::Always, false))
            }
            ([], Some(Metaspace { prefix, split })) => Ok((prefix, split)),
            ([], None) => Err(unsupported("pre_tokenizer", "neither ByteLevel nor Metaspace")),
            _ => Err(unsupported("normalizer", format!("{:?}", self.0))),
        }
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum ProcessorJson {
    /// It only moves offsets, which we do not have.
    ByteLevel {
        #[serde(rename = "add_prefix_space")]
        _add_prefix_space: IgnoredAny,
        #[serde(rename = "trim_offsets")]
        _trim_offsets: IgnoredAny,
        #[serde(rename = "use_regex")]
        _use_regex: Option<IgnoredAny>,
    },
    TemplateProcessing {
        single: Vec<TemplatePart>,
        #[serde(rename = "pair")]
        _pair: IgnoredAny,
        special_tokens: BTreeMap<String, TemplateToken>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
enum TemplatePart {
    Sequence(Place),
    SpecialToken(Place),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    id: String,
    #[serde(rename = "type_id")]
    _type_id: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateToken {
    #[serde(rename = "id")]
    _id: IgnoredAny,
    ids: Vec<u32>,
    #[serde(rename = "tokens")]
    _tokens: IgnoredAny,
}

/// The tokens that the post-processor puts around a text.
#[derive(Default)]
pub(super) struct Template {
    pub(super) before: Option<u32>,
    pub(super) after: Option<u32>,
}

impl Template {
    pub(super) fn read(value: Option<Value>) -> Result<Self, TokenizerError> {
        let name = "post_processor";
        let mut template = None;
        for value in flatten(name, "processors", value)? {
            if let ProcessorJson::TemplateProcessing { single, special_tokens, .. } =
                part(name, value)?
                && template.replace(Self::new(&single, &special_tokens)?).is_some()
            {
                return Err(unsupported(name, "more than one TemplateProcessing"));
            }
        }
        Ok(template.unwrap_or_default())
    }

    fn new(
        parts: &[TemplatePart],
        tokens: &BTreeMap<String, TemplateToken>,
    ) -> Result<Self, TokenizerError> {
        let name = "post_processor";
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut texts = 0;
        for part in parts {
            match part {
                TemplatePart::Sequence(place) if place.id == "A" => texts += 1,
                TemplatePart::Sequence(place) => {
                    return Err(unsupported(name, format!("sequence {:?}", place.id)));
                }
                TemplatePart::SpecialToken(place) => {
                    let Some(token) = tokens.get(&place.id) else {
                        let what = format!("{:?}, which is not of its special_tokens,", place.id);
                        return Err(unsupported(name, what));
                    };
                    let side = if texts == 0 { &mut before } else { &mut after };
                    side.extend_from_slice(&token.ids);
                }
            }
        }
        match (texts, &before[..], &after[..]) {
            (1, [] | [_], [] | [_]) => {
                Ok(Self { before: before.first().copied(), after: after.first().copied() })
            }
            _ => {
                let what = format!("{before:?} before and {after:?} after {texts} texts");
                Err(unsupported(name, what))
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum DecoderJson {
    ByteLevel {
        #[serde(rename = "add_prefix_space")]
        _add_prefix_space: IgnoredAny,
        #[serde(rename = "trim_offsets")]
        _trim_offsets: IgnoredAny,
        #[serde(rename = "use_regex")]
        _use_regex: Option<IgnoredAny>,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    ByteFallback {},
    Fuse {},
    Strip {
        content: char,
        start: usize,
        stop: usize,
    },
}

/// How tokens become text.
pub(super) enum Decoding {
    /// The bytes that they spell.
    ByteLevel,
    /// Their characters, with spaces where they are spelled and bytes where they are named. If
    /// `strip`, without one space at the beginning.
    Spaces { strip: bool },
}

impl Decoding {
    pub(super) fn read(value: Option<Value>) -> Result<Self, TokenizerError> {
        use DecoderJson as D;
        let name = "decoder";
        let steps = flatten(name, "decoders", value)?.into_iter();
        let steps: Vec<D> = steps.map(|value| part(name, value)).collect::<Result<_, _>>()?;
        let spaces = |pattern: &Pattern, content: &str| {
            content == " " && matches!(pattern, Pattern::String(text) if is_space(text))
        };
        match &steps[..] {
            [D::ByteLevel { .. }] => Ok(Self::ByteLevel),
            [D::Replace { pattern, content }, D::ByteFallback {}, D::Fuse {}]
                if spaces(pattern, content) =>
            {
                Ok(Self::Spaces { strip: false })
            }
            [
                D::Replace { pattern, content },
                D::ByteFallback {},
                D::Fuse {},
                D::Strip { content: ' ', start: 1, stop: 0 },
            ] if spaces(pattern, content) => Ok(Self::Spaces { strip: true }),
            _ => Err(unsupported(name, format!("{steps:?}"))),
        }
    }
}

/// Whether this is how a space is spelled.
fn is_space(text: &str) -> bool {
    text.chars().eq([SPACE])
}

/// The parts of a value that may be a `Sequence` of them under the key `list`, in turn.
pub(super) fn flatten(
    name: &str,
    list: &str,
    value: Option<Value>,
) -> Result<Vec<Value>, TokenizerError> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let mut flat = Vec::new();
    let mut todo = vec![value];
    while let Some(mut value) = todo.pop() {
        if value.get("type").and_then(Value::as_str) != Some("Sequence") {
            flat.push(value);
            continue;
        }
        let parts = value.get_mut(list).map(Value::take).unwrap_or_default();
        let parts: Vec<Value> = part(&format!("{name}: Sequence: {list}"), parts)?;
        todo.extend(parts.into_iter().rev());
    }
    Ok(flat)
}
