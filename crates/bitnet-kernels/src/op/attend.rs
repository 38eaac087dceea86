//! Attention of one token over the keys and values before it, in one pass (Milakov and Gimelshein
//! 2018): the softmax is carried along and corrected as greater scores come.
//!
//! All query heads that read the same keys and values are worked on together, so that those come from
//! memory once. Positions are taken in blocks of [`KV_BLOCK`], counted from position 0, so the result
//! does not depend on how the prompt was cut, who else is in the batch or which heads go together. A
//! score that is not finite makes the result of its head NaN.

use std::marker::PhantomData;

use super::softmax::exp;
use crate::format::Float;
use crate::simd::prefetch::prefetch;
use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// Positions in a block of the key-value cache.
pub const KV_BLOCK: usize = LANES;

/// Heads whose state is kept at the same time; larger groups are cut.
const MOST_HEADS: usize = 8;

/// The keys and values of one sequence and one layer.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// All blocks of the cache. A block has [`KV_BLOCK`] positions.
    pub blocks: &'a [Box<[u8]>],
    /// The blocks of the sequence, in order.
    pub table: &'a [u32],
    /// Where the keys of the head start in a block.
    pub keys: usize,
    /// Where its values start.
    pub values: usize,
    /// Bytes from one position to the next.
    pub stride: usize,
}

/// One token, and the heads of its query that share keys and values.
///
/// Keys and values of a position are in a floating-point format, as [`StoreFn`] kernels write
/// them: whole blocks of the format, the last one filled up with zeros.
///
/// [`StoreFn`]: super::StoreFn
#[derive(Debug)]
pub struct AttendArgs<'a> {
    /// The query `[heads, head size]`.
    pub q: &'a [f32],
    /// Numbers of a head.
    pub size: usize,
    /// Keys and values.
    pub kv: Keys<'a>,
    /// Positions to attend to, from 0 on; at least one.
    pub positions: usize,
    /// Whether to ask for a block while the one before is worked on. Of use where keys and values
    /// come from memory, of some cost where they have just been read.
    pub ahead: bool,
    /// Factor of the scores, `1 / sqrt(head size)`.
    pub scale: f32,
    /// The result, `[heads, head size]`.
    pub out: &'a mut [f32],
}

/// An attention kernel.
pub type AttendFn = for<'a> fn(AttendArgs<'a>);

/// Keys and values in the format `F`.
pub(crate) struct Attend<F>(PhantomData<F>);

impl<S: Floats, F: Float> Op<S> for Attend<F> {
    type Args<'a> = AttendArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: AttendArgs<'_>) {
        let AttendArgs { q, size, kv, positions, ahead, scale, out } = args;
        debug_assert!(positions > 0 && q.len() == out.len() && q.len().is_multiple_of(size));
        let most = MOST_HEADS * size;
        for (q, out) in q.chunks(most).zip(out.chunks_mut(most)) {
            some_heads::<S, F>(s, Queries { q, size, scale, ahead }, kv, positions, out);
        }
    }
}

/// Up to [`MOST_HEADS`] heads of a query.
#[derive(Clone, Copy)]
struct Queries<'a> {
    q: &'a [f32],
    size: usize,
    scale: f32,
    ahead: bool,
}

/// The softmax of a head so far.
#[derive(Clone, Copy)]
struct Softmax {
    greatest: f32,
    sum: f32,
    /// Zero, or NaN after a score that was not finite.
    poison: f32,
}

/// A number for each position of a block.
type Block = [f32; KV_BLOCK];

