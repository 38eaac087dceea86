//! Models of random weights in the shapes of published ones: to measure speed with, which does not
//! depend on what the weights are.
//!
//! A [`Synthetic`] model is a whole file: ternary matrices in which -1, 0 and 1 are equally likely,
//! normally distributed embeddings, norms near 1, a tokenizer. Its scales keep activations and
//! logits at the size they have in a trained model. The same seed gives the same bytes on every
//! machine, and the same weights in every ternary format.

mod random;
mod vocabulary;

use std::io::Write;

use bitnet_gguf::{TensorType, Writer};
use bitnet_kernels::Format;
use bitnet_kernels::format::{self, FormatError};

use crate::Error;
use random::{Normals, Seeds, ternary};

/// The hyper-parameters of a BitNet b1.58 model with sub-norms, whose output layer is the embedding
/// table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// What it is called.
    pub name: &'static str,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward network.
    pub ffn: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Query heads; they divide `hidden`.
    pub heads: usize,
    /// Key and value heads; they divide `heads`.
    pub kv_heads: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Tokens of context.
    pub context: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
}

/// Published shapes: those of 1bitLLM/bitnet_b1_58-large and -3B, of
/// microsoft/bitnet-b1.58-2B-4T, and of HF1BitLLM/Llama3-8B-1.58-100B-tokens. As [`Synthetic`]
/// models all have the architecture of 2B-4T.
pub const SHAPES: [Shape; 4] = [
    Shape {
        name: "bitnet-0.7b",
        hidden: 1536,
        ffn: 4096,
        layers: 24,
        heads: 16,
        kv_heads: 16,
        vocabulary: 32002,
        context: 2048,
        rope_base: 10_000.0,
    },
    Shape {
        name: "bitnet-2b-4t",
        hidden: 2560,
        ffn: 6912,
        layers: 30,
        heads: 20,
        kv_heads: 5,
        vocabulary: 128_256,
        context: 4096,
        rope_base: 500_000.0,
    },
    Shape {
        name: "bitnet-3b",
        hidden: 3200,
        ffn: 8640,
        layers: 26,
        heads: 32,
        kv_heads: 32,
        vocabulary: 32002,
        context: 2048,
        rope_base: 10_000.0,
    },
    Shape {
        name: "bitnet-8b",
        hidden: 4096,
        ffn: 14336,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        vocabulary: 128_256,
        context: 8192,
        rope_base: 500_000.0,
    },
];

/// A model to write.
///
/// ```
/// use bitnet_inference::{Engine, Options, synth::{SHAPES, Shape, Synthetic}};
/// use bitnet_kernels::Format;
///
/// let shape = Shape { hidden: 256, ffn: 512, layers: 1, heads: 4, kv_heads: 2, ..SHAPES[0] };
/// let model = Synthetic { shape, seed: 0, weights: Format::I2S, embedding: Format::F16 };
/// let mut file = Vec::new();
/// model.write_to(&mut file)?;
/// let gguf = bitnet_gguf::Gguf::from_vec("synthetic.gguf", file)?;
/// assert_eq!(Engine::load(gguf, &Options::default())?.config().layers, 1);
/// # Ok::<(), bitnet_inference::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Synthetic {
    /// Its hyper-parameters.
    pub shape: Shape,
    /// Of its random numbers.
    pub seed: u64,
    /// The format of its ternary matrices, one of [`Format::TERNARY`].
    pub weights: Format,
    /// The format of its embedding table, one of [`Format::FLOAT`].
    pub embedding: Format,
}

impl Synthetic {
    /// Writes the model as a GGUF file. No more than one matrix is in memory at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Synthetic`] where the numbers of the shape do not fit each other,
    /// [`Error::ShapeFormat`] where a format cannot hold a matrix, before the first byte is
    /// written; [`Error::Gguf`] where `out` fails.
    pub fn write_to(&self, out: &mut impl Write) -> Result<(), Error> {
        let mut seeds = Seeds::new(self.seed);
        let normals = Normals::new(seeds.next());
        Ok(self.plan(seeds, &normals)?.write_to(out)?)
    }

