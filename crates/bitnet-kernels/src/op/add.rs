//! The residual: `x += y`.

use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// Two vectors of one length.
#[derive(Debug)]
pub struct AddArgs<'a> {
    /// Is added to.
    pub x: &'a mut [f32],
    /// Is added.
    pub y: &'a [f32],
}

/// A kernel that adds.
pub type AddFn = for<'a> fn(AddArgs<'a>);

pub(crate) struct Add;

impl<S: Floats> Op<S> for Add {
    type Args<'a> = AddArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: AddArgs<'_>) {
        debug_assert_eq!(args.x.len(), args.y.len());
        let (out, out_rest) = args.x.as_chunks_mut::<LANES>();
        let (chunks, rest) = args.y.as_chunks::<LANES>();
        for (x, y) in out.iter_mut().zip(chunks) {
            s.store(s.add(s.load(x), s.load(y)), x);
        }
        let last = s.add(load_part(s, out_rest), load_part(s, rest));
        store_part(s, last, out_rest);
    }
}
