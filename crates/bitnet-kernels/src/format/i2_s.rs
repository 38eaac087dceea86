//! I2_S of bitnet.cpp: 128 codes in 32 bytes. Lane `p` of field `g` is element `32 g + p`; field 0
//! is the two highest bits. Behind all blocks follow the `f32` scale and 28 bytes without meaning.
//!
//! Blocks run over the flattened matrix; with columns a multiple of 128 a row is whole blocks.

use super::{FormatError, invalid_crumb};

/// Bytes behind the codes.
pub(crate) const TAIL: usize = 32;

pub(crate) struct I2S;

impl I2S {
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

    pub(super) fn encode(weights: &[i8], d: f32) -> Vec<u8> {
        let mut bytes = Self::encode_rows(weights);
        bytes.extend(d.to_le_bytes());
        bytes.extend([0; TAIL - 4]);
        bytes
    }

    /// The codes without the tail.
    pub(crate) fn encode_rows(weights: &[i8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(weights.len() / 4 + TAIL);
        for block in weights.as_chunks::<128>().0 {
            let code = |g: usize, p: usize| (block[32 * g + p] + 1).cast_unsigned();
            let byte = |p| code(0, p) << 6 | code(1, p) << 4 | code(2, p) << 2 | code(3, p);
            bytes.extend_from_slice(&std::array::from_fn::<u8, 32, _>(byte));
        }
        bytes
    }

    pub(super) fn decode(codes: &[u8]) -> Vec<i8> {
        let mut weights = Vec::with_capacity(codes.len() * 4);
        for block in codes.as_chunks::<32>().0 {
            for shift in [6, 4, 2, 0] {
                weights.extend(block.iter().map(|b| ((b >> shift) & 3).cast_signed() - 1));
            }
        }
        weights
    }
}