    /// Whether it can be written.
    ///
    /// # Errors
    ///
    /// As [`Synthetic::write_to`] before the first byte.
    pub fn check(&self) -> Result<(), Error> {
        self.plan(Seeds::new(self.seed), &Normals::default()).map(|_| ())
    }

    /// The file, with data that are made when it is written.
    fn plan<'a>(&'a self, seeds: Seeds, normals: &'a Normals) -> Result<Writer<'a>, Error> {
        self.shape.check()?;
        let mut file = File { model: self, normals, seeds, writer: self.metadata() };
        file.embedding()?;
        for layer in 0..self.shape.layers {
            file.layer(layer)?;
        }
        file.norm("output_norm.weight", self.shape.hidden)?;
        Ok(file.writer)
    }

    fn metadata<'a>(&self) -> Writer<'a> {
        let s = &self.shape;
        let key = |name: &str| format!("bitnet-b1.58.{name}");
        let count = |n: usize| n as u32;
        let name = format!("{}, synthetic, seed {}", s.name, self.seed);
        let writer = Writer::new()
            .metadata("general.architecture", "bitnet-b1.58")
            .metadata("general.name", name)
            .metadata(&key("block_count"), count(s.layers))
            .metadata(&key("context_length"), count(s.context))
            .metadata(&key("embedding_length"), count(s.hidden))
            .metadata(&key("feed_forward_length"), count(s.ffn))
            .metadata(&key("attention.head_count"), count(s.heads))
            .metadata(&key("attention.head_count_kv"), count(s.kv_heads))
            .metadata(&key("attention.layer_norm_rms_epsilon"), 1e-5_f32)
            .metadata(&key("rope.freq_base"), s.rope_base)
            .metadata(&key("rope.dimension_count"), count(s.hidden / s.heads))
            .metadata(&key("vocab_size"), count(s.vocabulary))
            // The shape alone could mean a model that gates with SiLU.
            .metadata(&key("hidden_act"), "relu2");
        vocabulary::write(writer, s.vocabulary)
    }
}

impl Shape {
    fn check(&self) -> Result<(), Error> {
        let fail = |what: String| Error::Synthetic { shape: self.name.to_owned(), what };
        let numbers = [self.hidden, self.ffn, self.layers, self.heads, self.kv_heads, self.context];
        if numbers.iter().chain([&self.vocabulary]).any(|&n| n == 0 || n > i32::MAX as usize) {
            return Err(fail("its numbers must be from 1 to 2147483647".to_owned()));
        }
        if !self.hidden.is_multiple_of(2 * self.heads) || !self.heads.is_multiple_of(self.kv_heads)
        {
            let (heads, kv_heads, hidden) = (self.heads, self.kv_heads, self.hidden);
            return Err(fail(format!(
                "{heads} heads must make {hidden} with an even width, {kv_heads} key heads divide \
                 them"
            )));
        }
        if self.vocabulary < vocabulary::LEAST {
            return Err(fail(format!("its vocabulary must be at least {}", vocabulary::LEAST)));
        }
        Ok(())
    }
}

/// A file in the making.
struct File<'a> {
    model: &'a Synthetic,
    normals: &'a Normals,
    seeds: Seeds,
    writer: Writer<'a>,
}

