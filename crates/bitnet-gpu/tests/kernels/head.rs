//! Embeddings, the output layer, and the greatest logits.

use std::collections::BTreeSet;

use bitnet_kernels::op::{HeadArgs, HeadFn};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::{Format, format};

use crate::gpu::{Args, Gpu, Random, bits, reference};

pub(crate) const FORMATS: [(Format, &str); 3] =
    [(Format::F32, "f32"), (Format::F16, "f16"), (Format::Bf16, "bf16")];
const SIZES: [(usize, usize); 6] =
    [(300, 64), (128, 256), (1, 512), (70, 2560), (40, 48), (33, 560)];

pub(crate) fn table(format: Format, rows: usize, cols: usize) -> Vec<u8> {
    format::narrow(format, &Random::new(rows as u64).floats(rows * cols), cols).unwrap()
}

#[test]
fn embeddings_are_widened() {
    for target in ["sm_61", "sm_80"] {
        for (format, name) in FORMATS {
            for (rows, cols) in SIZES {
                let table = table(format, rows, cols);
                let tokens = [0, rows as i32 - 1, 0];
                let mut gpu = Gpu::new(target);
                let y = gpu.room::<f32>(3 * cols);
                let args =
                    Args::default().with(gpu.upload(&table)).with(gpu.upload(&tokens)).with(0_u64);
                let args =
                    args.with(gpu.upload(&[0_i32, 7, -1])).with(cols as i32).with(0.75_f32).with(y);
                gpu.launch(&format!("embed_{name}"), ([3, 1, 1], 256, 0), &args);
                let mut expected = vec![0.0; 3 * cols];
                let bytes = table.len() / rows;
                for (token, out) in tokens.iter().zip(expected.chunks_mut(cols)).take(2) {
                    format::widen(format, &table[*token as usize * bytes..][..bytes], out);
                    out.iter_mut().for_each(|x| *x *= 0.75);
                }
                assert_eq!(
                    bits(&gpu.download(y, 3 * cols)),
                    bits(&expected),
                    "{name} {rows} {cols}"
                );
            }
        }
    }
}

#[test]
fn logits_are_those_of_the_processor() {
    for target in ["sm_61", "sm_80"] {
        for (format, name) in FORMATS {
            for ((rows, cols), tokens) in SIZES.into_iter().zip([1, 9, 8, 3, 2, 8]) {
                let table = table(format, rows, cols);
                let x = Random::new(2).floats(tokens * cols);
                let mut expected = vec![0.0; tokens * rows];
                let head = reference().select::<HeadFn>(Some(format)).unwrap();
                (head.run)(HeadArgs {
                    weights: &table,
                    x: &x,
                    cols,
                    y: Tile::new(&mut expected, rows),
                });
                for (kernel, at_once) in [("gemv", 1), ("gemm", 8)] {
                    let mut gpu = Gpu::new(target);
                    let y = gpu.room::<f32>(tokens * rows);
                    let args =
                        Args::default().with(gpu.upload(&table)).with(gpu.upload(&x)).with(y);
                    let args = args.with(rows as i32).with(cols as i32).with(tokens as i32);
                    let grid = [rows.div_ceil(128) as u32, tokens.div_ceil(at_once) as u32, 1];
                    gpu.launch(&format!("{kernel}_head_{name}"), (grid, 256, 0), &args);
                    let there = gpu.download(y, tokens * rows);
                    assert_eq!(
                        bits(&there),
                        bits(&expected),
                        "{target} {kernel} {name} {rows} {cols}"
                    );
                }
            }
        }
    }
}

/// No logits are listed: `Listed` of `select.cu`.
fn none() -> Args {
    Args::default().with(0_u64).with(0_u64).with(0_i32).end()
}

/// Tokens with the greatest logits, and which of them count.
pub(crate) struct Case {
    pub(crate) logits: Vec<f32>,
    pub(crate) only: Option<Vec<u32>>,
    pub(crate) count: usize,
}

impl Case {
    pub(crate) fn allowed(&self, token: usize) -> bool {
        self.only.as_ref().is_none_or(|only| only[token / 32] >> (token % 32) & 1 == 1)
    }

    /// All that are not less than the last one wanted.
    pub(crate) fn expected(&self) -> BTreeSet<(u32, u32)> {
        let mut all: Vec<f32> =
            (0..self.logits.len()).filter(|&i| self.allowed(i)).map(|i| self.logits[i]).collect();
        all.sort_by(|a, b| b.total_cmp(a));
        let least = all.get(self.count - 1).or(all.last()).copied().unwrap_or(f32::INFINITY);
        let chosen = (0..self.logits.len()).filter(|&i| self.allowed(i) && self.logits[i] >= least);
        chosen.map(|i| (i as u32, self.logits[i].to_bits())).collect()
    }
}

#[test]
fn the_greatest_logits_are_found() {
    let mut random = Random::new(3);
    let vocabulary = 9001;
    let mut logits: Vec<f32> = random.floats(vocabulary);
    let words = vocabulary.div_ceil(32);
    // Some are equal, of both signs.
    (0..40).for_each(|i| logits[50 * i] = 1.5);
    (0..9).for_each(|i| logits[77 * i + 1] = 0.0);
    let some: Vec<u32> = (0..words).map(|i| 0x1001_0401 << (i % 3)).collect();
    let low: Vec<f32> = logits.iter().map(|x| x - 5.0).collect();
    let one = (0..words).map(|i| u32::from(i == 3) << 7).collect();
    for case in [
        Case { logits: logits.clone(), only: None, count: 1 },
        Case { logits: logits.clone(), only: None, count: 40 },
        Case { logits: low.clone(), only: None, count: 7 },
        Case { logits: low, only: Some(some), count: 12 },
        Case { logits, only: Some(one), count: 5 },
    ] {
        for target in ["sm_61", "sm_80"] {
            let mut gpu = Gpu::new(target);
            let most = 256;
            let [found, count] = [gpu.room::<i32>(1), gpu.upload(&[case.count as i32])];
            let (tokens, values) = (gpu.room::<u32>(most), gpu.room::<f32>(most));
            let only = case.only.as_ref().map_or(0, |only| gpu.upload(only));
            let args =
                Args::default().with(gpu.upload(&case.logits)).and(none()).with(only).with(count);
            let args = args.with(found);
            let args =
                args.with(tokens).with(values).with(vocabulary as i32).with(most as i32).end();
            gpu.launch("sample_topk", ([1, 1, 1], 1024, 0), &args);
            let n = gpu.download::<i32>(found, 1)[0] as usize;
            let tokens = gpu.download::<u32>(tokens, n);
            let values = gpu.download::<u32>(values, n);
            let there: BTreeSet<_> = tokens.into_iter().zip(values).collect();
            assert_eq!((there.len(), &there), (n, &case.expected()), "{}", case.count);
        }
    }
}
