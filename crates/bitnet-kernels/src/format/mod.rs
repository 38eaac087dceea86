//! Weight formats: how a matrix is laid out in bytes.
//!
//! A matrix is `[rows, cols]` (rows = output features), row-major. Ternary formats hold codes
//! `t + 1` with `t` in `{-1, 0, 1}` and one scale `d` for the whole matrix: the weight is `d * t`.
//! [`encode`] and [`decode`] are the plain definition of each layout. Kernels read the formats of
//! floating-point matrices as they are in the file; ternary ones are [packed](crate::packed) first.

use std::fmt;

use crate::simd::Floats;

mod error;
mod float;
pub(crate) mod i2_s;
mod iq2_bn;
mod iq2_s;
mod iq2_s_grid;
mod narrow;
mod q6_k;
mod q8_0;
mod tiling;
mod tl1;
mod tl2;
pub(crate) mod tq1_0;
pub(crate) mod tq2_0;

pub use self::error::FormatError;
pub(crate) use self::float::{Bf16, F16, F32};
pub(crate) use self::i2_s::I2S;
pub(crate) use self::iq2_s::Iq2S;
pub use self::iq2_s::encode_iq2_s;
pub(crate) use self::iq2_s_grid::GRID as IQ2_S_GRID;
pub use self::narrow::narrow;
pub(crate) use self::q6_k::Q6K;
pub(crate) use self::q8_0::Q8_0;
pub use self::tiling::{Tiled, Tiling};
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
    /// The denser layout that ternary kernels read: the three weights of TL2 in a nibble and a sign,
    /// interleaved likewise. Not a format of files.
    Tl2R32,
    /// bitnet.cpp TL1: pairs of codes in 4 bits, tiled, one `f32` scale behind the matrix.
    Tl1,
    /// bitnet.cpp TL2: triples of codes in 5 bits, tiled, one `f32` scale behind the matrix.
    Tl2,
    /// ik_llama.cpp IQ2_BN: rows of an `f32` scale and blocks of 64 codes in 16 bytes.
    Iq2Bn,
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
    /// ggml IQ2_S: blocks of 256 numbers from a grid of 1024 times eight magnitudes, with signs,
    /// 4-bit scales and an `f16` scale.
    Iq2S,
}

impl Format {
    /// The ternary formats of files.
    pub const TERNARY: [Format; 6] =
        [Format::I2S, Format::Tq1_0, Format::Tq2_0, Format::Tl1, Format::Tl2, Format::Iq2Bn];
    /// The layouts of [packed](crate::packed) matrices.
    pub const PACKED: [Format; 2] = [Format::I2SR32, Format::Tl2R32];
    /// The formats of other matrices: embeddings, the head.
    pub const FLOAT: [Format; 6] =
        [Format::F32, Format::F16, Format::Bf16, Format::Q8_0, Format::Q6K, Format::Iq2S];

