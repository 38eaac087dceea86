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

/// Every byte decodes to ternary digits, so that only the scales can be wrong.
pub(super) fn check(bytes: &[u8]) -> Result<f32, FormatError> {
    block_scale::<BLOCK>(bytes, decode)
}

/// Five weights in a byte.
pub(super) fn pack(weights: [i8; 5]) -> u8 {
    let v = weights.into_iter().fold(0, |v, t| 3 * v + u32::from((t + 1).cast_unsigned()));
    (256 * v).div_ceil(243) as u8
}

/// The weight that digit `n` of a byte, the first weighing most, stands for.
#[inline(always)]
pub(super) fn digit(byte: u8, n: usize) -> i8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let rest = byte.wrapping_mul(POWERS[n]);
    ((u16::from(rest) * 3) >> 8) as i8 - 1
}

pub(super) fn encode(weights: &[i8], d: f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / 256 * BLOCK);
    for block in weights.as_chunks::<256>().0 {
        for (element, _, lanes, digits) in PARTS {
            bytes.extend((0..lanes).map(|p| {
                pack(std::array::from_fn(|n| match n < digits {
                    true => block[element + n * lanes + p],
                    // A digit that is no weight is zero: the code of -1.
                    false => -1,
                }))
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
                weights.extend(block[byte..byte + lanes].iter().map(|&byte| digit(byte, n)));
            }
        }
    }
    weights
}
