//! AVX2: two registers of eight floats; eight rows a register, `vpmaddubsw` into 16-bit lanes.

use std::arch::x86_64::*;

use super::{BOTH_SIGNS, Bytes, Floats, LANES, PANEL, TRIPLES, dot_planes, token};
use crate::isa::Isa;

token! {
    /// Proof of AVX2, FMA and F16C.
    Avx2 = Isa::Avx2, ["avx2" "fma" "f16c"]
}

/// Applies an intrinsic to both halves.
macro_rules! both {
    ($f:ident($($v:ident),+)) => {
        // SAFETY: `self` proves the features; the intrinsic works on registers only.
        unsafe { ($f($($v.0),+), $f($($v.1),+)) }
    };
}

/// The lanes of the low and the high half of `v`, added by `f`, down to one.
macro_rules! fold {
    ($v:ident, $wide:ident, $half:ident, $one:ident) => {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe {
            let v = $wide($v.0, $v.1);
            let v = $half(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v = $half(v, _mm_movehl_ps(v, v));
            _mm_cvtss_f32($one(v, _mm_movehdup_ps(v)))
        }
    };
}

impl Floats for Avx2 {
    type F = (__m256, __m256);
    const SUMS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves AVX2; registers only.
        let v = unsafe { _mm256_set1_ps(x) };
        (v, v)
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        // SAFETY: `self` proves AVX2; the loads are unaligned and within `x`.
        unsafe { (_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))) }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F {
        // SAFETY: `self` proves F16C; the loads are unaligned and within `x`.
        unsafe {
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x.as_ptr().add(16).cast());
            (_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F {
        // SAFETY: `self` proves AVX2; the loads are unaligned and within `x`.
        unsafe {
            let widen = |half: __m128i| {
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(half)))
            };
            let low = _mm_loadu_si128(x.as_ptr().cast());
            let high = _mm_loadu_si128(x.as_ptr().add(16).cast());
            (widen(low), widen(high))
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::F {
        // SAFETY: `self` proves AVX2; the load is unaligned and is `x`.
        unsafe {
            let v = _mm_loadu_si128(x.as_ptr().cast());
            let low = _mm256_cvtepi8_epi32(v);
            let high = _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(v, v));
            (_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high))
        }
    }

    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX2; the stores are unaligned and within `out`.
        unsafe {
            _mm256_storeu_ps(out.as_mut_ptr(), v.0);
            _mm256_storeu_ps(out.as_mut_ptr().add(8), v.1);
        }
    }

    #[inline(always)]
    fn store_i8(self, v: Self::F, out: &mut [i8; LANES]) {
        // SAFETY: `self` proves AVX2; the store is unaligned and is `out`.
        unsafe {
            let (low, high) = (_mm256_cvtps_epi32(v.0), _mm256_cvtps_epi32(v.1));
            // `packs` works in 128-bit halves: quarters 0 2 1 3 come out, and are put in order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
            let (low, high) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        both!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        both!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            (_mm256_andnot_ps(sign, a.0), _mm256_andnot_ps(sign, a.1))
        }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        // SAFETY: `self` proves AVX2; registers only.
        unsafe { (_mm256_round_ps::<NEAREST>(a.0), _mm256_round_ps::<NEAREST>(a.1)) }
    }

    #[inline(always)]
    fn exp2(self, n: Self::F) -> Self::F {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe {
            let power = |n: __m256| {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
            };
            (power(n.0), power(n.1))
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        fold!(v, _mm256_add_ps, _mm_add_ps, _mm_add_ss)
    }

    #[inline(always)]
    fn greatest(self, v: Self::F) -> f32 {
        fold!(v, _mm256_max_ps, _mm_max_ps, _mm_max_ss)
    }
}

impl Bytes for Avx2 {
    type Vec = __m256i;
    /// Sixteen `i16`, two a row.
    type Narrow = __m256i;
    type Crumbs = __m256i;
    /// Eight `i32`.
    type Sums = __m256i;
    const ROWS: usize = 8;
    // A lane gains two products of at most 2 * -128: 64 times fills an `i16` exactly.
    const FULL: usize = 64;
    const TILE_REGISTERS: usize = 2;
    const TOGETHER: bool = true;
    const TILE_FOURS: usize = 1;
    const FEW: usize = 4;

    #[inline(always)]
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> __m256i {
        let part = &group.as_chunks::<32>().0[r];
        // SAFETY: `self` proves AVX2; the load is unaligned and is `part`.
        unsafe { _mm256_loadu_si256(part.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, v: __m256i, group: &mut [u8; 4 * PANEL], r: usize) {
        let part = &mut group.as_chunks_mut::<32>().0[r];
        // SAFETY: `self` proves AVX2; the store is unaligned and is `part`.
        unsafe { _mm256_storeu_si256(part.as_mut_ptr().cast(), v) }
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 4]) -> __m256i {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe { _mm256_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned))) }
    }

    #[inline(always)]
    fn bits(self, v: __m256i, shift: u32, mask: u8) -> __m256i {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe {
            let shifted = _mm256_srl_epi16(v, _mm_cvtsi32_si128(shift.cast_signed()));
            _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
        }
    }

    #[inline(always)]
    fn narrow(self) -> __m256i {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe { _mm256_add_epi16(acc, _mm256_maddubs_epi16(codes, x)) }
    }

    #[inline(always)]
    fn no_crumbs(self) -> __m256i {
        self.narrow()
    }

    #[inline(always)]
    fn dot_crumbs<const N: usize>(self, acc: __m256i, v: __m256i, x: [&[i8; 4]; N]) -> __m256i {
        dot_planes(self, acc, v, x)
    }

    #[inline(always)]
    fn triples(self, magnitudes: __m256i, signs: __m256i, bit: u32) -> __m256i {
        // SAFETY: `self` proves AVX2; the load is unaligned and is the table.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(TRIPLES.as_ptr().cast()));
            let codes = _mm256_shuffle_epi8(table, magnitudes);
            let bit = _mm256_set1_epi8((1_u8 << bit).cast_signed());
            let negative = _mm256_cmpeq_epi8(_mm256_and_si256(signs, bit), bit);
            // `both - codes` is `!codes + both + 1`.
            let both = _mm256_set1_epi8((BOTH_SIGNS + 1).cast_signed());
            let flipped = _mm256_xor_si256(codes, negative);
            _mm256_add_epi8(flipped, _mm256_and_si256(negative, both))
        }
    }

    #[inline(always)]
    fn sums(self) -> __m256i {
        self.narrow()
    }

    #[inline(always)]
    fn widen(self, acc: __m256i, narrow: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2; registers only.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(narrow, _mm256_set1_epi16(1))) }
    }

    #[inline(always)]
    fn widen_crumbs(self, acc: __m256i, crumbs: __m256i) -> __m256i {
        self.widen(acc, crumbs)
    }

    #[inline(always)]
    fn add_to(self, sums: __m256i, rows: &mut [i32; PANEL], r: usize) {
        let rows = &mut rows.as_chunks_mut::<8>().0[r];
        // SAFETY: `self` proves AVX2; load and store are unaligned and are `rows`.
        unsafe {
            let before = _mm256_loadu_si256(rows.as_ptr().cast());
            _mm256_storeu_si256(rows.as_mut_ptr().cast(), _mm256_add_epi32(before, sums));
        }
    }
}
