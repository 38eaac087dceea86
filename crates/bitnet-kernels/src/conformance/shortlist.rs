//! Inputs for the operations of the shortlist: condense, scan and refine.

use super::cases::{Outcome, Random, Unaligned, case, float_rows, guarded, same};
use super::reference;
use crate::format::Format;
use crate::op::{
    CODE_BYTES, CONDENSED, CondenseArgs, CondenseFn, GroupScale, LANE_GROUPS, RefineArgs, RefineFn,
    RowNorms, ScanArgs, ScanFn,
};
use crate::packed::ROWS;
use crate::shortlist;

pub(super) fn condense(run: CondenseFn, format: Format) -> Outcome {
    let mut random = Random::new();
    for cols in [256, 768, 2560] {
        let row_bytes = format.row_bytes(cols).map_err(|e| e.to_string())?;
        let mut rows = float_rows(format, 5, row_bytes, &mut random);
        rows[2 * row_bytes..3 * row_bytes].fill(0);
        if let Format::F32 = format {
            rows[3 * row_bytes..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
            rows[4 * row_bytes..].fill(0);
            rows[4 * row_bytes..][..4].copy_from_slice(&1e-38_f32.to_le_bytes());
        }
        for row in Unaligned::new(&rows).bytes().chunks(row_bytes) {
            let want = reference::condense(&reference::widen(format, row));
            let groups = cols / CONDENSED;
            let (mut codes, mut fine) = (vec![[0; CODE_BYTES]; groups], vec![[0; 8]; groups]);
            let (mut scales, mut norms) = (vec![99; groups], RowNorms::default());
            run(CondenseArgs {
                row,
                codes: &mut codes,
                fine: &mut fine,
                scales: &mut scales,
                norms: &mut norms,
            });
            if (codes, fine, scales, norms) != want {
                return Err(format!("row of {cols}"));
            }
        }
    }
    Ok(())
}

/// Scales and sums of random activations.
fn group_scales(x: &[i8], random: &mut Random) -> Vec<GroupScale> {
    let sum = |group: &[i8]| group.iter().map(|&x| i32::from(x)).sum();
    let mut one = |group: &[i8]| GroupScale {
        scale: random.floats(1)[0].abs(),
        sum: sum(group),
        norm: random.floats(1)[0].abs(),
    };
    x.chunks(CONDENSED).map(&mut one).collect()
}

pub(super) fn scan(run: ScanFn) -> Outcome {
    let mut random = Random::new();
    for (panels, cols) in [(1, 32), (3, 256), (2, 2560)] {
        for worst in [None, Some(127), Some(-127)] {
            let mut codes = random.bytes(panels * cols * 20);
            let mut x = random.bytes(cols);
            if let Some(worst) = worst {
                codes.fill(-1);
                x.fill(worst);
            }
            let codes: Vec<u8> = codes.into_iter().map(i8::cast_unsigned).collect();
            let x_scales = group_scales(&x, &mut random);
            let scales: Vec<i8> = (0..panels * cols).map(|_| random.below(128) as i8).collect();
            let want = reference::scan(&codes, &scales, &x, &x_scales);
            let memory = Unaligned::new(&codes);
            let n = panels * ROWS;
            let mut norms = vec![[0.0; ROWS]; panels];
            let got = guarded(n, &want.0, |products| {
                run(ScanArgs {
                    codes: memory.bytes().as_chunks().0,
                    scales: scales.as_chunks().0,
                    x: x.as_chunks().0,
                    x_scales: &x_scales,
                    products: products.as_chunks_mut().0,
                    norms: &mut norms,
                });
            });
            case(got, || format!("{panels} panels of {cols}"))?;
            case(same(norms.as_flattened(), &want.1), || format!("norms of {panels} panels"))?;
        }
    }
    Ok(())
}

pub(super) fn refine(run: RefineFn) -> Outcome {
    let mut random = Random::new();
    for cols in [32, 256, 512, 1536, 2560] {
        let blocks = (cols / CONDENSED).div_ceil(LANE_GROUPS);
        for worst in [None, Some(127), Some(-127)] {
            let mut fine = random.bytes(blocks * 128);
            let mut x = random.bytes(cols);
            if let Some(worst) = worst {
                fine.fill(-1);
                x.fill(worst);
            }
            let fine: Vec<u8> = fine.into_iter().map(i8::cast_unsigned).collect();
            let x_scales = group_scales(&x, &mut random);
            let scales: Vec<i8> =
                (0..blocks * LANE_GROUPS).map(|_| random.below(128) as i8).collect();
            let want = reference::refine(&fine, &scales, &x, &x_scales);
            let memory = Unaligned::new(&fine);
            let got = guarded(LANE_GROUPS, &want, |products| {
                run(RefineArgs {
                    fine: memory.bytes().as_chunks().0,
                    scales: scales.as_chunks().0,
                    x: &shortlist::fine_activations(&x, &x_scales),
                    products: &mut products.as_chunks_mut().0[0],
                });
            });
            case(got, || format!("row of {cols}"))?;
        }
    }
    Ok(())
}
