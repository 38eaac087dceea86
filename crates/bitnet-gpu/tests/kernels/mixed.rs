//! Products of floats in other precisions, and conversions.

use half::{bf16, f16};

use crate::gpu::{Args, Gpu, Number, Random, bits};

/// `[m, n, k]`: less than a tile, a whole one, and several with edges.
const SHAPES: [[usize; 3]; 4] = [[1, 1, 1], [16, 16, 16], [5, 33, 40], [50, 18, 17]];

/// `A B`, with the sums in order.
fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> Vec<f32> {
    let number = |i: usize| {
        let (row, col) = (i / n, i % n);
        (0..k).fold(0.0_f32, |sum, j| a[row * k + j].mul_add(b[j * n + col], sum))
    };
    (0..m * n).map(number).collect()
}

fn run<T: Number>(
    (target, kernel): (&str, &str),
    (a, b): (&[T], &[T]),
    [m, n, k]: [usize; 3],
) -> Vec<f32> {
    let mut gpu = Gpu::new(target);
    let (left, right, c) = (gpu.upload(a), gpu.upload(b), gpu.room::<f32>(m * n));
    let args = Args::default().with(left).with(right).with(c);
    let args = args.with(m as i32).with(n as i32).with(k as i32).end();
    let threads = if kernel.starts_with("wmma") { 32 } else { 256 };
    let grid = [n.div_ceil(16) as u32, m.div_ceil(16) as u32, 1];
    gpu.launch(kernel, (grid, threads, 0), &args);
    gpu.download(c, m * n)
}

#[test]
fn products_of_floats_are_summed_in_order() {
    for target in ["sm_61", "sm_80"] {
        for shape @ [m, n, k] in SHAPES {
            let mut random = Random::new(3);
            let (a, b) = (random.floats(m * k), random.floats(k * n));
            let found = run((target, "bitnet_matmul_fp32"), (&a[..], &b[..]), shape);
            assert_eq!(bits(&found), bits(&product(&a, &b, shape)), "{target}, {shape:?}");

            let half = |x: &[f32]| x.iter().map(|x| f16::from_f32(*x)).collect::<Vec<_>>();
            let (left, right) = (half(&a), half(&b));
            let raw = |x: &[f16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let wide = |x: &[f16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
            let found =
                run((target, "bitnet_matmul_fp16"), (&raw(&left)[..], &raw(&right)[..]), shape);
            let expected = product(&wide(&left), &wide(&right), shape);
            assert_eq!(bits(&found), bits(&expected), "{target}, {shape:?}");

            let half = |x: &[f32]| x.iter().map(|x| bf16::from_f32(*x)).collect::<Vec<_>>();
            let (left, right) = (half(&a), half(&b));
            let raw = |x: &[bf16]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let wide = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
            let found =
                run((target, "bitnet_matmul_bf16"), (&raw(&left)[..], &raw(&right)[..]), shape);
            let expected = product(&wide(&left), &wide(&right), shape);
            assert_eq!(bits(&found), bits(&expected), "{target}, {shape:?}");
        }
    }
}

/// Weights of -1, 0 and 1 and activations of 8 bits are exact in both formats, and so are their sums, in whatever order.
#[test]
fn tensor_cores_are_exact_on_ternary_weights() {
    for shape @ [m, n, k] in [[16, 16, 16], [5, 33, 40], [20, 18, 2560]] {
        let mut random = Random::new(4);
        let a: Vec<f32> = (0..m * k).map(|_| random.below(256) as f32 - 128.0).collect();
        let b: Vec<f32> = (0..k * n).map(|_| random.below(3) as f32 - 1.0).collect();
        let expected = product(&a, &b, shape);
        let raw = |x: &[f32]| x.iter().map(|x| f16::from_f32(*x).to_bits()).collect::<Vec<_>>();
        let found = run(("sm_80", "wmma_matmul_fp16"), (&raw(&a)[..], &raw(&b)[..]), shape);
        assert_eq!(bits(&found), bits(&expected), "{shape:?}");
        let raw = |x: &[f32]| x.iter().map(|x| bf16::from_f32(*x).to_bits()).collect::<Vec<_>>();
        let found = run(("sm_80", "wmma_matmul_bf16"), (&raw(&a)[..], &raw(&b)[..]), shape);
        assert_eq!(bits(&found), bits(&expected), "{shape:?}");
    }
}

/// Halfway between two, too large, too small, and none.
#[test]
fn numbers_are_rounded_to_the_nearest() {
    let mut x = Random::new(5).floats(700);
    x.extend([0.0, -0.0, 1e38, -1e38, f32::INFINITY, f32::NEG_INFINITY, 1e-7, 6e-8, 1e-40]);
    x.extend([65504.0, 65519.9, 65520.0, 3.395e38, f32::MAX, f32::MIN_POSITIVE]);
    x.extend((0..64).map(|i| f32::from_bits(0x3f80_0000 + 0x400 * i)));
    let n = x.len();
    let shape = ([n.div_ceil(256) as u32, 1, 1], 256, 0);
    for target in ["sm_61", "sm_80"] {
        let mut gpu = Gpu::new(target);
        let (from, to, back) = (gpu.upload(&x), gpu.room::<u16>(n), gpu.room::<f32>(n));
        let mut convert = |kernel: &str, from: u64, to: u64| {
            gpu.launch(kernel, shape, &Args::default().with(from).with(to).with(n as i32));
        };
        convert("convert_fp32_to_fp16", from, to);
        convert("convert_fp16_to_fp32", to, back);
        let halves: Vec<f16> = x.iter().map(|x| f16::from_f32(*x)).collect();
        let expected: Vec<_> = halves.iter().map(|x| x.to_bits()).collect();
        assert_eq!(gpu.download::<u16>(to, n), expected, "{target}");
        let expected: Vec<_> = halves.iter().map(|x| x.to_f32()).collect();
        assert_eq!(bits(&gpu.download(back, n)), bits(&expected), "{target}");

        let mut convert = |kernel: &str, from: u64, to: u64| {
            gpu.launch(kernel, shape, &Args::default().with(from).with(to).with(n as i32));
        };
        convert("convert_fp32_to_bf16", from, to);
        convert("convert_bf16_to_fp32", to, back);
        let halves: Vec<bf16> = x.iter().map(|x| bf16::from_f32(*x)).collect();
        let expected: Vec<_> = halves.iter().map(|x| x.to_bits()).collect();
        assert_eq!(gpu.download::<u16>(to, n), expected, "{target}");
        let expected: Vec<_> = halves.iter().map(|x| x.to_f32()).collect();
        assert_eq!(bits(&gpu.download(back, n)), bits(&expected), "{target}");
    }
}

/// What is no number stays none, in all formats.
#[test]
fn what_is_no_number_stays_none() {
    let x = [f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffc0_0000)];
    for target in ["sm_61", "sm_80"] {
        for (there, back) in [
            ("convert_fp32_to_fp16", "convert_fp16_to_fp32"),
            ("convert_fp32_to_bf16", "convert_bf16_to_fp32"),
        ] {
            let mut gpu = Gpu::new(target);
            let (from, half, wide) = (gpu.upload(&x), gpu.room::<u16>(3), gpu.room::<f32>(3));
            for (kernel, from, to) in [(there, from, half), (back, half, wide)] {
                gpu.launch(
                    kernel,
                    ([1, 1, 1], 256, 0),
                    &Args::default().with(from).with(to).with(3_i32),
                );
            }
            let found: Vec<f32> = gpu.download(wide, 3);
            assert!(found.iter().all(|x| x.is_nan()), "{target}, {there}: {found:?}");
        }
    }
}
