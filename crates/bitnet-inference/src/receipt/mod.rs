//! Receipts: what computed a text, how much of it, and how to check that.
//!
//! Results are the same bits on every processor, so whoever has the model can run a receipt again and
//! get the same hashes and the same counts. Without the model, the counts must still be those that the
//! shape of the model makes necessary. What cannot be checked (times, memory, the name of the
//! processor) is a claim, which only the hash of the receipt itself keeps from being changed by
//! accident.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bitnet_gpu::PrecisionMode;
use bitnet_kernels::{Device, limits};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::device_features;
use crate::foreign::Library;
use crate::generate::Generation;
use crate::linear::Linear;
use crate::machine::Machine;
use crate::sample::Sampling;
use crate::schedule::{self, Finish};
use crate::sha256::sha256;
use crate::{Engine, Error, KvType, Options, WeightsRead};

mod launches;
mod passes;
mod verify;

pub use verify::{Check, Verdict, verify};

/// The version of the format.
pub const SCHEMA: u32 = 1;

/// The commit that this program is built from, where that is known.
pub const COMMIT: Option<&str> = option_env!("BITNET_COMMIT");

/// What a run computed, and with what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The version of this format: 1.
    pub schema: u32,
    /// The program.
    pub engine: Program,
    /// The model.
    pub model: Model,
    /// The machine; what it is called is a claim.
    pub machine: MachineUsed,
    /// What was asked for.
    pub request: Request,
    /// What came out.
    pub result: Outcome,
    /// Calls of each kernel, by its id, counted where it is called (those of a GPU where they are enqueued, each as often as
    /// what it was recorded in): products by forward passes, the
    /// others by rows, attention by rows and heads, exact logits and what 2 more bits refine by rows of
    /// the output layer.
    #[serde(deserialize_with = "distinct")]
    pub kernels: BTreeMap<String, u64>,
    /// Bytes of weights read.
    pub read: Read,
    /// Where the time went: claims.
    pub timings: TimingsTaken,
    /// The most memory that the process had, in bytes: a claim.
    pub peak_memory_bytes: Option<u64>,
    /// Whether `BITNET_GPU_FAKE` was set: then the receipt never verifies.
    pub faked: bool,
    /// Whether linear layers computed with floating-point weights.
    pub dequantized: bool,
    /// SHA-256 of all the rest as compact JSON with sorted keys.
    pub sha256: String,
}

/// The program that made a receipt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// `bitnet`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The commit it was built from, where that is known.
    pub commit: Option<String>,
}

/// The model of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// SHA-256 of the file.
    pub sha256: String,
    /// As the file calls it.
    pub architecture: String,
    /// The formats of the linear layers in the file.
    pub types: Vec<String>,
    /// Transformer layers.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
    /// What gates the feed-forward network.
    pub activation: String,
    /// The matrices of a layer.
    pub matrices: Vec<MatrixUsed>,
}

/// A ternary matrix of each layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MatrixUsed {
    /// Output features.
    pub rows: u64,
    /// Input features.
    pub cols: u64,
    /// How it is kept in memory.
    pub layout: String,
    /// The kernel that multiplies it by one row.
    pub gemv: String,
    /// The kernel that multiplies it by several.
    pub gemm: String,
}

/// What a run used of a machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MachineUsed {
    /// What computed: `cpu`, `cuda:0` or `llama`.
    pub device: String,
    /// The library, where one computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library: Option<LibraryUsed>,
    /// The GPU, where one computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuUsed>,
    /// The model of the processor.
    pub cpu: String,
    /// Its architecture.
    pub architecture: String,
    /// The instruction sets that were in use.
    pub isas: Vec<String>,
    /// Threads.
    pub threads: u64,
    /// SHA-256 of the measurements that chose kernels, if there were any.
    pub tuning: Option<String>,
}

