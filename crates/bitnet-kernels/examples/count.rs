//! Runs kernels on small fixed data, for tools that count instructions: see `.ci/callgrind.sh`.
//!
//! `count` runs every kernel of this processor, `count ID ...` those. Each runs once, within a call
//! of the function `measured` of its own; its id is printed before.
#![expect(clippy::expect_used, reason = "a table that cannot be used is the end of this program")]

use std::hint::black_box;

use bitnet_kernels::op::*;
use bitnet_kernels::pool::{Pool, Tile};
use bitnet_kernels::{Aligned, Cpu, Format, Kernel, Operation, Packed, format, kernels};

/// Width of rows: that of 2B-4T, more than 16-bit lanes hold without emptying them.
const COLS: usize = 2560;
/// Rows of matrices: some tiles.
const ROWS: usize = 64;
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
        Operation::Relu2 => Some(gate(kernel.bind::<Relu2Fn>(cpu)?, Relu2)),
        Operation::Silu => Some(gate(kernel.bind::<SiluFn>(cpu)?, Silu)),
        Operation::Gelu => Some(gate(kernel.bind::<GeluFn>(cpu)?, Gelu)),
        Operation::Attend => Some(attend(kernel.bind(cpu)?, kernel.format()?)),
        Operation::Join => Some(join(kernel.bind(cpu)?)),
        Operation::Store => Some(store(kernel.bind(cpu)?, kernel.format()?)),
        Operation::Absmean => Some(absmean(kernel.bind(cpu)?)),
        Operation::Ternarize => Some(ternarize(kernel.bind(cpu)?, kernel.format())),
        Operation::Matmul => Some(matmul(kernel.bind(cpu)?)),
        Operation::Condense => Some(condense(kernel.bind(cpu)?, kernel.format()?)),
        Operation::Scan => Some(scan(kernel.bind(cpu)?)),
        Operation::Refine => Some(refine(kernel.bind(cpu)?)),
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

/// A ternary matrix.
fn ternary(layout: Format) -> Packed {
    let weights: Vec<i8> = (0..ROWS * COLS).map(|i| (i * 7 % 5 % 3) as i8 - 1).collect();
    let bytes = format::encode(Format::I2S, &weights, ROWS, COLS, 1.0).expect("a legal shape");
    Packed::new(Format::I2S, &bytes, (ROWS, COLS), layout, &Pool::alone()).expect("a sound matrix")
}

/// Activations of some tokens, with their scales.
fn activations(tokens: usize) -> (Vec<i8>, Vec<RowScale>) {
    let x: Vec<i8> = (0..tokens * COLS).map(|i| (i * 37 % 255) as u8 as i8).collect();
    let sum = |x: &[i8]| x.iter().map(|&x| i32::from(x)).sum();
    let scales = x.chunks(COLS).map(|x| RowScale { scale: 1.0, sum: sum(x) }).collect();
    (x, scales)
}

fn gemv(run: GemvFn, layout: Format) -> Run {
    let (matrix, (x, scales), mut y) = (ternary(layout), activations(1), vec![0.0; ROWS]);
    Box::new(move || {
        let (panels, x) = (matrix.panels(0..ROWS), x.as_chunks().0);
        run(GemvArgs { panels, scale: 1.0, x, x_scale: scales[0], y: &mut y });
        black_box(&y);
    })
}

