//! The next token from logits: penalty, top-k, top-p, min-p, temperature, then a draw, in the order
//! and with the defaults of llama.cpp.
//!
//! Probabilities come from the softmax kernel and random numbers from a generator with a stable
//! sequence, so a seed gives the same tokens everywhere.

use bitnet_kernels::op::{SoftmaxArgs, SoftmaxFn};
use bitnet_kernels::{Bound, Calls, KernelManager};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::{Deserialize, Serialize};

use crate::{Candidate, Error, Logits, Wanted};

/// How tokens are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Sampling {
    /// Divides logits; 0 or less always takes the likeliest token.
    pub temperature: f32,
    /// Only the `k` likeliest tokens; 0 is all.
    pub top_k: usize,
    /// Only the likeliest tokens that together have this probability; 1 is all.
    pub top_p: f32,
    /// Only tokens at least this likely, relative to the likeliest; 0 is all.
    pub min_p: f32,
    /// Divides positive logits of recent tokens, and multiplies negative ones; 1 is off.
    pub repeat_penalty: f32,
    /// Recent tokens the penalty looks at.
    pub repeat_last_n: usize,
    /// Of the random numbers.
    pub seed: u64,
}

impl Sampling {
    /// How often a token takes the probabilities of its candidates.
    pub(crate) fn softmaxes(&self) -> u64 {
        match self.temperature > 0.0 {
            true => 1 + u64::from(self.top_p < 1.0) + u64::from(self.min_p > 0.0),
            false => 0,
        }
    }
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    ///
    /// [`Error::Sampling`] for the first that is not.
    pub fn check(&self) -> Result<(), Error> {
        let unit = "a number from 0 to 1";
        let settings = [
            ("temperature", self.temperature, self.temperature.is_finite(), "a number"),
            ("top-p", self.top_p, (0.0..=1.0).contains(&self.top_p), unit),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), unit),
            (
                "repeat-penalty",
                self.repeat_penalty,
                self.repeat_penalty.is_finite() && self.repeat_penalty > 0.0,
                "a number above 0",
            ),
        ];
        match settings.into_iter().find(|(_, _, fits, _)| !fits) {
            Some((name, value, _, expected)) => Err(Error::Sampling { name, value, expected }),
            None => Ok(()),
        }
    }
}

/// Draws tokens for one sequence.
#[derive(Debug)]
pub struct Sampler {
    settings: Sampling,
    random: Xoshiro256PlusPlus,
    softmax: Bound<SoftmaxFn>,
    calls: Calls,
    candidates: Vec<Candidate>,
    recent: Vec<u32>,
    probabilities: Vec<f32>,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    ///
    /// Where a setting is out of its range.
    pub fn new(settings: Sampling, manager: &KernelManager) -> Result<Sampler, Error> {
        settings.check()?;
        Ok(Sampler {
            settings,
            random: Xoshiro256PlusPlus::seed_from_u64(settings.seed),
            softmax: manager.select(None)?,
            calls: Calls::default(),
            candidates: Vec::new(),
            recent: Vec::new(),
            probabilities: Vec::new(),
        })
    }

