//! Ternary weights times 8-bit activations, one row of them (gemv) or many (gemm).
//!
//! `y[t, m] = f32(Σ_k w[m, k] * q[t, k]) / s[t] * d`, the sum exact. Codes are `w + 1`, so the sum
//! of codes times activations is too great by `Σ_k q[t, k]`, which comes with each row of
//! activations. How rows and tokens are grouped changes no bit: everything before the epilogue is
//! integer.

use std::array;
use std::marker::PhantomData;

use super::RowScale;
use super::layout::{I2SR32, Layout, Tl2R32};
use crate::packed::{Group, Panels};
use crate::pool::Tile;
use crate::simd::prefetch::prefetch_behind;
use crate::simd::{Bytes, Op, PANEL};

/// Bytes between the weights that are multiplied and those that are asked for from memory.
pub(super) const AHEAD: usize = 4096;

/// `y = W x` for whole panels of a ternary matrix.
#[derive(Debug)]
pub struct GemvArgs<'a> {
    /// The panels that hold as many rows as `y` has elements.
    pub panels: Panels<'a>,
    /// The scale `d` of the matrix.
    pub scale: f32,
    /// Activations, one for each of the [`padded`](crate::packed::padded) columns.
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
/// `x` is `[tokens, cols]` with [`padded`](crate::packed::padded) columns, `out` as long as
/// `tokens.div_ceil(4) * cols / 4`.
///
/// # Panics
///
/// If there are fewer than four columns.
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
    pub panels: Panels<'a>,
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

/// With a matrix in the layout `L`.
pub(crate) struct Gemv<L>(PhantomData<L>);
/// With a matrix in the layout `L`.
pub(crate) struct Gemm<L>(PhantomData<L>);

/// Kernels of the layouts, whose blocks differ.
macro_rules! layouts {
    ($($layout:ty: $groups:literal, $fours:literal);+) => {$(
        impl<S: Bytes> Op<S> for Gemv<$layout> {
            type Args<'a> = GemvArgs<'a>;

            #[inline(always)]
            fn eval(s: S, args: GemvArgs<'_>) {
                gemv::<S, $layout, $groups, $fours>(s, args);
            }
        }

        impl<S: Bytes> Op<S> for Gemm<$layout> {
            type Args<'a> = GemmArgs<'a>;

            #[inline(always)]
            fn eval(s: S, args: GemmArgs<'_>) {
                gemm::<S, $layout, $groups, $fours>(s, args);
            }
        }
    )+};
}

layouts! {
    I2SR32: 8, 32;
    Tl2R32: 5, 24
}

/// Activations of a block.
type Columns<const F: usize> = [[i8; 4]; F];

#[inline(always)]
fn gemv<S: Bytes, L: Layout<G, F>, const G: usize, const F: usize>(s: S, args: GemvArgs<'_>) {
    // Zeros for the columns that the last block has too many.
    let (whole, rest) = args.x.as_chunks::<F>();
    let mut last = [[[0; 4]; F]];
    last[0][..rest.len()].copy_from_slice(rest);
    let last = if rest.is_empty() { &[] } else { &last[..] };
    let width = (whole.len() + last.len()) * G;
    let x = (whole, last);
    for ((first, second), y) in args.panels.pairs(width).zip(args.y.chunks_mut(2 * PANEL)) {
        let mut sums = [[0; PANEL]; 2];
        let [a, b] = &mut sums;
        match second {
            Some(second) if S::TOGETHER => {
                let panels = [first, second].map(|panel| panel.as_chunks().0);
                panels_sums::<S, L, G, F, 2>(s, panels, x, &mut sums);
            }
            _ => {
                panels_sums::<S, L, G, F, 1>(s, [first.as_chunks().0], x, array::from_mut(a));
                if let Some(second) = second {
                    panels_sums::<S, L, G, F, 1>(s, [second.as_chunks().0], x, array::from_mut(b));
                }
            }
        }
        for (y, sum) in y.iter_mut().zip(sums.as_flattened()) {
            *y = args.x_scale.dequantize(*sum, args.scale);
        }
    }
}

