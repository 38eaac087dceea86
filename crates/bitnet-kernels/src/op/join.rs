//! The result of attention from its parts.

use super::attend::{part, scale_by};
use super::softmax::exp;
use crate::simd::{Floats, LANES, Op, load_chunk, store_chunk};

/// The [parts](part) of a query.
#[derive(Debug)]
pub struct JoinArgs<'a> {
    /// The parts of all spans that the query attends to, in order; at least one.
    pub parts: &'a [f32],
    /// Numbers from one part to the next.
    pub stride: usize,
    /// The result `[head size]`.
    pub out: &'a mut [f32],
}

/// A kernel that joins parts.
pub type JoinFn = for<'a> fn(JoinArgs<'a>);

pub(crate) struct Join;

/// A part counts `e^(greatest - greatest of all)` times as much as it says.
impl<S: Floats> Op<S> for Join {
    type Args<'a> = JoinArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: JoinArgs<'_>) {
        let size = args.out.len();
        let mut greatest = f32::NEG_INFINITY;
        for at in (0..args.parts.len()).step_by(args.stride) {
            greatest = greatest.max(args.parts[at + size]);
        }
        args.out.fill(0.0);
        let mut sums = s.splat(0.0);
        for at in (0..args.parts.len()).step_by(args.stride) {
            let (values, tail) = args.parts[at..][..part(size)].split_at(size);
            let factor = exp(s, s.splat(tail[0] - greatest));
            sums = s.fma(factor, s.splat(tail[1]), sums);
            for chunk in 0..size.div_ceil(LANES) {
                let gathered = load_chunk(s, args.out, chunk);
                let gathered = s.fma(factor, load_chunk(s, values, chunk), gathered);
                store_chunk(s, gathered, args.out, chunk);
            }
        }
        let mut sum = [0.0; LANES];
        s.store(sums, &mut sum);
        scale_by(s, args.out, 1.0 / sum[0]);
    }
}
