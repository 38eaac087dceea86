//! Ternary matrices as bytes of files and back: each format is a module with the same functions.

use std::ops::Range;

use super::tiling::{Tiled, Tiling};
use super::{
    Format, FormatError, bitnet32_f16, first, hf_packed, i2_s, iq1_bn, iq2_bn, iq2_bn_r4, tq1_0,
    tq2_0,
};

/// A format of files and, for TL1 and TL2, how the matrix is cut into tiles, which files do not say.
///
/// A [`Format`] alone is an encoding too: with the tiles of [`Tiling::of`].
///
/// ```
/// use bitnet_kernels::Format;
/// use bitnet_kernels::format::{self, Encoding, Tiling};
///
/// let tiling = Tiling { rows: 64, cols: 16, strip: 64 };
/// let encoding = Encoding { format: Format::Tl1, tiling: Some(tiling) };
/// let weights = [1, 0, -1, 0].repeat(64 * 32 / 4);
/// let bytes = format::encode(encoding, &weights, 64, 32, 0.5)?;
/// assert_eq!(format::check(encoding, &bytes, 64, 32)?, 0.5);
/// assert_eq!(format::decode(encoding, &bytes, 64, 32)?, weights);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Encoding {
    /// The format.
    pub format: Format,
    /// The tiles of TL1 or TL2, if they are not those that the shape has by [`Tiling::of`].
    pub tiling: Option<Tiling>,
}

impl From<Format> for Encoding {
    fn from(format: Format) -> Encoding {
        Encoding { format, tiling: None }
    }
}

impl Encoding {
    /// Whether the matrix is in tiles: then it is decoded as a whole.
    pub(crate) fn is_tiled(self) -> bool {
        matches!(self.format, Format::Tl1 | Format::Tl2)
    }

    /// The matrix in tiles, if the format has any.
    fn tiled(self, rows: usize, cols: usize) -> Result<Option<Tiled>, FormatError> {
        let Encoding { format, tiling } = self;
        match tiling {
            _ if self.is_tiled() => {
                let tiling = tiling.unwrap_or_else(|| Tiling::of(format, rows, cols));
                Tiled::new(format, rows, cols, tiling).map(Some)
            }
            Some(tiling) => Err(FormatError::Tiling { format, rows, cols, tiling }),
            None => Ok(None),
        }
    }
}

/// Bytes of a `[rows, cols]` matrix, tail included; more than there can be, if they are too many
/// to count.
///
/// # Errors
///
/// [`FormatError`] where the shape does not suit the format.
pub fn payload(
    encoding: impl Into<Encoding>,
    rows: usize,
    cols: usize,
) -> Result<usize, FormatError> {
    let encoding = encoding.into();
    if let Some(tiled) = encoding.tiled(rows, cols)? {
        return Ok(tiled.payload());
    }
    let format = encoding.format;
    format.check_shape(rows, cols)?;
    let codes = rows.saturating_mul(cols) / 4;
    Ok(match format {
        Format::I2S | Format::I2SArm | Format::I2SR4 => codes.saturating_add(i2_s::TAIL),
        Format::HfPacked => codes,
        Format::Iq2BnR4 => Format::Iq2Bn.row_bytes(cols)?.saturating_mul(rows),
        _ => format.row_bytes(cols)?.saturating_mul(rows),
    })
}

