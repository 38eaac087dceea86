//! The processor: every operation is a bound kernel, run on the tiles of its output.

use std::sync::Arc;

use bitnet_kernels::op::{
    AddArgs, AttendArgs, JoinArgs, JoinFn, Keys, NormArgs, QUERIES, QuantizeArgs, RopeArgs, SPAN,
    interleave, part,
};
use bitnet_kernels::pool::{Chunked, Cut, Tile};
use bitnet_kernels::shortlist::{Candidate, Layer, Query, Search};
use bitnet_kernels::{Aligned, Bound, Calls, Pool, format};
use serde::{Deserialize, Serialize};

use super::kernels::Kernels;
use super::{Backend, Heads, Norm, Row, turn};
use crate::Best;
use crate::kv::KvCache;
use crate::linear::{Linear, Tiles};
use crate::matrix::FloatMatrix;
use crate::state::{Floats, Quantized};

/// Attention by rows is shared out well if it makes so many tiles for each thread.
const SHARES: usize = 8;

/// Bytes of weights that were read. Each is read once for all rows of a forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WeightsRead {
    /// Of the linear layers, as they are in memory.
    pub linear: u64,
    /// Of the output layer, and of the copy that the shortlist has.
    pub head: u64,
}

/// What the linear layers of a model take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinearInput {
    /// Activations of 8 bits.
    Quantized,
    /// The same as numbers, because the user asked for it.
    QuantizedNumbers,
    /// Activations as they are.
    Numbers,
}

/// Computes on the processor.
#[derive(Debug)]
pub(crate) struct CpuBackend {
    kernels: Kernels,
    pool: Arc<Pool>,
    /// Keys and values.
    pub(crate) cache: KvCache,
    /// Kernels called so far. A matrix operation is one call, however many tiles it has; the
    /// others are counted by rows, attention by rows and heads, and what the shortlist
    /// refines or multiplies exactly by the rows of the output layer.
    pub(crate) calls: Calls,
    /// Bytes of weights read so far.
    pub(crate) read: WeightsRead,
    /// What looks for the greatest logits.
    search: Search,
    /// Parts of attention that threads have in common.
    parts: Aligned<f32>,
    /// What linear layers take.
    input: LinearInput,
    tiles: Tiles,
}

impl CpuBackend {
    pub(crate) fn new(
        kernels: Kernels,
        pool: Arc<Pool>,
        cache: KvCache,
        (input, tiles): (LinearInput, Tiles),
    ) -> CpuBackend {
        let (calls, search, parts) = (Calls::default(), Search::default(), Aligned::scratch(0));
        let read = WeightsRead::default();
        CpuBackend { kernels, pool, cache, calls, read, search, parts, input, tiles }
    }

    /// Rows to 8 bits, of what `prepare` makes of each.
    fn quantize_rows(
        &mut self,
        x: &Floats,
        rows: usize,
        out: &mut Quantized,
        prepare: impl Fn(&[f32], &mut [f32]) + Sync,
    ) {
        let quantize = &self.kernels.quantize;
        let (cols, width) = (out.cols, out.width);
        // Four rows at a time, which are interleaved; what one step leaves in a cache the next takes.
        let chunks = (
            (
                Chunked::new(&mut out.normed[..rows * cols], 4 * cols),
                Chunked::new(&mut out.data[..rows * width], 4 * width),
            ),
            (
                Chunked::new(&mut out.scales[..rows], 4),
                Chunked::new(&mut out.fours[..rows.div_ceil(4) * width / 4], width / 4),
            ),
        );
        self.pool.chunks(chunks, |four, ((normed, data), (scales, fours))| {
            let each = normed.chunks_mut(cols).zip(data.chunks_mut(width)).zip(scales);
            for (i, ((y, q), scale)) in each.enumerate() {
                let (x, q) = (x.row(4 * four + i), &mut q[..cols]);
                prepare(x, y);
                if self.input == LinearInput::Numbers {
                    continue;
                }
                (quantize.run)(QuantizeArgs { x: y, q, scale });
                if self.input == LinearInput::QuantizedNumbers {
                    y.iter_mut().zip(q).for_each(|(y, q)| *y = f32::from(*q));
                }
            }
            if rows > 1 && self.input == LinearInput::Quantized {
                interleave(data, width, fours);
            }
        });
        if self.input != LinearInput::Numbers {
            self.calls.add(quantize, rows as u64);
        }
    }

    /// Counts a product with some rows.
    fn count(&mut self, linear: &Linear, rows: usize) {
        linear.count(&mut self.calls, rows);
        self.read.linear += linear.bytes() as u64;
    }

