//! Llama (Touvron et al. 2023) with ternary weights and 8-bit activations: Llama3-8B-1.58, Falcon3 and
//! Falcon-E. A pre-norm transformer; what has no norm before a linear layer is quantised as it is.
//!
//! Grouped-query attention, rotary positions, SiLU gate, no biases, an output layer of its own or the
//! embedding table. GGUF architecture `llama`, whose queries and keys are stored with the two halves of
//! each head interleaved: they are put back when they are loaded, so that positions turn them as in
//! every other architecture.

use super::linears::Linears;
use super::{Calls, Place};
use crate::Error;
use crate::backend::Backend;
use crate::linear::Linear;
use crate::source::Loader;
use crate::state::Scratch;

/// Quantised before every linear layer, or those that have one input; two norms.
pub(super) const CALLS: Calls = Calls { quantize: 4, norm: 2, fused: true };

/// The weights of a block. `hidden`, `ffn` and `q` are the widths in [`Config`](crate::Config).
#[derive(Debug)]
pub(super) struct Block {
    linears: Linears<Linear>,
    /// Norm before attention `[hidden]`.
    attn_norm: Vec<f32>,
    /// Norm before the feed-forward network `[hidden]`.
    ffn_norm: Vec<f32>,
}

impl Block {
    pub(super) fn load(loader: &mut Loader<'_>, index: usize) -> Result<Block, Error> {
        let c = loader.config();
        let hidden = c.hidden;
        let norm = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Block {
            linears: Linears::load(loader, index, Loader::linear)?,
            attn_norm: loader.vector(&norm("attn_norm"), hidden)?,
            ffn_norm: loader.vector(&norm("ffn_norm"), hidden)?,
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
        b.quantize(&s.attended, n, &mut s.joined);
        b.linear_add(&s.joined, n, &l.output, (&mut s.x, &mut s.delta));

        b.norm_quantize(&s.x, at.norm(&self.ffn_norm), n, &mut s.input);
        let (gated, up) = (&mut s.gate, &mut s.up);
        b.gate(&s.input, n, [(&l.gate, gated), (&l.up, up)]);
        b.quantize(&s.gate, n, &mut s.hidden);
        b.linear_add(&s.hidden, n, &l.down, (&mut s.x, &mut s.delta));
    }
}