/// Attention of some heads.
#[inline(always)]
fn some_heads<S: Floats, F: Float>(
    s: S,
    queries: Queries<'_>,
    kv: Keys<'_>,
    positions: usize,
    out: &mut [f32],
) {
    let size = queries.size;
    let bytes = size.div_ceil(LANES * F::CHUNKS) * F::BYTES;
    let start = Softmax { greatest: f32::NEG_INFINITY, sum: 0.0, poison: 0.0 };
    let mut softmax = [start; MOST_HEADS];
    let mut weights = [[0.0; KV_BLOCK]; MOST_HEADS];
    let weights = &mut weights[..out.len() / size];
    out.fill(0.0);
    for (block, &index) in kv.table[..positions.div_ceil(KV_BLOCK)].iter().enumerate() {
        let data = &kv.blocks[index as usize];
        let n = KV_BLOCK.min(positions - block * KV_BLOCK);
        let next = match queries.ahead {
            true => kv.table.get(block + 1).map_or(&[][..], |&next| &kv.blocks[next as usize]),
            false => &[],
        };
        prefetch_rows(next, kv.keys, kv.stride);
        let keys = rows(data, kv.keys, (kv.stride, bytes), n);
        scores::<S, F>(s, queries, &keys[..n], weights);
        prefetch_rows(next, kv.values, kv.stride);
        for ((softmax, weights), out) in
            softmax.iter_mut().zip(&mut *weights).zip(out.chunks_mut(size))
        {
            softmax.take(s, weights, (n, queries.scale), out);
        }
        let values = rows(data, kv.values, (kv.stride, bytes), n);
        add_values::<S, F>(s, weights, &values[..n], size, out);
    }
    for (softmax, out) in softmax.iter().zip(out.chunks_mut(size)) {
        scale_by(s, out, 1.0 / (softmax.sum + softmax.poison));
    }
}

/// The keys or the values of the first `n` positions of a block.
#[inline(always)]
fn rows(data: &[u8], start: usize, (stride, bytes): (usize, usize), n: usize) -> [&[u8]; KV_BLOCK] {
    let mut rows: [&[u8]; KV_BLOCK] = [&[]; KV_BLOCK];
    for (j, row) in rows[..n].iter_mut().enumerate() {
        *row = &data[start + j * stride..][..bytes];
    }
    rows
}

/// Asks for the keys or the values of a block, if there is one.
#[inline(always)]
fn prefetch_rows(data: &[u8], start: usize, stride: usize) {
    prefetch(data.get(start..data.len().min(start + KV_BLOCK * stride)).unwrap_or_default());
}

impl Softmax {
    /// Turns the products of a block into weights, and makes what was before smaller.
    #[inline(always)]
    fn take<S: Floats>(
        &mut self,
        s: S,
        block: &mut Block,
        (n, scale): (usize, f32),
        out: &mut [f32],
    ) {
        block[n..].fill(0.0);
        s.store(s.mul(s.load(block), s.splat(scale)), block);
        // Zero times a number is zero, times anything else NaN, which `max` would lose.
        self.poison += s.sum(s.mul(s.load(block), s.splat(0.0)));
        block[n..].fill(f32::NEG_INFINITY);
        let before = self.greatest;
        self.greatest = self.greatest.max(s.greatest(s.load(block)));
        if self.greatest > before {
            // All of the past shrinks. At the first block there is none.
            let shrink = shrink(s, before - self.greatest);
            self.sum *= shrink;
            scale_by(s, out, shrink);
        }
        s.store(exp(s, s.sub(s.load(block), s.splat(self.greatest))), block);
        block[n..].fill(0.0);
        self.sum += s.sum(s.load(block));
    }
}

/// `e^x` for one `x <= 0`.
#[inline(always)]
fn shrink<S: Floats>(s: S, x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    s.store(exp(s, s.splat(x)), &mut lanes);
    lanes[0]
}

/// Products of the queries with the keys of a block.
#[inline(always)]
fn scores<S: Floats, F: Float>(s: S, queries: Queries<'_>, keys: &[&[u8]], scores: &mut [Block]) {
    // Four sums are on the way at the same time, of as many heads as there are.
    let (fours, rest) = scores.as_chunks_mut::<4>();
    let (twos, ones) = rest.as_chunks_mut::<2>();
    let mut q = queries.q;
    for scores in fours {
        dots::<S, F, 4, 1>(s, (q, queries.size), keys, scores);
        q = &q[4 * queries.size..];
    }
    for scores in twos {
        dots::<S, F, 2, 2>(s, (q, queries.size), keys, scores);
        q = &q[2 * queries.size..];
    }
    for scores in ones.as_chunks_mut::<1>().0 {
        dots::<S, F, 1, 4>(s, (q, queries.size), keys, scores);
    }
}

/// `Σ q k` for `H` heads and every key, `P` at a time.
#[inline(always)]
fn dots<S: Floats, F: Float, const H: usize, const P: usize>(
    s: S,
    (q, size): (&[f32], usize),
    keys: &[&[u8]],
    scores: &mut [Block; H],
) {
    let heads = std::array::from_fn(|h| q[h * size..][..size].as_chunks::<LANES>());
    for first in (0..keys.len()).step_by(P) {
        // Over the edge the last position is computed again, and dropped.
        let keys = std::array::from_fn(|p| keys[(first + p).min(keys.len() - 1)]);
        let sums = products::<S, F, H, P>(s, &heads, keys);
        for (scores, sums) in scores.iter_mut().zip(sums) {
            for (score, sums) in scores[first..].iter_mut().zip(sums) {
                *score = s.sum(sums);
            }
        }
    }
}

