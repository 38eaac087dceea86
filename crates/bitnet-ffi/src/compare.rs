//! How far two engines agree, and which is faster.

use serde::Serialize;

/// What was found at the same positions of the same texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Positions.
    pub positions: usize,
    /// The greatest difference of a logit.
    pub max_difference: f64,
    /// The root of the mean square of all differences.
    pub rms_difference: f64,
    /// The standard deviation of the reference's logits.
    pub deviation: f64,
    /// The least cosine of a position's logits.
    pub min_cosine: f64,
    /// The mean Kullback-Leibler divergence of the reference from ours, in nats.
    pub mean_kl: f64,
    /// The greatest.
    pub max_kl: f64,
    /// Positions at which the same token is the likeliest.
    pub same_top: usize,
    /// The mean negative logarithm of the probability of what follows, ours and the reference's, over `scored`
    /// positions.
    pub nats: [f64; 2],
    /// Positions behind which a token follows.
    pub scored: usize,
    /// The standard error of the difference of these means: each position is a pair.
    pub nats_error: f64,
}

/// What that means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Something is computed otherwise.
    Different,
    /// The predictions are alike, and the arithmetic is another.
    Distribution,
    /// No more than what other roundings of activations to 8 bits make of the same arithmetic.
    Rounding,
    /// The same numbers, but for the order of sums.
    Same,
}

/// The greatest difference where no activation is rounded to another side.
const SAME: f64 = 1e-3;
/// The root of the mean square of differences, as a share of the deviation of logits, where some are.
const ROUNDING: f64 = 0.05;
/// The share of positions with the same likeliest token there.
const SAME_TOP: f64 = 0.97;
/// The mean divergence, in nats, of engines that quantise activations otherwise.
const DIVERGENCE: f64 = 0.05;
/// The share by which their perplexities may differ, or three standard errors.
const PERPLEXITY: f64 = 0.005;

impl Verdict {
    /// What it means, in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Verdict::Same => "the same numbers, but for the order of sums",
            Verdict::Rounding => "the same, but for how activations are rounded",
            Verdict::Distribution => "the same predictions by another arithmetic",
            Verdict::Different => "something is computed otherwise",
        }
    }
}

/// Sums of what [`Agreement`] has means of.
#[derive(Clone, Debug)]
pub struct Comparison {
    found: Agreement,
    squares: f64,
    /// Of the reference: the count, sum and sum of squares.
    moments: [f64; 3],
    divergences: f64,
    /// Of differences of negative logarithms: the sum, and that of squares.
    differences: [f64; 2],
}

impl Default for Comparison {
    fn default() -> Comparison {
        let found = Agreement { min_cosine: 1.0, ..Agreement::default() };
        let (moments, differences) = ([0.0; 3], [0.0; 2]);
        Comparison { found, squares: 0.0, moments, divergences: 0.0, differences }
    }
}

impl Comparison {
    /// Adds a position: both have logits of all tokens, and `next` is the token that follows in the text.
    ///
    /// # Panics
    ///
    /// If they have not as many.
    pub fn add(&mut self, ours: &[f32], theirs: &[f32], next: Option<u32>) {
        assert_eq!(ours.len(), theirs.len(), "logits of the same vocabulary");
        let found = &mut self.found;
        found.positions += 1;
        let pairs = || ours.iter().zip(theirs).map(|(&a, &b)| (f64::from(a), f64::from(b)));
        let (mut dot, mut norms) = (0.0, [0.0; 2]);
        for (a, b) in pairs() {
            let difference = (a - b).abs();
            // What is no number is never the greatest.
            found.max_difference = if difference.is_nan() {
                f64::INFINITY
            } else {
                found.max_difference.max(difference)
            };
            self.squares += difference * difference;
            dot += a * b;
            norms = [norms[0] + a * a, norms[1] + b * b];
            self.moments = [self.moments[0] + 1.0, self.moments[1] + b, self.moments[2] + b * b];
        }
        let norm = (norms[0] * norms[1]).sqrt();
        // Where there is no direction there is no agreement.
        found.min_cosine = found.min_cosine.min(if norm > 0.0 { dot / norm } else { 0.0 });
        let totals = [log_sum(ours), log_sum(theirs)];
        let kl: f64 = pairs()
            .map(|(a, b)| {
                let (p, q) = (b - totals[1], a - totals[0]);
                p.exp() * (p - q)
            })
            .sum();
        let kl = if kl.is_nan() { f64::INFINITY } else { kl.max(0.0) };
        self.divergences += kl;
        found.max_kl = found.max_kl.max(kl);
        found.same_top += usize::from(top(ours) == top(theirs));
        if let Some(next) = next {
            let nats = |logits: &[f32], total: f64| {
                logits.get(next as usize).map_or(f64::INFINITY, |&logit| total - f64::from(logit))
            };
            found.scored += 1;
            let pair = [nats(ours, totals[0]), nats(theirs, totals[1])];
            found.nats = [found.nats[0] + pair[0], found.nats[1] + pair[1]];
            let difference = pair[0] - pair[1];
            self.differences[0] += difference;
            self.differences[1] += difference * difference;
        }
    }

