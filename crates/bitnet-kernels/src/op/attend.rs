//! Attention of tokens over the keys and values before them, in one pass (Milakov and Gimelshein
//! 2018): the softmax is carried along and corrected as greater scores come.
//!
//! A lane is a position: keys are kept sixteen positions side by side, so that a score is summed in
//! its own lane. Query heads that read the same keys and values, of one token or of several, are worked
//! on together, so that those are read once. Positions are taken in blocks of [`KV_BLOCK`], counted
//! from position 0, so the result does not depend on how the prompt was cut, who else is in the batch or
//! which queries go together. A score that is not finite makes the result of its head NaN.

use std::marker::PhantomData;
use std::ops::Range;

use super::softmax::exp;
use super::store::Cached;
use crate::aligned::Aligned;
use crate::format::Float;
use crate::pool::Tile;
use crate::simd::prefetch::prefetch;
use crate::simd::{Floats, LANES, Op, load_part, store_part};

/// Positions in a block of the key-value cache.
pub const KV_BLOCK: usize = LANES;

/// Queries that go through the keys and values together, at most: they and their results share a
/// level-1 cache.
pub const QUERIES: usize = 32;

/// The keys and values of one sequence and one layer.
#[derive(Clone, Copy, Debug)]
pub struct Keys<'a> {
    /// All blocks of the cache. A block has [`KV_BLOCK`] positions.
    pub blocks: &'a [Aligned<u8>],
    /// The blocks of the sequence, in order.
    pub table: &'a [u32],
    /// Where the keys of the head start in a block; they are [side by side](super::Place::Lane).
    pub keys: usize,
    /// Where its values start, [one after another](super::Place::Row).
    pub values: usize,
    /// Bytes of a position of one head.
    pub stride: usize,
}

/// Tokens of one sequence that follow one another, and the heads of their queries that share keys and
/// values.
///
/// Keys and values of a position are in a floating-point format, as [`StoreFn`] kernels write
/// them: whole blocks of the format, the last one filled up with zeros.
///
/// [`StoreFn`]: super::StoreFn
#[derive(Debug)]
pub struct AttendArgs<'a> {
    /// The queries `[heads, head size]` of the first token, those of the next after `stride`.
    pub q: &'a [f32],
    /// Numbers from one token's queries to the next's.
    pub stride: usize,
    /// Numbers of a head.
    pub size: usize,
    /// Keys and values.
    pub kv: Keys<'a>,
    /// Positions that the first token attends to, from 0 on: at least one. The next attends to one
    /// more, and so on.
    pub positions: usize,
    /// Whether to ask for a block while the one before is worked on. Of use where keys and values
    /// come from memory, of some cost where they have just been read.
    pub ahead: bool,
    /// Factor of the scores, `1 / sqrt(head size)`.
    pub scale: f32,
    /// The results: a row for each token, `[heads, head size]`.
    pub out: Tile<'a, f32>,
}

/// An attention kernel.
pub type AttendFn = for<'a> fn(AttendArgs<'a>);

/// Keys and values in the format `F`.
pub(crate) struct Attend<F>(PhantomData<F>);

impl<S: Floats, F: Float + Cached> Op<S> for Attend<F> {
    type Args<'a> = AttendArgs<'a>;

    #[inline(always)]
    fn eval(s: S, mut args: AttendArgs<'_>) {
        let (tokens, cols) = (args.out.rows(), args.out.cols());
        let heads = cols.len() / args.size;
        debug_assert!(args.positions > 0 && heads * args.size == cols.len());
        let width = heads.min(QUERIES);
        let height = QUERIES / width;
        for token in tokens.clone().step_by(height) {
            let rows = token..tokens.end.min(token + height);
            for col in cols.clone().step_by(width * args.size) {
                let cols = col..cols.end.min(col + width * args.size);
                let q =
                    &args.q[(token - tokens.start) * args.stride + col - args.out.cols().start..];
                let kv = Positions {
                    kv: args.kv,
                    ahead: args.ahead,
                    scale: args.scale,
                    format: PhantomData::<F>,
                };
                let first = args.positions + token - tokens.start;
                let out = args.out.within(rows.clone(), cols);
                some_queries(s, (q, args.stride, args.size), kv, first, out);
            }
        }
    }
}

