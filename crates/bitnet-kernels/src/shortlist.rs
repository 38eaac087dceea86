//! The greatest logits of a large output layer from a fraction of its bytes, exactly.
//!
//! Beside the rows themselves stands a copy of 5 bits a number, and of 2 bits more, with what each
//! loses ([`CondenseFn`]). A hidden state is multiplied by the copy ([`ScanFn`]); by Cauchy and
//! Schwarz the exact logit of a row is off by at most the norm of what the copy lost times the norm
//! of the hidden state, and something for roundings. The exact logits of a few rows that look best
//! give a floor under the `k`-th greatest. Rows that cannot reach it are out; what is left is looked
//! at with 2 bits more ([`RefineFn`]), and what is left then is multiplied exactly. So the greatest
//! logits are the ones of the whole output layer, to the last bit.
//!
//! A row that is not finite, or so great or small that products with it might not be normal numbers,
//! cannot be bounded and is always multiplied exactly.

use crate::aligned::Aligned;
use crate::format::{Format, FormatError};
use crate::manager::{KernelManager, NoKernel};
use crate::op::{
    CODE_BYTES, CODE_GROUPS, CONDENSED, CondenseArgs, CondenseFn, FineActivations, GroupScale,
    HeadArgs, HeadFn, LANE_GROUPS, RefineArgs, RefineFn, RowNorms, ScanArgs, ScanFn,
};
use crate::packed::{Group, Groups, ROWS};
use crate::pool::{Pool, Tile};
use crate::registry::{Bound, Calls, Kernel};
use crate::simd::prefetch::prefetch;

/// Panels that a thread scans at a time: some tens of microseconds.
const SCANNED: usize = 8;
/// Rows looked at exactly beside the `k` that are asked for, before others are ruled out.
const SEEDS: usize = 24;
/// Rows between the one that is refined and the one that is asked for from memory.
const ROWS_AHEAD: usize = 6;
/// Rows between the one that is multiplied exactly and the one that is asked for from memory.
const EXACT_AHEAD: usize = 3;
/// So few rows are multiplied exactly at once.
const FEW: usize = 64;

/// A token and its logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The row of the output layer.
    pub id: u32,
    /// The exact logit.
    pub logit: f32,
}

/// The condensed copy of an output layer `[rows, cols]`.
#[derive(Debug)]
pub struct Shortlist {
    /// As [`ScanArgs::codes`].
    codes: Groups,
    /// As [`ScanArgs::scales`].
    scales: Aligned<i8>,
    /// As [`RefineArgs::fine`], row by row.
    fine: Groups,
    /// As [`RefineArgs::scales`], row by row.
    row_scales: Aligned<[i8; LANE_GROUPS]>,
    norms: Aligned<PanelNorms>,
    rows: usize,
    cols: usize,
    row_bytes: usize,
    /// Made the codes.
    condense: &'static Kernel,
    scan: Bound<ScanFn>,
    refine: Bound<RefineFn>,
}

/// Why there is no shortlist.
#[derive(Clone, Debug, PartialEq)]
pub enum ShortlistError {
    /// The table lacks a kernel.
    Kernel(NoKernel),
    /// The rows are not of this shape, or there is no memory.
    Format(FormatError),
}

impl From<NoKernel> for ShortlistError {
    fn from(error: NoKernel) -> Self {
        ShortlistError::Kernel(error)
    }
}

impl From<FormatError> for ShortlistError {
    fn from(error: FormatError) -> Self {
        ShortlistError::Format(error)
    }
}

/// What a search works with. It can be used for many.
#[derive(Debug, Default)]
pub struct Search {
    /// `[panels, queries]`.
    panels: Vec<Scanned>,
    /// For each query.
    found: Vec<Vec<Candidate>>,
    read: u64,
}

/// What to search for: the exact logits of some rows, among them the `k` greatest, those that equal
/// the least of these, and the rows `also`, which do not count.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The hidden state `[cols]`.
    pub x: &'a [f32],
    /// So many of the greatest.
    pub k: usize,
    /// Rows whose logits are wanted whatever they are.
    pub also: &'a [u32],
}

/// What the scan tells of a panel. Rows that the last one lacks look worst.
#[derive(Clone, Copy, Debug)]
struct Scanned {
    /// Nearly the logits.
    products: [f32; ROWS],
    /// The most that each logit can be; never NaN.
    most: [f32; ROWS],
    /// The greatest of `products`, and of `most`.
    greatest: (f32, f32),
}

