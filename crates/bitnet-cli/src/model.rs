//! Which model, and what it runs on.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Result;
use bitnet_gguf::Gguf;
use bitnet_inference::tuning::{Found, Tuning};
use bitnet_inference::{
    Checkpoint, Engine, Error, KvType, Layout, Options, ReadAs, device_features, sha256,
};
use bitnet_kernels::manager::Choice;
use bitnet_kernels::{Device, Devices, Isa};
use clap::builder::FalseyValueParser;
use clap::value_parser;
use serde::Serialize;

use crate::exit::{self, Usage};
use crate::hub;

/// The demo model: see `models/MODEL_CARD.md`.
static DEMO: &[u8] = include_bytes!("../../../models/bitnet-tales-i2_s.gguf");

/// Flags of every command that loads a model.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Model: a GGUF file, a Hugging Face folder with safetensors, or `ORG/NAME[:FILE]` from the cache of
    /// `bitnet pull`; the small demo model inside this program if not given.
    #[arg(short, long, value_name = "MODEL", env = "BITNET_MODEL")]
    model: Option<PathBuf>,
    /// Tokens of context; 0 or nothing is what the model was trained for.
    #[arg(short, long, value_name = "N", env = "BITNET_CTX_SIZE")]
    pub(crate) ctx_size: Option<usize>,
    /// Threads; -1 is one for each core that may be used.
    #[arg(short, long, value_name = "N", default_value_t = -1, env = "BITNET_THREADS",
        allow_negative_numbers = true, value_parser = value_parser!(i64).range(-1..))]
    threads: i64,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    cache: Cache,
    /// Device to run on: cpu, cuda (or cuda:N, see `bitnet devices`), llama; auto is the first GPU that can
    /// run the model, or the processor, and says why. `bitnet serve` and `bitnet bench` take several GPUs, each
    /// with all of the model: cuda:0,1, or cuda:all.
    #[arg(long, value_name = "DEVICE", default_value_t, env = "BITNET_DEVICE")]
    device: OnDevice,
    #[command(flatten)]
    pub(crate) library: Library,
    /// Known from llama.cpp: all layers run where --device says.
    #[arg(long, alias = "n-gpu-layers", value_name = "N", hide = true)]
    gpu_layers: Option<String>,
    /// Read ternary weights in a layout that the file does not tell: i2s_arm or i2s_r4 (I2_S as other
    /// builds of bitnet.cpp write it), or the tiles of TL1 and TL2 as tl1:BM,BK,bm and tl2:BM,BK,bm.
    #[arg(long, value_name = "LAYOUT", env = "BITNET_READ_AS")]
    read_as: Option<ReadAs>,
    /// Compute with floating-point weights in linear layers, to check against: slow, the same results.
    #[arg(long, env = "BITNET_DEQUANTIZE", value_parser = FalseyValueParser::new())]
    dequantize: bool,
}

/// Flags of keys and values.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Cache {
    /// Format of keys and values: f32, f16 (half the memory) or q8_0 (about a quarter).
    #[arg(
        long = "cache-type",
        alias = "cache-type-k",
        value_name = "TYPE",
        default_value = "f16",
        env = "BITNET_CACHE_TYPE"
    )]
    pub(crate) kv: KvType,
    /// Known from llama.cpp: values are kept as keys are.
    #[arg(long, value_name = "TYPE", hide = true)]
    cache_type_v: Option<KvType>,
}

impl Cache {
    /// Refuses what there is no cache for.
    pub(crate) fn check(self) -> Result<()> {
        match self.cache_type_v.filter(|&values| values != self.kv) {
            Some(values) => {
                let what = format!(
                    "keys in {} and values in {values}: here they are kept alike, with --cache-type",
                    self.kv
                );
                Err(Usage(what).into())
            }
            None => Ok(()),
        }
    }
}

/// Flags of libraries of other engines.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Library {
    /// Library of another engine (libllama, or the C interface of bitnet.cpp), or a folder with one; what
    /// `bitnet doctor` finds first if not given.
    #[cfg(feature = "ffi")]
    #[arg(long, value_name = "LIB", env = "BITNET_REFERENCE")]
    pub(crate) reference: Option<PathBuf>,
}

impl Library {
    /// The one that was named.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        #[cfg(feature = "ffi")]
        return self.reference.clone();
        #[cfg(not(feature = "ffi"))]
        None
    }
}

