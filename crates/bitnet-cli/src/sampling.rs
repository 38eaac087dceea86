//! Flags of how tokens are drawn. Names and defaults are those of llama.cpp.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result};
use bitnet_inference::{Constraint, Dry, Request, Sampling, Stage, read_text};
use clap::value_parser;

use crate::exit::Usage;

/// Flags of how tokens are drawn.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Tokens to generate at most; -1 and -2 go on to the end of the text or of the context.
    #[arg(
        short = 'n',
        long = "predict",
        alias = "n-predict",
        value_name = "N",
        default_value_t = -1,
        env = "BITNET_PREDICT",
        value_parser = value_parser!(i64).range(-2..)
    )]
    predict: i64,
    /// Seed of the random numbers; -1 takes a new one.
    #[arg(short, long, value_name = "N", default_value_t = -1, env = "BITNET_SEED",
        value_parser = value_parser!(i64).range(-1..))]
    pub(crate) seed: i64,
    /// Temperature; 0 always takes the likeliest token.
    #[arg(
        long = "temp",
        alias = "temperature",
        value_name = "T",
        default_value_t = 0.8,
        env = "BITNET_TEMP"
    )]
    temperature: f32,
    /// Draw from the K likeliest tokens; 0 or less is all.
    #[arg(long, value_name = "K", default_value_t = 40, env = "BITNET_TOP_K")]
    top_k: i64,
    /// Draw from the likeliest tokens that together have probability P; 1 is all.
    #[arg(long, value_name = "P", default_value_t = 0.95, env = "BITNET_TOP_P")]
    top_p: f32,
    /// Draw from tokens at least P times as likely as the likeliest; 0 is all.
    #[arg(long, value_name = "P", default_value_t = 0.05, env = "BITNET_MIN_P")]
    min_p: f32,
    /// Draw from the tokens whose information is most typical and that together have probability P; 1 is all.
    #[arg(long = "typical", alias = "typical-p", value_name = "P", default_value_t = 1.0)]
    typical_p: f32,
    /// Draw from tokens whose logits are within N standard deviations of the greatest; -1 is all.
    #[arg(long, alias = "top-nsigma", value_name = "N", default_value_t = -1.0)]
    top_n_sigma: f32,
    /// How often to leave out all tokens above the threshold but the least likely of them; 0 is never.
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    xtc_probability: f32,
    /// The probability that makes a token one of those; above 0.5 there are none.
    #[arg(long, value_name = "P", default_value_t = 0.1)]
    xtc_threshold: f32,
    /// Let the temperature be as much lower and higher, as the model is sure or not; 0 is off.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    dynatemp_range: f32,
    /// How the temperature follows the entropy.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    dynatemp_exp: f32,
    /// Make recent tokens less likely; 1 is off.
    #[arg(long, value_name = "X", default_value_t = 1.0, env = "BITNET_REPEAT_PENALTY")]
    repeat_penalty: f32,
    /// Take X from the logits of recent tokens; 0 is off.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    presence_penalty: f32,
    /// Take X from the logits of recent tokens as often as they came; 0 is off.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    frequency_penalty: f32,
    /// Recent tokens that the penalties look at; -1 is all.
    #[arg(long, value_name = "N", default_value_t = 64, env = "BITNET_REPEAT_LAST_N",
        value_parser = value_parser!(i64).range(-1..))]
    repeat_last_n: i64,
    /// Make tokens that go on with a repetition less likely (DRY); 0 is off.
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    dry_multiplier: f32,
    /// How much less likely for each token that is repeated.
    #[arg(long, value_name = "X", default_value_t = 1.75)]
    dry_base: f32,
    /// Tokens that may be repeated.
    #[arg(long, value_name = "N", default_value_t = 2)]
    dry_allowed_length: usize,
    /// Recent tokens that DRY looks at; -1 is all, 0 is off.
    #[arg(long, value_name = "N", default_value_t = -1, value_parser = value_parser!(i64).range(-1..))]
    dry_penalty_last_n: i64,
    /// Texts that no repetition goes across, instead of newline, colon, quote and asterisk; `none` is none.
    #[arg(long, value_name = "TEXT")]
    dry_sequence_breaker: Vec<String>,
    /// What is done to the candidates, in this order, separated by semicolons.
    #[arg(long, value_name = "NAMES")]
    samplers: Option<String>,
    /// Add to the logit of a token: `ID+BIAS` or `ID-BIAS`; `ID-inf` never draws it.
    #[arg(short, long, value_name = "ID+BIAS", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Go on where the model ends the text.
    #[arg(long)]
    ignore_eos: bool,
    /// End the text before this one, which is not printed; can be given several times.
    #[arg(short = 'r', long = "reverse-prompt", alias = "stop", value_name = "TEXT")]
    stop: Vec<String>,
    /// Only text that this grammar of llama.cpp (GBNF) describes.
    #[arg(long, value_name = "GRAMMAR", group = "constraint")]
    grammar: Option<String>,
    /// The same, from a file.
    #[arg(long, value_name = "FILE", group = "constraint")]
    grammar_file: Option<PathBuf>,
    /// Only JSON that this schema allows; `{}` is any JSON.
    #[arg(short, long, value_name = "SCHEMA", group = "constraint")]
    json_schema: Option<String>,
    /// The same, from a file.
    #[arg(long, value_name = "FILE", group = "constraint")]
    json_schema_file: Option<PathBuf>,
    /// Only text that this regular expression describes from its beginning to its end.
    #[arg(long, value_name = "REGEX", group = "constraint")]
    regex: Option<String>,
    /// Guess tokens ahead: `ngram` from what was said before. The text is the same; faster where it
    /// repeats itself.
    #[arg(long, value_name = "HOW", value_enum)]
    spec: Option<Spec>,
    /// Tokens to guess at most.
    #[arg(long, alias = "draft", value_name = "N", default_value_t = 16)]
    draft_max: usize,
}

