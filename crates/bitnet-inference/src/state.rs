//! Every buffer of a forward pass, with its shape.

use bitnet_kernels::op::{Fours, RowScale};
use bitnet_kernels::{Aligned, packed};

use crate::Error;
use crate::arch::Model;
use crate::backend::Backend;

/// `n` zeros, or an error where the system has no memory for them.
pub(crate) fn zeros<T: Copy + Default>(n: usize, what: &'static str) -> Result<Aligned<T>, Error> {
    let bytes = n.saturating_mul(size_of::<T>());
    Aligned::zeros(n).map_err(|_| Error::Memory { what, bytes })
}

/// Rows of floats.
#[derive(Debug)]
pub(crate) struct Floats {
    /// `[rows, cols]`.
    pub(crate) data: Aligned<f32>,
    /// Numbers of a row.
    pub(crate) cols: usize,
}

impl Floats {
    /// Zeros `[rows, cols]`.
    pub(crate) fn new(rows: usize, cols: usize) -> Result<Floats, Error> {
        Ok(Floats { data: zeros(rows * cols, "activations")?, cols })
    }

    /// The first `n` rows.
    pub(crate) fn rows(&self, n: usize) -> &[f32] {
        &self.data[..n * self.cols]
    }

    /// The first `n` rows.
    pub(crate) fn rows_mut(&mut self, n: usize) -> &mut [f32] {
        &mut self.data[..n * self.cols]
    }

    /// Row `i`.
    pub(crate) fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..][..self.cols]
    }
}

/// Rows of quantised activations.
#[derive(Debug)]
pub(crate) struct Quantized {
    /// `[rows, width]`, zeros behind the columns.
    pub(crate) data: Aligned<i8>,
    /// The same, [interleaved](bitnet_kernels::op::interleave), where there is more than one row.
    pub(crate) fours: Aligned<Fours>,
    /// One for each row.
    pub(crate) scales: Aligned<RowScale>,
    /// Numbers of a row.
    pub(crate) cols: usize,
    /// Bytes of a row: as many as kernels take.
    pub(crate) width: usize,
    /// A row between norm and quantisation, for each row: `[rows, cols]`.
    pub(crate) normed: Aligned<f32>,
}

impl Quantized {
    /// Zeros `[rows, cols]`.
    pub(crate) fn new(rows: usize, cols: usize) -> Result<Quantized, Error> {
        let (what, width) = ("activations", packed::padded(cols));
        Ok(Quantized {
            data: zeros(rows * width, what)?,
            fours: zeros(rows.div_ceil(4) * width / 4, what)?,
            scales: zeros(rows, what)?,
            cols,
            width,
            normed: zeros(rows * cols, what)?,
        })
    }
}

/// The buffers of a forward pass, for up to as many rows as it was made for.
#[derive(Debug)]
pub(crate) struct Scratch<B: Backend> {
    /// Residual stream `[rows, hidden]`.
    pub(crate) x: B::Floats,
    /// A normalised residual stream, or what a block adds to it `[rows, hidden]`.
    pub(crate) normed: B::Floats,
    /// Quantised input of attention and the feed-forward network `[rows, hidden]`.
    pub(crate) input: B::Quantized,
    /// Queries `[rows, heads * head size]`.
    pub(crate) q: B::Floats,
    /// Keys `[rows, kv heads * head size]`.
    pub(crate) k: B::Floats,
    /// Values `[rows, kv heads * head size]`.
    pub(crate) v: B::Floats,
    /// Normalised queries, and keys, of the same shapes.
    pub(crate) normed_heads: (B::Floats, B::Floats),
    /// Result of attention `[rows, heads * head size]`.
    pub(crate) attended: B::Floats,
    /// The same, quantised `[rows, heads * head size]`.
    pub(crate) joined: B::Quantized,
    /// What a block adds to the residual stream `[rows, hidden]`.
    pub(crate) delta: B::Floats,
    /// Gate, then gated hidden state `[rows, ffn]`.
    pub(crate) gate: B::Floats,
    /// Ungated hidden state `[rows, ffn]`.
    pub(crate) up: B::Floats,
    /// Normalised and quantised input of the down projection `[rows, ffn]`.
    pub(crate) hidden: B::Quantized,
    /// Cosines and sines of the rotary angles `[rows, head size / 2]` each: those of most
    /// architectures, and of the local layers of some.
    pub(crate) angles: [(B::Floats, B::Floats); 2],
    /// Normalised residual stream of the rows whose logits are asked for `[rows, hidden]`.
    pub(crate) last: B::Floats,
}

impl<B: Backend> Scratch<B> {
    /// Buffers for up to `rows` rows of `model`.
    pub(crate) fn new(backend: &B, model: &Model, rows: usize) -> Result<Scratch<B>, Error> {
        let c = &model.config;
        let floats = |cols| backend.floats(rows, cols);
        let angles = || Ok::<_, Error>((floats(c.head_size / 2)?, floats(c.head_size / 2)?));
        Ok(Scratch {
            x: floats(c.hidden)?,
            normed: floats(c.hidden)?,
            input: backend.quantized(rows, c.hidden)?,
            q: floats(c.q_size())?,
            k: floats(c.kv_size())?,
            v: floats(c.kv_size())?,
            normed_heads: (floats(c.q_size())?, floats(c.kv_size())?),
            attended: floats(c.q_size())?,
            joined: backend.quantized(rows, c.q_size())?,
            delta: floats(c.hidden)?,
            gate: floats(c.ffn)?,
            up: floats(c.ffn)?,
            hidden: backend.quantized(rows, c.ffn)?,
            angles: [angles()?, angles()?],
            last: floats(c.hidden)?,
        })
    }
}
