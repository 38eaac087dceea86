//! Attention of one head of one token over the keys and values before it, in one pass
//! (Milakov and Gimelshein 2018): the softmax is carried along and corrected as greater scores come.
//!
//! Positions are taken in blocks of [`KV_BLOCK`], counted from position 0, so the result does not
//! depend on how the prompt was cut or who else is in the batch. A score that is not finite makes the
//! result NaN.

use super::softmax::exp;
use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// Positions in a block of the key-value cache.
pub const KV_BLOCK: usize = LANES;

/// The keys and values of one sequence and one layer.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// All blocks of the cache. A block has [`KV_BLOCK`] positions.
    pub blocks: &'a [Box<[f32]>],
    /// The blocks of the sequence, in order.
    pub table: &'a [u32],
    /// Where the layer's keys start in a block; `stride` numbers a position.
    pub keys: usize,
    /// Where its values start.
    pub values: usize,
    /// Numbers of a position: all its heads.
    pub stride: usize,
}

/// One head of one token.
#[derive(Debug)]
pub struct AttendArgs<'a> {
    /// The query, one head.
    pub q: &'a [f32],
    /// Keys and values.
    pub kv: Keys<'a>,
    /// Where the head that `q` reads starts within a position.
    pub head: usize,
    /// Positions to attend to, from 0 on; at least one.
    pub positions: usize,
    /// Factor of the scores, `1 / sqrt(head size)`.
    pub scale: f32,
    /// The result, as long as `q`.
    pub out: &'a mut [f32],
}

/// An attention kernel.
pub type AttendFn = for<'a> fn(AttendArgs<'a>);

pub(crate) struct Attend;

impl<S: Floats> Op<S> for Attend {
    type Args<'a> = AttendArgs<'a>;

    #[inline(always)]
    fn eval(s: S, args: AttendArgs<'_>) {
        let AttendArgs { q, kv, head, positions, scale, out } = args;
        debug_assert!(positions > 0 && q.len() == out.len() && head + q.len() <= kv.stride);
        let mut greatest = f32::NEG_INFINITY;
        let mut sum = 0.0;
        // Zero times a number is zero, times anything else NaN, which `max` would lose.
        let mut poison = 0.0;
        out.fill(0.0);
        for (block, &index) in kv.table[..positions.div_ceil(KV_BLOCK)].iter().enumerate() {
            let data = &kv.blocks[index as usize];
            let n = KV_BLOCK.min(positions - block * KV_BLOCK);
            let row = |start: usize, j: usize| &data[start + j * kv.stride + head..][..q.len()];

            let mut scores = [f32::NEG_INFINITY; KV_BLOCK];
            for (j, score) in scores[..n].iter_mut().enumerate() {
                *score = dot(s, q, row(kv.keys, j)) * scale;
                poison += *score * 0.0;
            }
            let before = greatest;
            greatest = greatest.max(s.greatest(s.load(&scores)));
            if greatest > before {
                // All of the past shrinks. At the first block there is none.
                let shrink = shrink(s, before - greatest);
                sum *= shrink;
                scale_by(s, out, shrink);
            }
            let mut weights = [0.0; KV_BLOCK];
            s.store(exp(s, s.sub(s.load(&scores), s.splat(greatest))), &mut weights);
            weights[n..].fill(0.0);
            sum += s.sum(s.load(&weights));
            for (j, &weight) in weights[..n].iter().enumerate() {
                add_scaled(s, out, weight, row(kv.values, j));
            }
        }
        scale_by(s, out, 1.0 / (sum + poison));
    }
}

/// `e^x` for one `x <= 0`.
#[inline(always)]
fn shrink<S: Floats>(s: S, x: f32) -> f32 {
    let mut lanes = [0.0; LANES];
    s.store(exp(s, s.splat(x)), &mut lanes);
    lanes[0]
}

/// `Σ a b`: sixteen strided partial sums by fused multiply-add.
#[inline(always)]
fn dot<S: Floats>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = s.splat(0.0);
    for (a, b) in a.iter().zip(b) {
        sums = s.fma(s.load(a), s.load(b), sums);
    }
    if !a_rest.is_empty() {
        sums = s.fma(load_part(s, a_rest), load_part(s, b_rest), sums);
    }
    s.sum(sums)
}

/// `x *= factor`.
#[inline(always)]
fn scale_by<S: Floats>(s: S, x: &mut [f32], factor: f32) {
    let by = s.splat(factor);
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for x in chunks {
        s.store(s.mul(s.load(x), by), x);
    }
    let last = s.mul(load_part(s, rest), by);
    store_part(s, last, rest);
}

/// `x += factor * y`, fused.
#[inline(always)]
fn add_scaled<S: Floats>(s: S, x: &mut [f32], factor: f32, y: &[f32]) {
    let by = s.splat(factor);
    let (out, out_rest) = x.as_chunks_mut::<LANES>();
    let (chunks, rest) = y.as_chunks::<LANES>();
    for (x, y) in out.iter_mut().zip(chunks) {
        s.store(s.fma(by, s.load(y), s.load(x)), x);
    }
    let last = s.fma(by, load_part(s, rest), load_part(s, out_rest));
    store_part(s, last, out_rest);
}
