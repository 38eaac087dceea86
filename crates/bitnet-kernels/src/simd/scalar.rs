//! Portable Rust: what every other instruction set is compared with.

use half::{bf16, f16};

use super::{BOTH_SIGNS, Bytes, Floats, LANES, Op, PANEL, TRIPLES, Token, dot_planes};
use crate::isa::Isa;

/// Every processor has this.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scalar;

impl Token for Scalar {
    const ISA: Isa = Isa::Scalar;

    fn detect() -> bool {
        true
    }

    unsafe fn assume() -> Self {
        Scalar
    }

    fn run<O: Op<Self>>(self, args: O::Args<'_>) {
        O::eval(self, args);
    }
}

/// `f` of each lane of `a` and `b`.
#[inline(always)]
fn zip(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Lane `i` with lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
#[inline(always)]
fn fold(mut v: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            v[i] = f(v[i], v[i + half]);
        }
    }
    v[0]
}

impl Floats for Scalar {
    type F = [f32; LANES];
    const SUMS: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }

    #[inline(always)]
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F {
        std::array::from_fn(|i| f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F {
        std::array::from_fn(|i| bf16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32())
    }

    #[inline(always)]
    fn load_i8(self, x: &[u8; LANES]) -> Self::F {
        let mut out = [0.0; LANES];
        for (out, x) in out.iter_mut().zip(x) {
            *out = f32::from(x.cast_signed());
        }
        out
    }

    #[inline(always)]
    fn store(self, v: Self::F, out: &mut [f32; LANES]) {
        *out = v;
    }

    #[inline(always)]
    fn store_i8(self, v: Self::F, out: &mut [i8; LANES]) {
        *out = v.map(|x| x as i8);
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        zip(a, b, f32::max)
    }

    #[inline(always)]
    fn abs(self, a: Self::F) -> Self::F {
        a.map(f32::abs)
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        a.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn exp2(self, n: Self::F) -> Self::F {
        n.map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn sum(self, v: Self::F) -> f32 {
        fold(v, |a, b| a + b)
    }

    #[inline(always)]
    fn greatest(self, v: Self::F) -> f32 {
        fold(v, f32::max)
    }
}

impl Bytes for Scalar {
    type Vec = [[u8; 4]; 4];
    type Narrow = [i32; 4];
    type Crumbs = [i32; 4];
    type Sums = [i32; 4];
    const ROWS: usize = 4;
    const FULL: usize = usize::MAX;
    const TILE_REGISTERS: usize = 2;
    const TOGETHER: bool = false;
    const TILE_FOURS: usize = 1;
    const FUSED: bool = false;

    #[inline(always)]
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> Self::Vec {
        group.as_chunks().0.as_chunks().0[r]
    }

    #[inline(always)]
    fn store(self, v: Self::Vec, group: &mut [u8; 4 * PANEL], r: usize) {
        group.as_chunks_mut().0.as_chunks_mut().0[r] = v;
    }

    #[inline(always)]
    fn splat(self, x: &[i8; 4]) -> Self::Vec {
        [x.map(i8::cast_unsigned); 4]
    }

    #[inline(always)]
    fn bits(self, v: Self::Vec, shift: u32, mask: u8) -> Self::Vec {
        v.map(|row| row.map(|b| (b >> shift) & mask))
    }

    #[inline(always)]
    fn narrow(self) -> [i32; 4] {
        [0; 4]
    }

    #[inline(always)]
    fn dot(self, acc: [i32; 4], codes: Self::Vec, x: Self::Vec) -> [i32; 4] {
        let mut sums = acc;
        for row in 0..4 {
            for i in 0..4 {
                sums[row] += i32::from(codes[row][i]) * i32::from(x[row][i].cast_signed());
            }
        }
        sums
    }

    #[inline(always)]
    fn no_crumbs(self) -> [i32; 4] {
        [0; 4]
    }

    #[inline(always)]
    fn dot_crumbs<const N: usize>(self, acc: [i32; 4], v: Self::Vec, x: [&[i8; 4]; N]) -> [i32; 4] {
        dot_planes(self, acc, v, x)
    }

    #[inline(always)]
    fn triples(self, magnitudes: Self::Vec, signs: Self::Vec, bit: u32) -> Self::Vec {
        std::array::from_fn(|row| {
            std::array::from_fn(|i| {
                let codes = TRIPLES[usize::from(magnitudes[row][i] & 15)];
                if signs[row][i] >> bit & 1 == 1 { BOTH_SIGNS - codes } else { codes }
            })
        })
    }

    #[inline(always)]
    fn sums(self) -> [i32; 4] {
        [0; 4]
    }

    #[inline(always)]
    fn widen(self, acc: [i32; 4], narrow: [i32; 4]) -> [i32; 4] {
        std::array::from_fn(|row| acc[row] + narrow[row])
    }

    #[inline(always)]
    fn widen_crumbs(self, acc: [i32; 4], crumbs: [i32; 4]) -> [i32; 4] {
        self.widen(acc, crumbs)
    }

    #[inline(always)]
    fn add_to(self, sums: [i32; 4], rows: &mut [i32; PANEL], r: usize) {
        let rows = &mut rows.as_chunks_mut().0[r];
        *rows = self.widen(*rows, sums);
    }
}
