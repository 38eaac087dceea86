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

    /// Up to `n` rows that look best; of different panels, if there are many more panels.
    fn seeds(self, only: Only<'_>, n: usize) -> Vec<u32> {
        let with_rows = (0..self.iter().len()).filter(|&panel| only.of(panel) != 0);
        let mut seeds: Vec<(f32, u32)> = Vec::new();
        if with_rows.count() > 4 * n {
            for (panel, Scanned { products, greatest, .. }) in self.iter().enumerate() {
                let is_greatest = |&row: &usize| products[row] == greatest.0;
                let greater = |a: &usize, b: &usize| products[*a].total_cmp(&products[*b]);
                let best = match only.of(panel) {
                    u32::MAX => (0..ROWS).find(is_greatest).or(Some(0)),
                    _ => only.rows(panel).max_by(greater),
                };
                seeds.extend(best.map(|row| (products[row], (panel * ROWS + row) as u32)));
            }
        } else {
            let product = |id: u32| self.get(id as usize / ROWS).products[id as usize % ROWS];
            seeds.extend(only.ids().map(|id| (product(id), id)));
        }
        if n < seeds.len() {
            seeds.select_nth_unstable_by(n, |a, b| b.0.total_cmp(&a.0));
            seeds.truncate(n);
        }
        seeds.into_iter().map(|(_, id)| id).collect()
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

/// A query on its way.
pub(super) struct Hunt<'a> {
    pub(super) query: Query<'a>,
    /// What is known of its hidden state. None where few rows can be found: each is multiplied exactly.
    pub(super) seen: Option<(Panels<'a>, &'a HiddenState)>,
    pub(super) found: &'a mut Vec<Candidate>,
    /// Rows to look at next.
    pub(super) rows: Vec<u32>,
    /// What a logit must be at least.
    floor: f32,
}

impl<'a> Hunt<'a> {
    /// One that begins with some rows.
    pub(super) fn new(
        query: Query<'a>,
        seen: Option<(Panels<'a>, &'a HiddenState)>,
        rows: Vec<u32>,
        found: &'a mut Vec<Candidate>,
    ) -> Hunt<'a> {
        found.clear();
        Hunt { query, seen, found, rows, floor: f32::NEG_INFINITY }
    }

    /// Takes the rows that look best, which give a high floor (any would give one), and those that are
    /// wanted whatever they are.
    fn seed(&mut self, of: usize) {
        let Query { k, also, only, .. } = self.query;
        let Some((panels, _)) = self.seen else { return };
        let only = Only { words: only, rows: of };
        self.rows = panels.seeds(only, k.min(of) + SEEDS);
        self.rows.extend(also.iter().filter(|&&id| only.has(id)));
        self.rows.sort_unstable();
        self.rows.dedup();
    }

    /// Takes the rows that can be above the floor that those before it give.
    fn sieve(&mut self, of: usize) {
        let seeds = std::mem::take(&mut self.rows);
        let Some((panels, _)) = self.seen else { return };
        let Query { k, also, only, .. } = self.query;
        self.floor = floor(self.found, k.min(of), also);
        let only = Only { words: only, rows: of };
        for (panel, scanned) in panels.iter().enumerate() {
            if scanned.greatest.1 >= self.floor {
                let rows = only.rows(panel).filter(|&row| scanned.most[row] >= self.floor);
                self.rows.extend(rows.map(|row| (panel * ROWS + row) as u32));
            }
        }
        self.rows.retain(|id| seeds.binary_search(id).is_err());
    }
}

