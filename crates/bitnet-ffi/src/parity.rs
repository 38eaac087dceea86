//! Our formats and kernels beside ggml's: the same bytes, the same numbers, and both times.

use std::hint::black_box;
use std::time::Instant;

use bitnet_kernels::format::{encode, narrow, widen};
use bitnet_kernels::op::{GemvArgs, GemvFn, HeadArgs, HeadFn, QuantizeArgs, QuantizeFn, RowScale};
use bitnet_kernels::pool::Tile;
use bitnet_kernels::{Format, KernelManager, NoKernel, Packed, Pool, packed};
use serde::Serialize;

use crate::{Error, Reference};

/// A format of ggml, and what it calls it in the names of functions.
#[derive(Clone, Copy, Debug)]
struct Known {
    format: Format,
    name: &'static str,
    /// The activations that its products take.
    activation: &'static str,
    /// Whether its bytes follow from the numbers, so that two writers must agree.
    exact: bool,
}

const fn known(format: Format, name: &'static str, activation: &'static str, exact: bool) -> Known {
    Known { format, name, activation, exact }
}

/// Formats that ggml and this engine both have. Only what is ternary must be the same bytes: of Q2_0, Q4_0, Q4_K, Q6_K and
/// IQ2_S the best scales are searched for, which each does in its way, and in Q8_0 numbers are the nearest multiple of
/// the scale as it is written here, and of the scale before it is rounded there.
const KNOWN: [Known; 8] = [
    known(Format::Tq1_0, "tq1_0", "q8_K", true),
    known(Format::Tq2_0, "tq2_0", "q8_K", true),
    known(Format::Q2_0, "q2_0", "q8_0", false),
    known(Format::Q8_0, "q8_0", "q8_0", false),
    known(Format::Q4_0, "q4_0", "q8_0", false),
    known(Format::Q4K, "q4_K", "q8_K", false),
    known(Format::Q6K, "q6_K", "q8_K", false),
    known(Format::Iq2S, "iq2_s", "q8_K", false),
];

/// Columns of the matrices: those of BitNet b1.58 2B-4T.
const COLS: usize = 2560;
/// Rows that are read and written.
const ROWS: usize = 32;
/// Rows that are multiplied: more than a second-level cache holds.
const MANY: usize = 2560;
/// The magnitudes of scales that are tried.
const SCALES: [f32; 5] = [1.0, 65504.0, 6.0e-8, 0.0317, 1.2e-5];
/// The least at which errors of what is written are compared.
const SCALE: f32 = 0.01;
/// Rounds of which the fastest counts.
const ROUNDS: usize = 7;

/// What was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Test {
    /// Bytes to numbers.
    Read,
    /// Numbers to bytes.
    Write,
    /// A matrix times a row of activations.
    Product,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Parity {
    /// The format, as ggml calls it.
    pub format: &'static str,
    /// What was compared.
    pub test: Test,
    /// Their function.
    pub theirs: String,
    /// Ours.
    pub ours: String,
    /// Numbers, or bytes, that were compared.
    pub compared: usize,
    /// Those that are other bits.
    pub different: usize,
    /// Whether none may be.
    pub exact: bool,
    /// The root of the mean square of errors, as a share of what is right: theirs and ours, where there is
    /// something right that both come near to.
    pub errors: Option<[f64; 2]>,
    /// Nanoseconds that the matrix took, theirs and ours, on one thread, taken in turns.
    pub nanoseconds: Option<[u64; 2]>,
}

