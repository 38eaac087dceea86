//! The linear layers that blocks of every architecture have.

use crate::Error;
use crate::source::Loader;

/// The linear layers of a block: alone, or with a norm each. `hidden`, `ffn`, `q` and `kv` are the widths
/// in [`Config`](crate::Config).
#[derive(Debug)]
pub(super) struct Linears<L> {
    /// Queries `[q, hidden]`.
    pub(super) q: L,
    /// Keys `[kv, hidden]`.
    pub(super) k: L,
    /// Values `[kv, hidden]`.
    pub(super) v: L,
    /// Output of attention `[hidden, q]`.
    pub(super) output: L,
    /// Gate of the feed-forward network `[ffn, hidden]`.
    pub(super) gate: L,
    /// What is gated `[ffn, hidden]`.
    pub(super) up: L,
    /// Back to the residual stream `[hidden, ffn]`.
    pub(super) down: L,
}

impl<L> Linears<L> {
    /// Takes those of block `index`, `each` by its name without `.weight` and its shape.
    pub(super) fn load<'a>(
        loader: &mut Loader<'a>,
        index: usize,
        each: impl Fn(&mut Loader<'a>, &str, (usize, usize)) -> Result<L, Error>,
    ) -> Result<Linears<L>, Error> {
        let c = loader.config();
        let (hidden, ffn, q, kv) = (c.hidden, c.ffn, c.q_size(), c.kv_size());
        let mut take = |part, shape| each(loader, &format!("blk.{index}.{part}"), shape);
        Ok(Linears {
            q: take("attn_q", (q, hidden))?,
            k: take("attn_k", (kv, hidden))?,
            v: take("attn_v", (kv, hidden))?,
            output: take("attn_output", (hidden, q))?,
            gate: take("ffn_gate", (ffn, hidden))?,
            up: take("ffn_up", (ffn, hidden))?,
            down: take("ffn_down", (hidden, ffn))?,
        })
    }

    /// All seven.
    pub(super) fn all(&self) -> [&L; 7] {
        [&self.q, &self.k, &self.v, &self.output, &self.gate, &self.up, &self.down]
    }
}