/// Flags of how a model is computed, whoever loads it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct How {
    /// Use no better instruction set: scalar, avx2, avxvnni, avx512, avx512vnni, neon, neondot or
    /// neoni8mm.
    #[arg(long, value_name = "ISA", env = "BITNET_ISA")]
    isa: Option<Isa>,
    /// Kernels to prefer, the first most, by their ids: of an operation that they name, no others are
    /// used. `bitnet kernels` lists all.
    #[arg(long = "kernel", value_name = "ID,...", value_delimiter = ',', env = "BITNET_KERNELS")]
    kernels: Vec<Choice>,
    /// Layout of the ternary weights in memory: i2s_r32 (2 bits) or tl2_r32 (1.67 bits, for memory
    /// that is slow for the cores there are); the first that suits them if not given. Results do not
    /// depend on it.
    #[arg(long, value_name = "LAYOUT", env = "BITNET_LAYOUT")]
    layout: Option<Layout>,
    /// How a GPU runs passes of a few tokens: graph (a kernel for each operation, recorded once), or kernel (one that does
    /// all of them). Results do not depend on it.
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "WAY", default_value = "graph", env = "BITNET_GPU_PASSES")]
    gpu_passes: bitnet_inference::GpuPasses,
    /// Precision of what attention multiplies on a GPU: fp32 (the results of every processor), fp16 or bf16 (on tensor cores, near
    /// those and meant for long prompts; they take --cache-type f16 and compute capability 8.0), or auto (fp16 where devices, model
    /// and --gpu-passes have it, and else fp32).
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "PRECISION", default_value = "fp32", env = "BITNET_GPU_PRECISION")]
    gpu_precision: bitnet_inference::PrecisionMode,
    /// What `bitnet tune` measured: `auto` takes it where that was written, `none` does without.
    #[arg(long, value_name = "FILE", default_value = "auto", env = "BITNET_TUNING")]
    pub(crate) tuning: Source,
}

/// Where measurements come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The user's folder for configuration, if there are any.
    Auto,
    /// Nowhere.
    Nowhere,
    /// A file, which must be there where measurements are read.
    File(PathBuf),
}

impl Source {
    /// The file, if there is one to look for.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        match self {
            Source::Auto => Tuning::path(),
            Source::Nowhere => None,
            Source::File(path) => Some(path.clone()),
        }
    }
}

impl FromStr for Source {
    type Err = Infallible;

    fn from_str(name: &str) -> Result<Source, Infallible> {
        Ok(match name {
            "auto" => Source::Auto,
            "none" => Source::Nowhere,
            path => Source::File(path.into()),
        })
    }
}

impl How {
    /// Options with these flags. Says on stderr what the user should know of measurements.
    pub(crate) fn options(&self) -> Result<Options> {
        let tuning = match self.tuning.path().map(|path| Tuning::load(&path)).transpose()? {
            Some(Found::Tuning(tuning)) => Some(tuning),
            Some(Found::Other(notice)) => {
                exit::say(&format!("note: {notice}"));
                None
            }
            Some(Found::Nothing) => match &self.tuning {
                Source::File(path) => {
                    let what = format!("{}: there is no such file of measurements", path.display());
                    return Err(Usage(what).into());
                }
                _ => None,
            },
            None => None,
        };
        Ok(self.measured(tuning))
    }

    /// Options with these flags, and measurements.
    pub(crate) fn measured(&self, tuning: Option<Tuning>) -> Options {
        let How { isa, kernels, layout, .. } = self.clone();
        Options {
            isa,
            kernels,
            layout,
            tuning,
            #[cfg(feature = "cuda")]
            gpu_passes: self.gpu_passes,
            #[cfg(feature = "cuda")]
            gpu_precision: self.gpu_precision,
            ..Options::default()
        }
    }
}

