//! AVX-512 VNNI: `vpdpbusd` multiplies bytes and adds fours straight into `i32` lanes.

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::{Bytes, PANEL, Token, token};
use crate::isa::Isa;

token! {
    /// Proof of what [`Avx512`] proves, and of VNNI.
    Avx512Vnni = Isa::Avx512Vnni,
    ["avx512f" "avx512bw" "avx512dq" "avx512vl" "avx2" "fma" "f16c" "avx512vnni"]
}

impl Avx512Vnni {
    /// The features without VNNI.
    #[inline(always)]
    fn avx512(self) -> Avx512 {
        // SAFETY: the features of `Avx512` are among those of `self`.
        unsafe { Avx512::assume() }
    }

    /// The bits of `v` that `mask` has in each byte.
    #[inline(always)]
    fn masked(self, v: __m512i, mask: u8) -> __m512i {
        // SAFETY: `self` proves the features; registers only.
        unsafe { _mm512_and_si512(v, _mm512_set1_epi8(mask.cast_signed())) }
    }
}

impl Bytes for Avx512Vnni {
    type Vec = __m512i;
    /// One `i32` a row.
    type Narrow = __m512i;
    /// Sums of the four planes, each too great by what its codes are shifted.
    type Crumbs = [__m512i; 4];
    type Sums = __m512i;
    const ROWS: usize = Avx512::ROWS;
    // A plane gains four products of at most 128 * -128: not more than `i32` holds.
    const FULL: usize = 1 << 16;
    const TILE_REGISTERS: usize = 2;
    const TILE_FOURS: usize = 3;

    #[inline(always)]
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> __m512i {
        Bytes::load(self.avx512(), group, r)
    }

    #[inline(always)]
    fn store(self, v: __m512i, group: &mut [u8; 4 * PANEL], r: usize) {
        Bytes::store(self.avx512(), v, group, r);
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 4]) -> __m512i {
        Bytes::splat(self.avx512(), x)
    }

    #[inline(always)]
    fn bits(self, v: __m512i, shift: u32, mask: u8) -> __m512i {
        self.avx512().bits(v, shift, mask)
    }

    #[inline(always)]
    fn narrow(self) -> __m512i {
        self.avx512().narrow()
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i {
        // SAFETY: `self` proves VNNI; registers only.
        unsafe { _mm512_dpbusd_epi32(acc, codes, x) }
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
        v: __m512i,
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
    fn triples(self, magnitudes: __m512i, signs: __m512i, bit: u32) -> __m512i {
        self.avx512().triples(magnitudes, signs, bit)
    }

    #[inline(always)]
    fn sums(self) -> __m512i {
        self.narrow()
    }

    #[inline(always)]
    fn widen(self, acc: __m512i, narrow: __m512i) -> __m512i {
        // SAFETY: `self` proves the features; registers only.
        unsafe { _mm512_add_epi32(acc, narrow) }
    }

    #[inline(always)]
    fn widen_crumbs(self, acc: __m512i, crumbs: Self::Crumbs) -> __m512i {
        // Sums of multiples: the divisions are exact.
        // SAFETY: `self` proves the features; registers only.
        let (a, b, c) = unsafe {
            (
                _mm512_srai_epi32::<6>(crumbs[0]),
                _mm512_srai_epi32::<4>(crumbs[1]),
                _mm512_srai_epi32::<2>(crumbs[2]),
            )
        };
        self.widen(acc, self.widen(self.widen(a, b), self.widen(c, crumbs[3])))
    }

    #[inline(always)]
    fn add_to(self, sums: __m512i, rows: &mut [i32; PANEL], r: usize) {
        self.avx512().add_to(sums, rows, r);
    }
}