    /// What was found.
    #[must_use]
    pub fn agreement(&self) -> Agreement {
        let [count, sum, squares] = self.moments;
        let of = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
        let mean = of(sum, count);
        let (positions, scored) = (self.found.positions as f64, self.found.scored as f64);
        Agreement {
            rms_difference: of(self.squares, count).sqrt(),
            deviation: (of(squares, count) - mean * mean).max(0.0).sqrt(),
            mean_kl: of(self.divergences, positions),
            nats: self.found.nats.map(|nats| of(nats, scored)),
            nats_error: {
                let [sum, squares] = self.differences;
                let variance = of(squares, scored) - of(sum, scored).powi(2);
                of(variance.max(0.0), scored).sqrt()
            },
            ..self.found
        }
    }
}

impl Agreement {
    /// What it means. docs/second-backend.md says why the bounds are where they are.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let same_top = self.same_top as f64 / self.positions.max(1) as f64;
        if self.positions == 0 || !self.rms_difference.is_finite() {
            return Verdict::Different;
        }
        if self.max_difference <= SAME {
            return Verdict::Same;
        }
        if self.rms_difference <= ROUNDING * self.deviation && same_top >= SAME_TOP {
            return Verdict::Rounding;
        }
        // Of few tokens the difference is chance.
        let bound = PERPLEXITY.ln_1p().max(3.0 * self.nats_error);
        let close = self.scored == 0 || (self.nats[0] - self.nats[1]).abs() <= bound;
        if self.mean_kl <= DIVERGENCE && close { Verdict::Distribution } else { Verdict::Different }
    }

    /// Perplexities of the texts: ours and the reference's.
    #[must_use]
    pub fn perplexities(&self) -> [f64; 2] {
        self.nats.map(f64::exp)
    }
}

/// The index of the greatest; of equals the first.
#[must_use]
pub fn top(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

/// The logarithm of the sum of the exponentials.
fn log_sum(logits: &[f32]) -> f64 {
    let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let greatest = f64::from(greatest);
    greatest + logits.iter().map(|&x| (f64::from(x) - greatest).exp()).sum::<f64>().ln()
}

/// Times of the same work, taken in turns, and whether the results agree.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerformanceComparison {
    /// Ours.
    pub rust_time_ns: u64,
    /// The library's.
    pub cpp_time_ns: u64,
    /// Whether the results agree.
    pub accuracy_match: bool,
    /// The greatest difference.
    pub max_error: f64,
}

impl PerformanceComparison {
    /// The share of the library's time that ours saves; negative where ours is slower.
    #[must_use]
    pub fn performance_improvement(&self) -> f64 {
        if self.cpp_time_ns == 0 {
            return 0.0;
        }
        (self.cpp_time_ns as f64 - self.rust_time_ns as f64) / self.cpp_time_ns as f64
    }