impl Shortlist {
    /// Goes through all queries together, so that threads share the work of one as well as that of many.
    /// Gives the bytes of weights that were read.
    pub(super) fn search(
        &self,
        layer: Layer<'_>,
        hunts: &mut [Hunt<'_>],
        (pool, calls): (&Pool, &mut Calls),
    ) -> u64 {
        each(hunts, pool, |hunt| hunt.seed(self.rows));
        self.exact(layer, hunts, pool);
        each(hunts, pool, |hunt| hunt.sieve(self.rows));
        let refined = self.refine_all(hunts, pool);
        calls.add(&self.refine, refined as u64);
        self.exact(layer, hunts, pool);
        let found = hunts.iter().map(|hunt| hunt.found.len()).sum::<usize>();
        calls.add(layer.head, found as u64);
        let fine = fine_blocks(self.cols) * (size_of::<Group>() + LANE_GROUPS);
        (refined * fine + found * self.row_bytes) as u64
    }

    /// Leaves out the rows that 2 bits more rule out, where there are many. Gives the number of rows that
    /// were looked at.
    fn refine_all(&self, hunts: &mut [Hunt<'_>], pool: &Pool) -> usize {
        let mut all = Vec::new();
        for (nth, hunt) in hunts.iter_mut().enumerate().filter(|(_, hunt)| hunt.rows.len() > FEW) {
            all.extend(hunt.rows.drain(..).map(|row| (nth, row, true)));
        }
        let rows: Vec<u32> = all.iter().map(|&(_, row, _)| row).collect();
        let seen: Vec<_> = hunts.iter().map(|hunt| (hunt.seen, hunt.floor)).collect();
        pool.tiles(&mut all, 1, (64, 1), |mut tile| {
            for i in tile.rows() {
                if let Some(&row) = rows.get(i + ROWS_AHEAD) {
                    self.prefetch(row as usize);
                }
                let (nth, row, can_be) = &mut tile.row(i)[0];
                if let (Some((panels, state)), floor) = seen[*nth] {
                    let row = *row as usize;
                    let product = panels.get(row / ROWS).products[row % ROWS];
                    *can_be = self.refined(state, row, product) >= floor;
                }
            }
        });
        for &(nth, row, _) in all.iter().filter(|(_, _, can_be)| *can_be) {
            hunts[nth].rows.push(row);
        }
        rows.len()
    }

    /// Adds the exact logits of the rows of each to what it found.
    fn exact(&self, layer: Layer<'_>, hunts: &mut [Hunt<'_>], pool: &Pool) {
        let mut all = Vec::new();
        for (nth, hunt) in hunts.iter().enumerate() {
            all.extend(hunt.rows.iter().map(|&id| (nth, Candidate { id, logit: 0.0 })));
        }
        let ids: Vec<u32> = all.iter().map(|(_, candidate)| candidate.id).collect();
        let states: Vec<&[f32]> = hunts.iter().map(|hunt| hunt.query.x).collect();
        let weights = |id: u32| &layer.weights[id as usize * self.row_bytes..][..self.row_bytes];
        pool.tiles(&mut all, 1, (8, 1), |mut tile| {
            for i in tile.rows() {
                if let Some(&id) = ids.get(i + EXACT_AHEAD) {
                    prefetch(weights(id));
                }
                let (nth, candidate) = &mut tile.row(i)[0];
                let (x, weights) = (states[*nth], weights(candidate.id));
                let y = Tile::new(std::slice::from_mut(&mut candidate.logit), 1);
                (layer.head.run)(HeadArgs { weights, x, cols: x.len(), y });
            }
        });
        for (nth, candidate) in all {
            hunts[nth].found.push(candidate);
        }
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
}

/// Does something with each of them.
fn each(hunts: &mut [Hunt<'_>], pool: &Pool, work: impl Fn(&mut Hunt<'_>) + Sync) {
    pool.tiles(hunts, 1, (1, 1), |mut tile| {
        for i in tile.rows() {
            work(&mut tile.row(i)[0]);
        }
    });
}

/// What the `k`-th greatest logit is at least: the `k`-th greatest of those that were not asked for
/// by name.
fn floor(found: &[Candidate], k: usize, also: &[u32]) -> f32 {
    let mut also = also.to_vec();
    also.sort_unstable();
    let others = found.iter().filter(|found| also.binary_search(&found.id).is_err());
    let mut logits: Vec<f32> = others.map(|found| found.logit).collect();
    if k == 0 || logits.len() < k || logits.iter().any(|logit| logit.is_nan()) {
        return f32::NEG_INFINITY;
    }
    *logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1
}
