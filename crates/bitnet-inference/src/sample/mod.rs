//! The next token from logits: biases, penalties, filters, temperature, then a draw.
//!
//! Probabilities come from the softmax kernel and random numbers from a generator with a stable
//! sequence, so a seed gives the same tokens everywhere.

use std::collections::BTreeMap;

use bitnet_gpu::{Cut, Draw};
use bitnet_kernels::{Calls, KernelManager};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::tokenizer::Tokenizer;
use crate::{Best, Candidate, Engine, Error, Logits, Wanted};

mod candidates;
mod dry;
mod logprobs;
mod settings;
#[cfg(test)]
mod tests;

use candidates::Candidates;
pub use logprobs::LogProbabilities;
pub use settings::{Dry, Sampling, Stage};

/// Draws tokens for one sequence.
#[derive(Debug)]
pub struct Sampler<'a> {
    settings: Sampling,
    tokenizer: Option<&'a Tokenizer>,
    /// Tokens that are never drawn.
    banned: Vec<u32>,
    random: Xoshiro256PlusPlus,
    candidates: Candidates,
    /// Tokens whose logits may be changed, each once, in order.
    changed: Vec<u32>,
}

impl<'a> Sampler<'a> {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    ///
    /// Where a setting is out of its range, or a bias is for a token that there is not.
    pub fn new(settings: Sampling, engine: &'a Engine) -> Result<Sampler<'a>, Error> {
        let vocabulary = engine.vocabulary();
        let beyond = settings.logit_bias.keys().find(|&&id| id as usize >= vocabulary);
        if let Some(&id) = beyond {
            return Err(Error::Token { id, vocabulary });
        }
        Sampler::with(settings, engine.manager(), engine.tokenizer().ok())
    }

    fn with(
        settings: Sampling,
        manager: &KernelManager,
        tokenizer: Option<&'a Tokenizer>,
    ) -> Result<Sampler<'a>, Error> {
        settings.check()?;
        Ok(Sampler {
            random: Xoshiro256PlusPlus::seed_from_u64(settings.seed),
            settings,
            tokenizer,
            banned: Vec::new(),
            candidates: Candidates::new(manager.select(None)?),
            changed: Vec::new(),
        })
    }

    /// Never draws these tokens, unless there are no others.
    pub(crate) fn ban(&mut self, tokens: Vec<u32>) {
        self.banned = tokens;
    }

