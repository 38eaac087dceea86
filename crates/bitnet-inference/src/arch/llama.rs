//! Llama (Touvron et al. 2023) with ternary weights and 8-bit activations: Llama3-8B-1.58, Falcon3 and
//! Falcon-E. A pre-norm transformer; what has no norm before a linear layer is quantised as it is.
//!
//! Grouped-query attention, rotary positions, SiLU gate, no biases, an output layer of its own or the
//! embedding table. GGUF architecture `llama`, whose queries and keys are stored with the two halves of
//! each head interleaved: they are put back when they are loaded, so that positions turn them as in
//! every other architecture.

use super::{Calls, Place};
use crate::Error;
use crate::backend::Backend;
use crate::linear::Linear;
use crate::source::Loader;
use crate::state::Scratch;

/// Quantised before every linear layer, or those that have one input; two norms.
pub(super) const CALLS: Calls = Calls { quantize: 4, norm: 2 };

/// The weights of a block. `hidden`, `ffn`, `q` and `kv` are the widths in [`Config`](crate::Config).
#[derive(Debug)]
pub(super) struct Block {
    /// Norm before attention `[hidden]`.
    attn_norm: Vec<f32>,
    /// Queries `[q, hidden]`.
    attn_q: Linear,
    /// Keys `[kv, hidden]`.
    attn_k: Linear,
    /// Values `[kv, hidden]`.
    attn_v: Linear,
    /// Output of attention `[hidden, q]`.
    attn_output: Linear,
    /// Norm before the feed-forward network `[hidden]`.
    ffn_norm: Vec<f32>,
    /// Gate `[ffn, hidden]`.
    ffn_gate: Linear,
    /// What is gated `[ffn, hidden]`.
    ffn_up: Linear,
    /// Back to the residual stream `[hidden, ffn]`.
    ffn_down: Linear,
}

impl Block {
    pub(super) fn load(loader: &mut Loader<'_>, index: usize) -> Result<Block, Error> {
        let c = loader.config();
        let (hidden, ffn, q, kv) = (c.hidden, c.ffn, c.q_size(), c.kv_size());
        let norm = |part: &str| format!("blk.{index}.{part}.weight");
        let linear = |part: &str| format!("blk.{index}.{part}");
        Ok(Block {
            attn_norm: loader.vector(&norm("attn_norm"), hidden)?,
            attn_q: loader.turned(&linear("attn_q"), q, hidden)?,
            attn_k: loader.turned(&linear("attn_k"), kv, hidden)?,
            attn_v: loader.linear(&linear("attn_v"), kv, hidden)?,
            attn_output: loader.linear(&linear("attn_output"), hidden, q)?,
            ffn_norm: loader.vector(&norm("ffn_norm"), hidden)?,
            ffn_gate: loader.linear(&linear("ffn_gate"), ffn, hidden)?,
            ffn_up: loader.linear(&linear("ffn_up"), ffn, hidden)?,
            ffn_down: loader.linear(&linear("ffn_down"), hidden, ffn)?,
        })
    }

    /// All seven matrices.
    pub(super) fn linears(&self) -> [&Linear; 7] {
        let (q, k, v, output) = (&self.attn_q, &self.attn_k, &self.attn_v, &self.attn_output);
        [q, k, v, output, &self.ffn_gate, &self.ffn_up, &self.ffn_down]
    }

    pub(super) fn forward<B: Backend>(&self, b: &mut B, s: &mut Scratch<B>, at: Place<'_>) {
        let (rows, n) = (at.rows, at.rows.len());

        b.norm_quantize(&s.x, at.norm(&self.attn_norm), n, &mut s.input);
        let (q, k, v) = (&mut s.q, &mut s.k, &mut s.v);
        b.linear(&s.input, n, [(&self.attn_q, q), (&self.attn_k, k), (&self.attn_v, v)]);
        b.rope(&mut s.q, n, &s.angles[0]);
        b.rope(&mut s.k, n, &s.angles[0]);
        b.append(at.index, rows, &s.k, &s.v);
        b.attend(at.index, rows, at.heads(), &s.q, &mut s.attended);
        b.quantize(&s.attended, n, &mut s.joined);
        b.linear_add(&s.joined, n, &self.attn_output, (&mut s.x, &mut s.delta));

        b.norm_quantize(&s.x, at.norm(&self.ffn_norm), n, &mut s.input);
        let (gated, up) = (&mut s.gate, &mut s.up);
        b.gate(&s.input, n, [(&self.ffn_gate, gated), (&self.ffn_up, up)]);
        b.quantize(&s.gate, n, &mut s.hidden);
        b.linear_add(&s.hidden, n, &self.ffn_down, (&mut s.x, &mut s.delta));
    }
}
