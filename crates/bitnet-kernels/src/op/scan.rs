//! Condensed rows of the output layer times a hidden state of 8 bits: nearly the logits.

use super::condense::{CODE_BYTES, CONDENSED};
use super::gemm::AHEAD;
use crate::packed::Group;
use crate::simd::prefetch::prefetch_behind;
use crate::simd::{Bytes, Op, PANEL};

/// What goes with 32 activations of 8 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct GroupScale {
    /// Activations are their bytes times this.
    pub scale: f32,
    /// The sum of the bytes.
    pub sum: i32,
    /// The Euclidean norm of the activations, rounded up.
    pub norm: f32,
}

/// Panels of condensed rows to scan.
#[derive(Debug)]
pub struct ScanArgs<'a> {
    /// For each panel and group of 32 columns five groups of four bytes of each row, as
    /// [`CondenseArgs::codes`](super::CondenseArgs::codes).
    pub codes: &'a [Group],
    /// For each panel and group of columns the scales of the rows.
    pub scales: &'a [[i8; PANEL]],
    /// Activations, one for each column.
    pub x: &'a [[i8; 4]],
    /// For each group of columns.
    pub x_scales: &'a [GroupScale],
    /// For each row the product, in half steps of the row.
    pub products: &'a mut [[f32; PANEL]],
    /// For each row the sum of the norms of the activations times its scales.
    pub norms: &'a mut [[f32; PANEL]],
}

/// A kernel that scans.
pub type ScanFn = for<'a> fn(ScanArgs<'a>);

/// Groups of the codes of 32 columns.
pub const CODE_GROUPS: usize = CODE_BYTES / 4;

pub(crate) struct Scan;

impl<S: Bytes> Op<S> for Scan {
    type Args<'a> = ScanArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: ScanArgs<'_>) {
        let width = args.x_scales.len();
        let panels =
            args.codes.chunks_exact(CODE_GROUPS * width).zip(args.scales.chunks_exact(width));
        let out = args.products.iter_mut().zip(args.norms);
        for ((codes, scales), (products, norms)) in panels.zip(out) {
            match PANEL / S::ROWS {
                2 => panel::<S, 2>(s, codes, scales, (args.x, args.x_scales), (products, norms)),
                4 => panel::<S, 4>(s, codes, scales, (args.x, args.x_scales), (products, norms)),
                _ => panel::<S, 8>(s, codes, scales, (args.x, args.x_scales), (products, norms)),
            }
        }
    }
}

/// One panel, whose rows are `R` registers.
#[inline(always)]
fn panel<S: Bytes, const R: usize>(
    s: S,
    codes: &[Group],
    scales: &[[i8; PANEL]],
    (x, x_scales): (&[[i8; 4]], &[GroupScale]),
    (products, norms): (&mut [f32; PANEL], &mut [f32; PANEL]),
) {
    let (mut product, mut norm) = ([0.0; PANEL], [0.0; PANEL]);
    let columns =
        codes.as_chunks::<CODE_GROUPS>().0.iter().zip(x.as_chunks::<{ CONDENSED / 4 }>().0);
    for ((codes, x), (scales, x_scale)) in columns.zip(scales.iter().zip(x_scales)) {
        let (mut narrow, mut fifths) = ([s.narrow(); R], [s.narrow(); R]);
        let [codes @ .., bits] = codes;
        prefetch_behind(bits, AHEAD);
        for (p, x) in x.iter().enumerate() {
            let x = s.splat(x);
            for (r, fifths) in fifths.iter_mut().enumerate() {
                *fifths = s.dot(*fifths, s.bits(s.load(bits, r), p as u32, 1), x);
            }
        }
        for (j, codes) in codes.iter().enumerate() {
            prefetch_behind(codes, AHEAD);
            let (low, high) = (s.splat(&x[j]), s.splat(&x[4 + j]));
            for (r, narrow) in narrow.iter_mut().enumerate() {
                let codes = s.load(codes, r);
                *narrow = s.dot(*narrow, s.bits(codes, 0, 15), low);
                *narrow = s.dot(*narrow, s.bits(codes, 4, 15), high);
            }
        }
        let (mut sums, mut sixteens) = ([0; PANEL], [0; PANEL]);
        for r in 0..R {
            s.add_to(s.widen(s.sums(), narrow[r]), &mut sums, r);
            s.add_to(s.widen(s.sums(), fifths[r]), &mut sixteens, r);
        }
        for row in 0..PANEL {
            // Codes are too great by 15.5.
            let sum = (2 * (sums[row] + 16 * sixteens[row]) - 31 * x_scale.sum) as f32;
            let scale = f32::from(scales[row]);
            product[row] += sum * (scale * x_scale.scale);
            norm[row] += scale * x_scale.norm;
        }
    }
    *products = product;
    *norms = norm;
}
