//! Architectures: one file each, with the weights of a block and what it does with them, from top to
//! bottom. What comes before the blocks and after them is here.

mod bitnet;
mod gemma3;
mod linears;
mod llama;
mod projection;
mod qwen3;

use bitnet_kernels::Kernel;

use crate::backend::{Backend, Heads, Norm, Row};
use crate::linear::Linear;
use crate::matrix::FloatMatrix;
use crate::source::Loader;
use crate::state::Scratch;
use crate::{Config, Error, Notice};

/// The weights of a model.
#[derive(Debug)]
pub(crate) struct Model {
    /// Hyper-parameters.
    pub(crate) config: Config,
    /// Embeddings `[vocabulary, hidden]`.
    pub(crate) embedding: FloatMatrix,
    /// The output layer `[vocabulary, hidden]`, if it is not the embeddings.
    head: Option<FloatMatrix>,
    /// The transformer blocks.
    blocks: Vec<Block>,
    /// Final norm `[hidden]`.
    output_norm: Vec<f32>,
    /// Rotary angle of a step in position, for each pair of a head `[head size / 2]`.
    frequencies: Vec<f32>,
    /// The same for local layers; nothing if there are none.
    local_frequencies: Vec<f32>,
}

/// A transformer block.
#[derive(Debug)]
enum Block {
    BitNet(bitnet::Block),
    Llama(llama::Block),
    Qwen3(qwen3::Block),
    Gemma3(gemma3::Block),
}

impl Model {
    /// Takes the weights of a model out of its checkpoint, and says what the user should know about them.
    ///
    /// # Errors
    ///
    /// Where it is not a complete and sound model of its architecture.
    pub(crate) fn load(mut loader: Loader<'_>) -> Result<(Model, Vec<Notice>), Error> {
        let config = loader.config();
        let (embedding, head) = match config.architecture.as_str() {
            "llama" | "qwen3" if loader.has("output.weight") => {
                (loader.embedding()?, Some(loader.output("output.weight")?))
            }
            _ => (loader.output("token_embd.weight")?, None),
        };
        if head.is_none() {
            loader.tied(&embedding)?;
        }
        let block = |index| match config.architecture.as_str() {
            "llama" => llama::Block::load(&mut loader, index).map(Block::Llama),
            "qwen3" => qwen3::Block::load(&mut loader, index).map(Block::Qwen3),
            "gemma3" => gemma3::Block::load(&mut loader, index).map(Block::Gemma3),
            _ => bitnet::Block::load(&mut loader, index).map(Block::BitNet),
        };
        let model = Model {
            embedding,
            head,
            blocks: (0..config.layers).map(block).collect::<Result<_, _>>()?,
            output_norm: loader.norm("output_norm.weight", config.hidden)?,
            frequencies: loader.frequencies(config.rope_base)?,
            local_frequencies: match config.local {
                Some(local) => loader.frequencies(local.rope_base)?,
                None => Vec::new(),
            },
            config: config.clone(),
        };
        let grouped = model.linears().filter(|linear| linear.is_grouped()).count();
        if grouped > 0 && grouped < model.linears().count() {
            let what = format!(
                "{grouped} linear layers have a scale for each group of weights, and others one for \
                 all: models that are trained in both ways are not known"
            );
            return Err(Error::Variant { file: loader.file().to_owned(), what });
        }
        Ok((model, loader.finish()?))
    }

