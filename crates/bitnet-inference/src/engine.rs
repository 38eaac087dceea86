//! A loaded model, ready to run.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use bitnet_gguf::Gguf;
use bitnet_gpu::PrecisionMode;
use bitnet_gpu::kernels::GpuPasses;
use bitnet_kernels::manager::Choice;
use bitnet_kernels::op::{KV_BLOCK, SoftmaxFn};
use bitnet_kernels::{Cpu, Device, Format, Isa, Kernel, KernelId, KernelManager, NoKernel, Pool};

use crate::arch::Model;
use crate::backend::cpu::{CpuBackend, LinearInput};
use crate::backend::kernels::Kernels;
use crate::constraint::{Compiled, Constraint, Grammars};
use crate::device_features::{self, DeviceError, KernelCapabilities};
use crate::foreign::{Foreign, Library};
use crate::gpu::{OnGpu, Passes, Sink};
use crate::kv::KvCache;
use crate::linear::Tiles;
use crate::machine::Machine;
use crate::receipt::GpuUsed;
use crate::session::Session;
use crate::source::{Checkpoint, Loader, ReadAs};
use crate::tokenizer::{Special, Tokenizer};
use crate::tuning::{Best, Shape, Tuning};
use crate::{Config, Error, Notice};

/// How to run a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What computes.
    pub device: Device,
    /// More GPUs that have all of the model, and compute texts of their own: see [`Replicas`](crate::Replicas).
    pub beside: Vec<Device>,
    /// Nothing better than this instruction set; the best there is if not given.
    pub isa: Option<Isa>,
    /// Kernels to prefer, the first most: of an operation that they name, no others are used.
    pub kernels: Vec<Choice>,
    /// Threads; as many as the process may use cores if not given.
    pub threads: Option<usize>,
    /// Tokens of context; as many as the model was trained for if not given.
    pub context: Option<usize>,
    /// How keys and values are kept.
    pub kv: KvType,
    /// How ternary weights are kept; as suits the matrices and the machine if not given.
    pub layout: Option<Layout>,
    /// How ternary weights lie in the file, where it does not tell.
    pub read_as: Option<ReadAs>,
    /// Compute with floating-point weights in linear layers: slow, in eight times the memory, and
    /// the same results, to check against.
    pub dequantize: bool,
    /// How a GPU runs passes of a few rows.
    pub gpu_passes: GpuPasses,
    /// The precision of what attention multiplies on a GPU: in single, results are the bits of the processor. In all others they are near
    /// them, and those of a text the same whatever else is computed beside it.
    pub gpu_precision: PrecisionMode,
    /// What was measured on this machine.
    pub tuning: Option<Tuning>,
    /// The library of [`Device::Llama`], or a folder with one; the first that is found if not given. A program of
    /// its own opens it: this one with the argument `ffi-host`, which must do no other than
    /// `bitnet_ffi::host::serve`.
    pub library: Option<PathBuf>,
}

impl Options {
    /// Chooses kernels as the options say.
    ///
    /// # Errors
    ///
    /// Where they ask for what the processor does not have.
    pub fn manager(&self) -> Result<KernelManager, Error> {
        let mut manager = KernelManager::new();
        if let Some(isa) = self.isa {
            manager = manager.limit(isa)?;
        }
        if let Some(layout) = self.layout {
            manager = manager.limit_layout(layout.format());
        }
        manager.set_backend_preference(&self.kernels)?;
        Ok(manager)
    }
}

/// The layout of ternary weights in memory, whatever it is in the file. Results are the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Two bits a weight: the fewest instructions.
    I2SR32,
    /// 1.67 bits a weight: less to read for each token, and more instructions. Faster where memory
    /// is slow for the cores there are.
    Tl2R32,
}

impl Layout {
    pub(crate) const fn format(self) -> Format {
        match self {
            Layout::I2SR32 => Format::I2SR32,
            Layout::Tl2R32 => Format::Tl2R32,
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(name: &str) -> Result<Layout, String> {
        named(name, "layout", [Layout::I2SR32, Layout::Tl2R32], Layout::format)
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format().name())
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format().name())
    }
}