/// A library of another engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LibraryUsed {
    /// The name of its file.
    pub file: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// A GPU, and what ran on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GpuUsed {
    /// What it is called.
    pub name: String,
    /// What its driver knows it by: 16 bytes in hexadecimal digits.
    pub uuid: String,
    /// Its generation: `9.0` is Hopper.
    pub compute_capability: String,
    /// The version of CUDA of its driver.
    pub driver: String,
    /// The devices that the kernels were compiled for: `sm_80`.
    pub target: String,
    /// SHA-256 of the text of the kernels, which the driver has compiled.
    pub ptx_sha256: String,
    /// The precision of what attention multiplied: with `fp32`, results are those of every processor.
    pub attention: String,
    /// Passes that were begun before their tokens were known, and dropped: what they launched is counted nowhere else.
    pub dropped_passes: u64,
}

/// What was asked for: all that the result depends on, beside the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most.
    pub limit: u64,
    /// Tokens of context.
    pub context: u64,
    /// The format of keys and values.
    pub kv: String,
    /// How tokens were drawn.
    pub sampler: Sampling,
    /// Strings that end the text.
    pub stop: Vec<String>,
    /// Whether tokens that end a text were never drawn.
    pub ignore_end: bool,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Tokens generated.
    pub generated: u64,
    /// Tokens run: those of the prompt, and generated ones.
    pub positions: u64,
    /// `stop`, `length` or `cancelled`.
    pub finish: String,
    /// SHA-256 of the generated tokens, four bytes each, little-endian.
    pub tokens_sha256: String,
    /// SHA-256 of all logits after the last token that was run, four bytes each, little-endian;
    /// nothing where the prompt was not run to its end.
    pub logits_sha256: Option<String>,
}

/// Bytes of weights read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// For the prompt.
    pub prompt: WeightsRead,
    /// For the tokens after it.
    pub decode: WeightsRead,
    /// What the machine reads at best, in GB/s, measured after the run: a claim.
    pub bandwidth_gbps: Option<f64>,
    /// The share of that which generation had.
    pub decode_share: Option<f64>,
}

/// Where the time of a run went, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TimingsTaken {
    /// To load the model.
    pub load_ms: f64,
    /// From the start to the logits after the prompt.
    pub prompt_ms: f64,
    /// From the start to the first token.
    pub first_token_ms: f64,
    /// From the first token to the last.
    pub decode_ms: f64,
}

/// What the engine cannot know of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Around {
    /// To load the model.
    pub load: Duration,
    /// The most memory that the process had, in bytes.
    pub peak_memory: Option<u64>,
    /// What [`bandwidth`] measured, if it did.
    pub bandwidth: Option<f64>,
}

impl Receipt {
    /// Of a text that was generated. Reads the whole model file, and computes all logits after the last
    /// token.
    ///
    /// # Errors
    ///
    /// [`Error::NoReceipt`] where the calls of kernels cannot be told from the request.
    pub fn new(
        engine: &Engine,
        generation: &mut Generation<'_>,
        around: Around,
    ) -> Result<Receipt, Error> {
        let request = Request::new(engine, generation)?;
        // Before the logits, which are no part of the run.
        let (kernels, [prompt, decode]) = (kernels(generation), generation.read());
        let result = Outcome::new(generation)?;
        let timings = generation.timings();
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        let mut receipt = Receipt {
            schema: SCHEMA,
            engine: Program {
                name: "bitnet".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                commit: COMMIT.map(str::to_owned),
            },
            model: Model::new(engine, generation.replica()),
            machine: MachineUsed::new(engine, generation.replica()),
            request,
            result,
            kernels,
            read: Read {
                prompt,
                decode,
                bandwidth_gbps: around.bandwidth,
                decode_share: around.bandwidth.and_then(|b| share(decode, ms(timings.decode), b)),
            },
            timings: TimingsTaken {
                load_ms: ms(around.load),
                prompt_ms: ms(timings.prompt),
                first_token_ms: ms(timings.first_token),
                decode_ms: ms(timings.decode),
            },
            peak_memory_bytes: around.peak_memory,
            faked: device_features::gpu_faked(),
            dequantized: engine.dequantized(),
            sha256: String::new(),
        };
        if let Some(gpu) = &mut receipt.machine.gpu {
            gpu.dropped_passes = generation.dropped();
        }
        receipt.sha256 = receipt.digest();
        Ok(receipt)
    }

