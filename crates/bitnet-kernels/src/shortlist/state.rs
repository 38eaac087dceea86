//! What is known of rows and of a hidden state: how far a logit can be from what the scan says.

use super::fine_blocks;
use crate::op::{CONDENSED, FineActivations, GroupScale, LANE_GROUPS, RowNorms};
use crate::packed::{Group, ROWS};

/// What the scan tells of a panel. Rows that the last one lacks look worst.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scanned {
    /// Nearly the logits.
    pub(super) products: [f32; ROWS],
    /// The most that each logit can be; never NaN.
    pub(super) most: [f32; ROWS],
    /// The greatest of `products`, and of `most`.
    pub(super) greatest: (f32, f32),
}

impl Scanned {
    pub(super) const NONE: Scanned = Scanned {
        products: [f32::NEG_INFINITY; ROWS],
        most: [f32::NEG_INFINITY; ROWS],
        greatest: (f32::NEG_INFINITY, f32::NEG_INFINITY),
    };
}

/// The norms of a panel, as [`RowNorms`], in the order in which all rows use them together.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(super) struct PanelNorms {
    pub(super) step: [f32; ROWS],
    lost: [f32; ROWS],
    /// Of what 5 bits lose of a group, relative to the scale of the group.
    relative: [f32; ROWS],
    /// Of the copy of 5 bits.
    pub(super) copy: [f32; ROWS],
    pub(super) lost_fine: [f32; ROWS],
}

impl PanelNorms {
    pub(super) fn set(&mut self, r: usize, norms: RowNorms) {
        self.step[r] = norms.step;
        self.lost[r] = norms.lost;
        self.relative[r] = norms.relative * norms.step;
        self.copy[r] = norms.row + norms.lost;
        self.lost_fine[r] = norms.lost_fine;
    }
}

/// A hidden state in 8 bits, with what that loses.
pub(super) struct HiddenState {
    pub(super) bytes: Vec<i8>,
    pub(super) scales: Vec<GroupScale>,
    /// As [`RefineArgs::x`].
    pub(super) fine: Vec<FineActivations>,
    /// The norm, rounded up.
    pub(super) norm: f32,
    /// The norm of what 8 bits lose, rounded up.
    lost: f32,
    /// What roundings change, relative to the product of the norms.
    rounding: f32,
}

impl HiddenState {
    pub(super) fn new(x: &[f32]) -> Option<HiddenState> {
        let (mut bytes, mut scales) = (Vec::with_capacity(x.len()), Vec::new());
        let (mut square, mut square_lost) = (0.0, 0.0);
        for x in x.chunks(CONDENSED) {
            let most = x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            let (scale, inverse) =
                if most > 1e-30 { (most / 127.0, 127.0 / most) } else { (0.0, 0.0) };
            let first = bytes.len();
            let (mut group, mut lost) = (0.0, 0.0);
            for &x in x {
                let q = (x * inverse).round_ties_even().clamp(-127.0, 127.0);
                bytes.push(q as i8);
                group += f64::from(x) * f64::from(x);
                let left = f64::from(x) - f64::from(scale) * f64::from(q);
                lost += left * left;
            }
            let sum = bytes[first..].iter().map(|&q| i32::from(q)).sum();
            scales.push(GroupScale { scale, sum, norm: up(group) });
            square += group;
            square_lost += lost;
        }
        let (norm, lost) = (up(square), up(square_lost));
        // Each sum below adds one rounding for each of its terms, in the exact product a lane has a
        // sixteenth of them, in the scan a group is a term.
        let roundings = x.len() / LANE_GROUPS + 2 * scales.len() + 64;
        let rounding = roundings as f32 * f32::EPSILON;
        let fine = fine_activations(&bytes, &scales);
        let usual = norm == 0.0 || (1e-12..=1e12).contains(&norm);
        usual.then_some(HiddenState { bytes, scales, fine, norm, lost, rounding })
    }

    /// How far a product with a row is from the exact logit at most, where `copy` is the norm of
    /// its copy and the copy lost `lost`.
    #[inline(always)]
    pub(super) fn bound(&self, copy: f32, lost: f32) -> f32 {
        let rounding = self.rounding * copy * (self.norm + self.lost);
        (lost + copy * self.lost + rounding) * 1.0001
    }

    /// What products and norms of a scan say about the first `rows` rows of a panel.
    pub(super) fn scanned(
        &self,
        norms: &PanelNorms,
        (products, groups): ([f32; ROWS], [f32; ROWS]),
        rows: usize,
    ) -> Scanned {
        let mut scanned = Scanned { products, ..Scanned::NONE };
        for (r, group) in groups.into_iter().enumerate() {
            scanned.products[r] *= 0.5 * norms.step[r];
            // By all columns at once, or group by group.
            let lost = (norms.lost[r] * self.norm).min(norms.relative[r] * group);
            scanned.most[r] = at_most(scanned.products[r], self.bound(norms.copy[r], lost));
        }
        for r in rows.min(ROWS)..ROWS {
            (scanned.products[r], scanned.most[r]) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
        }
        let greatest = |x: [f32; ROWS]| x.into_iter().fold(f32::NEG_INFINITY, f32::max);
        scanned.greatest = (greatest(scanned.products), greatest(scanned.most));
        scanned
    }
}

/// The most that a logit near `product` can be: anything, where that is no number.
#[inline(always)]
pub(super) fn at_most(product: f32, bound: f32) -> f32 {
    let most = product + bound;
    if most.is_finite() { most } else { f32::INFINITY }
}

/// The sum of all lanes, halves on halves.
pub(super) fn sum(lanes: [f32; LANE_GROUPS]) -> f32 {
    let eight: [f32; 8] = std::array::from_fn(|i| lanes[i] + lanes[i + 8]);
    let four: [f32; 4] = std::array::from_fn(|i| eight[i] + eight[i + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The root of a sum of squares, rounded up.
fn up(square: f64) -> f32 {
    (square.sqrt() * 1.00001) as f32
}

/// Activations as [`RefineArgs::x`] wants them.
pub(crate) fn fine_activations(x: &[i8], scales: &[GroupScale]) -> Vec<FineActivations> {
    let none = FineActivations {
        bytes: [[0; size_of::<Group>()]; 4],
        scales: [0.0; LANE_GROUPS],
        sums: [0; LANE_GROUPS],
    };
    let mut out = vec![none; fine_blocks(x.len())];
    for (g, (x, scale)) in x.chunks(CONDENSED).zip(scales).enumerate() {
        let (block, lane) = (&mut out[g / LANE_GROUPS], g % LANE_GROUPS);
        (block.scales[lane], block.sums[lane]) = (scale.scale, scale.sum);
        for (i, x) in x.iter().enumerate() {
            let (half, plane, byte) = (i / 16, i % 16 / 4, i % 4);
            let word = half * LANE_GROUPS + lane;
            block.bytes[plane][4 * word + byte] = x.cast_unsigned();
        }
    }
    out
}
