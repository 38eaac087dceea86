//! One hidden state among what the scan says: a floor, then what can be above it.

use super::state::{HiddenState, Scanned, at_most, sum};
use super::{Candidate, Layer, Query, Shortlist, fine_blocks};
use crate::op::{HeadArgs, LANE_GROUPS, RefineArgs};
use crate::packed::{Group, ROWS};
use crate::pool::{Pool, Tile};
use crate::registry::Calls;
use crate::simd::prefetch::prefetch;

/// Rows looked at exactly beside the `k` that are asked for, before others are ruled out.
const SEEDS: usize = 24;
/// Rows between the one that is refined and the one that is asked for from memory.
const ROWS_AHEAD: usize = 6;
/// Rows between the one that is multiplied exactly and the one that is asked for from memory.
const EXACT_AHEAD: usize = 3;
/// So few rows are multiplied exactly at once.
pub(super) const FEW: usize = 64;

/// What the scan tells a query.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a> {
    /// `[panels, queries]`.
    pub(super) all: &'a [Scanned],
    pub(super) nth: usize,
    pub(super) queries: usize,
}

impl<'a> Panels<'a> {
    fn get(self, panel: usize) -> &'a Scanned {
        &self.all[panel * self.queries + self.nth]
    }

    fn iter(self) -> impl ExactSizeIterator<Item = &'a Scanned> {
        self.all[self.nth..].iter().step_by(self.queries)
    }
}

/// Rows that can be found, of `rows`.
#[derive(Clone, Copy)]
pub(super) struct Only<'a> {
    /// As [`Query::only`].
    pub(super) words: Option<&'a [u32]>,
    pub(super) rows: usize,
}

impl Only<'_> {
    /// Those of a panel, a bit each.
    fn of(self, panel: usize) -> u32 {
        let word = self.words.map_or(u32::MAX, |words| words.get(panel).copied().unwrap_or(0));
        match self.rows.saturating_sub(panel * ROWS) {
            rows @ ..ROWS => word & !(u32::MAX << rows),
            _ => word,
        }
    }

    fn has(self, id: u32) -> bool {
        self.of(id as usize / ROWS) >> (id % 32) & 1 == 1
    }

    /// Those of a panel.
    fn rows(self, panel: usize) -> impl Iterator<Item = usize> {
        let bits = self.of(panel);
        (0..ROWS).filter(move |row| bits >> row & 1 == 1)
    }

    /// All of them.
    pub(super) fn ids(self) -> impl Iterator<Item = u32> {
        let panels = 0..self.rows.div_ceil(ROWS);
        panels.flat_map(move |panel| self.rows(panel).map(move |row| (panel * ROWS + row) as u32))
    }
}

// A word is a panel.
const _: () = assert!(ROWS == 32);

