//! IQ1_BN of ik_llama.cpp: the `f16` scale of a row, then 64 codes in 13 bytes. A byte holds five
//! base-3 digits as in TQ1_0, but the first weighs least. Of element `16 g + u`, digit `u % 5` is in
//! byte `3 g + u / 5`; those with `u = 15` are digit `g` of the last byte.

use half::f16;

use super::tq1_0::{digit, pack};
use super::{FormatError, OneScale};

/// Bytes of the scale of a row.
pub(super) const HEAD: usize = 2;
const BLOCK: usize = 13;

/// The scale and the codes of each row.
fn split(bytes: &[u8], cols: usize) -> impl Iterator<Item = (f32, &[u8])> {
    bytes.chunks_exact(HEAD + cols / 64 * BLOCK).map(|row| {
        let (head, codes) = row.split_at(HEAD);
        (f16::from_le_bytes([head[0], head[1]]).to_f32(), codes)
    })
}

/// Every byte decodes to ternary digits, so that only the scales can be wrong.
pub(super) fn check(bytes: &[u8], cols: usize) -> Result<f32, FormatError> {
    let mut one = OneScale::default();
    for (row, (scale, codes)) in split(bytes, cols).enumerate() {
        let offset = row * (HEAD + cols / 64 * BLOCK);
        let zeros = || codes.as_chunks().0.iter().all(|block| weights(block) == [0; 64]);
        one.see(scale, offset, zeros)?;
    }
    Ok(one.get())
}

pub(super) fn encode(weights: &[i8], cols: usize, d: f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / cols * (HEAD + cols / 64 * BLOCK));
    for row in weights.chunks_exact(cols) {
        bytes.extend(f16::from_f32(d).to_le_bytes());
        for block in row.as_chunks::<64>().0 {
            for sixteen in block.as_chunks::<16>().0 {
                bytes.extend(
                    sixteen.as_chunks::<5>().0.iter().map(|&[a, b, c, d, e]| pack([e, d, c, b, a])),
                );
            }
            // The digit that is left is no weight, and zero: the code of -1.
            bytes.push(pack([-1, block[63], block[47], block[31], block[15]]));
        }
    }
    bytes
}

pub(super) fn decode(bytes: &[u8], cols: usize) -> Vec<i8> {
    let mut out = Vec::with_capacity(bytes.len() / BLOCK * 64);
    for (_, codes) in split(bytes, cols) {
        out.extend(codes.as_chunks().0.iter().flat_map(weights));
    }
    out
}

/// The weights of a block.
fn weights(block: &[u8; BLOCK]) -> [i8; 64] {
    std::array::from_fn(|e| match (e / 16, e % 16) {
        (g, 15) => digit(block[BLOCK - 1], 4 - g),
        (g, u) => digit(block[3 * g + u / 5], 4 - u % 5),
    })
}
