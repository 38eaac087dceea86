//! Attention of tokens over the keys and values before them, in one pass (Milakov and Gimelshein
//! 2018): the softmax is carried along and corrected as greater scores come.
//!
//! A lane is a position: keys are kept sixteen positions side by side, so that a score is summed in
//! its own lane. Query heads that read the same keys and values, of one token or of several, are worked
//! on together, so that those are read once. Positions are taken in blocks of [`KV_BLOCK`], counted
//! from position 0, and of these as many as make a [`SPAN`] give a part of the result, whoever works on
//! it; so the result does not depend on how the prompt was cut, who else is in the batch, which queries
//! go together or how many threads there are. A score that is not finite makes the result of its head
//! NaN.

use std::marker::PhantomData;
use std::ops::Range;

use super::softmax::exp;
use super::store::Cached;
use crate::aligned::{Aligned, LINE};
use crate::format::Float;
use crate::pool::Tile;
use crate::simd::prefetch::prefetch_at;
use crate::simd::{Floats, LANES, Op, load_chunk, store_chunk};

/// Positions in a block of the key-value cache.
pub const KV_BLOCK: usize = LANES;

/// Queries that go through the keys and values together, at most: they and their results share a
/// level-1 cache.
pub const QUERIES: usize = 32;

/// Positions that give one part of a result. Parts can be worked on by several threads, and are
/// [joined](super::JoinArgs) in order.
pub const SPAN: usize = 512;

/// Numbers of a part of the result of a head of `size` numbers: the sum of values by their weights;
/// then the greatest score, the sum of the weights, and what fills it up to whole lines.
#[must_use]
pub const fn part(size: usize) -> usize {
    size + LANES
}

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
    /// The positions to take now, in whole blocks, as far as tokens attend to them. Of a token that
    /// attends to none of them nothing is written.
    pub span: Range<usize>,
    /// Whether to ask for a block while the one before is worked on. Of use where keys and values
    /// come from memory, of some cost where they have just been read.
    pub ahead: bool,
    /// Factor of the scores, `1 / sqrt(head size)`.
    pub scale: f32,
    /// [Parts](part) of the results: a row for each token, `[heads, part]`.
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
        let (tokens, cols, part) = (args.out.rows(), args.out.cols(), part(args.size));
        let heads = cols.len() / part;
        debug_assert!(args.positions > 0 && heads * part == cols.len());
        debug_assert!(
            [args.span.start, args.span.end].iter().all(|at| at.is_multiple_of(KV_BLOCK))
        );
        // Tokens before this one attend to nothing here.
        let seeing = (args.span.start + 1).saturating_sub(args.positions);
        let width = heads.min(QUERIES);
        for token in (tokens.start + seeing..tokens.end).step_by(QUERIES / width) {
            let rows = token..tokens.end.min(token + QUERIES / width);
            for head in (0..heads).step_by(width) {
                let col = cols.start + head * part;
                let cols = col..cols.end.min(col + width * part);
                let nth = token - tokens.start;
                let positions = Positions {
                    kv: args.kv,
                    first: args.positions + nth,
                    span: args.span.clone(),
                    ahead: args.ahead,
                    scale: args.scale,
                    format: PhantomData::<F>,
                };
                let q = &args.q[nth * args.stride + head * args.size..];
                let out = args.out.within(rows.clone(), cols);
                some_queries(s, (q, args.stride, args.size), positions, out);
            }
        }
    }
}

/// Positions to attend to.
struct Positions<'a, F> {
    kv: Keys<'a>,
    /// How many the first token attends to.
    first: usize,
    span: Range<usize>,
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
    /// How many of them are of one token.
    heads: usize,
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
type Weights = [f32; KV_BLOCK];

/// The keys and values of a block.
#[derive(Clone, Copy)]
struct Block<'a> {
    keys: &'a [u8],
    values: &'a [u8],
    /// Keys and values of the block that is worked on next, if they are to be asked for.
    next: Option<[&'a [u8]; 2]>,
}

/// Memory that is asked for a line at a time between other work, since processors wait where they are
/// asked for many at once.
struct Ahead<'a> {
    bytes: &'a [u8],
    /// Bytes from one time to the next.
    step: usize,
    at: usize,
}