fn gemm(run: GemmFn, layout: Format) -> Run {
    let (matrix, (rows, x_scales)) = (ternary(layout), activations(TOKENS));
    let mut x = vec![[[0; 4]; 4]; TOKENS.div_ceil(4) * COLS / 4];
    interleave(&rows, COLS, &mut x);
    let mut out = vec![0.0; TOKENS * ROWS];
    Box::new(move || {
        let (panels, y) = (matrix.panels(0..ROWS), Tile::new(&mut out, ROWS));
        run(GemmArgs { panels, scale: 1.0, x: &x, x_scales: &x_scales, y });
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

fn gate<G: Copy + 'static>(run: for<'a> fn(GateArgs<'a, G>), by: G) -> Run {
    let (mut gate, up) = (floats(COLS), floats(COLS));
    Box::new(move || {
        run(GateArgs { gate: &mut gate, up: &up, by });
        black_box(&gate);
    })
}

/// Bytes of the key or value of a head.
fn head_bytes(format: Format) -> usize {
    format.row_bytes(HEAD).expect("whole blocks")
}

fn attend(run: AttendFn, format: Format) -> Run {
    const POSITIONS: usize = 40;
    const HEADS: usize = 4;
    let stride = head_bytes(format);
    let table: Vec<u32> = (0..POSITIONS.div_ceil(KV_BLOCK) as u32).collect();
    let numbers = floats(2 * KV_BLOCK * HEAD);
    let block = format::narrow(format, &numbers, HEAD).expect("a legal width");
    let blocks = table.iter().map(|_| {
        let mut aligned = Aligned::zeros(block.len()).expect("memory");
        aligned.copy_from_slice(&block);
        aligned
    });
    let blocks: Vec<_> = blocks.collect();
    let (q, mut out) = (floats(HEADS * HEAD), vec![0.0; HEADS * part(HEAD)]);
    Box::new(move || {
        let (keys, values) = (0, KV_BLOCK * stride);
        let kv = Keys { blocks: &blocks, table: &table, keys, values, stride };
        run(AttendArgs {
            q: &q,
            stride: HEADS * HEAD,
            size: HEAD,
            kv,
            positions: POSITIONS,
            span: 0..SPAN,
            ahead: false,
            scale: 0.1,
            out: Tile::new(&mut out, HEADS * part(HEAD)),
        });
        black_box(&out);
    })
}

fn join(run: JoinFn) -> Run {
    const PARTS: usize = 8;
    let (parts, mut out) = (floats(PARTS * part(HEAD)), vec![0.0; HEAD]);
    Box::new(move || {
        run(JoinArgs { parts: &parts, stride: part(HEAD), out: &mut out });
        black_box(&out);
    })
}

fn store(run: StoreFn, format: Format) -> Run {
    let (x, mut out) = (floats(HEAD), vec![0; head_bytes(format)]);
    Box::new(move || {
        run(StoreArgs { x: &x, place: Place::Row, out: &mut out });
        black_box(&out);
    })
}

fn absmean(run: AbsmeanFn) -> Run {
    let (x, mut sums) = (floats(2 * ABSMEAN_BLOCK), [0.0; 2]);
    Box::new(move || {
        run(AbsmeanArgs { x: &x, sums: &mut sums });
        black_box(&sums);
    })
}

fn ternarize(run: TernarizeFn, format: Option<Format>) -> Run {
    let scale = TernaryScale::new(&[COLS as f32 / 2.0], COLS).expect("a finite mean");
    let bytes = format.map_or(COLS, |_| COLS / 4);
    let (x, mut codes) = (floats(COLS), vec![0; bytes]);
    Box::new(move || {
        run(TernarizeArgs { x: &x, scale, codes: &mut codes });
        black_box(&codes);
    })
}

fn matmul(run: MatmulFn) -> Run {
    let (a, _) = activations(2);
    let (b, mut c) = (vec![2; COLS * ROWS], vec![0.0; 2 * ROWS]);
    Box::new(move || {
        run(MatmulArgs { a: &a, b: &b, c: &mut c, shape: [2, ROWS, COLS] });
        black_box(&c);
    })
}

fn condense(run: CondenseFn, format: Format) -> Run {
    let row = format::narrow(format, &floats(COLS), COLS).expect("a legal width");
    let groups = COLS / CONDENSED;
    let (mut codes, mut fine) = (vec![[0; CODE_BYTES]; groups], vec![[0; 8]; groups]);
    let (mut scales, mut norms) = (vec![0; groups], RowNorms::default());
    Box::new(move || {
        run(CondenseArgs {
            row: &row,
            codes: &mut codes,
            fine: &mut fine,
            scales: &mut scales,
            norms: &mut norms,
        });
        black_box((&codes, &fine));
    })
}

fn scan(run: ScanFn) -> Run {
    let (panels, groups) = (ROWS / 32, COLS / CONDENSED);
    let codes = vec![[0x5B; 128]; panels * groups * CODE_GROUPS];
    let scales = vec![[100; 32]; panels * groups];
    let (x, _) = activations(1);
    let x_scales = vec![GroupScale { scale: 0.5, sum: 3, norm: 1.5 }; groups];
    let (mut products, mut norms) = (vec![[0.0; 32]; panels], vec![[0.0; 32]; panels]);
    Box::new(move || {
        run(ScanArgs {
            codes: &codes,
            scales: &scales,
            x: x.as_chunks().0,
            x_scales: &x_scales,
            products: &mut products,
            norms: &mut norms,
        });
        black_box((&products, &norms));
    })
}

fn refine(run: RefineFn) -> Run {
    let blocks = COLS / CONDENSED / LANE_GROUPS;
    let (fine, scales) = (vec![[0x5B; 128]; blocks], vec![[100; LANE_GROUPS]; blocks]);
    let x = FineActivations {
        bytes: [[3; 128]; 4],
        scales: [0.5; LANE_GROUPS],
        sums: [96; LANE_GROUPS],
    };
    let (x, mut products) = (vec![x; blocks], [0.0; LANE_GROUPS]);
    Box::new(move || {
        run(RefineArgs { fine: &fine, scales: &scales, x: &x, products: &mut products });
        black_box(products);
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
