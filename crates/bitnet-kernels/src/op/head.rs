//! The output layer: floating-point rows times hidden states, `y[t, m] = Σ_k w[m, k] * x[t, k]`.
//!
//! Sixteen strided partial sums by fused multiply-add, whatever the format of the rows.

use std::marker::PhantomData;

use crate::format::Float;
use crate::pool::Tile;
use crate::simd::{Floats, LANES, Op};

/// Matrix rows that share each load of hidden states.
const ROWS: usize = 4;

/// Hidden states times whole rows of a matrix.
#[derive(Debug)]
pub struct HeadArgs<'a> {
    /// The bytes of the matrix rows that `y` has columns for.
    pub weights: &'a [u8],
    /// Hidden states `[tokens, cols]`.
    pub x: &'a [f32],
    /// Columns of the matrix.
    pub cols: usize,
    /// Results `[tokens, matrix rows]`; covers all tokens and some matrix rows.
    pub y: Tile<'a, f32>,
}

/// An output layer kernel.
pub type HeadFn = for<'a> fn(HeadArgs<'a>);

pub(crate) struct Head<F>(PhantomData<F>);

impl<S: Floats, F: Float> Op<S> for Head<F> {
    type Args<'a> = HeadArgs<'a>;

    #[inline(always)]
    fn eval(s: S, mut args: HeadArgs<'_>) {
        let rows = args.y.cols().len();
        let bytes = args.weights.len() / rows;
        let row = |i: usize| &args.weights[i.min(rows - 1) * bytes..][..bytes];
        for first in (0..rows).step_by(ROWS) {
            // Over the edge the last row is computed again, and dropped.
            let group = [row(first), row(first + 1), row(first + 2), row(first + 3)];
            for (token, x) in args.y.rows().zip(args.x.chunks_exact(args.cols)) {
                let sums = dots::<S, F>(s, group, x.as_chunks().0);
                for (y, sum) in args.y.row(token)[first..].iter_mut().zip(sums) {
                    *y = sum;
                }
            }
        }
    }
}

/// The dot products of `x` with some rows.
#[inline(always)]
fn dots<S: Floats, F: Float>(s: S, rows: [&[u8]; ROWS], x: &[[f32; LANES]]) -> [f32; ROWS] {
    let mut sums = [s.splat(0.0); ROWS];
    for (i, x) in x.iter().enumerate() {
        let x = s.load(x);
        for (sums, row) in sums.iter_mut().zip(rows) {
            *sums = s.fma(F::load(s, row, i), x, *sums);
        }
    }
    let mut totals = [0.0; ROWS];
    for (total, sums) in totals.iter_mut().zip(sums) {
        *total = s.sum(sums);
    }
    totals
}
