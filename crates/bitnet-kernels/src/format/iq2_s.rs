//! IQ2_S of ggml: 256 numbers in 82 bytes. Eight numbers are an entry of a grid of 1024 and a byte of
//! signs; sixteen share a 4-bit scale.
//!
//! | bytes | of eight numbers `g`, of sixteen `h` |
//! |---|---|
//! | 0, 1 | an `f16` scale `d` |
//! | 2 to 33 | low eight bits of the entry of `g` in byte `g` |
//! | 34 to 65 | signs of `g` in byte `g`, lowest bit first |
//! | 66 to 73 | high two bits of the entry of `g` in byte `g / 4`, lowest first |
//! | 74 to 81 | scale of `h` in byte `h / 2`, low nibble first |
//!
//! The number is `d * (scale + 1/2) / 4 * magnitude`, which `f32` holds exactly. No magnitude is
//! zero: this is no ternary format, whatever its name suggests.

use half::f16;

use super::float::widen_half;
use super::iq2_s_grid::GRID;
use super::{Float, Format, FormatError};
use crate::simd::Floats;

const BLOCK: usize = 82;
/// The greatest factor of `d`: `(15 + 1/2) / 4`.
const MOST: f32 = 3.875;

pub(crate) struct Iq2S;

impl Float for Iq2S {
    const BYTES: usize = BLOCK;
    const CHUNKS: usize = 16;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let block = &row.as_chunks::<BLOCK>().0[i / 16];
        let chunk = i % 16;
        let mut q = [0; 16];
        for (half, q) in q.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let group = 2 * chunk + half;
            let high = block[66 + group / 4] >> (2 * (group % 4)) & 3;
            let entry = &GRID[usize::from(high) << 8 | usize::from(block[2 + group])];
            let signs = block[34 + group];
            for (e, (q, magnitude)) in q.iter_mut().zip(entry).enumerate() {
                // All ones where the sign is set: `(m ^ -1) - -1` is `-m`.
                let sign = (signs >> e & 1).wrapping_neg();
                *q = (magnitude ^ sign).wrapping_sub(sign);
            }
        }
        let d = widen_half([block[0], block[1]]);
        let scale = block[74 + chunk / 2] >> (4 * (chunk % 2)) & 15;
        s.mul(s.load_i8(&q), s.splat(factor(d, scale)))
    }
}

/// What magnitudes are multiplied by.
#[inline(always)]
fn factor(d: f32, scale: u8) -> f32 {
    d * ((f32::from(scale) + 0.5) * 0.25)
}

/// Numbers in IQ2_S: for sixteen numbers the scale, of some tried, and for eight the entry of the
/// grid that have the least square error.
///
/// # Errors
///
/// [`FormatError::Columns`] where `numbers` are not whole blocks of 256, [`FormatError::Number`] where
/// one is not finite or too great for an `f16` scale.
pub fn encode_iq2_s(numbers: &[f32]) -> Result<Vec<u8>, FormatError> {
    let (blocks, rest) = numbers.as_chunks::<256>();
    if !rest.is_empty() || numbers.is_empty() {
        let (format, cols) = (Format::Iq2S, numbers.len());
        return Err(FormatError::Columns { format, cols, multiple: 256 });
    }
    // The scale of a block is less than its greatest number divided by 8 times the greatest factor.
    let most = f16::MAX.to_f32() * 8.0 * MOST;
    if let Some(index) = numbers.iter().position(|x| !x.is_finite() || x.abs() > most) {
        return Err(FormatError::Number { index, value: numbers[index] });
    }
    let search = Search::new();
    Ok(blocks.iter().flat_map(|block| search.block(block)).collect())
}

/// The grid in the order that a search over all of it wants: by number, then by entry.
struct Search {
    numbers: Box<[[[f32; 16]; 64]; 8]>,
    /// Sum of squares of each entry.
    squares: Box<[[f32; 16]; 64]>,
}