impl Args {
    /// What to call the model before others, who need not know where it is.
    pub(crate) fn label(&self) -> String {
        let Some(path) = &self.model else { return "bitnet-tales".to_owned() };
        let path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let name = match path.is_file() {
            true => path.file_stem(),
            false if path.is_dir() => path.file_name(),
            // A name in the cache.
            false => Some(path.as_os_str()),
        };
        name.unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Where the model is; nothing for the demo model.
    #[cfg(feature = "ffi")]
    pub(crate) fn file(&self) -> Result<Option<PathBuf>> {
        Ok(self.model.as_deref().map(hub::find).transpose()?)
    }

    /// Loads the model, and says on stderr what its user should know.
    pub(crate) fn load(&self) -> Result<Engine> {
        self.load_with(|_| {})
    }

    /// As [`Args::load`], with options changed.
    pub(crate) fn load_with(&self, change: impl FnOnce(&mut Options)) -> Result<Engine> {
        self.device.is_one()?;
        self.on_device(self.model.as_deref(), self.options(change)?)
    }

    /// As [`Args::load`], on all devices that were asked for.
    pub(crate) fn load_on_all(&self) -> Result<Engine> {
        self.on_device(self.model.as_deref(), self.options(|_| {})?)
    }

    /// As [`Args::load`], with another file, and never on a library.
    #[cfg(feature = "ffi")]
    pub(crate) fn load_file(&self, file: &Path) -> Result<Engine> {
        self.device.is_one()?;
        if self.device == OnDevice::These(Devices::These(vec![Device::Llama])) {
            let what = "--device llama would compare the library with itself; leave it out";
            return Err(Usage(what.to_owned()).into());
        }
        self.on_device(Some(file), self.options(|_| {})?)
    }

    /// Loads a model on the devices that were asked for.
    fn on_device(&self, file: Option<&Path>, options: Options) -> Result<Engine> {
        match &self.device {
            OnDevice::These(devices) => load(file, &on(devices, options)?),
            OnDevice::Auto => {
                let on = |device| load(file, &Options { device, ..options.clone() });
                match on(Device::Cuda(0)) {
                    Err(error) if is_of_device(&error) => {
                        exit::say(&format!("note: computing on the processor: {error}"));
                        on(Device::Cpu)
                    }
                    result => result,
                }
            }
        }
    }

    fn options(&self, change: impl FnOnce(&mut Options)) -> Result<Options> {
        self.cache.check()?;
        if self.gpu_layers.as_deref().is_some_and(|layers| layers != "0") {
            exit::say("note: --gpu-layers has no effect: all layers run where --device says");
        }
        let mut options = Options {
            // Negative is automatic. Zero is passed on, and refused.
            threads: usize::try_from(self.threads).ok(),
            kv: self.cache.kv,
            dequantize: self.dequantize,
            read_as: self.read_as,
            context: self.ctx_size.filter(|&n| n > 0),
            library: self.library.path(),
            ..self.how.options()?
        };
        change(&mut options);
        Ok(options)
    }
}

/// Options for these devices.
pub(crate) fn on(devices: &Devices, options: Options) -> Result<Options, Error> {
    let mut all = device_features::resolve(devices)?.into_iter();
    let device = all.next().unwrap_or_default();
    Ok(Options { device, beside: all.collect(), ..options })
}

/// What is to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
enum OnDevice {
    /// The first GPU, if it can, or else the processor.
    Auto,
    /// These, and nothing else.
    These(Devices),
}

impl OnDevice {
    /// Refuses several devices.
    fn is_one(&self) -> Result<()> {
        match self {
            OnDevice::These(Devices::These(devices)) if devices.len() == 1 => Ok(()),
            OnDevice::Auto => Ok(()),
            OnDevice::These(devices) => {
                let what = format!(
                    "--device {devices} is several devices, and this command computes on one: name one \
                     (`bitnet serve` has work for several)"
                );
                Err(Usage(what).into())
            }
        }
    }
}

impl Default for OnDevice {
    /// Who builds it with GPUs wants to use one.
    fn default() -> OnDevice {
        match cfg!(feature = "cuda") {
            true => OnDevice::Auto,
            false => OnDevice::These(Devices::These(vec![Device::Cpu])),
        }
    }
}

impl FromStr for OnDevice {
    type Err = String;

    fn from_str(name: &str) -> Result<OnDevice, String> {
        match name.eq_ignore_ascii_case("auto") {
            true => Ok(OnDevice::Auto),
            false => name.parse().map(OnDevice::These).map_err(|error| format!("{error}; or auto")),
        }
    }
}

impl fmt::Display for OnDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OnDevice::Auto => f.write_str("auto"),
            OnDevice::These(devices) => devices.fmt(f),
        }
    }
}

/// Whether something went wrong that would not on another device.
pub(crate) fn is_of_device(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(Error::Device(_)) => true,
        #[cfg(feature = "cuda")]
        Some(Error::Gpu(_)) => true,
        _ => false,
    }
}

/// Which model it was, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Identity {
    sha256: String,
    architecture: String,
    #[serde(rename = "type")]
    weights: String,
}

impl Identity {
    pub(crate) fn new(engine: &Engine) -> Identity {
        Identity {
            sha256: engine.sha256().to_owned(),
            architecture: engine.config().architecture.clone(),
            weights: engine.weight_formats().join("+"),
        }
    }
}

/// SHA-256 of the demo model, in hexadecimal.
pub(crate) fn demo_sha256() -> String {
    sha256(DEMO)
}

/// Opens the model of a path or of the cache, or the demo model.
pub(crate) fn open(path: Option<&Path>) -> Result<Checkpoint> {
    Ok(match path {
        Some(path) => Checkpoint::open(hub::find(path)?)?,
        None => demo()?,
    })
}

/// The demo model.
pub(crate) fn demo() -> Result<Checkpoint, Error> {
    Checkpoint::from_gguf(Gguf::from_static("the demo model", DEMO)?)
}

/// Loads the model of a file or of the cache, or the demo model, and says on stderr what its user should know.
pub(crate) fn load(path: Option<&Path>, options: &Options) -> Result<Engine> {
    let engine = Engine::of(open(path)?, options)?;
    for notice in engine.notices() {
        exit::say(&format!("note: {notice}"));
    }
    Ok(engine)
}
