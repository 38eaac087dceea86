//! TL1 and TL2 of bitnet.cpp: matrices cut into tiles, for lookup tables that stay in cache.
//!
//! The parameters of the cut are constants of the program that wrote a file, chosen by the shape of
//! the matrix, and the file does not say which they were. [`Tiling::of`] knows the published ones;
//! a matrix written with others is read through [`Tiled`].

use super::{Format, FormatError, check_scale, check_weights, tl1, tl2};

/// Bytes behind the codes: the `f32` scale, and 28 that mean nothing.
pub(super) const TAIL: usize = 32;

/// How a matrix is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// Rows of a tile: `BM`.
    pub rows: usize,
    /// Columns of a tile: `BK`.
    pub cols: usize,
    /// Rows that lie side by side in a tile: `bm`, 32 or 64 in TL1, 32 in TL2.
    pub strip: usize,
}

/// Rows, columns, and the `[BM, BK, bm]` of TL1 and of TL2.
type Published = (usize, usize, [usize; 3], [usize; 3]);

/// What bitnet.cpp's set-up generates for the models it knows: `bitnet_b1_58-large`,
/// `bitnet_b1_58-3B`, `Llama3-8B-1.58`.
const PUBLISHED: [Published; 10] = [
    (1536, 4096, [256, 128, 32], [256, 96, 32]),
    (1536, 1536, [128, 64, 64], [128, 192, 32]),
    (4096, 1536, [256, 128, 32], [256, 96, 32]),
    (3200, 8640, [160, 64, 32], [160, 96, 32]),
    (3200, 3200, [320, 128, 64], [320, 96, 32]),
    (8640, 3200, [320, 64, 32], [320, 96, 32]),
    (14336, 4096, [256, 128, 32], [256, 96, 32]),
    (4096, 14336, [128, 64, 64], [128, 96, 32]),
    (1024, 4096, [256, 128, 32], [256, 96, 32]),
    (4096, 4096, [128, 64, 64], [128, 96, 32]),
];

impl Tiling {
    /// Strips of 32 rows, one after the other: the same bytes whatever the columns of a tile, so
    /// that nobody has to know them.
    #[must_use]
    pub const fn plain(format: Format) -> Tiling {
        Tiling { rows: 32, cols: if matches!(format, Format::Tl1) { 8 } else { 96 }, strip: 32 }
    }

    /// The parameters bitnet.cpp has for a `[rows, cols]` matrix, if it has any.
    #[must_use]
    pub fn published(format: Format, rows: usize, cols: usize) -> Option<Tiling> {
        let &(.., tl1, tl2) = PUBLISHED.iter().find(|p| (p.0, p.1) == (rows, cols))?;
        let [rows, cols, strip] = match format {
            Format::Tl1 => tl1,
            Format::Tl2 => tl2,
            _ => return None,
        };
        Some(Tiling { rows, cols, strip })
    }

    /// The published parameters, or the plain ones where there are none: what [`encode`],
    /// [`decode`] and [`check`] of this module use.
    ///
    /// [`encode`]: super::encode
    /// [`decode`]: super::decode
    /// [`check`]: super::check
    #[must_use]
    pub fn of(format: Format, rows: usize, cols: usize) -> Tiling {
        Tiling::published(format, rows, cols).unwrap_or(Tiling::plain(format))
    }
}

/// A TL1 or TL2 matrix of one shape, cut by one [`Tiling`].
///
/// ```
/// use bitnet_kernels::Format;
/// use bitnet_kernels::format::{Tiled, Tiling};
///
/// let tiling = Tiling { rows: 64, cols: 16, strip: 64 };
/// let tiled = Tiled::new(Format::Tl1, 64, 32, tiling)?;
/// let weights = [1, 0, -1, 0].repeat(64 * 32 / 4);
/// let bytes = tiled.encode(&weights, 0.5)?;
/// assert_eq!(tiled.check(&bytes)?, 0.5);
/// assert_eq!(tiled.decode(&bytes)?, weights);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiled {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) tiling: Tiling,
}