    /// Attention of rows that are enough for all threads. Queries that share keys and values go
    /// together: the heads of a group, of some tokens that follow one another.
    fn attend_by_rows(
        &self,
        layer: usize,
        rows: &[Row],
        heads: Heads,
        q: &Floats,
        out: &mut Floats,
    ) {
        let (attend, join) = (&self.kernels.attend, &self.kernels.join);
        let (cache, size, cols) = (&self.cache, heads.size, out.cols);
        let group = heads.group * size;
        let tokens = (QUERIES / heads.group).clamp(1, rows.len());
        let longest = rows.iter().map(|row| row.position + 1).max().unwrap_or(1);
        // As many groups are in a tile as make work worth handing over.
        let groups = (self.tiles.0 / (2 * longest * group * tokens)).clamp(1, cols / group);
        let grain = (tokens, groups * group);
        self.pool.tiles(out.rows_mut(rows.len()), cols, grain, |mut tile| {
            let (first, cols) = (tile.rows().start, tile.cols());
            let width = heads.group * part(size);
            let most = spans(rows[tile.rows()].iter().map(|row| row.position).max().unwrap_or(0));
            let mut parts = Aligned::scratch(most * tile.rows().len() * width);
            let ones = rows[tile.rows()].chunk_by(|a, b| a.sequence == b.sequence);
            let mut row = first;
            for together in ones {
                let Row { sequence, position, .. } = together[0];
                let spans = spans(position + together.len() - 1);
                let stride = together.len() * width;
                let parts = &mut parts[..spans * stride];
                for at in cols.clone().step_by(group) {
                    for (i, parts) in parts.chunks_mut(stride).enumerate() {
                        let queries = (&q.data[row * q.cols + at..], q.cols, size);
                        let kv = cache.keys(layer, sequence, at / group);
                        let out = Tile::new(parts, width);
                        let args = attention(queries, kv, position, i, out);
                        // Those of the row before have just been read.
                        let ahead = row == 0 || rows[row - 1].sequence != sequence;
                        (attend.run)(AttendArgs { ahead, ..args });
                    }
                    for i in 0..together.len() {
                        let parts = &parts
                            [i * width..(self::spans(position + i) - 1) * stride + (i + 1) * width];
                        let out = &mut tile.row(row + i)[at - cols.start..][..group];
                        join_heads(join, parts, stride, size, out);
                    }
                }
                row += together.len();
            }
        });
    }

    /// Attention of few rows over many positions: each span of each row is work for a thread.
    fn attend_by_spans(
        &mut self,
        layer: usize,
        rows: &[Row],
        heads: Heads,
        q: &Floats,
        out: &mut Floats,
    ) {
        let (attend, join) = (&self.kernels.attend, &self.kernels.join);
        let (cache, size, cols) = (&self.cache, heads.size, out.cols);
        let group = heads.group * size;
        let (stride, width) = (cols / size * part(size), heads.group * part(size));
        let spans_of = |row: &Row| spans(row.position);
        let work: Vec<_> = rows
            .iter()
            .enumerate()
            .flat_map(|(row, r)| (0..spans_of(r)).map(move |span| (row, span)))
            .collect();
        let numbers = work.len() * stride;
        if self.parts.len() < numbers {
            self.parts = Aligned::scratch(numbers);
        }
        self.pool.tiles(&mut self.parts[..numbers], stride, (1, width), |tile| {
            let (row, span) = work[tile.rows().start];
            let (Row { sequence, position, .. }, nth) = (rows[row], tile.cols().start / width);
            let queries = (&q.data[row * q.cols + nth * group..], q.cols, size);
            let kv = cache.keys(layer, sequence, nth);
            (attend.run)(attention(queries, kv, position, span, tile));
        });
        let parts = &self.parts;
        self.pool.tiles(out.rows_mut(rows.len()), cols, (1, group), |mut tile| {
            let (row, nth) = (tile.rows().start, tile.cols().start / group);
            let before: usize = rows[..row].iter().map(spans_of).sum();
            let end = (before + spans_of(&rows[row]) - 1) * stride + (nth + 1) * width;
            let parts = &parts[before * stride + nth * width..end];
            join_heads(join, parts, stride, size, tile.row(row));
        });
    }

    /// Logits of the first rows of `x`, as many as `logits` has: `[rows, vocabulary]`.
    pub(crate) fn head(&mut self, head: &FloatMatrix, x: &Floats, logits: &mut [f32]) {
        let rows = logits.len() / head.rows;
        let grain = (rows, self.tiles.rows(head.cols * rows));
        self.pool.tiles(logits, head.rows, grain, |y| head.tile(x.rows(rows), y));
        self.calls.add(&head.head, 1);
        self.read.head += head.weights(0..head.rows).len() as u64;
    }

