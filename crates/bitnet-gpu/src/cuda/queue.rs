//! Operations of a forward pass, enqueued one after another.

use std::sync::Arc;

use bitnet_kernels::Format;
use cudarc::driver::CudaStream;

use super::args::{self, Args, int};
use super::buffers::{Floats, Quantized, Scratch, Table, Vector};
use super::error::Error;
use super::gpu::{Gpu, Launches};
use super::select::{Answer, Picks};
use super::step::Step;
use super::sys::{Region, Shape};
use super::together::Enqueued;
use crate::kernels::KernelId;
use crate::{PrecisionMode, tiles};

/// Positions of a block of keys and values.
pub const KV_BLOCK: usize = 16;
/// Positions that a block of threads attends to.
pub const SPAN: usize = 512;
/// Numbers of each of a head that attention of several rows has in shared memory: of queries, with what fills them up, and of positions
/// (`QUERY_STRIDE` and `GLANCE` of `prefill.cu`).
const PREFILL_QUERIES: usize = 36;
const PREFILL_POSITIONS: usize = 32;

/// Bytes of shared memory of attention on tensor cores: keys and values of two times 32 positions, behind each row of which there are
/// eight numbers more (`BLEND_STAGES`, `BLEND_GLANCE` and `BLEND_PAD` of `blend.cu`).
fn blend_bytes(size: usize) -> usize {
    const POSITIONS: usize = 32;
    const PAD: usize = 8;
    2 * 2 * (size * (POSITIONS + PAD) + POSITIONS * (size + PAD))
}

/// The gate of a feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)^2`.
    Relu2 = 0,
    /// `x sigmoid(x)`.
    Silu = 1,
    /// The approximation of GELU by a hyperbolic tangent.
    Gelu = 2,
}

/// The rows of a pass, each a number; a row that is not there has a negative position.
#[derive(Clone, Debug)]
pub struct Rows {
    pub(crate) token: Region,
    pub(crate) sequence: Region,
    pub(crate) position: Region,
}

/// Keys and values.
#[derive(Clone, Debug)]
pub struct Cache {
    pub(crate) blocks: Region,
    /// `[sequences, table]`.
    pub(crate) tables: Region,
    pub(crate) block_bytes: usize,
    pub(crate) table: usize,
    pub(crate) kv_heads: usize,
    pub(crate) size: usize,
    pub(crate) format: Format,
}

/// Queries, keys and values, and the angles by which they are turned.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// `[rows, heads, head size]`, and twice `[rows, heads of keys, head size]`.
    pub qkv: [&'a Floats; 3],
    /// Cosines and sines `[positions, head size / 2]`.
    pub angles: [&'a Vector; 2],
}

/// Room for the parts of attention.
#[derive(Clone, Debug)]
pub struct Parts {
    pub(crate) parts: Region,
    pub(crate) counters: Region,
}

/// A stream of a device, and what was enqueued in it.
#[derive(Debug)]
pub struct Queue<'g> {
    gpu: &'g Gpu,
    pub(super) scratch: &'g Scratch,
    /// Where kernels are launched.
    stream: Arc<CudaStream>,
    launches: Launches,
    /// What is not enqueued but listed, where it is.
    list: Option<Vec<Enqueued>>,
}

