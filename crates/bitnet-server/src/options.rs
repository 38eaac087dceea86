//! What requests of all interfaces have in common: how tokens are drawn, when a text ends, what it must be.

use std::collections::BTreeMap;

use bitnet_inference::{Constraint, Request, Sampling};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Config;
use crate::error::ApiError;

/// Choices at most.
const CHOICES: usize = 128;
/// Stop strings at most, and bytes of all of them.
const STOPS: usize = 64;
const STOP_BYTES: usize = 64 << 10;
/// Stages of sampling at most: each twice.
const STAGES: usize = 18;
/// Alternatives to a token at most.
const TOP_LOGPROBS: usize = 20;
/// How far logits can be moved, as OpenAI has it: a token that is moved down by as much never comes.
const NEVER: f32 = 100.0;

/// Fields that all interfaces know. Unknown ones are nobody's business.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Options {
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    top_n_sigma: Option<f32>,
    repeat_penalty: Option<f32>,
    repeat_last_n: Option<i64>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
    dynatemp_range: Option<f32>,
    dynatemp_exponent: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed_length: Option<usize>,
    dry_penalty_last_n: Option<i64>,
    dry_sequence_breakers: Option<Vec<String>>,
    samplers: Option<Vec<String>>,
    logit_bias: Option<Bias>,
    seed: Option<i64>,
    stop: Option<OneOrMore>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    n_predict: Option<i64>,
    n: Option<i64>,
    ignore_eos: Option<bool>,
    response_format: Option<Format>,
    grammar: Option<String>,
    json_schema: Option<Value>,
}

/// What a stream is to have.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct StreamOptions {
    include_usage: Option<bool>,
}

impl StreamOptions {
    /// Whether the last chunk says what the answer took.
    pub(crate) fn usage(given: Option<StreamOptions>) -> bool {
        given.and_then(|options| options.include_usage).unwrap_or(false)
    }
}

/// One string or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a string, or an array of strings")]
pub(crate) enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMore::One(one) => vec![one],
            OneOrMore::More(more) => more,
        }
    }
}

/// Token ids and what is added to their logits, as an object or as an array of pairs.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "an object of token ids and numbers, or an array of pairs of them")]
enum Bias {
    Map(BTreeMap<String, f32>),
    Pairs(Vec<(u32, Strength)>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "a number, or false")]
enum Strength {
    Number(f32),
    Never(bool),
}

/// What the text must be.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Format {
    Text,
    JsonObject {
        schema: Option<Value>,
    },
    JsonSchema {
        /// As `chat/completions` has it.
        json_schema: Option<Named>,
        /// As `responses` has it.
        schema: Option<Value>,
    },
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    schema: Option<Value>,
}

/// A value as a type has it; the error names the field.
pub(crate) fn read<T: DeserializeOwned>(value: &Value) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { &path };
        let why = error.into_inner().to_string();
        // What is not there has no path.
        let missing = why.strip_prefix("missing field `").and_then(|why| why.strip_suffix('`'));
        match (missing, path) {
            (Some(name), _) => {
                let dot = if path.is_empty() { "" } else { "." };
                let param = format!("{path}{dot}{name}");
                let what = format!("{param}: it is missing");
                ApiError::invalid(what).code("missing_field").param(param)
            }
            (None, "") => ApiError::invalid(why).code("invalid_type"),
            (None, path) => {
                ApiError::invalid(format!("{path}: {why}")).code("invalid_type").param(path)
            }
        }
    })
}

fn wrong(param: &str, why: impl std::fmt::Display) -> ApiError {
    ApiError::invalid(format!("{param}: {why}")).code("invalid_value").param(param)
}