impl Scanned {
    const NONE: Scanned = Scanned {
        products: [f32::NEG_INFINITY; ROWS],
        most: [f32::NEG_INFINITY; ROWS],
        greatest: (f32::NEG_INFINITY, f32::NEG_INFINITY),
    };
}

/// The norms of a panel, as [`RowNorms`], in the order in which all rows use them together.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct PanelNorms {
    step: [f32; ROWS],
    lost: [f32; ROWS],
    /// Of what 5 bits lose of a group, relative to the scale of the group.
    relative: [f32; ROWS],
    /// Of the copy of 5 bits.
    copy: [f32; ROWS],
    lost_fine: [f32; ROWS],
}

impl PanelNorms {
    fn set(&mut self, r: usize, norms: RowNorms) {
        self.step[r] = norms.step;
        self.lost[r] = norms.lost;
        self.relative[r] = norms.relative * norms.step;
        self.copy[r] = norms.row + norms.lost;
        self.lost_fine[r] = norms.lost_fine;
    }
}

/// What the scan tells a query.
#[derive(Clone, Copy)]
struct Panels<'a> {
    /// `[panels, queries]`.
    all: &'a [Scanned],
    nth: usize,
    queries: usize,
}

impl<'a> Panels<'a> {
    fn get(self, panel: usize) -> &'a Scanned {
        &self.all[panel * self.queries + self.nth]
    }

    fn iter(self) -> impl ExactSizeIterator<Item = &'a Scanned> {
        self.all[self.nth..].iter().step_by(self.queries)
    }
}

impl Search {
    /// What the last search found for a query: exact logits, each of another row, in no order.
    ///
    /// # Panics
    ///
    /// If there was no such query.
    #[must_use]
    pub fn found(&self, query: usize) -> &[Candidate] {
        &self.found[query]
    }

    /// Bytes of weights that the last search read, of the copy and of the rows themselves.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.read
    }
}

/// The output layer that a shortlist was made of.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The bytes of all rows.
    pub weights: &'a [u8],
    /// Multiplies by them.
    pub head: &'a Bound<HeadFn>,
}

/// One panel of the copy, to be made.
struct Panel<'a> {
    codes: &'a mut [Group],
    scales: &'a mut [[i8; ROWS]],
    fine: &'a mut [Group],
    row_scales: &'a mut [[i8; LANE_GROUPS]],
    norms: &'a mut PanelNorms,
}

/// Blocks of fine codes of a row.
fn fine_blocks(cols: usize) -> usize {
    (cols / CONDENSED).div_ceil(LANE_GROUPS)
}

impl Shortlist {
    /// Whether an output layer of this shape is worth it and can be condensed: it must be larger
    /// than what a search costs in any case.
    #[must_use]
    pub fn suits(rows: usize, cols: usize) -> bool {
        rows >= 4096 && cols.is_multiple_of(CONDENSED)
    }

    /// Condenses an output layer `[rows, cols]` of one of [`Format::FLOAT`], whose bytes are
    /// `weights`.
    ///
    /// # Errors
    ///
    /// Where the bytes are not such rows, `cols` is no multiple of 32, or there is no memory.
    pub fn new(
        (format, weights): (Format, &[u8]),
        (rows, cols): (usize, usize),
        manager: &KernelManager,
        pool: &Pool,
    ) -> Result<Shortlist, ShortlistError> {
        crate::format::check(format, weights, rows, cols)?;
        if !cols.is_multiple_of(CONDENSED) {
            return Err(FormatError::Columns { format, cols, multiple: CONDENSED }.into());
        }
        let condense = manager.select::<CondenseFn>(Some(format))?;
        let row_bytes = format.row_bytes(cols)?;
        let (panels, width, blocks) = (rows.div_ceil(ROWS), cols / CONDENSED, fine_blocks(cols));
        let mut list = Shortlist {
            codes: Groups::zeros(panels * width * CODE_GROUPS)?,
            scales: zeros(panels * width * ROWS)?,
            fine: Groups::zeros(panels * ROWS * blocks)?,
            row_scales: zeros(panels * ROWS * blocks)?,
            norms: zeros(panels)?,
            rows,
            cols,
            row_bytes,
            condense: condense.kernel,
            scan: manager.select(None)?,
            refine: manager.select(None)?,
        };
        let mut parts = list.panels();
        pool.tiles(&mut parts, 1, (SCANNED, 1), |mut tile| {
            for panel in tile.rows() {
                let first = panel * ROWS;
                let bytes = &weights[first * row_bytes..rows.min(first + ROWS) * row_bytes];
                fill(&mut tile.row(panel)[0], bytes.chunks_exact(row_bytes), condense.run);
            }
        });
        Ok(list)
    }

