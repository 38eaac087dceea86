//! Instruction sets as types, and the vector operations kernels are written in.
//!
//! A token (`Avx2`, `NeonDot`, ...) is a zero-size value that can only be had where the processor
//! has its instructions, so its methods are safe to call. [`Floats`] is sixteen lanes of `f32`,
//! [`Bytes`] is ternary codes against 8-bit activations. Every implementation of `Floats` rounds the
//! same way in the same order: that is what makes results equal to the last bit on every processor.
//!
//! All methods are `#[inline(always)]`: they have to end up inside [`Token::run`], whose body is
//! compiled with the features of the token.
#![expect(unsafe_code, reason = "processor intrinsics")]

use crate::isa::Isa;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod cpu;
pub(crate) mod gate;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neondot;
pub(crate) mod prefetch;
pub(crate) mod scalar;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni;

/// Proof that the running processor has an instruction set.
pub(crate) trait Token: Copy + Send + Sync + 'static {
    /// The instruction set.
    const ISA: Isa;
    /// Whether the running processor has it.
    fn detect() -> bool;
    /// The token, taken on trust.
    ///
    /// # Safety
    ///
    /// `Self::detect()` must be true on the running processor.
    unsafe fn assume() -> Self;
    /// Evaluates `O` in a function compiled with the features of the instruction set.
    fn run<O: Op<Self>>(self, args: O::Args<'_>);
}

/// A computation, written once for every instruction set.
pub(crate) trait Op<S: Token> {
    /// What it reads and writes.
    type Args<'a>;
    /// The computation. Must be `#[inline(always)]`.
    fn eval(s: S, args: Self::Args<'_>);
}

/// Lanes of the vectors of [`Floats`].
pub(crate) const LANES: usize = 16;

/// Sixteen lanes of `f32`. No operation depends on how many a register really holds.
pub(crate) trait Floats: Token {
    /// Sixteen `f32`.
    type F: Copy;
    /// Sums of `F` that registers hold beside what is added to them: 4 or 8.
    const SUMS: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::F;
    /// Sixteen numbers.
    fn load(self, x: &[f32; LANES]) -> Self::F;
    /// Sixteen little-endian IEEE half-precision numbers, widened.
    fn load_f16(self, x: &[u8; 2 * LANES]) -> Self::F;
    /// Sixteen little-endian bfloat16 numbers, widened.
    fn load_bf16(self, x: &[u8; 2 * LANES]) -> Self::F;
    /// Sixteen signed bytes, as they lie in files, converted.
    fn load_i8(self, x: &[u8; LANES]) -> Self::F;
    /// Writes the lanes.
    fn store(self, v: Self::F, out: &mut [f32; LANES]);
    /// Writes the lanes as bytes. Each must be an integer in `-128..=127`.
    fn store_i8(self, v: Self::F, out: &mut [i8; LANES]);

