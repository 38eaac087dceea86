//! Weight formats: how a matrix is laid out in bytes.
//!
//! A matrix is `[rows, cols]` (rows = output features), row-major. Ternary formats hold codes
//! `t + 1` with `t` in `{-1, 0, 1}` and one scale `d` for the whole matrix: the weight is `d * t`.
//! [`encode`] and [`decode`] are the plain definition of each layout. Kernels read the formats of
//! floating-point matrices as they are in the file; ternary ones are [packed](crate::packed) first.

use std::fmt;

use crate::simd::Floats;

mod float;
pub(crate) mod i2_s;
mod narrow;
mod q6_k;
mod q8_0;
pub(crate) mod tq1_0;
pub(crate) mod tq2_0;

pub(crate) use self::float::{Bf16, F16, F32};
pub(crate) use self::i2_s::I2S;
pub use self::narrow::narrow;
pub(crate) use self::q6_k::Q6K;
pub(crate) use self::q8_0::Q8_0;
pub(crate) use self::tq1_0::Tq1_0;
pub(crate) use self::tq2_0::Tq2_0;

/// The widest rows: their sums of codes times activations cannot overflow 32 bits.
pub const MOST_COLS: usize = 1 << 22;

/// A weight format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// bitnet.cpp I2_S: blocks of 128 codes in 32 bytes, one `f32` scale behind the matrix.
    I2S,
    /// ggml TQ1_0: blocks of 256 codes, five to a byte, and an `f16` scale.
    Tq1_0,
    /// ggml TQ2_0: blocks of 256 codes, four to a byte, and an `f16` scale.
    Tq2_0,
    /// The layout that ternary kernels read: I2_S with the four bytes of 32 rows interleaved, see
    /// [`packed`](crate::packed). Not a format of files.
    I2SR32,
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// ggml Q8_0: blocks of 32 signed bytes and an `f16` scale.
    Q8_0,
    /// ggml Q6_K: blocks of 256 6-bit numbers, sixteen 8-bit scales and an `f16` scale.
    Q6K,
}

impl Format {
    /// The ternary formats of files.
    pub const TERNARY: [Format; 3] = [Format::I2S, Format::Tq1_0, Format::Tq2_0];
    /// The formats of other matrices: embeddings, the head.
    pub const FLOAT: [Format; 5] =
        [Format::F32, Format::F16, Format::Bf16, Format::Q8_0, Format::Q6K];

