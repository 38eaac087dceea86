//! What each operation is, in plain loops.

use half::f16;

use crate::Format;
use crate::format::IQ2_S_GRID as GRID;
use crate::op::{CODE_BYTES, GroupScale, KV_BLOCK, RowNorms, RowScale};

/// The number of partial sums of every floating-point sum.
const LANES: usize = 16;

/// Adds sixteen partial sums: `i` with `i + 8`, `i + 4`, `i + 2`, `i + 1`.
fn tree(mut lanes: [f32; LANES]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// `Σ a b`, term `i` fused into partial sum `i % 16`.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        lanes[i % LANES] = a.mul_add(*b, lanes[i % LANES]);
    }
    tree(lanes)
}

/// One result of a ternary matrix: weights and activations of one row.
pub(super) fn ternary(weights: &[i8], x: &[i8], x_scale: RowScale, d: f32) -> f32 {
    let products = weights.iter().zip(x).map(|(&w, &x)| i64::from(w) * i64::from(x));
    products.sum::<i64>() as f32 / x_scale.scale * d
}

pub(super) fn quantize(x: &[f32]) -> (Vec<i8>, RowScale) {
    if !x.iter().all(|x| x.is_finite()) {
        return (vec![0; x.len()], RowScale { scale: f32::NAN, sum: 0 });
    }
    let greatest = x.iter().fold(0.0_f32, |greatest, x| greatest.max(x.abs()));
    let scale = 127.0 / greatest.max(1e-5);
    let q: Vec<i8> = x.iter().map(|x| (x * scale).round_ties_even() as i8).collect();
    let sum = q.iter().map(|&q| i32::from(q)).sum();
    (q, RowScale { scale, sum })
}

pub(super) fn norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mean = dot(x, x) / x.len() as f32;
    let factor = if mean.is_finite() { 1.0 / (mean + eps).sqrt() } else { f32::NAN };
    x.iter().zip(weight).map(|(x, w)| w * (x * factor)).collect()
}

pub(super) fn rope(x: &[f32], cos: &[f32], sin: &[f32]) -> Vec<f32> {
    let half = cos.len();
    let mut out = x.to_vec();
    for (head, out) in x.chunks(2 * half).zip(out.chunks_mut(2 * half)) {
        for i in 0..half {
            let (a, b) = (head[i], head[i + half]);
            out[i] = a.mul_add(cos[i], -(b * sin[i]));
            out[i + half] = b.mul_add(cos[i], a * sin[i]);
        }
    }
    out
}

/// `e^x`: argument reduction by `ln 2` in two parts, Taylor polynomial of degree 7 by Horner.
pub(super) fn exp(x: f32) -> f32 {
    let x = x.max(-87.0);
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = (-n).mul_add(0.693_359_4, x);
    let r = (-n).mul_add(-2.121_944_4e-4, r);
    let factorials = [5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0];
    let power = factorials.into_iter().map(|f: f32| 1.0 / f);
    let power = power.reduce(|power, c| power.mul_add(r, c)).unwrap_or(0.0);
    power * 2.0_f32.powi(n as i32)
}

pub(super) fn softmax(x: &[f32]) -> Vec<f32> {
    let greatest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f32> = x.iter().map(|x| exp(x - greatest)).collect();
    let mut lanes = [0.0; LANES];
    for (i, e) in e.iter().enumerate() {
        lanes[i % LANES] += e;
    }
    let factor = 1.0 / tree(lanes);
    e.iter().map(|e| e * factor).collect()
}

pub(super) fn relu2(x: f32) -> f32 {
    x.max(0.0) * x.max(0.0)
}

pub(super) fn silu(x: f32) -> f32 {
    weigh(x, x)
}

/// With `2 sqrt(2 / pi)` and `2 sqrt(2 / pi) 0.044715`.
pub(super) fn gelu(x: f32) -> f32 {
    weigh(x, x * (x * x).mul_add(0.071_354_814, 1.595_769))
}

/// `x / (1 + exp(-z))`.
fn weigh(x: f32, z: f32) -> f32 {
    let e = exp(-z.abs());
    (if x < 0.0 { x * e } else { x.abs() }) / (1.0 + e)
}

pub(super) fn gate(activation: fn(f32) -> f32, gate: &[f32], up: &[f32]) -> Vec<f32> {
    let gated = |g: f32, u: f32| if g.is_finite() { activation(g) * u } else { f32::NAN };
    gate.iter().zip(up).map(|(&g, &u)| gated(g, u)).collect()
}

pub(super) fn add(x: &[f32], y: &[f32]) -> Vec<f32> {
    x.iter().zip(y).map(|(x, y)| x + y).collect()
}

