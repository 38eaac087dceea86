//! What 2 more bits add to the product of a condensed row.

use super::scan::GroupScale;
use crate::packed::Group;
use crate::simd::{Bytes, Op, PANEL};

/// Groups of columns in a block: each has a lane, for two times four bytes.
pub const LANE_GROUPS: usize = PANEL / 2;

/// The fine codes of a row.
#[derive(Debug)]
pub struct RefineArgs<'a> {
    /// Blocks of sixteen groups of columns: bytes 0 to 3 of each, then bytes 4 to 7 of each.
    pub fine: &'a [Group],
    /// For each group of columns the scale of the row.
    pub scales: &'a [i8],
    /// For each block and two bits of a byte, from the high ones down, the activations they meet,
    /// as signed bytes.
    pub x: &'a [[Group; 4]],
    /// For each group of columns.
    pub x_scales: &'a [GroupScale],
    /// The product, in eighth steps of the row.
    pub product: &'a mut f32,
}

/// A kernel that refines.
pub type RefineFn = for<'a> fn(RefineArgs<'a>);

pub(crate) struct Refine;

impl<S: Bytes> Op<S> for Refine {
    type Args<'a> = RefineArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: RefineArgs<'_>) {
        let mut lanes = [0.0; LANE_GROUPS];
        let scales = args.scales.chunks(LANE_GROUPS).zip(args.x_scales.chunks(LANE_GROUPS));
        for ((fine, x), (scales, x_scales)) in args.fine.iter().zip(args.x).zip(scales) {
            let mut sums = [0; PANEL];
            for r in 0..PANEL / S::ROWS {
                let codes = s.load(fine, r);
                let mut narrow = s.narrow();
                for (shift, x) in [6, 4, 2, 0].into_iter().zip(x) {
                    narrow = s.dot(narrow, s.crumbs(codes, shift), s.load(x, r));
                }
                s.add_to(s.widen(s.sums(), narrow), &mut sums, r);
            }
            let (front, back) = sums.split_at(LANE_GROUPS);
            for (lane, (scale, x_scale)) in scales.iter().zip(x_scales).enumerate() {
                // Codes are too great by 1.5.
                let sum = (2 * (front[lane] + back[lane]) - 3 * x_scale.sum) as f32;
                lanes[lane] += sum * (f32::from(*scale) * x_scale.scale);
            }
        }
        *args.product = lanes.iter().sum();
    }
}
