//! The matrix kernels, in the shapes of BitNet b1.58 2B-4T, against the limits of the machine.
//!
//! `cargo bench -p bitnet-kernels`: gemv with weights streamed from memory in GB/s and share of the
//! measured read bandwidth; gemm in 10^9 multiply-adds a second and share of the measured peak.
//! Medians of several rounds. `-- --threads=2` shares the work among threads, `-- --tokens=512` is
//! what gemm takes at once; `-- --smoke` runs everything once, small; `-- --json` prints an object
//! to a line; `-- gemv avx2` runs the kernels with such an id.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Instant;

use bitnet_kernels::op::{
    AttendArgs, AttendFn, CODE_GROUPS, CONDENSED, GemmArgs, GemmFn, GemvArgs, GemvFn, GroupScale,
    HeadArgs, HeadFn, KV_BLOCK, Keys, RowScale, ScanArgs, ScanFn, part,
};
use bitnet_kernels::packed::{Group, PAIR, ROWS};
use bitnet_kernels::shapes::{BITNET_2B_4T, Shape};
use bitnet_kernels::{
    Aligned, Cpu, Format, Kernel, KernelManager, Operation, Packed, Pool, kernels, limits,
};

/// How much to measure.
struct Effort {
    /// Bytes of weights that gemv goes through, so that they come from memory.
    streamed: usize,
    tokens: usize,
    positions: usize,
    rounds: usize,
}

const FULL: Effort = Effort { streamed: 1 << 30, tokens: 128, positions: 4096, rounds: 5 };
const SMOKE: Effort = Effort { streamed: 1 << 20, tokens: 5, positions: 40, rounds: 1 };

/// Multiply-adds that a thread takes at a time.
const TILE: usize = 1 << 18;
/// Bytes of this are small normal numbers in every format.
const SMALL: u8 = 0x2A;

struct Bench {
    cpu: Cpu,
    effort: Effort,
    pool: Pool,
    /// GB/s.
    bandwidth: f64,
    json: bool,
}

fn main() {
    let flag = |name: &str| std::env::args().any(|arg| arg == name);
    let number = |name: &str| {
        let value = std::env::args().find_map(|arg| arg.strip_prefix(name).map(str::to_owned));
        value.map(|value| value.parse::<NonZeroUsize>().expect("a number above zero"))
    };
    let (mut effort, json) = (if flag("--smoke") { SMOKE } else { FULL }, flag("--json"));
    effort.tokens = number("--tokens=").map_or(effort.tokens, NonZeroUsize::get);
    let cpu = Cpu::detect();
    let pool = number("--threads=").map_or(Pool::alone(), |n| Pool::new(n).expect("threads"));
    let bandwidth = limits::read_bandwidth(&pool, effort.streamed, effort.rounds);
    if !json {
        println!("{} threads, medians of {} rounds", pool.threads(), effort.rounds);
        println!("read bandwidth {bandwidth:.1} GB/s");
    }
    let bench = Bench { cpu, effort, pool, bandwidth, json };
    // Parts of ids: only kernels that have one of them.
    let wanted: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let all = kernels().filter(|kernel| {
        wanted.is_empty() || wanted.iter().any(|part| kernel.to_string().contains(part))
    });
    for kernel in all {
        match kernel.operation() {
            Operation::Gemv => BITNET_2B_4T.into_iter().for_each(|s| bench.gemv(kernel, s)),
            Operation::Gemm => BITNET_2B_4T.into_iter().for_each(|s| bench.gemm(kernel, s)),
            Operation::Attend => bench.attend(kernel),
            Operation::Head => bench.head(kernel, Shape { rows: 4096, cols: 2560 }),
            Operation::Scan => bench.scan(kernel, Shape { rows: 4096, cols: 2560 }),
            _ => {}
        }
    }
}

