//! Runs kernels on small fixed data, for tools that count instructions: see `.ci/callgrind.sh`.
//!
//! `count` runs every kernel of this processor, `count ID ...` those. Each runs once, within a call
//! of the function `measured` of its own; its id is printed before.
#![expect(clippy::expect_used, reason = "a table that cannot be used is the end of this program")]

use std::hint::black_box;

use bitnet_kernels::op::{
    AddArgs, AddFn, AttendArgs, AttendFn, GemmArgs, GemmFn, GemvArgs, GemvFn, HeadArgs, HeadFn,
    KV_BLOCK, Keys, NormArgs, NormFn, PeakArgs, PeakFn, QuantizeArgs, QuantizeFn, ReadArgs, ReadFn,
    Relu2Args, Relu2Fn, RopeArgs, RopeFn, RowScale, SoftmaxArgs, SoftmaxFn,
};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::{Cpu, Format, Kernel, Operation, format, kernels};

/// Width of rows: that of 2B-4T, more than 16-bit lanes hold without emptying them.
const COLS: usize = 2560;
/// Rows of matrices: some tiles.
const ROWS: usize = 16;
/// Tokens of many: some tiles and a part.
const TOKENS: usize = 18;
/// Numbers of a head.
const HEAD: usize = 128;

/// A kernel with its data, ready to run.
type Run = Box<dyn FnMut()>;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let cpu = Cpu::detect();
    for kernel in kernels() {
        let id = kernel.to_string();
        if !wanted.is_empty() && !wanted.contains(&id) {
            continue;
        }
        if let Some(mut run) = prepare(kernel, &cpu) {
            println!("{id}");
            measured(&mut run);
        }
    }
}

/// What is counted.
#[inline(never)]
fn measured(run: &mut Run) {
    run();
}

/// The kernel with data; nothing if `cpu` cannot run it.
fn prepare(kernel: &Kernel, cpu: &Cpu) -> Option<Run> {
    match kernel.operation() {
        Operation::Gemv => Some(gemv(kernel.bind(cpu)?, kernel.format()?)),
        Operation::Gemm => Some(gemm(kernel.bind(cpu)?, kernel.format()?)),
        Operation::Head => Some(head(kernel.bind(cpu)?, kernel.format()?)),
        Operation::Quantize => Some(quantize(kernel.bind(cpu)?)),
        Operation::Norm => Some(norm(kernel.bind(cpu)?)),
        Operation::Rope => Some(rope(kernel.bind(cpu)?)),
        Operation::Softmax => Some(softmax(kernel.bind(cpu)?)),
        Operation::Relu2 => Some(relu2(kernel.bind(cpu)?)),
        Operation::Attend => Some(attend(kernel.bind(cpu)?)),
        Operation::Add => Some(add(kernel.bind(cpu)?)),
        Operation::Peak => Some(peak(kernel.bind(cpu)?)),
        Operation::Read => Some(read(kernel.bind(cpu)?)),
        // Not silently left out of the table.
        operation => panic!("{operation:?} needs data here"),
    }
}

/// Numbers between -1 and 1, different ones.
fn floats(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect()
}

/// The rows of a ternary matrix.
fn ternary(format: Format) -> Vec<u8> {
    let weights: Vec<i8> = (0..ROWS * COLS).map(|i| (i * 7 % 5 % 3) as i8 - 1).collect();
    let mut bytes = format::encode(format, &weights, ROWS, COLS, 1.0).expect("a legal shape");
    bytes.truncate(ROWS * format.row_bytes(COLS).expect("a legal width"));
    bytes
}

/// Activations of some tokens, with their scales.
fn activations(tokens: usize) -> (Vec<i8>, Vec<RowScale>) {
    let x: Vec<i8> = (0..tokens * COLS).map(|i| (i * 37 % 255) as u8 as i8).collect();
    let sum = |x: &[i8]| x.iter().map(|&x| i32::from(x)).sum();
    let scales = x.chunks(COLS).map(|x| RowScale { scale: 1.0, sum: sum(x) }).collect();
    (x, scales)
}

