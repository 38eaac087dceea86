//! F32, F16 and BF16: sixteen numbers after sixteen numbers.

use super::Float;
use crate::simd::Floats;

pub(crate) struct F32;
pub(crate) struct F16;
pub(crate) struct Bf16;

impl Float for F32 {
    const BYTES: usize = 64;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let chunk = &row.as_chunks::<64>().0[i];
        let mut x = [0.0; 16];
        for (x, bytes) in x.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *x = f32::from_le_bytes(*bytes);
        }
        s.load(&x)
    }
}

impl Float for F16 {
    const BYTES: usize = 32;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        s.load_f16(&row.as_chunks::<32>().0[i])
    }
}

impl Float for Bf16 {
    const BYTES: usize = 32;
    const CHUNKS: usize = 1;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        s.load_bf16(&row.as_chunks::<32>().0[i])
    }
}