impl Bench {
    /// The median duration of `work`, in seconds.
    fn time(&self, mut work: impl FnMut()) -> f64 {
        let mut seconds: Vec<_> = (0..self.effort.rounds)
            .map(|_| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    }

    /// A line, or an object of JSON, for a product that took `seconds`.
    fn report(&self, kernel: &Kernel, shape: Shape, tokens: usize, bytes: usize, seconds: f64) {
        let Shape { rows, cols } = shape;
        let streamed = kernel.operation() != Operation::Gemm;
        let (speed, limit) = match streamed {
            true => (bytes as f64 / seconds / 1e9, self.bandwidth),
            false => ((rows * cols * tokens) as f64 / seconds / 1e9, self.peak(kernel)),
        };
        let share = speed / limit;
        if self.json {
            let unit = if streamed { "gbps" } else { "gmacs" };
            println!(
                "{{\"id\":\"{kernel}\",\"rows\":{rows},\"cols\":{cols},\"tokens\":{tokens},\
                 \"bytes\":{bytes},\"seconds\":{seconds:e},\"{unit}\":{speed:.3},\
                 \"limit\":{limit:.3},\"share\":{share:.4}}}"
            );
            return;
        }
        let unit = if streamed { "GB/s" } else { "GMAC/s" };
        let share = 100.0 * share;
        println!(
            "{:<28} {rows:>6} x {cols:<5} {tokens:>4} {speed:>8.2} {unit:<6} {share:>5.1} % of {limit:.1}",
            kernel.to_string()
        );
    }

    fn gemv(&self, kernel: &Kernel, shape: Shape) {
        let (Some(run), Some(layout)) = (kernel.bind::<GemvFn>(&self.cpu), kernel.format()) else {
            return;
        };
        let copies = self.effort.streamed.div_ceil(shape.rows * shape.cols / 4);
        let tall = Shape { rows: shape.rows * copies, cols: shape.cols };
        let matrix = matrix(layout, tall);
        let x = vec![[1; 4]; shape.cols / 4];
        let x_scale = RowScale { scale: 1.0, sum: shape.cols as i32 };
        let mut y = vec![0.0; shape.rows];
        let seconds = self.time(|| {
            for copy in 0..copies {
                let first = copy * shape.rows;
                self.pool.tiles(&mut y, shape.rows, (1, tile_rows(shape.cols)), |mut y| {
                    let panels = matrix.panels(first + y.cols().start..first + y.cols().end);
                    run(GemvArgs { panels, scale: 1.0, x: &x, x_scale, y: y.row(0) });
                });
                black_box(&y);
            }
        });
        let bytes = matrix.panels(0..shape.rows).bytes();
        self.report(kernel, shape, 1, bytes, seconds / copies as f64);
    }

    fn gemm(&self, kernel: &Kernel, shape: Shape) {
        let (Some(run), Some(layout)) = (kernel.bind::<GemmFn>(&self.cpu), kernel.format()) else {
            return;
        };
        let tokens = self.effort.tokens;
        let matrix = matrix(layout, shape);
        let x = vec![[[1; 4]; 4]; tokens.div_ceil(4) * shape.cols / 4];
        let x_scales = vec![RowScale { scale: 1.0, sum: shape.cols as i32 }; tokens];
        let mut y = vec![0.0; tokens * shape.rows];
        let seconds = self.time(|| {
            let grain = (tokens, tile_rows(shape.cols * tokens));
            self.pool.tiles(&mut y, shape.rows, grain, |y| {
                let panels = matrix.panels(y.cols());
                run(GemmArgs { panels, scale: 1.0, x: &x, x_scales: &x_scales, y });
            });
        });
        black_box(&y);
        self.report(kernel, shape, tokens, matrix.panels(0..shape.rows).bytes(), seconds);
    }

    /// The peak of an instruction set, measured beside what it is compared with.
    fn peak(&self, kernel: &Kernel) -> f64 {
        let peak = |manager| limits::int8_peak(&manager, &self.pool, self.effort.rounds).ok();
        KernelManager::new().limit(kernel.isa()).ok().and_then(peak).unwrap_or(f64::NAN)
    }

    fn head(&self, kernel: &Kernel, shape: Shape) {
        let (Some(run), Some(format)) = (kernel.bind::<HeadFn>(&self.cpu), kernel.format()) else {
            return;
        };
        let row = format.row_bytes(shape.cols).expect("a width every format has");
        let copies = self.effort.streamed.div_ceil(row * shape.rows);
        let weights = vec![SMALL; row * shape.rows * copies];
        let x = vec![1.0; shape.cols];
        let mut y = vec![0.0; shape.rows * copies];
        let seconds = self.time(|| {
            self.pool.tiles(&mut y, shape.rows * copies, (1, PAIR), |y| {
                let weights = &weights[row * y.cols().start..row * y.cols().end];
                run(HeadArgs { weights, x: &x, cols: shape.cols, y });
            });
            black_box(&y);
        });
        self.report(kernel, shape, 1, row * shape.rows, seconds / copies as f64);
    }

    /// The shortlist's look at all rows, panel by panel.
    fn scan(&self, kernel: &Kernel, shape: Shape) {
        let Some(run) = kernel.bind::<ScanFn>(&self.cpu) else { return };
        let width = shape.cols / CONDENSED;
        let size = width * CODE_GROUPS;
        let bytes = shape.rows / ROWS * (size * size_of::<Group>() + width * ROWS);
        let copies = self.effort.streamed.div_ceil(bytes);
        let panels = copies * shape.rows / ROWS;
        let mut codes = Aligned::zeros(panels * size * size_of::<Group>()).expect("memory");
        codes.fill(SMALL);
        let scales = vec![[1; ROWS]; panels * width];
        let x = vec![[1; 4]; shape.cols / 4];
        let x_scales = vec![GroupScale { scale: 1.0, sum: 32, norm: 6.0 }; width];
        let mut out = vec![[[[0.0; ROWS]]; 2]; panels];
        let seconds = self.time(|| {
            self.pool.tiles(&mut out, 1, (8, 1), |mut out| {
                for panel in out.rows() {
                    let [products, norms] = &mut out.row(panel)[0];
                    run(ScanArgs {
                        codes: &codes.as_chunks().0[panel * size..][..size],
                        scales: &scales[panel * width..][..width],
                        x: &x,
                        x_scales: &x_scales,
                        products,
                        norms,
                    });
                }
            });
            black_box(&out);
        });
        self.report(kernel, shape, 1, bytes, seconds / copies as f64);
    }

    /// One token of four heads that share keys and values, as the engine keeps them: those of all
    /// layers and heads in each block.
    fn attend(&self, kernel: &Kernel) {
        let (Some(run), Some(format)) = (kernel.bind::<AttendFn>(&self.cpu), kernel.format())
        else {
            return;
        };
        let (size, heads) = (128, 4);
        let stride = format.row_bytes(size).expect("a width every format has");
        let table: Vec<u32> = (0..self.effort.positions.div_ceil(KV_BLOCK) as u32).collect();
        let pair = 2 * KV_BLOCK * stride;
        let copies = self.effort.streamed.div_ceil(pair * table.len());
        let block = |_: &u32| {
            let mut block = Aligned::zeros(pair * copies).expect("memory");
            // Pages that were never written would all be the same one.
            block.fill(SMALL);
            block
        };
        let blocks: Vec<_> = table.iter().map(block).collect();
        let (q, width) = (vec![1.0; heads * size], heads * part(size));
        let mut out = vec![0.0; copies * width];
        let seconds = self.time(|| {
            self.pool.tiles(&mut out, width, (1, width), |out| {
                let keys = pair * out.rows().start;
                let values = keys + pair / 2;
                run(AttendArgs {
                    q: &q,
                    stride: q.len(),
                    size,
                    kv: Keys { blocks: &blocks, table: &table, keys, values, stride },
                    positions: self.effort.positions,
                    span: 0..table.len() * KV_BLOCK,
                    ahead: true,
                    scale: 0.1,
                    out,
                });
            });
            black_box(&out);
        });
        let shape = Shape { rows: self.effort.positions, cols: size };
        self.report(kernel, shape, 1, pair * table.len(), seconds / copies as f64);
    }
}

/// Matrix rows of a tile whose rows cost `work` multiply-adds each.
fn tile_rows(work: usize) -> usize {
    (TILE / work).max(2 * PAIR).next_multiple_of(PAIR)
}

/// A matrix of zeros; kernels take as long for any weights.
fn matrix(layout: Format, Shape { rows, cols }: Shape) -> Packed {
    let bytes = vec![0x55; rows * cols / 4 + 32];
    Packed::new(Format::I2S, &bytes, (rows, cols), layout, &Pool::alone()).expect("a legal shape")
}