/// How tokens are guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Spec {
    /// What followed the same tokens before.
    Ngram,
}

/// Bytes of a grammar or a schema at most.
const LONGEST: u64 = 16 << 20;

/// `ID+BIAS` or `ID-BIAS`.
fn bias(text: &str) -> Result<(u32, f32), String> {
    let shape = || format!("{text} is not ID+BIAS or ID-BIAS, such as 15043-1");
    let at = text.find(['+', '-']).ok_or_else(shape)?;
    let (id, bias) = text.split_at(at);
    let bias = match bias {
        "-inf" => f32::MIN,
        _ => bias.parse::<f32>().ok().filter(|bias| bias.is_finite()).ok_or_else(shape)?,
    };
    Ok((id.parse().map_err(|_| shape())?, bias))
}

impl Args {
    /// What to ask for behind these tokens. Draws a seed, if none is given.
    pub(crate) fn request(&self, prompt: Vec<u32>) -> Result<Request> {
        // The context is a limit in any case, which both -1 and -2 leave it to.
        let limit = usize::try_from(self.predict).unwrap_or(usize::MAX);
        Ok(Request {
            stop: self.stop.clone(),
            ignore_end: self.ignore_eos,
            draft: if self.spec.is_some() { self.draft_max } else { 0 },
            constraint: self.constraint()?,
            ..Request::new(prompt, self.sampling()?, limit)
        })
    }

