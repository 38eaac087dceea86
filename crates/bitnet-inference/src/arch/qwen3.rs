//! Qwen3 (Yang et al. 2025) with ternary weights, and the BitNet embedding model built on it: a
//! pre-norm transformer with norms of the heads of queries and keys. The embedding model has another
//! norm before each linear layer.
//!
//! Grouped-query attention, rotary positions (NeoX), SiLU gate, no biases, an output layer of its own or
//! the embedding table. GGUF architecture `qwen3`.

use super::linears::Linears;
use super::projection::{Projection, project};
use super::{Calls, Place};
use crate::Error;
use crate::backend::Backend;
use crate::linear::Linear;
use crate::source::Loader;
use crate::state::Scratch;

/// Without norms before each linear layer, and with them.
pub(super) const CALLS: [Calls; 2] = [
    Calls { quantize: 4, norm: 4, fused: false },
    Calls { quantize: 7, norm: 4 + 7, fused: false },
];

/// The weights of a block. `hidden`, `ffn` and `q` are the widths in [`Config`](crate::Config).
#[derive(Debug)]
pub(super) struct Block {
    linears: Linears<Projection>,
    /// Norm before attention `[hidden]`.
    attn_norm: Vec<f32>,
    /// Norm of each head of the queries `[head size]`.
    attn_q_norm: Vec<f32>,
    /// Norm of each head of the keys `[head size]`.
    attn_k_norm: Vec<f32>,
    /// Norm before the feed-forward network `[hidden]`.
    ffn_norm: Vec<f32>,
}

impl Block {
    pub(super) fn load(loader: &mut Loader<'_>, index: usize) -> Result<Block, Error> {
        let c = loader.config();
        let hidden = c.hidden;
        let norm = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Block {
            linears: Linears::load(loader, index, Projection::load)?,
            attn_norm: loader.norm(&norm("attn_norm"), hidden)?,
            attn_q_norm: loader.norm(&norm("attn_q_norm"), c.head_size)?,
            attn_k_norm: loader.norm(&norm("attn_k_norm"), c.head_size)?,
            ffn_norm: loader.norm(&norm("ffn_norm"), hidden)?,
        })
    }

    /// All seven matrices.
    pub(super) fn linears(&self) -> [&Linear; 7] {
        self.linears.all().map(|projection| &projection.linear)
    }

    pub(super) fn forward<B: Backend>(&self, b: &mut B, s: &mut Scratch<B>, at: Place<'_>) {
        let (l, rows, n) = (&self.linears, at.rows, at.rows.len());

        b.norm(&s.x, at.norm(&self.attn_norm), n, &mut s.normed);
        let (q, k, v) = (&mut s.q, &mut s.k, &mut s.v);
        let outputs = [(&l.q, q), (&l.k, k), (&l.v, v)];
        project(b, (&s.normed, &mut s.input), at, outputs);
        let (q, k) = &mut s.normed_heads;
        b.norm(&s.q, at.norm(&self.attn_q_norm), n, q);
        b.norm(&s.k, at.norm(&self.attn_k_norm), n, k);
        b.place(at.index, rows, &s.angles[0], (q, k, &s.v));
        b.attend(at.index, rows, at.heads(), q, &mut s.attended);
        let output = [(&l.output, &mut s.delta)];
        project(b, (&s.attended, &mut s.joined), at, output);
        b.add(&s.delta, n, &mut s.x);

        b.norm(&s.x, at.norm(&self.ffn_norm), n, &mut s.normed);
        let outputs = [(&l.gate, &mut s.gate), (&l.up, &mut s.up)];
        project(b, (&s.normed, &mut s.input), at, outputs);
        b.activate(&mut s.gate, &s.up, n);
        project(b, (&s.gate, &mut s.hidden), at, [(&l.down, &mut s.delta)]);
        b.add(&s.delta, n, &mut s.x);
    }
}
