//! NVIDIA GPUs: the weights of a model in the memory of a device, and forward passes there.

mod passes;
mod survey;
mod validator;

use std::collections::HashMap;
use std::ptr;
use std::sync::Arc;

use bitnet_gpu::cuda::{self, Gpu, Table, Vector};
use bitnet_gpu::kernels::{GpuPasses, KernelId};
use bitnet_gpu::tiles;
use bitnet_kernels::format::{self, Encoding, FormatError};
use bitnet_kernels::{Device, Format, packed};

use crate::arch::Model;
use crate::backend::{Row, turn};
use crate::device_features::DeviceError;
use crate::kv::KvCache;
use crate::matrix::FloatMatrix;
use crate::receipt::GpuUsed;
use crate::session::CHUNK;
use crate::sha256::sha256;
use crate::{Config, Error, Notice, Options};

pub(crate) use bitnet_gpu::cuda::Matrix as GpuMatrix;
pub(crate) use passes::Passes;
use survey::{Part, survey};
pub use validator::{
    AccuracyResult, GpuValidator, MemoryResults, PerformanceResult, ValidationResults,
};

/// Why there is no GPU to compute with, if there is none.
pub(crate) fn missing() -> Option<String> {
    let probe = cuda::Probe::get();
    probe.devices().is_empty().then(|| probe.to_string())
}

/// A linear layer whose weights are on a device.
#[derive(Debug)]
pub(crate) struct GpuLinear {
    /// The format of the weights in their file.
    format: Format,
    rows: usize,
    cols: usize,
    matrix: GpuMatrix,
    /// What multiplies by them: one row, and as many as there are at most.
    kernels: [&'static str; 2],
}

impl GpuLinear {
    pub(crate) fn set_format(&mut self, format: Format) {
        self.format = format;
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.cols)
    }

    pub(crate) fn layout(&self) -> &'static str {
        tiles::NAME
    }

    pub(crate) fn matrix(&self) -> &GpuMatrix {
        &self.matrix
    }

    pub(crate) fn kernels(&self) -> [&'static str; 2] {
        self.kernels
    }

    /// Bytes of the weights in the memory of the device.
    pub(crate) fn bytes(&self) -> usize {
        tiles::bytes(self.rows, self.cols)
    }
}

/// The weights of a file, each once, and their scale.
fn decoded(
    (encoding, bytes): (Encoding, &[u8]),
    (rows, cols): (usize, usize),
    side: f32,
) -> Result<(Vec<i8>, f32), FormatError> {
    let own = format::check(encoding, bytes, rows, cols)?;
    let scale = packed::scaled(encoding.format, own, side)?;
    Ok((format::decode(encoding, bytes, rows, cols)?, scale))
}

/// A device that weights are put on while a model is loaded.
#[derive(Debug)]
pub(crate) struct Sink(cuda::Loader, GpuPasses);

/// Who sees the residual stream behind each layer.
type See<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// What a model has on a device, besides the matrices that its linear layers have.
#[derive(Debug)]
pub(crate) struct OnGpu {
    gpu: Arc<Gpu>,
    /// By where they are in the model, which stays there as long as this.
    tables: HashMap<usize, Table>,
    vectors: HashMap<usize, Vector>,
    /// Cosines and sines of all positions, by their frequencies.
    angles: HashMap<usize, [Vector; 2]>,
    /// Positions that there are angles for.
    context: usize,
    /// How passes of a few rows are enqueued.
    passes: GpuPasses,
}

/// Where something of a model is.
fn key<T: ?Sized>(of: &T) -> usize {
    ptr::from_ref(of).cast::<()>().addr()
}

impl Sink {
    /// Opens the device that the options name, with memory for the linear layers of a model, if it is a GPU.
    pub(crate) fn open(options: &Options, config: &Config) -> Result<Option<Sink>, Error> {
        let Device::Cuda(number) = options.device else { return Ok(None) };
        check(options)?;
        let gpu = Gpu::open(number)?;
        let (hidden, ffn, q, kv) = (config.hidden, config.ffn, config.q_size(), config.kv_size());
        let shapes = [
            (q, hidden),
            (kv, hidden),
            (kv, hidden),
            (hidden, q),
            (ffn, hidden),
            (ffn, hidden),
            (hidden, ffn),
        ];
        let block: usize =
            shapes.iter().map(|&(rows, cols)| cuda::Loader::matrix_bytes(rows, cols)).sum();
        let loader = cuda::Loader::new(&gpu, config.layers * block)?;
        Ok(Some(Sink(loader, options.gpu_passes)))
    }

    /// Puts a ternary matrix there, from the format of a file, all of whose weights are multiplied by `side`.
    pub(crate) fn put(
        &mut self,
        (encoding, bytes): (Encoding, &[u8]),
        (rows, cols): (usize, usize),
        side: f32,
    ) -> Result<Result<GpuLinear, FormatError>, Error> {
        let (weights, scale) = match decoded((encoding, bytes), (rows, cols), side) {
            Ok(decoded) => decoded,
            Err(error) => return Ok(Err(error)),
        };
        let mut packed = vec![0; tiles::bytes(rows, cols)];
        tiles::pack(&weights, cols, &mut packed);
        let matrix = self.0.matrix(&packed, (rows, cols), scale)?;
        let kernels = self.0.gpu().product_kernels(CHUNK).map(KernelId::name);
        Ok(Ok(GpuLinear { format: encoding.format, rows, cols, matrix, kernels }))
    }

