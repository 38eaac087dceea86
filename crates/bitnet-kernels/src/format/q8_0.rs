//! Q8_0 of ggml: an `f16` scale and 32 signed bytes; the number is their product.

use super::Float;
use super::float::widen_half;
use crate::simd::Floats;

pub(crate) struct Q8_0;

impl Float for Q8_0 {
    const BYTES: usize = 34;
    const CHUNKS: usize = 2;

    #[inline(always)]
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F {
        let block = &row.as_chunks::<34>().0[i / 2];
        let d = widen_half([block[0], block[1]]);
        let bytes = &block[2..].as_chunks::<16>().0[i % 2];
        s.mul(s.load_i8(bytes), s.splat(d))
    }
}
