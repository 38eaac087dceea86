//! What can go wrong, said so that the reader knows what to do next.

use std::fmt;
use std::io;
use std::path::PathBuf;

use bitnet_kernels::NoKernel;
use bitnet_kernels::format::FormatError;
use bitnet_kernels::isa::MissingIsa;
use bitnet_kernels::limits::LimitError;
use bitnet_kernels::manager::{Choice, PreferenceError, Reason};

use crate::chat::ChatError;
use crate::device_features::DeviceError;
use crate::tokenizer::TokenizerError;
use crate::{Config, Layout, ReadAs};

/// Why a model did not load or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The GGUF file is damaged or not one.
    #[error(transparent)]
    Gguf(#[from] bitnet_gguf::Error),
    /// The path is a folder without a model.
    #[error("{}: there is no model in this folder: {what}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What to do.
        what: String,
    },
    /// A file of a model's folder that cannot be read.
    #[error("{file}: {source}")]
    File {
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A file of a model's folder that should be JSON.
    #[error("{file}: {source}; the file is damaged: download it again")]
    Json {
        /// The file.
        file: String,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A file of weights that is damaged, or not one.
    #[error("{file}: {what}")]
    Safetensors {
        /// The file.
        file: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// The file's architecture is not one this engine knows.
    #[error(
        "{file}: architecture `{found}` is not supported; supported are {}",
        Config::ARCHITECTURES.join(", ")
    )]
    Architecture {
        /// The file.
        file: String,
        /// Its `general.architecture`.
        found: String,
    },
    /// The file is of a known architecture, in a variant that would give wrong results.
    #[error("{file}: {what}")]
    Variant {
        /// The file.
        file: String,
        /// What is different, and what to do.
        what: String,
    },
    /// A number in the file's metadata makes no sense.
    #[error("{file}: metadata `{key}` is {value}: {expected}; the file is damaged or mislabelled")]
    Config {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What it says.
        value: String,
        /// What would make sense.
        expected: String,
    },
    /// A tensor that the architecture needs is not in the file.
    #[error(
        "{file}: tensor `{tensor}` is missing; the file is incomplete or mislabelled: download it, or \
         convert the model, again"
    )]
    MissingTensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that this engine would have to ignore.
    #[error(
        "{file}: tensor `{tensor}` at byte {offset} is not part of architecture {architecture}; \
         running without it would give wrong results"
    )]
    UnknownTensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Where its data starts.
        offset: u64,
        /// The file's architecture.
        architecture: String,
    },
    /// A tensor of another shape than the metadata says.
    #[error(
        "{file}: tensor `{tensor}` at byte {offset} has shape {found:?}, the metadata asks for \
         {expected:?}; the file is damaged or mislabelled"
    )]
    Shape {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Where its data starts.
        offset: u64,
        /// Its dimensions, fastest first.
        found: Vec<u64>,
        /// What they should be.
        expected: Vec<u64>,
    },
    /// A tensor of a type that cannot be used in its place.
    #[error(
        "{file}: tensor `{tensor}` at byte {offset} has type {found}, which is not supported \
         here; supported are {expected}: convert the model"
    )]
    TensorType {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Where its data starts.
        offset: u64,
        /// Its type.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The bytes of a tensor are not of its type.
    #[error("{file}: tensor `{tensor}`, which starts at byte {offset}: {source}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Where its data starts.
        offset: u64,
        /// What is wrong; offsets count from there.
        source: FormatError,
    },
    /// A weight that is no number.
    #[error(
        "{file}: tensor `{tensor}`, which starts at byte {offset}: element {index} is {value}; \
         the file is damaged"
    )]
    NotFiniteWeight {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Where its data starts.
        offset: u64,
        /// Which element.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// The file's tokenizer is unusable.
    #[error("{file}: tokenizer: {source}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What is wrong.
        source: TokenizerError,
    },
    /// The file has no tokenizer, which text needs.
    #[error(
        "{file}: the model has no tokenizer (metadata `tokenizer.ggml.model` of GGUF, or \
         tokenizer.json): it can only run token ids"
    )]
    NoTokenizer {
        /// The file.
        file: String,
    },
    /// Messages did not become a prompt.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A synthetic model whose numbers do not fit each other.
    #[error("a synthetic model of shape {shape} cannot be made: {what}")]
    Synthetic {
        /// Name of the shape.
        shape: String,
        /// What does not fit.
        what: String,
    },
    /// A synthetic model with a matrix that the chosen format cannot hold.
    #[error(
        "shape {shape} cannot be written in this format: tensor `{tensor}` has {source}; choose \
         another format"
    )]
    ShapeFormat {
        /// Name of the shape.
        shape: String,
        /// The matrix.
        tensor: String,
        /// Why not.
        source: FormatError,
    },
    /// A tensor that cannot be in the format it was to be converted to.
    #[error(
        "{file}: tensor `{tensor}` at byte {offset}: {source}; choose another format (hf holds most shapes)"
    )]
    Unsuitable {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Where its data starts.
        offset: u64,
        /// Why not.
        source: FormatError,
    },
    /// Something has the name that a file was to have.
    #[error("{} is there already: {advice}", path.display())]
    Exists {
        /// The name.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
    },
    /// A file that cannot be written.
    #[error("{file}: cannot write: {source}")]
    Output {
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// A model that was written holds something else than the one that was converted; it was removed.
    #[error("{file}: what was written is not the same model: {what}; nothing was kept")]
    Unequal {
        /// The file.
        file: String,
        /// What is different.
        what: String,
    },
    /// The caller ended what was going on.
    #[error("stopped")]
    Stopped,
    /// No kernel for an operation and a weight format.
    #[error(transparent)]
    NoCompatibleKernel(#[from] NoKernel),
    /// No kernels for a linear layer.
    #[error("{0}; --dequantize computes with floating-point weights instead, slowly")]
    UnsupportedKernelConfiguration(NoKernel),
    /// Kernels that the user prefers and that cannot be used.
    #[error("{0}")]
    Preference(#[from] PreferenceError),
    /// Activations that do not suit a layer.
    #[error("{x} numbers in and {y} out are not rows of {inputs} and as many of {outputs}")]
    Activations {
        /// Numbers that go in.
        x: usize,
        /// Numbers that come out.
        y: usize,
        /// Features that go in.
        inputs: usize,
        /// Features that come out.
        outputs: usize,
    },
    /// The processor lacks the instruction set that was asked for.
    #[error("{0}")]
    Isa(#[from] MissingIsa),
    /// A file of measurements that cannot be used.
    #[error(
        "{}: {what}; measure again with `bitnet tune`, or remove the file", path.display()
    )]
    Tuning {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A device that cannot be used.
    #[error("{0}")]
    Device(#[from] DeviceError),
    /// A GPU that fails, or is none to compute with.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Gpu(#[from] bitnet_gpu::cuda::Error),
    /// A library of a C++ engine that fails, or is none.
    #[cfg(feature = "ffi")]
    #[error(transparent)]
    Library(#[from] bitnet_ffi::Error),
    /// No threads, or none to be had.
    #[error("cannot use {threads} threads: {source}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// Why not.
        source: io::Error,
    },
    /// Nothing to continue.
    #[error("the prompt is empty: give some text to continue")]
    EmptyPrompt,
    /// More tokens than the context holds.
    #[error(
        "{tokens} tokens do not fit the context of {context}: \
         shorten the prompt, or raise -c up to what the model was trained for"
    )]
    Context {
        /// Tokens needed.
        tokens: usize,
        /// Tokens there is room for.
        context: usize,
    },
    /// A scheduler that could not do anything, or more than there is.
    #[error("{value} {what}: it must be from 1 to {most}")]
    Capacity {
        /// What was asked for.
        what: &'static str,
        /// How much.
        value: usize,
        /// The most it can be.
        most: usize,
    },
    /// Keys and values in a file that are of no use.
    #[error("{file}: {what}")]
    PromptCache {
        /// The file.
        file: String,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// A forward pass of many requests, for each of them.
    #[error("a forward pass failed: {what}")]
    Pass {
        /// Why.
        what: String,
    },
    /// A run that a receipt could not be checked of.
    #[error("there are no receipts of runs with {what}: leave that out, or the receipt")]
    NoReceipt {
        /// What keeps it from being checked.
        what: &'static str,
    },
    /// A string without characters, which would end every text at once.
    #[error("a stop string is empty: give one with characters, or none")]
    StopString,
    /// What a text must be is damaged, cannot be met, or takes too much to find out.
    #[error("the {what} cannot be used: {why}")]
    Constraint {
        /// What it is.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A token id that the vocabulary does not have.
    #[error("token id {id} is not in the vocabulary of {vocabulary} tokens")]
    Token {
        /// The id.
        id: u32,
        /// The size of the vocabulary.
        vocabulary: usize,
    },
    /// Memory that the system does not give.
    #[error("not enough memory for {bytes} bytes of {what}: use a smaller context (-c)")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: usize,
    },
    /// Logits that are no numbers: the weights are damaged.
    #[error("the model gave logits that are not finite; its weights are damaged")]
    NotFinite,
    /// A text that cannot be scored in the windows that were asked for.
    #[error("no perplexity: {what}")]
    Perplexity {
        /// What does not fit, and what to do.
        what: String,
    },
    /// Log probabilities that a model cannot be compared with.
    #[error("{file}: {what}")]
    Base {
        /// The file.
        file: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A sampling setting out of its range.
    #[error("sampling setting {name} = {value} is out of range: it must be {expected}")]
    Sampling {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: f32,
        /// What it may be.
        expected: &'static str,
    },
}

impl Error {
    /// Whether a device failed, that would fail with anything else as well.
    pub(crate) fn is_of_driver(&self) -> bool {
        match self {
            #[cfg(feature = "cuda")]
            Error::Gpu(bitnet_gpu::cuda::Error::Driver { .. }) => true,
            _ => false,
        }
    }
}

impl From<LimitError> for Error {
    fn from(error: LimitError) -> Error {
        match error {
            LimitError::Memory { bytes } => Error::Memory { what: "what is measured", bytes },
            LimitError::Kernel(missing) => missing.into(),
        }
    }
}

/// Something the user should know that is no error: said once, by whoever shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The file does not say how its tokenizer splits text.
    NoSplitter {
        /// The file.
        file: String,
        /// The name of the splitter that is used.
        used: &'static str,
    },
    /// The chat template of the file is not the one that the model was trained with.
    ChatTemplate {
        /// The file.
        file: String,
    },
    /// Settings of a model of which nothing is known.
    Settings {
        /// The file.
        file: String,
        /// Their names.
        names: Vec<String>,
    },
    /// A tokenizer that is not quite the same in another format of files.
    Tokenizer {
        /// The file.
        file: String,
        /// What is different.
        what: &'static str,
    },
    /// Metadata that another format of files has no place for.
    LeftOut {
        /// The file.
        file: String,
        /// The keys.
        names: Vec<String>,
    },
    /// Tiles of TL1 or TL2 that nobody has said.
    Tiles {
        /// The file.
        file: String,
    },
    /// A layout that the user has said, of which the model has no weights.
    ReadAs {
        /// What was said.
        layout: ReadAs,
    },
    /// Measurements of another machine or version, which are not used.
    Tuning {
        /// The file.
        path: PathBuf,
        /// Of what they are.
        what: String,
    },
    /// Kernels that the user prefers, and of which nothing comes.
    Preference {
        /// What was named.
        choice: Choice,
        /// Why not.
        reason: Reason,
    },
    /// A layout of ternary weights for layers that are computed with floating-point weights.
    Layout {
        /// What was asked for.
        layout: Layout,
    },
    /// A model without a chat template, which only goes on with what is written.
    NoChatTemplate,
    /// Linear layers compute with floating-point weights.
    Dequantized,
    /// Linear layers were to compute with floating-point weights, and do so in any case.
    Numbers,
    /// Something of a GPU that makes it slower than it could be.
    Gpu {
        /// What.
        what: String,
    },
    /// A greater context was asked for than the model was trained for.
    Context {
        /// What was asked for.
        asked: usize,
        /// What it is.
        used: usize,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::NoSplitter { file, used } => {
                write!(f, "{file}: tokenizer.ggml.pre is missing: splitting text as `{used}` does")
            }
            Notice::ChatTemplate { file } => write!(
                f,
                "{file}: its chat template is not the one that BitNet b1.58 2B-4T was trained with: using \
                 that one; --chat-template takes another"
            ),
            Notice::Gpu { what } => write!(f, "{what}: another version of the driver may do better"),
            Notice::NoChatTemplate => f.write_str(
                "the model has no chat template: it goes on with what you write. --chat-template gives one.",
            ),
            Notice::Settings { file, names } => write!(
                f,
                "{file}: nothing is known of {}: results are wrong if that changes what the model \
                 computes",
                names.join(", ")
            ),
                        Notice::Tokenizer { file, what } => write!(
                f,
                "{file}: its tokenizer cannot be written exactly: {what}: some texts become other \
                 tokens"
            ),
                        Notice::LeftOut { file, names } => {
                write!(f, "{file}: folders have no place for {}", names.join(", "))
            }
            Notice::Tiles { file } => write!(
                f,
                "{file}: TL1 and TL2 do not say how they are cut into tiles: taking what bitnet.cpp \
                 has for each shape; if answers make no sense, say it (--read-as tl1:BM,BK,bm)"
            ),
            Notice::ReadAs { layout } => {
                write!(f, "--read-as {layout} has no effect: the model has no such weights")
            }
            Notice::Tuning { path, what } => {
                write!(f, "{}: {what}: not used; measure again with `bitnet tune`", path.display())
            }
            Notice::Preference { choice, reason } => {
                write!(f, "--kernel {choice} has no effect: {reason}")
            }
            Notice::Layout { layout } => {
                write!(f, "--layout {layout} has no effect: no layer has ternary weights")
            }
            Notice::Dequantized => f.write_str(
                "--dequantize: linear layers compute with floating-point weights, slowly and in \
                 eight times the memory; receipts say so",
            ),
            Notice::Numbers => f.write_str(
                "--dequantize has no effect: the weights have a scale for each group, and are computed \
                 with as numbers",
            ),
            Notice::Context { asked, used } => write!(
                f,
                "a context of {asked} is more than the {used} tokens the model was trained for: \
                 using {used}"
            ),
        }
    }
}