impl Options {
    /// The field that says what the text must be, if one does.
    pub(crate) fn bound_by(&self) -> Option<&'static str> {
        let format = self.response_format.as_ref();
        let has_format = format.is_some_and(|format| !matches!(format, Format::Text));
        let has_grammar = self.grammar.as_deref().is_some_and(|grammar| !grammar.is_empty());
        let all = [
            ("response_format", has_format),
            ("json_schema", self.json_schema.is_some()),
            ("grammar", has_grammar),
        ];
        all.into_iter().find_map(|(name, is_given)| is_given.then_some(name))
    }

    /// How many texts are wanted.
    pub(crate) fn choices(&self) -> Result<usize, ApiError> {
        match self.n {
            None => Ok(1),
            Some(n) => usize::try_from(n)
                .ok()
                .filter(|n| (1..=CHOICES).contains(n))
                .ok_or_else(|| wrong("n", format!("{n} is not from 1 to {CHOICES}"))),
        }
    }

    /// The request of a prompt; what is not said here is as the server has it.
    pub(crate) fn request(self, prompt: Vec<u32>, config: &Config) -> Result<Request, ApiError> {
        let defaults = &config.defaults;
        let limit = self.limit(defaults.limit)?;
        let constraint = self.constraint()?.or_else(|| defaults.constraint.clone());
        let stop = self.stop.clone().map(OneOrMore::into_vec);
        let stop = stop.unwrap_or_else(|| defaults.stop.clone());
        if stop.len() > STOPS || stop.iter().map(String::len).sum::<usize>() > STOP_BYTES {
            return Err(wrong(
                "stop",
                format!("there may be {STOPS} of {STOP_BYTES} bytes together"),
            ));
        }
        let ignore_end = self.ignore_eos.unwrap_or(defaults.ignore_end);
        let seed = self.seed.and_then(|seed| u64::try_from(seed).ok()).or(config.seed);
        let mut sampling = self.sampling(&defaults.sampling)?;
        // 32 bits, which all clients can give back.
        let random = || getrandom::u32().map(u64::from);
        sampling.seed = seed.map_or_else(random, Ok).map_err(|why| {
            ApiError::internal(format!("there are no random numbers for a seed: {why}"))
        })?;
        let draft = defaults.draft;
        let request = Request::new(prompt, sampling, limit);
        Ok(Request { stop, ignore_end, constraint, draft, ..request })
    }

    /// Tokens to generate at most.
    fn limit(&self, most: usize) -> Result<usize, ApiError> {
        let asked = [
            ("max_completion_tokens", self.max_completion_tokens),
            ("max_tokens", self.max_tokens),
            ("n_predict", self.n_predict),
        ];
        let Some((name, n)) = asked.into_iter().find_map(|(name, n)| Some((name, n?))) else {
            return Ok(most);
        };
        match n {
            // As llama.cpp has it.
            -2 | -1 => Ok(most),
            n => {
                let n = usize::try_from(n).map_err(|_| wrong(name, format!("{n} is below 0")))?;
                Ok(n.min(most))
            }
        }
    }

    fn constraint(&self) -> Result<Option<Constraint>, ApiError> {
        let schema = |schema: &Option<Value>, param: &str| match schema {
            Some(schema) => Ok(Constraint::JsonSchema(schema.clone())),
            None => Err(wrong(param, "there is no schema")),
        };
        let format = match &self.response_format {
            None | Some(Format::Text) => None,
            Some(Format::JsonObject { schema: None }) => Some(Constraint::json_object()),
            Some(Format::JsonObject { schema: some }) => {
                Some(schema(some, "response_format.schema")?)
            }
            Some(Format::JsonSchema { json_schema: Some(named), .. }) => {
                Some(schema(&named.schema, "response_format.json_schema.schema")?)
            }
            Some(Format::JsonSchema { json_schema: None, schema: some }) => {
                Some(schema(some, "response_format.json_schema")?)
            }
        };
        let all = [
            format,
            self.json_schema.clone().map(Constraint::JsonSchema),
            self.grammar.clone().filter(|text| !text.is_empty()).map(Constraint::Gbnf),
        ];
        let mut given = all.into_iter().flatten();
        match (given.next(), given.next()) {
            (one, None) => Ok(one),
            _ => Err(wrong(
                "response_format",
                "a text cannot be bound by response_format, json_schema and grammar at once",
            )),
        }
    }

    fn sampling(self, defaults: &Sampling) -> Result<Sampling, ApiError> {
        let d = defaults.clone();
        let temperature = self.temperature.unwrap_or(d.temperature);
        if temperature < 0.0 {
            return Err(wrong("temperature", format!("{temperature} is below 0")));
        }
        let last = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
        let samplers = match self.samplers {
            None => d.samplers,
            Some(names) if names.len() > STAGES => {
                return Err(wrong("samplers", format!("there may be {STAGES}")));
            }
            Some(names) => {
                let stages = names.iter().map(|name| name.parse());
                stages.collect::<Result<_, String>>().map_err(|why| wrong("samplers", why))?
            }
        };
        let mut dry = d.dry;
        dry.multiplier = self.dry_multiplier.unwrap_or(dry.multiplier);
        dry.base = self.dry_base.unwrap_or(dry.base);
        dry.allowed_length = self.dry_allowed_length.unwrap_or(dry.allowed_length);
        if let Some(n) = self.dry_penalty_last_n {
            dry.last_n = usize::try_from(n).ok();
        }
        if let Some(breakers) = self.dry_sequence_breakers {
            if breakers.len() > STOPS
                || breakers.iter().map(String::len).sum::<usize>() > STOP_BYTES
            {
                let what = format!("there may be {STOPS} of {STOP_BYTES} bytes together");
                return Err(wrong("dry_sequence_breakers", what));
            }
            dry.breakers = breakers;
        }
        let mut logit_bias = d.logit_bias;
        logit_bias.extend(biases(self.logit_bias)?);
        Ok(Sampling {
            samplers,
            temperature,
            top_k: self.top_k.map_or(d.top_k, |k| usize::try_from(k).unwrap_or(0)),
            top_p: self.top_p.unwrap_or(d.top_p),
            min_p: self.min_p.unwrap_or(d.min_p),
            typical_p: self.typical_p.unwrap_or(d.typical_p),
            top_n_sigma: self.top_n_sigma.unwrap_or(d.top_n_sigma),
            xtc_probability: self.xtc_probability.unwrap_or(d.xtc_probability),
            xtc_threshold: self.xtc_threshold.unwrap_or(d.xtc_threshold),
            dynatemp_range: self.dynatemp_range.unwrap_or(d.dynatemp_range),
            dynatemp_exponent: self.dynatemp_exponent.unwrap_or(d.dynatemp_exponent),
            repeat_penalty: self.repeat_penalty.unwrap_or(d.repeat_penalty),
            repeat_last_n: self.repeat_last_n.map_or(d.repeat_last_n, last),
            presence_penalty: self.presence_penalty.unwrap_or(d.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(d.frequency_penalty),
            dry,
            logit_bias,
            seed: d.seed,
        })
    }
}

