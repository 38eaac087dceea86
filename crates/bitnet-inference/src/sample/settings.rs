//! How tokens are drawn.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// How tokens are drawn: names, defaults and order are those of llama.cpp.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// What is done to the candidates, in this order.
    pub samplers: Vec<Stage>,
    /// Divides logits; 0 or less always takes the likeliest token.
    pub temperature: f32,
    /// Lets the temperature be as much lower and higher, as the model is sure or not; 0 is off.
    pub dynatemp_range: f32,
    /// How the temperature follows the entropy, if it does.
    pub dynatemp_exponent: f32,
    /// Only the `k` likeliest tokens; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 is all.
    pub top_p: f32,
    /// Only tokens at least this likely, relative to the likeliest; 0 is all.
    pub min_p: f32,
    /// Only the tokens that are most typical and together have this probability; 1 is all.
    pub typical_p: f32,
    /// Only tokens whose logits are within so many standard deviations of the greatest; 0 or less is
    /// all.
    pub top_n_sigma: f32,
    /// How often all tokens above the threshold but the least likely of them are left out; 0 is never.
    pub xtc_probability: f32,
    /// The probability that makes a token one of those; above 0.5 there are none.
    pub xtc_threshold: f32,
    /// Divides positive logits of recent tokens, and multiplies negative ones; 1 is off.
    pub repeat_penalty: f32,
    /// Taken from the logits of recent tokens; 0 is off.
    pub presence_penalty: f32,
    /// Taken from the logits of recent tokens as often as they came; 0 is off.
    pub frequency_penalty: f32,
    /// Recent tokens the penalties look at.
    pub repeat_last_n: usize,
    /// Against repeating what was said.
    pub dry: Dry,
    /// Added to the logits of tokens, before all else. The least number, `f32::MIN`, makes one impossible
    /// unless there is no other.
    pub logit_bias: BTreeMap<u32, f32>,
    /// Of the random numbers.
    pub seed: u64,
}

/// DRY ("don't repeat yourself"): a token that would go on with a sequence that has come before is the
/// less likely the longer that sequence is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Dry {
    /// Taken from the logit where one token more than is allowed would be repeated; 0 is off.
    pub multiplier: f32,
    /// Multiplies that for each token more.
    pub base: f32,
    /// Tokens that may be repeated.
    pub allowed_length: usize,
    /// Recent tokens it looks at; if not given, all.
    pub last_n: Option<usize>,
    /// Texts that no sequence goes across.
    pub breakers: Vec<String>,
}

/// Something done to the candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Repeat, presence and frequency penalties.
    Penalties,
    /// [`Dry`].
    Dry,
    /// [`Sampling::top_n_sigma`].
    TopNSigma,
    /// [`Sampling::top_k`].
    TopK,
    /// [`Sampling::typical_p`].
    TypP,
    /// [`Sampling::top_p`].
    TopP,
    /// [`Sampling::min_p`].
    MinP,
    /// [`Sampling::xtc_probability`].
    Xtc,
    /// [`Sampling::temperature`].
    Temperature,
}

impl Stage {
    /// All, in the usual order.
    pub const ALL: [Stage; 9] = [
        Stage::Penalties,
        Stage::Dry,
        Stage::TopNSigma,
        Stage::TopK,
        Stage::TypP,
        Stage::TopP,
        Stage::MinP,
        Stage::Xtc,
        Stage::Temperature,
    ];

    /// Whether the greatest logit stays the greatest.
    pub(super) fn keeps_greatest(self) -> bool {
        !matches!(self, Stage::Penalties | Stage::Dry | Stage::TypP | Stage::Xtc)
    }

    /// Its name in lists.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Penalties => "penalties",
            Stage::Dry => "dry",
            Stage::TopNSigma => "top_n_sigma",
            Stage::TopK => "top_k",
            Stage::TypP => "typ_p",
            Stage::TopP => "top_p",
            Stage::MinP => "min_p",
            Stage::Xtc => "xtc",
            Stage::Temperature => "temperature",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = String;

    fn from_str(name: &str) -> Result<Stage, String> {
        // As llama.cpp calls them as well.
        let wanted = match name {
            "temp" => Stage::Temperature.name().to_owned(),
            "nucleus" => Stage::TopP.name().to_owned(),
            "typical" | "typical-p" => Stage::TypP.name().to_owned(),
            name => name.replace('-', "_"),
        };
        Stage::ALL.into_iter().find(|stage| stage.name() == wanted).ok_or_else(|| {
            let names = Stage::ALL.map(Stage::name).join(", ");
            format!("there is no sampler {name}; there are {names}")
        })
    }
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            samplers: Stage::ALL.to_vec(),
            temperature: 0.8,
            dynatemp_range: 0.0,
            dynatemp_exponent: 1.0,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            top_n_sigma: -1.0,
            xtc_probability: 0.0,
            xtc_threshold: 0.1,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repeat_last_n: 64,
            dry: Dry::default(),
            logit_bias: BTreeMap::new(),
            seed: 0,
        }
    }
}

