//! AVX-512 VNNI: `vpdpbusd` multiplies bytes and adds fours straight into `i32` lanes.

use std::arch::x86_64::*;

use super::avx512::Avx512;
use super::{Bytes, Token, token};
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
}

impl Bytes for Avx512Vnni {
    type Vec = __m512i;
    type Narrow = __m512i;
    type Sums = __m512i;
    const ROWS: usize = Avx512::ROWS;
    const FULL: usize = usize::MAX;

    #[inline(always)]
    fn load(self, first: &[u8; 32], second: &[u8; 32]) -> __m512i {
        self.avx512().load(first, second)
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 32]) -> __m512i {
        Bytes::splat(self.avx512(), x)
    }

    #[inline(always)]
    fn crumbs(self, v: __m512i, shift: u32) -> __m512i {
        self.avx512().crumbs(v, shift)
    }

    #[inline(always)]
    fn triple(self, v: __m512i) -> __m512i {
        self.avx512().triple(v)
    }

    #[inline(always)]
    fn trits(self, v: __m512i) -> __m512i {
        self.avx512().trits(v)
    }

    #[inline(always)]
    fn narrow(self) -> __m512i {
        self.avx512().narrow()
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 VNNI; registers only.
        unsafe { _mm512_dpbusd_epi32(acc, codes, x) }
    }

    #[inline(always)]
    fn sums(self) -> __m512i {
        self.narrow()
    }

    #[inline(always)]
    fn widen(self, acc: __m512i, narrow: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512F; registers only.
        unsafe { _mm512_add_epi32(acc, narrow) }
    }

    #[inline(always)]
    fn totals(self, sums: __m512i) -> [i32; 2] {
        self.avx512().totals(sums)
    }
}
