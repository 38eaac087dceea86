//! Products with ternary matrices.

use bitnet_gpu::{AccessPattern, analyze_access_pattern, tiles};
use ptx_emu::{Module, Read, Report};

use crate::gpu::{Args, GATES, Gpu, Random, bits};
use crate::texts;

/// A matrix, and what is known of it.
pub(crate) struct Matrix {
    weights: Vec<i8>,
    pub(crate) rows: usize,
    scale: f32,
}

/// Activations of some tokens.
pub(crate) struct Activations {
    pub(crate) cols: usize,
    pub(crate) q: Vec<Vec<i8>>,
    pub(crate) scales: Vec<f32>,
}

impl Activations {
    fn new(tokens: usize, cols: usize, seed: u64) -> Activations {
        let mut random = Random::new(seed);
        let q = (0..tokens)
            .map(|_| (0..cols).map(|_| random.below(256) as u8 as i8).collect())
            .collect();
        Activations { cols, q, scales: (0..tokens).map(|i| 3.7 + 11.3 * i as f32).collect() }
    }

    /// All as low, or as high, as they can be.
    fn extreme(tokens: usize, cols: usize) -> Activations {
        let q = (0..tokens).map(|i| vec![if i % 2 == 0 { -128 } else { 127 }; cols]).collect();
        Activations { cols, q, scales: vec![1.0; tokens] }
    }
}

impl Matrix {
    pub(crate) fn new(rows: usize, cols: usize, seed: u64) -> Matrix {
        Matrix {
            weights: Random::new(seed).weights(rows * cols),
            rows,
            scale: 0.5 + seed as f32 / 7.0,
        }
    }

    pub(crate) fn product(&self, x: &Activations) -> Vec<Vec<f32>> {
        let of = |(q, scale): (&Vec<i8>, &f32)| {
            let row = |row: &[i8]| {
                let sum: i32 = row.iter().zip(q).map(|(w, q)| i32::from(*w) * i32::from(*q)).sum();
                sum as f32 / scale * self.scale
            };
            self.weights.chunks(x.cols).map(row).collect()
        };
        x.q.iter().zip(&x.scales).map(of).collect()
    }
}

/// A kernel, and how it is launched.
#[derive(Clone, Copy, Debug)]
struct Kernel {
    target: &'static str,
    /// What multiplies, and what gates.
    names: [&'static str; 2],
    /// Tiles of rows of a block, and of a gate.
    tiles: [u32; 2],
    /// Tokens of a block.
    tokens: usize,
    /// Bytes of shared memory.
    shared: usize,
    /// Threads of a block.
    threads: u32,
}

const DP4A: [&str; 2] = ["i2s_gpu_gemv_dp4a", "i2s_gpu_gemv_dp4a_gate"];
const MMA: [&str; 2] = ["i2s_gpu_gemv_mma_u8s8", "i2s_gpu_gemv_mma_u8s8_gate"];

const fn gemv(target: &'static str, names: [&'static str; 2], threads: u32) -> Kernel {
    Kernel { target, names, tiles: [1, 1], tokens: 8, shared: 0, threads }
}