    /// `a + b`.
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a - b`.
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b`.
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a / b`.
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The greater of `a` and `b`; lanes must not be NaN.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// `|a|`.
    fn abs(self, a: Self::F) -> Self::F;
    /// To the nearest integer, halves to even.
    fn round(self, a: Self::F) -> Self::F;
    /// `2^n` for integers `n` in `-126..=127`.
    fn exp2(self, n: Self::F) -> Self::F;

    /// The sum of all lanes: `i` with `i + 8`, then with `i + 4`, `i + 2`, `i + 1`.
    fn sum(self, v: Self::F) -> f32;
    /// The greatest lane; lanes must not be NaN.
    fn greatest(self, v: Self::F) -> f32;
}

/// Matrix rows of a panel: packed weights come in groups of four bytes of each of these rows.
pub(crate) const PANEL: usize = 32;

/// Ternary codes against 8-bit activations.
///
/// A register holds four bytes of each of [`Bytes::ROWS`] matrix rows, one 32-bit lane a row, so
/// that sums of a row never leave its lane. Activations are four bytes of a token, in every lane.
pub(crate) trait Bytes: Token {
    /// Four bytes of each of `ROWS` rows.
    type Vec: Copy;
    /// Partial sums that are full after [`Bytes::FULL`] products of a lane.
    type Narrow: Copy;
    /// Partial sums of 2-bit codes, full after `FULL / N` of [`Bytes::dot_crumbs`].
    type Crumbs: Copy;
    /// A sum in 32 bits for each row.
    type Sums: Copy;
    /// Matrix rows in a register: a part of a panel.
    const ROWS: usize;
    /// How often [`Bytes::dot`] may add to one `Narrow` before it has to be widened.
    const FULL: usize;
    /// Registers of rows in a gemm tile.
    const TILE_REGISTERS: usize;
    /// Fours of tokens in a gemm tile.
    const TILE_FOURS: usize;
    /// Tokens up to which gemm uses codes as it unpacks them, and does not put them down for all.
    const FEW: usize = 2;
    /// Whether gemv takes two panels together: their sums must fit into the registers.
    const TOGETHER: bool;
    /// Whether there are fused multiply-adds of floats.
    const FUSED: bool = true;

    /// Register `r` of a group.
    fn load(self, group: &[u8; 4 * PANEL], r: usize) -> Self::Vec;
    /// Writes register `r` of a group.
    fn store(self, v: Self::Vec, group: &mut [u8; 4 * PANEL], r: usize);
    /// The same four activations for every row.
    fn splat(self, x: &[i8; 4]) -> Self::Vec;
    /// `(v >> shift) & mask` in each byte.
    fn bits(self, v: Self::Vec, shift: u32, mask: u8) -> Self::Vec;

    /// `(v >> shift) & 3` in each byte.
    #[inline(always)]
    fn crumbs(self, v: Self::Vec, shift: u32) -> Self::Vec {
        self.bits(v, shift, 3)
    }

    /// Zero.
    fn narrow(self) -> Self::Narrow;
    /// `acc + codes * x`, codes unsigned and activations signed. Ternary codes may be added `FULL`
    /// times; of codes `0..=15`, eight.
    fn dot(self, acc: Self::Narrow, codes: Self::Vec, x: Self::Vec) -> Self::Narrow;
    /// Zero.
    fn no_crumbs(self) -> Self::Crumbs;
    /// `acc` and the 2-bit codes in the lowest `2 N` bits of each byte of `v`, from the high ones
    /// down, times four `x` each; `N` is 3 or 4.
    fn dot_crumbs<const N: usize>(
        self,
        acc: Self::Crumbs,
        v: Self::Vec,
        x: [&[i8; 4]; N],
    ) -> Self::Crumbs;
    /// Three 2-bit codes in each byte: those that [`TRIPLES`] has for a magnitude `0..=13`, of the
    /// other sign where `signs` has bit `bit`.
    fn triples(self, magnitudes: Self::Vec, signs: Self::Vec, bit: u32) -> Self::Vec;
    /// Zero.
    fn sums(self) -> Self::Sums;
    /// `acc + narrow`.
    fn widen(self, acc: Self::Sums, narrow: Self::Narrow) -> Self::Sums;
    /// `acc + crumbs`.
    fn widen_crumbs(self, acc: Self::Sums, crumbs: Self::Crumbs) -> Self::Sums;
    /// Adds the sums of register `r` to those of its rows.
    fn add_to(self, sums: Self::Sums, rows: &mut [i32; PANEL], r: usize);

    /// Codes of eight columns, in the order [`Bytes::dot_fours`] wants.
    #[inline(always)]
    fn pair(self, codes: [Self::Vec; 2]) -> [Self::Vec; 2] {
        codes
    }

    /// Adds to the sums of `R` registers of rows, from `first` on, and `Q` fours of tokens eight
    /// columns: `codes` as [`Bytes::pair`] gives them, and of each four of tokens four columns of
    /// each token, then the next four.
    #[inline(always)]
    fn dot_fours<const R: usize, const Q: usize>(
        self,
        acc: &mut [[[Self::Narrow; 4]; R]; Q],
        codes: &[[u8; 4 * PANEL]; 2],
        first: usize,
        x: [&[[[i8; 4]; 4]; 2]; Q],
    ) {
        for (half, codes) in codes.iter().enumerate() {
            let codes: [_; R] = std::array::from_fn(|r| self.load(codes, first + r));
            // Each activation meets all rows before the next is loaded: a tile leaves few registers.
            for q in 0..Q {
                for n in 0..4 {
                    let x = self.splat(&x[q][half][n]);
                    for r in 0..R {
                        acc[q][r][n] = self.dot(acc[q][r][n], codes[r], x);
                    }
                }
            }
        }
    }

    /// Adds what [`Bytes::dot_fours`] summed.
    #[inline(always)]
    fn widen_fours(self, acc: [Self::Sums; 4], narrow: [Self::Narrow; 4]) -> [Self::Sums; 4] {
        std::array::from_fn(|n| self.widen(acc[n], narrow[n]))
    }
}

/// [`Bytes::dot_crumbs`] by one [`Bytes::dot`] for each plane.
#[inline(always)]
pub(crate) fn dot_planes<S: Bytes, const N: usize>(
    s: S,
    mut acc: S::Narrow,
    v: S::Vec,
    x: [&[i8; 4]; N],
) -> S::Narrow {
    for (plane, x) in (0..N as u32).rev().zip(x) {
        acc = s.dot(acc, s.crumbs(v, 2 * plane), s.splat(x));
    }
    acc
}

/// The codes of three weights for `9 t0 + 3 t1 + t2`, where that is not negative: `t0 + 1` in bits
/// 4 and 5, then the others.
pub(crate) const TRIPLES: [u8; 16] = {
    let mut codes = [0; 16];
    let mut magnitude = 0;
    while magnitude < 14 {
        let v = magnitude as u8 + 13;
        codes[magnitude] = ((v / 9) << 4) | ((v / 3 % 3) << 2) | (v % 3);
        magnitude += 1;
    }
    codes
};

/// What a triple and the one of the other sign add up to.
pub(crate) const BOTH_SIGNS: u8 = 0b10_10_10;

/// Up to sixteen numbers, the missing ones zero.
#[inline(always)]
pub(crate) fn load_part<S: Floats>(s: S, x: &[f32]) -> S::F {
    let mut whole = [0.0; LANES];
    whole[..x.len()].copy_from_slice(x);
    s.load(&whole)
}

/// Writes the first lanes, as many as `out` has.
#[inline(always)]
pub(crate) fn store_part<S: Floats>(s: S, v: S::F, out: &mut [f32]) {
    let mut whole = [0.0; LANES];
    s.store(v, &mut whole);
    let n = out.len();
    out.copy_from_slice(&whole[..n]);
}

/// Numbers `16 i .. 16 i + 16` of `x`, those over the end zero.
#[inline(always)]
pub(crate) fn load_chunk<S: Floats>(s: S, x: &[f32], i: usize) -> S::F {
    let rest = &x[i * LANES..];
    match rest.first_chunk() {
        Some(chunk) => s.load(chunk),
        None => load_part(s, rest),
    }
}

/// Writes numbers `16 i .. 16 i + 16` of `x`, as far as there are any.
#[inline(always)]
pub(crate) fn store_chunk<S: Floats>(s: S, v: S::F, x: &mut [f32], i: usize) {
    let rest = &mut x[i * LANES..];
    match rest.first_chunk_mut() {
        Some(chunk) => s.store(v, chunk),
        None => store_part(s, v, rest),
    }
}

#[cfg(target_arch = "aarch64")]
pub(crate) use std::arch::is_aarch64_feature_detected as detected;
#[cfg(target_arch = "x86_64")]
pub(crate) use std::arch::is_x86_feature_detected as detected;

/// Declares a token. Its features are written here once, for detection and for code generation.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! token {
    ($(#[$meta:meta])* $name:ident = $isa:expr, [$($feature:tt)+]) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name(());

        impl $crate::simd::Token for $name {
            const ISA: $crate::isa::Isa = $isa;

            fn detect() -> bool {
                true $(&& $crate::simd::detected!($feature))+
            }

            #[inline(always)]
            unsafe fn assume() -> Self {
                $name(())
            }

            #[inline(always)]
            fn run<O: $crate::simd::Op<Self>>(self, args: O::Args<'_>) {
                $(#[target_feature(enable = $feature)])+
                #[inline(never)]
                fn featured<O: $crate::simd::Op<$name>>(s: $name, args: O::Args<'_>) {
                    O::eval(s, args);
                }
                // SAFETY: the token proves every feature that `featured` is compiled with.
                unsafe { featured::<O>(self, args) }
            }
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use token;
