//! Ternary weights times 8-bit activations, one row of them (gemv) or many (gemm).
//!
//! `y[t, m] = f32(Σ_k w[m, k] * q[t, k]) / s[t] * d`, the sum exact. Codes are `w + 1`, so the sum
//! of codes times activations is too great by `Σ_k q[t, k]`, which comes with each row of
//! activations. How rows and tokens are grouped changes no bit: everything before the epilogue is
//! integer.

use super::RowScale;
use crate::packed::Group;
use crate::pool::Tile;
use crate::simd::prefetch::prefetch_behind;
use crate::simd::{Bytes, Op, PANEL};

/// Bytes between the weights that are multiplied and those that are asked for from memory.
pub(super) const AHEAD: usize = 4096;
/// Groups of a block of 128 columns.
const BLOCK: usize = 8;
/// Activations of a block, in fours.
const BLOCK_FOURS: usize = 32;

/// `y = W x` for whole panels of a ternary matrix.
#[derive(Debug)]
pub struct GemvArgs<'a> {
    /// The panels that hold as many rows as `y` has elements.
    pub panels: &'a [Group],
    /// The scale `d` of the matrix.
    pub scale: f32,
    /// Activations, one for each column.
    pub x: &'a [[i8; 4]],
    /// Scale and sum of `x`.
    pub x_scale: RowScale,
    /// One result for each row.
    pub y: &'a mut [f32],
}

/// A gemv kernel.
pub type GemvFn = for<'a> fn(GemvArgs<'a>);

/// Four columns of four tokens.
pub type Fours = [[i8; 4]; 4];

/// Rows of 8-bit activations, as [`GemmArgs::x`] wants them: tokens in fours, and of each four
/// `[cols / 4][token][4]`. The tokens that the last four lacks are zeros.
///
/// `x` is `[tokens, cols]`, `out` as long as `tokens.div_ceil(4) * cols / 4`.
pub fn interleave(x: &[i8], cols: usize, out: &mut [Fours]) {
    for (x, out) in x.chunks(4 * cols).zip(out.chunks_mut(cols / 4)) {
        for n in 0..4 {
            match x.chunks_exact(cols).nth(n) {
                Some(x) => {
                    let words = x.as_chunks::<4>().0;
                    out.iter_mut().zip(words).for_each(|(out, word)| out[n] = *word);
                }
                None => out.iter_mut().for_each(|out| out[n] = [0; 4]),
            }
        }
    }
}

/// `Y = X W^T` for whole panels of a ternary matrix.
#[derive(Debug)]
pub struct GemmArgs<'a> {
    /// The panels that hold the matrix rows that `y` has columns for.
    pub panels: &'a [Group],
    /// The scale `d` of the matrix.
    pub scale: f32,
    /// Activations, [interleaved](interleave).
    pub x: &'a [Fours],
    /// Scale and sum of each row of activations.
    pub x_scales: &'a [RowScale],
    /// Results `[tokens, matrix rows]`; covers all tokens and some matrix rows.
    pub y: Tile<'a, f32>,
}

/// A gemm kernel.
pub type GemmFn = for<'a> fn(GemmArgs<'a>);

pub(crate) struct Gemv;
pub(crate) struct Gemm;

impl<S: Bytes> Op<S> for Gemv {
    type Args<'a> = GemvArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: GemvArgs<'_>) {
        let width = args.x.len() / 4;
        for (panel, y) in args.panels.chunks_exact(width).zip(args.y.chunks_mut(PANEL)) {
            let mut sums = [0; PANEL];
            match PANEL / S::ROWS {
                2 => panel_sums::<S, 2>(s, panel, args.x, &mut sums),
                4 => panel_sums::<S, 4>(s, panel, args.x, &mut sums),
                _ => panel_sums::<S, 8>(s, panel, args.x, &mut sums),
            }
            for (y, sum) in y.iter_mut().zip(sums) {
                *y = args.x_scale.dequantize(sum, args.scale);
            }
        }
    }
}

