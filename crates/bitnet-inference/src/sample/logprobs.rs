//! Log-probabilities of tokens, as the model gives them.

use crate::Candidate;

/// How likely a token was, before anything was done to the logits.
#[derive(Clone, Debug, PartialEq)]
pub struct LogProbabilities {
    /// The natural logarithm of the probability of the token that was drawn.
    pub token: f32,
    /// The likeliest tokens, the first most, each with its own.
    pub top: Vec<(u32, f32)>,
}

impl LogProbabilities {
    /// Of `token` and the `top` likeliest, given all logits.
    pub(crate) fn new(logits: &[f32], token: u32, top: usize) -> LogProbabilities {
        let greatest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| libm::exp(f64::from(x - greatest))).sum();
        let log = |logit: f32| (f64::from(logit - greatest) - libm::log(sum)) as f32;
        let all = (0..).zip(logits).map(|(id, &logit)| Candidate { id, logit });
        let mut all: Vec<_> = all.collect();
        let order =
            |a: &Candidate, b: &Candidate| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id));
        if (1..all.len()).contains(&top) {
            all.select_nth_unstable_by(top - 1, order);
        }
        all.truncate(top);
        all.sort_unstable_by(order);
        LogProbabilities {
            token: log(logits[token as usize]),
            top: all.into_iter().map(|c| (c.id, log(c.logit))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_a_softmax() {
        let logits = [0.5_f32, 0.3, 0.15, 0.05].map(f32::ln);
        let found = LogProbabilities::new(&logits, 2, 2);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(found.token, 0.15_f32.ln()));
        assert_eq!(found.top.iter().map(|top| top.0).collect::<Vec<_>>(), [0, 1]);
        assert!(near(found.top[0].1, 0.5_f32.ln()) && near(found.top[1].1, 0.3_f32.ln()));
        assert!(LogProbabilities::new(&logits, 0, 0).top.is_empty());
        assert_eq!(LogProbabilities::new(&logits, 0, 9).top.len(), 4);
        // However great the logits are.
        let found = LogProbabilities::new(&[1e30, 0.0], 1, 1);
        assert_eq!((found.token, found.top[0]), (-1e30, (0, 0.0)));
    }
}