/// Checks every byte of a ternary matrix and reads its scale.
///
/// `bytes` is the payload of a `[rows, cols]` matrix, the tail of I2_S included. Those of a
/// floating-point format are only counted; its scale is 1.
///
/// # Errors
///
/// [`FormatError`] where the bytes are not such a matrix.
pub fn check(
    encoding: impl Into<Encoding>,
    bytes: &[u8],
    rows: usize,
    cols: usize,
) -> Result<f32, FormatError> {
    let encoding = encoding.into();
    let (format, expected) = (encoding.format, payload(encoding, rows, cols)?);
    if bytes.len() != expected {
        return Err(FormatError::Length { format, expected, found: bytes.len() });
    }
    if let Some(tiled) = encoding.tiled(rows, cols)? {
        return tiled.check(bytes);
    }
    match format {
        Format::I2S | Format::I2SArm | Format::I2SR4 => i2_s::check(bytes),
        Format::Tq1_0 => tq1_0::check(bytes),
        Format::Tq2_0 => tq2_0::check(bytes),
        Format::Iq1Bn => iq1_bn::check(bytes, cols),
        Format::Iq2Bn => iq2_bn::check(bytes, cols),
        Format::Iq2BnR4 => iq2_bn_r4::check(bytes, cols),
        Format::BitNet32F16 => bitnet32_f16::check(bytes),
        Format::HfPacked => hf_packed::check(bytes),
        _ => Ok(1.0),
    }
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
/// If the format is not a ternary one.
pub fn encode(
    encoding: impl Into<Encoding>,
    weights: &[i8],
    rows: usize,
    cols: usize,
    d: f32,
) -> Result<Vec<u8>, FormatError> {
    let encoding = encoding.into();
    let format = encoding.format;
    payload(encoding, rows, cols)?;
    check_weights(weights, rows, cols)?;
    check_scale(format, d)?;
    if let Some(tiled) = encoding.tiled(rows, cols)? {
        return Ok(tiled.encode(weights, d));
    }
    Ok(match format {
        Format::I2S => i2_s::encode(i2_s::blocks(weights), d),
        Format::I2SArm => i2_s::encode(i2_s::arm_blocks(weights), d),
        Format::I2SR4 => i2_s::encode(i2_s::fours_of_rows(weights, cols), d),
        Format::Tq1_0 => tq1_0::encode(weights, d),
        Format::Tq2_0 => tq2_0::encode(weights, d),
        Format::Iq1Bn => iq1_bn::encode(weights, cols, d),
        Format::Iq2Bn => iq2_bn::encode(weights, cols, d),
        Format::Iq2BnR4 => iq2_bn_r4::encode(weights, cols, d),
        Format::BitNet32F16 => bitnet32_f16::encode(weights, d),
        Format::HfPacked => hf_packed::encode(weights),
        _ => panic!("{format} is not a ternary format"),
    })
}

/// The scale must be finite, and must neither be infinite nor vanish where it is half as precise.
fn check_scale(format: Format, d: f32) -> Result<(), FormatError> {
    let stored = match format {
        Format::Tq1_0 | Format::Tq2_0 | Format::Iq1Bn | Format::BitNet32F16 => {
            half::f16::from_f32(d).to_f32()
        }
        // It holds none: any other would be lost.
        Format::HfPacked if d != 1.0 => f32::NAN,
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
/// If the format is not a ternary one.
pub fn decode(
    encoding: impl Into<Encoding>,
    bytes: &[u8],
    rows: usize,
    cols: usize,
) -> Result<Vec<i8>, FormatError> {
    let encoding = encoding.into();
    check(encoding, bytes, rows, cols)?;
    match encoding.tiled(rows, cols)? {
        Some(tiled) => Ok(tiled.decode(bytes)),
        None => Ok(decode_rows(encoding.format, bytes, (rows, cols), 0..rows)),
    }
}

/// The weights of some rows of a checked matrix `[rows, cols]`, in any ternary format of files but TL1
/// and TL2. Where fours of rows are interleaved, the range must be of whole fours.
pub(crate) fn decode_rows(
    format: Format,
    bytes: &[u8],
    (rows, cols): (usize, usize),
    range: Range<usize>,
) -> Vec<i8> {
    let weights = range.start * cols..range.end * cols;
    let own = |bytes_each: usize| &bytes[range.start * bytes_each..range.end * bytes_each];
    let (block, block_bytes) = format.block();
    let blocks = || own(cols / block * block_bytes);
    match format {
        Format::I2S => i2_s::decode::<32>(bytes, weights),
        Format::I2SArm => i2_s::decode::<16>(bytes, weights),
        Format::I2SR4 => i2_s::decode_fours_of_rows(bytes, cols, range),
        Format::Tq1_0 => tq1_0::decode(blocks()),
        Format::Tq2_0 => tq2_0::decode(blocks()),
        Format::Iq1Bn => iq1_bn::decode(own(iq1_bn::HEAD + cols / 64 * 13), cols),
        Format::Iq2Bn => iq2_bn::decode(own(iq2_bn::HEAD + cols / 4), cols),
        Format::Iq2BnR4 => iq2_bn_r4::decode(own(iq2_bn::HEAD + cols / 4), cols),
        Format::BitNet32F16 => bitnet32_f16::decode(blocks()),
        Format::HfPacked => hf_packed::decode(bytes, (rows, cols), range),
        _ => panic!("{format} does not hold ternary weights row by row"),
    }
}
