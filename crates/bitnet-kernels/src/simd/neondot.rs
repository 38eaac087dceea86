//! NEON with `FEAT_DotProd`: `sdot` multiplies bytes and adds fours straight into `i32` lanes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::Neon;
use super::{Bytes, Token, token};
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

    /// `acc + a * b`, sixteen products into four lanes. The intrinsic is not stable yet.
    #[inline(always)]
    fn sdot(self, mut acc: int32x4_t, a: uint8x16_t, b: uint8x16_t) -> int32x4_t {
        // SAFETY: `self` proves `dotprod`; registers only, no flags.
        unsafe {
            asm!(
                "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
                acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }
}

impl Bytes for NeonDot {
    type Vec = [uint8x16_t; 2];
    type Narrow = int32x4_t;
    type Sums = int32x4_t;
    const ROWS: usize = Neon::ROWS;
    const FULL: usize = usize::MAX;

    #[inline(always)]
    fn load(self, first: &[u8; 32], second: &[u8; 32]) -> Self::Vec {
        Bytes::load(self.neon(), first, second)
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 32]) -> Self::Vec {
        Bytes::splat(self.neon(), x)
    }

    #[inline(always)]
    fn crumbs(self, v: Self::Vec, shift: u32) -> Self::Vec {
        self.neon().crumbs(v, shift)
    }

    #[inline(always)]
    fn triple(self, v: Self::Vec) -> Self::Vec {
        self.neon().triple(v)
    }

    #[inline(always)]
    fn trits(self, v: Self::Vec) -> Self::Vec {
        self.neon().trits(v)
    }

    #[inline(always)]
    fn narrow(self) -> int32x4_t {
        self.neon().sums()
    }

    #[inline(always)]
    fn dot(self, acc: int32x4_t, codes: Self::Vec, x: Self::Vec) -> int32x4_t {
        self.sdot(self.sdot(acc, codes[0], x[0]), codes[1], x[1])
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
    fn totals(self, sums: int32x4_t) -> [i32; 2] {
        self.neon().totals(sums)
    }
}
