//! NEON with `FEAT_I8MM`: `smmla` multiplies eight columns of two rows by those of two tokens.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neondot::NeonDot;
use super::{Bytes, PANEL, Token, token};
use crate::isa::Isa;

token! {
    /// Proof of what [`NeonDot`] proves, and of the 8-bit matrix products.
    NeonI8mm = Isa::NeonI8mm, ["neon" "dotprod" "i8mm"]
}

impl NeonI8mm {
    /// The features without matrix products.
    #[inline(always)]
    fn dotprod(self) -> NeonDot {
        // SAFETY: the features of `NeonDot` are among those of `self`.
        unsafe { NeonDot::assume() }
    }

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

impl Bytes for NeonI8mm {
    type Vec = uint8x16_t;
    type Narrow = int32x4_t;
    type Crumbs = int32x4_t;
    type Sums = int32x4_t;
    const ROWS: usize = NeonDot::ROWS;
    const FULL: usize = NeonDot::FULL;
    const TILE_REGISTERS: usize = 4;
    const TOGETHER: bool = true;
    const TILE_FOURS: usize = 1;

    #[inline(always)]
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> uint8x16_t {
        self.dotprod().load(group, r)
    }

    #[inline(always)]
    fn store(self, v: uint8x16_t, group: &mut [u8; 4 * PANEL], r: usize) {
        self.dotprod().store(v, group, r);
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 4]) -> uint8x16_t {
        self.dotprod().splat(x)
    }

    #[inline(always)]
    fn bits(self, v: uint8x16_t, shift: u32, mask: u8) -> uint8x16_t {
        self.dotprod().bits(v, shift, mask)
    }

    #[inline(always)]
    fn narrow(self) -> int32x4_t {
        self.dotprod().narrow()
    }

    #[inline(always)]
    fn dot(self, acc: int32x4_t, codes: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        self.dotprod().dot(acc, codes, x)
    }

    #[inline(always)]
    fn no_crumbs(self) -> int32x4_t {
        self.dotprod().no_crumbs()
    }

    #[inline(always)]
    fn dot_crumbs<const N: usize>(
        self,
        acc: int32x4_t,
        v: uint8x16_t,
        x: [&[i8; 4]; N],
    ) -> int32x4_t {
        self.dotprod().dot_crumbs(acc, v, x)
    }

    #[inline(always)]
    fn triples(self, magnitudes: uint8x16_t, signs: uint8x16_t, bit: u32) -> uint8x16_t {
        self.dotprod().triples(magnitudes, signs, bit)
    }

    #[inline(always)]
    fn sums(self) -> int32x4_t {
        self.dotprod().sums()
    }

    #[inline(always)]
    fn widen(self, acc: int32x4_t, narrow: int32x4_t) -> int32x4_t {
        self.dotprod().widen(acc, narrow)
    }

    #[inline(always)]
    fn widen_crumbs(self, acc: int32x4_t, crumbs: int32x4_t) -> int32x4_t {
        self.dotprod().widen_crumbs(acc, crumbs)
    }

    #[inline(always)]
    fn add_to(self, sums: int32x4_t, rows: &mut [i32; PANEL], r: usize) {
        self.dotprod().add_to(sums, rows, r);
    }

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
