//! Tokens that can be next, and what leaves some of them out.

use bitnet_kernels::op::{SoftmaxArgs, SoftmaxFn};
use bitnet_kernels::{Bound, Calls};

use super::Sampling;
use crate::Candidate;

/// Tokens that can be next. None of the functions leaves none.
#[derive(Debug)]
pub(super) struct Candidates {
    pub(super) list: Vec<Candidate>,
    probabilities: Vec<f32>,
    softmax: Bound<SoftmaxFn>,
    pub(super) calls: Calls,
}

impl Candidates {
    pub(super) fn new(softmax: Bound<SoftmaxFn>) -> Candidates {
        let (list, probabilities, calls) = (Vec::new(), Vec::new(), Calls::default());
        Candidates { list, probabilities, softmax, calls }
    }

    /// Leaves some out, unless there are no others.
    pub(super) fn without(&mut self, left_out: impl Fn(&Candidate) -> bool) {
        if !self.list.iter().all(&left_out) {
            self.list.retain(|candidate| !left_out(candidate));
        }
    }

    /// Leaves out those that have been made impossible.
    pub(super) fn without_impossible(&mut self) {
        self.without(|candidate| candidate.logit == f32::MIN);
    }

    /// The likeliest.
    pub(super) fn likeliest(&self) -> u32 {
        self.list.iter().min_by_key(|c| place(c)).map_or(0, |c| c.id)
    }

    /// The `k` likeliest.
    pub(super) fn top_k(&mut self, k: usize) {
        if k < self.list.len() {
            self.list.select_nth_unstable_by_key(k - 1, place);
            self.list.truncate(k);
        }
    }

    /// The likeliest that together have probability `p`.
    pub(super) fn top_p(&mut self, p: f32) {
        self.soften();
        let mut sum = 0.0;
        let enough = self.probabilities.iter().position(|probability| {
            sum += probability;
            sum >= p
        });
        self.list.truncate(enough.map_or(usize::MAX, |last| last + 1));
    }

    /// Those at least `p` times as likely as the likeliest.
    pub(super) fn min_p(&mut self, p: f32) {
        self.soften();
        let least = self.probabilities[0] * p;
        let enough = self.probabilities.partition_point(|&p| p >= least);
        self.list.truncate(enough.max(1));
    }

    /// Those whose information is nearest to the entropy and that together have probability `p`
    /// (Meister et al. 2023).
    pub(super) fn typical(&mut self, p: f32) {
        self.soften();
        let information: Vec<f32> = self.probabilities.iter().map(|&p| -libm::logf(p)).collect();
        let entropy = self.entropy();
        let mut order: Vec<_> = (0..self.list.len()).collect();
        let off = |&i: &usize| (information[i] - entropy).abs();
        // Infinite where the probability is too small for a number, and then last.
        order.sort_by(|a, b| off(a).total_cmp(&off(b)));
        let mut sum = 0.0;
        let enough = order.iter().position(|&i| {
            sum += self.probabilities[i];
            sum > p
        });
        order.truncate(enough.map_or(usize::MAX, |last| last + 1));
        self.list = order.into_iter().map(|i| self.list[i]).collect();
    }

    /// Those within `n` standard deviations of the greatest logit (Tang et al. 2024).
    pub(super) fn top_n_sigma(&mut self, n: f32) {
        let logits = || self.list.iter().map(|c| f64::from(c.logit));
        let count = self.list.len() as f64;
        let mean = logits().sum::<f64>() / count;
        let variance = logits().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        let greatest = self.list.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        let least = f64::from(greatest) - f64::from(n) * variance.sqrt();
        self.list.retain(|c| f64::from(c.logit) >= least);
    }

    /// Leaves out all that have at least probability `threshold` but the least likely of them, if
    /// `strikes`.
    pub(super) fn exclude_top(&mut self, threshold: f32, strikes: bool) {
        self.soften();
        let above = self.probabilities.partition_point(|&p| p >= threshold);
        if strikes && above > 1 {
            self.list.drain(..above - 1);
        }
    }

    /// Divides logits by the temperature, or by one as far above or below it as the entropy of the
    /// candidates says. They are then relative to the greatest, so that no temperature makes them
    /// infinite.
    pub(super) fn temperature(&mut self, settings: &Sampling) {
        let mut temperature = settings.temperature;
        if settings.dynatemp_range > 0.0 {
            self.soften();
            if self.list.len() > 1 {
                let (least, most) = (
                    (temperature - settings.dynatemp_range).max(0.0),
                    temperature + settings.dynatemp_range,
                );
                let share = self.entropy() / libm::logf(self.list.len() as f32);
                let share = libm::powf(share.clamp(0.0, 1.0), settings.dynatemp_exponent);
                temperature = least + (most - least) * share;
            }
        }
        // The least normal number: who divides by nothing takes the greatest.
        let temperature = temperature.max(f32::MIN_POSITIVE);
        let greatest = self.list.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
        for candidate in &mut self.list {
            candidate.logit = ((candidate.logit - greatest) / temperature).max(-1e9);
        }
    }

    /// One of the candidates, by its probability, where `draw` is from 0 to 1.
    pub(super) fn draw(&mut self, draw: f32) -> u32 {
        self.soften();
        let mut left = draw;
        for (candidate, p) in self.list.iter().zip(&self.probabilities) {
            left -= p;
            if left < 0.0 {
                return candidate.id;
            }
        }
        // Rounding can leave a little.
        self.list.last().map_or(0, |c| c.id)
    }

    /// Sorts the candidates and takes their probabilities.
    fn soften(&mut self) {
        self.list.sort_unstable_by_key(place);
        self.probabilities.clear();
        let greatest = self.list.first().map_or(0.0, |c| c.logit);
        let relative = self.list.iter().map(|c| (c.logit - greatest).max(-1e9));
        self.probabilities.extend(relative);
        (self.softmax.run)(SoftmaxArgs { x: &mut self.probabilities });
        self.calls.add(&self.softmax, 1);
    }

    /// The entropy of the probabilities, in nats.
    fn entropy(&self) -> f32 {
        let sum = |sum, &p: &f32| if p > 0.0 { sum - p * libm::logf(p) } else { sum };
        self.probabilities.iter().fold(0.0, sum)
    }
}

/// Sorts by logit, greatest first, and equal ones by id: the order is total. It is a number because a
/// whole vocabulary is sorted several times as fast by numbers.
fn place(candidate: &Candidate) -> u64 {
    // Bits of floats are in order as they are, or backwards where the sign is set.
    let bits = candidate.logit.to_bits();
    let descending = if bits >> 31 == 0 { !bits & (u32::MAX >> 1) } else { bits };
    u64::from(descending) << 32 | u64::from(candidate.id)
}
