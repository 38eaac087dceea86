//! The greatest logits from an output layer of which there is a copy in 8 bits: the others need not be computed.

use super::args::{self, Args, int};
use super::buffers::{Floats, Loader, Table};
use super::error::Error;
use super::gpu::Gpu;
use super::memory::{Arena, piece};
use super::queue::{Queue, of_format, one_each};
use super::select::Picks;
use super::sys::{self, Region, Shape};
use crate::kernels::{KernelId, VECTORS};
use crate::tiles::ROWS as TILE;

/// Columns of a step of the kernels.
const STEP: usize = 32;
/// Bytes of `Bounds` of `condensed.cu`.
const BOUNDS: usize = 16;
/// Threads of a block, and its warps: each has a tile, or as many rows as threads.
const THREADS: u32 = 256;
const WARPS: usize = 8;
const WARP: usize = 32;
/// Threads that multiply a row.
const LANES: usize = 16;
/// Columns of which products of bytes add up to less than 32 bits hold.
const MOST_COLS: usize = 1 << 16;
/// Fewer rows cost as much as all that there is to do besides.
const LEAST_ROWS: usize = 1024;
/// Tokens of a hidden state that there is room for, before all logits are looked at.
const LISTED: usize = 4096;

/// The copy of an output layer `[rows, cols]`.
#[derive(Clone, Debug)]
pub struct Condensed {
    codes: Region,
    bounds: Region,
}

/// Room for what is found out about logits.
#[derive(Debug)]
pub struct Shortlist {
    /// Hidden states `[tokens, 2, cols]`, and what is known of them.
    bytes: Region,
    bounds: Region,
    /// `[tokens, tiles]`
    least: Region,
    floor: Region,
    /// How many logits are listed of each token: those that were multiplied exactly.
    pub(super) count: Region,
    /// `[tokens, LISTED]`
    token: Region,
}

/// What logits come from.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// The output layer.
    pub table: &'a Table,
    /// Its copy, if it has one, and room to work with it.
    pub condensed: Option<(&'a Condensed, &'a Shortlist)>,
    /// Hidden states `[tokens, cols]`.
    pub x: &'a Floats,
    /// `[tokens, rows]`
    pub logits: &'a Floats,
}

fn tiles(rows: usize) -> usize {
    rows.div_ceil(TILE)
}

impl Condensed {
    /// Whether an output layer of this shape has a copy.
    #[must_use]
    pub fn suits(rows: usize, cols: usize) -> bool {
        rows >= LEAST_ROWS && cols <= MOST_COLS && cols.is_multiple_of(STEP)
    }

    /// Bytes of it.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.bytes() + self.bounds.bytes()
    }
}

impl Loader {
    /// Bytes that the copy of an output layer takes.
    #[must_use]
    pub fn condensed_bytes(rows: usize, cols: usize) -> usize {
        piece(tiles(rows) * TILE * cols) + piece(BOUNDS * rows)
    }

    /// The copy of an output layer, made on the device.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`].
    pub fn condense(&mut self, table: &Table) -> Result<Condensed, Error> {
        let (rows, cols) = (table.rows, table.cols);
        let codes = self.take(tiles(rows) * TILE * cols);
        let bounds = self.take(BOUNDS * rows);
        let kernels = [KernelId::CondenseF32, KernelId::CondenseF16, KernelId::CondenseBf16];
        let kernel = of_format(table.format, kernels);
        let args = Args::new(&table.data.address()).with(&codes.address()).with(&bounds.address());
        let args = args.with(&int(rows)).with(&int(cols));
        let gpu = self.gpu();
        let shape = one_each(tiles(rows) * TILE / WARPS, THREADS, 0);
        // Behind the rows themselves.
        gpu.function(kernel)?.0.launch(gpu.copy(), shape, &args)?;
        sys::synchronize(gpu.copy())?;
        Ok(Condensed { codes, bounds })
    }
}