/// The one of `known` whose format is called `name`.
fn named<T: Copy, const N: usize>(
    name: &str,
    what: &str,
    known: [T; N],
    format: impl Fn(T) -> Format,
) -> Result<T, String> {
    known.into_iter().find(|&one| format(one).name() == name).ok_or_else(|| {
        let names = known.map(|one| format(one).name()).join(", ");
        format!("there is no {what} {name}; there are {names}")
    })
}

/// The format of keys and values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// Single precision: twice the memory.
    F32,
    /// Half precision.
    #[default]
    F16,
    /// Blocks of 32 signed bytes and a scale: about half the memory.
    Q8_0,
}

impl KvType {
    pub(crate) const fn format(self) -> Format {
        match self {
            KvType::F32 => Format::F32,
            KvType::F16 => Format::F16,
            KvType::Q8_0 => Format::Q8_0,
        }
    }
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(name: &str) -> Result<KvType, String> {
        let known = [KvType::F32, KvType::F16, KvType::Q8_0];
        named(name, "format of keys and values", known, KvType::format)
    }
}

/// A loaded model: weights bound to kernels, tokenizer, threads.
///
/// ```no_run
/// use bitnet_inference::{Engine, Generation, Options, Request, Sampling};
///
/// let engine = Engine::open("model.gguf", &Options::default())?;
/// let prompt = engine.encode("Once upon a time")?;
/// let mut story = Generation::new(&engine, Request::new(prompt, Sampling::default(), 64))?;
/// while let Some(token) = story.next(|| false)? {
///     print!("{}", token.text);
/// }
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
pub struct Engine {
    /// Its files, without what has been loaded.
    checkpoint: Checkpoint,
    /// Bytes of its tensors.
    size: u64,
    pub(crate) model: Arc<Model>,
    tokenizer: Option<Tokenizer>,
    manager: KernelManager,
    kernels: Kernels,
    pool: Arc<Pool>,
    context: usize,
    kv: KvType,
    dequantize: bool,
    read_as: Option<ReadAs>,
    tiles: Tiles,
    /// SHA-256 of the measurements in use.
    tuning: Option<String>,
    /// What constraints need to know of the vocabulary, once there was one.
    grammars: OnceLock<Result<Grammars, String>>,
    /// SHA-256 of the model file, once it was asked for.
    sha256: OnceLock<String>,
    notices: Vec<Notice>,
    /// What computes in place of all this, where the device is a library.
    library: Option<Arc<Library>>,
    device: Device,
    /// The model on each of the GPUs, where these are the devices.
    gpus: Vec<Arc<OnGpu>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("model", &self.checkpoint.name()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Maps a model file and loads it.
    ///
    /// # Errors
    ///
    /// Where the file is not a complete and sound model of a supported kind, or the options ask
    /// for what the machine does not have.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Engine, Error> {
        Engine::of(Checkpoint::open(path)?, options)
    }

    /// Loads a parsed model file.
    ///
    /// # Errors
    ///
    /// As [`Engine::open`].
    pub fn load(gguf: Gguf, options: &Options) -> Result<Engine, Error> {
        Engine::of(Checkpoint::from_gguf(gguf)?, options)
    }