    /// What [`Sampler::sample`] needs to know after `history`.
    pub fn wanted<'a>(&'a mut self, history: &[u32]) -> Wanted<'a> {
        self.recent(history);
        match self.settings.top_k {
            _ if self.settings.temperature <= 0.0 => Wanted::Best { count: 1, also: &self.recent },
            0 => Wanted::All,
            count => Wanted::Best { count, also: &self.recent },
        }
    }

    /// The next token after `history`, given all logits or those that [`Sampler::wanted`] asks for.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] where a logit is not a finite number.
    pub fn sample(&mut self, logits: Logits<'_>, history: &[u32]) -> Result<u32, Error> {
        self.candidates.clear();
        match logits {
            Logits::All(logits) => {
                let all = (0..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
                self.candidates.extend(all);
            }
            Logits::Best(candidates) => self.candidates.extend_from_slice(candidates),
        }
        if !self.candidates.iter().all(|candidate| candidate.logit.is_finite()) {
            return Err(Error::NotFinite);
        }
        self.penalize(history);
        if self.settings.temperature <= 0.0 {
            let likeliest = self.candidates.iter().min_by(|a, b| likelier(a, b));
            return Ok(likeliest.map_or(0, |c| c.id));
        }
        self.top_k();
        self.top_p();
        self.min_p();
        Ok(self.draw())
    }

    /// Kernels called so far.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Notes the tokens that the penalty looks at, each once, in order.
    fn recent(&mut self, history: &[u32]) {
        self.recent.clear();
        if self.settings.repeat_penalty == 1.0 {
            return;
        }
        let first = history.len().saturating_sub(self.settings.repeat_last_n);
        self.recent.extend_from_slice(&history[first..]);
        self.recent.sort_unstable();
        self.recent.dedup();
    }

    fn penalize(&mut self, history: &[u32]) {
        self.recent(history);
        let penalty = self.settings.repeat_penalty;
        for Candidate { id, logit } in &mut self.candidates {
            if self.recent.binary_search(id).is_ok() {
                *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
            }
        }
    }

    /// Leaves the likeliest, sorted.
    fn top_k(&mut self) {
        let k = self.settings.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, likelier);
            self.candidates.truncate(k);
        }
        self.candidates.sort_unstable_by(likelier);
    }

    fn top_p(&mut self) {
        if self.settings.top_p >= 1.0 {
            return;
        }
        self.soften(1.0);
        let mut sum = 0.0;
        let enough = self.probabilities.iter().position(|p| {
            sum += p;
            sum >= self.settings.top_p
        });
        self.candidates.truncate(enough.map_or(usize::MAX, |last| last + 1));
    }

    fn min_p(&mut self) {
        if self.settings.min_p <= 0.0 {
            return;
        }
        self.soften(1.0);
        let least = self.probabilities[0] * self.settings.min_p;
        let enough = self.probabilities.partition_point(|&p| p >= least);
        self.candidates.truncate(enough.max(1));
    }

    /// One of the candidates that are left, by its probability.
    fn draw(&mut self) -> u32 {
        self.soften(self.settings.temperature);
        // 24 bits: every value is a float below 1.
        let mut left = (self.random.next_u64() >> 40) as f32 / (1 << 24) as f32;
        for (candidate, p) in self.candidates.iter().zip(&self.probabilities) {
            left -= p;
            if left < 0.0 {
                return candidate.id;
            }
        }
        // Rounding can leave a little.
        self.candidates.last().map_or(0, |c| c.id)
    }

    /// The probabilities of the candidates at a temperature.
    fn soften(&mut self, temperature: f32) {
        self.probabilities.clear();
        // Relative to the greatest, so that no temperature makes them infinite.
        let greatest = self.candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let softer = self.candidates.iter().map(|c| ((c.logit - greatest) / temperature).max(-1e9));
        self.probabilities.extend(softer);
        (self.softmax.run)(SoftmaxArgs { x: &mut self.probabilities });
        self.calls.add(&self.softmax, 1);
    }
}