impl File<'_> {
    fn layer(&mut self, index: usize) -> Result<(), Error> {
        let Shape { hidden, ffn, heads, kv_heads, layers, .. } = self.model.shape;
        let kv = hidden / heads * kv_heads;
        // The branches of all layers together are as large as one.
        let branch = 1.0 / ((2 * layers) as f64).sqrt();
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        self.norm(&name("attn_norm"), hidden)?;
        self.linear(&name("attn_q"), (hidden, hidden), 1.0)?;
        self.linear(&name("attn_k"), (kv, hidden), 1.0)?;
        self.linear(&name("attn_v"), (kv, hidden), 1.0)?;
        self.norm(&name("attn_sub_norm"), hidden)?;
        self.linear(&name("attn_output"), (hidden, hidden), branch)?;
        self.norm(&name("ffn_norm"), hidden)?;
        self.linear(&name("ffn_gate"), (ffn, hidden), 1.0)?;
        self.linear(&name("ffn_up"), (ffn, hidden), 1.0)?;
        self.norm(&name("ffn_sub_norm"), ffn)?;
        self.linear(&name("ffn_down"), (hidden, ffn), branch)
    }

    /// Ternary weights `[rows, cols]` that turn normalised activations into ones of size `gain`.
    fn linear(&mut self, name: &str, (rows, cols): (usize, usize), gain: f64) -> Result<(), Error> {
        let format = self.model.weights;
        // A sum of `cols` products has the variance of two thirds as many. In half precision, so
        // that the scale is the same in every format.
        let d = half::f16::from_f64(gain / (cols as f64 * 2.0 / 3.0).sqrt()).to_f32();
        let seed = self.seeds.next();
        self.add(name, &[cols, rows], format, move |out| {
            let encoded = format::encode(format, &ternary(seed, rows * cols), rows, cols, d);
            out.write_all(&encoded.map_err(std::io::Error::other)?)
        })
    }

    /// Embeddings that give normalised states logits of size 2.
    fn embedding(&mut self) -> Result<(), Error> {
        /// Rows encoded at a time.
        const ROWS: usize = 256;
        let Shape { hidden, vocabulary, .. } = self.model.shape;
        let (format, normals, seed) = (self.model.embedding, self.normals, self.seeds.next());
        let size = 2.0 / (hidden as f32).sqrt();
        self.add("token_embd.weight", &[hidden, vocabulary], format, move |out| {
            let mut numbers = normals.iter(seed);
            let mut rows = Vec::with_capacity(ROWS * hidden);
            for first in (0..vocabulary).step_by(ROWS) {
                let n = ROWS.min(vocabulary - first) * hidden;
                rows.clear();
                rows.extend(numbers.by_ref().take(n).map(|x| size * x));
                let encoded = format::narrow(format, &rows, hidden);
                out.write_all(&encoded.map_err(std::io::Error::other)?)?;
            }
            Ok(())
        })
    }

    /// Weights of a norm, near 1.
    fn norm(&mut self, name: &str, len: usize) -> Result<(), Error> {
        let (normals, seed) = (self.normals, self.seeds.next());
        self.add(name, &[len], Format::F32, move |out| {
            let mut numbers = normals.iter(seed).take(len);
            numbers.try_for_each(|x| out.write_all(&(1.0 + 0.05 * x).to_le_bytes()))
        })
    }
}

impl<'a> File<'a> {
    /// Adds a tensor, dimensions fastest first, whose bytes `produce` writes.
    fn add(
        &mut self,
        name: &str,
        dims: &[usize],
        format: Format,
        produce: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + 'a,
    ) -> Result<(), Error> {
        let shape = || self.model.shape.name.to_owned();
        let fail = |source: FormatError| Error::ShapeFormat {
            shape: shape(),
            tensor: name.to_owned(),
            source,
        };
        let length = format::payload(format, dims.get(1).copied().unwrap_or(1), dims[0])
            .map_err(fail)? as u64;
        let Some(kind) = TensorType::named(format.ggml_name()) else {
            let what = format!("GGUF files cannot hold {format}");
            return Err(Error::Synthetic { shape: shape(), what });
        };
        let dims: Vec<_> = dims.iter().map(|&dim| dim as u64).collect();
        let writer = std::mem::take(&mut self.writer);
        self.writer = writer.tensor_from(name, &dims, kind.id(), (length, produce));
        Ok(())
    }
}