    /// Loads a model that has been opened.
    ///
    /// # Errors
    ///
    /// As [`Engine::open`].
    pub fn of(checkpoint: Checkpoint, options: &Options) -> Result<Engine, Error> {
        device_features::open_all(options.device, &options.beside)?;
        device_features::check_options(options)?;
        let mut manager = options.manager()?;
        let tuning = options.tuning.as_ref();
        let config = checkpoint.config()?;
        let best = tuning.and_then(|tuning| tuning.best(&Shape::of(&config)));
        manager.set_tuned(best.map_or_else(Vec::new, Best::tuned));
        let pool = Arc::new(pool(options.threads.or(best.map(|best| best.threads)))?);
        let how = (options.dequantize, options.read_as);
        let mut sink = Sink::open(options, &config)?;
        let loader = Loader::new((&checkpoint, &config), how, (&manager, &pool), sink.as_mut())?;
        let (model, of_weights) = Model::load(loader)?;
        let rows = model.embedding.rows;
        let (tokenizer, said) = checkpoint.tokenizer(rows)?;
        let mut notices = checkpoint.notices();
        notices.extend(said);
        notices.extend(of_weights);
        let tokens = tokenizer.as_ref().map(Tokenizer::len);
        if let Some(tokens) = tokens.filter(|&tokens| tokens != rows) {
            let what = format!(
                "the tokenizer has {tokens} tokens, the embedding table {rows} rows; the file is \
                 damaged or mislabelled"
            );
            return Err(Error::Variant { file: checkpoint.name().to_owned(), what });
        }
        let trained = model.config.context;
        let asked = options.context.unwrap_or(trained);
        if asked > trained {
            notices.push(Notice::Context { asked, used: trained });
        }
        let Options { kv, dequantize, read_as, .. } = *options;
        let kernels = Kernels::select(&manager, kv.format(), model.config.activation)?;
        let used = used(&model, &kernels, &manager)?;
        for (choice, reason) in manager.without_effect(&options.kernels, &used) {
            notices.push(Notice::Preference { choice, reason });
        }
        let ternary = !model.is_grouped();
        if dequantize {
            notices.push(if ternary { Notice::Dequantized } else { Notice::Numbers });
        }
        if dequantize || !ternary {
            notices.extend(options.layout.map(|layout| Notice::Layout { layout }));
        }
        let dequantize = dequantize && ternary;
        let context = asked.min(trained);
        let library = Library::open(options, &checkpoint, (context, pool.threads(), rows))?;
        let library = library.map(Arc::new);
        let model = Arc::new(model);
        let gpus = sink.map(|sink| sink.finish(&model, context)).transpose()?.unwrap_or_default();
        notices.extend(gpus.iter().flat_map(|gpu: &Arc<OnGpu>| gpu.notices()));
        Ok(Engine {
            size: checkpoint.size()?,
            checkpoint,
            model,
            tokenizer,
            manager,
            kernels,
            pool,
            context,
            kv,
            dequantize,
            read_as,
            tiles: best.map_or_else(Tiles::default, |best| Tiles(best.tile)),
            grammars: OnceLock::new(),
            sha256: OnceLock::new(),
            tuning: tuning
                .filter(|_| best.is_some() && library.is_none() && gpus.is_empty())
                .map(|tuning| tuning.sha256().to_owned()),
            notices,
            library,
            device: options.device,
            gpus,
        })
    }

