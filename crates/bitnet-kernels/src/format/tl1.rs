//! TL1 of bitnet.cpp (made for NEON): two weights in 4 bits, as the index `3 t0 + t1 + 4`.
//!
//! A tile of `BM` rows and `BK` columns is strips of `bm` rows, a strip is steps of 64 bytes, a step
//! is `256 / bm` columns. Sixteen bytes of a step are sixteen rows of four columns: two pairs, the
//! first in the high nibble. Within a step columns go before rows. Tiles go along the rows of the
//! matrix.

use super::tiling::Tiled;
use super::{FormatError, first};

/// Bytes of a step.
const STEP: usize = 64;

/// The weights of each byte.
const WEIGHTS: [[i8; 4]; 256] = {
    let mut weights = [[0; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let (high, low) = (pair(byte >> 4), pair(byte & 15));
        weights[byte] = [high[0], high[1], low[0], low[1]];
        byte += 1;
    }
    weights
};

/// The weights of an index; anything for one that stands for none.
const fn pair(index: usize) -> [i8; 2] {
    [(index / 3) as i8 - 1, (index % 3) as i8 - 1]
}

/// Four weights of a row in one byte.
#[inline]
pub(super) fn pack(weights: &[i8]) -> u8 {
    let index = |i: usize| (3 * weights[i] + weights[i + 1] + 4).cast_unsigned();
    index(0) << 4 | index(2)
}

/// The four weights of one byte.
#[inline]
pub(super) fn unpack(byte: u8) -> [i8; 4] {
    WEIGHTS[usize::from(byte)]
}

/// Every index must be one.
pub(super) fn check(codes: &[u8]) -> Result<(), FormatError> {
    match first(codes, |byte| byte >= 9 << 4 || byte & 15 >= 9) {
        Some(offset) => Err(FormatError::Index { offset, value: codes[offset] }),
        None => Ok(()),
    }
}

/// Calls `f` with the place of each byte, and that of its four weights in the matrix.
#[inline(always)]
fn each_byte(tiled: &Tiled, mut f: impl FnMut(usize, usize)) {
    let (strip, cols) = (tiled.tiling.strip, tiled.cols);
    let across = cols / tiled.tiling.cols;
    let (step_cols, tile_steps) = (256 / strip, tiled.tiling.cols * strip / 256);
    for first in (0..tiled.rows).step_by(strip) {
        let (tile, within) = tiled.place(first / strip);
        let strips = tiled.tiling.rows / strip;
        for tile_across in 0..across {
            let start = ((tile * across + tile_across) * strips + within) * tile_steps;
            for step in 0..tile_steps {
                let col = tile_across * tiled.tiling.cols + step * step_cols;
                for sixteen in 0..4 {
                    let (rows, quad) = (sixteen * 4 / step_cols, sixteen % (step_cols / 4));
                    let byte = (start + step) * STEP + sixteen * 16;
                    let weight = (first + rows * 16) * cols + col + 4 * quad;
                    for row in 0..16 {
                        f(byte + row, weight + row * cols);
                    }
                }
            }
        }
    }
}

pub(super) fn encode(tiled: &Tiled, weights: &[i8], codes: &mut [u8]) {
    each_byte(tiled, |byte, weight| codes[byte] = pack(&weights[weight..][..4]));
}

pub(super) fn decode(tiled: &Tiled, codes: &[u8], weights: &mut [i8]) {
    each_byte(tiled, |byte, weight| {
        weights[weight..][..4].copy_from_slice(&unpack(codes[byte]));
    });
}
