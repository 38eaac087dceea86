//! A GPU held against the processor: what it computes, how fast, and whether its memory is sound.

use std::sync::Arc;

use bitnet_gpu::cuda::{self, Gpu, Loader, Plan, Queue, Scratch};
use bitnet_gpu::kernels::{GpuPasses, KernelId};
use bitnet_gpu::{PrecisionMode, tiles};
use bitnet_kernels::op::{NormArgs, NormFn};
use bitnet_kernels::{Device, Format, KernelManager, Pool, format};
use serde::Serialize;

use crate::session::{CHUNK, Input};
use crate::source::Checkpoint;
use crate::{Engine, Error, KvType, Options, PerformanceStats, QuantizedLinear};

/// Looks at a GPU from all sides.
#[derive(Debug)]
pub struct GpuValidator {
    gpu: Arc<Gpu>,
    number: usize,
}

/// What it found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValidationResults {
    /// What the device is called.
    pub device: String,
    /// What its driver knows it by.
    pub uuid: String,
    /// The version of CUDA of its driver.
    pub driver: String,
    /// The devices that its kernels were compiled for.
    pub target: &'static str,
    /// What was computed, and how it compares to the processor.
    pub accuracy_results: Vec<AccuracyResult>,
    /// What the device did for each comparison of a model, in order.
    pub performance_stats: Vec<PerformanceStats>,
    /// How fast, where it was measured.
    pub performance_results: Vec<PerformanceResult>,
    /// Bytes that memory gives and takes in a second by copies, where it was measured.
    pub copy_bytes_per_second: Option<f64>,
    /// Its memory.
    pub memory_results: Option<MemoryResults>,
    /// Whether nothing is wrong. Speed is never wrong.
    pub success: bool,
}

/// Numbers of a GPU beside those of the processor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AccuracyResult {
    /// What was computed.
    pub what: String,
    /// Numbers that were compared.
    pub compared: usize,
    /// Numbers that differ in a bit.
    pub different: usize,
    /// The length of the differences of all, as a share of the length of all.
    pub distance: f64,
    /// How much it may be; with nothing, no bit differs.
    pub bound: f64,
}

impl AccuracyResult {
    /// Whether the numbers are what they must be.
    #[must_use]
    pub fn is_right(&self) -> bool {
        // What is no number is within no bound.
        self.different == 0 || (self.bound > 0.0 && self.distance <= self.bound)
    }
}

/// The speed of a kernel.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PerformanceResult {
    /// Its id.
    pub kernel: &'static str,
    /// What it computed.
    pub what: String,
    /// The median of some launches.
    pub microseconds: f64,
    /// Bytes of weights that it read in a second.
    pub bytes_per_second: f64,
    /// The share of what copies have of the memory: what reads only can have a little more.
    pub share: f64,
}

/// The memory of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryResults {
    /// Bytes of the device.
    pub total_bytes: usize,
    /// Bytes that were free before.
    pub free_bytes: usize,
    /// Bytes that were written and read.
    pub tested_bytes: usize,
    /// Bytes that were not what had been written.
    pub wrong_bytes: usize,
    /// Bytes that did not come back.
    pub leaked_bytes: usize,
}

/// Matrices whose products are compared: as wide as those of BitNet b1.58 2B-4T, and of fewer rows, of which all are computed
/// alike.
const SHAPES: [(usize, usize); 2] = [(336, 2560), (80, 6912)];
/// Rows of activations: some for each kernel that multiplies.
const ROWS: [usize; 6] = [1, 8, 9, 32, 64, 128];
/// Tokens of a prompt that models are compared on, and tokens after it.
const PROMPT: u32 = 40;
const AFTER: u32 = 4;

/// How far logits may be from those of the processor with attention in lesser precisions, as a share of their length: what is quantised to
/// bytes behind it may be rounded to others.
const NEAR: [(PrecisionMode, f64); 2] = [(PrecisionMode::Fp16, 2e-3), (PrecisionMode::Bf16, 3e-2)];

/// Matrices of a layer of BitNet b1.58 2B-4T, whose products are timed.
const TIMED: [(&str, usize, usize); 3] =
    [("q, k, v", 3840, 2560), ("attention output", 2560, 2560), ("down", 2560, 6912)];

impl GpuValidator {
    /// Opens a device.
    ///
    /// # Errors
    ///
    /// Where there is none, or it computes known answers wrong.
    pub fn new(number: usize) -> Result<GpuValidator, Error> {
        Ok(GpuValidator { gpu: Gpu::open(number)?, number })
    }

