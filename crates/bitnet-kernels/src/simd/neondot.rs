//! NEON with `FEAT_DotProd`: `sdot` multiplies bytes and adds fours straight into `i32` lanes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::Neon;
use super::{Bytes, PANEL, Token, dot_planes, token};
use crate::isa::Isa;

token! {
    /// Proof of what [`Neon`] proves, and of the dot product instructions.
    NeonDot = Isa::NeonDot, ["neon" "dotprod"]
}

impl NeonDot {
    /// The features without dot products.
    #[inline(always)]
    fn neon(self) -> Neon {
        // SAFETY: the features of `Neon` are among those of `self`.
        unsafe { Neon::assume() }
    }

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

impl Bytes for NeonDot {
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