impl<'a> Ahead<'a> {
    /// All of `bytes` in so many steps.
    #[inline(always)]
    fn new(bytes: &'a [u8], steps: usize) -> Ahead<'a> {
        Ahead { bytes, step: bytes.len() / steps, at: 0 }
    }

    /// Asks for the line that starts in this step, if one does.
    #[inline(always)]
    fn step(&mut self) {
        if self.at % LINE < self.step {
            prefetch_at(self.bytes, self.at);
        }
        self.at += self.step;
    }
}

/// Parts of up to [`QUERIES`] queries. Each row of `out` is a token with its heads.
#[inline(always)]
fn some_queries<S: Floats, F: Float + Cached>(
    s: S,
    (q, stride, size): (&[f32], usize, usize),
    positions: Positions<'_, F>,
    out: Tile<'_, f32>,
) {
    let (tokens, heads) = (out.rows().len(), out.cols().len() / part(size));
    let zero = s.splat(0.0);
    let softmax = Softmax { greatest: f32::NEG_INFINITY, sums: zero, poison: zero };
    let mut queries = Queries {
        q: [&[]; QUERIES],
        softmax: [softmax; QUERIES],
        out: std::array::from_fn(|_| Default::default()),
        heads,
    };
    let mut tails: [&mut [f32]; QUERIES] = std::array::from_fn(|_| Default::default());
    let qs = q.chunks(stride).flat_map(|q| q[..heads * size].chunks_exact(size));
    let outs = out.into_rows().flat_map(|row| row.chunks_exact_mut(part(size)));
    for (i, (q, out)) in qs.zip(outs).enumerate() {
        let (out, tail) = out.split_at_mut(size);
        out.fill(0.0);
        (queries.q[i], queries.out[i], tails[i]) = (q, out, tail);
    }
    let end = positions.span.end.min(positions.first + tokens - 1);
    for block in positions.span.start / KV_BLOCK..end.div_ceil(KV_BLOCK) {
        // The first token that sees any of the block.
        let first = (block * KV_BLOCK + 1).saturating_sub(positions.first);
        positions.take(s, &mut queries, first * heads..tokens * heads, block);
    }
    let ends = queries.softmax.iter().zip(queries.out).zip(tails);
    for ((softmax, out), tail) in ends.take(tokens * heads) {
        let sum = s.sum(softmax.sums) + s.sum(softmax.poison);
        let greatest = if sum.is_nan() { f32::NAN } else { softmax.greatest };
        if sum.is_nan() {
            out.fill(f32::NAN);
        }
        tail[..2].copy_from_slice(&[greatest, sum]);
    }
}

impl<F: Float + Cached> Positions<'_, F> {
    /// Takes a block into some queries, of each the positions that it attends to.
    #[inline(always)]
    fn take<S: Floats>(
        &self,
        s: S,
        queries: &mut Queries<'_, S>,
        which: Range<usize>,
        block: usize,
    ) {
        let Keys { blocks, table, keys, values, stride } = self.kv;
        let data = &blocks[table[block] as usize];
        let mut kv = Block {
            keys: &data[keys..][..KV_BLOCK * stride],
            values: &data[values..][..KV_BLOCK * stride],
            next: None,
        };
        if self.ahead
            && let Some(&next) = table.get(block + 1)
        {
            let next = &blocks[next as usize];
            kv.next = Some([keys, values].map(|at| &next[at..][..KV_BLOCK * stride]));
        }
        let mut i = which.start;
        while i < which.end {
            i += match which.end - i {
                8.. if S::SUMS == 8 && kv.next.is_none() => {
                    self.take_into::<S, 8, false>(s, queries, i, block, kv)
                }
                4.. if kv.next.is_some() => self.take_into::<S, 4, true>(s, queries, i, block, kv),
                4.. => self.take_into::<S, 4, false>(s, queries, i, block, kv),
                _ if kv.next.is_some() => self.take_into::<S, 1, true>(s, queries, i, block, kv),
                2.. => self.take_into::<S, 2, false>(s, queries, i, block, kv),
                _ => self.take_into::<S, 1, false>(s, queries, i, block, kv),
            };
            kv.next = None;
        }
    }

    /// Takes a block into `Q` queries from `first` on; gives `Q`.
    #[inline(always)]
    fn take_into<S: Floats, const Q: usize, const AHEAD: bool>(
        &self,
        s: S,
        queries: &mut Queries<'_, S>,
        first: usize,
        block: usize,
        kv: Block<'_>,
    ) -> usize {
        let mut args = TakeArgs {
            q: [&[]; Q],
            softmax: &mut queries.softmax[first..first + Q],
            out: std::array::from_fn(|_| Default::default()),
            seen: [0; Q],
            kv,
            stride: self.kv.stride,
            scale: self.scale,
        };
        let (q, out) = (&queries.q[first..], &mut queries.out[first..]);
        for (i, (q, out)) in q.iter().zip(out).enumerate().take(Q) {
            (args.q[i], args.out[i]) = (q, out);
            args.seen[i] =
                KV_BLOCK.min(self.first + (first + i) / queries.heads - block * KV_BLOCK);
        }
        s.run::<Take<F, Q, AHEAD>>(args);
        Q
    }
}