impl Tiled {
    /// A `[rows, cols]` matrix in TL1 or TL2.
    ///
    /// # Errors
    ///
    /// [`FormatError::Columns`] and [`FormatError::Width`] as [`payload`](super::payload);
    /// [`FormatError::Tiling`] where the matrix does not come apart into such tiles.
    ///
    /// # Panics
    ///
    /// If `format` is neither.
    pub fn new(
        format: Format,
        rows: usize,
        cols: usize,
        tiling: Tiling,
    ) -> Result<Tiled, FormatError> {
        assert!(matches!(format, Format::Tl1 | Format::Tl2), "{format} has no tiles");
        format.check_cols(cols)?;
        let tiled = Tiled { format, rows, cols, tiling };
        let Tiling { rows: tile_rows, cols: tile_cols, strip } = tiling;
        let whole = |n: usize, of: usize| of > 0 && n.is_multiple_of(of);
        let columns = match format {
            Format::Tl1 => {
                matches!(strip, 32 | 64) && whole(cols, tile_cols) && whole(tile_cols, 256 / strip)
            }
            _ => {
                strip == 32
                    && tile_cols > 0
                    && whole(tile_cols, 24)
                    && tl2::rest_fits(cols % tile_cols)
            }
        };
        match columns && whole(rows, tile_rows) && whole(tile_rows, strip) {
            true => Ok(tiled),
            false => Err(FormatError::Tiling { format, rows, cols, tiling }),
        }
    }

    /// Bytes of the matrix: codes, zeros up to a multiple of 32, and the tail.
    #[must_use]
    pub fn payload(&self) -> usize {
        self.codes().saturating_add(TAIL)
    }

    fn codes(&self) -> usize {
        match self.format {
            Format::Tl1 => (self.rows / 4).saturating_mul(self.cols),
            _ => tl2::reserved(self.rows, self.cols),
        }
    }

    /// As [`check`](super::check).
    ///
    /// # Errors
    ///
    /// [`FormatError`] where the bytes are not such a matrix.
    pub fn check(&self, bytes: &[u8]) -> Result<f32, FormatError> {
        let (expected, found) = (self.payload(), bytes.len());
        if found != expected {
            return Err(FormatError::Length { format: self.format, expected, found });
        }
        let (codes, tail) = bytes.split_at(found - TAIL);
        match self.format {
            Format::Tl1 => tl1::check(codes)?,
            _ => tl2::check(self, codes)?,
        }
        let value = f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
        match value.is_finite() {
            true => Ok(value),
            false => Err(FormatError::Scale { offset: codes.len(), value }),
        }
    }

    /// As [`encode`](super::encode).
    ///
    /// # Errors
    ///
    /// [`FormatError`] where there are more or fewer weights than the matrix has, one of them is not
    /// ternary, or the scale is not finite.
    pub fn encode(&self, weights: &[i8], d: f32) -> Result<Vec<u8>, FormatError> {
        check_weights(weights, self.rows, self.cols)?;
        check_scale(self.format, d)?;
        let mut bytes = vec![0; self.payload()];
        let codes = self.codes();
        match self.format {
            Format::Tl1 => tl1::encode(self, weights, &mut bytes[..codes]),
            _ => tl2::encode(self, weights, &mut bytes[..codes]),
        }
        bytes[codes..][..4].copy_from_slice(&d.to_le_bytes());
        Ok(bytes)
    }

    /// As [`decode`](super::decode).
    ///
    /// # Errors
    ///
    /// As [`Tiled::check`].
    pub fn decode(&self, bytes: &[u8]) -> Result<Vec<i8>, FormatError> {
        self.check(bytes)?;
        let mut weights = vec![0; self.rows * self.cols];
        match self.format {
            Format::Tl1 => tl1::decode(self, bytes, &mut weights),
            _ => tl2::decode(self, bytes, &mut weights),
        }
        Ok(weights)
    }

    /// Which tile down the matrix, and which strip of it, strip `strip` of the matrix is.
    pub(super) fn place(&self, strip: usize) -> (usize, usize) {
        let strips = self.tiling.rows / self.tiling.strip;
        (strip / strips, strip % strips)
    }
}
