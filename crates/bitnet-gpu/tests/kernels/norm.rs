//! RMSNorm and quantisation.

use bitnet_gpu::tiles;
use bitnet_kernels::op::{NormArgs, NormFn, QuantizeArgs, QuantizeFn, RowScale};

use crate::gpu::{Args, Gpu, Random, bits, reference};

const THREADS: u32 = 256;
pub(crate) const EPS: f32 = 1e-5;

pub(crate) fn normalized(x: &[f32], weight: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let kernel = reference().select::<NormFn>(None).unwrap();
    for (x, y) in x.chunks(weight.len()).zip(y.chunks_mut(weight.len())) {
        (kernel.run)(NormArgs { x, weight, eps: EPS, y });
    }
    y
}

pub(crate) fn quantized(x: &[f32], cols: usize) -> (Vec<i8>, Vec<RowScale>) {
    let width = tiles::width(cols);
    let kernel = reference().select::<QuantizeFn>(None).unwrap();
    let rows = x.len() / cols;
    let (mut q, mut scales) = (vec![0; rows * width], vec![RowScale::default(); rows]);
    for ((x, q), scale) in x.chunks(cols).zip(q.chunks_mut(width)).zip(&mut scales) {
        (kernel.run)(QuantizeArgs { x, q: &mut q[..cols], scale });
    }
    (q, scales)
}

/// Rows of numbers: usual ones, and those at which something could go wrong.
pub(crate) fn inputs(cols: usize) -> Vec<Vec<f32>> {
    let mut random = Random::new(cols as u64);
    let mut with = |at: usize, x: f32| {
        let mut row = random.floats(cols);
        row[at % cols] = x;
        row
    };
    let mut rows = vec![with(0, 1.0), with(1, 0.0), with(7, 1e30), with(cols - 1, -3.0e-39)];
    rows.extend([with(5, f32::NAN), with(cols - 1, f32::INFINITY), with(17, f32::MAX)]);
    rows.push(vec![0.0; cols]);
    rows.push(vec![1e-20; cols]);
    rows
}

struct Case {
    gpu: Gpu,
    rows: usize,
    cols: usize,
    x: Vec<f32>,
    weight: Vec<f32>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for target in ["sm_61", "sm_80"] {
        for cols in [4, 20, 64, 256, 640, 2560, 6912] {
            let x = inputs(cols);
            let weight = Random::new(1).floats(cols);
            cases.push(Case { gpu: Gpu::new(target), rows: x.len(), cols, x: x.concat(), weight });
        }
    }
    cases
}

impl Case {
    fn norm(&mut self, which: Option<&[i32]>) -> Args {
        let (x, weight) = (self.gpu.upload(&self.x), self.gpu.upload(&self.weight));
        let which = which.map_or(0, |which| self.gpu.upload(which));
        Args::default().with(x).with(weight).with(which).with(EPS).with(self.cols as i32).end()
    }

    fn shape(&self, rows: usize) -> ([u32; 3], u32, usize) {
        ([rows as u32, 1, 1], THREADS, self.cols * 4)
    }

    /// Runs a kernel that quantises, and compares with what the processor makes of `x`.
    fn quantizes(&mut self, kernel: &str, args: Args, x: &[f32]) {
        let (rows, width) = (self.rows, tiles::width(self.cols));
        let q = self.gpu.room::<i8>(rows * width);
        let (scale, sum) = (self.gpu.room::<f32>(rows), self.gpu.room::<i32>(rows));
        let args = args.with(q).with(scale).with(sum).with(width as i32).end();
        let shape = self.shape(rows);
        self.gpu.launch(kernel, shape, &args);
        let (expected, scales) = quantized(x, self.cols);
        assert_eq!(self.gpu.download::<i8>(q, rows * width), expected, "{kernel} {}", self.cols);
        let scales_of = |f: fn(&RowScale) -> f32| bits(&scales.iter().map(f).collect::<Vec<_>>());
        assert_eq!(bits(&self.gpu.download(scale, rows)), scales_of(|s| s.scale));
        assert_eq!(
            self.gpu.download::<i32>(sum, rows),
            scales.iter().map(|s| s.sum).collect::<Vec<_>>()
        );
    }
}

#[test]
fn norms_are_those_of_the_processor() {
    for mut case in cases() {
        let args = case.norm(None);
        let y = case.gpu.room::<f32>(case.x.len());
        let shape = case.shape(case.rows);
        case.gpu.launch("rmsnorm_f32", shape, &args.with(y));
        let expected = normalized(&case.x, &case.weight);
        assert_eq!(bits(&case.gpu.download(y, case.x.len())), bits(&expected), "{}", case.cols);
    }
}

#[test]
fn some_rows_can_be_chosen() {
    for mut case in cases() {
        let args = case.norm(Some(&[2, 0]));
        let y = case.gpu.room::<f32>(2 * case.cols);
        let shape = case.shape(2);
        case.gpu.launch("rmsnorm_f32", shape, &args.with(y));
        let rows: Vec<_> = case.x.chunks(case.cols).collect();
        let expected = normalized(&[rows[2], rows[0]].concat(), &case.weight);
        assert_eq!(bits(&case.gpu.download(y, 2 * case.cols)), bits(&expected), "{}", case.cols);
    }
}

#[test]
fn quantised_rows_are_those_of_the_processor() {
    for mut case in cases() {
        let (x, args) = (case.x.clone(), case.norm(None));
        let normed = normalized(&x, &case.weight);
        case.quantizes("rmsnorm_quant_i8", args, &normed);
        let address = case.gpu.upload(&x);
        let args = Args::default().with(address).with(case.cols as i32).end();
        case.quantizes("quant_i8", args, &x);
    }
}
