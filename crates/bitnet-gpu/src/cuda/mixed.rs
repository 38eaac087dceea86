//! Products of floats in the precisions that a device has: for those who bring floats, and a second opinion on products with
//! ternary weights. Forward passes have their own kernels, whose results are those of the processor to the bit.

use std::sync::Arc;

use super::args::{self, Args, int};
use super::error::Error;
use super::gpu::Gpu;
use super::memory::{Arena, piece};
use super::probe::CudaDeviceInfo;
use super::sys::{self, Region, Shape};
use crate::PrecisionMode;
use crate::kernels::KernelId;

impl PrecisionMode {
    /// What [`PrecisionMode::Auto`] is on a device for those who bring floats: brain floats, which have their range, before half precision.
    #[must_use]
    pub fn detect_best_precision(info: &CudaDeviceInfo) -> PrecisionMode {
        match (info.supports_bf16, info.supports_fp16) {
            (true, _) => PrecisionMode::Bf16,
            (false, true) => PrecisionMode::Fp16,
            (false, false) => PrecisionMode::Fp32,
        }
    }
}

/// What was done, and what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MixedPrecisionMetrics {
    /// Multiply-adds.
    pub total_operations: u64,
    /// Milliseconds of the device in half precision.
    pub fp16_execution_time: f64,
    /// The same with brain floats.
    pub bf16_execution_time: f64,
    /// The same in single precision.
    pub fp32_execution_time: f64,
    /// Bytes of memory that were taken, one after another.
    pub memory_allocated: usize,
    /// The most at a time.
    pub peak_memory_usage: usize,
    /// Copies to the device.
    pub memory_transfers_h2d: u64,
    /// Copies from it.
    pub memory_transfers_d2h: u64,
    /// Bytes of the former.
    pub bytes_transferred_h2d: u64,
    /// Bytes of the latter.
    pub bytes_transferred_d2h: u64,
}

/// Multiplies matrices of floats.
#[derive(Debug)]
pub struct MixedPrecisionKernel {
    gpu: Arc<Gpu>,
    mode: PrecisionMode,
    metrics: MixedPrecisionMetrics,
}

/// Rows of `a`, columns of `b`, and columns of `a`, which are rows of `b`.
type Sizes = (usize, usize, usize);

impl MixedPrecisionKernel {
    /// On a device, in a precision.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device lacks it.
    pub fn new(gpu: &Arc<Gpu>, mode: PrecisionMode) -> Result<MixedPrecisionKernel, Error> {
        let kernel = MixedPrecisionKernel {
            gpu: Arc::clone(gpu),
            mode,
            metrics: MixedPrecisionMetrics::default(),
        };
        kernel.supports(kernel.effective_precision())?;
        Ok(kernel)
    }

    /// The precision of [`MixedPrecisionKernel::matmul_auto`].
    #[must_use]
    pub fn effective_precision(&self) -> PrecisionMode {
        match self.mode {
            PrecisionMode::Auto => PrecisionMode::detect_best_precision(self.gpu.info()),
            mode => mode,
        }
    }

    /// What was done so far.
    #[must_use]
    pub fn metrics(&self) -> &MixedPrecisionMetrics {
        &self.metrics
    }

    fn supports(&self, mode: PrecisionMode) -> Result<(), Error> {
        let info = self.gpu.info();
        let lacks = match mode {
            PrecisionMode::Fp16 if !info.supports_fp16 => "half precision",
            PrecisionMode::Bf16 if !info.supports_bf16 => "brain floats",
            _ => return Ok(()),
        };
        let what = format!("{lacks} on {}; take PrecisionMode::Auto", info.name);
        Err(Error::Unsupported { what })
    }

    /// `c = a b`, `[m, k]` by `[k, n]`, in the [effective](MixedPrecisionKernel::effective_precision) precision; on tensor cores
    /// where the device has them for it.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`], [`Error::OutOfMemory`], and [`Error::Unsupported`] where the device lacks the precision.
    ///
    /// # Panics
    ///
    /// If the lengths are not those of such matrices.
    pub fn matmul_auto(
        &mut self,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        sizes: Sizes,
    ) -> Result<(), Error> {
        let cores = self.gpu.has(KernelId::WmmaFp16);
        match self.effective_precision() {
            PrecisionMode::Bf16 => {
                self.run(if cores { &WMMA_BF16 } else { &BF16 }, (a, b, c), sizes)
            }
            PrecisionMode::Fp16 => {
                self.run(if cores { &WMMA_FP16 } else { &FP16 }, (a, b, c), sizes)
            }
            PrecisionMode::Fp32 | PrecisionMode::Auto => self.run(&FP32, (a, b, c), sizes),
        }
    }