/// Sums of codes times activations for the rows of `P` panels.
#[inline(always)]
fn panels_sums<S: Bytes, L: Layout<G, F>, const G: usize, const F: usize, const P: usize>(
    s: S,
    panels: [&[[Group; G]]; P],
    x: (&[Columns<F>], &[Columns<F>]),
    out: &mut [[i32; PANEL]; P],
) {
    match PANEL / S::ROWS {
        2 => sums::<S, L, G, F, P, 2>(s, panels, x, out),
        4 => sums::<S, L, G, F, P, 4>(s, panels, x, out),
        _ => sums::<S, L, G, F, P, 8>(s, panels, x, out),
    }
}

/// [`panels_sums`] where the rows of a panel are `R` registers.
#[inline(always)]
fn sums<
    S: Bytes,
    L: Layout<G, F>,
    const G: usize,
    const F: usize,
    const P: usize,
    const R: usize,
>(
    s: S,
    panels: [&[[Group; G]]; P],
    (whole, last): (&[Columns<F>], &[Columns<F>]),
    out: &mut [[i32; PANEL]; P],
) {
    // Lanes of 16 bits are emptied before they can wrap.
    let full = (S::FULL / F).max(1);
    let mut sums = [[s.sums(); R]; P];
    let mut at = 0;
    for x in whole.chunks(full).chain(last.chunks(1)) {
        let mut crumbs = [[s.no_crumbs(); R]; P];
        for (i, x) in x.iter().enumerate() {
            for p in 0..P {
                L::dots(s, &panels[p][at + i], x, &mut crumbs[p]);
            }
        }
        at += x.len();
        for (sums, crumbs) in sums.iter_mut().zip(crumbs) {
            for (sums, crumbs) in sums.iter_mut().zip(crumbs) {
                *sums = s.widen_crumbs(*sums, crumbs);
            }
        }
    }
    for (sums, out) in sums.into_iter().zip(out) {
        for (r, sums) in sums.into_iter().enumerate() {
            s.add_to(sums, out, r);
        }
    }
}

/// Fours of columns that are unpacked at a time: a third of a level-1 cache of codes.
const UNPACKED: usize = 128;
/// Tokens that share what was unpacked.
const TOKENS: usize = 128;

/// Starts at a cache line, so that no register of it lies across two.
#[repr(align(64))]
struct Lines<T>(T);

/// Codes of eight columns, a byte each: two groups of four bytes.
pub(super) type Codes = [Group; 2];

#[inline(always)]
fn gemm<S: Bytes, L: Layout<G, F>, const G: usize, const F: usize>(s: S, args: GemmArgs<'_>) {
    match args.x_scales.len() {
        0 => {}
        tokens if tokens <= S::FEW => few::<S, L, G, F>(s, args),
        _ => many::<S, L, G, F>(s, args),
    }
}

/// Few tokens: codes are used as they are unpacked, by up to four tokens whose sums stay in registers.
#[inline(always)]
fn few<S: Bytes, L: Layout<G, F>, const G: usize, const F: usize>(s: S, mut args: GemmArgs<'_>) {
    let rows = args.y.cols().len();
    let cols = args.x.len() / args.x_scales.len().div_ceil(4);
    for (p, panel) in args.panels.each(cols.div_ceil(F) * G).enumerate() {
        let panel = panel.as_chunks().0;
        for (four, (x, x_scales)) in args.x.chunks(cols).zip(args.x_scales.chunks(4)).enumerate() {
            let mut sums = [[0; PANEL]; 4];
            match x_scales.len() {
                1 | 2 => four_sums::<S, L, G, F, 2>(s, panel, x, &mut sums),
                3 => four_sums::<S, L, G, F, 3>(s, panel, x, &mut sums),
                _ => four_sums::<S, L, G, F, 4>(s, panel, x, &mut sums),
            }
            for (n, x_scale) in x_scales.iter().enumerate() {
                let y = args.y.row(args.y.rows().start + 4 * four + n);
                let y = &mut y[p * PANEL..rows.min((p + 1) * PANEL)];
                x_scale.dequantize_all(&sums[n], args.scale, S::FUSED, y);
            }
        }
    }
}