/// Attention to some positions in blocks of sixteen, with the softmax corrected from block to block.
/// Of each position it is a key and a value; those over the length of a head do not count. Gives the
/// sum of the values by their weights, the greatest score and the sum of the weights.
pub(super) fn attend(q: &[f32], kv: &[[Vec<f32>; 2]], scale: f32) -> Vec<f32> {
    let (mut greatest, mut sums) = (f32::NEG_INFINITY, [0.0_f32; KV_BLOCK]);
    let mut out = vec![0.0_f32; q.len()];
    for block in kv.chunks(KV_BLOCK) {
        let score =
            |key: &[f32]| q.iter().zip(key).fold(0.0_f32, |sum, (q, k)| q.mul_add(*k, sum)) * scale;
        let scores: Vec<f32> = block.iter().map(|[key, _]| score(key)).collect();
        if !scores.iter().all(|score| score.is_finite()) {
            return vec![f32::NAN; q.len() + 2];
        }
        let before = greatest;
        greatest = scores.iter().copied().fold(greatest, f32::max);
        if greatest > before {
            let shrink = exp(before - greatest);
            sums.iter_mut().chain(&mut out).for_each(|x| *x *= shrink);
        }
        for ((score, sum), [_, value]) in scores.iter().zip(&mut sums).zip(block) {
            let weight = exp(score - greatest);
            *sum += weight;
            for (x, value) in out.iter_mut().zip(value) {
                *x = weight.mul_add(*value, *x);
            }
        }
    }
    out.extend([greatest, tree(sums)]);
    out
}

/// The result of attention from parts of `size` numbers, with greatest score and sum behind them.
pub(super) fn join(parts: &[Vec<f32>], size: usize) -> Vec<f32> {
    let greatest = parts.iter().map(|part| part[size]).fold(f32::NEG_INFINITY, f32::max);
    let (mut out, mut sum) = (vec![0.0_f32; size], 0.0_f32);
    for part in parts {
        let factor = exp(part[size] - greatest);
        sum = factor.mul_add(part[size + 1], sum);
        out.iter_mut().zip(part).for_each(|(x, part)| *x = factor.mul_add(*part, *x));
    }
    out.iter().map(|x| x * (1.0 / sum)).collect()
}

/// Sixteen rows of a floating-point format, a position each, in the order of a block of keys.
pub(super) fn side_by_side(format: Format, rows: &[Vec<u8>]) -> Vec<u8> {
    let (numbers, bytes) = format.block();
    let mut out = Vec::new();
    for block in 0..rows[0].len() / bytes {
        let mut of_all = |part: std::ops::Range<usize>| {
            rows.iter().for_each(|row| out.extend(&row[block * bytes..][part.clone()]));
        };
        let each = bytes / numbers;
        let scale = bytes - numbers * each;
        of_all(0..scale);
        (0..numbers).for_each(|i| of_all(scale + i * each..scale + (i + 1) * each));
    }
    out
}

/// Whole blocks of numbers in a floating-point format, where there is a rule for it.
pub(super) fn store(format: Format, x: &[f32]) -> Option<Vec<u8>> {
    let f16_of = |x: f32| f16::from_f32(x).to_le_bytes();
    let q8_0 = |block: &[f32]| {
        let finite = block.iter().all(|x| x.is_finite());
        let d = block.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0;
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        // Halves away from zero.
        let bytes = block.iter().map(|x| ((x * inverse).round() as i8).cast_unsigned());
        f16_of(if finite { d } else { f32::NAN }).into_iter().chain(bytes).collect::<Vec<_>>()
    };
    match format {
        Format::F32 => Some(x.iter().flat_map(|x| x.to_le_bytes()).collect()),
        Format::F16 => Some(x.iter().flat_map(|&x| f16_of(x)).collect()),
        Format::Q8_0 => Some(x.chunks(32).flat_map(q8_0).collect()),
        _ => None,
    }
}

/// The numbers of a row of a floating-point format.
pub(super) fn widen(format: Format, row: &[u8]) -> Vec<f32> {
    let f16_at = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    match format {
        Format::F32 => row.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Format::F16 => row.chunks(2).map(f16_at).collect(),
        Format::Bf16 => {
            let bits = row.as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b)));
            bits.map(|bits| f32::from_bits(bits << 16)).collect()
        }
        Format::Q8_0 => row
            .chunks(34)
            .flat_map(|b| b[2..].iter().map(move |&q| f16_at(b) * f32::from(q.cast_signed())))
            .collect(),
        Format::Q6K => row.chunks(210).flat_map(q6_k).collect(),
        Format::Iq2S => row.chunks(82).flat_map(iq2_s).collect(),
        Format::Q4_0 => row.chunks(18).flat_map(q4_0).collect(),
        Format::Q4K => row.chunks(144).flat_map(q4_k).collect(),
        Format::Q2_0 => row.chunks(18).flat_map(q2_0).collect(),
        Format::Q2_0G128 => row.chunks(34).flat_map(q2_0).collect(),
        _ => Vec::new(),
    }
}