    /// The same in single precision; sums are in order.
    ///
    /// # Errors
    ///
    /// As [`MixedPrecisionKernel::matmul_auto`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn matmul_fp32(
        &mut self,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        sizes: Sizes,
    ) -> Result<(), Error> {
        self.run(&FP32, (a, b, c), sizes)
    }

    /// The same of numbers in half precision; sums are of single precision, in order.
    ///
    /// # Errors
    ///
    /// As [`MixedPrecisionKernel::matmul_auto`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn matmul_fp16(
        &mut self,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        sizes: Sizes,
    ) -> Result<(), Error> {
        self.run(&FP16, (a, b, c), sizes)
    }

    /// The same of brain floats.
    ///
    /// # Errors
    ///
    /// As [`MixedPrecisionKernel::matmul_auto`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn matmul_bf16(
        &mut self,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        sizes: Sizes,
    ) -> Result<(), Error> {
        self.run(&BF16, (a, b, c), sizes)
    }

    /// On tensor cores, by `wmma`, in half precision or with brain floats; the order of sums is that of the device.
    ///
    /// # Errors
    ///
    /// As [`MixedPrecisionKernel::matmul_auto`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn matmul_tensor_core(
        &mut self,
        a: &[f32],
        b: &[f32],
        c: &mut [f32],
        sizes: Sizes,
    ) -> Result<(), Error> {
        let how = match self.effective_precision() {
            PrecisionMode::Fp16 => &WMMA_FP16,
            _ => &WMMA_BF16,
        };
        self.run(how, (a, b, c), sizes)
    }

    fn run(
        &mut self,
        how: &How,
        (a, b, c): (&[f32], &[f32], &mut [f32]),
        (m, n, k): Sizes,
    ) -> Result<(), Error> {
        assert_eq!((a.len(), b.len(), c.len()), (m * k, k * n, m * n), "matrices of these sizes");
        self.supports(how.precision)?;
        if c.is_empty() {
            return Ok(());
        }
        let gpu = Arc::clone(&self.gpu);
        let (multiply, _) = gpu.function(how.multiply)?;
        let width = if how.convert.is_some() { 2 } else { 0 };
        let parts = [4 * a.len(), 4 * b.len(), 4 * c.len(), width * a.len(), width * b.len()];
        let bytes = parts.iter().map(|bytes| piece(*bytes)).sum();
        let mut arena = Arena::new(gpu.allocate("matrices", bytes, "multiply smaller ones")?);
        let [left, right, result, low_left, low_right] = parts.map(|bytes| arena.take(bytes));
        self.send(&left, a)?;
        self.send(&right, b)?;
        let stream = gpu.compute();
        let ms = sys::timed(stream, || {
            let mut operands = [left.address(), right.address()];
            if let Some(convert) = how.convert {
                let (convert, _) = gpu.function(convert)?;
                let both = [(&left, &low_left, a.len()), (&right, &low_right, b.len())];
                for (from, to, count) in both.into_iter().filter(|(.., count)| *count > 0) {
                    let args = Args::new(&from.address()).with(&to.address()).with(&int(count));
                    let shape = Shape { grid: [blocks(count, 256), 1, 1], threads: 256, shared: 0 };
                    convert.launch(stream, shape, &args)?;
                }
                operands = [low_left.address(), low_right.address()];
            }
            let [a, b] = operands;
            let product =
                args::Matmul { a, b, c: result.address(), m: int(m), n: int(n), k: int(k) };
            let grid = [blocks(n, TILE), blocks(m, TILE), 1];
            multiply.launch(
                stream,
                Shape { grid, threads: how.threads, shared: 0 },
                &Args::new(&product),
            )
        })?;
        let mut read = vec![0; 4 * c.len()];
        sys::download(stream, &result, &mut read)?;
        gpu.traffic.down(read.len());
        c.iter_mut().zip(read.as_chunks().0).for_each(|(c, bytes)| *c = f32::from_le_bytes(*bytes));

        let metrics = &mut self.metrics;
        metrics.total_operations += (m * n * k) as u64;
        *match how.precision {
            PrecisionMode::Fp16 => &mut metrics.fp16_execution_time,
            PrecisionMode::Bf16 => &mut metrics.bf16_execution_time,
            _ => &mut metrics.fp32_execution_time,
        } += f64::from(ms);
        metrics.memory_allocated += bytes;
        metrics.peak_memory_usage = metrics.peak_memory_usage.max(bytes);
        metrics.memory_transfers_d2h += 1;
        metrics.bytes_transferred_d2h += read.len() as u64;
        Ok(())
    }

    fn send(&mut self, to: &Region, numbers: &[f32]) -> Result<(), Error> {
        let bytes = super::buffers::bytes_of(numbers);
        sys::upload(self.gpu.compute(), to, &bytes)?;
        self.gpu.traffic.up(bytes.len());
        self.metrics.memory_transfers_h2d += 1;
        self.metrics.bytes_transferred_h2d += bytes.len() as u64;
        Ok(())
    }
}

/// Rows and columns of the result of a block.
const TILE: usize = 16;

/// A way to multiply.
struct How {
    precision: PrecisionMode,
    /// What makes the numbers of single precision those that are multiplied.
    convert: Option<KernelId>,
    multiply: KernelId,
    /// Of a block.
    threads: u32,
}

const FP32: How = How {
    precision: PrecisionMode::Fp32,
    convert: None,
    multiply: KernelId::MatmulFp32,
    threads: 256,
};
const FP16: How = How {
    precision: PrecisionMode::Fp16,
    convert: Some(KernelId::ToFp16),
    multiply: KernelId::MatmulFp16,
    threads: 256,
};
const BF16: How = How {
    precision: PrecisionMode::Bf16,
    convert: Some(KernelId::ToBf16),
    multiply: KernelId::MatmulBf16,
    threads: 256,
};
const WMMA_FP16: How = How { multiply: KernelId::WmmaFp16, threads: 32, ..FP16 };
const WMMA_BF16: How = How { multiply: KernelId::WmmaBf16, threads: 32, ..BF16 };

fn blocks(n: usize, of: usize) -> u32 {
    u32::try_from(n.div_ceil(of)).unwrap_or(u32::MAX)
}
