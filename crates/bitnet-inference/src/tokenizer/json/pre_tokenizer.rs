//! How a `tokenizer.json` cuts text.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::pipeline::{Pattern, flatten};
use super::{part, unsupported};
use crate::tokenizer::sentence_piece::SPACE;
use crate::tokenizer::split::{ByteStage, Stage};
use crate::tokenizer::{SpacePrefix, TokenizerError};

const NAME: &str = "pre_tokenizer";

/// The most stages there may be; Falcon has four.
const MOST_STAGES: usize = 8;

/// The expressions we have.
const EXPRESSIONS: [(&str, Cut); 7] = [
    (
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        Cut::Text(Stage::Llama3 { digits: 3 }),
    ),
    (
        concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ),
        Cut::Text(Stage::Llama3 { digits: 1 }),
    ),
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        Cut::Text(Stage::Gpt2),
    ),
    (r"[\p{P}\$\+<=>\^~\|]+", Cut::Text(Stage::PunctuationButBacktick)),
    (r"\p{N}", Cut::Text(Stage::Numbers { single: true })),
    ("[0-9]", Cut::Bytes(ByteStage::Digit)),
    ("[0-9][0-9][0-9]", Cut::Bytes(ByteStage::ThreeDigits)),
];

/// The expression of a stage that has one; of the others an empty one.
pub(super) fn expression(stage: Stage) -> &'static str {
    let found = EXPRESSIONS.iter().find(|(_, cut)| matches!(cut, Cut::Text(of) if *of == stage));
    found.map_or("", |(expression, _)| expression)
}

