//! Measures kernels, threads and tiles.

use std::num::NonZeroUsize;
use std::time::Instant;

use bitnet_kernels::manager::{Matrix, Product};
use bitnet_kernels::{
    Device, Format, KernelId, KernelManager, Operation, Pool, format, limits, packed,
};

use super::{Best, Candidate, Measured, Tuning};
use crate::linear::{QuantizedLinear, Tiles};
use crate::machine::Machine;
use crate::state::Quantized;
use crate::{Config, Error};

/// A matrix of a model, and how many there are of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Matrices of this shape.
    pub count: usize,
}

impl Shape {
    /// The shapes of the linear layers of a model, each once.
    #[must_use]
    pub fn of(config: &Config) -> Vec<Shape> {
        let (hidden, ffn, q, kv) = (config.hidden, config.ffn, config.q_size(), config.kv_size());
        let all = [(q, hidden), (kv, hidden), (kv, hidden), (hidden, q)];
        let all = all.into_iter().chain([(ffn, hidden), (ffn, hidden), (hidden, ffn)]);
        let mut shapes: Vec<Shape> = Vec::new();
        for (rows, cols) in all {
            match shapes.iter_mut().find(|s| (s.rows, s.cols) == (rows, cols)) {
                Some(shape) => shape.count += config.layers,
                None => shapes.push(Shape { rows, cols, count: config.layers }),
            }
        }
        shapes
    }

    fn matrix(self, format: Format) -> Matrix {
        Matrix { format: Some(format), rows: self.rows, cols: self.cols }
    }
}

/// Bytes of matrices of a shape at most: more than most caches hold.
const BYTES: usize = 256 << 20;
/// Tokens of a gemm.
const TOKENS: usize = 128;
/// Passes that are measured; the median counts.
const ROUNDS: usize = 5;
/// What must be gained by more threads, or by another tile than usual: less is noise.
const GAIN: f64 = 0.97;

/// Measures the kernels for some shapes with each layout and instruction set that `manager` allows,
/// and with them threads and tiles; `progress` is told what comes next.
///
/// # Errors
///
/// Where a shape suits no layout, or there is no memory or no thread.
pub fn measure(
    manager: &KernelManager,
    shapes: &[Shape],
    mut progress: impl FnMut(&str),
) -> Result<Tuning, Error> {
    let machine = Machine::detect();
    let largest = shapes.iter().max_by_key(|shape| shape.rows * shape.cols * shape.count);
    let Some(&largest) = largest else {
        let (threads, tile) = (machine.threads(), Tiles::default().0);
        return Ok(Tuning::new(Best { threads, tile, shapes: Vec::new() }));
    };
    progress("threads");
    let mut counts: Vec<_> = (0..).map(|n| 1 << n).take_while(|&n| n < machine.allowed).collect();
    counts.extend([machine.cores.min(machine.allowed), machine.allowed]);
    counts.sort_unstable();
    counts.dedup();
    let mut pools = counts.into_iter().map(pool).collect::<Result<Vec<_>, _>>()?;
    let mut bench = Bench::new(largest, manager, &pools[pools.len() - 1])?;
    let seconds = alternating(&pools, |pool| bench.gemv(pool, Tiles::default()));
    let usual = pools.iter().position(|pool| pool.threads() == machine.threads()).unwrap_or(0);
    let pool = pools.swap_remove(fastest(&seconds, usual));

    progress("tiles");
    let tiles: Vec<_> = (15..=21).map(|shift| Tiles(1 << shift)).collect();
    let seconds = alternating(&tiles, |&tiles| bench.gemv(&pool, tiles));
    let usual = tiles.iter().position(|&tiles| tiles == Tiles::default()).unwrap_or(0);
    let tiles = tiles[fastest(&seconds, usual)];
    drop(bench);

    let mut measured = Vec::new();
    for &shape in shapes {
        progress(&format!("kernels for {} x {}", shape.rows, shape.cols));
        measured.extend(kernels(shape, manager, (&pool, tiles))?);
    }
    Ok(Tuning::new(Best { threads: pool.threads(), tile: tiles.0, shapes: measured }))
}

fn pool(threads: usize) -> Result<Pool, Error> {
    let count = NonZeroUsize::new(threads).unwrap_or(NonZeroUsize::MIN);
    Pool::new(count).map_err(|source| Error::Threads { threads, source })
}

/// The median time of each of some things, after a round that is not counted. They are measured in
/// turns: what else the machine does hits all of them alike.
fn alternating<T>(things: &[T], mut seconds: impl FnMut(&T) -> f64) -> Vec<f64> {
    let mut rounds: Vec<_> = things.iter().map(|_| Vec::with_capacity(ROUNDS)).collect();
    for round in 0..=ROUNDS {
        for (thing, found) in things.iter().zip(&mut rounds) {
            let seconds = seconds(thing);
            if round > 0 {
                found.push(seconds);
            }
        }
    }
    rounds.iter().map(|found| limits::median(found)).collect()
}

/// The fastest, or the usual one if that is nearly as fast.
fn fastest(seconds: &[f64], usual: usize) -> usize {
    let by_time = |a: &usize, b: &usize| seconds[*a].total_cmp(&seconds[*b]);
    let first = (0..seconds.len()).min_by(by_time).unwrap_or(usual);
    if seconds[first] < seconds[usual] * GAIN { first } else { usual }
}