    /// Puts all else of a model there, for sequences of so many positions.
    pub(crate) fn finish(self, model: &Model, context: usize) -> Result<OnGpu, Error> {
        if model.is_grouped() {
            let what = "models whose weights have a scale for each group; use --device cpu";
            return Err(DeviceError::Unsupported { device: Device::Cuda(0), what }.into());
        }
        let mut bytes = 0;
        survey(model, |part| bytes += part.bytes(context));
        let gpu = Arc::clone(self.0.gpu());
        let mut loader = cuda::Loader::new(&gpu, bytes)?;
        let (tables, vectors, angles) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut on = OnGpu { gpu, tables, vectors, angles, context, passes: self.1 };
        let mut put = Ok(());
        survey(model, |part| {
            if put.is_ok() {
                put = on.put(&part, &mut loader);
            }
        });
        put.map(|()| on)
    }
}

impl Part<'_> {
    /// Bytes that it takes on a device, with angles of so many positions.
    fn bytes(&self, context: usize) -> usize {
        let bytes = cuda::Loader::other_bytes;
        match self {
            Part::Norm(weights) => bytes(4 * weights.len()),
            Part::Angles(frequencies) => 2 * bytes(4 * context * frequencies.len()),
            Part::Table(table) => {
                bytes(table.rows * table.cols * if is_half(table.format) { 2 } else { 4 })
            }
        }
    }
}

/// Whether there are kernels for a table of numbers of two bytes. All others become floats.
fn is_half(format: Format) -> bool {
    matches!(format, Format::F16 | Format::Bf16)
}

impl OnGpu {
    /// Puts a part of a model there.
    fn put(&mut self, part: &Part<'_>, loader: &mut cuda::Loader) -> Result<(), Error> {
        match part {
            Part::Norm(weights) => {
                self.vectors.insert(key(*weights), loader.vector(weights)?);
            }
            Part::Angles(frequencies) => {
                let (cos, sin) = angles(frequencies, self.context);
                self.angles.insert(key(*frequencies), [loader.vector(&cos)?, loader.vector(&sin)?]);
            }
            Part::Table(table) => {
                let (bytes, shape) = (table.weights(0..table.rows), (table.rows, table.cols));
                let there = if is_half(table.format) {
                    loader.table(bytes, shape, table.format)?
                } else {
                    loader.table(&widened(table), shape, Format::F32)?
                };
                self.tables.insert(key(*table), there);
            }
        }
        Ok(())
    }
}

/// The bytes of the numbers of a table.
fn widened(table: &FloatMatrix) -> Vec<u8> {
    let mut row = vec![0.0; table.cols];
    let mut bytes = Vec::with_capacity(4 * table.rows * table.cols);
    for i in 0..table.rows {
        format::widen(table.format, table.weights(i..i + 1), &mut row);
        bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
    }
    bytes
}

/// Refuses what a GPU cannot be told.
fn check(options: &Options) -> Result<(), DeviceError> {
    let asked = [
        (options.dequantize, "other weights; leave out --dequantize"),
        (!options.kernels.is_empty(), "a choice of kernels; leave out --kernel"),
        (options.layout.is_some(), "a choice of layouts in memory; leave out --layout"),
    ];
    match asked.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => Err(DeviceError::Unsupported { device: options.device, what }),
        None => Ok(()),
    }
}

/// Cosines and sines of all positions `[context, frequencies]`, as the processor has them.
fn angles(frequencies: &[f32], context: usize) -> (Vec<f32>, Vec<f32>) {
    let all =
        (0..context).flat_map(|position| frequencies.iter().map(move |f| position as f32 * f));
    all.map(turn).unzip()
}

impl OnGpu {
    /// Forward passes of so many sequences, whose keys and values are in the blocks of `cache`, in this format.
    pub(crate) fn passes(
        self: &Arc<OnGpu>,
        model: &Arc<Model>,
        cache: (KvCache, usize, Format),
    ) -> Result<Passes, Error> {
        Passes::new(Arc::clone(self), Arc::clone(model), cache)
    }
}

/// A row, as the device takes it.
fn row(row: &Row) -> cuda::Row {
    let Row { sequence, position, token } = *row;
    cuda::Row { token, sequence, position }
}

impl OnGpu {
    /// What receipts say of the device.
    pub(crate) fn used(&self) -> GpuUsed {
        let (info, (target, _)) = (self.gpu.info(), self.gpu.target());
        let (major, minor) = info.compute_capability;
        GpuUsed {
            name: info.name.clone(),
            uuid: info.uuid.clone(),
            compute_capability: format!("{major}.{minor}"),
            driver: cuda::version(self.gpu.driver()),
            target: target.to_owned(),
            ptx_sha256: sha256(self.gpu.ptx()),
            dropped_passes: 0,
        }
    }

    /// What is wrong with how the driver has compiled the kernels.
    pub(crate) fn notices(&self) -> impl Iterator<Item = Notice> {
        self.gpu.slow().iter().map(|what| Notice::Gpu { what: what.clone() })
    }
}
