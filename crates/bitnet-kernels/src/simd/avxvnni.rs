//! AVX-VNNI: `vpdpbusd` on the registers of AVX2.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::{Bytes, PANEL, Token, token};
use crate::isa::Isa;

token! {
    /// Proof of what [`Avx2`] proves, and of VNNI.
    AvxVnni = Isa::AvxVnni,
    ["avx2" "fma" "f16c" "avxvnni"]
}

impl AvxVnni {
    /// The features without VNNI.
    #[inline(always)]
    fn avx2(self) -> Avx2 {
        // SAFETY: the features of `Avx2` are among those of `self`.
        unsafe { Avx2::assume() }
    }

    /// The bits of `v` that `mask` has in each byte.
    #[inline(always)]
    fn masked(self, v: __m256i, mask: u8) -> __m256i {
        // SAFETY: `self` proves the features; registers only.
        unsafe { _mm256_and_si256(v, _mm256_set1_epi8(mask.cast_signed())) }
    }
}

impl Bytes for AvxVnni {
    type Vec = __m256i;
    /// One `i32` a row.
    type Narrow = __m256i;
    /// Sums of the four planes, each too great by what its codes are shifted.
    type Crumbs = [__m256i; 4];
    type Sums = __m256i;
    const ROWS: usize = Avx2::ROWS;
    // A plane gains four products of at most 128 * -128: not more than `i32` holds.
    const FULL: usize = 1 << 16;
    const TILE_REGISTERS: usize = 1;
    const TILE_FOURS: usize = 3;

    #[inline(always)]
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> __m256i {
        Bytes::load(self.avx2(), group, r)
    }

    #[inline(always)]
    fn store(self, v: __m256i, group: &mut [u8; 4 * PANEL], r: usize) {
        Bytes::store(self.avx2(), v, group, r);
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 4]) -> __m256i {
        Bytes::splat(self.avx2(), x)
    }

    #[inline(always)]
    fn bits(self, v: __m256i, shift: u32, mask: u8) -> __m256i {
        self.avx2().bits(v, shift, mask)
    }

    #[inline(always)]
    fn narrow(self) -> __m256i {
        self.avx2().narrow()
    }

    #[inline(always)]
    fn dot(self, acc: __m256i, codes: __m256i, x: __m256i) -> __m256i {
        // SAFETY: `self` proves VNNI; registers only.
        unsafe { _mm256_dpbusd_avx_epi32(acc, codes, x) }
    }

    #[inline(always)]
    fn no_crumbs(self) -> Self::Crumbs {
        [self.narrow(); 4]
    }

    /// Codes stay where they are in the byte: there are no 16-bit lanes that they could overflow.
    #[inline(always)]
    fn dot_crumbs<const N: usize>(
        self,
        acc: Self::Crumbs,
        v: __m256i,
        x: [&[i8; 4]; N],
    ) -> Self::Crumbs {
        let masks = [0xC0, 0x30, 0x0C, 0x03];
        let mut acc = acc;
        for (x, plane) in x.into_iter().zip(4 - N..) {
            acc[plane] = self.dot(acc[plane], self.masked(v, masks[plane]), self.splat(x));
        }
        acc
    }

    #[inline(always)]
    fn triples(self, magnitudes: __m256i, signs: __m256i, bit: u32) -> __m256i {
        self.avx2().triples(magnitudes, signs, bit)
    }

    #[inline(always)]
    fn sums(self) -> __m256i {
        self.narrow()
    }

    #[inline(always)]
    fn widen(self, acc: __m256i, narrow: __m256i) -> __m256i {
        // SAFETY: `self` proves the features; registers only.
        unsafe { _mm256_add_epi32(acc, narrow) }
    }

    #[inline(always)]
    fn widen_crumbs(self, acc: __m256i, crumbs: Self::Crumbs) -> __m256i {
        // Sums of multiples: the divisions are exact.
        // SAFETY: `self` proves the features; registers only.
        let (a, b, c) = unsafe {
            (
                _mm256_srai_epi32::<6>(crumbs[0]),
                _mm256_srai_epi32::<4>(crumbs[1]),
                _mm256_srai_epi32::<2>(crumbs[2]),
            )
        };
        self.widen(acc, self.widen(self.widen(a, b), self.widen(c, crumbs[3])))
    }

    #[inline(always)]
    fn add_to(self, sums: __m256i, rows: &mut [i32; PANEL], r: usize) {
        self.avx2().add_to(sums, rows, r);
    }
}
