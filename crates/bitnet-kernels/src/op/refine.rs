//! What 2 more bits add to the product of a condensed row.

use crate::packed::Group;
use crate::simd::{Bytes, Op, PANEL};

/// Groups of columns in a block: each has a lane, for two times four bytes.
pub const LANE_GROUPS: usize = PANEL / 2;

/// The activations of a block; the groups that the last one lacks are zeros.
#[derive(Clone, Copy, Debug)]
pub struct FineActivations {
    /// For each two bits of a byte, from the high ones down, the activations they meet, as signed
    /// bytes.
    pub bytes: [Group; 4],
    /// For each group, what its bytes are multiplied by.
    pub scales: [f32; LANE_GROUPS],
    /// For each group the sum of its bytes.
    pub sums: [i32; LANE_GROUPS],
}

/// The fine codes of a row.
#[derive(Debug)]
pub struct RefineArgs<'a> {
    /// Blocks of sixteen groups of columns: bytes 0 to 3 of each, then bytes 4 to 7 of each.
    pub fine: &'a [Group],
    /// For each block and group of columns the scale of the row.
    pub scales: &'a [[i8; LANE_GROUPS]],
    /// For each block the activations.
    pub x: &'a [FineActivations],
    /// What each lane's groups add to the product, in eighth steps of the row.
    pub products: &'a mut [f32; LANE_GROUPS],
}

/// A kernel that refines.
pub type RefineFn = for<'a> fn(RefineArgs<'a>);

pub(crate) struct Refine;

impl<S: Bytes> Op<S> for Refine {
    type Args<'a> = RefineArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: RefineArgs<'_>) {
        let mut lanes = [0.0; LANE_GROUPS];
        for ((fine, scales), x) in args.fine.iter().zip(args.scales).zip(args.x) {
            let mut sums = [0; PANEL];
            for r in 0..PANEL / S::ROWS {
                let codes = s.load(fine, r);
                let mut narrow = s.narrow();
                for (shift, x) in [6, 4, 2, 0].into_iter().zip(&x.bytes) {
                    narrow = s.dot(narrow, s.crumbs(codes, shift), s.load(x, r));
                }
                s.add_to(s.widen(s.sums(), narrow), &mut sums, r);
            }
            for lane in 0..LANE_GROUPS {
                // Codes are too great by 1.5.
                let sum = 2 * (sums[lane] + sums[LANE_GROUPS + lane]) - 3 * x.sums[lane];
                lanes[lane] += sum as f32 * (f32::from(scales[lane]) * x.scales[lane]);
            }
        }
        *args.products = lanes;
    }
}