    /// SHA-256 of all but the field itself.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut rest = Receipt { sha256: String::new(), ..self.clone() }.written();
        rest.sort_all_objects();
        sha256(rest.to_string())
    }

    /// What a file of it holds: numbers as they are written there.
    fn written(&self) -> Value {
        // Numbers, texts, lists and objects: there is nothing that JSON could not hold.
        let text = serde_json::to_string(self).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Where it is not JSON, or has other fields than a receipt of this version, or in other form.
    pub fn read(text: &str) -> Result<Receipt, String> {
        let found: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        match &found["schema"] {
            Value::Number(version) if version.as_u64() != Some(u64::from(SCHEMA)) => {
                return Err(format!("it is of version {version}, and this program knows {SCHEMA}"));
            }
            _ => {}
        }
        let receipt: Receipt = serde_json::from_str(text).map_err(|e| e.to_string())?;
        // Lists in place of objects, and fields left out, are not what the schema says.
        if receipt.written() != found {
            return Err("it is not written as the schema says".to_owned());
        }
        Ok(receipt)
    }

    /// The options that give the same result on any machine; where a library computed, with the same library, and where attention on a GPU
    /// was not in single precision, on such a GPU.
    ///
    /// # Errors
    ///
    /// Where the format of keys and values is unknown, or the precision.
    pub fn options(&self) -> Result<Options, String> {
        let gpu_precision = match (&self.machine.library, &self.machine.gpu) {
            (None, Some(gpu)) => launches::attention(gpu)?,
            _ => PrecisionMode::Fp32,
        };
        Ok(Options {
            context: Some(usize::try_from(self.request.context).unwrap_or(usize::MAX)),
            kv: self.request.kv.parse::<KvType>()?,
            device: match gpu_precision {
                _ if self.machine.library.is_some() => Device::Llama,
                PrecisionMode::Fp32 => Device::Cpu,
                _ => Device::Cuda(0),
            },
            gpu_precision,
            // The order of sums depends on them there.
            threads: self.machine.library.is_some().then_some(self.machine.threads as usize),
            dequantize: self.dequantized,
            ..Options::default()
        })
    }
}

/// A map none of whose keys is there twice.
fn distinct<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, u64>, D::Error> {
    struct Distinct;

    impl<'de> Visitor<'de> for Distinct {
        type Value = BTreeMap<String, u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object, each key once")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = from.next_entry::<String, u64>()? {
                if map.insert(key.clone(), value).is_some() {
                    return Err(A::Error::custom(format!("{key} is there twice")));
                }
            }
            Ok(map)
        }
    }

    from.deserialize_map(Distinct)
}

/// Calls of each kernel, by its id: those of the forward pass and those of the sampler. Of a library, passes.
#[must_use]
pub fn kernels(generation: &Generation<'_>) -> BTreeMap<String, u64> {
    let mut kernels = BTreeMap::new();
    for (kernel, calls) in generation.calls().flat_map(|calls| calls.iter()) {
        *kernels.entry(kernel.to_string()).or_default() += calls;
    }
    kernels.extend(generation.launches().into_iter().map(|(name, calls)| (name.to_owned(), calls)));
    kernels.extend(generation.foreign_calls().map(|(name, passes)| (name.to_owned(), passes)));
    kernels
}

/// Whether there can be a receipt of what is asked for.
///
/// # Errors
///
/// [`Error::NoReceipt`].
pub fn check(request: &schedule::Request) -> Result<(), Error> {
    let reasons = [
        (request.draft > 0, "tokens that were guessed"),
        (request.constraint.is_some(), "a constraint"),
        (request.logprobs.is_some(), "log-probabilities"),
    ];
    match reasons.into_iter().find(|(is_so, _)| *is_so) {
        Some((_, what)) => Err(Error::NoReceipt { what }),
        None => Ok(()),
    }
}

impl Request {
    fn new(engine: &Engine, generation: &Generation<'_>) -> Result<Request, Error> {
        let schedule::Request { prompt, limit, sampling, stop, .. } = generation.request().clone();
        check(generation.request())?;
        if generation.usage().cached > 0 {
            return Err(Error::NoReceipt { what: "keys and values of an earlier run" });
        }
        Ok(Request {
            prompt,
            limit: limit as u64,
            context: engine.context() as u64,
            kv: engine.kv().to_string(),
            sampler: sampling,
            stop,
            ignore_end: generation.request().ignore_end,
        })
    }

