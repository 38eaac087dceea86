//! Ternary weights times 8-bit activations, one row of them (gemv) or many (gemm).
//!
//! `y[t, m] = f32(Σ_k w[m, k] * q[t, k]) / s[t] * d`, the sum exact. Codes are `w + 1`, so the sum
//! of codes times activations is too great by `Σ_k q[t, k]`, which comes with each row of
//! activations. How rows and tokens are grouped changes no bit: everything before the epilogue is
//! integer.

use std::marker::PhantomData;

use super::RowScale;
use crate::format::Ternary;
use crate::pool::Tile;
use crate::simd::{Bytes, Op};

/// Matrix rows, in registers, that share each load of activations.
const ROWS: usize = 4;
/// Tokens that share each decoded code.
const TOKENS: usize = 4;

/// `y = W x` for whole rows of a ternary matrix.
#[derive(Debug)]
pub struct GemvArgs<'a> {
    /// The bytes of as many rows as `y` has elements.
    pub weights: &'a [u8],
    /// The scale `d` of the matrix.
    pub scale: f32,
    /// Activations, one for each column.
    pub x: &'a [i8],
    /// Scale and sum of `x`.
    pub x_scale: RowScale,
    /// One result for each row.
    pub y: &'a mut [f32],
}

/// A gemv kernel.
pub type GemvFn = for<'a> fn(GemvArgs<'a>);

/// `Y = X W^T` for whole rows of a ternary matrix.
#[derive(Debug)]
pub struct GemmArgs<'a> {
    /// The bytes of the matrix rows that `y` has columns for.
    pub weights: &'a [u8],
    /// The scale `d` of the matrix.
    pub scale: f32,
    /// Activations `[tokens, cols]`.
    pub x: &'a [i8],
    /// Scale and sum of each row of `x`.
    pub x_scales: &'a [RowScale],
    /// Results `[tokens, matrix rows]`; covers all tokens and some matrix rows.
    pub y: Tile<'a, f32>,
}

/// A gemm kernel.
pub type GemmFn = for<'a> fn(GemmArgs<'a>);

pub(crate) struct Gemv<F>(PhantomData<F>);
pub(crate) struct Gemm<F>(PhantomData<F>);

impl<S: Bytes, F: Ternary> Op<S> for Gemv<F> {
    type Args<'a> = GemvArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: GemvArgs<'_>) {
        let x = [args.x.as_chunks().0];
        let matrix = Matrix::<F>::new(args.weights, args.y.len());
        let step = ROWS * S::ROWS;
        for first in (0..args.y.len()).step_by(step) {
            let [sums] = tile::<S, F, ROWS, 1>(s, &matrix, first, x);
            let y = args.y[first..].iter_mut();
            for (y, sum) in y.zip(sums.as_flattened().chunks(2).flat_map(|pair| &pair[..S::ROWS])) {
                *y = args.x_scale.dequantize(*sum, args.scale);
            }
        }
    }
}

impl<S: Bytes, F: Ternary> Op<S> for Gemm<F> {
    type Args<'a> = GemmArgs<'a>;

    #[inline(always)]
    fn eval(s: S, mut args: GemmArgs<'_>) {
        let tokens = args.x_scales.len();
        let whole = tokens / TOKENS * TOKENS;
        for token in (0..whole).step_by(TOKENS) {
            some_tokens::<S, F, TOKENS>(s, &mut args, token);
        }
        for token in whole..tokens {
            some_tokens::<S, F, 1>(s, &mut args, token);
        }
    }
}

