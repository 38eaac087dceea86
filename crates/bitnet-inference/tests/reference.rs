//! A plain forward pass in `f64`, written from the definition of the architecture, against the
//! engine. It shares nothing with the kernels but the decoding of weights.
#![expect(clippy::unwrap_used, reason = "a failure is the result of a test")]

mod common;
mod exact;
#[path = "common/tiny.rs"]
mod tiny;

use bitnet_gguf::{Gguf, TensorType};
use bitnet_inference::Config;
use bitnet_kernels::{Format, format};
use common::{DEMO, load, logits};
use exact::exact;
use tiny::{TINY, long_tiny};

/// A model whose weights are numbers.
struct Plain {
    gguf: Gguf,
    config: Config,
}

impl Plain {
    fn new(bytes: &'static [u8]) -> Plain {
        let gguf = Gguf::from_static("model.gguf", bytes).unwrap();
        Plain { config: Config::from_gguf(&gguf).unwrap(), gguf }
    }

    fn floats(&self, name: &str) -> Vec<f64> {
        let tensor = self.gguf.tensor(name).unwrap();
        let format = match self.gguf.tensor_type(tensor).unwrap() {
            TensorType::F32 => Format::F32,
            TensorType::F16 => Format::F16,
            other => panic!("{name} is {other:?}"),
        };
        let mut out = vec![0.0; tensor.elements() as usize];
        format::widen(format, &self.gguf.data(tensor).unwrap(), &mut out);
        out.into_iter().map(f64::from).collect()
    }

    /// Weights `t` of `[rows, cols]` and the scale.
    fn ternary(&self, name: &str) -> (Vec<i8>, f64, usize) {
        let tensor = self.gguf.tensor(name).unwrap();
        let (cols, rows) = (tensor.dims[0] as usize, tensor.dims[1] as usize);
        let bytes = self.gguf.data(tensor).unwrap();
        let scale = format::check(Format::I2S, &bytes, rows, cols).unwrap();
        let weights = format::decode(Format::I2S, &bytes, rows, cols).unwrap();
        (weights, f64::from(scale), cols)
    }