    /// The name used in kernel ids.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::I2S => "i2s",
            Format::Tq1_0 => "tq1_0",
            Format::Tq2_0 => "tq2_0",
            Format::I2SR32 => "i2s_r32",
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::Bf16 => "bf16",
            Format::Q8_0 => "q8_0",
            Format::Q6K => "q6_k",
        }
    }

    /// The name that ggml and its tools give the format.
    #[must_use]
    pub const fn ggml_name(self) -> &'static str {
        match self {
            Format::I2S => "I2_S",
            Format::Tq1_0 => "TQ1_0",
            Format::Tq2_0 => "TQ2_0",
            Format::I2SR32 => "I2_S_R32",
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::Bf16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q6K => "Q6_K",
        }
    }

    /// Weights and bytes of the smallest piece of a row that kernels take: a block, or sixteen
    /// numbers of the formats that have none.
    #[must_use]
    pub const fn block(self) -> (usize, usize) {
        match self {
            Format::I2S | Format::I2SR32 => (128, 32),
            Format::Tq1_0 => (256, 54),
            Format::Tq2_0 => (256, 66),
            Format::F32 => (16, 64),
            Format::F16 | Format::Bf16 => (16, 32),
            Format::Q8_0 => (32, 34),
            Format::Q6K => (256, 210),
        }
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    ///
    /// [`FormatError::Columns`] where `cols` is zero or no multiple of [`Format::block`],
    /// [`FormatError::Width`] where it is more than [`MOST_COLS`].
    pub fn row_bytes(self, cols: usize) -> Result<usize, FormatError> {
        let (weights, bytes) = self.block();
        if cols == 0 || !cols.is_multiple_of(weights) {
            return Err(FormatError::Columns { format: self, cols, multiple: weights });
        }
        if cols > MOST_COLS {
            return Err(FormatError::Width { cols });
        }
        Ok(cols / weights * bytes)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes that are no matrix of the format they are said to be. Offsets are within the matrix.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FormatError {
    /// The number of columns does not suit the format.
    Columns {
        /// The format.
        format: Format,
        /// Columns of the matrix.
        cols: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// More columns than [`MOST_COLS`].
    Width {
        /// Columns of the matrix.
        cols: usize,
    },
    /// More or fewer bytes than the shape needs.
    Length {
        /// The format.
        format: Format,
        /// Bytes the shape needs.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A 2-bit code 3, which stands for no weight.
    Code {
        /// The byte that holds it.
        offset: usize,
    },
    /// A scale that is not a finite number.
    Scale {
        /// Where it is.
        offset: usize,
        /// What it is.
        value: f32,
    },
    /// Blocks of a ternary matrix with different scales: the kernels know one scale a matrix.
    Scales {
        /// Where the second scale is.
        offset: usize,
        /// The scale of the blocks before.
        first: f32,
        /// The scale that differs.
        second: f32,
    },
    /// The system has no memory for the matrix in the layout that kernels read.
    Memory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A weight to encode that is not -1, 0 or 1.
    Weight {
        /// Its index in the row-major matrix.
        index: usize,
        /// What it is.
        value: i8,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::Columns { format, cols, multiple } => {
                write!(f, "{cols} columns; kernels for {format} need a multiple of {multiple}")
            }
            FormatError::Width { cols } => {
                write!(f, "{cols} columns; at most {MOST_COLS} are supported")
            }
            FormatError::Length { format, expected, found } => {
                write!(f, "{found} bytes; the shape needs {expected} in {format}")
            }
            FormatError::Code { offset } => {
                write!(
                    f,
                    "byte {offset} holds the code 0b11, which is no ternary weight: the file is \
                     damaged, or was written with another layout"
                )
            }
            FormatError::Scale { offset, value } => {
                write!(
                    f,
                    "scale {value} at byte {offset} is not a finite number: the file is damaged"
                )
            }
            FormatError::Scales { offset, first, second } => write!(
                f,
                "block scale {second} at byte {offset} differs from {first} before it: only one \
                 scale a matrix is supported, as ternary training gives it"
            ),
            FormatError::Memory { bytes } => {
                write!(f, "no memory for its {bytes} bytes: close other programs")
            }
            FormatError::Weight { index, value } => {
                write!(f, "weight {value} at index {index} is not ternary")
            }
        }
    }
}

impl std::error::Error for FormatError {}

/// Checks every byte of a ternary matrix and reads its scale.
///
/// `bytes` is the payload of a `[rows, cols]` matrix, the tail of I2_S included. Those of a
/// floating-point format are only counted; its scale is 1.
///
/// # Errors
///
/// [`FormatError`] where the bytes are not such a matrix.
pub fn check(format: Format, bytes: &[u8], rows: usize, cols: usize) -> Result<f32, FormatError> {
    check_length(format, bytes, rows, cols)?;
    match format {
        Format::I2S => I2S::check(bytes),
        Format::Tq1_0 => Tq1_0::check(bytes),
        Format::Tq2_0 => Tq2_0::check(bytes),
        _ => Ok(1.0),
    }
}

fn check_length(format: Format, bytes: &[u8], rows: usize, cols: usize) -> Result<(), FormatError> {
    let expected = payload(format, rows, cols)?;
    if bytes.len() != expected {
        return Err(FormatError::Length { format, expected, found: bytes.len() });
    }
    Ok(())
}

/// Bytes of a `[rows, cols]` matrix, tail included; more than there can be, if they are too many
/// to count.
///
/// # Errors
///
/// As [`Format::row_bytes`].
pub fn payload(format: Format, rows: usize, cols: usize) -> Result<usize, FormatError> {
    let tail = if format == Format::I2S { i2_s::TAIL } else { 0 };
    Ok(format.row_bytes(cols)?.saturating_mul(rows).saturating_add(tail))
}

/// Ternary weights in the bytes of a format: the plain definition of the layout.
///
/// `weights` is `[rows, cols]`, row-major, each -1, 0 or 1; `d` is the scale.
///
/// # Errors
///
/// [`FormatError`] where the shape does not suit the format or a weight is not ternary.
///
/// # Panics
///
/// If `format` is not a ternary one.
pub fn encode(
    format: Format,
    weights: &[i8],
    rows: usize,
    cols: usize,
    d: f32,
) -> Result<Vec<u8>, FormatError> {
    let expected = payload(format, rows, cols)?;
    if rows.checked_mul(cols) != Some(weights.len()) {
        return Err(FormatError::Length { format, expected, found: weights.len() });
    }
    if let Some(index) = weights.iter().position(|w| !(-1..=1).contains(w)) {
        return Err(FormatError::Weight { index, value: weights[index] });
    }
    Ok(match format {
        Format::I2S => I2S::encode(weights, d),
        Format::Tq1_0 => Tq1_0::encode(weights, d),
        Format::Tq2_0 => Tq2_0::encode(weights, d),
        _ => panic!("{format} is not a ternary format"),
    })
}

/// The weights `t` of a ternary matrix, `[rows, cols]`, row-major, without the scale.
///
/// # Errors
///
/// As [`check`].
///
/// # Panics
///
/// If `format` is not a ternary one.
pub fn decode(
    format: Format,
    bytes: &[u8],
    rows: usize,
    cols: usize,
) -> Result<Vec<i8>, FormatError> {
    check(format, bytes, rows, cols)?;
    let bytes = &bytes[..format.row_bytes(cols)? * rows];
    Ok(match format {
        Format::I2S => I2S::decode(bytes),
        Format::Tq1_0 => Tq1_0::decode(bytes),
        Format::Tq2_0 => Tq2_0::decode(bytes),
        _ => panic!("{format} is not a ternary format"),
    })
}

/// A row of a matrix of one of [`Format::FLOAT`], widened to `f32`, into `out`.
///
/// # Panics
///
/// If `format` is a ternary one, or `row` is not a row of as many numbers as `out` has.
pub fn widen(format: Format, row: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => widen_row::<F32>(row, out),
        Format::F16 => widen_row::<F16>(row, out),
        Format::Bf16 => widen_row::<Bf16>(row, out),
        Format::Q8_0 => widen_row::<Q8_0>(row, out),
        Format::Q6K => widen_row::<Q6K>(row, out),
        _ => panic!("{format} is a ternary format"),
    }
}

fn widen_row<F: Float>(row: &[u8], out: &mut [f32]) {
    let (out, rest) = out.as_chunks_mut::<16>();
    assert!(rest.is_empty() && out.len() * F::BYTES == row.len() * F::CHUNKS, "row length");
    for (i, out) in out.iter_mut().enumerate() {
        *out = F::load(crate::simd::scalar::Scalar, row, i);
    }
}

/// A format of floating-point numbers, as kernels read it.
pub(crate) trait Float: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Chunks of sixteen numbers in a block.
    const CHUNKS: usize;

    /// Numbers `16 i .. 16 i + 16` of a row.
    fn load<S: Floats>(s: S, row: &[u8], i: usize) -> S::F;
}

/// The one scale of a matrix whose blocks of `N` bytes end in an `f16` scale each.
///
/// Writers give a block without weights the scale 0: it agrees with any, if `decode` finds that it
/// holds nothing but zeros.
fn block_scale<const N: usize>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Vec<i8>,
) -> Result<f32, FormatError> {
    let mut scale = None;
    for (i, block) in bytes.as_chunks::<N>().0.iter().enumerate() {
        let value = half::f16::from_le_bytes([block[N - 2], block[N - 1]]).to_f32();
        let offset = (i + 1) * N - 2;
        if !value.is_finite() {
            return Err(FormatError::Scale { offset, value });
        }
        if value == 0.0 && decode(block).iter().all(|&t| t == 0) {
            continue;
        }
        let first = *scale.get_or_insert(value);
        if first != value {
            return Err(FormatError::Scales { offset, first, second: value });
        }
    }
    Ok(scale.unwrap_or(0.0))
}

/// The first byte that holds a 2-bit code 3.
#[inline]
fn invalid_crumb(bytes: &[u8]) -> Option<usize> {
    let invalid = |b: u8| b & (b >> 1) & 0x55 != 0;
    // Without an early exit the inner loop is vectorised: whole matrices are checked at load.
    let dirty = |chunk: &[u8]| chunk.iter().fold(0, |seen, &b| seen | (b & (b >> 1) & 0x55)) != 0;
    let chunk = 4096;
    let at = bytes.chunks(chunk).position(dirty)? * chunk;
    bytes[at..].iter().position(|&b| invalid(b)).map(|i| at + i)
}
