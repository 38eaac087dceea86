//! BitNet b1.58 (Ma et al. 2024; 2B-4T technical report, 2025): a pre-norm transformer whose linear
//! layers have ternary weights and 8-bit activations, with a norm before each of them.
//!
//! Grouped-query attention, rotary positions (NeoX), squared ReLU gate, no biases, the output layer
//! is the embedding table. GGUF architectures `bitnet-b1.58` and `bitnet-25`. The reproductions of
//! 1bitLLM, architecture `bitnet`, gate with SiLU.

use super::linears::Linears;
use super::{Calls, Place};
use crate::Error;
use crate::backend::Backend;
use crate::linear::Linear;
use crate::source::Loader;
use crate::state::Scratch;

/// A norm before every linear layer, or those that have one input.
pub(super) const CALLS: Calls = Calls { quantize: 4, norm: 4, fused: true };

/// The weights of a block. `hidden`, `ffn` and `q` are the widths in [`Config`](crate::Config).
#[derive(Debug)]
pub(super) struct Block {
    linears: Linears<Linear>,
    /// Norm before queries, keys and values `[hidden]`.
    attn_norm: Vec<f32>,
    /// Norm before the output of attention `[q]`.
    attn_sub_norm: Vec<f32>,
    /// Norm before gate and up `[hidden]`.
    ffn_norm: Vec<f32>,
    /// Norm before down `[ffn]`.
    ffn_sub_norm: Vec<f32>,
}

impl Block {
    pub(super) fn load(loader: &mut Loader<'_>, index: usize) -> Result<Block, Error> {
        let c = loader.config();
        let (hidden, ffn, q) = (c.hidden, c.ffn, c.q_size());
        let norm = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Block {
            linears: Linears::load(loader, index, Loader::linear)?,
            attn_norm: loader.vector(&norm("attn_norm"), hidden)?,
            attn_sub_norm: loader.vector(&norm("attn_sub_norm"), q)?,
            ffn_norm: loader.vector(&norm("ffn_norm"), hidden)?,
            ffn_sub_norm: loader.vector(&norm("ffn_sub_norm"), ffn)?,
        })
    }

    /// All seven matrices.
    pub(super) fn linears(&self) -> [&Linear; 7] {
        self.linears.all()
    }

    pub(super) fn forward<B: Backend>(&self, b: &mut B, s: &mut Scratch<B>, at: Place<'_>) {
        let (l, rows, n) = (&self.linears, at.rows, at.rows.len());

        b.norm_quantize(&s.x, at.norm(&self.attn_norm), n, &mut s.input);
        let (q, k, v) = (&mut s.q, &mut s.k, &mut s.v);
        b.linear(&s.input, n, [(&l.q, q), (&l.k, k), (&l.v, v)]);
        b.place(at.index, rows, &s.angles[0], (&mut s.q, &mut s.k, &s.v));
        b.attend(at.index, rows, at.heads(), &s.q, &mut s.attended);
        b.norm_quantize(&s.attended, at.norm(&self.attn_sub_norm), n, &mut s.joined);
        b.linear_add(&s.joined, n, &l.output, (&mut s.x, &mut s.delta));

        b.norm_quantize(&s.x, at.norm(&self.ffn_norm), n, &mut s.input);
        let (gated, up) = (&mut s.gate, &mut s.up);
        b.gate(&s.input, n, [(&l.gate, gated), (&l.up, up)]);
        b.norm_quantize(&s.gate, at.norm(&self.ffn_sub_norm), n, &mut s.hidden);
        b.linear_add(&s.hidden, n, &l.down, (&mut s.x, &mut s.delta));
    }
}
