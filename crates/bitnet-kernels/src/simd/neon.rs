//! NEON (Advanced SIMD): four registers of four floats, two of 16 bytes, `smlal` into 16-bit lanes.

use std::arch::aarch64::*;

use super::{Bytes, Floats, LANES, token};
use crate::isa::Isa;

token! {
    /// Proof of Advanced SIMD.
    Neon = Isa::Neon, ["neon"]
}

/// Applies an intrinsic to all four quarters.
macro_rules! four {
    ($f:ident($($v:ident),+)) => {
        // SAFETY: `self` proves NEON; the intrinsic works on registers only.
        unsafe { [$f($($v[0]),+), $f($($v[1]),+), $f($($v[2]),+), $f($($v[3]),+)] }
    };
}

impl Floats for Neon {
    type F = [float32x4_t; 4];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves NEON; registers only.
        [unsafe { vdupq_n_f32(x) }; 4]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        let p = x.as_ptr();
        // SAFETY: `self` proves NEON; the loads are within `x`.
        unsafe { [vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))] }
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F {
        let p = x.as_ptr();
        // SAFETY: `self` proves NEON; the loads are of bytes and within `x`.
        unsafe {
            let widen = |p: *const u8| vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
            [widen(p), widen(p.add(8)), widen(p.add(16)), widen(p.add(24))]
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F {
        let p = x.as_ptr();
        // SAFETY: `self` proves NEON; the loads are of bytes and within `x`.
        unsafe {
            let widen = |p: *const u8| {
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(p))))
            };
            [widen(p), widen(p.add(8)), widen(p.add(16)), widen(p.add(24))]
        }
    }

    #[inline(always)]
    fn load_i8(self, x: &[i8; LANES]) -> Self::F {
        // SAFETY: `self` proves NEON; the load is `x`.
        unsafe {
            let v = vld1q_s8(x.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
            [
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ]
        }
    }

    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        for (v, out) in v.into_iter().zip(out.as_chunks_mut::<4>().0) {
            // SAFETY: `self` proves NEON; the store is `out`.
            unsafe { vst1q_f32(out.as_mut_ptr(), v) }
        }
    }

    #[inline(always)]
    fn store_i8(self, v: Self::F, out: &mut [i8; LANES]) {
        // SAFETY: `self` proves NEON; the store is `out`.
        unsafe {
            let narrow = |a, b| vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a)), vcvtnq_s32_f32(b));
            let (low, high) = (narrow(v[0], v[1]), narrow(v[2], v[3]));
            vst1q_s8(out.as_mut_ptr(), vqmovn_high_s16(vqmovn_s16(low), high));
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        four!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vmaxq_f32(a, b))
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        four!(vabsq_f32(a))
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        four!(vrndnq_f32(a))
    }

    #[inline(always)]
    fn exp2(self, n: Self::F) -> Self::F {
        // SAFETY: `self` proves NEON; registers only.
        n.map(|n| unsafe {
            let biased = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(biased))
        })
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        // SAFETY: `self` proves NEON; registers only.
        unsafe {
            let v = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            let v = vadd_f32(vget_low_f32(v), vget_high_f32(v));
            vget_lane_f32::<0>(v) + vget_lane_f32::<1>(v)
        }
    }

    #[inline(always)]
    fn greatest(self, v: Self::F) -> f32 {
        // SAFETY: `self` proves NEON; registers only.
        unsafe { vmaxvq_f32(vmaxq_f32(vmaxq_f32(v[0], v[2]), vmaxq_f32(v[1], v[3]))) }
    }
}

impl Bytes for Neon {
    /// Columns 0 to 15 and 16 to 31.
    type Vec = [uint8x16_t; 2];
    /// Two times eight `i16`.
    type Narrow = [int16x8_t; 2];
    type Sums = int32x4_t;
    const ROWS: usize = 1;
    // A lane gains two products of at most 2 * -128: 64 times fills an `i16` exactly.
    const FULL: usize = 64;

    #[inline(always)]
    fn load(self, first: &[u8; 32], _second: &[u8; 32]) -> Self::Vec {
        let p = first.as_ptr();
        // SAFETY: `self` proves NEON; the loads are within `first`.
        unsafe { [vld1q_u8(p), vld1q_u8(p.add(16))] }
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 32]) -> Self::Vec {
        let p = x.as_ptr();
        // SAFETY: `self` proves NEON; the loads are within `x`.
        unsafe { [vreinterpretq_u8_s8(vld1q_s8(p)), vreinterpretq_u8_s8(vld1q_s8(p.add(16)))] }
    }

    #[inline(always)]
    fn crumbs(self, v: Self::Vec, shift: u32) -> Self::Vec {
        // SAFETY: `self` proves NEON; registers only.
        v.map(|v| unsafe { vandq_u8(vshlq_u8(v, vdupq_n_s8(-(shift as i8))), vdupq_n_u8(3)) })
    }

    #[inline(always)]
    fn triple(self, v: Self::Vec) -> Self::Vec {
        // SAFETY: `self` proves NEON; registers only.
        v.map(|v| unsafe { vaddq_u8(v, vaddq_u8(v, v)) })
    }

    #[inline(always)]
    fn trits(self, v: Self::Vec) -> Self::Vec {
        // 3v reaches 256 at 86 and 512 at 171. A comparison gives -1 where it holds.
        // SAFETY: `self` proves NEON; registers only.
        v.map(|v| unsafe {
            let both = vaddq_u8(vcgeq_u8(v, vdupq_n_u8(86)), vcgeq_u8(v, vdupq_n_u8(171)));
            vsubq_u8(vdupq_n_u8(0), both)
        })
    }

    #[inline(always)]
    fn narrow(self) -> Self::Narrow {
        // SAFETY: `self` proves NEON; registers only.
        [unsafe { vdupq_n_s16(0) }; 2]
    }

    #[inline(always)]
    fn dot(self, acc: Self::Narrow, codes: Self::Vec, x: Self::Vec) -> Self::Narrow {
        // SAFETY: `self` proves NEON; registers only.
        std::array::from_fn(|i| unsafe {
            let (codes, x) = (vreinterpretq_s8_u8(codes[i]), vreinterpretq_s8_u8(x[i]));
            let acc = vmlal_s8(acc[i], vget_low_s8(codes), vget_low_s8(x));
            vmlal_high_s8(acc, codes, x)
        })
    }

    #[inline(always)]
    fn sums(self) -> int32x4_t {
        // SAFETY: `self` proves NEON; registers only.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    fn widen(self, acc: int32x4_t, narrow: Self::Narrow) -> int32x4_t {
        // SAFETY: `self` proves NEON; registers only.
        unsafe { vpadalq_s16(vpadalq_s16(acc, narrow[0]), narrow[1]) }
    }

    #[inline(always)]
    fn totals(self, sums: int32x4_t) -> [i32; 2] {
        // SAFETY: `self` proves NEON; registers only.
        [unsafe { vaddvq_s32(sums) }, 0]
    }
}