/// The kernels for a shape, gemv and gemm, the fastest first.
fn kernels(
    shape: Shape,
    manager: &KernelManager,
    (pool, tiles): (&Pool, Tiles),
) -> Result<[Measured; 2], Error> {
    let isas = manager.cpu().isas();
    // Plain code is only worth a try where there is nothing else.
    let isas = if isas.len() > 1 { &isas[1..] } else { isas };
    let (mut benches, mut ways) = (Vec::new(), Vec::new());
    let suits = |layout: &&Format| packed::bytes(**layout, shape.rows, shape.cols).is_ok();
    for &layout in Format::PACKED.iter().filter(suits) {
        let mut bench = None;
        for &isa in isas {
            let manager = manager.clone().limit(isa)?;
            // What the user excludes is not measured.
            let Ok(product) = manager.product(shape.matrix(layout)) else {
                continue;
            };
            if bench.is_none() {
                bench = Some(Bench::new(shape, &manager.limit_layout(layout), pool)?);
            }
            ways.push((benches.len(), product));
        }
        benches.extend(bench);
    }
    // Ternary files of every format are packed alike.
    let usual = manager.product(shape.matrix(Format::I2S))?;
    let rank = |operation: Operation, id: fn(&Product) -> KernelId, seconds: Vec<f64>| {
        let place = ways.iter().position(|(_, product)| id(product) == id(&usual)).unwrap_or(0);
        let best = fastest(&seconds, place);
        let mut order: Vec<_> = (0..ways.len()).collect();
        order.sort_by(|a, b| {
            (*a != best).cmp(&(*b != best)).then(seconds[*a].total_cmp(&seconds[*b]))
        });
        let kernels = order.into_iter().map(|i| Candidate {
            id: id(&ways[i].1).to_string(),
            nanoseconds: (seconds[i] * 1e9) as u64,
        });
        let Shape { rows, cols, .. } = shape;
        Measured { operation: operation.to_string(), rows, cols, kernels: kernels.collect() }
    };
    let mut time = |work: fn(&mut Bench, &Pool, Tiles) -> f64| {
        alternating(&ways, |(bench, product)| {
            benches[*bench].bind(*product);
            work(&mut benches[*bench], pool, tiles)
        })
    };
    let (gemv, gemm) = (time(Bench::gemv), time(Bench::gemm));
    Ok([
        rank(Operation::Gemv, |product| product.gemv.kernel.id(), gemv),
        rank(Operation::Gemm, |product| product.gemm.kernel.id(), gemm),
    ])
}

/// Matrices of a shape, as many as a model has, and activations.
struct Bench {
    matrices: Vec<QuantizedLinear>,
    one: Quantized,
    many: Quantized,
    y: Vec<f32>,
}

impl Bench {
    fn new(shape: Shape, manager: &KernelManager, pool: &Pool) -> Result<Bench, Error> {
        let Shape { rows, cols, count } = shape;
        // A format whose columns suit both layouts or the one that there is.
        let formats = [Format::I2S, Format::Iq2Bn, Format::Tl2, Format::Tl1];
        let weights: Vec<i8> = (0..rows * cols).map(|i| ((i * 7 + i / 11) % 3) as i8 - 1).collect();
        let encode = |f: &Format| Some((*f, format::encode(*f, &weights, rows, cols, 1.0).ok()?));
        let (format, file) = formats.iter().find_map(encode).unwrap_or((Format::I2S, Vec::new()));
        let new = || {
            let layer = QuantizedLinear::new(cols, rows, Some(format), Device::Cpu, manager)?;
            layer.load(&file, pool).map_err(|source| Error::Tensor {
                file: "measurement".to_owned(),
                tensor: format!("{rows} x {cols}"),
                offset: 0,
                source,
            })
        };
        let first = new()?;
        let most = (BYTES / first.bytes().max(1)).max(1);
        let rest = (1..count.min(most)).map(|_| new());
        let matrices = [Ok(first)].into_iter().chain(rest).collect::<Result<Vec<_>, Error>>()?;
        let x: Vec<f32> = (0..TOKENS * cols).map(|i| ((i * 5 + i / 13) % 255) as f32).collect();
        Ok(Bench {
            one: matrices[0].quantize(&x[..cols])?,
            many: matrices[0].quantize(&x)?,
            y: vec![0.0; TOKENS * rows],
            matrices,
        })
    }

    /// Takes other kernels for the layout that the matrices have.
    fn bind(&mut self, product: Product) {
        self.matrices.iter_mut().for_each(|matrix| matrix.bind(product));
    }

    /// Seconds for a product with a row.
    fn gemv(&mut self, pool: &Pool, tiles: Tiles) -> f64 {
        let start = Instant::now();
        for matrix in &self.matrices {
            matrix.product((&self.one, 1), &mut self.y, (pool, tiles));
        }
        start.elapsed().as_secs_f64() / self.matrices.len() as f64
    }

    /// Seconds for a product with [`TOKENS`] rows.
    fn gemm(&mut self, pool: &Pool, tiles: Tiles) -> f64 {
        let start = Instant::now();
        self.matrices[0].product((&self.many, TOKENS), &mut self.y, (pool, tiles));
        start.elapsed().as_secs_f64()
    }
}