/// Sorts by logit, greatest first, and equal ones by id: the order is total.
fn likelier(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(settings: Sampling) -> Sampler {
        Sampler::new(settings, &KernelManager::new()).unwrap()
    }

    /// Which tokens of `logits` are ever drawn.
    fn drawn(settings: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut sampler = sampler(settings);
        let mut ids: Vec<_> =
            (0..2000).map(|_| sampler.sample(Logits::All(logits), &[]).unwrap()).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    const OFF: Sampling = Sampling {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repeat_penalty: 1.0,
        repeat_last_n: 64,
        seed: 7,
    };

    #[test]
    fn zero_temperature_takes_the_first_of_the_likeliest() {
        let greedy = Sampling { temperature: 0.0, ..OFF };
        assert_eq!(drawn(greedy, &[1.0, 5.0, 5.0, 2.0]), [1]);
    }

    #[test]
    fn filters_leave_what_they_say() {
        // Probabilities 0.6439, 0.2369, 0.0871, 0.0321.
        let logits = [3.0, 2.0, 1.0, 0.0];
        assert_eq!(drawn(OFF, &logits), [0, 1, 2, 3]);
        assert_eq!(drawn(Sampling { top_k: 2, ..OFF }, &logits), [0, 1]);
        assert_eq!(drawn(Sampling { top_p: 0.64, ..OFF }, &logits), [0]);
        assert_eq!(drawn(Sampling { top_p: 0.65, ..OFF }, &logits), [0, 1]);
        assert_eq!(drawn(Sampling { min_p: 0.13, ..OFF }, &logits), [0, 1, 2]);
        assert_eq!(drawn(Sampling { min_p: 1.0, ..OFF }, &logits), [0]);
    }

    #[test]
    fn filters_come_in_order_and_temperature_last() {
        // Probabilities 0.5, 0.3, 0.15, 0.05. Top-p leaves three, of which min-p takes none; the
        // other way round, the three would be 0.526, 0.316, 0.158, and top-p would leave two.
        let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
        let both = Sampling { top_p: 0.83, min_p: 0.25, ..OFF };
        assert_eq!(drawn(both, &logits), [0, 1, 2]);
        // Neither knows the temperature.
        for hot in [0.5, 4.0] {
            let logits = [3.0, 2.0, 1.0, 0.0];
            let min_p = Sampling { min_p: 0.3, temperature: hot, ..OFF };
            assert_eq!(drawn(min_p, &logits), [0, 1], "{hot}");
            let top_p = Sampling { top_p: 0.7, temperature: hot, ..OFF };
            assert_eq!(drawn(top_p, &logits), [0, 1], "{hot}");
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = sampler(OFF);
        let logits = [0.0, 3.0_f32.ln()];
        let ones =
            (0..10_000).filter(|_| sampler.sample(Logits::All(&logits), &[]).unwrap() == 1).count();
        assert!((7300..7700).contains(&ones), "{ones} of 10000, expected about 7500");
    }

    #[test]
    fn a_tiny_temperature_is_greedy_and_a_huge_one_is_fair() {
        let logits = [1000.0, -1000.0, 999.0];
        assert_eq!(drawn(Sampling { temperature: 1e-30, ..OFF }, &logits), [0]);
        assert_eq!(drawn(Sampling { temperature: 1e30, ..OFF }, &logits), [0, 1, 2]);
    }

    #[test]
    fn the_penalty_looks_at_recent_tokens_only() {
        let settings = Sampling { temperature: 0.0, repeat_penalty: 2.0, repeat_last_n: 2, ..OFF };
        let mut sampler = sampler(settings);
        assert_eq!(sampler.sample(Logits::All(&[3.0, 2.0, -1.0]), &[0, 2]).unwrap(), 1);
        assert_eq!(sampler.sample(Logits::All(&[3.0, 2.0, -1.0]), &[0, 1, 2]).unwrap(), 0);
        assert_eq!(sampler.sample(Logits::All(&[-1.0, -1.5, -9.0]), &[0, 0]).unwrap(), 1);
        // However often a token was said.
        assert_eq!(sampler.sample(Logits::All(&[4.0, 1.5]), &[0, 0]).unwrap(), 0);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_everywhere() {
        let logits: Vec<f32> = (0..100).map(|i| (i * 37 % 100) as f32 / 20.0).collect();
        let mut sampler = sampler(Sampling { seed: 42, ..Sampling::default() });
        let ids: Vec<_> =
            (0..8).map(|_| sampler.sample(Logits::All(&logits), &[]).unwrap()).collect();
        assert_eq!(ids, [67, 62, 18, 32, 40, 24, 54, 51]);
    }

    #[test]
    fn bad_logits_and_settings_are_refused() {
        assert!(matches!(
            sampler(OFF).sample(Logits::All(&[1.0, f32::NAN]), &[]),
            Err(Error::NotFinite)
        ));
        for settings in [
            Sampling { top_p: 1.5, ..OFF },
            Sampling { min_p: -0.1, ..OFF },
            Sampling { temperature: f32::NAN, ..OFF },
            Sampling { repeat_penalty: 0.0, ..OFF },
        ] {
            assert!(matches!(settings.check(), Err(Error::Sampling { .. })));
        }
    }
}
