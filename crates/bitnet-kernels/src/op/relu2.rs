//! The gated feed-forward activation of BitNet b1.58 2B-4T: `gate = max(gate, 0)^2 * up`. A gate that
//! is not finite gives NaN.

use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// Two vectors of one length.
#[derive(Debug)]
pub struct Relu2Args<'a> {
    /// The gate; becomes the result.
    pub gate: &'a mut [f32],
    /// What is gated.
    pub up: &'a [f32],
}

/// A kernel that gates by squared ReLU.
pub type Relu2Fn = for<'a> fn(Relu2Args<'a>);

pub(crate) struct Relu2;

#[inline(always)]
fn gate<S: Floats>(s: S, gate: S::F, up: S::F) -> S::F {
    // Zero times a number is zero, times anything else NaN, which `max` would lose.
    let zero = s.splat(0.0);
    let positive = s.add(s.max(gate, zero), s.mul(gate, zero));
    s.mul(s.mul(positive, positive), up)
}

impl<S: Floats> Op<S> for Relu2 {
    type Args<'a> = Relu2Args<'a>;

    #[inline(always)]
    fn eval(s: S, args: Relu2Args<'_>) {
        debug_assert_eq!(args.gate.len(), args.up.len());
        let (out, out_rest) = args.gate.as_chunks_mut::<LANES>();
        let (chunks, rest) = args.up.as_chunks::<LANES>();
        for (g, up) in out.iter_mut().zip(chunks) {
            s.store(gate(s, s.load(g), s.load(up)), g);
        }
        let last = gate(s, load_part(s, out_rest), load_part(s, rest));
        store_part(s, last, out_rest);
    }
}