    /// Whether to leave the library for this engine: it computes the same, and is not slower by more than a tenth. Never
    /// where nothing was measured.
    #[must_use]
    pub fn migration_recommended(&self) -> bool {
        self.accuracy_match
            && self.rust_time_ns.min(self.cpp_time_ns) > 0
            && self.performance_improvement() >= -0.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits of some positions, as different as a noise makes them.
    fn compare(noise: f32) -> Agreement {
        let mut comparison = Comparison::default();
        for position in 0..100_u32 {
            let of = |token: u32, by: f32| {
                let x = (position * 7919 + token * 104_729) % 1000;
                let wave = ((position + token * 31) as f32).sin();
                x as f32 / 100.0 + noise * by * wave
            };
            let ours: Vec<_> = (0..50).map(|token| of(token, 1.0)).collect();
            let theirs: Vec<_> = (0..50).map(|token| of(token, 0.0)).collect();
            comparison.add(&ours, &theirs, Some(position % 50));
        }
        comparison.agreement()
    }

    #[test]
    fn what_agrees_is_told_from_what_does_not() {
        let same = compare(0.0);
        assert_eq!((same.max_difference, same.mean_kl, same.min_cosine), (0.0, 0.0, 1.0));
        assert_eq!((same.same_top, same.positions, same.scored), (100, 100, 100));
        assert_eq!(same.verdict(), Verdict::Same);
        assert_eq!(compare(9e-4).verdict(), Verdict::Same);
        assert_eq!(compare(2e-3).verdict(), Verdict::Rounding);
        assert_eq!(compare(100.0).verdict(), Verdict::Different);
        let mut last = Verdict::Same;
        for step in 0..60 {
            let verdict = compare(1e-4 * 1.3_f32.powi(step)).verdict();
            assert!(verdict <= last, "more noise, and a better verdict");
            last = verdict;
        }
    }

    /// Predictions that shift where it does not matter.
    #[test]
    fn other_arithmetic_can_give_the_same_predictions() {
        let found = Agreement {
            positions: 100,
            max_difference: 2.0,
            rms_difference: 0.5,
            deviation: 2.0,
            min_cosine: 0.97,
            mean_kl: 0.01,
            max_kl: 0.2,
            same_top: 92,
            nats: [2.001, 2.0],
            scored: 99,
            nats_error: 0.001,
        };
        assert_eq!(found.verdict(), Verdict::Distribution);
        for other in [
            Agreement { mean_kl: 0.06, ..found },
            Agreement { nats: [2.1, 2.0], ..found },
            Agreement { positions: 0, ..found },
            Agreement { rms_difference: f64::NAN, ..found },
        ] {
            assert_eq!(other.verdict(), Verdict::Different, "{other:?}");
        }
        for alike in [
            Agreement { scored: 0, nats: [0.0; 2], ..found },
            Agreement { nats: [2.1, 2.0], nats_error: 0.04, ..found },
        ] {
            assert_eq!(alike.verdict(), Verdict::Distribution, "{alike:?}");
        }
        // Noise is told from a shift.
        let (noise, zero) = (compare(0.5), compare(0.0));
        assert!(noise.nats_error > 0.0 && zero.nats_error == 0.0, "{noise:?}");
    }

    #[test]
    fn what_is_no_number_never_agrees() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut comparison = Comparison::default();
            comparison.add(&[1.0, wrong, 2.0], &[1.0, 1.5, 2.0], Some(0));
            assert_eq!(comparison.agreement().verdict(), Verdict::Different, "{wrong}");
        }
        assert_eq!(Comparison::default().agreement().verdict(), Verdict::Different);
    }

    #[test]
    fn migration_follows_from_speed_and_agreement() {
        let compared = |rust_time_ns, cpp_time_ns, accuracy_match| PerformanceComparison {
            rust_time_ns,
            cpp_time_ns,
            accuracy_match,
            max_error: 0.0,
        };
        assert_eq!(compared(50, 100, true).performance_improvement(), 0.5);
        assert!(compared(50, 100, true).migration_recommended());
        assert!(compared(110, 100, true).migration_recommended());
        assert!(!compared(111, 100, true).migration_recommended());
        assert!(!compared(50, 100, false).migration_recommended());
        assert_eq!(compared(50, 0, true).performance_improvement(), 0.0);
        assert!(!compared(0, 0, true).migration_recommended());
    }
}