/// Sixteen strided partial sums of each product, by fused multiply-add. Heads are in chunks and what
/// is left.
#[inline(always)]
fn products<S: Floats, F: Float, const H: usize, const P: usize>(
    s: S,
    heads: &[(&[[f32; LANES]], &[f32]); H],
    keys: [&[u8]; P],
) -> [[S::F; P]; H] {
    let whole = heads[0].0.len();
    let chunks = heads.map(|(chunks, _)| &chunks[..whole]);
    let mut sums = [[s.splat(0.0); P]; H];
    for block in (0..whole).step_by(F::CHUNKS) {
        // What a block of the format has once is read once.
        for i in (0..F::CHUNKS).map(|i| block + i) {
            if i == whole {
                break;
            }
            let mut k = [s.splat(0.0); P];
            for p in 0..P {
                k[p] = F::load(s, keys[p], i);
            }
            for h in 0..H {
                let q = s.load(&chunks[h][i]);
                for p in 0..P {
                    sums[h][p] = s.fma(q, k[p], sums[h][p]);
                }
            }
        }
    }
    if !heads[0].1.is_empty() {
        for (sums, (_, rest)) in sums.iter_mut().zip(heads) {
            for (sum, key) in sums.iter_mut().zip(keys) {
                *sum = s.fma(load_part(s, rest), F::load(s, key, whole), *sum);
            }
        }
    }
    sums
}

/// Adds the values of a block, weighted, to each head.
#[inline(always)]
fn add_values<S: Floats, F: Float>(
    s: S,
    weights: &[Block],
    values: &[&[u8]],
    size: usize,
    out: &mut [f32],
) {
    let (fours, rest) = weights.as_chunks::<4>();
    let (out, out_rest) = out.split_at_mut(fours.len() * 4 * size);
    for (weights, out) in fours.iter().zip(out.chunks_mut(4 * size)) {
        add_weighted::<S, F, 4>(s, weights, values, size, out);
    }
    for (weights, out) in rest.as_chunks::<1>().0.iter().zip(out_rest.chunks_mut(size)) {
        add_weighted::<S, F, 1>(s, weights, values, size, out);
    }
}

/// `out += Σ weight * value` for `H` heads, fused, one position after the other.
#[inline(always)]
fn add_weighted<S: Floats, F: Float, const H: usize>(
    s: S,
    weights: &[Block; H],
    values: &[&[u8]],
    size: usize,
    out: &mut [f32],
) {
    for chunk in 0..size.div_ceil(LANES) {
        let mut sums = [s.splat(0.0); H];
        for h in 0..H {
            sums[h] = load_chunk(s, &out[h * size..][..size], chunk);
        }
        for (j, value) in values.iter().enumerate() {
            let value = F::load(s, value, chunk);
            for h in 0..H {
                sums[h] = s.fma(s.splat(weights[h][j]), value, sums[h]);
            }
        }
        for h in 0..H {
            store_chunk(s, sums[h], &mut out[h * size..][..size], chunk);
        }
    }
}

/// Numbers `16 i .. 16 i + 16` of `x`, those over the end zero.
#[inline(always)]
fn load_chunk<S: Floats>(s: S, x: &[f32], i: usize) -> S::F {
    let rest = &x[i * LANES..];
    match rest.first_chunk() {
        Some(chunk) => s.load(chunk),
        None => load_part(s, rest),
    }
}

/// Writes numbers `16 i .. 16 i + 16` of `x`, as far as there are any.
#[inline(always)]
fn store_chunk<S: Floats>(s: S, v: S::F, x: &mut [f32], i: usize) {
    let rest = &mut x[i * LANES..];
    match rest.first_chunk_mut() {
        Some(chunk) => s.store(v, chunk),
        None => store_part(s, v, rest),
    }
}

/// `x *= factor`.
#[inline(always)]
fn scale_by<S: Floats>(s: S, x: &mut [f32], factor: f32) {
    let by = s.splat(factor);
    for chunk in 0..x.len().div_ceil(LANES) {
        let scaled = s.mul(load_chunk(s, x, chunk), by);
        store_chunk(s, scaled, x, chunk);
    }
}
