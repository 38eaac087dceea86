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
    CODE_BYTES, CODE_GROUPS, CONDENSED, CondenseArgs, CondenseFn, HeadFn, LANE_GROUPS, RefineFn,
    RowNorms, ScanArgs, ScanFn,
};
use crate::packed::{Group, Groups, ROWS};
use crate::pool::Pool;
use crate::registry::{Bound, Calls, Kernel};

mod search;
mod state;

use search::{FEW, Hunt, Only, Panels};
pub(crate) use state::fine_activations;
use state::{HiddenState, PanelNorms, Scanned};

/// Panels that a thread scans at a time: some tens of microseconds.
const SCANNED: usize = 8;

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
    /// No others than these: row `i` where bit `i % 32` of word `i / 32` is set. None of the rows for
    /// which there is no word.
    pub only: Option<&'a [u32]>,
}

impl Query<'_> {
    /// The rows that can be found, where they are so few that each is multiplied exactly.
    fn few(&self, rows: usize) -> Option<Vec<u32>> {
        let only = Only { words: Some(self.only?), rows };
        let most = FEW.max(self.k);
        let ids: Vec<_> = only.ids().take(most.saturating_add(1)).collect();
        (ids.len() <= most).then_some(ids)
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

    /// Finds what the queries ask for; for those of few rows without the copy. False where a hidden state
    /// is not finite, or so great or small that products with it might not be normal numbers: then no row
    /// can be ruled out, and nothing was looked for.
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
        let few: Vec<_> = queries.iter().map(|query| query.few(self.rows)).collect();
        let scanned = || queries.iter().zip(&few).filter(|(_, few)| few.is_none());
        let states: Option<Vec<_>> =
            scanned().map(|(query, _)| HiddenState::new(query.x)).collect();
        let Some(states) = states else {
            return false;
        };
        search.read = 0;
        if !states.is_empty() {
            self.scan(&states, pool, &mut search.panels);
            calls.add(&self.scan, states.len() as u64);
            let coarse = size_of_val(self.codes.get()) + size_of_val(&self.scales[..]);
            search.read += (coarse + size_of_val(&self.norms[..])) as u64;
        }
        search.found.resize_with(queries.len(), Vec::new);
        let (queries_scanned, mut states) = (states.len(), states.iter().enumerate());
        let mut hunts = Vec::with_capacity(queries.len());
        for ((query, few), found) in queries.iter().zip(few).zip(&mut search.found) {
            let next = if few.is_none() { states.next() } else { None };
            let seen = next.map(|(nth, state)| {
                (Panels { all: &search.panels, nth, queries: queries_scanned }, state)
            });
            hunts.push(Hunt::new(*query, seen, few.unwrap_or_default(), found));
        }
        search.read += self.search(layer, &mut hunts, (pool, calls));
        true
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
