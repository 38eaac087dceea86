//! Bytes of Hugging Face checkpoints (`uint8` tensors `[rows / 4, cols]` of transformers' BitNet):
//! field `i` of byte row `r`, field 0 in the two lowest bits, is row `r + i rows / 4`. The scale is
//! a tensor of its own.

use std::ops::Range;

use super::{FormatError, crumbs, invalid_crumb};

pub(super) fn check(bytes: &[u8]) -> Result<f32, FormatError> {
    match invalid_crumb(bytes) {
        Some(offset) => Err(FormatError::Code { offset }),
        None => Ok(1.0),
    }
}

pub(super) fn encode(weights: &[i8]) -> Vec<u8> {
    let mut bytes = vec![0; weights.len() / 4];
    for (i, quarter) in weights.chunks_exact(bytes.len().max(1)).enumerate() {
        for (byte, t) in bytes.iter_mut().zip(quarter) {
            *byte |= (t + 1).cast_unsigned() << (2 * i);
        }
    }
    bytes
}

pub(super) fn decode(bytes: &[u8], (rows, cols): (usize, usize), range: Range<usize>) -> Vec<i8> {
    let (mut weights, quarter) = (Vec::with_capacity(range.len() * cols), rows / 4);
    for row in range {
        let codes = &bytes[row % quarter * cols..][..cols];
        weights.extend(crumbs(codes, 2 * (row / quarter)));
    }
    weights
}