    /// A linear layer on one row: activations to 8 bits, exact products.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (weights, d, cols) = self.ternary(name);
        let amax = x.iter().fold(1e-5, |amax: f64, x| amax.max(x.abs()));
        let s = 127.0 / amax;
        let q: Vec<i64> = x.iter().map(|x| (x * s).round_ties_even() as i64).collect();
        let rows = weights.chunks(cols);
        let dot = |row: &[i8]| row.iter().zip(&q).map(|(&w, q)| i64::from(w) * q).sum::<i64>();
        rows.map(|row| dot(row) as f64 / s * d).collect()
    }

    fn norm(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let mean = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
        let factor = 1.0 / (mean + f64::from(self.config.eps)).sqrt();
        self.floats(name).iter().zip(x).map(|(w, x)| w * x * factor).collect()
    }

    fn rope(&self, x: &mut [f64], position: usize) {
        let half = self.config.head_size / 2;
        for head in x.chunks_mut(2 * half) {
            for i in 0..half {
                let power = (2 * i) as f64 / (2 * half) as f64;
                let angle = position as f64 / f64::from(self.config.rope_base).powf(power);
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * angle.cos() - b * angle.sin();
                head[i + half] = b * angle.cos() + a * angle.sin();
            }
        }
    }

    /// Attention of one token over the keys and values so far.
    fn attend(&self, q: &[f64], keys: &[Vec<f64>], values: &[Vec<f64>]) -> Vec<f64> {
        let (size, group) = (self.config.head_size, self.config.heads / self.config.kv_heads);
        let mut out = vec![0.0; q.len()];
        for (h, out) in out.chunks_mut(size).enumerate() {
            let (q, start) = (&q[h * size..][..size], h / group * size);
            let score = |k: &Vec<f64>| {
                let k = &k[start..][..size];
                q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() / (size as f64).sqrt()
            };
            let scores: Vec<f64> = keys.iter().map(score).collect();
            let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for (weight, value) in weights.iter().zip(values) {
                for (out, v) in out.iter_mut().zip(&value[start..]) {
                    *out += weight / sum * v;
                }
            }
        }
        out
    }

    /// Logits after each token.
    fn logits(&self, ids: &[u32]) -> Vec<f64> {
        let hidden = self.config.hidden;
        let embedding = self.floats("token_embd.weight");
        let mut cache = vec![(Vec::new(), Vec::new()); self.config.layers];
        let mut all = Vec::new();
        for (position, &id) in ids.iter().enumerate() {
            let mut x = embedding[id as usize * hidden..][..hidden].to_vec();
            for (layer, (keys, values)) in cache.iter_mut().enumerate() {
                let name = |part: &str| format!("blk.{layer}.{part}.weight");
                let linear = |part: &str, x: &[f64]| self.linear(&name(part), x);
                let norm = |part: &str, x: &[f64]| self.norm(&name(part), x);

                let input = norm("attn_norm", &x);
                let (mut q, mut k) = (linear("attn_q", &input), linear("attn_k", &input));
                self.rope(&mut q, position);
                self.rope(&mut k, position);
                keys.push(k);
                values.push(linear("attn_v", &input));
                let attended = norm("attn_sub_norm", &self.attend(&q, keys, values));
                add(&mut x, &linear("attn_output", &attended));

                let input = norm("ffn_norm", &x);
                let (gate, up) = (linear("ffn_gate", &input), linear("ffn_up", &input));
                let gated: Vec<_> =
                    gate.iter().zip(up).map(|(g, u)| g.max(0.0).powi(2) * u).collect();
                add(&mut x, &linear("ffn_down", &norm("ffn_sub_norm", &gated)));
            }
            let last = self.norm("output_norm.weight", &x);
            let dot = |row: &[f64]| row.iter().zip(&last).map(|(w, x)| w * x).sum::<f64>();
            all.extend(embedding.chunks(hidden).map(dot));
        }
        all
    }
}

fn add(x: &mut [f64], y: &[f64]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}

/// Share of the logits' deviation by which they differ (rms), and rows whose likeliest differs.
fn compare(model: &'static [u8], ids: &[u32]) -> (f64, usize) {
    let want = Plain::new(model).logits(ids);
    let got = logits(&load(model, &exact()), ids);
    assert_eq!(got.len(), want.len());
    let mean = want.iter().sum::<f64>() / want.len() as f64;
    let deviation: f64 = want.iter().map(|x| (x - mean).powi(2)).sum();
    let difference: f64 = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();

    let vocabulary = want.len() / ids.len();
    let likeliest = |row: &[f64]| (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
    let wide: Vec<f64> = got.iter().map(|&x| f64::from(x)).collect();
    let rows = wide.chunks(vocabulary).zip(want.chunks(vocabulary));
    let other = rows.filter(|(got, want)| likeliest(got) != likeliest(want)).count();
    ((difference / deviation).sqrt(), other)
}

/// An activation that rounds the other way, where two evaluations differ in the last bit, moves
/// logits by some hundredths; anything wrong moves them by much more.
#[test]
fn the_engine_agrees_with_the_definition() {
    let tiny: Vec<u32> = (0..40).map(|i| (i * i * 13 + i * 5) % 512).collect();
    let demo: Vec<u32> = (0..40).map(|i| (i * i * 29 + i * 71 + 300) % 2040).collect();
    // More positions than are attended to in one go.
    let long: Vec<u32> = (0..600).map(|i| (i * i * 17 + i * 3) % 512).collect();
    let models = [("tiny", TINY, tiny), ("demo", DEMO, demo), ("long", long_tiny(), long)];
    for (name, model, ids) in models {
        let (share, other) = compare(model, &ids);
        let rows = ids.len();
        println!("{name}: rms difference is {share:e} of the deviation, {other} of {rows} differ");
        assert!(share < 0.05 && other <= rows / 40, "{name}: {share}, {other} of {rows} rows");
    }
}