/// Sums of codes times activations for the rows of a panel, which are `R` registers.
#[inline(always)]
fn panel_sums<S: Bytes, const R: usize>(
    s: S,
    panel: &[Group],
    x: &[[i8; 4]],
    out: &mut [i32; PANEL],
) {
    // Lanes of 16 bits are emptied before they can wrap.
    let full = (S::FULL / 4).max(BLOCK) / BLOCK;
    let blocks = panel.as_chunks::<BLOCK>().0;
    let x = x.as_chunks::<BLOCK_FOURS>().0;
    let mut sums = [s.sums(); R];
    for (blocks, x) in blocks.chunks(full).zip(x.chunks(full)) {
        let mut crumbs = [s.no_crumbs(); R];
        for (block, x) in blocks.iter().zip(x) {
            for (q, group) in block.iter().enumerate() {
                prefetch_behind(group, AHEAD);
                let x = [&x[q], &x[8 + q], &x[16 + q], &x[24 + q]];
                for (r, crumbs) in crumbs.iter_mut().enumerate() {
                    *crumbs = s.dot_crumbs(*crumbs, s.load(group, r), x);
                }
            }
        }
        for (sums, crumbs) in sums.iter_mut().zip(crumbs) {
            *sums = s.widen_crumbs(*sums, crumbs);
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        s.add_to(sums, out, r);
    }
}

/// Blocks of columns that are unpacked at a time: half a level-1 cache of codes.
const UNPACKED: usize = 4;
/// Tokens that share what was unpacked.
const TOKENS: usize = 128;

/// Starts at a cache line, so that no register of it lies across two.
#[repr(align(64))]
struct Lines<T>(T);

/// Codes of eight columns, a byte each: two groups of four bytes.
type Codes = [Group; 2];
/// [`Codes`] of a block.
const BLOCK_CODES: usize = 16;

impl<S: Bytes> Op<S> for Gemm {
    type Args<'a> = GemmArgs<'a>;

    #[inline(always)]
    fn eval(s: S, mut args: GemmArgs<'_>) {
        let rows = args.y.cols().len();
        let fours = args.x_scales.len().div_ceil(4);
        let cols = args.x.len() / fours;
        let width = cols / 4;
        let mut sums = Lines([[0; PANEL]; TOKENS]);
        let mut codes = Lines([[[0; 4 * PANEL]; 2]; UNPACKED * BLOCK_CODES]);
        for (p, panel) in args.panels.chunks_exact(width).enumerate() {
            for first in (0..fours).step_by(TOKENS / 4) {
                let fours = (fours - first).min(TOKENS / 4);
                let sums = &mut sums.0[..4 * fours];
                for (c, blocks) in panel.as_chunks().0.chunks(UNPACKED).enumerate() {
                    let codes = &mut codes.0[..blocks.len() * BLOCK_CODES];
                    unpack(s, blocks, codes);
                    let x = &args.x[first * cols + c * UNPACKED * BLOCK_FOURS..];
                    add_tokens(s, codes, (x, cols), sums, c == 0);
                }
                let tokens = (args.x_scales.len() - 4 * first).min(TOKENS);
                for (n, sums) in sums[..tokens].iter().enumerate() {
                    let token = 4 * first + n;
                    let x_scale = args.x_scales[token];
                    let y = args.y.row(args.y.rows().start + token);
                    let end = rows.min((p + 1) * PANEL);
                    let y = &mut y[p * PANEL..end];
                    x_scale.dequantize_all(sums, args.scale, S::FUSED, y);
                }
            }
        }
    }
}

/// The codes of some blocks of a panel, in the order of their columns.
#[inline(always)]
fn unpack<S: Bytes>(s: S, blocks: &[[Group; BLOCK]], codes: &mut [Codes]) {
    for (block, codes) in blocks.iter().zip(codes.as_chunks_mut::<BLOCK_CODES>().0) {
        for (q, [first, second]) in block.as_chunks::<2>().0.iter().enumerate() {
            prefetch_behind(first, AHEAD);
            prefetch_behind(second, AHEAD);
            for r in 0..PANEL / S::ROWS {
                let (first, second) = (s.load(first, r), s.load(second, r));
                for (g, shift) in [6, 4, 2, 0].into_iter().enumerate() {
                    let pair = s.pair([s.crumbs(first, shift), s.crumbs(second, shift)]);
                    let [a, b] = &mut codes[4 * g + q];
                    s.store(pair[0], a, r);
                    s.store(pair[1], b, r);
                }
            }
        }
    }
}

/// Adds the products of codes with the fours of tokens that `x` starts with, one every `stride`, to
/// `sums`, or to zero where those are of another panel.
#[inline(always)]
fn add_tokens<S: Bytes>(
    s: S,
    codes: &[Codes],
    (x, stride): (&[Fours], usize),
    sums: &mut [[i32; PANEL]],
    fresh: bool,
) {
    let fours = sums.len() / 4;
    let mut first = 0;
    while first < fours {
        let (x, sums) = ((&x[first * stride..], stride), (&mut sums[4 * first..], fresh));
        first += match (S::TILE_REGISTERS, S::TILE_FOURS.min(fours - first)) {
            (1, 3) => panel_tile::<S, 1, 3>(s, codes, x, sums),
            (2, 3) => panel_tile::<S, 2, 3>(s, codes, x, sums),
            (2, 2) => panel_tile::<S, 2, 2>(s, codes, x, sums),
            (1 | 2, _) => panel_tile::<S, 2, 1>(s, codes, x, sums),
            _ => panel_tile::<S, 4, 1>(s, codes, x, sums),
        };
    }
}

/// Adds the products of a panel with `Q` fours of tokens, `R` registers of rows at a time; gives `Q`.
#[inline(always)]
fn panel_tile<S: Bytes, const R: usize, const Q: usize>(
    s: S,
    codes: &[Codes],
    (x, stride): (&[Fours], usize),
    (sums, fresh): (&mut [[i32; PANEL]], bool),
) -> usize {
    let pairs = |q: usize| &x[q * stride..].as_chunks::<2>().0[..codes.len()];
    let mut x = [pairs(0); Q];
    for (q, x) in x.iter_mut().enumerate() {
        *x = pairs(q);
    }
    if fresh {
        sums[..4 * Q].fill([0; PANEL]);
    }
    for first in (0..PANEL / S::ROWS).step_by(R) {
        let tile = tile::<S, R, Q>(s, codes, first, x);
        for (q, tile) in tile.iter().enumerate() {
            for (r, tile) in tile.iter().enumerate() {
                for n in 0..4 {
                    s.add_to(tile[n], &mut sums[4 * q + n], first + r);
                }
            }
        }
    }
    Q
}

/// The products of registers `first .. first + R` with `Q` fours of tokens.
#[inline(always)]
fn tile<S: Bytes, const R: usize, const Q: usize>(
    s: S,
    codes: &[Codes],
    first: usize,
    x: [&[[Fours; 2]]; Q],
) -> [[[S::Sums; 4]; R]; Q] {
    let mut sums = [[[s.sums(); 4]; R]; Q];
    let full = S::FULL / 2;
    let mut at = 0;
    while at < codes.len() {
        let end = codes.len().min(at + full);
        let mut narrow = [[[s.narrow(); 4]; R]; Q];
        let codes = &codes[at..end];
        let x = x.map(|x| &x[at..end]);
        for (i, codes) in codes.iter().enumerate() {
            s.dot_fours(&mut narrow, codes, first, x.map(|x| &x[i]));
        }
        for q in 0..Q {
            for r in 0..R {
                sums[q][r] = s.widen_fours(sums[q][r], narrow[q][r]);
            }
        }
        at = end;
    }
    sums
}
