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

/// The buffers of a forward pass on a backend.
pub(crate) type Scratch<B> = Buffers<<B as Backend>::Floats, <B as Backend>::Quantized>;

/// The buffers of a forward pass, for up to as many rows as they were made for: rows of floats `F`, and of quantised
/// activations `Q`.
#[derive(Debug)]
pub(crate) struct Buffers<F, Q> {
    /// Residual stream `[rows, hidden]`.
    pub(crate) x: F,
    /// A normalised residual stream, or what a block adds to it `[rows, hidden]`.
    pub(crate) normed: F,
    /// Quantised input of attention and the feed-forward network `[rows, hidden]`.
    pub(crate) input: Q,
    /// Queries `[rows, heads * head size]`.
    pub(crate) q: F,
    /// Keys `[rows, kv heads * head size]`.
    pub(crate) k: F,
    /// Values `[rows, kv heads * head size]`.
    pub(crate) v: F,
    /// Normalised queries, and keys, of the same shapes.
    pub(crate) normed_heads: (F, F),
    /// Result of attention `[rows, heads * head size]`.
    pub(crate) attended: F,
    /// The same, quantised `[rows, heads * head size]`.
    pub(crate) joined: Q,
    /// What a block adds to the residual stream `[rows, hidden]`.
    pub(crate) delta: F,
    /// Gate, then gated hidden state `[rows, ffn]`.
    pub(crate) gate: F,
    /// Ungated hidden state `[rows, ffn]`.
    pub(crate) up: F,
    /// Normalised and quantised input of the down projection `[rows, ffn]`.
    pub(crate) hidden: Q,
    /// Cosines and sines of the rotary angles `[rows, head size / 2]` each: those of most
    /// architectures, and of the local layers of some.
    pub(crate) angles: [(F, F); 2],
    /// Normalised residual stream of the rows whose logits are asked for `[rows, hidden]`.
    pub(crate) last: F,
}

impl<F, Q> Buffers<F, Q> {
    /// Buffers of `model`: `floats` and `quantized` make rows of so many numbers.
    pub(crate) fn new(
        model: &Model,
        floats: impl Fn(usize) -> Result<F, Error>,
        quantized: impl Fn(usize) -> Result<Q, Error>,
    ) -> Result<Buffers<F, Q>, Error> {
        let c = &model.config;
        let angles = || Ok::<_, Error>((floats(c.head_size / 2)?, floats(c.head_size / 2)?));
        Ok(Buffers {
            x: floats(c.hidden)?,
            normed: floats(c.hidden)?,
            input: quantized(c.hidden)?,
            q: floats(c.q_size())?,
            k: floats(c.kv_size())?,
            v: floats(c.kv_size())?,
            normed_heads: (floats(c.q_size())?, floats(c.kv_size())?),
            attended: floats(c.q_size())?,
            joined: quantized(c.q_size())?,
            delta: floats(c.hidden)?,
            gate: floats(c.ffn)?,
            up: floats(c.ffn)?,
            hidden: quantized(c.ffn)?,
            angles: [angles()?, angles()?],
            last: floats(c.hidden)?,
        })
    }
}
