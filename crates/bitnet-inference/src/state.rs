//! Every buffer of a forward pass, with its shape, and the key-value cache.

use bitnet_kernels::op::{Fours, KV_BLOCK, Keys, Place, RowScale, StoreArgs, StoreFn};
use bitnet_kernels::{Aligned, Format, packed};

use crate::arch::Model;
use crate::backend::Backend;
use crate::{Config, Error};

/// `n` zeros, or an error where the system has no memory for them.
fn zeros<T: Copy + Default>(n: usize, what: &'static str) -> Result<Aligned<T>, Error> {
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

/// Keys and values of several sequences, in blocks of [`KV_BLOCK`] positions that are taken from
/// the system as sequences grow.
#[derive(Debug)]
pub(crate) struct KvCache {
    /// Each `[layer][keys, values][kv head]`, and of a head its positions: keys side by side, values
    /// one after another.
    blocks: Vec<Aligned<u8>>,
    /// The blocks of each sequence.
    tables: Vec<Vec<u32>>,
    layers: usize,
    kv_heads: usize,
    /// Numbers of a head.
    head_size: usize,
    /// Bytes of a head of one position.
    head_bytes: usize,
}

impl KvCache {
    /// An empty cache for `sequences` sequences, in the format `kv`.
    pub(crate) fn new(config: &Config, sequences: usize, kv: Format) -> KvCache {
        let &Config { layers, kv_heads, head_size, .. } = config;
        let (numbers, bytes) = kv.block();
        let head_bytes = head_size.div_ceil(numbers) * bytes;
        let tables = vec![Vec::new(); sequences];
        KvCache { blocks: Vec::new(), tables, layers, kv_heads, head_size, head_bytes }
    }

    /// Makes room for `positions` positions of a sequence.
    pub(crate) fn reserve(&mut self, sequence: usize, positions: usize) -> Result<(), Error> {
        while self.tables[sequence].len() * KV_BLOCK < positions {
            let (size, _) = self.starts(self.layers, 0);
            self.blocks.push(zeros(size, "key-value cache")?);
            self.tables[sequence].push((self.blocks.len() - 1) as u32);
        }
        Ok(())
    }

    /// Where the keys and the values of a head of a layer start in a block.
    fn starts(&self, layer: usize, kv_head: usize) -> (usize, usize) {
        let head = KV_BLOCK * self.head_bytes;
        let (part, within) = (self.kv_heads * head, kv_head * head);
        (2 * layer * part + within, (2 * layer + 1) * part + within)
    }

    /// Stores the key and the value of a position, of all heads.
    pub(crate) fn store(
        &mut self,
        run: StoreFn,
        layer: usize,
        (sequence, position): (usize, usize),
        [key, value]: [&[f32]; 2],
    ) {
        let block = self.tables[sequence][position / KV_BLOCK] as usize;
        let lane = position % KV_BLOCK;
        let all = KV_BLOCK * self.head_bytes;
        let heads = key.chunks(self.head_size).zip(value.chunks(self.head_size));
        for (kv_head, (key, value)) in heads.enumerate() {
            let (keys, values) = self.starts(layer, kv_head);
            let block = &mut self.blocks[block];
            let out = &mut block[keys..][..all];
            run(StoreArgs { x: key, place: Place::Lane(lane), out });
            let out = &mut block[values + lane * self.head_bytes..][..self.head_bytes];
            run(StoreArgs { x: value, place: Place::Row, out });
        }
    }

    /// The keys and values of a head of a layer of a sequence.
    pub(crate) fn keys(&self, layer: usize, sequence: usize, kv_head: usize) -> Keys<'_> {
        let (keys, values) = self.starts(layer, kv_head);
        let table = &self.tables[sequence];
        Keys { blocks: &self.blocks, table, keys, values, stride: self.head_bytes }
    }
}
