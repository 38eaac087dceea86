//! Products with ternary matrices whose kernels normalise and quantise their rows.

use bitnet_gpu::tiles;

use crate::gpu::{Args, GATES, Gpu, Random, bits};
use crate::linear::{Activations, Matrix, tiles_of, upload};
use crate::norm::{EPS, inputs, normalized, quantized};

/// Rows of floats, and a norm if there is one.
struct Input {
    cols: usize,
    x: Vec<f32>,
    weight: Option<Vec<f32>>,
}

impl Input {
    /// Some rows that are special, and one that is not.
    fn new(rows: &[usize], cols: usize, norm: bool) -> Input {
        let all = inputs(cols);
        let x = rows.iter().flat_map(|&row| all[row].clone()).collect();
        Input { cols, x, weight: norm.then(|| Random::new(1).floats(cols)) }
    }

    /// As the processor quantises them.
    fn activations(&self) -> Activations {
        let x = match &self.weight {
            Some(weight) => normalized(&self.x, weight),
            None => self.x.clone(),
        };
        let (q, scales) = quantized(&x, self.cols);
        let q = q.chunks(tiles::width(self.cols)).map(|q| q[..self.cols].to_vec()).collect();
        Activations { cols: self.cols, q, scales: scales.iter().map(|row| row.scale).collect() }
    }
}

/// What each matrix has for results, `[tokens, rows]`. They hold `before` at first.
fn run(
    threads: u32,
    matrices: &[Matrix],
    input: &Input,
    (before, gate): (Option<f32>, Option<i32>),
) -> Vec<Vec<f32>> {
    let mut gpu = Gpu::new("sm_80");
    let (tokens, width) = (input.x.len() / input.cols, tiles::width(input.cols));
    let weight = input.weight.as_ref().map_or(0, |weight| gpu.upload(weight));
    let args = Args::default().with(gpu.upload(&input.x)).with(weight);
    let args = args.with(EPS).with(input.cols as i32).end();
    let (args, results) = upload(&mut gpu, args, (matrices, input.cols), (tokens, before));
    // There are no activations yet.
    let args = args.with(0_u64).with(0_u64).with(0_u64).with(tokens as i32).with(width as i32);
    let args = args.with(i32::from(before.is_some())).with(gate.unwrap_or(0)).end();
    let (name, of) = match (gate, &input.weight) {
        (Some(_), _) => ("i2s_gpu_gemv_mma_u8s8_norm_gate", &matrices[..1]),
        (None, Some(_)) => ("i2s_gpu_gemv_mma_u8s8_norm", matrices),
        (None, None) => ("i2s_gpu_gemv_mma_u8s8_quant", matrices),
    };
    let shared = tokens * (4 * input.cols + width + 16);
    gpu.launch(name, ([tiles_of(of), 1, 1], threads, shared), &args);
    results.into_iter().map(|(y, n)| gpu.download(y, n)).collect()
}

#[test]
fn rows_are_normalised_and_quantised_on_the_way() {
    for norm in [true, false] {
        for (threads, rows, cols) in [
            (512, &[0][..], 6912),
            (128, &[1, 2], 2560),
            (256, &[4, 0, 3, 7, 8, 1, 2, 6], 640),
            (128, &[0, 5, 6], 200),
            (512, &[8, 7, 1, 0, 2], 20),
        ] {
            let input = Input::new(rows, cols, norm);
            let matrices =
                [Matrix::new(32, cols, 1), Matrix::new(20, cols, 2), Matrix::new(16, cols, 3)];
            let x = input.activations();
            let expected: Vec<_> = matrices.iter().map(|m| bits(&m.product(&x).concat())).collect();
            let y = run(threads, &matrices, &input, (None, None));
            let found: Vec<_> = y.iter().map(|y| bits(y)).collect();
            assert!(found == expected, "{norm} {threads} {rows:?} {cols}");
        }
    }
}

#[test]
fn products_are_added_to_what_is_there() {
    for norm in [true, false] {
        let input = Input::new(&[0, 2, 1], 384, norm);
        let matrices = [Matrix::new(32, 384, 1)];
        let product = matrices[0].product(&input.activations()).concat();
        let expected: Vec<_> = product.iter().map(|y| 1.25 + y).collect();
        let found = run(256, &matrices, &input, (Some(1.25), None));
        assert_eq!(bits(&found[0]), bits(&expected));
    }
}

#[test]
fn gates_are_those_of_the_processor() {
    for (activation, gate) in (0..).zip(GATES) {
        for (threads, rows, cols) in [(128, &[0, 5, 7, 1, 2, 3, 8, 4][..], 640), (512, &[3], 2560)]
        {
            let input = Input::new(rows, cols, true);
            let x = input.activations();
            let matrices = [Matrix::new(52, cols, 1), Matrix::new(52, cols, 2)];
            let [mut gated, up] = [0, 1].map(|i| matrices[i].product(&x).concat());
            gate(&mut gated, &up);
            let found = run(threads, &matrices, &input, (None, Some(activation)));
            assert_eq!(bits(&found[0]), bits(&gated), "{threads} {cols} {activation}");
        }
    }
}