impl Search {
    fn new() -> Search {
        let (mut numbers, mut squares) =
            (Box::new([[[0.0; 16]; 64]; 8]), Box::new([[0.0; 16]; 64]));
        for (i, entry) in GRID.iter().enumerate() {
            for (number, magnitude) in numbers.iter_mut().zip(entry) {
                number[i / 16][i % 16] = f32::from(*magnitude);
                squares[i / 16][i % 16] += f32::from(*magnitude).powi(2);
            }
        }
        Search { numbers, squares }
    }

    /// The entry that is nearest to eight absolute values divided by `factor`.
    fn entry(&self, x: &[f32; 8], factor: f32) -> usize {
        // Of `|x - f g|^2 = |x|^2 - f (2 x g - f g^2)` the last is to be great.
        let (mut best, mut at) = ([f32::NEG_INFINITY; 16], [0_u32; 16]);
        for (i, squares) in self.squares.iter().enumerate() {
            let mut score = squares.map(|square| -factor * square);
            for (x, number) in x.iter().zip(self.numbers.iter()) {
                for (score, g) in score.iter_mut().zip(&number[i]) {
                    *score += 2.0 * x * g;
                }
            }
            for lane in 0..16 {
                let better = score[lane] > best[lane];
                best[lane] = if better { score[lane] } else { best[lane] };
                at[lane] = if better { i as u32 } else { at[lane] };
            }
        }
        let lane = (1..16).fold(0, |a, b| if best[b] > best[a] { b } else { a });
        at[lane] as usize * 16 + lane
    }

    /// The factor with which sixteen absolute values are met best.
    fn factor(&self, x: &[[f32; 8]; 2]) -> f32 {
        let greatest = x.as_flattened().iter().copied().fold(0.0, f32::max);
        let (mut best, mut least) = (0.0, f32::INFINITY);
        // What the greatest value is divided by: about the greatest magnitude, as far as it does not
        // pay to cut it off, or lets most others be the least magnitude.
        for magnitude in [24.0, 32.0, 38.0, 43.0, 48.0] {
            let tried = greatest / magnitude;
            let entries = [self.entry(&x[0], tried), self.entry(&x[1], tried)];
            let (mut product, mut square) = (0.0, 0.0);
            for (x, entry) in x.iter().zip(entries) {
                for (x, g) in x.iter().zip(&GRID[entry]) {
                    product += x * f32::from(*g);
                    square += f32::from(*g).powi(2);
                }
            }
            // The best factor for these entries, and the error but for the sum of squares of `x`.
            let (factor, error) = (product / square, -product * product / square);
            if error < least {
                (best, least) = (factor, error);
            }
        }
        best
    }

    fn block(&self, numbers: &[f32; 256]) -> [u8; BLOCK] {
        let absolute = numbers.map(f32::abs);
        let sixteens = absolute.as_chunks::<8>().0.as_chunks::<2>().0;
        let mut factors = [0.0; 16];
        for (factor, x) in factors.iter_mut().zip(sixteens) {
            *factor = self.factor(x);
        }
        let mut block = [0; BLOCK];
        let d = f16::from_f32(factors.iter().copied().fold(0.0, f32::max) / MOST);
        block[..2].copy_from_slice(&d.to_le_bytes());
        let d = d.to_f32();
        for (i, (x, wanted)) in sixteens.iter().zip(factors).enumerate() {
            // A scale that is not a number, of a block of zeros, becomes 0.
            let scale = (4.0 * wanted / d - 0.5).round().clamp(0.0, 15.0) as u8;
            block[74 + i / 2] |= scale << (4 * (i % 2));
            for (half, x) in x.iter().enumerate() {
                let (group, entry) = (2 * i + half, self.entry(x, factor(d, scale)));
                block[2 + group] = entry as u8;
                block[66 + group / 4] |= ((entry >> 8) as u8) << (2 * (group % 4));
            }
        }
        for (signs, numbers) in block[34..66].iter_mut().zip(numbers.as_chunks::<8>().0) {
            *signs = (0..8).fold(0, |bits, e| bits | u8::from(numbers[e] < 0.0) << e);
        }
        block
    }
}
