//! VNNI, on the registers of AVX2 and of AVX-512: `vpdpbusd` multiplies bytes and adds fours straight
//! into `i32` lanes.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::avx512::Avx512;
use super::{Bytes, PANEL, Token, token};
use crate::isa::Isa;

/// An instruction set with VNNI: its name, features, what it is beside VNNI, its registers, how many of
/// them make a tile of gemm, and the intrinsics.
macro_rules! vnni {
    (
        $(#[$meta:meta])* $name:ident = $isa:expr, [$($feature:tt)+], $base:ty, $vec:ty, $registers:literal,
        $set:ident $and:ident $add:ident $shift:ident $dot:ident
    ) => {
        token! {
            $(#[$meta])*
            $name = $isa, [$($feature)+]
        }

        impl $name {
            /// The features without VNNI.
            #[inline(always)]
            fn base(self) -> $base {
                // SAFETY: the features of the base are among those of `self`.
                unsafe { <$base>::assume() }
            }

            /// The bits of `v` that `mask` has in each byte.
            #[inline(always)]
            fn masked(self, v: $vec, mask: u8) -> $vec {
                // SAFETY: `self` proves the features; registers only.
                unsafe { $and(v, $set(mask.cast_signed())) }
            }
        }

        impl Bytes for $name {
            type Vec = $vec;
            /// One `i32` a row.
            type Narrow = $vec;
            /// Sums of the four planes, each too great by what its codes are shifted.
            type Crumbs = [$vec; 4];
            type Sums = $vec;
            const ROWS: usize = <$base>::ROWS;
            // A plane gains four products of at most 128 * -128: not more than `i32` holds.
            const FULL: usize = 1 << 16;
            const TILE_REGISTERS: usize = $registers;
            const TOGETHER: bool = $registers == 2;
            const TILE_FOURS: usize = 3;
            const FEW: usize = 4 * $registers;

            #[inline(always)]
            fn load(self, group: &[u8; 4 * PANEL], r: usize) -> $vec {
                Bytes::load(self.base(), group, r)
            }

            #[inline(always)]
            fn store(self, v: $vec, group: &mut [u8; 4 * PANEL], r: usize) {
                Bytes::store(self.base(), v, group, r);
            }

            #[inline(always)]
            fn splat(self, x: &[i8; 4]) -> $vec {
                Bytes::splat(self.base(), x)
            }

            #[inline(always)]
            fn bits(self, v: $vec, shift: u32, mask: u8) -> $vec {
                self.base().bits(v, shift, mask)
            }

            #[inline(always)]
            fn narrow(self) -> $vec {
                self.base().narrow()
            }

            #[inline(always)]
            fn dot(self, acc: $vec, codes: $vec, x: $vec) -> $vec {
                // SAFETY: `self` proves VNNI; registers only.
                unsafe { $dot(acc, codes, x) }
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
                v: $vec,
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
            fn triples(self, magnitudes: $vec, signs: $vec, bit: u32) -> $vec {
                self.base().triples(magnitudes, signs, bit)
            }

            #[inline(always)]
            fn sums(self) -> $vec {
                self.narrow()
            }

            #[inline(always)]
            fn widen(self, acc: $vec, narrow: $vec) -> $vec {
                // SAFETY: `self` proves the features; registers only.
                unsafe { $add(acc, narrow) }
            }

            #[inline(always)]
            fn widen_crumbs(self, acc: $vec, crumbs: Self::Crumbs) -> $vec {
                // Sums of multiples: the divisions are exact.
                // SAFETY: `self` proves the features; registers only.
                let (a, b, c) = unsafe {
                    (
                        $shift::<6>(crumbs[0]),
                        $shift::<4>(crumbs[1]),
                        $shift::<2>(crumbs[2]),
                    )
                };
                self.widen(acc, self.widen(self.widen(a, b), self.widen(c, crumbs[3])))
            }

            #[inline(always)]
            fn add_to(self, sums: $vec, rows: &mut [i32; PANEL], r: usize) {
                self.base().add_to(sums, rows, r);
            }
        }
    };
}

vnni! {
    /// Proof of what [`Avx2`] proves, and of VNNI.
    AvxVnni = Isa::AvxVnni, ["avx2" "fma" "f16c" "avxvnni"], Avx2, __m256i, 1,
    _mm256_set1_epi8 _mm256_and_si256 _mm256_add_epi32 _mm256_srai_epi32 _mm256_dpbusd_avx_epi32
}

vnni! {
    /// Proof of what [`Avx512`] proves, and of VNNI.
    Avx512Vnni = Isa::Avx512Vnni,
    ["avx512f" "avx512bw" "avx512dq" "avx512vl" "avx2" "fma" "f16c" "avx512vnni"], Avx512, __m512i, 2,
    _mm512_set1_epi8 _mm512_and_si512 _mm512_add_epi32 _mm512_srai_epi32 _mm512_dpbusd_epi32
}
