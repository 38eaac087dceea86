//! TQ1_0 of ggml: 256 codes in 52 bytes and an `f16` scale. A byte holds five base-3 digits, the
//! first weighing most, as `ceil(v * 256 / 243)`: multiplying it by 3 pushes out a digit.
//!
//! | elements | bytes | element `e` |
//! |---|---|---|
//! | 0 to 159 | 0 to 31 | digit `e / 32` of byte `e % 32` |
//! | 160 to 239 | 32 to 47 | digit `(e - 160) / 16` of byte `32 + (e - 160) % 16` |
//! | 240 to 255 | 48 to 51 | digit `(e - 240) / 4` of byte `48 + (e - 240) % 4` |

use half::f16;

use super::{FormatError, block_scale};

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