    /// Hyper-parameters of the model.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// Tokens of the vocabulary: logits of a row.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.model.embedding.rows
    }

    /// The names that ggml gives the formats of the linear layers, each once.
    #[must_use]
    pub fn weight_formats(&self) -> Vec<&'static str> {
        self.model.weight_formats()
    }

    /// The names of the layouts of the linear layers in memory, each once.
    #[must_use]
    pub fn layouts(&self) -> Vec<&'static str> {
        self.model.layouts()
    }

    /// The format of keys and values.
    #[must_use]
    pub fn kv(&self) -> KvType {
        self.kv
    }

    /// The precision of what attention multiplies.
    #[must_use]
    pub fn attention(&self) -> PrecisionMode {
        self.gpus.first().map_or(PrecisionMode::Fp32, |gpu| gpu.attention())
    }

    /// The format of keys and values, and what computes them if it is not as everywhere: what makes them others for the same text.
    #[must_use]
    pub fn cache_kind(&self) -> String {
        match self.gpus.first().and_then(|gpu| gpu.kind()) {
            None => self.kv.to_string(),
            Some(kind) => format!("{}-{kind}", self.kv),
        }
    }

    /// The model as it lies on disk.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Bytes of the tensors in the model's files, without padding.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Multiply-adds with ternary weights that a token takes: one for each weight.
    #[must_use]
    pub fn ternary_products(&self) -> u64 {
        self.model.ternary_products()
    }

    /// Text to tokens and back.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] where the model file has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        let none = || Error::NoTokenizer { file: self.checkpoint.name().to_owned() };
        self.tokenizer.as_ref().ok_or_else(none)
    }

    /// The tokens of a prompt: the model's first token if it wants one, special tokens that are
    /// written out taken as such. Nothing for an empty prompt.
    ///
    /// # Errors
    ///
    /// As [`Engine::tokenizer`].
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        let tokenizer = self.tokenizer()?;
        Ok(match prompt {
            "" => Vec::new(),
            _ => tokenizer.encode(prompt, Special::PROMPT),
        })
    }

    /// Whether a token ends a text.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.tokenizer.as_ref().is_some_and(|tokenizer| tokenizer.is_end(token))
    }

    /// The instruction sets in use.
    #[must_use]
    pub fn cpu(&self) -> &Cpu {
        self.manager.cpu()
    }

    /// What chose the kernels.
    #[must_use]
    pub fn manager(&self) -> &KernelManager {
        &self.manager
    }

    /// What this model can compute with.
    #[must_use]
    pub fn kernel_capabilities(&self) -> KernelCapabilities {
        KernelCapabilities::new(&self.manager, self.context)
    }

    /// SHA-256 of the measurements in use, if there are any.
    #[must_use]
    pub fn tuning(&self) -> Option<&str> {
        self.tuning.as_deref()
    }

    /// Whether linear layers compute with floating-point weights.
    #[must_use]
    pub fn dequantized(&self) -> bool {
        self.dequantize
    }

    /// How the weights were read, as far as it changes what is computed.
    pub(crate) fn weights_read(&self) -> String {
        self.read_as.map_or_else(|| "as they say".to_owned(), |layout| format!("as {layout}"))
    }

    /// The number of threads in use.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Tokens a sequence can hold.
    #[must_use]
    pub fn context(&self) -> usize {
        self.context
    }

    /// What the user should know about this model and these options.
    #[must_use]
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// [SHA-256 of the model](Checkpoint::sha256). Reads all of it, the first time.
    #[must_use]
    pub fn sha256(&self) -> &str {
        self.sha256.get_or_init(|| self.checkpoint.sha256())
    }

    /// A constraint, made ready: which takes up to some seconds, and no scheduler.
    ///
    /// # Errors
    ///
    /// [`Error::Constraint`] where it is damaged, asks for too much, or cannot be met.
    pub fn compile(&self, constraint: &Constraint) -> Result<Compiled, Error> {
        Ok(Compiled(self.grammars()?.constrain(constraint)?))
    }

    /// What constraints need to know of the vocabulary.
    ///
    /// # Errors
    ///
    /// Where there is no tokenizer, or none that constraints can work with.
    pub(crate) fn grammars(&self) -> Result<&Grammars, Error> {
        let tokenizer = self.tokenizer()?;
        let grammars = self.grammars.get_or_init(|| Grammars::new(tokenizer));
        grammars.as_ref().map_err(|why| Error::Variant {
            file: self.checkpoint.name().to_owned(),
            what: format!("its vocabulary cannot be constrained: {why}"),
        })
    }

    /// Empty sequences that share forward passes.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    pub fn session(&self, sequences: usize) -> Result<Session, Error> {
        self.session_on(0, sequences)
    }

    /// The same on one of the [devices](Engine::devices), by its place there.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`].
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn session_on(&self, replica: usize, sequences: usize) -> Result<Session, Error> {
        Session::new(self, replica, (sequences, u32::MAX as usize))
    }

    /// What computes in place of the backend, if the device is a library: so many sequences.
    pub(crate) fn foreign(&self, sequences: usize) -> Result<Option<Foreign>, Error> {
        self.library.as_ref().map(|library| library.session(sequences)).transpose()
    }

    /// The library that computes, if one does.
    pub(crate) fn library(&self) -> Option<&Library> {
        self.library.as_deref()
    }

    /// Makes sure that [`Session::embed`] can be done.
    ///
    /// # Errors
    ///
    /// [`Error::Device`] where a library computes.
    pub fn can_embed(&self) -> Result<(), Error> {
        match &self.library {
            Some(_) => Err(DeviceError::NO_EMBEDDINGS.into()),
            None => Ok(()),
        }
    }

    /// What computes: the first of the [devices](Engine::devices).
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// All that compute, each with all of the model: one, or several GPUs.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        match &self.gpus[..] {
            [] => vec![self.device],
            gpus => gpus.iter().map(|gpu| gpu.device()).collect(),
        }
    }

    /// The GPUs among the devices, as receipts name them.
    #[must_use]
    pub fn gpus(&self) -> Vec<GpuUsed> {
        self.gpus.iter().map(|gpu| gpu.used()).collect()
    }

    /// What computes on a GPU, if those are the devices, with keys and values of so many sequences in so many blocks at
    /// most.
    pub(crate) fn passes(
        &self,
        replica: usize,
        (sequences, blocks): (usize, usize),
    ) -> Result<Option<Passes>, Error> {
        if self.gpus.is_empty() {
            return Ok(None);
        }
        let gpu = &self.gpus[replica];
        // There all memory is taken at once: no more than all sequences can fill.
        let whole = self.context.div_ceil(KV_BLOCK);
        let blocks = blocks.min(whole.saturating_mul(sequences));
        let (layers, kv) = (self.model.config.layers, (self.kv.format(), blocks));
        let cache = KvCache::new(&self.model.config, (layers, sequences), kv).elsewhere();
        gpu.passes(&self.model, (cache, sequences, self.kv.format())).map(Some)
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// What computes, with keys and values of so many sequences in so many blocks at most.
    pub(crate) fn backend(&self, sequences: usize, blocks: usize) -> CpuBackend {
        let kv = (self.kv.format(), blocks);
        // What a library or a GPU keeps is not here: of it there are only positions.
        let here = self.library.is_none() && self.gpus.is_empty();
        let layers = if here { self.model.config.layers } else { 0 };
        let cache = KvCache::new(&self.model.config, (layers, sequences), kv);
        let (kernels, pool) = (self.kernels.clone(), Arc::clone(&self.pool));
        let input = match (self.model.is_grouped(), self.dequantize) {
            (true, _) => LinearInput::Numbers,
            (false, true) => LinearInput::QuantizedNumbers,
            (false, false) => LinearInput::Quantized,
        };
        CpuBackend::new(kernels, pool, cache, (input, self.tiles))
    }
}

/// The kernels of a run: those of the layers, each with its own, among them.
fn used(
    model: &Model,
    kernels: &Kernels,
    manager: &KernelManager,
) -> Result<Vec<KernelId>, NoKernel> {
    let softmax = manager.select::<SoftmaxFn>(None)?.kernel;
    Ok(model.kernels().chain(kernels.all()).chain([softmax]).map(Kernel::id).collect())
}

/// More threads than any machine has cores: a larger number is a mistake.
pub(crate) const MOST_THREADS: usize = 1024;

/// A pool of as many threads as asked for, or as the process may use physical cores.
fn pool(asked: Option<usize>) -> Result<Pool, Error> {
    let threads = asked.unwrap_or_else(|| Machine::detect().threads());
    let range = || {
        let what = format!("it must be a number from 1 to {MOST_THREADS}");
        io::Error::new(io::ErrorKind::InvalidInput, what)
    };
    let count = NonZeroUsize::new(threads).filter(|count| count.get() <= MOST_THREADS);
    let pool = count.ok_or_else(range).and_then(Pool::new);
    pool.map_err(|source| Error::Threads { threads, source })
}