    /// Looks at everything. `model` is one to compute with; speed is measured if `performance` says so.
    ///
    /// # Errors
    ///
    /// Where the device, or the model, fails. What is computed wrong is a result.
    pub fn run(
        &self,
        model: impl Fn() -> Result<Checkpoint, Error>,
        performance: bool,
    ) -> Result<ValidationResults, Error> {
        let mut accuracy_results = self.products()?;
        let mut performance_stats = Vec::new();
        let graph = Options { device: Device::Cuda(self.number), ..Options::default() };
        let mut ways = [KvType::F32, KvType::F16, KvType::Q8_0]
            .map(|kv| (format!("keys and values in {kv}"), Options { kv, ..graph.clone() }, 0.0))
            .to_vec();
        if self.gpu.has(KernelId::MegaDecode) && self.gpu.info().cooperative_launch {
            let kernel = Options { gpu_passes: GpuPasses::Kernel, ..graph.clone() };
            ways.push(("passes as a kernel".to_owned(), kernel, 0.0));
        }
        if self.gpu.has(KernelId::BlendF16) {
            ways.extend(NEAR.map(|(gpu_precision, bound)| {
                (
                    format!("attention in {gpu_precision}"),
                    Options { gpu_precision, ..graph.clone() },
                    bound,
                )
            }));
        }
        for way in ways {
            let (result, stats) = self.model(&model, way)?;
            accuracy_results.push(result);
            performance_stats.extend(stats);
        }
        let memory = self.gpu.check_memory_health()?;
        let (copies, performance_results) = match performance {
            true => {
                let rate = self.gpu.copy_rate(COPIED)?;
                (Some(rate), self.performance(rate)?)
            }
            false => (None, Vec::new()),
        };
        let right = accuracy_results.iter().all(AccuracyResult::is_right);
        let cuda::MemoryResult { total_bytes, free_bytes, tested_bytes, wrong_bytes, leaked_bytes } =
            memory;
        Ok(ValidationResults {
            device: self.gpu.info().name.clone(),
            uuid: self.gpu.info().uuid.clone(),
            driver: cuda::version(self.gpu.driver()),
            target: self.gpu.target().0,
            accuracy_results,
            performance_stats,
            performance_results,
            copy_bytes_per_second: copies,
            memory_results: Some(MemoryResults {
                total_bytes,
                free_bytes,
                tested_bytes,
                wrong_bytes,
                leaked_bytes,
            }),
            success: right && memory.is_healthy(),
        })
    }

    /// Norms, and products with ternary matrices.
    fn products(&self) -> Result<Vec<AccuracyResult>, Error> {
        let (manager, pool) = (KernelManager::new(), Pool::alone());
        let norm = manager.select::<NormFn>(None)?;
        let most = ROWS[ROWS.len() - 1];
        let mut results = Vec::new();
        for (rows, cols) in SHAPES {
            let weights = ternary(rows * cols);
            let memory = |_| Error::Memory { what: "what is compared", bytes: rows * cols };
            let bytes = format::encode(Format::I2S, &weights, rows, cols, 0.37).map_err(memory)?;
            let layer = QuantizedLinear::new(cols, rows, Some(Format::I2S), Device::Cpu, &manager)?;
            let layer = layer.load(&bytes, &pool).map_err(memory)?;
            let x = numbers(most * cols);
            let by: Vec<f32> = numbers(cols);

            let size = Loader::matrix_bytes(rows, cols) + Loader::other_bytes(4 * cols);
            let mut loader = Loader::new(&self.gpu, size)?;
            let mut packed = vec![0; tiles::bytes(rows, cols)];
            tiles::pack(&weights, cols, &mut packed);
            let (matrix, there) =
                (loader.matrix(&packed, (rows, cols), 0.37)?, loader.vector(&by)?);
            let plan = Plan::new();
            let (input, q, out) =
                (plan.floats(most, cols), plan.quantized(most, cols), plan.floats(most, rows));
            let scratch = Scratch::new(&self.gpu, &plan)?;
            scratch.write(&self.gpu, &input, &x)?;
            for n in ROWS {
                let mut queue = Queue::new(&self.gpu, &scratch);
                let input = cuda::Input::Floats(&input, Some((&there, EPS)), &q);
                queue.linear((input, n), &[(&matrix, &out)], false)?;
                let found = scratch.read(&self.gpu, &out, n)?;
                let mut normed = vec![0.0; n * cols];
                for (x, y) in x.chunks(cols).zip(normed.chunks_mut(cols)) {
                    (norm.run)(NormArgs { x, weight: &by, eps: EPS, y });
                }
                let mut expected = vec![0.0; n * rows];
                layer.forward(&normed, &mut expected, &pool)?;
                let kernels: Vec<_> = queue.launches().iter().map(|(id, _)| id.name()).collect();
                let what = format!("{}, {n} x {cols} x {rows}", kernels.join(" and "));
                results.push(compared(what, &found, &expected));
            }
        }
        Ok(results)
    }