/// What one step cuts.
#[derive(Clone, Copy)]
enum Cut {
    Text(Stage),
    Bytes(ByteStage),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
enum PreTokenizerJson {
    ByteLevel {
        add_prefix_space: bool,
        #[serde(rename = "trim_offsets")]
        _trim_offsets: IgnoredAny,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Split {
        pattern: Pattern,
        behavior: String,
        invert: bool,
    },
    Digits {
        individual_digits: bool,
    },
    Punctuation {
        #[serde(default = "isolated")]
        behavior: String,
    },
    Metaspace {
        replacement: char,
        prepend_scheme: Option<String>,
        add_prefix_space: Option<bool>,
        split: Option<bool>,
        #[serde(rename = "str_rep")]
        _str_rep: Option<IgnoredAny>,
    },
}

fn yes() -> bool {
    true
}

fn isolated() -> String {
    "Isolated".to_owned()
}

/// How text is cut, and thereby which kind of model it is for.
pub(super) enum PreTokenizing {
    /// Into words, whose bytes are spelled.
    ByteLevel(Vec<Stage>, Vec<ByteStage>),
    /// Not at all, or before spaces.
    Spaces(Option<Metaspace>),
}

/// The pre-tokenizer `Metaspace`.
pub(super) struct Metaspace {
    pub(super) prefix: SpacePrefix,
    pub(super) split: bool,
}

impl PreTokenizing {
    pub(super) fn read(value: Option<Value>) -> Result<Self, TokenizerError> {
        let steps = flatten(NAME, "pretokenizers", value)?.into_iter();
        let steps: Vec<PreTokenizerJson> =
            steps.map(|value| part(NAME, value)).collect::<Result<_, _>>()?;
        if steps.len() > MOST_STAGES {
            return Err(unsupported(NAME, format!("a Sequence of {} parts", steps.len())));
        }
        if steps.iter().any(|step| matches!(step, PreTokenizerJson::ByteLevel { .. })) {
            return byte_level(&steps);
        }
        match &steps[..] {
            [] => Ok(Self::Spaces(None)),
            [
                PreTokenizerJson::Metaspace {
                    replacement,
                    prepend_scheme,
                    add_prefix_space,
                    split,
                    ..
                },
            ] if *replacement == SPACE => {
                let prefix = prefix(prepend_scheme.as_deref(), *add_prefix_space)?;
                Ok(Self::Spaces(Some(Metaspace { prefix, split: split.unwrap_or(true) })))
            }
            // Gemma's. Its normaliser leaves no space to cut at.
            [PreTokenizerJson::Split { pattern, behavior, invert: false }]
                if *pattern == Pattern::String(" ".to_owned())
                    && behavior == "MergedWithPrevious" =>
            {
                Ok(Self::Spaces(None))
            }
            _ => Err(unsupported(NAME, format!("{steps:?} without ByteLevel"))),
        }
    }
}

/// The prefix that `Metaspace` adds.
fn prefix(scheme: Option<&str>, add: Option<bool>) -> Result<SpacePrefix, TokenizerError> {
    match (scheme, add) {
        (Some("first"), None | Some(true)) => Ok(SpacePrefix::FirstIfMissing),
        (Some("always") | None, None | Some(true)) => Ok(SpacePrefix::AlwaysIfMissing),
        (Some("never"), _) => Ok(SpacePrefix::None),
        _ => Err(unsupported(
            NAME,
            format!("Metaspace with {scheme:?} and add_prefix_space {add:?}"),
        )),
    }
}

/// The stages of a byte-level model.
fn byte_level(steps: &[PreTokenizerJson]) -> Result<PreTokenizing, TokenizerError> {
    let (mut stages, mut byte_stages) = (Vec::new(), Vec::new());
    let mut spelled = false;
    for step in steps {
        match cut(step, spelled)? {
            Some(Cut::Bytes(stage)) => byte_stages.push(stage),
            Some(Cut::Text(stage)) if !spelled && byte_stages.is_empty() => stages.push(stage),
            Some(Cut::Text(stage)) => {
                return Err(unsupported(NAME, format!("{stage:?} after ByteLevel or digits")));
            }
            None => {}
        }
        spelled |= matches!(step, PreTokenizerJson::ByteLevel { .. });
    }
    Ok(PreTokenizing::ByteLevel(stages, byte_stages))
}

/// What a step cuts, if anything. `spelled`: it sees text spelled in GPT-2's alphabet.
fn cut(step: &PreTokenizerJson, spelled: bool) -> Result<Option<Cut>, TokenizerError> {
    use PreTokenizerJson as P;
    let cut = match step {
        P::ByteLevel { add_prefix_space: true, .. } => {
            return Err(unsupported(NAME, "ByteLevel with add_prefix_space"));
        }
        P::ByteLevel { .. } if spelled => return Err(unsupported(NAME, "ByteLevel twice")),
        P::ByteLevel { use_regex: false, .. } => return Ok(None),
        // It cuts before it spells.
        P::ByteLevel { .. } => Cut::Text(Stage::Gpt2),
        P::Digits { individual_digits: single } if spelled => {
            Cut::Bytes(ByteStage::SpelledNumbers { single: *single })
        }
        P::Digits { individual_digits: single } => Cut::Text(Stage::Numbers { single: *single }),
        P::Split { pattern, behavior, invert } => split(pattern, behavior, *invert)?,
        P::Punctuation { behavior } if behavior == "Contiguous" => {
            Cut::Text(Stage::Punctuation { single: false })
        }
        P::Punctuation { behavior } if behavior == "Isolated" => {
            Cut::Text(Stage::Punctuation { single: true })
        }
        other => return Err(unsupported(NAME, format!("{other:?} beside ByteLevel"))),
    };
    Ok(Some(cut))
}

fn split(pattern: &Pattern, behavior: &str, invert: bool) -> Result<Cut, TokenizerError> {
    let Pattern::Regex(expression) = pattern else {
        return Err(unsupported(NAME, format!("Split by {pattern:?}")));
    };
    if behavior != "Isolated" || invert {
        return Err(unsupported(NAME, format!("Split with {behavior} and invert {invert}")));
    }
    let found = EXPRESSIONS.iter().find(|(known, _)| known == expression);
    let unknown = || TokenizerError::UnknownExpression { expression: expression.clone() };
    found.map(|&(_, cut)| cut).ok_or_else(unknown)
}
