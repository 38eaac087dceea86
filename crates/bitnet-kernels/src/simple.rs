//! Two functions for whoever wants just that: a product with ternary weights, and ternary weights.
//!
//! Codes are one a byte. Both run the best kernel the processor has, on the calling thread. Models
//! are run by the packed kernels of [`op`](crate::op) instead, which read a quarter of the bytes.
//!
//! ```
//! use bitnet_kernels::simple::{QuantizationType, matmul_i2s, quantize};
//!
//! // Weights [3, 2].
//! let weights = [-0.9, 0.1, 1.1, -0.8, 0.0, 1.0];
//! let (mut codes, mut scales) = ([0; 6], [0.0]);
//! quantize(&weights, &mut codes, &mut scales, QuantizationType::I2S)?;
//! assert_eq!(codes, [0, 1, 2, 0, 1, 2]);
//!
//! // Activations [2, 3].
//! let x = [-1, 0, 1, -1, 0, 1];
//! let mut y = [0.0; 4];
//! matmul_i2s(&x, &codes, &mut y, 2, 2, 3)?;
//! assert_eq!(y, [1.0, 1.0, 1.0, 1.0]);
//! # Ok::<(), bitnet_kernels::simple::SimpleError>(())
//! ```

use std::fmt;
use std::sync::OnceLock;

use crate::format::FormatError;
use crate::manager::{KernelManager, NoKernel};
use crate::op::{MatmulArgs, MatmulFn};
use crate::registry::Bound;
use crate::ternarize::Ternarizer;

/// How [`quantize`] writes ternary weights `t`, each -1, 0 or 1.
///
/// What bitnet.cpp's formats of these names put into a byte, a nibble or two bits is one byte here.
/// Weights that are missing in the last byte are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum QuantizationType {
    /// A byte for each weight: `t + 1`, as [`matmul_i2s`] reads it.
    I2S = 0,
    /// A byte for two weights: `3 t0 + t1 + 4`, from 0 to 8.
    Tl1 = 1,
    /// A byte for three weights: the magnitude of `9 t0 + 3 t1 + t2`, from 0 to 13, and 16 more if
    /// that is negative.
    Tl2 = 2,
}

impl QuantizationType {
    /// Weights in a byte of the output.
    #[must_use]
    pub const fn weights(self) -> usize {
        self as usize + 1
    }
}

impl TryFrom<u8> for QuantizationType {
    type Error = SimpleError;

    fn try_from(value: u8) -> Result<QuantizationType, SimpleError> {
        match value {
            0 => Ok(QuantizationType::I2S),
            1 => Ok(QuantizationType::Tl1),
            2 => Ok(QuantizationType::Tl2),
            value => Err(SimpleError::Type { value }),
        }
    }
}

/// Arguments that do not fit together.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SimpleError {
    /// A slice of the wrong length.
    Length {
        /// Which argument.
        what: &'static str,
        /// Elements it must have.
        expected: usize,
        /// Elements it has.
        found: usize,
    },
    /// Dimensions whose product is no number of elements.
    Overflow {
        /// The dimensions.
        shape: [usize; 3],
    },
    /// Nothing to quantise.
    Empty,
    /// A number that is not finite, or so great that the scale would not be.
    Number {
        /// Its index in the input.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A number that is no quantisation type.
    Type {
        /// The number.
        value: u8,
    },
    /// There is no kernel, on a processor that is not known today.
    Kernel(NoKernel),
}

impl fmt::Display for SimpleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SimpleError::Length { what, expected, found } => {
                write!(f, "`{what}` has {found} elements and must have {expected}")
            }
            SimpleError::Overflow { shape: [m, n, k] } => {
                write!(f, "matrices of m = {m}, n = {n}, k = {k} have too many elements")
            }
            SimpleError::Empty => write!(f, "there are no numbers to quantise"),
            SimpleError::Number { index, value } => {
                write!(f, "number {value} at index {index} is not finite or out of range")
            }
            SimpleError::Type { value } => {
                write!(f, "{value} is no quantisation type: 0 is I2S, 1 is TL1, 2 is TL2")
            }
            SimpleError::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SimpleError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SimpleError::Kernel(error) => Some(error),
            _ => None,
        }
    }
}

impl From<NoKernel> for SimpleError {
    fn from(error: NoKernel) -> SimpleError {
        SimpleError::Kernel(error)
    }
}