impl<'g> Queue<'g> {
    /// An empty one.
    #[must_use]
    pub fn new(gpu: &'g Gpu, scratch: &'g Scratch) -> Queue<'g> {
        let stream = Arc::clone(gpu.compute());
        Queue { gpu, scratch, stream, launches: Launches::default(), list: None }
    }

    /// One in a stream of its own.
    pub(super) fn apart(gpu: &'g Gpu, scratch: &'g Scratch, stream: &Arc<CudaStream>) -> Queue<'g> {
        Queue { stream: Arc::clone(stream), ..Queue::new(gpu, scratch) }
    }

    /// One that enqueues nothing.
    pub(super) fn listing(gpu: &'g Gpu, scratch: &'g Scratch) -> Queue<'g> {
        Queue { list: Some(Vec::new()), ..Queue::new(gpu, scratch) }
    }

    /// What it would have enqueued.
    pub(super) fn into_list(self) -> Vec<Enqueued> {
        self.list.unwrap_or_default()
    }

    pub(super) fn at(&self, floats: &Floats) -> u64 {
        self.scratch.address(floats.at)
    }

    /// What was enqueued.
    #[must_use]
    pub fn launches(&self) -> &Launches {
        &self.launches
    }

    pub(super) fn launch(
        &mut self,
        kernel: KernelId,
        shape: Shape,
        args: &Args,
    ) -> Result<(), Error> {
        let (function, most) = self.gpu.function(kernel)?;
        if shape.shared > *most {
            let (name, needs) = (kernel.name(), shape.shared);
            let what = format!(
                "{name} needs {needs} bytes of shared memory for rows of this length, of which {} has {most}; take \
                 another device, or --device cpu",
                self.gpu.info().name
            );
            return Err(Error::Unsupported { what });
        }
        match &mut self.list {
            Some(list) => list.push(Enqueued { kernel, shape, args: args.clone() }),
            None => function.launch(&self.stream, shape, args)?,
        }
        self.launches.add(kernel);
        Ok(())
    }

    /// The embedding of each row's token, times `scale`: the first rows of `out`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], as all others here.
    pub fn embed(
        &mut self,
        table: &Table,
        rows: (&Rows, usize),
        scale: f32,
        out: &Floats,
    ) -> Result<(), Error> {
        let kernels = [KernelId::EmbedF32, KernelId::EmbedF16, KernelId::EmbedBf16];
        let kernel = of_format(table.format, kernels);
        let args = Args::new(&table.data.address()).with(&rows.0.args());
        let args = args.with(&int(table.cols)).with(&scale).with(&self.at(out));
        self.launch(kernel, one_each(rows.1, 256, 0), &args)
    }

    /// RMSNorm of the first rows, or of each part of them that is as long as the norm, into `out`.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn norm(
        &mut self,
        (x, rows): (&Floats, usize),
        norm: (&Vector, f32),
        out: &Floats,
    ) -> Result<(), Error> {
        self.norm_of_rows((x, rows), norm, None, out)
    }

    /// RMSNorm of the rows of a step that have outputs, one after another into `out`.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn norm_outputs(
        &mut self,
        (x, step, count): (&Floats, &Step, usize),
        norm: (&Vector, f32),
        out: &Floats,
    ) -> Result<(), Error> {
        self.norm_of_rows((x, count), norm, Some(step.outputs()), out)
    }

    fn norm_of_rows(
        &mut self,
        (x, rows): (&Floats, usize),
        (weight, eps): (&Vector, f32),
        which: Option<&Region>,
        out: &Floats,
    ) -> Result<(), Error> {
        let args = Args::new(&self.norm_of(x, weight, eps, which)).with(&self.at(out));
        let parts = rows * x.cols / weight.len;
        self.launch(KernelId::RmsNorm, one_each(parts, 256, 4 * weight.len), &args)
    }

    /// RMSNorm of the first rows, then to 8 bits.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn norm_quantize(
        &mut self,
        (x, rows): (&Floats, usize),
        (weight, eps): (&Vector, f32),
        out: &Quantized,
    ) -> Result<(), Error> {
        let args = Args::new(&self.norm_of(x, weight, eps, None)).with(&self.quantized(out));
        self.launch(KernelId::RmsNormQuantize, one_each(rows, 256, 4 * x.cols), &args)
    }

    /// The first rows to 8 bits.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn quantize(&mut self, (x, rows): (&Floats, usize), out: &Quantized) -> Result<(), Error> {
        let args = Args::new(&self.at(x)).with(&int(x.cols)).with(&self.quantized(out));
        self.launch(KernelId::Quantize, one_each(rows, 256, 4 * x.cols), &args)
    }

    /// `sum += x`, of the first rows.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn add(&mut self, (x, rows): (&Floats, usize), sum: &Floats) -> Result<(), Error> {
        let n = rows * x.cols;
        let args = Args::new(&self.at(sum)).with(&self.at(x)).with(&int(n));
        self.launch(KernelId::Add, one_each(n.div_ceil(256), 256, 0), &args)
    }

    /// `gate = activation(gate) * up`, of the first rows.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn activate(
        &mut self,
        (gate, rows): (&Floats, usize),
        up: &Floats,
        activation: Activation,
    ) -> Result<(), Error> {
        let n = rows * gate.cols;
        let args =
            Args::new(&self.at(gate)).with(&self.at(up)).with(&(activation as i32)).with(&int(n));
        self.launch(KernelId::Gate, one_each(n.div_ceil(256), 256, 0), &args)
    }

    /// Turns queries and keys by the angles of their positions, and stores keys and values.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn rope_append(
        &mut self,
        (rows, count): (&Rows, usize),
        heads: &Heads<'_>,
        (cache, layer): (&Cache, usize),
    ) -> Result<(), Error> {
        let kernels = [KernelId::RopeAppendF32, KernelId::RopeAppendF16, KernelId::RopeAppendQ8];
        let kernel = of_format(cache.format, kernels);
        let args = Args::new(&self.rope(heads, cache)).with(&rows.args()).with(&cache.args(layer));
        self.launch(kernel, one_each(count, 256, 0), &args)
    }

    /// Attention of each row over its sequence up to and including itself, of up to `spans` [spans](SPAN). With `heads`, it does
    /// what [`Queue::rope_append`] does on the way: then no two rows may be of one sequence, and queries stay as they are.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn attend(
        &mut self,
        (rows, count): (&Rows, usize),
        (q, heads, out): (&Floats, Option<&Heads<'_>>, &Floats),
        (cache, layer): (&Cache, usize),
        (parts, spans): (&Parts, usize),
    ) -> Result<(), Error> {
        let kernels = [KernelId::AttendF32, KernelId::AttendF16, KernelId::AttendQ8];
        let kernel = of_format(cache.format, kernels);
        let (size, group) = (cache.size, q.cols / cache.size / cache.kv_heads);
        let attend = self.attention(q, out, cache, parts);
        let rope = heads.map_or_else(args::Rope::default, |heads| self.rope(heads, cache));
        let args = Args::new(&attend).with(&rope).with(&rows.args()).with(&cache.args(layer));
        let grid = [cache.kv_heads as u32, count as u32, spans as u32];
        let shared = 4 * group * (size + SPAN + SPAN / KV_BLOCK + 2);
        self.launch(kernel, Shape { grid, threads: 256, shared }, &args)
    }

    /// Attention of the rows of a step that are taken together, which are in up to `tiles` pieces: what [`Queue::attend`] does without
    /// `heads`, and keys and values are read once for all rows of a piece. Where the step has them so, it is not exact.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    ///
    /// # Panics
    ///
    /// If there are more pieces than the step has room for.
    pub fn attend_together(
        &mut self,
        (step, tiles): (&Step, usize),
        (q, out): (&Floats, &Floats),
        (cache, layer): (&Cache, usize),
        (parts, spans): (&Parts, usize),
    ) -> Result<(), Error> {
        assert!(8 * tiles <= step.tiles().bytes(), "as many pieces as there is room for");
        let kernel = KernelId::together(step.precision(), cache.format);
        let args = Args::new(&self.attention(q, out, cache, parts)).with(&step.rows().args());
        let args = args.with(&cache.args(layer)).with(&step.tiles().address());
        let grid = [cache.kv_heads as u32, tiles as u32, spans as u32];
        let shared = match step.precision() {
            PrecisionMode::Fp32 => 4 * cache.size * (PREFILL_QUERIES + PREFILL_POSITIONS),
            _ => blend_bytes(cache.size),
        };
        self.launch(kernel, Shape { grid, threads: 128, shared }, &args)
    }

    fn attention(&self, q: &Floats, out: &Floats, cache: &Cache, parts: &Parts) -> args::Attend {
        args::Attend {
            q: self.at(q),
            out: self.at(out),
            parts: parts.parts.address(),
            counters: parts.counters.address(),
            scale: 1.0 / (cache.size as f32).sqrt(),
            group: int(q.cols / cache.size / cache.kv_heads),
        }
    }

    /// The greatest of the logits of the first rows, as `picks` asks for them.
    pub(crate) fn select(
        &mut self,
        picks: &Picks,
        (logits, listed): (&Floats, args::Listed),
        rows: usize,
    ) -> Result<(), Error> {
        let args = Args::new(&args::Select {
            logits: self.at(logits),
            listed,
            only: picks.only.as_ref().map_or(0, Region::address),
            count: picks.ask.count.address(),
            found: picks.answer.found.address(),
            token: picks.answer.token.address(),
            logit: picks.answer.logit.address(),
            vocabulary: int(logits.cols),
            most: int(Picks::MOST),
        });
        self.launch(KernelId::TopK, one_each(rows, 1024, 0), &args)
    }

    /// The token that each of the first rows goes on with, drawn of those that were [found](Queue::select) as `picks` says.
    pub(crate) fn draw(&mut self, picks: &Picks, rows: usize) -> Result<(), Error> {
        let Answer { found, token, logit, .. } = &picks.answer;
        let args = Args::new(&found.address()).with(&token.address()).with(&logit.address());
        let args = args.with(&int(Picks::MOST)).with(&picks.ask.draws.address());
        self.launch(KernelId::Draw, one_each(rows, 256, 0), &args.with(&picks.next.address()))
    }

    /// Each of the first rows of a step goes on by one position, with these tokens.
    pub(crate) fn advance(&mut self, step: &Step, rows: usize, next: &Region) -> Result<(), Error> {
        let Rows { token, position, .. } = step.rows();
        let args = Args::new(&token.address()).with(&position.address());
        let args = args.with(&next.address()).with(&int(rows));
        self.launch(KernelId::Advance, one_each(rows.div_ceil(256), 256, 0), &args)
    }

    /// The device.
    pub(crate) fn gpu(&self) -> &'g Gpu {
        self.gpu
    }

    /// The numbers of `from` at `n` places.
    pub(crate) fn gather(
        &mut self,
        from: &Floats,
        (at, n): (&Region, usize),
        to: &Region,
    ) -> Result<(), Error> {
        let args = Args::new(&self.at(from)).with(&at.address()).with(&to.address()).with(&int(n));
        self.launch(KernelId::Gather, one_each(n.div_ceil(256), 256, 0), &args)
    }

    /// Logits of the first rows of `x`: `[rows, vocabulary]`.
    ///
    /// # Errors
    ///
    /// As [`Queue::embed`].
    pub fn head(
        &mut self,
        table: &Table,
        (x, rows): (&Floats, usize),
        logits: &Floats,
    ) -> Result<(), Error> {
        let many = rows > 1;
        let kernels = match many {
            false => [KernelId::GemvHeadF32, KernelId::GemvHeadF16, KernelId::GemvHeadBf16],
            true => [KernelId::GemmHeadF32, KernelId::GemmHeadF16, KernelId::GemmHeadBf16],
        };
        let kernel = of_format(table.format, kernels);
        let args = Args::new(&table.data.address()).with(&self.at(x)).with(&self.at(logits));
        let args = args.with(&int(table.rows)).with(&int(table.cols)).with(&int(rows));
        let grid =
            [table.rows.div_ceil(128) as u32, rows.div_ceil(if many { 8 } else { 1 }) as u32, 1];
        self.launch(kernel, Shape { grid, threads: 256, shared: 0 }, &args)
    }

    fn norm_of(&self, x: &Floats, weight: &Vector, eps: f32, which: Option<&Region>) -> args::Norm {
        let which = which.map_or(0, Region::address);
        args::Norm {
            x: self.at(x),
            weight: weight.data.address(),
            which,
            eps,
            cols: int(weight.len),
        }
    }

    fn rope(&self, heads: &Heads<'_>, cache: &Cache) -> args::Rope {
        let [q, k, v] = heads.qkv.map(|x| self.at(x));
        let [cos, sin] = heads.angles.map(|angles| angles.data.address());
        args::Rope { q, k, v, cos, sin, heads: int(heads.qkv[0].cols / cache.size) }
    }

    fn quantized(&self, x: &Quantized) -> args::Quantized {
        let Quantized { q, scale, sum, cols } = *x;
        let [q, scale, sum] = [q, scale, sum].map(|at| self.scratch.address(at));
        args::Quantized { q, scale, sum, width: int(tiles::width(cols)) }
    }
}

/// The one of three that is for numbers of a format: single precision, half, or another.
pub(super) fn of_format(format: Format, [single, half, other]: [KernelId; 3]) -> KernelId {
    match format {
        Format::F32 => single,
        Format::F16 => half,
        _ => other,
    }
}

/// A block of threads for each.
pub(super) fn one_each(blocks: usize, threads: u32, shared: usize) -> Shape {
    Shape { grid: [blocks as u32, 1, 1], threads, shared }
}

impl Rows {
    fn args(&self) -> args::Rows {
        let Rows { token, sequence, position } = self;
        args::Rows {
            token: token.address(),
            sequence: sequence.address(),
            position: position.address(),
        }
    }
}

impl Cache {
    fn args(&self, layer: usize) -> args::Cache {
        args::Cache {
            blocks: self.blocks.address(),
            tables: self.tables.address(),
            block_bytes: self.block_bytes as u64,
            table: int(self.table),
            layer: int(layer),
            kv_heads: int(self.kv_heads),
            size: int(self.size),
        }
    }
}
