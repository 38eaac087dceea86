//! TQ2_0 of ggml: 256 codes in 64 bytes and an `f16` scale. Each half of the 64 bytes holds 128
//! codes: lane `p` of field `g` is element `32 g + p`; field 0 is the two lowest bits.

use half::f16;

use super::{FormatError, block_scale, crumbs, invalid_crumb};

const BLOCK: usize = 66;

pub(super) fn check(bytes: &[u8]) -> Result<f32, FormatError> {
    let blocks = bytes.as_chunks::<BLOCK>().0;
    // The scale may hold any bits, so each block's codes are looked at alone.
    let bad = |block: &[u8; BLOCK]| {
        block[..64].iter().fold(0, |seen, &b| seen | (b & (b >> 1) & 0x55)) != 0
    };
    if let Some(i) = blocks.iter().position(bad) {
        let within = invalid_crumb(&blocks[i][..64]).unwrap_or(0);
        return Err(FormatError::Code { offset: i * BLOCK + within });
    }
    block_scale::<BLOCK>(bytes, decode)
}

pub(super) fn encode(weights: &[i8], d: f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / 256 * BLOCK);
    for block in weights.as_chunks::<256>().0 {
        for half in block.as_chunks::<128>().0 {
            let code = |g: usize, p: usize| (half[32 * g + p] + 1).cast_unsigned();
            bytes.extend(
                (0..32).map(|p| code(0, p) | code(1, p) << 2 | code(2, p) << 4 | code(3, p) << 6),
            );
        }
        bytes.extend(f16::from_f32(d).to_le_bytes());
    }
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Vec<i8> {
    let mut weights = Vec::with_capacity(bytes.len() / BLOCK * 256);
    for block in bytes.as_chunks::<BLOCK>().0 {
        for half in block[..64].as_chunks::<32>().0 {
            for shift in [0, 2, 4, 6] {
                weights.extend(crumbs(half, shift));
            }
        }
    }
    weights
}
