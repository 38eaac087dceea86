//! BitNet32F16 of BitNet-rs: 32 codes in 8 bytes and an `f16` scale. Four weights in a row share a
//! byte, the first in the lowest bits, each as the code `t + 2`: 0, which is -2 there, stands for none.

use half::f16;

use super::{FormatError, block_scale};

const BLOCK: usize = 10;

pub(super) fn check(bytes: &[u8]) -> Result<f32, FormatError> {
    let zero = |byte: &u8| (byte | byte >> 1) & 0x55 != 0x55;
    for (i, block) in bytes.as_chunks::<BLOCK>().0.iter().enumerate() {
        if let Some(within) = block[..8].iter().position(zero) {
            return Err(FormatError::Code { offset: i * BLOCK + within });
        }
    }
    block_scale::<BLOCK>(bytes, decode)
}

pub(super) fn encode(weights: &[i8], d: f32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(weights.len() / 32 * BLOCK);
    for block in weights.as_chunks::<32>().0 {
        bytes.extend(
            block.as_chunks::<4>().0.iter().map(|four| {
                four.iter().rev().fold(0, |byte, t| byte << 2 | (t + 2).cast_unsigned())
            }),
        );
        bytes.extend(f16::from_f32(d).to_le_bytes());
    }
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Vec<i8> {
    let mut weights = Vec::with_capacity(bytes.len() / BLOCK * 32);
    for block in bytes.as_chunks::<BLOCK>().0 {
        for byte in &block[..8] {
            weights.extend([0, 2, 4, 6].map(|shift| ((byte >> shift) & 3).cast_signed() - 2));
        }
    }
    weights
}