impl Shortlist {
    /// Finds what one query asks for. Gives the bytes of fine codes that were read.
    pub(super) fn search(
        &self,
        (layer, state): (Layer<'_>, &HiddenState),
        Query { x, k, also, only }: Query<'_>,
        panels: Panels<'_>,
        (pool, found, calls): (&Pool, &mut Vec<Candidate>, &mut Calls),
    ) -> u64 {
        let (k, row_bytes) = (k.min(self.rows), self.row_bytes);
        let only = Only { words: only, rows: self.rows };
        // Any rows give a floor; those that look best give a high one.
        let mut seeds = self.seeds(panels, only, k + SEEDS);
        seeds.extend(also.iter().filter(|&&id| only.has(id)));
        seeds.sort_unstable();
        seeds.dedup();
        exact((layer, row_bytes), x, &seeds, pool, found);
        let floor = floor(found, k, also);

        let mut left = Vec::new();
        for (panel, scanned) in panels.iter().enumerate() {
            if scanned.greatest.1 >= floor {
                let rows = only.rows(panel).filter(|&row| scanned.most[row] >= floor);
                left.extend(rows.map(|row| (panel * ROWS + row) as u32));
            }
        }
        left.retain(|id| seeds.binary_search(id).is_err());
        let mut read = 0;
        if left.len() > FEW {
            read += left.len() * fine_blocks(self.cols) * (size_of::<Group>() + LANE_GROUPS);
            calls.add(&self.refine, left.len() as u64);
            let mut most = vec![0.0; left.len()];
            pool.tiles(&mut most, 1, (64, 1), |mut tile| {
                for i in tile.rows() {
                    if let Some(&row) = left.get(i + ROWS_AHEAD) {
                        self.prefetch(row as usize);
                    }
                    let row = left[i] as usize;
                    let product = panels.get(row / ROWS).products[row % ROWS];
                    tile.row(i)[0] = self.refined(state, row, product);
                }
            });
            let mut most = most.into_iter();
            left.retain(|_| most.next().is_none_or(|most| most >= floor));
        }
        exact((layer, row_bytes), x, &left, pool, found);
        read as u64
    }

    /// Asks for what [`Shortlist::refined`] reads.
    fn prefetch(&self, row: usize) {
        let blocks = fine_blocks(self.cols);
        prefetch(self.fine.get()[row * blocks..][..blocks].as_flattened());
        prefetch(self.row_scales[row * blocks..][..blocks].as_flattened());
    }

    /// The most that the logit of a row can be, by 7 bits.
    fn refined(&self, state: &HiddenState, row: usize, product: f32) -> f32 {
        let blocks = fine_blocks(self.cols);
        let mut lanes = [0.0; LANE_GROUPS];
        (self.refine.run)(RefineArgs {
            fine: &self.fine.get()[row * blocks..][..blocks],
            scales: &self.row_scales[row * blocks..][..blocks],
            x: &state.fine,
            products: &mut lanes,
        });
        let fine = sum(lanes);
        let (norms, r) = (&self.norms[row / ROWS], row % ROWS);
        let lost = norms.lost_fine[r] * state.norm;
        at_most(product + 0.125 * norms.step[r] * fine, state.bound(norms.copy[r], lost))
    }

    /// Up to `n` rows that look best; of different panels, if there are many more panels.
    fn seeds(&self, panels: Panels<'_>, only: Only<'_>, n: usize) -> Vec<u32> {
        let with_rows = (0..panels.iter().len()).filter(|&panel| only.of(panel) != 0);
        let mut seeds: Vec<(f32, u32)> = Vec::new();
        if with_rows.count() > 4 * n {
            for (panel, Scanned { products, greatest, .. }) in panels.iter().enumerate() {
                let is_greatest = |&row: &usize| products[row] == greatest.0;
                let greater = |a: &usize, b: &usize| products[*a].total_cmp(&products[*b]);
                let best = match only.of(panel) {
                    u32::MAX => (0..ROWS).find(is_greatest).or(Some(0)),
                    _ => only.rows(panel).max_by(greater),
                };
                seeds.extend(best.map(|row| (products[row], (panel * ROWS + row) as u32)));
            }
        } else {
            let product = |id: u32| panels.get(id as usize / ROWS).products[id as usize % ROWS];
            seeds.extend(only.ids().map(|id| (product(id), id)));
        }
        if n < seeds.len() {
            seeds.select_nth_unstable_by(n, |a, b| b.0.total_cmp(&a.0));
            seeds.truncate(n);
        }
        seeds.into_iter().map(|(_, id)| id).collect()
    }
}

/// The exact logits of some rows of `row_bytes` bytes, added to `found`.
pub(super) fn exact(
    (layer, row_bytes): (Layer<'_>, usize),
    x: &[f32],
    ids: &[u32],
    pool: &Pool,
    found: &mut Vec<Candidate>,
) {
    let mut new: Vec<_> = ids.iter().map(|&id| Candidate { id, logit: 0.0 }).collect();
    pool.tiles(&mut new, 1, (8, 1), |mut tile| {
        let weights = |id: u32| &layer.weights[id as usize * row_bytes..][..row_bytes];
        for i in tile.rows() {
            if let Some(&id) = ids.get(i + EXACT_AHEAD) {
                prefetch(weights(id));
            }
            let candidate = &mut tile.row(i)[0];
            let weights = weights(candidate.id);
            let y = Tile::new(std::slice::from_mut(&mut candidate.logit), 1);
            (layer.head.run)(HeadArgs { weights, x, cols: x.len(), y });
        }
    });
    found.extend(new);
}

/// What the `k`-th greatest logit is at least: the `k`-th greatest of those that were not asked for
/// by name.
fn floor(found: &[Candidate], k: usize, also: &[u32]) -> f32 {
    let mut logits: Vec<f32> =
        found.iter().filter(|found| !also.contains(&found.id)).map(|found| found.logit).collect();
    if k == 0 || logits.len() < k || logits.iter().any(|logit| logit.is_nan()) {
        return f32::NEG_INFINITY;
    }
    *logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}