/// All rows for tokens `token .. token + N`.
#[inline(always)]
fn some_tokens<S: Bytes, F: Ternary, const N: usize>(s: S, args: &mut GemmArgs<'_>, token: usize) {
    let cols = args.x.len() / args.x_scales.len();
    let mut x: [&[[i8; 32]]; N] = [&[]; N];
    for (n, x) in x.iter_mut().enumerate() {
        *x = args.x[(token + n) * cols..][..cols].as_chunks().0;
    }
    let rows = args.y.cols().len();
    let matrix = Matrix::<F>::new(args.weights, rows);
    for first in (0..rows).step_by(S::ROWS) {
        let sums = tile::<S, F, 1, N>(s, &matrix, first, x);
        for (n, [sums]) in sums.iter().enumerate() {
            let x_scale = args.x_scales[token + n];
            let y = args.y.row(args.y.rows().start + token + n)[first..].iter_mut();
            for (y, sum) in y.zip(&sums[..S::ROWS]) {
                *y = x_scale.dequantize(*sum, args.scale);
            }
        }
    }
}

/// The blocks of a row, and of the one that shares its register.
type Pair<'a, F> = (&'a [<F as Ternary>::Block], &'a [<F as Ternary>::Block]);

/// Rows of blocks.
struct Matrix<'a, F: Ternary> {
    blocks: &'a [F::Block],
    rows: usize,
    /// Blocks in a row.
    width: usize,
}

impl<'a, F: Ternary> Matrix<'a, F> {
    #[inline(always)]
    fn new(bytes: &'a [u8], rows: usize) -> Self {
        let blocks = F::blocks(bytes);
        Matrix { blocks, rows, width: blocks.len() / rows.max(1) }
    }

    /// Row `row`, or the last one: a tile over the edge computes that again, and drops it.
    #[inline(always)]
    fn row(&self, row: usize) -> &'a [F::Block] {
        &self.blocks[row.min(self.rows - 1) * self.width..][..self.width]
    }
}

/// Sums of codes times activations for `R * S::ROWS` rows from `first` on and `N` tokens, as
/// `[token][register][row in the register]`.
#[inline(always)]
fn tile<S: Bytes, F: Ternary, const R: usize, const N: usize>(
    s: S,
    matrix: &Matrix<'_, F>,
    first: usize,
    x: [&[[i8; 32]]; N],
) -> [[[i32; 2]; R]; N] {
    let width = matrix.width;
    let mut rows: [Pair<'_, F>; R] = [(&[], &[]); R];
    for (r, pair) in rows.iter_mut().enumerate() {
        let row = first + r * S::ROWS;
        *pair = (matrix.row(row), matrix.row(row + S::ROWS - 1));
    }
    let x = x.map(|x| &x[..width * F::PLANES]);

    // Lanes of 16 bits are emptied before they can wrap.
    let full = S::FULL / F::PLANES;
    let mut sums = [[s.sums(); R]; N];
    let mut block = 0;
    while block < width {
        let end = width.min(block.saturating_add(full));
        let mut narrow = [[s.narrow(); R]; N];
        while block < end {
            add_block::<S, F, R, N>(s, &rows, &x, block, &mut narrow);
            block += 1;
        }
        for n in 0..N {
            for r in 0..R {
                sums[n][r] = s.widen(sums[n][r], narrow[n][r]);
            }
        }
    }
    let mut totals = [[[0; 2]; R]; N];
    for n in 0..N {
        for r in 0..R {
            totals[n][r] = s.totals(sums[n][r]);
        }
    }
    totals
}

/// Adds the products of one block of each row.
#[inline(always)]
fn add_block<S: Bytes, F: Ternary, const R: usize, const N: usize>(
    s: S,
    rows: &[Pair<'_, F>; R],
    x: &[&[[i8; 32]]; N],
    block: usize,
    narrow: &mut [[S::Narrow; R]; N],
) {
    let mut loaded = [F::load(s, &rows[0].0[block], &rows[0].1[block]); R];
    for r in 1..R {
        loaded[r] = F::load(s, &rows[r].0[block], &rows[r].1[block]);
    }
    for plane in 0..F::PLANES {
        let mut activations = [s.splat(&x[0][block * F::PLANES + plane]); N];
        for n in 1..N {
            activations[n] = s.splat(&x[n][block * F::PLANES + plane]);
        }
        for r in 0..R {
            let codes = F::plane(s, &mut loaded[r], plane);
            for n in 0..N {
                narrow[n][r] = s.dot(narrow[n][r], codes, activations[n]);
            }
        }
    }
}
