//! Rotary position embedding (Su et al. 2021) in the NeoX arrangement: element `i` of a head turns
//! with element `i + half`.
//!
//! `(a, b) = (a cos - b sin, b cos + a sin)`; the second product is rounded, the first is fused.

use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// The heads of one token.
#[derive(Debug)]
pub struct RopeArgs<'a> {
    /// `[heads, 2 * half]`; turned in place.
    pub x: &'a mut [f32],
    /// Cosines of the angles of the token's position, `half` of them.
    pub cos: &'a [f32],
    /// Sines, as many.
    pub sin: &'a [f32],
}

/// A kernel that turns heads by their position.
pub type RopeFn = for<'a> fn(RopeArgs<'a>);

pub(crate) struct Rope;

#[inline(always)]
fn turn<S: Floats>(s: S, (a, b): (S::F, S::F), (cos, sin): (S::F, S::F)) -> (S::F, S::F) {
    let minus_b_sin = s.sub(s.splat(0.0), s.mul(b, sin));
    (s.fma(a, cos, minus_b_sin), s.fma(b, cos, s.mul(a, sin)))
}

impl<S: Floats> Op<S> for Rope {
    type Args<'a> = RopeArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: RopeArgs<'_>) {
        let half = args.cos.len();
        debug_assert!(args.sin.len() == half && args.x.len().is_multiple_of(2 * half));
        let (cos, cos_rest) = args.cos.as_chunks::<LANES>();
        let (sin, sin_rest) = args.sin.as_chunks::<LANES>();
        for head in args.x.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            let (a, a_rest) = first.as_chunks_mut::<LANES>();
            let (b, b_rest) = second.as_chunks_mut::<LANES>();
            for ((a, b), (cos, sin)) in a.iter_mut().zip(b).zip(cos.iter().zip(sin)) {
                let angle = (s.load(cos), s.load(sin));
                let turned = turn(s, (s.load(a), s.load(b)), angle);
                s.store(turned.0, a);
                s.store(turned.1, b);
            }
            let angle = (load_part(s, cos_rest), load_part(s, sin_rest));
            let turned = turn(s, (load_part(s, a_rest), load_part(s, b_rest)), angle);
            store_part(s, turned.0, a_rest);
            store_part(s, turned.1, b_rest);
        }
    }
}