    /// Changes a setting, by the name that it has in ollama, or as a flag.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<()> {
        fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
            value
                .parse()
                .map_err(|_| Usage(format!("{name} {value}: that is no such number")).into())
        }
        fn at_least(least: i64, name: &str, value: &str) -> Result<i64> {
            let found = number(name, value)?;
            match found >= least {
                true => Ok(found),
                false => Err(Usage(format!("{name} {value}: it is {least} at least")).into()),
            }
        }
        let mut changed = self.clone();
        match name.replace('-', "_").as_str() {
            "temperature" | "temp" => changed.temperature = number(name, value)?,
            "top_k" => changed.top_k = number(name, value)?,
            "top_p" => changed.top_p = number(name, value)?,
            "min_p" => changed.min_p = number(name, value)?,
            "typical_p" | "typical" => changed.typical_p = number(name, value)?,
            "repeat_penalty" => changed.repeat_penalty = number(name, value)?,
            "repeat_last_n" => changed.repeat_last_n = at_least(-1, name, value)?,
            "presence_penalty" => changed.presence_penalty = number(name, value)?,
            "frequency_penalty" => changed.frequency_penalty = number(name, value)?,
            "num_predict" | "predict" | "n_predict" => changed.predict = at_least(-2, name, value)?,
            "seed" => changed.seed = at_least(-1, name, value)?,
            "stop" => changed.stop.push(value.to_owned()),
            _ => return Err(Usage(format!("there is no parameter {name}: see /help")).into()),
        }
        // What does not fit leaves all as it was.
        changed.sampling()?;
        *self = changed;
        Ok(())
    }

    fn sampling(&self) -> Result<Sampling> {
        let seed = match u64::try_from(self.seed) {
            Ok(seed) => seed,
            // 32 bits, so that it is easily typed again.
            Err(_) => u64::from(getrandom::u32().context("no random numbers for a seed")?),
        };
        let last = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
        let sampling = Sampling {
            samplers: self.stages()?,
            temperature: self.temperature,
            dynatemp_range: self.dynatemp_range,
            dynatemp_exponent: self.dynatemp_exp,
            top_k: usize::try_from(self.top_k).unwrap_or(0),
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            top_n_sigma: self.top_n_sigma,
            xtc_probability: self.xtc_probability,
            xtc_threshold: self.xtc_threshold,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            repeat_last_n: last(self.repeat_last_n),
            dry: Dry {
                multiplier: self.dry_multiplier,
                base: self.dry_base,
                allowed_length: self.dry_allowed_length,
                last_n: usize::try_from(self.dry_penalty_last_n).ok(),
                breakers: self.breakers(),
            },
            logit_bias: BTreeMap::from_iter(self.logit_bias.iter().copied()),
            seed,
        };
        sampling.check()?;
        Ok(sampling)
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let Some(names) = &self.samplers else {
            return Ok(Sampling::default().samplers);
        };
        let names = names.split([';', ',']).map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| name.parse().map_err(|why| Usage(why).into())).collect()
    }

    fn breakers(&self) -> Vec<String> {
        match &self.dry_sequence_breaker[..] {
            [] => Dry::default().breakers,
            [none] if none == "none" => Vec::new(),
            given => given.iter().map(|text| text.replace("\\n", "\n")).collect(),
        }
    }

    fn constraint(&self) -> Result<Option<Constraint>> {
        let read = |path: &PathBuf| {
            let file = std::fs::File::open(path);
            let text = file.and_then(|file| read_text(file, LONGEST));
            text.with_context(|| format!("cannot read {}", path.display()))
        };
        if let Some(regex) = &self.regex {
            return Ok(Some(Constraint::Regex(regex.clone())));
        }
        let file = |text: &Option<String>, path: &Option<PathBuf>| match (text, path) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, Some(path)) => read(path).map(Some),
            (None, None) => Ok(None),
        };
        if let Some(grammar) = file(&self.grammar, &self.grammar_file)? {
            return Ok(Some(Constraint::Gbnf(grammar)));
        }
        let Some(schema) = file(&self.json_schema, &self.json_schema_file)? else {
            return Ok(None);
        };
        let schema = serde_json::from_str(&schema);
        let schema = schema.map_err(|why| Usage(format!("the JSON schema is not JSON: {why}")))?;
        Ok(Some(Constraint::JsonSchema(schema)))
    }
}
