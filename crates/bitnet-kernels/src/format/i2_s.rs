//! I2_S of bitnet.cpp: 128 codes in 32 bytes. Lane `p` of field `g` is element `32 g + p`; field 0
//! is the two highest bits. Behind all blocks follow the `f32` scale and 28 bytes without meaning.
//!
//! Blocks run over the flattened matrix; with columns a multiple of 128 a row is whole blocks.
//!
//! Two other layouts go by the same name. Builds for ARM have blocks of 64 codes in 16 bytes, lane
//! `p` of field `g` element `16 g + p`. Builds without `ACT_PARALLEL` put row `4 r + g` into field `g`
//! of as many bytes as there are columns.

use std::ops::Range;

use super::{FormatError, crumbs, invalid_crumb};

/// Bytes behind the codes.
pub(super) const TAIL: usize = 32;
/// Where the fields of a byte start.
const SHIFTS: [usize; 4] = [6, 4, 2, 0];

/// Any of the three layouts.
pub(super) fn check(bytes: &[u8]) -> Result<f32, FormatError> {
    let (codes, tail) = bytes.split_at(bytes.len() - TAIL);
    if let Some(offset) = invalid_crumb(codes) {
        return Err(FormatError::Code { offset });
    }
    let value = f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    if !value.is_finite() {
        return Err(FormatError::Scale { offset: codes.len(), value });
    }
    Ok(value)
}

/// The codes with the tail.
pub(super) fn encode(mut codes: Vec<u8>, d: f32) -> Vec<u8> {
    codes.extend(d.to_le_bytes());
    codes.extend([0; TAIL - 4]);
    codes
}

/// Blocks of I2_S, without the tail.
pub(crate) fn blocks(weights: &[i8]) -> Vec<u8> {
    fields::<32>(weights.as_chunks::<128>().0.iter().map(|block| &block[..]))
}

/// Blocks as builds for ARM have them, without the tail.
pub(super) fn arm_blocks(weights: &[i8]) -> Vec<u8> {
    fields::<16>(weights.as_chunks::<64>().0.iter().map(|block| &block[..]))
}

/// Four times `N` weights of each block in `N` bytes.
fn fields<'a, const N: usize>(blocks: impl ExactSizeIterator<Item = &'a [i8]>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks.len() * N + TAIL);
    for block in blocks {
        let fields: [&[i8; N]; 4] = std::array::from_fn(|g| &block.as_chunks().0[g]);
        bytes.extend_from_slice(&std::array::from_fn::<u8, N, _>(|p| byte(fields.map(|f| f[p]))));
    }
    bytes
}

/// Four weights, the first in the highest bits.
#[inline(always)]
fn byte(weights: [i8; 4]) -> u8 {
    weights.into_iter().fold(0, |byte, t| byte << 2 | (t + 1).cast_unsigned())
}

/// Weights of a flattened matrix in blocks of `N` bytes.
pub(super) fn decode<const N: usize>(codes: &[u8], range: Range<usize>) -> Vec<i8> {
    let (first, end) = (range.start / (4 * N), range.end.div_ceil(4 * N));
    let mut weights = Vec::with_capacity((end - first) * 4 * N);
    for block in &codes.as_chunks::<N>().0[first..end] {
        SHIFTS.into_iter().for_each(|shift| weights.extend(crumbs(block, shift)));
    }
    // What the blocks have of other rows.
    weights.truncate(range.end - first * 4 * N);
    weights.drain(..range.start - first * 4 * N);
    weights
}

/// Four rows in as many bytes as one has columns, without the tail.
pub(super) fn fours_of_rows(weights: &[i8], cols: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / 4 + TAIL);
    for rows in weights.chunks_exact(4 * cols) {
        bytes.extend((0..cols).map(|k| byte(std::array::from_fn(|g| rows[g * cols + k]))));
    }
    bytes
}

/// Some rows of what [`fours_of_rows`] gives.
pub(super) fn decode_fours_of_rows(codes: &[u8], cols: usize, rows: Range<usize>) -> Vec<i8> {
    let mut weights = Vec::with_capacity(rows.len() * cols);
    for row in rows {
        weights.extend(crumbs(&codes[row / 4 * cols..][..cols], SHIFTS[row % 4]));
    }
    weights
}