impl Parity {
    /// Whether both are as they should be: the same bits where both must have the same. Otherwise ours is no farther from
    /// what is right than theirs, but for a twentieth, and theirs is near: in products within a twentieth of
    /// their size, what activations in 8 bits do with room to spare; in what is written within half as much again.
    #[must_use]
    pub fn holds(&self) -> bool {
        match (self.errors, self.test) {
            _ if self.exact => self.different == 0,
            (Some([theirs, ours]), Test::Product) => ours <= theirs * 1.05 && theirs <= 0.05,
            (Some([theirs, ours]), _) => ours <= theirs * 1.05 && theirs <= ours * 1.5,
            (None, _) => true,
        }
    }
}

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParityError {
    /// The library failed.
    #[error(transparent)]
    Library(#[from] Error),
    /// There is no kernel.
    #[error(transparent)]
    Kernel(#[from] NoKernel),
    /// A matrix is not as it should be.
    #[error(transparent)]
    Format(#[from] bitnet_kernels::format::FormatError),
}

/// Holds all formats of which the library has functions against ours.
///
/// # Errors
///
/// Where the library ends or does not answer, or there is no memory.
pub fn check(reference: &mut Reference) -> Result<Vec<Parity>, ParityError> {
    let mut found = Vec::new();
    for known in KNOWN {
        let (read, write) =
            (format!("dequantize_row_{}", known.name), format!("quantize_{}", known.name));
        let product = format!("ggml_vec_dot_{}_{}", known.name, known.activation);
        let activation = format!("quantize_row_{}", known.activation);
        let (has, _) = reference.has(&[&read, &write, &product, &activation])?;
        if has[0] {
            found.push(reading(reference, known, read)?);
        }
        if has[1] {
            found.push(writing(reference, known, write)?);
        }
        if has[2] && has[3] {
            found.push(product_of(reference, known, (product, &activation))?);
        }
    }
    Ok(found)
}

/// Numbers that look like any others, the same each time: SplitMix64.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn ternary(&mut self, count: usize) -> Vec<i8> {
        (0..count).map(|_| (self.next() % 3) as i8 - 1).collect()
    }

    /// Between -1 and 1, most near 0.
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        let mut one = || (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0;
        (0..count).map(|_| one() * one()).collect()
    }
}

/// Bytes to numbers. Of formats that are not ternary all bytes mean something.
fn reading(reference: &mut Reference, known: Known, theirs: String) -> Result<Parity, ParityError> {
    let (mut noise, count) = (Noise(1), ROWS * COLS);
    let (mut compared, mut different) = (0, 0);
    for scale in SCALES {
        let (bytes, ours) = if is_ternary(known.format) {
            let codes = noise.ternary(count);
            // What is not a number of half precision is the nearest.
            let scale = half(scale);
            let bytes = encode(known.format, &codes, ROWS, COLS, scale)?;
            (bytes, codes.iter().map(|&code| f32::from(code) * scale).collect())
        } else {
            let length = known.format.row_bytes(COLS)? * ROWS;
            let bytes: Vec<u8> = (0..length).map(|_| noise.next() as u8).collect();
            let mut ours = vec![0.0; count];
            let rows = bytes.chunks_exact(length / ROWS).zip(ours.chunks_exact_mut(COLS));
            rows.for_each(|(row, out)| widen(known.format, row, out));
            (bytes, ours)
        };
        let found = reference.dequantize(&theirs, &bytes, count)?;
        // Zero times a negative scale is a zero all the same.
        let same = |(a, b): (&f32, &f32)| {
            a == b || a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
        };
        different += ours.iter().zip(&found).filter(|&pair| !same(pair)).count();
        compared += count;
    }
    let ours = if is_ternary(known.format) { "format::decode" } else { "format::widen" };
    Ok(Parity {
        format: known.format.ggml_name(),
        test: Test::Read,
        theirs,
        ours: ours.to_owned(),
        compared,
        different,
        exact: true,
        errors: None,
        nanoseconds: None,
    })
}

/// Numbers to bytes: of ternary formats numbers that are.
fn writing(reference: &mut Reference, known: Known, theirs: String) -> Result<Parity, ParityError> {
    let (mut noise, count) = (Noise(2), ROWS * COLS);
    let (mut compared, mut different) = (0, 0);
    let mut squares = [0.0; 3];
    for scale in SCALES {
        // The greatest that has a scale in all formats.
        let scale = half(scale.min(1e3));
        let (numbers, ours): (Vec<f32>, _) = if is_ternary(known.format) {
            let codes = noise.ternary(count);
            let bytes = encode(known.format, &codes, ROWS, COLS, scale)?;
            (codes.iter().map(|&code| f32::from(code) * scale).collect(), bytes)
        } else {
            let numbers: Vec<f32> = noise.numbers(count).iter().map(|x| x * scale).collect();
            let bytes = narrow(known.format, &numbers, COLS)?;
            (numbers, bytes)
        };
        let found = reference.quantize(&theirs, &numbers, (ROWS, ours.len()))?;
        different += ours.iter().zip(&found).filter(|(a, b)| a != b).count();
        compared += ours.len();
        // Smaller ones have no scale of half precision, and are lost.
        if !is_ternary(known.format) && scale >= SCALE {
            let length = ours.len() / ROWS;
            let mut row = vec![0.0; COLS];
            for (index, bytes) in [&found, &ours].into_iter().enumerate() {
                for (bytes, right) in bytes.chunks_exact(length).zip(numbers.chunks_exact(COLS)) {
                    widen(known.format, bytes, &mut row);
                    squares[index] += relative(&row, right, scale);
                }
            }
            squares[2] += count as f64;
        }
    }
    let errors = (squares[2] > 0.0).then(|| [0, 1].map(|i| (squares[i] / squares[2]).sqrt()));
    Ok(Parity {
        format: known.format.ggml_name(),
        test: Test::Write,
        theirs,
        ours: if is_ternary(known.format) { "format::encode" } else { "format::narrow" }.to_owned(),
        compared,
        different,
        exact: known.exact,
        errors,
        nanoseconds: None,
    })
}

/// The sum of squares of errors, in units of a scale.
fn relative(found: &[f32], right: &[f32], scale: f32) -> f64 {
    let error = |(a, b): (&f32, &f32)| f64::from(a - b) / f64::from(scale);
    found.iter().zip(right).map(error).map(|error| error * error).sum()
}

/// A matrix times a row of activations. What is right is the product, in double precision, of what the bytes say and,
/// where weights are ternary, of activations in 8 bits with one scale for the row, as BitNet has them: ggml takes one
/// for 256.
fn product_of(
    reference: &mut Reference,
    known: Known,
    (theirs, activation): (String, &str),
) -> Result<Parity, ParityError> {
    let mut noise = Noise(3);
    let x = noise.numbers(COLS);
    let (bytes, matrix) = if is_ternary(known.format) {
        let codes = noise.ternary(MANY * COLS);
        let scale = half(0.0317);
        let bytes = encode(known.format, &codes, MANY, COLS, scale)?;
        (bytes, codes.iter().map(|&code| f32::from(code) * scale).collect::<Vec<_>>())
    } else {
        let numbers = noise.numbers(MANY * COLS);
        let bytes = narrow(known.format, &numbers, COLS)?;
        let mut matrix = vec![0.0; MANY * COLS];
        let rows = bytes.chunks_exact(bytes.len() / MANY).zip(matrix.chunks_exact_mut(COLS));
        rows.for_each(|(row, out)| widen(known.format, row, out));
        (bytes, matrix)
    };
    let mut ours = Ours::new(known.format, &bytes, &x)?;
    let taken = ours.activations();
    let right: Vec<f64> = matrix
        .chunks_exact(COLS)
        .map(|row| row.iter().zip(&taken).map(|(w, x)| f64::from(*w) * x).sum())
        .collect();
    let (mut times, mut found) = ([u64::MAX; 2], Vec::new());
    for _ in 0..ROUNDS {
        let (nanoseconds, products) =
            reference.dot((&theirs, activation), (&bytes, MANY), &x, 1)?;
        times = [times[0].min(nanoseconds), times[1].min(ours.run())];
        found = products;
    }
    let scale = (right.iter().map(|y| y * y).sum::<f64>() / MANY as f64).sqrt();
    let error = |found: &[f32]| {
        let squares = found.iter().zip(&right).map(|(&a, b)| (f64::from(a) - b).powi(2));
        (squares.sum::<f64>() / MANY as f64).sqrt() / scale
    };
    let different = found.iter().zip(&ours.y).filter(|(a, b)| a != b).count();
    Ok(Parity {
        format: known.format.ggml_name(),
        test: Test::Product,
        theirs,
        ours: ours.id.clone(),
        compared: MANY,
        different,
        exact: false,
        errors: Some([error(&found), error(&ours.y)]),
        nanoseconds: Some(times),
    })
}

/// Our product, ready to run.
struct Ours<'a> {
    id: String,
    how: How<'a>,
    y: Vec<f32>,
}