fn gemv(run: GemvFn, format: Format) -> Run {
    let (weights, (x, scales), mut y) = (ternary(format), activations(1), vec![0.0; ROWS]);
    Box::new(move || {
        run(GemvArgs { weights: &weights, scale: 1.0, x: &x, x_scale: scales[0], y: &mut y });
        black_box(&y);
    })
}

fn gemm(run: GemmFn, format: Format) -> Run {
    let (weights, (x, x_scales)) = (ternary(format), activations(TOKENS));
    let mut out = vec![0.0; TOKENS * ROWS];
    Box::new(move || {
        let y = Tile::new(&mut out, ROWS);
        run(GemmArgs { weights: &weights, scale: 1.0, x: &x, x_scales: &x_scales, y });
        black_box(&out);
    })
}

fn head(run: HeadFn, format: Format) -> Run {
    let weights = format::narrow(format, &floats(ROWS * COLS), COLS).expect("a legal width");
    let (x, mut out) = (floats(2 * COLS), vec![0.0; 2 * ROWS]);
    Box::new(move || {
        let y = Tile::new(&mut out, ROWS);
        run(HeadArgs { weights: &weights, x: &x, cols: COLS, y });
        black_box(&out);
    })
}

fn quantize(run: QuantizeFn) -> Run {
    let (x, mut q, mut scale) = (floats(COLS), vec![0; COLS], RowScale::default());
    Box::new(move || {
        run(QuantizeArgs { x: &x, q: &mut q, scale: &mut scale });
        black_box(&q);
    })
}

fn norm(run: NormFn) -> Run {
    let (x, weight, mut y) = (floats(COLS), floats(COLS), vec![0.0; COLS]);
    Box::new(move || {
        run(NormArgs { x: &x, weight: &weight, eps: 1e-5, y: &mut y });
        black_box(&y);
    })
}

fn rope(run: RopeFn) -> Run {
    let (mut x, cos, sin) = (floats(4 * HEAD), floats(HEAD / 2), floats(HEAD / 2));
    Box::new(move || {
        run(RopeArgs { x: &mut x, cos: &cos, sin: &sin });
        black_box(&x);
    })
}

fn softmax(run: SoftmaxFn) -> Run {
    let mut x = floats(COLS);
    Box::new(move || {
        run(SoftmaxArgs { x: &mut x });
        black_box(&x);
    })
}

fn relu2(run: Relu2Fn) -> Run {
    let (mut gate, up) = (floats(COLS), floats(COLS));
    Box::new(move || {
        run(Relu2Args { gate: &mut gate, up: &up });
        black_box(&gate);
    })
}

fn attend(run: AttendFn) -> Run {
    const POSITIONS: usize = 40;
    let table: Vec<u32> = (0..POSITIONS.div_ceil(KV_BLOCK) as u32).collect();
    let blocks: Vec<Box<[f32]>> =
        table.iter().map(|_| floats(2 * KV_BLOCK * HEAD).into()).collect();
    let (q, mut out) = (floats(HEAD), vec![0.0; HEAD]);
    Box::new(move || {
        let (keys, values) = (0, KV_BLOCK * HEAD);
        let kv = Keys { blocks: &blocks, table: &table, keys, values, stride: HEAD };
        run(AttendArgs { q: &q, kv, head: 0, positions: POSITIONS, scale: 0.1, out: &mut out });
        black_box(&out);
    })
}

fn add(run: AddFn) -> Run {
    let (mut x, y) = (floats(COLS), floats(COLS));
    Box::new(move || {
        run(AddArgs { x: &mut x, y: &y });
        black_box(&x);
    })
}

fn peak(run: PeakFn) -> Run {
    let mut products = 0;
    Box::new(move || {
        run(PeakArgs { repeats: 256, products: &mut products });
        black_box(products);
    })
}

fn read(run: ReadFn) -> Run {
    let (data, mut sum) = (floats(ROWS * COLS), 0.0);
    Box::new(move || {
        run(ReadArgs { data: &data, sum: &mut sum });
        black_box(sum);
    })
}
