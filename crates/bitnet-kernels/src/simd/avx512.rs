//! AVX-512: sixteen floats in one register, 32 columns of two rows in another.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::{Bytes, Floats, LANES, Token, token};
use crate::isa::Isa;

token! {
    /// Proof of AVX-512 F, BW, DQ and VL, and of AVX2, FMA and F16C.
    Avx512 = Isa::Avx512, ["avx512f" "avx512bw" "avx512dq" "avx512vl" "avx2" "fma" "f16c"]
}

impl Avx512 {
    /// A processor with AVX-512 has AVX2; the token asks for both.
    #[inline(always)]
    fn avx2(self) -> Avx2 {
        // SAFETY: the features of `Avx2` are among those of `self`.
        unsafe { Avx2::assume() }
    }
}

impl Floats for Avx512 {
    type F = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the load is unaligned and is `x`.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the load is unaligned and is `x`.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the load is unaligned and is `x`.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> __m512 {
        // SAFETY: `self` proves AVX-512F; the load is unaligned and is `x`.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(x.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX-512F; the store is unaligned and is `out`.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn store_i8(self, v: __m512, out: &mut [i8; LANES]) {
        // SAFETY: `self` proves AVX-512F; the store is unaligned and is `out`.
        unsafe {
            let bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn abs(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_abs_ps(a) }
    }

    #[inline(always)]
    fn round(self, a: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }

    #[inline(always)]
    fn exp2(self, n: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased))
        }
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        self.avx2().sum(self.halves(v))
    }

    #[inline(always)]
    fn greatest(self, v: __m512) -> f32 {
        self.avx2().greatest(self.halves(v))
    }
}

impl Avx512 {
    /// Lanes 0 to 7 and 8 to 15.
    #[inline(always)]
    fn halves(self, v: __m512) -> (__m256, __m256) {
        // SAFETY: `self` proves AVX-512DQ; registers only.
        unsafe { (_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v)) }
    }
}

impl Bytes for Avx512 {
    type Vec = __m512i;
    /// Sixteen `i16` of each row.
    type Narrow = __m512i;
    /// Eight `i32` of each row.
    type Sums = __m512i;
    const ROWS: usize = 2;
    const FULL: usize = Avx2::FULL;

    #[inline(always)]
    fn load(self, first: &[u8; 32], second: &[u8; 32]) -> __m512i {
        // SAFETY: `self` proves AVX-512F; the loads are unaligned, of 32 bytes each.
        unsafe {
            let first = _mm256_loadu_si256(first.as_ptr().cast());
            let second = _mm256_loadu_si256(second.as_ptr().cast());
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
        }
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 32]) -> __m512i {
        // SAFETY: `self` proves AVX-512F; the load is unaligned and is `x`.
        unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn crumbs(self, v: __m512i, shift: u32) -> __m512i {
        // SAFETY: `self` proves AVX-512BW; registers only.
        unsafe {
            let shifted = _mm512_srl_epi16(v, _mm_cvtsi32_si128(shift.cast_signed()));
            _mm512_and_si512(shifted, _mm512_set1_epi8(3))
        }
    }

    #[inline(always)]
    fn triple(self, v: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512BW; registers only.
        unsafe { _mm512_add_epi8(v, _mm512_add_epi8(v, v)) }
    }

    #[inline(always)]
    fn trits(self, v: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512BW; registers only.
        unsafe {
            // 3v reaches 256 at 86 and 512 at 171.
            let one = _mm512_set1_epi8(1);
            let from_86 = _mm512_cmpge_epu8_mask(v, _mm512_set1_epi8(86));
            let from_171 = _mm512_cmpge_epu8_mask(v, _mm512_set1_epi8(171_u8.cast_signed()));
            let trit = _mm512_maskz_mov_epi8(from_86, one);
            _mm512_mask_add_epi8(trit, from_171, trit, one)
        }
    }

    #[inline(always)]
    fn narrow(self) -> __m512i {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512BW; registers only.
        unsafe { _mm512_add_epi16(acc, _mm512_maddubs_epi16(codes, x)) }
    }

    #[inline(always)]
    fn sums(self) -> __m512i {
        self.narrow()
    }

    #[inline(always)]
    fn widen(self, acc: __m512i, narrow: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512BW; registers only.
        unsafe { _mm512_add_epi32(acc, _mm512_madd_epi16(narrow, _mm512_set1_epi16(1))) }
    }

    #[inline(always)]
    fn totals(self, sums: __m512i) -> [i32; 2] {
        // SAFETY: `self` proves AVX-512F; registers only.
        let (first, second) =
            unsafe { (_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64::<1>(sums)) };
        [self.avx2().total(first), self.avx2().total(second)]
    }
}