fn q4_0(block: &[u8]) -> Vec<f32> {
    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
    let nibble = |e: usize| block[2 + e % 16] >> (4 * (e / 16)) & 15;
    (0..32).map(|e| (f32::from(nibble(e)) - 8.0) * d).collect()
}

fn q4_k(block: &[u8]) -> Vec<f32> {
    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
    let d_min = f16::from_le_bytes([block[2], block[3]]).to_f32();
    // Two planes of four low sixes with the high pairs of the other four above, then the nibbles of
    // those.
    let six = |plane: usize, j: usize| match j < 4 {
        true => block[4 + 4 * plane + j] % 64,
        false => {
            let nibble = block[12 + j - 4] >> (4 * plane) & 15;
            nibble + 16 * (block[4 + 4 * plane + j - 4] / 64)
        }
    };
    let number = |e: usize| {
        let q = block[16 + e / 64 * 32 + e % 32] >> (4 * (e / 32 % 2)) & 15;
        let (scale, minimum) = (six(0, e / 32), six(1, e / 32));
        d * f32::from(scale) * f32::from(q) - d_min * f32::from(minimum)
    };
    (0..256).map(number).collect()
}

fn q2_0(block: &[u8]) -> Vec<f32> {
    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
    let code = |e: usize| block[2 + e / 4] >> (2 * (e % 4)) & 3;
    (0..4 * (block.len() - 2)).map(|e| (f32::from(code(e)) - 1.0) * d).collect()
}

fn q6_k(block: &[u8]) -> Vec<f32> {
    let d = f16::from_le_bytes([block[208], block[209]]).to_f32();
    let number = |e: usize| {
        let (half, within) = (e / 128, e % 128);
        let (group, l) = (within / 32, within % 32);
        let nibble = block[64 * half + 32 * (group % 2) + l] >> (4 * (group / 2)) & 15;
        let pair = block[128 + 32 * half + l] >> (2 * group) & 3;
        let scale = block[192 + e / 16].cast_signed();
        d * f32::from(scale) * (f32::from(pair * 16 + nibble) - 32.0)
    };
    (0..256).map(number).collect()
}

/// Sums of absolute values of blocks of 4096.
pub(super) fn absolute_sums(x: &[f32]) -> Vec<f32> {
    let sum = |block: &[f32]| {
        let mut lanes = [0.0; LANES];
        for (i, x) in block.iter().enumerate() {
            lanes[i % LANES] += x.abs();
        }
        tree(lanes)
    };
    x.chunks(4096).map(sum).collect()
}

/// Weights whose absolute values have these sums, ternary.
pub(super) fn ternarize(x: &[f32], sums: &[f32]) -> Vec<i8> {
    let sum: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
    let inverse = 1.0 / ((sum / x.len() as f64) as f32).max(1e-5);
    x.iter().map(|x| (x * inverse).round_ties_even().clamp(-1.0, 1.0) as i8).collect()
}

/// Codes, one a byte, times activations.
pub(super) fn matmul(a: &[i8], b: &[u8], [m, n, k]: [usize; 3]) -> Vec<f32> {
    let weight = |code: u8| [-1, 0, 1, 0][usize::from(code & 3)];
    let product = |i: usize, j: usize, l: usize| i64::from(a[i * k + l]) * weight(b[l * n + j]);
    let sum = |i: usize, j: usize| (0..k).map(|l| product(i, j, l)).sum::<i64>() as f32;
    (0..m).flat_map(|i| (0..n).map(move |j| sum(i, j))).collect()
}

fn iq2_s(block: &[u8]) -> Vec<f32> {
    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
    let number = |e: usize| {
        let group = e / 8;
        let high = usize::from(block[66 + group / 4] >> (2 * (group % 4)) & 3);
        let magnitude = GRID[256 * high + usize::from(block[2 + group])][e % 8];
        let sign = if block[34 + group] >> (e % 8) & 1 == 1 { -1.0 } else { 1.0 };
        let scale = block[74 + e / 32] >> (4 * (e / 16 % 2)) & 15;
        d * (f32::from(scale) + 0.5) * 0.25 * f32::from(magnitude) * sign
    };
    (0..256).map(number).collect()
}

/// Codes of 4 and 2 bits of a row, scales of its groups of 32, and what is known of it.
pub(super) type Condensed = (Vec<[u8; CODE_BYTES]>, Vec<[u8; 8]>, Vec<i8>, RowNorms);