const fn gemm(names: [&'static str; 2], tokens: usize) -> Kernel {
    Kernel { target: "sm_80", names, tiles: [8, 4], tokens, shared: 3 * 128 * tokens, threads: 128 }
}

const WGMMA: Kernel = Kernel {
    target: "sm_90a",
    names: ["gemm_i2s_wgmma_s8", "gemm_i2s_wgmma_gate_s8"],
    tiles: [4, 4],
    tokens: 64,
    shared: 4 * 128 * 64,
    threads: 128,
};

const KERNELS: [Kernel; 9] = [
    gemv("sm_61", DP4A, 128),
    gemv("sm_61", DP4A, 256),
    gemv("sm_80", DP4A, 512),
    gemv("sm_80", MMA, 128),
    gemv("sm_80", MMA, 512),
    gemm(["gemm_i2s_mma_u8s8_16", "gemm_i2s_mma_u8s8_gate_16"], 16),
    gemm(["gemm_i2s_mma_u8s8_32", "gemm_i2s_mma_u8s8_gate_32"], 32),
    gemm(["gemm_i2s_mma_u8s8_64", "gemm_i2s_mma_u8s8_gate_64"], 64),
    WGMMA,
];

/// Runs a kernel on up to three matrices; gives what each has for results, `[tokens, rows]`. They hold `before` at first.
fn run(
    kernel: Kernel,
    matrices: &[Matrix],
    x: &Activations,
    how: (Option<f32>, Option<i32>),
) -> Vec<Vec<f32>> {
    reported(kernel, matrices, x, how).0
}

/// The same, and what it did for that.
fn reported(
    kernel: Kernel,
    matrices: &[Matrix],
    x: &Activations,
    (before, gate): (Option<f32>, Option<i32>),
) -> (Vec<Vec<f32>>, Report) {
    let mut gpu = Gpu::new(kernel.target);
    let (tokens, width) = (x.q.len(), tiles::width(x.cols));
    let (args, results) = upload(&mut gpu, Args::default(), (matrices, x.cols), (tokens, before));
    let mut q = vec![0_i8; tokens * width];
    q.chunks_mut(width).zip(&x.q).for_each(|(q, x)| q[..x.len()].copy_from_slice(x));
    let sums: Vec<i32> = x.q.iter().map(|q| q.iter().map(|&q| i32::from(q)).sum()).collect();
    let args = args.with(gpu.upload(&q)).with(gpu.upload(&x.scales)).with(gpu.upload(&sums));
    let args = args
        .with(tokens as i32)
        .with(width as i32)
        .with(i32::from(before.is_some()))
        .with(gate.unwrap_or(0))
        .end();
    let tiles = if gate.is_some() { tiles_of(&matrices[..1]) } else { tiles_of(matrices) };
    let blocks = tiles.div_ceil(kernel.tiles[usize::from(gate.is_some())]);
    let grid = [blocks, tokens.div_ceil(kernel.tokens) as u32, 1];
    let report = gpu.launch(
        kernel.names[usize::from(gate.is_some())],
        (grid, kernel.threads, kernel.shared),
        &args,
    );
    (results.into_iter().map(|(y, n)| gpu.download(y, n)).collect(), report)
}

/// The matrices, and room for what they have for results: where that is, and how much.
pub(crate) fn upload(
    gpu: &mut Gpu,
    mut args: Args,
    (matrices, cols): (&[Matrix], usize),
    (tokens, before): (usize, Option<f32>),
) -> (Args, Vec<(u64, usize)>) {
    let mut results = Vec::new();
    for matrix in matrices {
        let mut packed = vec![0; tiles::bytes(matrix.rows, cols)];
        tiles::pack(&matrix.weights, cols, &mut packed);
        let n = tokens * matrix.rows;
        let y = match before {
            Some(before) => gpu.upload(&vec![before; n]),
            None => gpu.room::<f32>(n),
        };
        args = args
            .with(gpu.upload(&packed))
            .with(y)
            .with(matrix.scale)
            .with(matrix.rows as i32)
            .end();
        results.push((y, n));
    }
    for _ in matrices.len()..3 {
        args = args.with(0_u64).with(0_u64).with(0.0_f32).with(0_i32).end();
    }
    (args, results)
}

pub(crate) fn tiles_of(matrices: &[Matrix]) -> u32 {
    matrices.iter().map(|m| m.rows.div_ceil(tiles::ROWS) as u32).sum()
}

#[test]
fn products_are_exact() {
    for kernel in KERNELS {
        let shapes =
            [(1, 16, 128), (1, 32, 2560), (8, 16, 6912), (3, 144, 640), (5, 20, 200), (1, 7, 100)];
        for (tokens, rows, cols) in shapes {
            let tokens = tokens * kernel.tokens / 8 + usize::from(kernel.tokens > 8 && tokens > 4);
            let matrix = Matrix::new(rows, cols, 3);
            let x = Activations::new(tokens, cols, 5);
            let expected = matrix.product(&x).concat();
            let y = run(kernel, &[matrix], &x, (None, None));
            assert!(y[0] == expected, "{kernel:?} {tokens} {rows} {cols}");
        }
    }
}

/// The threads of a warp read weights that lie next to each other, 16 bytes each, at every place in the text where they do.
#[test]
fn weights_are_read_in_sequence() {
    let least = |kernel: &Kernel| {
        KERNELS.iter().all(|other| other.names != kernel.names || other.threads >= kernel.threads)
    };
    for kernel in KERNELS.into_iter().filter(least) {
        for gate in [None, Some(0)] {
            // Each of four warps has four steps at the start, then two at a time, and one more.
            let cols = if kernel.tokens > 8 { 1152 } else { 7 * 4 * tiles::COLS };
            let matrices = [3, 4].map(|seed| Matrix::new(64, cols, seed));
            let x = Activations::new(kernel.tokens, cols, 5);
            let reads = reported(kernel, &matrices, &x, (None, gate)).1.reads;
            let pattern = |read: &Read| {
                let indices = read.addresses.iter().map(|at| *at as usize / read.bytes);
                analyze_access_pattern(&indices.collect::<Vec<_>>())
            };
            let (_, text) =
                texts::TEXTS.into_iter().find(|(name, _)| *name == kernel.target).unwrap();
            let lines: Vec<_> = text.lines().collect();
            let all = Module::parse(text).unwrap().lines(kernel.names[usize::from(gate.is_some())]);
            let wide = |line: &usize| {
                lines[line - 1].contains("ld.global") && lines[line - 1].contains(".v4")
            };
            let found: Vec<_> = all.into_iter().filter(wide).map(|line| reads.get(&line)).collect();
            let sound = |read: &&Read| pattern(read) == AccessPattern::Sequential;
            // Behind a number of steps that is not even the compiler looks ahead once more, and there is nothing.
            let never = if kernel.target == "sm_90a" { 1 + usize::from(gate.is_some()) } else { 0 };
            let ran = found.iter().flatten().filter(|read| sound(read)).count();
            assert!(
                ran > 0 && ran + never == found.len(),
                "{kernel:?} {gate:?}: {ran} of {}",
                found.len()
            );
        }
    }
}

/// Blocks whose last rows or last tokens are not there, on both sides of a whole one.
#[test]
fn rows_and_tokens_end_anywhere() {
    for (tokens, rows) in [(64, 64), (65, 144), (100, 72), (128, 50)] {
        let (matrix, x) = (Matrix::new(rows, 384, 3), Activations::new(tokens, 384, 5));
        let expected = matrix.product(&x).concat();
        assert!(run(WGMMA, &[matrix], &x, (None, None))[0] == expected, "{tokens} {rows}");
    }
    let (x, matrices) =
        (Activations::new(116, 384, 5), [3, 4].map(|seed| Matrix::new(72, 384, seed)));
    for (activation, gate) in (0..).zip(GATES) {
        let [mut gated, up] = [0, 1].map(|i| matrices[i].product(&x).concat());
        gate(&mut gated, &up);
        let found = run(WGMMA, &matrices, &x, (None, Some(activation)));
        assert_eq!(bits(&found[0]), bits(&gated), "{activation}");
    }
}

#[test]
fn the_greatest_sums_do_not_overflow() {
    for kernel in KERNELS {
        let cols = 32_768;
        for weight in [1, -1] {
            let matrix = Matrix { weights: vec![weight; 16 * cols], rows: 16, scale: 1.0 };
            let x = Activations::extreme(2, cols);
            let expected = matrix.product(&x).concat();
            assert_eq!(run(kernel, &[matrix], &x, (None, None))[0], expected, "{kernel:?}");
        }
    }
}

#[test]
fn several_matrices_share_an_input() {
    for kernel in KERNELS {
        let x = Activations::new(kernel.tokens, 256, 9);
        let matrices = [Matrix::new(64, 256, 1), Matrix::new(20, 256, 2), Matrix::new(96, 256, 3)];
        let expected: Vec<_> = matrices.iter().map(|m| m.product(&x).concat()).collect();
        assert_eq!(run(kernel, &matrices, &x, (None, None)), expected, "{kernel:?}");
    }
}

#[test]
fn products_are_added_to_what_is_there() {
    for kernel in KERNELS {
        let x = Activations::new(kernel.tokens, 384, 9);
        let matrices = [Matrix::new(32, 384, 1)];
        let expected: Vec<_> = matrices[0].product(&x).concat().iter().map(|y| 1.25 + y).collect();
        assert_eq!(run(kernel, &matrices, &x, (Some(1.25), None))[0], expected, "{kernel:?}");
    }
}

#[test]
fn gates_are_those_of_the_processor() {
    for kernel in KERNELS {
        for (activation, gate) in (0..).zip(GATES) {
            let x = Activations::new(kernel.tokens, 640, 9);
            let matrices = [Matrix::new(84, 640, 1), Matrix::new(84, 640, 2)];
            let [mut gated, up] = [0, 1].map(|i| matrices[i].product(&x).concat());
            gate(&mut gated, &up);
            let [there, unused] = &run(kernel, &matrices, &x, (None, Some(activation)))[..] else {
                panic!()
            };
            assert_eq!(bits(there), bits(&gated), "{kernel:?} {activation}");
            assert!(
                unused.iter().all(|x| x.to_bits() == 0xa5a5_a5a5),
                "it needs no room for the product"
            );
        }
    }
}