    /// What to ask for to have the same again.
    fn again(&self) -> schedule::Request {
        schedule::Request {
            prompt: self.prompt.clone(),
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            sampling: self.sampler.clone(),
            stop: self.stop.clone(),
            ignore_end: self.ignore_end,
            ..schedule::Request::default()
        }
    }
}

impl Outcome {
    fn new(generation: &mut Generation<'_>) -> Result<Outcome, Error> {
        let logits = generation.last_logits()?;
        let logits_sha256 = logits.map(|x| sha256(bytes(x.iter().map(|x| x.to_le_bytes()))));
        let tokens = generation.generated();
        Ok(Outcome {
            generated: tokens.len() as u64,
            positions: generation.usage().positions as u64,
            finish: generation.finish().unwrap_or(Finish::Cancelled).name().to_owned(),
            tokens_sha256: sha256(bytes(tokens.iter().map(|id| id.to_le_bytes()))),
            logits_sha256,
        })
    }
}

impl Model {
    /// As it was on one of the devices.
    fn new(engine: &Engine, replica: usize) -> Model {
        let config = engine.config();
        let matrix = |linear: &Linear| {
            let (rows, cols) = linear.shape();
            let layout = linear.layout().to_string();
            let [gemv, gemm] = linear.kernel_ids(replica);
            MatrixUsed { rows: rows as u64, cols: cols as u64, layout, gemv, gemm }
        };
        Model {
            sha256: engine.sha256().to_owned(),
            architecture: config.architecture.clone(),
            types: engine.weight_formats().into_iter().map(str::to_owned).collect(),
            layers: config.layers as u64,
            heads: config.heads as u64,
            vocabulary: engine.vocabulary() as u64,
            activation: config.activation.to_string(),
            // What a library makes of them nobody knows.
            matrices: match engine.library() {
                Some(_) => Vec::new(),
                None => engine.model.block().into_iter().map(matrix).collect(),
            },
        }
    }
}

impl MachineUsed {
    /// With the one of the devices that computed.
    fn new(engine: &Engine, replica: usize) -> MachineUsed {
        let Machine { cpu, architecture, .. } = Machine::detect();
        MachineUsed {
            device: engine.devices()[replica].to_string(),
            library: engine
                .library()
                .map(Library::file)
                .map(|(file, sha256)| LibraryUsed { file, sha256: sha256.to_owned() }),
            gpu: engine.gpus().into_iter().nth(replica),
            cpu,
            architecture,
            isas: engine.cpu().isas().iter().map(ToString::to_string).collect(),
            threads: engine.threads() as u64,
            tuning: engine.tuning().map(str::to_owned),
        }
    }
}

/// What the machine reads of its memory at best, in GB/s, with the threads of `engine`. Takes some
/// tenths of a second and 512 MiB.
///
/// # Errors
///
/// [`Error::Memory`].
pub fn bandwidth(engine: &Engine) -> Result<f64, Error> {
    const ROUNDS: usize = 4;
    let rates = limits::read_rates(engine.manager(), engine.pool(), limits::STREAMED, ROUNDS)?;
    Ok(limits::median(&rates))
}

/// The share of the bandwidth that reading weights had.
fn share(read: WeightsRead, ms: f64, bandwidth: f64) -> Option<f64> {
    let rate = (read.linear as f64 + read.head as f64) / ms / 1e6;
    (ms > 0.0 && bandwidth > 0.0 && rate > 0.0).then(|| rate / bandwidth)
}

/// Numbers of four bytes, one after another.
fn bytes(numbers: impl Iterator<Item = [u8; 4]>) -> Vec<u8> {
    numbers.flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::{env, fs};

    use super::*;

    /// `BITNET_WRITE_SCHEMA=1` writes it.
    #[test]
    fn the_schema_in_the_documentation_is_that_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("../../docs/reference/receipt.schema.json");
        let schema = serde_json::to_string_pretty(&schemars::schema_for!(Receipt)).unwrap() + "\n";
        if env::var_os("BITNET_WRITE_SCHEMA").is_some() {
            fs::write(&path, &schema).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap();
        assert!(found.lines().eq(schema.lines()), "run the test with BITNET_WRITE_SCHEMA=1");
    }
}