fn biases(given: Option<Bias>) -> Result<Vec<(u32, f32)>, ApiError> {
    let certain = |bias: f32| match bias {
        bias if bias <= -NEVER => f32::MIN,
        bias => bias,
    };
    match given {
        None => Ok(Vec::new()),
        Some(Bias::Map(map)) => {
            let pair = |(id, bias): (String, f32)| {
                let id =
                    id.parse().map_err(|_| wrong("logit_bias", format!("{id} is no token id")))?;
                Ok((id, certain(bias)))
            };
            map.into_iter().map(pair).collect()
        }
        Some(Bias::Pairs(pairs)) => {
            let pair = |(id, bias)| match bias {
                Strength::Number(bias) => Ok((id, certain(bias))),
                Strength::Never(false) => Ok((id, f32::MIN)),
                Strength::Never(true) => Err(wrong("logit_bias", "true is no bias: give a number")),
            };
            pairs.into_iter().map(pair).collect()
        }
    }
}

/// How many alternatives to each token are wanted, if log-probabilities are.
pub(crate) fn top_logprobs(n: Option<i64>, param: &str) -> Result<usize, ApiError> {
    let n = n.unwrap_or(0);
    let fits = usize::try_from(n).ok().filter(|&n| n <= TOP_LOGPROBS);
    fits.ok_or_else(|| wrong(param, format!("{n} is not from 0 to {TOP_LOGPROBS}")))
}