pub(super) fn condense(x: &[f32]) -> Condensed {
    let groups = x.len() / 32;
    let none = RowNorms {
        step: 0.0,
        row: f32::INFINITY,
        lost: f32::INFINITY,
        lost_fine: f32::INFINITY,
        relative: f32::INFINITY,
    };
    let greatest = |x: &[f32]| x.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let step = greatest(x) / (15.5 * 127.0);
    if !x.iter().all(|x| x.is_finite()) || step > 0.0 && !(1e-15..=1e9).contains(&step) {
        return (vec![[0; CODE_BYTES]; groups], vec![[0; 8]; groups], vec![0; groups], none);
    }
    let (mut codes, mut fine, mut scales) = (Vec::new(), Vec::new(), Vec::new());
    let (mut lost, mut lost_fine, mut relative) = (Vec::new(), Vec::new(), 0.0_f32);
    for x in x.chunks(32) {
        let scale = if step == 0.0 { 0.0 } else { (greatest(x) / (15.5 * step)).ceil().min(127.0) };
        let a = step * scale;
        let inverse = if a > 0.0 { 1.0 / a } else { 0.0 };
        let (mut c, mut d) = ([0; 32], [0; 32]);
        let first = lost.len();
        for (i, &x) in x.iter().enumerate() {
            let code = x.mul_add(inverse, 15.5).round_ties_even().clamp(0.0, 31.0);
            let left = (-a).mul_add(code - 15.5, x);
            let two = left.mul_add(4.0 * inverse, 1.5).round_ties_even().clamp(0.0, 3.0);
            (c[i], d[i]) = (code as u8, two as u8);
            lost.push(left);
            lost_fine.push((-0.25 * a).mul_add(two - 1.5, left));
        }
        if scale > 0.0 {
            relative = relative.max(dot(&lost[first..], &lost[first..]).sqrt() / a);
        }
        codes.push(std::array::from_fn(|i| match i {
            0..16 => c[i] & 15 | c[16 + i] << 4,
            _ => (0..8).map(|p| (c[4 * p + i - 16] >> 4) << p).sum(),
        }));
        let crumbs = |at: usize| d[at] << 6 | d[at + 4] << 4 | d[at + 8] << 2 | d[at + 12];
        fine.push(std::array::from_fn(|i| crumbs(16 * (i / 4) + i % 4)));
        scales.push(scale as i8);
    }
    let row = dot(x, x).sqrt() * 1.001;
    // The losses of 5 bits are summed by group.
    let mut by_group = [0.0; LANES];
    for group in lost.chunks(32) {
        for i in 0..LANES {
            let (a, b) = (group[i], group[16 + i]);
            by_group[i] += b.mul_add(b, a.mul_add(a, 0.0));
        }
    }
    let up = |square: f32| square.sqrt() * 1.001 + row * 1e-6;
    let norms = RowNorms {
        step,
        row,
        lost: up(tree(by_group)),
        lost_fine: up(dot(&lost_fine, &lost_fine)),
        relative: relative * 1.001 + 1e-4,
    };
    (codes, fine, scales, norms)
}

/// Products and norms of condensed rows, panel by panel.
pub(super) fn scan(
    codes: &[u8],
    scales: &[i8],
    x: &[i8],
    x_scales: &[GroupScale],
) -> (Vec<f32>, Vec<f32>) {
    let width = x_scales.len();
    let (mut products, mut norms) = (Vec::new(), Vec::new());
    for (codes, scales) in codes.chunks(640 * width).zip(scales.chunks(32 * width)) {
        for row in 0..32 {
            let (mut product, mut norm) = (0.0, 0.0);
            for (g, x_scale) in x_scales.iter().enumerate() {
                let term = |c: usize| {
                    let byte = |word: usize| codes[640 * g + 128 * word + 4 * row + c % 4];
                    let four = byte(c % 16 / 4) >> (4 * (c / 16)) & 15;
                    let code = i32::from(four | (byte(4) >> (c / 4) & 1) << 4);
                    (2 * code - 31) * i32::from(x[32 * g + c])
                };
                let scale = f32::from(scales[32 * g + row]);
                product += (0..32).map(term).sum::<i32>() as f32 * (scale * x_scale.scale);
                norm += scale * x_scale.norm;
            }
            products.push(product);
            norms.push(norm);
        }
    }
    (products, norms)
}

/// The product of the fine codes of a row.
pub(super) fn refine(
    fine: &[u8],
    scales: &[i8],
    x: &[i8],
    x_scales: &[GroupScale],
) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    for (g, (scale, x_scale)) in scales.iter().zip(x_scales).enumerate() {
        let term = |c: usize| {
            let byte = fine[128 * (g / 16) + 64 * (c / 16) + 4 * (g % 16) + c % 4];
            let code = i32::from(byte >> (6 - 2 * (c % 16 / 4)) & 3);
            (2 * code - 3) * i32::from(x[32 * g + c])
        };
        let sum = (0..32).map(term).sum::<i32>();
        lanes[g % 16] += sum as f32 * (f32::from(*scale) * x_scale.scale);
    }
    lanes
}