    /// The output layer `[vocabulary, hidden]`.
    pub(crate) fn output(&self) -> &FloatMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The names of the formats of the linear layers, each once.
    #[must_use]
    pub(crate) fn weight_formats(&self) -> Vec<&'static str> {
        self.names(|linear| linear.format().ggml_name())
    }

    /// The names of the layouts of the linear layers in memory, each once.
    #[must_use]
    pub(crate) fn layouts(&self) -> Vec<&'static str> {
        self.names(Linear::layout)
    }

    fn names(&self, of: impl Fn(&Linear) -> &'static str) -> Vec<&'static str> {
        let mut names: Vec<_> = self.linears().map(of).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Whether linear layers have weights with a scale for each group, and take activations as they are.
    pub(crate) fn is_grouped(&self) -> bool {
        self.linears().all(Linear::is_grouped)
    }

    /// The number of weights of linear layers.
    #[must_use]
    pub(crate) fn ternary_products(&self) -> u64 {
        self.linears().map(Linear::shape).map(|(rows, cols)| (rows * cols) as u64).sum()
    }

    /// The kernels that it is bound to.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = &'static Kernel> {
        self.linears().filter_map(Linear::kernels).flatten().chain(self.output().kernels())
    }

    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.blocks.iter().flat_map(Block::linears)
    }

    /// The matrices of a block: all have the same shapes.
    pub(crate) fn block(&self) -> Vec<&Linear> {
        self.blocks.first().map_or_else(Vec::new, Block::linears)
    }
}

impl Block {
    fn linears(&self) -> Vec<&Linear> {
        match self {
            Block::BitNet(block) => block.linears().to_vec(),
            Block::Llama(block) => block.linears().to_vec(),
            Block::Qwen3(block) => block.linears().to_vec(),
            Block::Gemma3(block) => block.linears().to_vec(),
        }
    }
}

/// How often a block calls what depends on its architecture, for each row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calls {
    pub(crate) quantize: u64,
    pub(crate) norm: u64,
    /// Whether one operation gates, and what comes of a product is added as it comes: else there are operations for that.
    pub(crate) fused: bool,
}

/// The calls of the blocks of an architecture, in each of the forms it has; none if there is no
/// architecture of this name.
pub(crate) fn calls(architecture: &str) -> &'static [Calls] {
    match architecture {
        "llama" => &[llama::CALLS],
        "qwen3" => &qwen3::CALLS,
        "gemma3" => &gemma3::CALLS,
        known if Config::ARCHITECTURES.contains(&known) => &[bitnet::CALLS],
        _ => &[],
    }
}

/// Runs `rows` through the model and adds them to the key-value cache.
///
/// Leaves what the output layer takes of the rows in `outputs`, one after another, in the scratch. Shows the residual
/// stream behind each block to `see`.
/// The cache must have room and the scratch be large enough for all rows; rows of one sequence must
/// be in order and follow what the cache has.
pub(crate) fn forward<B: Backend>(
    b: &mut B,
    model: &Model,
    s: &mut Scratch<B>,
    (rows, outputs): (&[Row], &[usize]),
    mut see: impl FnMut(usize, &B::Floats),
) {
    b.embed(&model.embedding, rows, model.config.embedding_scale(), &mut s.x);
    let [angles, local_angles] = &mut s.angles;
    b.angles(&model.frequencies, rows, angles);
    if !model.local_frequencies.is_empty() {
        b.angles(&model.local_frequencies, rows, local_angles);
    }
    for (index, block) in model.blocks.iter().enumerate() {
        let at = Place { config: &model.config, index, rows };
        match block {
            Block::BitNet(block) => block.forward(b, s, at),
            Block::Llama(block) => block.forward(b, s, at),
            Block::Qwen3(block) => block.forward(b, s, at),
            Block::Gemma3(block) => block.forward(b, s, at),
        }
        see(index, &s.x);
    }
    let norm = Norm { weight: &model.output_norm, eps: model.config.eps };
    b.norm_rows(&s.x, norm, outputs, &mut s.last);
}

/// Where a block is, and on what it works.
#[derive(Clone, Copy)]
struct Place<'a> {
    config: &'a Config,
    /// The number of the block.
    index: usize,
    rows: &'a [Row],
}

impl<'a> Place<'a> {
    /// A norm with these weights.
    fn norm(self, weight: &'a [f32]) -> Norm<'a> {
        Norm { weight, eps: self.config.eps }
    }

    /// How attention is divided.
    fn heads(self) -> Heads {
        let c = self.config;
        Heads { size: c.head_size, group: c.heads / c.kv_heads }
    }
}
