//! NVIDIA GPUs: the weights of a model in the memory of a device, and forward passes there.

mod lend;
mod passes;
mod survey;
mod validator;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};
use std::{ptr, thread};

use bitnet_gpu::cuda::{self, Condensed, Gpu, Table, Vector};
use bitnet_gpu::kernels::{GpuPasses, KernelId, RowTiles};
use bitnet_gpu::{CudaComputeCapability, PrecisionMode, tiles};
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
pub(crate) use lend::Lent;
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

/// GPUs that there are: their generations, and whether they take cooperative launches.
pub(crate) fn found() -> Vec<(CudaComputeCapability, bool)> {
    let devices = cuda::Probe::get().devices().iter();
    devices.map(|info| (info.compute_capability, info.cooperative_launch)).collect()
}

/// A linear layer whose weights are on devices.
#[derive(Debug)]
pub(crate) struct GpuLinear {
    /// The format of the weights in their file.
    format: Format,
    rows: usize,
    cols: usize,
    /// On each of the devices, and what multiplies by them there: one row, and as many as there are at most.
    there: Vec<(GpuMatrix, [&'static str; 2])>,
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

    /// The weights on a device, by its place among those that there are.
    pub(crate) fn matrix(&self, replica: usize) -> &GpuMatrix {
        &self.there[replica].0
    }

    pub(crate) fn kernels(&self, replica: usize) -> [&'static str; 2] {
        self.there[replica].1
    }

    /// Bytes of the weights in the memory of a device.
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

/// Devices that weights are put on while a model is loaded: each has all of them.
#[derive(Debug)]
pub(crate) struct Sink {
    loaders: Vec<cuda::Loader>,
    way: Way,
}

/// How a model computes there.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// How passes of a few rows are enqueued.
    passes: GpuPasses,
    /// Which rows attend together.
    together: RowTiles,
}

/// Who sees the residual stream behind each layer.
type See<'a> = &'a mut dyn FnMut(usize, &[f32]);

/// What a model has on a device, besides the matrices that its linear layers have.
#[derive(Debug)]
pub(crate) struct OnGpu {
    gpu: Arc<Gpu>,
    /// Its place among the devices that have the model.
    replica: usize,
    /// By where they are in the model, which stays there as long as this.
    tables: HashMap<usize, Table>,
    /// The copy of the output layer, if that is large.
    condensed: Option<Condensed>,
    vectors: HashMap<usize, Vector>,
    /// Cosines and sines of all positions, by their frequencies.
    angles: HashMap<usize, [Vector; 2]>,
    /// Positions that there are angles for.
    context: usize,
    way: Way,
    kind: OnceLock<String>,
}

/// Where something of a model is.
fn key<T: ?Sized>(of: &T) -> usize {
    ptr::from_ref(of).cast::<()>().addr()
}

impl Sink {
    /// Opens the devices that the options name, with memory for the linear layers of a model on each, if they are GPUs.
    pub(crate) fn open(options: &Options, config: &Config) -> Result<Option<Sink>, Error> {
        let number = |device: &Device| match device {
            Device::Cuda(number) => Some(*number),
            _ => None,
        };
        let devices = [options.device].into_iter().chain(options.beside.iter().copied());
        let numbers: Vec<usize> = devices.filter_map(|device| number(&device)).collect();
        if numbers.is_empty() {
            return Ok(None);
        }
        check(options)?;
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
        let open = |number| Ok(cuda::Loader::new(&Gpu::open(number)?, config.layers * block)?);
        let loaders = each(numbers, open)?;
        let way =
            Way { passes: options.gpu_passes, together: together(options, config, &loaders)? };
        Ok(Some(Sink { loaders, way }))
    }

    /// Puts a ternary matrix on each, from the format of a file, all of whose weights are multiplied by `side`.
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
        let mut there = Vec::with_capacity(self.loaders.len());
        for loader in &mut self.loaders {
            let matrix = loader.matrix(&packed, (rows, cols), scale)?;
            there.push((matrix, loader.gpu().product_kernels(CHUNK).map(KernelId::name)));
        }
        Ok(Ok(GpuLinear { format: encoding.format, rows, cols, there }))
    }

    /// Puts all else of a model on each, for sequences of so many positions.
    pub(crate) fn finish(self, model: &Model, context: usize) -> Result<Vec<Arc<OnGpu>>, Error> {
        if model.is_grouped() {
            let what = "models whose weights have a scale for each group; use --device cpu";
            return Err(DeviceError::Unsupported { device: Device::Cuda(0), what }.into());
        }
        let gpus = self.loaders.iter().map(|loader| Arc::clone(loader.gpu()));
        let one = |gpu| Ok(Arc::new(OnGpu::new(gpu, model, (context, self.way))?));
        each(gpus.enumerate().collect(), one)
    }
}

/// Does something for each of some devices at the same time. The first error, in their order, is that of all.
fn each<T: Send, R: Send>(
    of: Vec<T>,
    work: impl Fn(T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let work = &work;
    thread::scope(|scope| {
        let mut of = of.into_iter();
        // One of them is the business of this thread.
        let first = of.next();
        let others: Vec<_> = of.map(|one| scope.spawn(move || work(one))).collect();
        let first = first.map(work);
        let others = others.into_iter().map(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        first.into_iter().chain(others).collect()
    })
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
    /// A device, by its place among those that there are, with all of a model but its linear layers.
    fn new(
        (replica, gpu): (usize, Arc<Gpu>),
        model: &Model,
        (context, way): (usize, Way),
    ) -> Result<OnGpu, Error> {
        let mut bytes = 0;
        survey(model, |part| bytes += part.bytes(context));
        let head = model.output();
        let condense = Condensed::suits(head.rows, head.cols);
        if condense {
            bytes += cuda::Loader::condensed_bytes(head.rows, head.cols);
        }
        let mut loader = cuda::Loader::new(&gpu, bytes)?;
        let (tables, vectors, angles) = (HashMap::new(), HashMap::new(), HashMap::new());
        let mut on = OnGpu {
            gpu,
            replica,
            tables,
            condensed: None,
            vectors,
            angles,
            context,
            way,
            kind: OnceLock::new(),
        };
        let mut put = Ok(());
        survey(model, |part| {
            if put.is_ok() {
                put = on.put(&part, &mut loader);
            }
        });
        put?;
        if condense {
            on.condensed = Some(loader.condense(&on.tables[&key(head)])?);
        }
        Ok(on)
    }

    /// The device.
    pub(crate) fn device(&self) -> Device {
        Device::Cuda(self.gpu.info().device_id)
    }

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

/// Which rows attend together, on all of some devices alike. In lesser precisions they are of one generation, or texts would depend on
/// where they are computed.
fn together(
    options: &Options,
    config: &Config,
    loaders: &[cuda::Loader],
) -> Result<RowTiles, Error> {
    let (mode, kv) = (options.gpu_precision, options.kv.format());
    let heads = (config.heads / config.kv_heads, config.head_size);
    let generation = |loader: &cuda::Loader| {
        let gpu = loader.gpu();
        (gpu.info().compute_capability, gpu.target().1)
    };
    let generations: BTreeSet<_> = loaders.iter().map(generation).collect();
    let chosen = match (generations.first(), generations.len()) {
        (Some(&(_, target)), 1) => RowTiles::choose(mode, (target, kv), heads),
        _ => None,
    };
    let what = match (mode, options.gpu_passes, chosen) {
        (PrecisionMode::Fp32, ..)
        | (PrecisionMode::Auto, GpuPasses::Kernel, _)
        | (PrecisionMode::Auto, _, None) => {
            return Ok(RowTiles::new(PrecisionMode::Fp32, heads.0, heads.1));
        }
        (_, GpuPasses::Graph, Some(tiles)) => return Ok(tiles),
        (_, GpuPasses::Kernel, _) => {
            format!("passes in one kernel with attention in {mode}; leave out --gpu-passes kernel")
        }
        (_, GpuPasses::Graph, None) => format!(
            "attention in {mode}: it takes devices of one compute capability, 8.0 at least, --cache-type f16, and heads of a multiple \
             of 16 numbers up to 128, of which 64 at most share keys; say --gpu-precision auto"
        ),
    };
    Err(cuda::Error::Unsupported { what }.into())
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
    /// The precision of what attention multiplies.
    pub(crate) fn attention(&self) -> PrecisionMode {
        self.way.together.precision()
    }

    /// What else gives the keys and values that come out here, where those of the processor are others: the precision of attention, the
    /// generation of the device, and the beginning of the hash of the kernels.
    pub(crate) fn kind(&self) -> Option<&str> {
        let kind = || {
            let GpuUsed { compute_capability, ptx_sha256, attention, .. } = self.used();
            format!("{attention}-{compute_capability}-{}", &ptx_sha256[..8])
        };
        (self.attention() != PrecisionMode::Fp32).then(|| self.kind.get_or_init(kind).as_str())
    }

    /// What receipts say of the device.
    pub(crate) fn used(&self) -> GpuUsed {
        let (info, (target, _)) = (self.gpu.info(), self.gpu.target());
        GpuUsed {
            name: info.name.clone(),
            uuid: info.uuid.clone(),
            compute_capability: info.compute_capability.to_string(),
            driver: cuda::version(self.gpu.driver()),
            target: target.to_owned(),
            ptx_sha256: sha256(self.gpu.ptx()),
            attention: self.attention().to_string(),
            dropped_passes: 0,
        }
    }

    /// What is wrong with how the driver has compiled the kernels.
    pub(crate) fn notices(&self) -> impl Iterator<Item = Notice> {
        self.gpu.slow().iter().map(|what| Notice::Gpu { what: what.clone() })
    }
}