impl Default for Dry {
    fn default() -> Dry {
        Dry {
            multiplier: 0.0,
            base: 1.75,
            allowed_length: 2,
            last_n: None,
            breakers: ["\n", ":", "\"", "*"].map(str::to_owned).to_vec(),
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    #[must_use]
    pub fn greedy() -> Sampling {
        Sampling { temperature: 0.0, ..Sampling::default() }
    }

    /// Checks that every setting is in its range.
    ///
    /// # Errors
    ///
    /// [`Error::Sampling`] for the first that is not.
    pub fn check(&self) -> Result<(), Error> {
        let in_unit = |x: f32| ("a number from 0 to 1", (0.0..=1.0).contains(&x));
        let number = |x: f32| ("a number", x.is_finite());
        let positive = |x: f32| ("a number above 0", x.is_finite() && x > 0.0);
        let not_negative = |x: f32| ("a number of 0 or more", x.is_finite() && x >= 0.0);
        let settings = [
            ("temperature", self.temperature, number(self.temperature)),
            ("dynatemp-range", self.dynatemp_range, not_negative(self.dynatemp_range)),
            ("dynatemp-exp", self.dynatemp_exponent, not_negative(self.dynatemp_exponent)),
            ("top-p", self.top_p, in_unit(self.top_p)),
            ("min-p", self.min_p, in_unit(self.min_p)),
            ("typical", self.typical_p, in_unit(self.typical_p)),
            ("top-n-sigma", self.top_n_sigma, number(self.top_n_sigma)),
            ("xtc-probability", self.xtc_probability, in_unit(self.xtc_probability)),
            ("xtc-threshold", self.xtc_threshold, in_unit(self.xtc_threshold)),
            ("repeat-penalty", self.repeat_penalty, positive(self.repeat_penalty)),
            ("presence-penalty", self.presence_penalty, number(self.presence_penalty)),
            ("frequency-penalty", self.frequency_penalty, number(self.frequency_penalty)),
            ("dry-multiplier", self.dry.multiplier, not_negative(self.dry.multiplier)),
            ("dry-base", self.dry.base, positive(self.dry.base)),
        ];
        let biases = self.logit_bias.values().map(|&bias| ("logit-bias", bias, number(bias)));
        match settings.into_iter().chain(biases).find(|(_, _, (_, fits))| !fits) {
            Some((name, value, (expected, _))) => Err(Error::Sampling { name, value, expected }),
            None => Ok(()),
        }
    }

    /// Whether a stage does anything.
    pub(super) fn does(&self, stage: Stage) -> bool {
        match stage {
            Stage::Penalties => {
                let off = (self.repeat_penalty, self.presence_penalty, self.frequency_penalty);
                off != (1.0, 0.0, 0.0) && self.repeat_last_n > 0
            }
            Stage::Dry => self.dry.multiplier > 0.0 && self.dry.last_n != Some(0),
            Stage::TopNSigma => self.top_n_sigma > 0.0,
            Stage::TopK => self.top_k > 0,
            Stage::TypP => self.typical_p < 1.0,
            Stage::TopP => self.top_p < 1.0,
            Stage::MinP => self.min_p > 0.0,
            Stage::Xtc => self.xtc_probability > 0.0 && self.xtc_threshold <= 0.5,
            Stage::Temperature => true,
        }
    }

    /// The stages that do something, in order.
    pub(super) fn stages(&self) -> impl Iterator<Item = Stage> {
        self.samplers.iter().copied().filter(|&stage| self.does(stage))
    }

    /// Whether always the likeliest of the candidates that are left is taken.
    pub(super) fn is_greedy(&self) -> bool {
        self.temperature <= 0.0 && self.samplers.contains(&Stage::Temperature)
    }

    /// How many candidates are needed at most, beside those whose logits are changed; nothing if it may
    /// be all.
    pub(super) fn needed(&self) -> Option<usize> {
        if self.is_greedy() && !self.runs_if_greedy() {
            return Some(1);
        }
        for stage in self.stages() {
            match stage {
                Stage::Penalties | Stage::Dry => {}
                Stage::TopK => return Some(self.top_k),
                Stage::Temperature if self.dynatemp_range == 0.0 => {}
                _ => return None,
            }
        }
        None
    }

    /// How often a token takes the probabilities of its candidates.
    pub(crate) fn softmaxes(&self) -> u64 {
        let greedy = self.is_greedy();
        let counts = |stage: &Stage| match stage {
            _ if greedy && !self.runs_if_greedy() => false,
            Stage::TypP | Stage::TopP | Stage::MinP | Stage::Xtc => true,
            Stage::Temperature => self.dynatemp_range > 0.0 && !greedy,
            _ => false,
        };
        self.stages().filter(counts).count() as u64 + u64::from(!greedy)
    }

    /// Whether a greedy sampler has to go through the filters.
    pub(super) fn runs_if_greedy(&self) -> bool {
        self.stages().any(|stage| matches!(stage, Stage::TypP | Stage::Xtc))
    }
}