    /// The logits of a prompt and of some tokens after it, and what the device did for them.
    fn model(
        &self,
        model: impl Fn() -> Result<Checkpoint, Error>,
        (way, there, bound): (String, Options, f64),
    ) -> Result<(AccuracyResult, Option<PerformanceStats>), Error> {
        let logits = |options| -> Result<_, Error> {
            let options = Options { context: Some(128), ..options };
            let engine = Engine::of(model()?, &options)?;
            let mut session = engine.session(1)?;
            let token = |i: u32| (i * i * 7 + i * 131 + 1) % engine.vocabulary() as u32;
            let input = |i| Input { sequence: 0, token: token(i), logits: true };
            let prompt: Vec<_> = (0..PROMPT).map(input).collect();
            let mut logits = session.run(&prompt)?.to_vec();
            for i in PROMPT..PROMPT + AFTER {
                logits.extend_from_slice(session.run(&[input(i)])?);
            }
            Ok((logits, session.performance_stats()))
        };
        let kv = there.kv;
        let (found, stats) = logits(there)?;
        let (expected, _) = logits(Options { kv, ..Options::default() })?;
        let result = compared(format!("logits of a model, {way}"), &found, &expected);
        Ok((AccuracyResult { bound, ..result }, stats))
    }

    /// Products as in decoding, with weights that are in no cache.
    fn performance(&self, rate: f64) -> Result<Vec<PerformanceResult>, Error> {
        let mut results = Vec::new();
        for (name, rows, cols) in TIMED {
            for n in [1, 8, CHUNK] {
                results.push(self.timed((name, rows, cols, n), rate)?);
            }
        }
        Ok(results)
    }

    fn timed(
        &self,
        (name, rows, cols, n): (&str, usize, usize, usize),
        rate: f64,
    ) -> Result<PerformanceResult, Error> {
        /// Times that the weights go round.
        const ROUNDS: usize = 3;
        let bytes = Loader::matrix_bytes(rows, cols);
        let copies = (4 * self.gpu.info().l2_cache / bytes).clamp(8, 256);
        let mut loader = Loader::new(&self.gpu, copies * bytes)?;
        // As good as others: what takes the time is to read them.
        let packed = vec![0b01_10_00_01; tiles::bytes(rows, cols)];
        let matrices: Vec<_> = (0..copies)
            .map(|_| loader.matrix(&packed, (rows, cols), 1.0))
            .collect::<Result<_, _>>()?;
        let plan = Plan::new();
        let (input, q, out) = (plan.floats(n, cols), plan.quantized(n, cols), plan.floats(n, rows));
        let scratch = Scratch::new(&self.gpu, &plan)?;
        scratch.write(&self.gpu, &input, &numbers(n * cols))?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(self.gpu.timed(&scratch, |queue| {
                queue.quantize((&input, n), &q)?;
                let x = cuda::Input::Bytes(&q);
                matrices
                    .iter()
                    .try_for_each(|matrix| queue.linear((x, n), &[(matrix, &out)], false))
            })?);
        }
        times.sort_unstable_by(f32::total_cmp);
        let seconds = f64::from(times[ROUNDS / 2]) / 1e3 / copies as f64;
        let bytes_per_second = tiles::bytes(rows, cols) as f64 / seconds;
        Ok(PerformanceResult {
            kernel: KernelId::product(self.gpu.target().1, n, false).name(),
            what: format!("{name}: {n} x {cols} x {rows}"),
            microseconds: 1e6 * seconds,
            bytes_per_second,
            share: bytes_per_second / rate,
        })
    }
}

/// Bytes that are copied to measure the memory: far more than any cache has.
const COPIED: usize = 512 << 20;
const EPS: f32 = 1e-5;

fn compared(what: String, found: &[f32], expected: &[f32]) -> AccuracyResult {
    let differs = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits();
    let missing = found.len().abs_diff(expected.len());
    let pairs = || found.iter().zip(expected);
    let different = pairs().filter(differs).count() + missing;
    let [apart, all] = pairs().fold([0.0; 2], |[apart, all], (&a, &b)| {
        let [a, b] = [a, b].map(f64::from);
        [apart + (a - b) * (a - b), all + b * b]
    });
    let distance = match missing {
        0 if different == 0 => 0.0,
        0 => (apart / all).sqrt(),
        _ => f64::INFINITY,
    };
    AccuracyResult { what, compared: expected.len(), different, distance, bound: 0.0 }
}

/// Knuth's multiplicative hash: numbers that are the same everywhere.
fn hash(i: usize) -> u32 {
    (i as u32).wrapping_mul(2_654_435_761) >> 8
}

fn ternary(n: usize) -> Vec<i8> {
    (0..n).map(|i| (hash(i) % 3) as i8 - 1).collect()
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (hash(i) % 2001) as f32 / 500.0 - 2.0).collect()
}
