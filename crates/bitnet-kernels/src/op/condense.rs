//! A row of the output layer to 5 bits and 2 more, with what it loses.
//!
//! Columns go in groups of 32 with a step `a` each. A number is `a (c - 15.5)` with a code `c` of 5
//! bits, and what that leaves is `a (d - 1.5) / 4` with a code `d` of 2 bits.

use std::marker::PhantomData;

use crate::format::Float;
use crate::simd::{Floats, LANES, Op};

/// Columns that share a step.
pub const CONDENSED: usize = 32;
/// Bytes of their codes.
pub const CODE_BYTES: usize = 20;
/// The code of zero, and half of the greatest.
const MIDDLE: f32 = 15.5;

/// What is known of a condensed row. Norms are Euclidean and rounded up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowNorms {
    /// The step of a group is this times its scale.
    pub step: f32,
    /// Of the row.
    pub row: f32,
    /// Of what 5 bits lose.
    pub lost: f32,
    /// Of what 7 bits lose.
    pub lost_fine: f32,
    /// Of what 5 bits lose of a group, relative to its step: the greatest.
    pub relative: f32,
}

impl RowNorms {
    /// A row of which nothing is known.
    const UNKNOWN: RowNorms = RowNorms {
        step: 0.0,
        row: f32::INFINITY,
        lost: f32::INFINITY,
        lost_fine: f32::INFINITY,
        relative: f32::INFINITY,
    };
}

/// A row to condense.
#[derive(Debug)]
pub struct CondenseArgs<'a> {
    /// Its bytes.
    pub row: &'a [u8],
    /// For each group the codes `c`: the lower four bits of columns 0 to 15 in the low halves of the
    /// bytes, of 16 to 31 in the high ones; then bytes whose bit `p` is the fifth of columns `4 p` to
    /// `4 p + 3`.
    pub codes: &'a mut [[u8; CODE_BYTES]],
    /// For each group the codes `d`: byte `4 j + i` holds columns `16 j + i`, and 4, 8 and 12 after
    /// it, the first in the two highest bits.
    pub fine: &'a mut [[u8; 8]],
    /// For each group the scale, not negative.
    pub scales: &'a mut [i8],
    /// What is known of the row.
    pub norms: &'a mut RowNorms,
}

/// A kernel that condenses rows.
pub type CondenseFn = for<'a> fn(CondenseArgs<'a>);

pub(crate) struct Condense<F>(PhantomData<F>);

impl<S: Floats, F: Float> Op<S> for Condense<F> {
    type Args<'a> = CondenseArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: CondenseArgs<'_>) {
        let load =
            |group: usize| [F::load(s, args.row, 2 * group), F::load(s, args.row, 2 * group + 1)];
        let mut poison = s.splat(0.0);
        let mut most = s.splat(0.0);
        for group in 0..args.scales.len() {
            for x in load(group) {
                // Zero times a number is zero, times anything else NaN, which `max` would lose.
                poison = s.fma(x, s.splat(0.0), poison);
                most = s.max(most, s.abs(x));
            }
        }
        let step = s.greatest(most) / (MIDDLE * 127.0);
        *args.norms = RowNorms::UNKNOWN;
        args.scales.fill(0);
        // Rows that are not finite are not condensed, nor those for which sums of products could leave
        // the range of normal numbers.
        if s.sum(poison).is_nan() || step != 0.0 && !(1e-15..=1e9).contains(&step) {
            return;
        }
        let mut squares = [s.splat(0.0); 3];
        let mut relative = 0.0_f32;
        for group in 0..args.scales.len() {
            let x = load(group);
            let most = s.greatest(s.max(s.abs(x[0]), s.abs(x[1])));
            let scale = if step == 0.0 { 0.0 } else { (most / (MIDDLE * step)).ceil().min(127.0) };
            args.scales[group] = scale as i8;
            let (mut codes, mut fine) = ([[0; LANES]; 2], [[0; LANES]; 2]);
            let mut lost = s.splat(0.0);
            for half in 0..2 {
                let coded = code(s, x[half], step * scale);
                s.store_i8(coded.code, &mut codes[half]);
                s.store_i8(coded.fine, &mut fine[half]);
                lost = s.fma(coded.lost, coded.lost, lost);
                squares[0] = s.fma(x[half], x[half], squares[0]);
                squares[2] = s.fma(coded.lost_fine, coded.lost_fine, squares[2]);
            }
            squares[1] = s.add(squares[1], lost);
            if scale > 0.0 {
                relative = relative.max(s.sum(lost).sqrt() / (step * scale));
            }
            pack(codes, fine, &mut args.codes[group], &mut args.fine[group]);
        }
        // More than the sums can be wrong by.
        let row = s.sum(squares[0]).sqrt() * 1.001;
        let up = |square: S::F| s.sum(square).sqrt() * 1.001 + row * 1e-6;
        *args.norms = RowNorms {
            step,
            row,
            lost: up(squares[1]),
            lost_fine: up(squares[2]),
            relative: relative * 1.001 + 1e-4,
        };
    }
}

/// Sixteen numbers, coded.
struct Coded<V> {
    code: V,
    lost: V,
    fine: V,
    lost_fine: V,
}

#[inline(always)]
fn code<S: Floats>(s: S, x: S::F, step: f32) -> Coded<S::F> {
    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
    let nearest = |x: S::F, inverse: f32, middle: f32| {
        let code = s.round(s.fma(x, s.splat(inverse), s.splat(middle)));
        // Between zero and twice the middle.
        let (zero, top) = (s.splat(0.0), s.splat(2.0 * middle));
        s.sub(top, s.max(zero, s.sub(top, s.max(zero, code))))
    };
    let left = |x: S::F, code: S::F, step: f32, middle: f32| {
        s.fma(s.splat(-step), s.sub(code, s.splat(middle)), x)
    };
    let code = nearest(x, inverse, MIDDLE);
    let lost = left(x, code, step, MIDDLE);
    let fine = nearest(lost, 4.0 * inverse, 1.5);
    Coded { code, lost, fine, lost_fine: left(lost, fine, 0.25 * step, 1.5) }
}

#[inline(always)]
fn pack(
    codes: [[i8; LANES]; 2],
    fine: [[i8; LANES]; 2],
    out: &mut [u8; CODE_BYTES],
    out_fine: &mut [u8; 8],
) {
    for i in 0..LANES {
        out[i] = codes[0][i].cast_unsigned() & 15 | codes[1][i].cast_unsigned() << 4;
    }
    let fifths =
        codes.as_flattened().as_chunks::<4>().0.iter().enumerate().fold(0, |bits, (p, four)| {
            let four = u32::from_le_bytes(four.map(i8::cast_unsigned));
            bits | (four >> 4 & 0x0101_0101) << p
        });
    out[LANES..].copy_from_slice(&fifths.to_le_bytes());
    for (half, out) in fine.iter().zip(out_fine.as_chunks_mut::<4>().0) {
        let half = half.map(i8::cast_unsigned);
        for i in 0..4 {
            out[i] = half[i] << 6 | half[4 + i] << 4 | half[8 + i] << 2 | half[12 + i];
        }
    }
}