    /// The name used in kernel ids.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::I2S => "i2s",
            Format::Tq1_0 => "tq1_0",
            Format::Tq2_0 => "tq2_0",
            Format::I2SR32 => "i2s_r32",
            Format::Tl2R32 => "tl2_r32",
            Format::Tl1 => "tl1",
            Format::Tl2 => "tl2",
            Format::Iq2Bn => "iq2_bn",
            Format::F32 => "f32",
            Format::F16 => "f16",
            Format::Bf16 => "bf16",
            Format::Q8_0 => "q8_0",
            Format::Q6K => "q6_k",
            Format::Iq2S => "iq2_s",
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
            Format::Tl2R32 => "TL2_R32",
            Format::Tl1 => "TL1",
            Format::Tl2 => "TL2",
            Format::Iq2Bn => "IQ2_BN",
            Format::F32 => "F32",
            Format::F16 => "F16",
            Format::Bf16 => "BF16",
            Format::Q8_0 => "Q8_0",
            Format::Q6K => "Q6_K",
            Format::Iq2S => "IQ2_S",
        }
    }

    /// Weights and bytes of the smallest piece of a row: a block, or sixteen numbers of the formats
    /// that have none. What a row or a matrix has besides is not counted.
    #[must_use]
    pub const fn block(self) -> (usize, usize) {
        match self {
            Format::I2S | Format::I2SR32 => (128, 32),
            Format::Tq1_0 => (256, 54),
            Format::Tq2_0 => (256, 66),
            Format::Tl1 => (8, 2),
            Format::Tl2 | Format::Tl2R32 => (96, 20),
            Format::Iq2Bn => (64, 16),
            Format::F32 => (16, 64),
            Format::F16 | Format::Bf16 => (16, 32),
            Format::Q8_0 => (32, 34),
            Format::Q6K => (256, 210),
            Format::Iq2S => (256, 82),
        }
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    ///
    /// [`FormatError::Columns`] where the format has no rows of `cols` weights,
    /// [`FormatError::Width`] where it is more than [`MOST_COLS`], [`FormatError::Interleaved`] for
    /// TL1 and TL2, whose rows have no bytes of their own.
    pub fn row_bytes(self, cols: usize) -> Result<usize, FormatError> {
        self.check_cols(cols)?;
        let (weights, bytes) = self.block();
        match self {
            Format::Tl1 | Format::Tl2 => Err(FormatError::Interleaved { format: self }),
            Format::Iq2Bn => Ok(iq2_bn::HEAD + cols / weights * bytes),
            _ => Ok(cols / weights * bytes),
        }
    }

    fn check_cols(self, cols: usize) -> Result<(), FormatError> {
        let multiple = if self == Format::Tl2 { 32 } else { self.block().0 };
        if cols == 0 || !cols.is_multiple_of(multiple) {
            return Err(FormatError::Columns { format: self, cols, multiple });
        }
        if cols > MOST_COLS {
            return Err(FormatError::Width { cols });
        }
        Ok(())
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
        Format::Iq2Bn => iq2_bn::check(bytes, cols),
        Format::Tl1 | Format::Tl2 => tiled(format, rows, cols)?.check(bytes),
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

/// The matrix with the tiles that its shape has when nothing else is said.
fn tiled(format: Format, rows: usize, cols: usize) -> Result<Tiled, FormatError> {
    Tiled::new(format, rows, cols, Tiling::of(format, rows, cols))
}

/// Bytes of a `[rows, cols]` matrix, tail included; more than there can be, if they are too many
/// to count.
///
/// # Errors
///
/// [`FormatError`] where the shape does not suit the format.
pub fn payload(format: Format, rows: usize, cols: usize) -> Result<usize, FormatError> {
    if matches!(format, Format::Tl1 | Format::Tl2) {
        return Ok(tiled(format, rows, cols)?.payload());
    }
    let tail = if format == Format::I2S { i2_s::TAIL } else { 0 };
    Ok(format.row_bytes(cols)?.saturating_mul(rows).saturating_add(tail))
}

/// Ternary weights in the bytes of a format: the plain definition of the layout.
///
/// `weights` is `[rows, cols]`, row-major, each -1, 0 or 1; `d` is the scale.
///
/// # Errors
///
/// [`FormatError`] where the shape or the scale does not suit the format or a weight is not ternary.
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
    payload(format, rows, cols)?;
    check_weights(weights, rows, cols)?;
    check_scale(format, d)?;
    Ok(match format {
        Format::I2S => I2S::encode(weights, d),
        Format::Tq1_0 => Tq1_0::encode(weights, d),
        Format::Tq2_0 => Tq2_0::encode(weights, d),
        Format::Iq2Bn => iq2_bn::encode(weights, cols, d),
        Format::Tl1 | Format::Tl2 => tiled(format, rows, cols)?.encode(weights, d)?,
        _ => panic!("{format} is not a ternary format"),
    })
}

/// The scale must be finite, and must neither be infinite nor vanish where it is half as precise.
fn check_scale(format: Format, d: f32) -> Result<(), FormatError> {
    let stored = match format {
        Format::Tq1_0 | Format::Tq2_0 => half::f16::from_f32(d).to_f32(),
        _ => d,
    };
    match stored.is_finite() && (stored != 0.0 || d == 0.0) {
        true => Ok(()),
        false => Err(FormatError::Unscalable { format, value: d }),
    }
}

/// There must be a weight for each place, and each must be ternary.
fn check_weights(weights: &[i8], rows: usize, cols: usize) -> Result<(), FormatError> {
    let (expected, found) = (rows.saturating_mul(cols), weights.len());
    if found != expected {
        return Err(FormatError::Weights { expected, found });
    }
    // Every code of a byte that is not -1, 0 or 1 is more than 2 above -1.
    match first(weights, |w| w.wrapping_add(1).cast_unsigned() > 2) {
        Some(index) => Err(FormatError::Weight { index, value: weights[index] }),
        None => Ok(()),
    }
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
    if matches!(format, Format::Tl1 | Format::Tl2) {
        return tiled(format, rows, cols)?.decode(bytes);
    }
    check(format, bytes, rows, cols)?;
    Ok(decode_rows(format, &bytes[..format.row_bytes(cols)? * rows], cols))
}

/// The weights of some rows of a checked matrix whose rows follow one another: of any ternary
/// format of files but TL1 and TL2.
pub(crate) fn decode_rows(format: Format, bytes: &[u8], cols: usize) -> Vec<i8> {
    match format {
        Format::I2S => I2S::decode(bytes),
        Format::Tq1_0 => Tq1_0::decode(bytes),
        Format::Tq2_0 => Tq2_0::decode(bytes),
        Format::Iq2Bn => iq2_bn::decode(bytes, cols),
        _ => panic!("{format} does not hold ternary weights row by row"),
    }
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
        Format::Iq2S => widen_row::<Iq2S>(row, out),
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

/// The one scale of a ternary matrix that stores several.
///
/// Writers give a block without weights the scale 0: it agrees with any, if the block holds nothing
/// but zeros.
#[derive(Default)]
struct OneScale(Option<f32>);

impl OneScale {
    /// The scale of the next block.
    fn see(
        &mut self,
        value: f32,
        offset: usize,
        empty: impl FnOnce() -> bool,
    ) -> Result<(), FormatError> {
        if !value.is_finite() {
            return Err(FormatError::Scale { offset, value });
        }
        if value == 0.0 && empty() {
            return Ok(());
        }
        let first = *self.0.get_or_insert(value);
        match first == value {
            true => Ok(()),
            false => Err(FormatError::Scales { offset, first, second: value }),
        }
    }

    fn get(self) -> f32 {
        self.0.unwrap_or(0.0)
    }
}

/// The one scale of a matrix whose blocks of `N` bytes end in an `f16` scale each.
fn block_scale<const N: usize>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Vec<i8>,
) -> Result<f32, FormatError> {
    let mut one = OneScale::default();
    for (i, block) in bytes.as_chunks::<N>().0.iter().enumerate() {
        let value = half::f16::from_le_bytes([block[N - 2], block[N - 1]]).to_f32();
        one.see(value, (i + 1) * N - 2, || decode(block).iter().all(|&t| t == 0))?;
    }
    Ok(one.get())
}

/// The first byte that holds a 2-bit code 3.
#[inline]
fn invalid_crumb(bytes: &[u8]) -> Option<usize> {
    first(bytes, |b| b & (b >> 1) & 0x55 != 0)
}

/// The first of some bytes or weights that is `bad`.
#[inline(always)]
fn first<T: Copy>(all: &[T], bad: impl Fn(T) -> bool + Copy) -> Option<usize> {
    // Without an early exit the inner loop is vectorised: whole matrices are checked at load.
    let dirty = |chunk: &[T]| chunk.iter().fold(false, |seen, &x| seen | bad(x));
    let chunk = 4096;
    let at = all.chunks(chunk).position(dirty)? * chunk;
    all[at..].iter().position(|&x| bad(x)).map(|i| at + i)
}