/// A block for some queries. It is compiled apart for each number of queries: together they would be
/// more than what compilers do well.
struct Take<F, const Q: usize, const AHEAD: bool>(PhantomData<F>);

struct TakeArgs<'a, S: Floats, const Q: usize> {
    q: [&'a [f32]; Q],
    softmax: &'a mut [Softmax<S>],
    out: [&'a mut [f32]; Q],
    /// How many positions each attends to.
    seen: [usize; Q],
    kv: Block<'a>,
    /// Bytes of a value.
    stride: usize,
    scale: f32,
}

impl<S: Floats, F: Float + Cached, const Q: usize, const AHEAD: bool> Op<S> for Take<F, Q, AHEAD> {
    type Args<'a> = TakeArgs<'a, S, Q>;

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "a position has a value and `Q` weights")]
    fn eval(s: S, args: TakeArgs<'_, S, Q>) {
        let TakeArgs { q, softmax, out, seen, kv, stride, scale } = args;
        let scores = scores::<S, F, Q, AHEAD>(s, q, kv);
        let mut weights = [[0.0; KV_BLOCK]; Q];
        let mut least = KV_BLOCK;
        for i in 0..Q {
            least = least.min(seen[i]);
            let scores = s.mul(scores[i], s.splat(scale));
            if let Some(shrink) = softmax[i].take(s, scores, seen[i], &mut weights[i]) {
                scale_by(s, out[i], shrink);
            }
        }
        let chunks = q[0].len().div_ceil(LANES);
        let mut next = kv.next.filter(|_| AHEAD).map(|[_, v]| Ahead::new(v, chunks * KV_BLOCK));
        for chunk in 0..chunks {
            let at = chunk / F::CHUNKS * F::BYTES;
            let mut sums = [s.splat(0.0); Q];
            for i in 0..Q {
                sums[i] = load_chunk(s, out[i], chunk);
            }
            for j in 0..least {
                if let Some(next) = &mut next {
                    next.step();
                }
                let value = &kv.values[at + j * stride..][..F::BYTES];
                let value = F::load(s, value, chunk % F::CHUNKS);
                for i in 0..Q {
                    sums[i] = s.fma(s.splat(weights[i][j]), value, sums[i]);
                }
            }
            // What only some see.
            if least < KV_BLOCK {
                for i in 0..Q {
                    for j in least..seen[i] {
                        let value = &kv.values[at + j * stride..][..F::BYTES];
                        let value = F::load(s, value, chunk % F::CHUNKS);
                        sums[i] = s.fma(s.splat(weights[i][j]), value, sums[i]);
                    }
                }
            }
            for i in 0..Q {
                store_chunk(s, sums[i], out[i], chunk);
            }
        }
    }
}

/// `Σ q k` for some queries and the keys of a block, by fused multiply-add in the order of the numbers.
#[inline(always)]
fn scores<S: Floats, F: Cached, const Q: usize, const AHEAD: bool>(
    s: S,
    queries: [&[f32]; Q],
    kv: Block<'_>,
) -> [S::F; Q] {
    let size = queries[0].len();
    let mut sums = [s.splat(0.0); Q];
    let mut next = kv.next.filter(|_| AHEAD).map(|[keys, _]| Ahead::new(keys, size));
    for block in 0..size.div_ceil(F::NUMBERS) {
        let (numbers, scales) = F::block(s, kv.keys, block);
        let first = block * F::NUMBERS;
        let n = F::NUMBERS.min(size - first);
        let mut q: [&[f32]; Q] = [&[]; Q];
        for i in 0..Q {
            q[i] = &queries[i][first..][..n];
        }
        for (k, keys) in numbers.chunks_exact(F::KEYS).enumerate().take(n) {
            if let Some(next) = &mut next {
                next.step();
            }
            let keys = F::keys(s, keys, scales);
            for i in 0..Q {
                sums[i] = s.fma(s.splat(q[i][k]), keys, sums[i]);
            }
        }
    }
    sums
}

impl<S: Floats> Softmax<S> {
    /// Turns the scores of the first `n` positions of a block into weights, the others into zeros.
    /// Gives what everything before has to be multiplied by, if there is a new greatest.
    #[inline(always)]
    fn take(&mut self, s: S, scores: S::F, n: usize, weights: &mut Weights) -> Option<f32> {
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

/// `x *= factor`.
#[inline(always)]
pub(super) fn scale_by<S: Floats>(s: S, x: &mut [f32], factor: f32) {
    let by = s.splat(factor);
    for chunk in 0..x.len().div_ceil(LANES) {
        let scaled = s.mul(load_chunk(s, x, chunk), by);
        store_chunk(s, scaled, x, chunk);
    }
}