    /// Finds what is wanted of the logits of the first rows of `x`, for each row, and says whether it
    /// could.
    pub(crate) fn best(&mut self, head: &FloatMatrix, x: &Floats, wanted: &[Best<'_>]) -> bool {
        let Some(shortlist) = &head.shortlist else {
            return false;
        };
        let weights = head.weights(0..head.rows);
        let layer = Layer { weights, head: &head.head };
        let work = (&*self.pool, &mut self.search, &mut self.calls);
        let query =
            |(row, &Best { count: k, also, only, .. })| Query { x: x.row(row), k, also, only };
        let queries: Vec<_> = wanted.iter().enumerate().map(query).collect();
        let found = shortlist.best(layer, &queries, work);
        if found {
            self.read.head += self.search.read();
        }
        found
    }

    /// What [`CpuBackend::best`] found for a row.
    pub(crate) fn found(&self, row: usize) -> &[Candidate] {
        self.search.found(row)
    }

    /// Turns the heads of `x` by their angles.
    fn rope(&mut self, x: &mut Floats, rows: usize, (cos, sin): &(Floats, Floats)) {
        let rope = &self.kernels.rope;
        let cols = x.cols;
        self.each_row(x.rows_mut(rows), cols, |row, x| {
            (rope.run)(RopeArgs { x, cos: cos.row(row), sin: sin.row(row) });
        });
        self.calls.add(rope, rows as u64);
    }

    /// Calls `f` once for each row of `out`, whose rows have `cols` numbers.
    fn each_row(&self, out: &mut [f32], cols: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        self.pool.tiles(out, cols, (1, cols), |mut tile| {
            let row = tile.rows().start;
            f(row, tile.row(row));
        });
    }
}

/// Parts of attention to positions up to and with this one.
fn spans(position: usize) -> usize {
    position / SPAN + 1
}

/// Attention of tokens from `position` on to one span of positions. Queries are given with the numbers
/// from one token to the next and the head size.
fn attention<'a>(
    (q, stride, size): (&'a [f32], usize, usize),
    kv: Keys<'a>,
    position: usize,
    span: usize,
    out: Tile<'a, f32>,
) -> AttendArgs<'a> {
    AttendArgs {
        q,
        stride,
        size,
        kv,
        positions: position + 1,
        span: span * SPAN..(span + 1) * SPAN,
        ahead: true,
        scale: 1.0 / (size as f32).sqrt(),
        out,
    }
}

/// Joins the parts of some heads of a token: `[spans, heads, part]`, a span every `stride` numbers.
fn join_heads(join: &Bound<JoinFn>, parts: &[f32], stride: usize, size: usize, out: &mut [f32]) {
    let last = parts.len() - out.len() / size * part(size);
    for (head, out) in out.chunks_mut(size).enumerate() {
        let at = head * part(size);
        (join.run)(JoinArgs { parts: &parts[at..last + at + part(size)], stride, out });
    }
}

/// The tiles of the product of a matrix with some rows: all rows, some panels.
fn cut<'a>(linear: &Linear, out: &'a mut Floats, (rows, tiles): (usize, Tiles)) -> Cut<'a, f32> {
    let (stride, cols) = linear.shape();
    Cut { out: out.rows_mut(rows), stride, grain: (rows, tiles.rows(cols * rows)) }
}

impl Backend for CpuBackend {
    type Floats = Floats;
    type Quantized = Quantized;

    fn embed(&mut self, table: &FloatMatrix, rows: &[Row], scale: f32, out: &mut Floats) {
        let cols = out.cols;
        for (row, out) in rows.iter().zip(out.data.chunks_mut(cols)) {
            let token = row.token as usize;
            format::widen(table.format, table.weights(token..token + 1), out);
            if scale != 1.0 {
                out.iter_mut().for_each(|x| *x *= scale);
            }
        }
    }

    fn angles(&mut self, frequencies: &[f32], rows: &[Row], out: &mut (Floats, Floats)) {
        let half = frequencies.len();
        let (cos, sin) = (out.0.data.chunks_mut(half), out.1.data.chunks_mut(half));
        for (row, (cos, sin)) in rows.iter().zip(cos.zip(sin)) {
            for ((cos, sin), frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
                (*cos, *sin) = turn(row.position as f32 * frequency);
            }
        }
    }

    fn norm(&mut self, x: &Floats, norm: Norm<'_>, rows: usize, out: &mut Floats) {
        let normalize = self.kernels.norm;
        let (cols, part) = (out.cols, norm.weight.len());
        self.each_row(out.rows_mut(rows), cols, |row, y| {
            for (x, y) in x.row(row).chunks_exact(part).zip(y.chunks_exact_mut(part)) {
                (normalize.run)(NormArgs { x, weight: norm.weight, eps: norm.eps, y });
            }
        });
        self.calls.add(&normalize, rows as u64);
    }