/// What the functions of this module run, chosen once.
fn kernels() -> Result<&'static (Bound<MatmulFn>, Ternarizer), SimpleError> {
    static KERNELS: OnceLock<Result<(Bound<MatmulFn>, Ternarizer), NoKernel>> = OnceLock::new();
    let chosen = KERNELS.get_or_init(|| {
        let manager = KernelManager::new();
        Ok((manager.select(None)?, Ternarizer::select(&manager)?))
    });
    chosen.as_ref().map_err(|error| error.clone().into())
}

fn length(what: &'static str, found: usize, expected: usize) -> Result<(), SimpleError> {
    match found == expected {
        true => Ok(()),
        false => Err(SimpleError::Length { what, expected, found }),
    }
}

/// `C = A B` for activations `a` `[m, k]` and ternary weights `b` `[k, n]`, into `c` `[m, n]`.
///
/// All matrices are row-major: weight `(l, j)` is `b[l * n + j]`. It is one byte, of which the two
/// lowest bits count: 0 is -1, 1 is 0, 2 is +1; 3 means nothing and counts as 0. The sums are exact;
/// only those beyond 2^24 are rounded, once, to `f32`.
///
/// # Errors
///
/// [`SimpleError::Length`] where a slice does not have the elements of its matrix, and
/// [`SimpleError::Overflow`] where there is no such number.
pub fn matmul_i2s(
    a: &[i8],
    b: &[u8],
    c: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) -> Result<(), SimpleError> {
    let shape = [m, n, k];
    check_matmul([a.len(), b.len(), c.len()], shape)?;
    (kernels()?.0.run)(MatmulArgs { a, b, c, shape });
    Ok(())
}

/// Whether slices `a`, `b` and `c` of so many elements are those of a product [`matmul_i2s`] of the shape
/// `[m, n, k]`, whatever computes it.
///
/// # Errors
///
/// As [`matmul_i2s`].
pub fn check_matmul([a, b, c]: [usize; 3], shape: [usize; 3]) -> Result<(), SimpleError> {
    let [m, n, k] = shape;
    let product = |x: usize, y: usize| x.checked_mul(y).ok_or(SimpleError::Overflow { shape });
    length("a", a, product(m, k)?)?;
    length("b", b, product(k, n)?)?;
    length("c", c, product(m, n)?)
}

/// Ternary weights from floating-point ones, by the mean of their absolute values.
///
/// `m = max(mean |x|, 1e-5)`, `t = clamp(round_half_even(x * (1 / m)), -1, 1)`: the weights `x` become
/// `scales[0] * t`. `input` is one matrix (its shape does not matter), `scales` has one element, and
/// `output` as many as [`QuantizationType`] says: `input.len()` divided by
/// [`QuantizationType::weights`], rounded up.
///
/// For the packed bytes of a file see [`Ternarizer::encode`].
///
/// # Errors
///
/// [`SimpleError`]; nothing is written then.
pub fn quantize(
    input: &[f32],
    output: &mut [u8],
    scales: &mut [f32],
    qtype: QuantizationType,
) -> Result<(), SimpleError> {
    if input.is_empty() {
        return Err(SimpleError::Empty);
    }
    length("output", output.len(), input.len().div_ceil(qtype.weights()))?;
    length("scales", scales.len(), 1)?;
    let ternarizer = &kernels()?.1;
    let scale = ternarizer.scale(input).map_err(|error| match error {
        FormatError::Number { index, value } => SimpleError::Number { index, value },
        _ => SimpleError::Empty,
    })?;
    scales[0] = scale.d();
    if qtype == QuantizationType::I2S {
        ternarizer.codes(input, scale, output);
        return Ok(());
    }
    /// Weights that stay in the cache between the two steps; whole pairs and triples.
    const PIECE: usize = 3 << 10;
    let mut codes = [1; PIECE];
    for (x, out) in input.chunks(PIECE).zip(output.chunks_mut(PIECE / qtype.weights())) {
        codes[x.len()..].fill(1);
        ternarizer.codes(x, scale, &mut codes[..x.len()]);
        match qtype {
            QuantizationType::Tl1 => {
                for (out, [t0, t1]) in out.iter_mut().zip(codes.as_chunks().0) {
                    *out = 3 * t0 + t1;
                }
            }
            _ => {
                for (out, triple) in out.iter_mut().zip(codes.as_chunks().0) {
                    let [t0, t1, t2] = triple.map(u8::cast_signed);
                    let v = 9 * t0 + 3 * t1 + t2 - 13;
                    *out = v.unsigned_abs() | u8::from(v < 0) << 4;
                }
            }
        }
    }
    Ok(())
}