/// Positions to attend to.
struct Positions<'a, F> {
    kv: Keys<'a>,
    ahead: bool,
    scale: f32,
    format: PhantomData<F>,
}

/// Some queries, up to [`QUERIES`].
struct Queries<'a, S: Floats> {
    /// Each `[head size]`.
    q: [&'a [f32]; QUERIES],
    softmax: [Softmax<S>; QUERIES],
    /// What they have gathered, `[head size]` each.
    out: [&'a mut [f32]; QUERIES],
}

/// The softmax of a query so far.
#[derive(Clone, Copy)]
struct Softmax<S: Floats> {
    greatest: f32,
    /// Sums of the weights of each lane.
    sums: S::F,
    /// Zero, or NaN where a score was not finite.
    poison: S::F,
}

/// A number for each position of a block.
type Block = [f32; KV_BLOCK];

/// Attention of up to [`QUERIES`] queries. Each row of `out` is a token with its heads; the first
/// token attends to `positions` positions.
#[inline(always)]
fn some_queries<S: Floats, F: Float + Cached>(
    s: S,
    (q, stride, size): (&[f32], usize, usize),
    kv: Positions<'_, F>,
    positions: usize,
    out: Tile<'_, f32>,
) {
    let (tokens, heads) = (out.rows().len(), out.cols().len() / size);
    let zero = s.splat(0.0);
    let softmax = Softmax { greatest: f32::NEG_INFINITY, sums: zero, poison: zero };
    let mut queries = Queries {
        q: [&[]; QUERIES],
        softmax: [softmax; QUERIES],
        out: std::array::from_fn(|_| Default::default()),
    };
    let qs = q.chunks(stride).flat_map(|q| q[..heads * size].chunks_exact(size));
    let outs = out.into_rows().flat_map(|row| row.chunks_exact_mut(size));
    for (i, (q, out)) in qs.zip(outs).enumerate() {
        out.fill(0.0);
        (queries.q[i], queries.out[i]) = (q, out);
    }
    for block in 0..(positions + tokens - 1).div_ceil(KV_BLOCK) {
        // The first token that sees any of the block, and how much each sees.
        let first = (block * KV_BLOCK + 1).saturating_sub(positions);
        let seen = |i: usize| KV_BLOCK.min(positions + i / heads - block * KV_BLOCK);
        kv.take(s, &mut queries, first * heads..tokens * heads, block, seen);
    }
    for (softmax, out) in queries.softmax.iter().zip(queries.out).take(tokens * heads) {
        scale_by(s, out, 1.0 / (s.sum(softmax.sums) + s.sum(softmax.poison)));
    }
}

impl<F: Float + Cached> Positions<'_, F> {
    /// Takes a block into some queries, of each so many positions as it has `seen`.
    #[inline(always)]
    fn take<S: Floats>(
        &self,
        s: S,
        queries: &mut Queries<'_, S>,
        which: Range<usize>,
        block: usize,
        seen: impl Fn(usize) -> usize,
    ) {
        let Keys { blocks, table, keys, values, stride } = self.kv;
        if self.ahead
            && let Some(&next) = table.get(block + 1)
        {
            let next = &blocks[next as usize];
            prefetch(&next[keys..][..KV_BLOCK * stride]);
            prefetch(&next[values..][..KV_BLOCK * stride]);
        }
        let data = &blocks[table[block] as usize];
        let kv = (&data[keys..][..KV_BLOCK * stride], &data[values..][..KV_BLOCK * stride]);
        let mut i = which.start;
        while i < which.end {
            i += match which.end - i {
                8.. if S::SUMS == 8 => self.take_into::<S, 8>(s, queries, i, kv, &seen),
                4.. => self.take_into::<S, 4>(s, queries, i, kv, &seen),
                2.. => self.take_into::<S, 2>(s, queries, i, kv, &seen),
                _ => self.take_into::<S, 1>(s, queries, i, kv, &seen),
            };
        }
    }

    /// Takes a block into `Q` queries from `first` on; gives `Q`.
    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "a position has a value and `Q` weights")]
    fn take_into<S: Floats, const Q: usize>(
        &self,
        s: S,
        queries: &mut Queries<'_, S>,
        first: usize,
        (keys, values): (&[u8], &[u8]),
        seen: impl Fn(usize) -> usize,
    ) -> usize {
        let q = std::array::from_fn(|i| queries.q[first + i]);
        let mut out = queries.out[first..].iter_mut();
        let out: [&mut [f32]; Q] = std::array::from_fn(|_| match out.next() {
            Some(out) => &mut **out,
            None => &mut [],
        });
        let scores = scores::<S, F, Q>(s, q, keys);
        let n: [usize; Q] = std::array::from_fn(|i| seen(first + i));
        let least = n.into_iter().fold(KV_BLOCK, usize::min);
        let mut weights = [[0.0; KV_BLOCK]; Q];
        for i in 0..Q {
            let scores = s.mul(scores[i], s.splat(self.scale));
            let shrink = queries.softmax[first + i].take(s, scores, n[i], &mut weights[i]);
            if let Some(shrink) = shrink {
                scale_by(s, out[i], shrink);
            }
        }
        let size = q[0].len();
        for chunk in 0..size.div_ceil(LANES) {
            let mut sums = [s.splat(0.0); Q];
            for i in 0..Q {
                sums[i] = load_chunk(s, out[i], chunk);
            }
            let value = |j: usize| F::load(s, &values[j * self.kv.stride..], chunk);
            for j in 0..least {
                let value = value(j);
                for i in 0..Q {
                    sums[i] = s.fma(s.splat(weights[i][j]), value, sums[i]);
                }
            }
            // What only some see.
            if least < KV_BLOCK {
                for i in 0..Q {
                    for j in least..n[i] {
                        sums[i] = s.fma(s.splat(weights[i][j]), value(j), sums[i]);
                    }
                }
            }
            for i in 0..Q {
                store_chunk(s, sums[i], out[i], chunk);
            }
        }
        Q
    }
}