enum How<'a> {
    Ternary { gemv: GemvFn, matrix: Packed, q: Vec<[i8; 4]>, scale: RowScale },
    Numbers { head: HeadFn, bytes: &'a [u8], x: &'a [f32] },
}

impl<'a> Ours<'a> {
    fn new(format: Format, bytes: &'a [u8], x: &'a [f32]) -> Result<Ours<'a>, ParityError> {
        let manager = KernelManager::new();
        let y = vec![0.0; MANY];
        if !is_ternary(format) {
            let head = manager.select::<HeadFn>(Some(format))?;
            let how = How::Numbers { head: head.run, bytes, x };
            return Ok(Ours { id: head.kernel.id().to_string(), how, y });
        }
        let gemv = manager.select::<GemvFn>(Some(Format::I2SR32))?;
        let matrix = Packed::new(format, bytes, (MANY, COLS), Format::I2SR32, &Pool::alone())?;
        let (mut q, mut scale) = (vec![0_i8; COLS], RowScale::default());
        (manager.select::<QuantizeFn>(None)?.run)(QuantizeArgs { x, q: &mut q, scale: &mut scale });
        q.resize(packed::padded(COLS), 0);
        let q = q.as_chunks().0.to_vec();
        let id = gemv.kernel.id().to_string();
        Ok(Ours { id, how: How::Ternary { gemv: gemv.run, matrix, q, scale }, y })
    }

    /// The activations that are multiplied.
    fn activations(&self) -> Vec<f64> {
        match &self.how {
            How::Ternary { q, scale, .. } => {
                let scaled =
                    q.as_flattened().iter().map(|&q| f64::from(q) / f64::from(scale.scale));
                scaled.take(COLS).collect()
            }
            How::Numbers { x, .. } => x.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// Runs once, and gives the nanoseconds that it took.
    fn run(&mut self) -> u64 {
        let start = Instant::now();
        match &self.how {
            How::Ternary { gemv, matrix, q, scale } => gemv(GemvArgs {
                panels: matrix.panels(0..MANY),
                scale: matrix.scale(),
                x: q,
                x_scale: *scale,
                y: &mut self.y,
            }),
            How::Numbers { head, bytes, x } => {
                head(HeadArgs { weights: bytes, x, cols: COLS, y: Tile::new(&mut self.y, MANY) });
            }
        }
        black_box(&self.y);
        start.elapsed().as_nanos() as u64
    }
}

fn is_ternary(format: Format) -> bool {
    Format::TERNARY.contains(&format)
}

/// The nearest number of half precision that is not 0.
fn half(x: f32) -> f32 {
    half::f16::from_f32(x).max(half::f16::from_bits(1)).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_must_be_near_to_what_is_right() {
        let of = |test, errors| Parity {
            format: "Q8_0",
            test,
            theirs: String::new(),
            ours: String::new(),
            compared: 10,
            different: 3,
            exact: false,
            errors: Some(errors),
            nanoseconds: None,
        };
        for (test, errors, expected) in [
            (Test::Product, [0.008, 1e-7], true),
            (Test::Product, [0.008, 0.009], false),
            (Test::Product, [2200.0, 1e-7], false),
            (Test::Product, [f64::NAN, 1e-7], false),
            (Test::Write, [0.09, 0.08], true),
            (Test::Write, [0.08, 0.09], false),
            (Test::Write, [0.33, 0.002], false),
        ] {
            assert_eq!(of(test, errors).holds(), expected, "{test:?} {errors:?}");
        }
        let exact = Parity { exact: true, errors: None, ..of(Test::Read, [0.0; 2]) };
        assert!(!exact.holds() && Parity { different: 0, ..exact }.holds());
    }
}
