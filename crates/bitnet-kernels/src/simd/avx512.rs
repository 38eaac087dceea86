//! AVX-512: sixteen floats or sixteen rows in a register, `vpmaddubsw` into 16-bit lanes.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::{BOTH_SIGNS, Bytes, Floats, LANES, PANEL, TRIPLES, Token, dot_planes, token};
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
    const SUMS: usize = 8;

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
    fn load_i8(self, x: &[u8; LANES]) -> __m512 {
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
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_div_ps(a, b) }
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
    /// 32 `i16`, two a row.
    type Narrow = __m512i;
    type Crumbs = __m512i;
    /// Sixteen `i32`.
    type Sums = __m512i;
    const ROWS: usize = 16;
    const FULL: usize = Avx2::FULL;
    const TILE_REGISTERS: usize = 2;
    const TOGETHER: bool = true;
    const TILE_FOURS: usize = 3;
    const FEW: usize = 8;

    #[inline(always)]
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> __m512i {
        let part = &group.as_chunks::<64>().0[r];
        // SAFETY: `self` proves AVX-512F; the load is unaligned and is `part`.
        unsafe { _mm512_loadu_si512(part.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, v: __m512i, group: &mut [u8; 4 * PANEL], r: usize) {
        let part = &mut group.as_chunks_mut::<64>().0[r];
        // SAFETY: `self` proves AVX-512F; the store is unaligned and is `part`.
        unsafe { _mm512_storeu_si512(part.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 4]) -> __m512i {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned))) }
    }

    #[inline(always)]
    fn bits(self, v: __m512i, shift: u32, mask: u8) -> __m512i {
        // SAFETY: `self` proves AVX-512BW; registers only.
        unsafe {
            let shifted = _mm512_srl_epi16(v, _mm_cvtsi32_si128(shift.cast_signed()));
            _mm512_and_si512(shifted, _mm512_set1_epi8(mask.cast_signed()))
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
    fn no_crumbs(self) -> __m512i {
        self.narrow()
    }

    #[inline(always)]
    fn dot_crumbs<const N: usize>(self, acc: __m512i, v: __m512i, x: [&[i8; 4]; N]) -> __m512i {
        dot_planes(self, acc, v, x)
    }

    #[inline(always)]
    fn triples(self, magnitudes: __m512i, signs: __m512i, bit: u32) -> __m512i {
        // SAFETY: `self` proves AVX-512BW; the load is unaligned and is the table.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(TRIPLES.as_ptr().cast()));
            let codes = _mm512_shuffle_epi8(table, magnitudes);
            let bit = _mm512_set1_epi8((1_u8 << bit).cast_signed());
            let both = _mm512_set1_epi8(BOTH_SIGNS.cast_signed());
            _mm512_mask_sub_epi8(codes, _mm512_test_epi8_mask(signs, bit), both, codes)
        }
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
    fn widen_crumbs(self, acc: __m512i, crumbs: __m512i) -> __m512i {
        self.widen(acc, crumbs)
    }

    #[inline(always)]
    fn add_to(self, sums: __m512i, rows: &mut [i32; PANEL], r: usize) {
        let rows = &mut rows.as_chunks_mut::<16>().0[r];
        // SAFETY: `self` proves AVX-512F; load and store are unaligned and are `rows`.
        unsafe {
            let before = _mm512_loadu_si512(rows.as_ptr().cast());
            _mm512_storeu_si512(rows.as_mut_ptr().cast(), _mm512_add_epi32(before, sums));
        }
    }
}