    /// What [`Sampler::sample`] needs to know after `history`, or after its beginnings that are up to
    /// `less` tokens shorter.
    pub fn wanted<'s>(&'s mut self, history: &[u32], less: usize) -> Wanted<'s> {
        self.note_changed(history, less);
        match self.settings.needed() {
            Some(count) => {
                let draw = self.draw();
                Wanted::Best(Best { count, also: &self.changed, only: None, draw })
            }
            None => Wanted::All,
        }
    }

    /// The next token after `history`, given all logits or those that [`Sampler::wanted`] asks for.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] where a logit is not a finite number.
    ///
    /// # Panics
    ///
    /// If there are no logits.
    pub fn sample(&mut self, logits: Logits<'_>, history: &[u32]) -> Result<u32, Error> {
        let token = self.sample_of(logits, history, |_| true)?;
        Ok(token.expect("logits of some tokens"))
    }

    /// The next token after `history` of those that are `allowed`, if there is one.
    ///
    /// # Errors
    ///
    /// As [`Sampler::sample`].
    pub(crate) fn sample_of(
        &mut self,
        logits: Logits<'_>,
        history: &[u32],
        allowed: impl Fn(u32) -> bool,
    ) -> Result<Option<u32>, Error> {
        let list = &mut self.candidates.list;
        list.clear();
        match logits {
            Logits::All(logits) => {
                list.extend((0..).zip(logits).map(|(id, &logit)| Candidate { id, logit }));
            }
            Logits::Best(candidates) => list.extend_from_slice(candidates),
        }
        if !list.iter().all(|candidate| candidate.logit.is_finite()) {
            return Err(Error::NotFinite);
        }
        list.retain(|candidate| allowed(candidate.id));
        if list.is_empty() {
            return Ok(None);
        }
        self.candidates.without(|candidate| self.banned.contains(&candidate.id));
        let biases = &self.settings.logit_bias;
        if !biases.is_empty() {
            for candidate in &mut self.candidates.list {
                let bias = biases.get(&candidate.id).copied().unwrap_or(0.0);
                candidate.logit = finite(candidate.logit + bias);
            }
            self.candidates.without_impossible();
        }
        Ok(Some(self.choose(history)))
    }

    /// Goes through the stages.
    fn choose(&mut self, history: &[u32]) -> u32 {
        let settings = &self.settings;
        let greedy = settings.is_greedy();
        let all = !greedy || settings.runs_if_greedy();
        for stage in settings.stages() {
            let it = &mut self.candidates;
            match stage {
                Stage::Penalties => {
                    penalize(&mut it.list, settings, history);
                    it.without_impossible();
                }
                Stage::Dry => {
                    let penalties = settings.dry.penalties(history, self.tokenizer);
                    for candidate in &mut it.list {
                        let penalty = penalties.get(&candidate.id).copied().unwrap_or(0.0);
                        candidate.logit = finite(candidate.logit - penalty);
                    }
                }
                _ if !all => {}
                Stage::TopNSigma => it.top_n_sigma(settings.top_n_sigma),
                Stage::TopK => it.top_k(settings.top_k),
                Stage::TypP => it.typical(settings.typical_p),
                Stage::TopP => it.top_p(settings.top_p),
                Stage::MinP => it.min_p(settings.min_p),
                Stage::Xtc => {
                    let strikes = uniform(&mut self.random) <= settings.xtc_probability;
                    it.exclude_top(settings.xtc_threshold, strikes);
                }
                Stage::Temperature if greedy => {}
                Stage::Temperature => it.temperature(settings),
            }
        }
        match greedy {
            true => self.candidates.likeliest(),
            false => self.candidates.draw(uniform(&mut self.random)),
        }
    }

    /// How the next token will be drawn, if nothing but the greatest logits is needed to tell. Tokens that are never drawn may come
    /// out all the same.
    fn draw(&self) -> Option<Draw> {
        let settings = &self.settings;
        if !settings.logit_bias.is_empty() {
            return None;
        }
        if settings.is_greedy() {
            return settings.stages().all(Stage::keeps_greatest).then(Draw::greedy);
        }
        let cut = |stage| match stage {
            Stage::TopK => Some(Cut::TopK(u32::try_from(settings.top_k).unwrap_or(u32::MAX))),
            Stage::TopP => Some(Cut::TopP(settings.top_p)),
            Stage::MinP => Some(Cut::MinP(settings.min_p)),
            Stage::Temperature if settings.dynatemp_range == 0.0 => {
                Some(Cut::Temperature(settings.temperature))
            }
            _ => None,
        };
        let cuts = settings.stages().map(cut).collect::<Option<Vec<_>>>()?;
        Draw::new(uniform(&mut self.random.clone()), cuts)
    }

    /// Kernels called so far.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.candidates.calls
    }

    /// Notes the tokens whose logits are changed after `history` or a shorter one.
    fn note_changed(&mut self, history: &[u32], less: usize) {
        let settings = &self.settings;
        let recent = |last_n: usize| &history[history.len().saturating_sub(last_n)..];
        let changed = &mut self.changed;
        changed.clear();
        changed.extend(settings.logit_bias.keys());
        // One that is banned takes the place of none of those that are asked for.
        changed.extend(&self.banned);
        for stage in settings.stages() {
            match stage {
                Stage::Penalties => {
                    changed.extend(recent(settings.repeat_last_n.saturating_add(less)));
                }
                Stage::Dry => {
                    let last_n = settings.dry.last_n.unwrap_or(usize::MAX);
                    changed.extend(recent(last_n.saturating_add(less)));
                }
                _ => {}
            }
        }
        changed.sort_unstable();
        changed.dedup();
    }
}

/// From 0 to 1, of 24 bits: every value is a float below 1.
fn uniform(random: &mut Xoshiro256PlusPlus) -> f32 {
    (random.next_u64() >> 40) as f32 / (1 << 24) as f32
}

/// A logit that can be calculated with, whatever was done to it. The least one is impossible.
fn finite(logit: f32) -> f32 {
    logit.clamp(f32::MIN, f32::MAX)
}

/// Repeat, presence and frequency penalties.
fn penalize(list: &mut [Candidate], settings: &Sampling, history: &[u32]) {
    let mut counts = BTreeMap::new();
    for id in &history[history.len().saturating_sub(settings.repeat_last_n)..] {
        *counts.entry(id).or_insert(0_u32) += 1;
    }
    let penalty = settings.repeat_penalty;
    for Candidate { id, logit } in list {
        let Some(&count) = counts.get(id) else { continue };
        let changed = finite(if *logit > 0.0 { *logit / penalty } else { *logit * penalty });
        let less = finite(count as f32 * settings.frequency_penalty + settings.presence_penalty);
        *logit = finite(changed - less);
    }
}