impl Shortlist {
    /// For so many tokens, and an output layer `[rows, cols]`.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`].
    pub fn new(gpu: &Gpu, tokens: usize, (rows, cols): (usize, usize)) -> Result<Shortlist, Error> {
        let bytes = [
            tokens * 2 * cols,
            BOUNDS * tokens,
            4 * tokens * tiles(rows),
            4 * tokens,
            4 * tokens,
            4 * tokens * LISTED,
        ];
        let all = bytes.iter().map(|bytes| piece(*bytes)).sum();
        let region = gpu.allocate("a list of logits", all, "take --device cpu")?;
        let mut arena = Arena::new(region);
        let [bytes, bounds, least, floor, count, token] = bytes.map(|bytes| arena.take(bytes));
        Ok(Shortlist { bytes, bounds, least, floor, count, token })
    }

    /// As kernels take it.
    pub(super) fn listed(&self) -> args::Listed {
        args::Listed { token: self.token.address(), count: self.count.address(), most: int(LISTED) }
    }
}

impl Queue<'_> {
    /// Logits of the first hidden states that may be among as many of the greatest as `picks` asks for; all others are less than
    /// any.
    pub(super) fn shortlist(
        &mut self,
        output: &Output<'_>,
        (copy, list): (&Condensed, &Shortlist),
        (picks, tokens): (&Picks, usize),
    ) -> Result<(), Error> {
        let &Output { table, x, logits, .. } = output;
        let (rows, cols) = (table.rows, table.cols);
        let only = picks.only.as_ref().map_or(0, Region::address);
        let args = Args::new(&self.at(x)).with(&list.bytes.address()).with(&list.bounds.address());
        let args = args.with(&int(cols));
        self.launch(KernelId::HeadQuantize, one_each(tokens, THREADS, 0), &args)?;

        let kernel = KernelId::scan(self.gpu().target().1, tokens);
        let args = Args::new(&args::Scan {
            codes: copy.codes.address(),
            rows_of: copy.bounds.address(),
            x: list.bytes.address(),
            tokens_of: list.bounds.address(),
            only,
            most: self.at(logits),
            least: list.least.address(),
            rows: int(rows),
            cols: int(cols),
            tokens: int(tokens),
        });
        let at_once = kernel.tokens().unwrap_or(VECTORS);
        let grid = [tiles(rows).div_ceil(WARPS) as u32, tokens.div_ceil(at_once) as u32, 1];
        self.launch(kernel, Shape { grid, threads: THREADS, shared: 0 }, &args)?;

        let args = Args::new(&list.least.address()).with(&picks.ask.count.address());
        let args = args.with(&list.floor.address()).with(&list.count.address());
        let args = args.with(&int(tiles(rows)));
        self.launch(KernelId::HeadFloor, one_each(tokens, 1024, 0), &args)?;

        let kernels = [KernelId::RerankF32, KernelId::RerankF16, KernelId::RerankBf16];
        let kernel = of_format(table.format, kernels);
        let args = Args::new(&args::Rerank {
            table: table.data.address(),
            x: self.at(x),
            logits: self.at(logits),
            floor: list.floor.address(),
            only,
            listed: list.count.address(),
            token: list.token.address(),
            rows: int(rows),
            cols: int(cols),
            most: int(LISTED),
        });
        let grid = [rows.div_ceil(WARPS * WARP) as u32, tokens as u32, 1];
        self.launch(kernel, Shape { grid, threads: THREADS, shared: 0 }, &args)
    }

    /// The logits at `n` places, each computed exactly.
    pub(super) fn rerank_at(
        &mut self,
        output: &Output<'_>,
        (at, n): (&Region, usize),
        to: &Region,
    ) -> Result<(), Error> {
        let &Output { table, x, .. } = output;
        let kernels = [KernelId::RerankAtF32, KernelId::RerankAtF16, KernelId::RerankAtBf16];
        let kernel = of_format(table.format, kernels);
        let args = Args::new(&table.data.address()).with(&self.at(x)).with(&at.address());
        let args = args.with(&to.address()).with(&int(n));
        let args = args.with(&int(table.rows)).with(&int(table.cols));
        self.launch(kernel, one_each(n.div_ceil(THREADS as usize / LANES), THREADS, 0), &args)
    }
}
