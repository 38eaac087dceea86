//! How kernels read the layouts of [packed](crate::packed) matrices.

use std::array;

use super::gemm::{AHEAD, Codes, Fours};
use crate::packed::Group;
use crate::simd::prefetch::prefetch_behind;
use crate::simd::{Bytes, PANEL};

/// A layout whose blocks are `GROUPS` groups, of `FOURS` times four columns.
pub(crate) trait Layout<const GROUPS: usize, const FOURS: usize>: 'static {
    /// Adds the products of a block with activations to sums of codes, of `R` registers of rows.
    fn dots<S: Bytes, const R: usize>(
        s: S,
        block: &[Group; GROUPS],
        x: &[[i8; 4]; FOURS],
        sums: &mut [S::Crumbs; R],
    );

    /// Adds the products of a block with the first `T` of four tokens to sums of codes, of `R` registers
    /// of rows from `first` on.
    fn dots_of<S: Bytes, const R: usize, const T: usize>(
        s: S,
        block: &[Group; GROUPS],
        first: usize,
        x: &[Fours; FOURS],
        sums: &mut [[S::Narrow; T]; R],
    );

    /// The codes of a block in the order of its columns, of register `r` of the rows.
    fn codes<S: Bytes>(s: S, block: &[Group; GROUPS], r: usize, codes: &mut [Codes]);
}

/// [`Format::I2SR32`](crate::Format::I2SR32).
pub(crate) struct I2SR32;

impl Layout<8, 32> for I2SR32 {
    #[inline(always)]
    fn dots<S: Bytes, const R: usize>(
        s: S,
        block: &[Group; 8],
        x: &[[i8; 4]; 32],
        sums: &mut [S::Crumbs; R],
    ) {
        for (q, group) in block.iter().enumerate() {
            prefetch_behind(group, AHEAD);
            let x = [&x[q], &x[8 + q], &x[16 + q], &x[24 + q]];
            for (r, sums) in sums.iter_mut().enumerate() {
                *sums = s.dot_crumbs(*sums, s.load(group, r), x);
            }
        }
    }

    #[inline(always)]
    fn dots_of<S: Bytes, const R: usize, const T: usize>(
        s: S,
        block: &[Group; 8],
        first: usize,
        x: &[Fours; 32],
        sums: &mut [[S::Narrow; T]; R],
    ) {
        for (q, group) in block.iter().enumerate() {
            prefetch_behind(group, AHEAD);
            let groups: [_; R] = array::from_fn(|r| s.load(group, first + r));
            for (g, shift) in [6, 4, 2, 0].into_iter().enumerate() {
                meet(s, groups.map(|group| s.crumbs(group, shift)), &x[8 * g + q], sums);
            }
        }
    }

    #[inline(always)]
    fn codes<S: Bytes>(s: S, block: &[Group; 8], r: usize, codes: &mut [Codes]) {
        for (q, groups) in block.as_chunks::<2>().0.iter().enumerate() {
            let groups = [s.load(&groups[0], r), s.load(&groups[1], r)];
            for (g, shift) in [6, 4, 2, 0].into_iter().enumerate() {
                let pair = [s.crumbs(groups[0], shift), s.crumbs(groups[1], shift)];
                put(s, pair, r, &mut codes[4 * g + q]);
            }
        }
    }
}

/// [`Format::Tl2R32`](crate::Format::Tl2R32).
pub(crate) struct Tl2R32;

impl Tl2R32 {
    /// Codes of twice twelve columns: of the low nibbles of group `j`, then of the high ones.
    #[inline(always)]
    fn triples<S: Bytes>(s: S, block: &[Group; 5], j: usize, r: usize) -> [S::Vec; 2] {
        let (magnitudes, signs) = (s.load(&block[j], r), s.load(&block[4], r));
        let bit = 2 * j as u32;
        let (low, high) = (s.bits(magnitudes, 0, 15), s.bits(magnitudes, 4, 15));
        [s.triples(low, signs, bit), s.triples(high, signs, bit + 1)]
    }
}

impl Layout<5, 24> for Tl2R32 {
    #[inline(always)]
    fn dots<S: Bytes, const R: usize>(
        s: S,
        block: &[Group; 5],
        x: &[[i8; 4]; 24],
        sums: &mut [S::Crumbs; R],
    ) {
        prefetch_behind(&block[4], AHEAD);
        for j in 0..4 {
            prefetch_behind(&block[j], AHEAD);
            let x = &x[6 * j..6 * j + 6];
            for (r, sums) in sums.iter_mut().enumerate() {
                let [low, high] = Self::triples(s, block, j, r);
                *sums = s.dot_crumbs(*sums, low, [&x[0], &x[1], &x[2]]);
                *sums = s.dot_crumbs(*sums, high, [&x[3], &x[4], &x[5]]);
            }
        }
    }

    #[inline(always)]
    fn dots_of<S: Bytes, const R: usize, const T: usize>(
        s: S,
        block: &[Group; 5],
        first: usize,
        x: &[Fours; 24],
        sums: &mut [[S::Narrow; T]; R],
    ) {
        prefetch_behind(&block[4], AHEAD);
        for j in 0..4 {
            prefetch_behind(&block[j], AHEAD);
            let triples: [_; R] = array::from_fn(|r| Self::triples(s, block, j, first + r));
            for (half, x) in x[6 * j..6 * j + 6].as_chunks::<3>().0.iter().enumerate() {
                for (x, shift) in x.iter().zip([4, 2, 0]) {
                    meet(s, triples.map(|triples| s.crumbs(triples[half], shift)), x, sums);
                }
            }
        }
    }

    #[inline(always)]
    fn codes<S: Bytes>(s: S, block: &[Group; 5], r: usize, codes: &mut [Codes]) {
        for j in 0..4 {
            let [low, high] = Self::triples(s, block, j, r);
            let codes = &mut codes[3 * j..3 * j + 3];
            put(s, [s.crumbs(low, 4), s.crumbs(low, 2)], r, &mut codes[0]);
            put(s, [s.crumbs(low, 0), s.crumbs(high, 4)], r, &mut codes[1]);
            put(s, [s.crumbs(high, 2), s.crumbs(high, 0)], r, &mut codes[2]);
        }
    }
}

/// Adds the products of four columns of `R` registers of rows with the first `T` tokens.
#[inline(always)]
fn meet<S: Bytes, const R: usize, const T: usize>(
    s: S,
    codes: [S::Vec; R],
    x: &Fours,
    sums: &mut [[S::Narrow; T]; R],
) {
    for (t, x) in x[..T].iter().enumerate() {
        let x = s.splat(x);
        for (r, sums) in sums.iter_mut().enumerate() {
            sums[t] = s.dot(sums[t], codes[r], x);
        }
    }
}

/// Writes the codes of eight columns, of register `r` of the rows.
#[inline(always)]
fn put<S: Bytes>(s: S, codes: [S::Vec; 2], r: usize, out: &mut [[u8; 4 * PANEL]; 2]) {
    let codes = s.pair(codes);
    s.store(codes[0], &mut out[0], r);
    s.store(codes[1], &mut out[1], r);
}