    /// The kernels that made it and search it.
    #[must_use]
    pub fn kernels(&self) -> [&'static Kernel; 3] {
        [self.condense, self.scan.kernel, self.refine.kernel]
    }

    fn panels(&mut self) -> Vec<Panel<'_>> {
        let (width, blocks) = (self.cols / CONDENSED, fine_blocks(self.cols));
        let coarse = self
            .codes
            .get_mut()
            .chunks_mut(CODE_GROUPS * width)
            .zip(self.scales.as_chunks_mut().0.chunks_mut(width));
        let fine = self.fine.get_mut().chunks_mut(ROWS * blocks);
        let fine = fine.zip(self.row_scales.chunks_mut(ROWS * blocks));
        let parts = coarse.zip(fine).zip(self.norms.iter_mut());
        parts
            .map(|(((codes, scales), (fine, row_scales)), norms)| Panel {
                codes,
                scales,
                fine,
                row_scales,
                norms,
            })
            .collect()
    }

    /// Finds what the queries ask for. False where a hidden state is not finite, or so great or small
    /// that products with it might not be normal numbers: then no row can be ruled out, and nothing was
    /// looked for.
    ///
    /// `layer` must be what the shortlist was made of. Adds the kernels that ran to `calls`.
    ///
    /// # Panics
    ///
    /// If `layer` or a hidden state have another shape than the shortlist.
    pub fn best(
        &self,
        layer: Layer<'_>,
        queries: &[Query<'_>],
        (pool, search, calls): (&Pool, &mut Search, &mut Calls),
    ) -> bool {
        assert!(layer.weights.len() == self.rows * self.row_bytes, "shapes");
        assert!(queries.iter().all(|query| query.x.len() == self.cols), "shapes");
        let states: Option<Vec<_>> =
            queries.iter().map(|query| HiddenState::new(query.x)).collect();
        let Some(states) = states else {
            return false;
        };
        self.scan(&states, pool, &mut search.panels);
        calls.add(&self.scan, queries.len() as u64);
        let coarse = size_of_val(self.codes.get()) + size_of_val(&self.scales[..]);
        search.read = (coarse + size_of_val(&self.norms[..])) as u64;
        search.found.resize_with(queries.len(), Vec::new);
        for (nth, (query, state)) in queries.iter().zip(&states).enumerate() {
            let panels = Panels { all: &search.panels, nth, queries: queries.len() };
            let found = &mut search.found[nth];
            search.read += self.search((layer, state), *query, panels, (pool, found, calls));
        }
        true
    }

    /// Finds what one query asks for. Gives the bytes that were read.
    fn search(
        &self,
        (layer, state): (Layer<'_>, &HiddenState),
        Query { x, k, also }: Query<'_>,
        panels: Panels<'_>,
        (pool, found, calls): (&Pool, &mut Vec<Candidate>, &mut Calls),
    ) -> u64 {
        let (k, row_bytes) = (k.min(self.rows), self.row_bytes);
        found.clear();
        // Any rows give a floor; those that look best give a high one.
        let mut seeds = self.seeds(panels, k + SEEDS);
        seeds.extend(also.iter().filter(|&&id| (id as usize) < self.rows));
        seeds.sort_unstable();
        seeds.dedup();
        exact((layer, row_bytes), x, &seeds, pool, found);
        let floor = floor(found, k, also);

        let mut left = Vec::new();
        for (panel, scanned) in panels.iter().enumerate() {
            if scanned.greatest.1 >= floor {
                let rows = (panel * ROWS..self.rows).zip(scanned.most);
                left.extend(rows.filter(|&(_, most)| most >= floor).map(|(row, _)| row as u32));
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
        calls.add(layer.head, found.len() as u64);
        (read + found.len() * row_bytes) as u64
    }

    /// Nearly the logits of all rows, and the most they can be: `[panels, states]`. A panel is read
    /// once for all states.
    fn scan(&self, states: &[HiddenState], pool: &Pool, out: &mut Vec<Scanned>) {
        let width = self.cols / CONDENSED;
        out.resize(self.rows.div_ceil(ROWS) * states.len(), Scanned::NONE);
        pool.tiles(out, states.len(), (SCANNED, states.len()), |mut tile| {
            for panel in tile.rows() {
                for (state, out) in states.iter().zip(tile.row(panel)) {
                    let (mut products, mut norms) = ([[0.0; ROWS]], [[0.0; ROWS]]);
                    (self.scan.run)(ScanArgs {
                        codes: &self.codes.get()[CODE_GROUPS * panel * width..]
                            [..CODE_GROUPS * width],
                        scales: &self.scales.as_chunks().0[panel * width..][..width],
                        x: state.bytes.as_chunks().0,
                        x_scales: &state.scales,
                        products: &mut products,
                        norms: &mut norms,
                    });
                    let rows = self.rows - panel * ROWS;
                    *out = state.scanned(&self.norms[panel], (products[0], norms[0]), rows);
                }
            }
        });
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
    fn seeds(&self, panels: Panels<'_>, n: usize) -> Vec<u32> {
        let best = |(panel, scanned): (usize, &Scanned)| {
            let row = scanned.products.iter().position(|&x| x == scanned.greatest.0);
            (scanned.greatest.0, (panel * ROWS + row.unwrap_or(0)) as u32)
        };
        let mut seeds: Vec<_> = if panels.iter().len() > 4 * n {
            panels.iter().enumerate().map(best).collect()
        } else {
            let products = panels.iter().flat_map(|scanned| scanned.products);
            products.zip(0..self.rows as u32).collect()
        };
        if n < seeds.len() {
            seeds.select_nth_unstable_by(n, |a, b| b.0.total_cmp(&a.0));
            seeds.truncate(n);
        }
        seeds.into_iter().map(|(_, id)| id).collect()
    }
}

/// `n` zeros, or an error where the system has no memory for them.
fn zeros<T: Copy + Default>(n: usize) -> Result<Aligned<T>, FormatError> {
    let bytes = n.saturating_mul(size_of::<T>());
    Aligned::zeros(n).map_err(|_| FormatError::Memory { bytes })
}

/// Condenses the rows of a panel. Rows that it lacks stay zeros.
fn fill<'a>(panel: &mut Panel<'_>, rows: impl Iterator<Item = &'a [u8]>, condense: CondenseFn) {
    let width = panel.scales.len();
    let blocks = panel.fine.len() / ROWS;
    let (mut codes, mut fine) = (vec![[0; CODE_BYTES]; width], vec![[0; 8]; width]);
    for (r, row) in rows.enumerate() {
        let scales = &mut panel.row_scales[r * blocks..][..blocks];
        let scales = &mut scales.as_flattened_mut()[..width];
        let mut norms = RowNorms::default();
        let (codes, fine) = (&mut codes[..], &mut fine[..]);
        condense(CondenseArgs { row, codes, fine, scales, norms: &mut norms });
        panel.norms.set(r, norms);
        for (g, codes) in codes.iter().enumerate() {
            panel.scales[g][r] = scales[g];
            for (j, word) in codes.as_chunks::<4>().0.iter().enumerate() {
                panel.codes[CODE_GROUPS * g + j].as_chunks_mut().0[r] = *word;
            }
            let block = &mut panel.fine[r * blocks + g / LANE_GROUPS];
            for (j, word) in fine[g].as_chunks::<4>().0.iter().enumerate() {
                block.as_chunks_mut().0[j * LANE_GROUPS + g % LANE_GROUPS] = *word;
            }
        }
    }
}

/// The exact logits of some rows of `row_bytes` bytes, added to `found`.
fn exact(
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

/// A hidden state in 8 bits, with what that loses.
struct HiddenState {
    bytes: Vec<i8>,
    scales: Vec<GroupScale>,
    /// As [`RefineArgs::x`].
    fine: Vec<FineActivations>,
    /// The norm, rounded up.
    norm: f32,
    /// The norm of what 8 bits lose, rounded up.
    lost: f32,
    /// What roundings change, relative to the product of the norms.
    rounding: f32,
}

impl HiddenState {
    fn new(x: &[f32]) -> Option<HiddenState> {
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
    fn bound(&self, copy: f32, lost: f32) -> f32 {
        let rounding = self.rounding * copy * (self.norm + self.lost);
        (lost + copy * self.lost + rounding) * 1.0001
    }

    /// What products and norms of a scan say about the first `rows` rows of a panel.
    fn scanned(
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
fn at_most(product: f32, bound: f32) -> f32 {
    let most = product + bound;
    if most.is_finite() { most } else { f32::INFINITY }
}

/// The sum of all lanes, halves on halves.
fn sum(lanes: [f32; LANE_GROUPS]) -> f32 {
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