/// Sums of codes times activations for the rows of a panel and the first `T` of four tokens.
#[inline(always)]
fn four_sums<S: Bytes, L: Layout<G, F>, const G: usize, const F: usize, const T: usize>(
    s: S,
    panel: &[[Group; G]],
    x: &[Fours],
    out: &mut [[i32; PANEL]; 4],
) {
    // Zeros for the columns that the last block has too many.
    let (whole, rest) = x.as_chunks::<F>();
    let mut last = [[[[0; 4]; 4]; F]];
    last[0][..rest.len()].copy_from_slice(rest);
    let last = if rest.is_empty() { &[] } else { &last[..] };
    match PANEL / S::ROWS {
        2 | 4 => tokens_sums::<S, L, G, F, T, 2>(s, panel, (whole, last), out),
        _ => tokens_sums::<S, L, G, F, T, 4>(s, panel, (whole, last), out),
    }
}

/// [`four_sums`], `R` registers of rows at a time.
#[inline(always)]
fn tokens_sums<
    S: Bytes,
    L: Layout<G, F>,
    const G: usize,
    const F: usize,
    const T: usize,
    const R: usize,
>(
    s: S,
    panel: &[[Group; G]],
    (whole, last): (&[[Fours; F]], &[[Fours; F]]),
    out: &mut [[i32; PANEL]; 4],
) {
    // As in `sums`.
    let full = (S::FULL / F).max(1);
    for first in (0..PANEL / S::ROWS).step_by(R) {
        let mut sums = [[s.sums(); T]; R];
        let mut blocks = panel.iter();
        for x in whole.chunks(full).chain(last.chunks(1)) {
            let mut narrow = [[s.narrow(); T]; R];
            for (x, block) in x.iter().zip(&mut blocks) {
                L::dots_of(s, block, first, x, &mut narrow);
            }
            for (sums, narrow) in sums.iter_mut().zip(narrow) {
                for (sums, narrow) in sums.iter_mut().zip(narrow) {
                    *sums = s.widen(*sums, narrow);
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            for (sums, out) in sums.into_iter().zip(&mut *out) {
                s.add_to(sums, out, first + r);
            }
        }
    }
}

/// Any number of tokens, which share the codes of a part of a panel that are unpacked in memory.
#[inline(always)]
fn many<S: Bytes, L: Layout<G, F>, const G: usize, const F: usize>(s: S, mut args: GemmArgs<'_>) {
    let rows = args.y.cols().len();
    let fours = args.x_scales.len().div_ceil(4);
    let cols = args.x.len() / fours;
    assert!(cols.is_multiple_of(2), "activations of padded columns");
    let width = cols.div_ceil(F);
    let mut sums = Lines([[0; PANEL]; TOKENS]);
    let mut codes = Lines([[[0; 4 * PANEL]; 2]; UNPACKED / 2]);
    for (p, panel) in args.panels.each(width * G).enumerate() {
        let panel = panel.as_chunks::<G>().0;
        for first in (0..fours).step_by(TOKENS / 4) {
            let fours = (fours - first).min(TOKENS / 4);
            let sums = &mut sums.0[..4 * fours];
            for (c, blocks) in panel.chunks(UNPACKED / F).enumerate() {
                for (block, codes) in blocks.iter().zip(codes.0.chunks_exact_mut(F / 2)) {
                    for group in block {
                        prefetch_behind(group, AHEAD);
                    }
                    for r in 0..PANEL / S::ROWS {
                        L::codes(s, block, r, codes);
                    }
                }
                let at = c * (UNPACKED / F) * F;
                let codes = &codes.0[..(blocks.len() * F).min(cols - at) / 2];
                add_tokens(s, codes, (&args.x[first * cols + at..], cols), sums, c == 0);
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
