//! Random weights. The sequences are part of the file format: they must not change.

use std::f64::consts::TAU;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A seed for each tensor.
pub(super) struct Seeds(Xoshiro256PlusPlus);

impl Seeds {
    pub(super) fn new(seed: u64) -> Seeds {
        Seeds(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// A byte below it is five base-3 digits.
const FIVE_TRITS: usize = 243;

/// The five weights a byte stands for.
const TRITS: [[i8; 5]; FIVE_TRITS] = {
    let mut table = [[0; 5]; FIVE_TRITS];
    let mut byte = 0;
    while byte < FIVE_TRITS {
        let (mut digits, mut i) = (byte, 0);
        while i < 5 {
            table[byte][i] = (digits % 3) as i8 - 1;
            digits /= 3;
            i += 1;
        }
        byte += 1;
    }
    table
};

/// `n` weights, -1, 0 and 1 equally likely.
pub(super) fn ternary(seed: u64, n: usize) -> Vec<i8> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut weights = Vec::with_capacity(n + 40);
    while weights.len() < n {
        for byte in random.next_u64().to_le_bytes() {
            if let Some(trits) = TRITS.get(usize::from(byte)) {
                weights.extend_from_slice(trits);
            }
        }
    }
    weights.truncate(n);
    weights
}

/// Numbers to draw from: 65,536 of a normal distribution with mean 0 and variance 1, so that one
/// draw takes sixteen random bits.
#[derive(Default)]
pub(super) struct Normals(Vec<f32>);

impl Normals {
    /// By the method of Box and Muller (1958).
    pub(super) fn new(seed: u64) -> Normals {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        // From 53 bits, never 0.
        let mut uniform = || ((random.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        let mut table = Vec::with_capacity(1 << 16);
        while table.len() < 1 << 16 {
            let radius = libm::sqrt(-2.0 * libm::log(uniform()));
            let angle = TAU * uniform();
            table.push((radius * libm::cos(angle)) as f32);
            table.push((radius * libm::sin(angle)) as f32);
        }
        Normals(table)
    }

    /// Draws without end.
    pub(super) fn iter(&self, seed: u64) -> impl Iterator<Item = f32> + '_ {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let four = move || {
            let bits = random.next_u64();
            [0, 16, 32, 48].map(|shift| self.0[usize::from((bits >> shift) as u16)])
        };
        std::iter::repeat_with(four).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_each_weight() {
        let weights = ternary(1, 300_000);
        assert_eq!(weights.len(), 300_000);
        for value in [-1, 0, 1] {
            let n = weights.iter().filter(|&&w| w == value).count();
            assert!((99_000..101_000).contains(&n), "{n} of {value}");
        }
        assert_ne!(weights, ternary(2, 300_000));
        assert_eq!(weights[..7], ternary(1, 7));
    }

    #[test]
    fn normal_numbers_are_normal() {
        let table = Normals::new(1);
        let numbers: Vec<f32> = table.iter(2).take(100_000).collect();
        let moment = |power: i32| {
            numbers.iter().map(|&x| f64::from(x).powi(power)).sum::<f64>() / numbers.len() as f64
        };
        // 0, 1, 0 and 3 are the moments of the distribution.
        for (power, want, near) in [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.1), (4, 3.0, 0.2)] {
            let found = moment(power);
            assert!((found - want).abs() < near, "moment {power}: {found}");
        }
        assert!(numbers.iter().all(|x| x.abs() < 6.0));
    }
}
