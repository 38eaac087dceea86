//! BitNet b1.58 (Ma et al. 2024; 2B-4T technical report, 2025): a pre-norm transformer whose linear
//! layers have ternary weights and 8-bit activations, with a norm before each of them.
//!
//! Grouped-query attention, rotary positions (NeoX), squared ReLU gate, no biases, the output layer
//! is the embedding table. GGUF architectures `bitnet-b1.58` and `bitnet-25`.

use bitnet_kernels::{Format, Kernel};

use crate::Config;
use crate::backend::{Backend, Heads, Norm, Row};
use crate::linear::Linear;
use crate::matrix::FloatMatrix;
use crate::state::Scratch;

/// The weights of a model. `hidden`, `ffn`, `q` and `kv` are the widths in [`Config`].
#[derive(Debug)]
pub(crate) struct BitNet {
    /// Hyper-parameters.
    pub(crate) config: Config,
    /// Embeddings and output layer `[vocabulary, hidden]`.
    pub(crate) embedding: FloatMatrix,
    /// The transformer blocks.
    pub(crate) layers: Vec<Layer>,
    /// Final norm `[hidden]`.
    pub(crate) output_norm: Vec<f32>,
    /// Rotary angle of a step in position, for each pair of a head `[head size / 2]`.
    pub(crate) frequencies: Vec<f32>,
}

/// The weights of a transformer block.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Norm before queries, keys and values `[hidden]`.
    pub(crate) attn_norm: Vec<f32>,
    /// Queries `[q, hidden]`.
    pub(crate) attn_q: Linear,
    /// Keys `[kv, hidden]`.
    pub(crate) attn_k: Linear,
    /// Values `[kv, hidden]`.
    pub(crate) attn_v: Linear,
    /// Norm before the output of attention `[q]`.
    pub(crate) attn_sub_norm: Vec<f32>,
    /// Output of attention `[hidden, q]`.
    pub(crate) attn_output: Linear,
    /// Norm before gate and up `[hidden]`.
    pub(crate) ffn_norm: Vec<f32>,
    /// Gate `[ffn, hidden]`.
    pub(crate) ffn_gate: Linear,
    /// What is gated `[ffn, hidden]`.
    pub(crate) ffn_up: Linear,
    /// Norm before down `[ffn]`.
    pub(crate) ffn_sub_norm: Vec<f32>,
    /// Back to the residual stream `[hidden, ffn]`.
    pub(crate) ffn_down: Linear,
}

impl BitNet {
    /// The names of the formats of the linear layers, each once.
    #[must_use]
    pub(crate) fn weight_formats(&self) -> Vec<&'static str> {
        self.formats(Linear::format).into_iter().map(Format::ggml_name).collect()
    }

    /// The formats of the linear layers in memory, each once.
    #[must_use]
    pub(crate) fn layouts(&self) -> Vec<Format> {
        self.formats(Linear::layout)
    }

    fn formats(&self, of: impl Fn(&Linear) -> Format) -> Vec<Format> {
        let mut formats: Vec<_> = self.linears().map(of).collect();
        formats.sort_unstable_by_key(|format| format.name());
        formats.dedup();
        formats
    }

    /// The number of ternary weights.
    #[must_use]
    pub(crate) fn ternary_products(&self) -> u64 {
        self.linears().map(Linear::shape).map(|(rows, cols)| (rows * cols) as u64).sum()
    }

    /// The kernels that it is bound to.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = &'static Kernel> {
        self.linears().flat_map(Linear::kernels).chain(self.embedding.kernels())
    }

    fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(Layer::linears)
    }
}

impl Layer {
    /// All seven matrices.
    pub(crate) fn linears(&self) -> [&Linear; 7] {
        let (q, k, v, output) = (&self.attn_q, &self.attn_k, &self.attn_v, &self.attn_output);
        [q, k, v, output, &self.ffn_gate, &self.ffn_up, &self.ffn_down]
    }
}

/// Runs `rows` through the model and adds them to the key-value cache.
///
/// Leaves what the output layer takes of the rows in `outputs`, one after another, in the scratch.
/// The cache must have room and the scratch be large enough for all rows; rows of one sequence must
/// be in order and follow what the cache has.
pub(crate) fn forward<B: Backend>(
    b: &mut B,
    model: &BitNet,
    s: &mut Scratch<B>,
    rows: &[Row],
    outputs: &[usize],
) {
    let c = &model.config;
    let n = rows.len();
    let heads = Heads { size: c.head_size, group: c.heads / c.kv_heads };

    b.embed(&model.embedding, rows, &mut s.x);
    b.angles(&model.frequencies, rows, &mut s.angles);
    for (index, layer) in model.layers.iter().enumerate() {
        let norm = |weight| Norm { weight, eps: c.eps };

        b.norm_quantize(&s.x, norm(&layer.attn_norm), n, &mut s.input);
        let (q, k, v) = (&mut s.q, &mut s.k, &mut s.v);
        b.linear(&s.input, n, [(&layer.attn_q, q), (&layer.attn_k, k), (&layer.attn_v, v)]);
        b.rope(&mut s.q, n, &s.angles);
        b.rope(&mut s.k, n, &s.angles);
        b.append(index, rows, &s.k, &s.v);
        b.attend(index, rows, heads, &s.q, &mut s.attended);
        b.norm_quantize(&s.attended, norm(&layer.attn_sub_norm), n, &mut s.input);
        b.linear_add(&s.input, n, &layer.attn_output, (&mut s.x, &mut s.delta));

        b.norm_quantize(&s.x, norm(&layer.ffn_norm), n, &mut s.input);
        b.gate(&s.input, n, [(&layer.ffn_gate, &mut s.gate), (&layer.ffn_up, &mut s.up)]);
        b.norm_quantize(&s.gate, norm(&layer.ffn_sub_norm), n, &mut s.hidden);
        b.linear_add(&s.hidden, n, &layer.ffn_down, (&mut s.x, &mut s.delta));
    }
    let norm = Norm { weight: &model.output_norm, eps: c.eps };
    b.norm_rows(&s.x, norm, outputs, &mut s.last);
}
