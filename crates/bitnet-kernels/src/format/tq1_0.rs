//! TQ1_0 of ggml: 256 codes in 52 bytes and an `f16` scale. A byte holds five base-3 digits, the
//! first weighing most, as `ceil(v * 256 / 243)`: multiplying it by 3 pushes out a digit.
//!
//! | elements | bytes | element `e` |
//! |---|---|---|
//! | 0 to 159 | 0 to 31 | digit `e / 32` of byte `e % 32` |
//! | 160 to 239 | 32 to 47 | digit `(e - 160) / 16` of byte `32 + (e - 160) % 16` |
//! | 240 to 255 | 48 to 51 | digit `(e - 240) / 4` of byte `48 + (e - 240) % 4` |

use half::f16;

use super::{FormatError, Ternary, block_scale};
use crate::simd::Bytes;

const BLOCK: usize = 54;
/// First element, first byte, bytes and digits of each part of a block.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 0, 32, 5), (160, 32, 16, 5), (240, 48, 4, 4)];

pub(crate) struct Tq1_0;

impl Tq1_0 {
    /// Every byte decodes to ternary digits, so that only the scales can be wrong.
    pub(super) fn check(bytes: &[u8]) -> Result<f32, FormatError> {
        block_scale::<BLOCK>(bytes, Self::decode)
    }

    pub(super) fn encode(weights: &[i8], d: f32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(weights.len() / 256 * BLOCK);
        for block in weights.as_chunks::<256>().0 {
            for (element, _, lanes, digits) in PARTS {
                bytes.extend((0..lanes).map(|p| {
                    let digit = |n: usize| match n < digits {
                        true => u32::from((block[element + n * lanes + p] + 1).cast_unsigned()),
                        false => 0,
                    };
                    let v = (0..5).fold(0, |v, n| 3 * v + digit(n));
                    (256 * v).div_ceil(243) as u8
                }));
            }
            bytes.extend(f16::from_f32(d).to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Vec<i8> {
        let mut weights = Vec::with_capacity(bytes.len() / BLOCK * 256);
        for block in bytes.as_chunks::<BLOCK>().0 {
            for (_, byte, lanes, digits) in PARTS {
                for n in 0..digits {
                    let power = 3_u8.pow(n as u32);
                    weights.extend(block[byte..byte + lanes].iter().map(|b| {
                        let digit = (u16::from(b.wrapping_mul(power)) * 3) >> 8;
                        digit as i8 - 1
                    }));
                }
            }
        }
        weights
    }
}

/// A block in registers of 32 bytes whose next digits are always the first ones.
pub(crate) struct Digits<S: Bytes> {
    /// Bytes 0 to 31: planes 0 to 4.
    head: S::Vec,
    /// Bytes 32 to 47, and the same with a digit pushed out: planes 5 and 6.
    middle: S::Vec,
    /// Bytes 32 to 47 with four digits pushed out; bytes 48 to 51 with 0 to 3: plane 7.
    tail: S::Vec,
}

impl<S: Bytes> Clone for Digits<S> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: Bytes> Copy for Digits<S> {}

/// `[bytes 0..32, middle, tail]` of [`Digits`] for one row.
#[inline(always)]
fn split(block: &[u8; BLOCK]) -> [[u8; 32]; 3] {
    let mut parts = [[0; 32]; 3];
    parts[0].copy_from_slice(&block[..32]);
    for p in 0..16 {
        parts[1][p] = block[32 + p];
        parts[1][16 + p] = block[32 + p].wrapping_mul(3);
        parts[2][p] = block[32 + p].wrapping_mul(81);
    }
    for p in 0..4 {
        for (n, power) in [1, 3, 9, 27].into_iter().enumerate() {
            parts[2][16 + 4 * n + p] = block[48 + p].wrapping_mul(power);
        }
    }
    parts
}

impl Ternary for Tq1_0 {
    type Block = [u8; BLOCK];
    type Loaded<S: Bytes> = Digits<S>;
    const PLANES: usize = 8;

    #[inline(always)]
    fn blocks(bytes: &[u8]) -> &[[u8; BLOCK]] {
        bytes.as_chunks().0
    }

    #[inline(always)]
    fn load<S: Bytes>(s: S, first: &[u8; BLOCK], second: &[u8; BLOCK]) -> Digits<S> {
        let first = split(first);
        let second = if S::ROWS == 2 { split(second) } else { first };
        Digits {
            head: s.load(&first[0], &second[0]),
            middle: s.load(&first[1], &second[1]),
            tail: s.load(&first[2], &second[2]),
        }
    }

    #[inline(always)]
    fn plane<S: Bytes>(s: S, block: &mut Digits<S>, plane: usize) -> S::Vec {
        match plane {
            0..5 => {
                let codes = s.trits(block.head);
                block.head = s.triple(block.head);
                codes
            }
            5..7 => {
                let codes = s.trits(block.middle);
                block.middle = s.triple(s.triple(block.middle));
                codes
            }
            _ => s.trits(block.tail),
        }
    }
}