    fn add(&mut self, x: &Floats, rows: usize, sum: &mut Floats) {
        let add = self.kernels.add;
        let cols = sum.cols;
        self.each_row(sum.rows_mut(rows), cols, |row, sum| {
            (add.run)(AddArgs { x: sum, y: x.row(row) });
        });
        self.calls.add(&add, rows as u64);
    }

    fn norm_quantize(&mut self, x: &Floats, norm: Norm<'_>, rows: usize, out: &mut Quantized) {
        let normalize = self.kernels.norm;
        self.quantize_rows(x, rows, out, |x, y| {
            (normalize.run)(NormArgs { x, weight: norm.weight, eps: norm.eps, y });
        });
        self.calls.add(&normalize, rows as u64);
    }

    fn quantize(&mut self, x: &Floats, rows: usize, out: &mut Quantized) {
        self.quantize_rows(x, rows, out, |x, y| y.copy_from_slice(x));
    }

    fn linear<const N: usize>(
        &mut self,
        x: &Quantized,
        rows: usize,
        outputs: [(&Linear, &mut Floats); N],
    ) {
        let linears = outputs.each_ref().map(|(linear, _)| *linear);
        let cuts = outputs.map(|(linear, out)| cut(linear, out, (rows, self.tiles)));
        self.pool.tiles_of(cuts, |index, tile| linears[index].tile(x, rows, tile));
        linears.into_iter().for_each(|linear| self.count(linear, rows));
    }

    fn linear_add(
        &mut self,
        x: &Quantized,
        rows: usize,
        linear: &Linear,
        (sum, product): (&mut Floats, &mut Floats),
    ) {
        let add = &self.kernels.add;
        let Cut { out: product, stride, grain } = cut(linear, product, (rows, self.tiles));
        self.pool.pairs([sum.rows_mut(rows), product], stride, grain, |mut sum, mut product| {
            linear.tile(x, rows, product.reborrow());
            for row in sum.rows() {
                (add.run)(AddArgs { x: sum.row(row), y: product.row(row) });
            }
        });
        self.calls.add(add, rows as u64);
        self.count(linear, rows);
    }

    fn gate(
        &mut self,
        x: &Quantized,
        rows: usize,
        [(gate, gated), (up, buffer)]: [(&Linear, &mut Floats); 2],
    ) {
        let Cut { out: gated, stride, grain } = cut(gate, gated, (rows, self.tiles));
        self.pool.pairs([gated, buffer.rows_mut(rows)], stride, grain, |mut gated, mut other| {
            gate.tile(x, rows, gated.reborrow());
            up.tile(x, rows, other.reborrow());
            for row in gated.rows() {
                self.kernels.gate.run(gated.row(row), other.row(row));
            }
        });
        self.kernels.gate.count(&mut self.calls, rows);
        self.count(gate, rows);
        self.count(up, rows);
    }

    fn activate(&mut self, gate: &mut Floats, up: &Floats, rows: usize) {
        let (cols, kernel) = (gate.cols, &self.kernels.gate);
        self.each_row(gate.rows_mut(rows), cols, |row, gate| kernel.run(gate, up.row(row)));
        self.kernels.gate.count(&mut self.calls, rows);
    }

    fn place(
        &mut self,
        layer: usize,
        rows: &[Row],
        angles: &(Floats, Floats),
        (q, k, v): (&mut Floats, &mut Floats, &Floats),
    ) {
        self.rope(q, rows.len(), angles);
        self.rope(k, rows.len(), angles);
        let store = &self.kernels.store;
        for (i, row) in rows.iter().enumerate() {
            let at = (row.sequence, row.position);
            self.cache.store(store.run, layer, at, [k.row(i), v.row(i)]);
        }
        self.calls.add(store, rows.len() as u64);
    }

    fn attend(&mut self, layer: usize, rows: &[Row], heads: Heads, q: &Floats, out: &mut Floats) {
        let groups = out.cols / (heads.group * heads.size);
        let longest = rows.iter().map(|row| row.position + 1).max().unwrap_or(1);
        if longest > SPAN && rows.len() * groups < SHARES * self.pool.threads() {
            self.attend_by_spans(layer, rows, heads, q, out);
        } else {
            self.attend_by_rows(layer, rows, heads, q, out);
        }
        let calls = rows.len() * groups * heads.group;
        self.calls.add(&self.kernels.attend, calls as u64);
        self.calls.add(&self.kernels.join, calls as u64);
    }

    fn norm_rows(&mut self, x: &Floats, norm: Norm<'_>, which: &[usize], out: &mut Floats) {
        let normalize = &self.kernels.norm;
        let cols = out.cols;
        for (&row, y) in which.iter().zip(out.data.chunks_mut(cols)) {
            (normalize.run)(NormArgs { x: x.row(row), weight: norm.weight, eps: norm.eps, y });
        }
        self.calls.add(normalize, which.len() as u64);
    }
}
