//! What the weights of a ternary matrix are like.

use std::collections::HashSet;

use crate::TernaryMatrix;

/// What the weights of a ternary matrix are like.
///
/// ```no_run
/// use bitnet_inference::{Checkpoint, Contents, TernaryStatistics};
///
/// let checkpoint = Checkpoint::open("model.gguf")?;
/// let contents = Contents::new(&checkpoint, None)?;
/// let tensor = checkpoint.tensor("blk.0.attn_q.weight").expect("it is in all models");
/// let statistics = TernaryStatistics::of(&contents.matrix(tensor)?);
/// println!("{:.2} bits a weight", statistics.entropy());
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TernaryStatistics {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// What the weights are multiplied by.
    pub scale: f32,
    /// How many weights are -1, 0 and 1.
    pub counts: [usize; 3],
    /// Rows of zeros.
    pub zero_rows: usize,
    /// Rows that stand above already, rows of zeros not counted.
    pub duplicate_rows: usize,
}

impl TernaryStatistics {
    /// Those of a matrix.
    #[must_use]
    pub fn of(matrix: &TernaryMatrix) -> TernaryStatistics {
        let TernaryMatrix { rows, cols, ref weights, scale, .. } = *matrix;
        let mut counts = [0; 3];
        let (mut zero_rows, mut duplicate_rows) = (0, 0);
        let mut seen = HashSet::with_capacity(rows);
        for row in weights.chunks_exact(cols.max(1)) {
            let nonzero = row.iter().filter(|&&w| w != 0).count();
            let positive = row.iter().filter(|&&w| w > 0).count();
            let found = [nonzero - positive, row.len() - nonzero, positive];
            counts.iter_mut().zip(found).for_each(|(count, n)| *count += n);
            match nonzero {
                0 => zero_rows += 1,
                _ => duplicate_rows += usize::from(!seen.insert(row)),
            }
        }
        TernaryStatistics { rows, cols, scale, counts, zero_rows, duplicate_rows }
    }

    /// The shares of weights that are -1, 0 and 1; zero of none.
    #[must_use]
    pub fn shares(&self) -> [f64; 3] {
        let all = self.counts.iter().sum::<usize>().max(1) as f64;
        self.counts.map(|count| count as f64 / all)
    }

    /// Shannon's entropy of a weight, in bits: what it takes at least to store one, if they do not depend
    /// on each other; 1.585 where all three are equally likely.
    #[must_use]
    pub fn entropy(&self) -> f64 {
        let shares = self.shares().into_iter().filter(|&share| share > 0.0);
        -shares.map(|share| share * share.log2()).sum::<f64>() + 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(cols: usize, weights: &[i8]) -> TernaryMatrix {
        let rows = weights.len() / cols;
        TernaryMatrix { rows, cols, weights: weights.to_vec(), scale: 0.5, error: None }
    }

    #[test]
    fn weights_and_rows_are_counted() {
        let rows = [[1, 0, -1], [0, 0, 0], [1, 0, -1], [1, 1, 1], [0, 0, 0], [1, 0, -1]];
        let statistics = TernaryStatistics::of(&matrix(3, rows.as_flattened()));
        assert_eq!(statistics.counts, [3, 9, 6]);
        assert_eq!((statistics.zero_rows, statistics.duplicate_rows), (2, 2));
        assert_eq!(statistics.shares(), [1.0 / 6.0, 0.5, 1.0 / 3.0]);
    }

    #[test]
    fn entropy_is_that_of_a_weight() {
        let entropy = |weights: &[i8]| TernaryStatistics::of(&matrix(1, weights)).entropy();
        assert_eq!(entropy(&[0; 8]), 0.0);
        assert_eq!(entropy(&[0, 1]), 1.0);
        assert_eq!(entropy(&[0, 0, 1, -1]), 1.5);
        assert!((entropy(&[0, 1, -1]) - 3.0_f64.log2()).abs() < 1e-12);
    }
}