/// `Σ q k` for some queries and the keys of a block, by fused multiply-add in the order of the numbers.
#[inline(always)]
#[expect(clippy::needless_range_loop, reason = "each number is of `Q` queries and of the keys")]
fn scores<S: Floats, F: Cached, const Q: usize>(
    s: S,
    queries: [&[f32]; Q],
    keys: &[u8],
) -> [S::F; Q] {
    let mut sums = [s.splat(0.0); Q];
    let size = queries[0].len();
    let queries = queries.map(|q| &q[..size]);
    for k in 0..size {
        let key = F::keys(s, keys, k);
        for i in 0..Q {
            sums[i] = s.fma(s.splat(queries[i][k]), key, sums[i]);
        }
    }
    sums
}

impl<S: Floats> Softmax<S> {
    /// Turns the scores of the first `n` positions of a block into weights, the others into zeros.
    /// Gives what everything before has to be multiplied by, if there is a new greatest.
    #[inline(always)]
    fn take(&mut self, s: S, scores: S::F, n: usize, weights: &mut Block) -> Option<f32> {
        let masked = |v: S::F, with: f32| {
            let mut lanes = [0.0; KV_BLOCK];
            s.store(v, &mut lanes);
            lanes[n..].fill(with);
            s.load(&lanes)
        };
        let whole = n == KV_BLOCK;
        // Zero times a number is zero, times anything else NaN, which `max` would lose.
        let finite = if whole { scores } else { masked(scores, 0.0) };
        self.poison = s.fma(finite, s.splat(0.0), self.poison);
        let scores = if whole { scores } else { masked(scores, f32::NEG_INFINITY) };
        let (before, greatest) = (self.greatest, s.greatest(scores));
        let mut shrink = None;
        if greatest > before {
            // All of the past shrinks. At the first block there is none.
            let by = exp(s, s.splat(before - greatest));
            self.greatest = greatest;
            self.sums = s.mul(self.sums, by);
            let mut lanes = [0.0; LANES];
            s.store(by, &mut lanes);
            shrink = Some(lanes[0]);
        }
        let raised = exp(s, s.sub(scores, s.splat(self.greatest)));
        let raised = if whole { raised } else { masked(raised, 0.0) };
        self.sums = s.add(self.sums, raised);
        s.store(raised, weights);
        shrink
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
