//! IQ2_BN_R4 of ik_llama.cpp: of four rows the `f32` scales, then 64 codes of each in 64 bytes. Of row
//! `k`, lane `i` of field `s` of byte `16 l + 4 k + i` is element `16 l + 4 s + i`; field 0 is the two
//! lowest bits.

use super::{FormatError, OneScale, crumbs, invalid_crumb, iq2_bn};

/// Bytes of the scales of four rows.
const HEAD: usize = 4 * iq2_bn::HEAD;

/// The scales and the codes of each four rows.
fn split(bytes: &[u8], cols: usize) -> impl Iterator<Item = ([f32; 4], &[u8])> {
    bytes.chunks_exact(HEAD + cols).map(|rows| {
        let (head, codes) = rows.split_at(HEAD);
        let scale = |k: usize| f32::from_le_bytes(head.as_chunks().0[k]);
        (std::array::from_fn(scale), codes)
    })
}

/// The four bytes of row `k` in each sixteen of some codes.
fn fours(codes: &[u8], k: usize) -> impl Iterator<Item = &[u8; 4]> {
    codes.as_chunks::<16>().0.iter().map(move |sixteen| &sixteen.as_chunks().0[k])
}

pub(super) fn check(bytes: &[u8], cols: usize) -> Result<f32, FormatError> {
    let mut one = OneScale::default();
    for (i, (scales, codes)) in split(bytes, cols).enumerate() {
        let offset = i * (HEAD + cols);
        if let Some(within) = invalid_crumb(codes) {
            return Err(FormatError::Code { offset: offset + HEAD + within });
        }
        for (k, scale) in scales.into_iter().enumerate() {
            // Four codes of zero in each byte.
            let zeros = || fours(codes, k).all(|four| *four == [0x55; 4]);
            one.see(scale, offset + 4 * k, zeros)?;
        }
    }
    Ok(one.get())
}

pub(super) fn encode(weights: &[i8], cols: usize, d: f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / (4 * cols) * (HEAD + cols));
    for rows in weights.chunks_exact(4 * cols) {
        bytes.extend([d.to_le_bytes(); 4].as_flattened());
        for first in (0..cols).step_by(16) {
            for row in rows.chunks_exact(cols) {
                let code = |s: usize, i: usize| (row[first + 4 * s + i] + 1).cast_unsigned();
                bytes
                    .extend((0..4).map(|i| (0..4).fold(0, |byte, s| byte | code(s, i) << (2 * s))));
            }
        }
    }
    bytes
}

pub(super) fn decode(bytes: &[u8], cols: usize) -> Vec<i8> {
    let mut weights = Vec::with_capacity(bytes.len() * 4);
    for (_, codes) in split(bytes, cols) {
        for k in 0..4 {
            for four in fours(codes, k) {
                [0, 2, 4, 6].into_iter().for_each(|shift| weights.extend(crumbs(four, shift)));
            }
        }
    }
    weights
}
