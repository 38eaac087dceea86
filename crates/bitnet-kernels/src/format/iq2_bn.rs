//! IQ2_BN of ik_llama.cpp: the `f32` scale of a row, then 64 codes in 16 bytes. Lane `p` of field `g`
//! is element `16 g + p`; field 0 is the two lowest bits.

use super::{FormatError, OneScale, crumbs, invalid_crumb};

/// Bytes of the scale of a row.
pub(super) const HEAD: usize = 4;

/// The scale and the codes of each row.
fn split(bytes: &[u8], cols: usize) -> impl Iterator<Item = (f32, &[u8])> {
    bytes.chunks_exact(HEAD + cols / 4).map(|row| {
        let (head, codes) = row.split_at(HEAD);
        (f32::from_le_bytes([head[0], head[1], head[2], head[3]]), codes)
    })
}

pub(super) fn check(bytes: &[u8], cols: usize) -> Result<f32, FormatError> {
    let mut one = OneScale::default();
    for (row, (scale, codes)) in split(bytes, cols).enumerate() {
        let offset = row * (HEAD + cols / 4);
        if let Some(within) = invalid_crumb(codes) {
            return Err(FormatError::Code { offset: offset + HEAD + within });
        }
        // Four codes of zero.
        one.see(scale, offset, || codes.iter().all(|&byte| byte == 0x55))?;
    }
    Ok(one.get())
}

pub(super) fn encode(weights: &[i8], cols: usize, d: f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / cols * (HEAD + cols / 4));
    for row in weights.chunks_exact(cols) {
        bytes.extend(d.to_le_bytes());
        for block in row.as_chunks::<64>().0 {
            let code = |g: usize, p: usize| (block[16 * g + p] + 1).cast_unsigned();
            bytes.extend(
                (0..16).map(|p| code(0, p) | code(1, p) << 2 | code(2, p) << 4 | code(3, p) << 6),
            );
        }
    }
    bytes
}

pub(super) fn decode(bytes: &[u8], cols: usize) -> Vec<i8> {
    let mut weights = Vec::with_capacity(bytes.len() * 4);
    for (_, codes) in split(bytes, cols) {
        for block in codes.as_chunks::<16>().0 {
            for shift in [0, 2, 4, 6] {
                weights.extend(crumbs(block, shift));
            }
        }
    }
    weights
}
