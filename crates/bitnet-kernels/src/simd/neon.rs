//! NEON (Advanced SIMD): four registers of four floats; four rows a register, `smlal` into 16-bit
//! lanes.

use std::arch::aarch64::*;

use super::{BOTH_SIGNS, Bytes, Floats, LANES, PANEL, TRIPLES, dot_planes, token};
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
    const SUMS: usize = 4;

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
    fn load_i8(self, x: &[u8; LANES]) -> Self::F {
        // SAFETY: `self` proves NEON; the load is `x`.
        unsafe {
            let v = vld1q_s8(x.as_ptr().cast());
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
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        four!(vdivq_f32(a, b))
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
    type Vec = uint8x16_t;
    /// Eight `i16` each: four of a row, of two rows.
    type Narrow = [int16x8_t; 2];
    type Crumbs = [int16x8_t; 2];
    type Sums = int32x4_t;
    const ROWS: usize = 4;
    // A lane gains a product of at most 2 * -128: 128 times fills an `i16` exactly.
    const FULL: usize = 128;
    const TILE_REGISTERS: usize = 2;
    const TOGETHER: bool = false;
    const TILE_FOURS: usize = 1;

    #[inline(always)]
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> uint8x16_t {
        let part = &group.as_chunks::<16>().0[r];
        // SAFETY: `self` proves NEON; the load is `part`.
        unsafe { vld1q_u8(part.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, v: uint8x16_t, group: &mut [u8; 4 * PANEL], r: usize) {
        let part = &mut group.as_chunks_mut::<16>().0[r];
        // SAFETY: `self` proves NEON; the store is `part`.
        unsafe { vst1q_u8(part.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 4]) -> uint8x16_t {
        // SAFETY: `self` proves NEON; registers only.
        unsafe { vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(x.map(i8::cast_unsigned)))) }
    }

    #[inline(always)]
    fn bits(self, v: uint8x16_t, shift: u32, mask: u8) -> uint8x16_t {
        // SAFETY: `self` proves NEON; registers only.
        unsafe { vandq_u8(vshlq_u8(v, vdupq_n_s8(-(shift as i8))), vdupq_n_u8(mask)) }
    }

    #[inline(always)]
    fn narrow(self) -> Self::Narrow {
        // SAFETY: `self` proves NEON; registers only.
        [unsafe { vdupq_n_s16(0) }; 2]
    }

    #[inline(always)]
    fn dot(self, acc: Self::Narrow, codes: uint8x16_t, x: uint8x16_t) -> Self::Narrow {
        // SAFETY: `self` proves NEON; registers only.
        unsafe {
            let (codes, x) = (vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(x));
            let low = vmlal_s8(acc[0], vget_low_s8(codes), vget_low_s8(x));
            [low, vmlal_high_s8(acc[1], codes, x)]
        }
    }

    #[inline(always)]
    fn no_crumbs(self) -> Self::Crumbs {
        self.narrow()
    }

    #[inline(always)]
    fn dot_crumbs<const N: usize>(
        self,
        acc: Self::Crumbs,
        v: uint8x16_t,
        x: [&[i8; 4]; N],
    ) -> Self::Crumbs {
        dot_planes(self, acc, v, x)
    }

    #[inline(always)]
    fn triples(self, magnitudes: uint8x16_t, signs: uint8x16_t, bit: u32) -> uint8x16_t {
        // SAFETY: `self` proves NEON; the load is the table.
        unsafe {
            let codes = vqtbl1q_u8(vld1q_u8(TRIPLES.as_ptr()), magnitudes);
            let negative = vtstq_u8(signs, vdupq_n_u8(1 << bit));
            vbslq_u8(negative, vsubq_u8(vdupq_n_u8(BOTH_SIGNS), codes), codes)
        }
    }

    #[inline(always)]
    fn sums(self) -> int32x4_t {
        // SAFETY: `self` proves NEON; registers only.
        unsafe { vdupq_n_s32(0) }
    }

    #[inline(always)]
    fn widen(self, acc: int32x4_t, narrow: Self::Narrow) -> int32x4_t {
        // SAFETY: `self` proves NEON; registers only.
        unsafe {
            let rows = vpaddq_s32(vpaddlq_s16(narrow[0]), vpaddlq_s16(narrow[1]));
            vaddq_s32(acc, rows)
        }
    }

    #[inline(always)]
    fn widen_crumbs(self, acc: int32x4_t, crumbs: Self::Crumbs) -> int32x4_t {
        self.widen(acc, crumbs)
    }

    #[inline(always)]
    fn add_to(self, sums: int32x4_t, rows: &mut [i32; PANEL], r: usize) {
        let rows = &mut rows.as_chunks_mut::<4>().0[r];
        // SAFETY: `self` proves NEON; load and store are `rows`.
        unsafe { vst1q_s32(rows.as_mut_ptr(), vaddq_s32(vld1q_s32(rows.as_ptr()), sums)) }
    }
}
