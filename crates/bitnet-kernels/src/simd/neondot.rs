//! NEON with `FEAT_DotProd`, whose `sdot` multiplies bytes and adds fours straight into `i32` lanes; and
//! with `FEAT_I8MM`, whose `smmla` multiplies eight columns of two rows by those of two tokens.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::Neon;
use super::{Bytes, PANEL, Token, dot_planes, token};
use crate::isa::Isa;

/// An instruction set with dot products: its name, features, and how it multiplies fours of tokens.
macro_rules! dot_products {
    ($(#[$meta:meta])* $name:ident = $isa:expr, [$($feature:tt)+], { $($fours:tt)+ }) => {
        token! {
            $(#[$meta])*
            $name = $isa, [$($feature)+]
        }

        impl $name {
            /// The features without dot products.
            #[inline(always)]
            fn neon(self) -> Neon {
                // SAFETY: the features of `Neon` are among those of `self`.
                unsafe { Token::assume() }
            }
        }

        impl Bytes for $name {
            type Vec = uint8x16_t;
            /// One `i32` a row.
            type Narrow = int32x4_t;
            type Crumbs = int32x4_t;
            type Sums = int32x4_t;
            const ROWS: usize = Neon::ROWS;
            const FULL: usize = 1 << 16;
            const TILE_REGISTERS: usize = 4;
            const TOGETHER: bool = true;
            const TILE_FOURS: usize = 1;

            #[inline(always)]
            fn load(self, group: &[u8; 4 * PANEL], r: usize) -> uint8x16_t {
                Bytes::load(self.neon(), group, r)
            }

            #[inline(always)]
            fn store(self, v: uint8x16_t, group: &mut [u8; 4 * PANEL], r: usize) {
                Bytes::store(self.neon(), v, group, r);
            }

            #[inline(always)]
            fn splat(self, x: &[i8; 4]) -> uint8x16_t {
                Bytes::splat(self.neon(), x)
            }

            #[inline(always)]
            fn bits(self, v: uint8x16_t, shift: u32, mask: u8) -> uint8x16_t {
                self.neon().bits(v, shift, mask)
            }

            #[inline(always)]
            fn narrow(self) -> int32x4_t {
                self.neon().sums()
            }

            #[inline(always)]
            fn dot(self, mut acc: int32x4_t, codes: uint8x16_t, x: uint8x16_t) -> int32x4_t {
                // SAFETY: `self` proves `dotprod`; registers only, no flags.
                unsafe {
                    asm!(
                        "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                        acc = inout(vreg) acc, a = in(vreg) codes, b = in(vreg) x,
                        options(pure, nomem, nostack, preserves_flags)
                    );
                }
                acc
            }

            #[inline(always)]
            fn no_crumbs(self) -> int32x4_t {
                self.narrow()
            }

            #[inline(always)]
            fn dot_crumbs<const N: usize>(
                self,
                acc: int32x4_t,
                v: uint8x16_t,
                x: [&[i8; 4]; N],
            ) -> int32x4_t {
                dot_planes(self, acc, v, x)
            }

            #[inline(always)]
            fn triples(self, magnitudes: uint8x16_t, signs: uint8x16_t, bit: u32) -> uint8x16_t {
                self.neon().triples(magnitudes, signs, bit)
            }

            #[inline(always)]
            fn sums(self) -> int32x4_t {
                self.neon().sums()
            }

            #[inline(always)]
            fn widen(self, acc: int32x4_t, narrow: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves NEON; registers only.
                unsafe { vaddq_s32(acc, narrow) }
            }

            #[inline(always)]
            fn widen_crumbs(self, acc: int32x4_t, crumbs: int32x4_t) -> int32x4_t {
                self.widen(acc, crumbs)
            }

            #[inline(always)]
            fn add_to(self, sums: int32x4_t, rows: &mut [i32; PANEL], r: usize) {
                self.neon().add_to(sums, rows, r);
            }

            $($fours)+
        }
    };
}

dot_products! {
    /// Proof of what [`Neon`] proves, and of the dot product instructions.
    NeonDot = Isa::NeonDot, ["neon" "dotprod"], {
        /// The four tokens are the lanes of one register.
        #[inline(always)]
        fn dot_fours<const R: usize, const Q: usize>(
            self,
            acc: &mut [[[int32x4_t; 4]; R]; Q],
            codes: &[[u8; 4 * PANEL]; 2],
            first: usize,
            x: [&[[[i8; 4]; 4]; 2]; Q],
        ) {
            for (half, codes) in codes.iter().enumerate() {
                for q in 0..Q {
                    // SAFETY: `self` proves NEON; the load is four tokens of `x`.
                    let x = unsafe { vld1q_s8(x[q][half].as_flattened().as_ptr()) };
                    for (r, acc) in acc[q].iter_mut().enumerate() {
                        let codes = self.load(codes, first + r);
                        acc[0] = self.dot_lane::<0>(acc[0], codes, x);
                        acc[1] = self.dot_lane::<1>(acc[1], codes, x);
                        acc[2] = self.dot_lane::<2>(acc[2], codes, x);
                        acc[3] = self.dot_lane::<3>(acc[3], codes, x);
                    }
                }
            }
        }
    }
}

impl NeonDot {
    /// `acc + a * b`, where each row meets the four bytes of `b` at lane `N`. The intrinsic is not
    /// stable yet.
    #[inline(always)]
    fn dot_lane<const N: usize>(
        self,
        mut acc: int32x4_t,
        a: uint8x16_t,
        b: int8x16_t,
    ) -> int32x4_t {
        // SAFETY: `self` proves `dotprod`; registers only, no flags.
        unsafe {
            asm!(
                "sdot {acc:v}.4s, {a:v}.16b, {b:v}.4b[{n}]",
                acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b, n = const N,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
}

dot_products! {
    /// Proof of what [`NeonDot`] proves, and of the 8-bit matrix products.
    NeonI8mm = Isa::NeonI8mm, ["neon" "dotprod" "i8mm"], {
        /// Eight columns of rows 0 and 1, then of rows 2 and 3.
        #[inline(always)]
        fn pair(self, codes: [uint8x16_t; 2]) -> [uint8x16_t; 2] {
            // SAFETY: `self` proves NEON; registers only.
            unsafe {
                let (a, b) = (vreinterpretq_u32_u8(codes[0]), vreinterpretq_u32_u8(codes[1]));
                [vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))]
            }
        }

        /// Each sum is 2 x 2: rows 0 and 1 with tokens 0 and 1, with 2 and 3, then rows 2 and 3.
        #[inline(always)]
        fn dot_fours<const R: usize, const Q: usize>(
            self,
            acc: &mut [[[int32x4_t; 4]; R]; Q],
            codes: &[[u8; 4 * PANEL]; 2],
            first: usize,
            x: [&[[[i8; 4]; 4]; 2]; Q],
        ) {
            for q in 0..Q {
                let [a, b] = x[q];
                // SAFETY: `self` proves NEON; the loads are four tokens of `x` each.
                let x = unsafe {
                    let a = vreinterpretq_s32_s8(vld1q_s8(a.as_flattened().as_ptr()));
                    let b = vreinterpretq_s32_s8(vld1q_s8(b.as_flattened().as_ptr()));
                    [vreinterpretq_s8_s32(vzip1q_s32(a, b)), vreinterpretq_s8_s32(vzip2q_s32(a, b))]
                };
                for (r, acc) in acc[q].iter_mut().enumerate() {
                    let codes = [self.load(&codes[0], first + r), self.load(&codes[1], first + r)];
                    acc[0] = self.smmla(acc[0], codes[0], x[0]);
                    acc[1] = self.smmla(acc[1], codes[0], x[1]);
                    acc[2] = self.smmla(acc[2], codes[1], x[0]);
                    acc[3] = self.smmla(acc[3], codes[1], x[1]);
                }
            }
        }

        #[inline(always)]
        fn widen_fours(self, acc: [int32x4_t; 4], narrow: [int32x4_t; 4]) -> [int32x4_t; 4] {
            // SAFETY: `self` proves NEON; registers only.
            let tokens = unsafe {
                [
                    vuzp1q_s32(narrow[0], narrow[2]),
                    vuzp2q_s32(narrow[0], narrow[2]),
                    vuzp1q_s32(narrow[1], narrow[3]),
                    vuzp2q_s32(narrow[1], narrow[3]),
                ]
            };
            std::array::from_fn(|n| self.widen(acc[n], tokens[n]))
        }
    }
}

impl NeonI8mm {
    /// `acc + a * b^T` of 2 x 8 matrices: lanes are (row, token) 00, 01, 10, 11. The intrinsic is
    /// not stable yet.
    #[inline(always)]
    fn smmla(self, mut acc: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: `self` proves `i8mm`; registers only, no flags.
        unsafe {
            asm!(
                "smmla {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
}
