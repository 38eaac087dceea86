//! TL1 and TL2 of bitnet.cpp: matrices cut into tiles, for lookup tables that stay in cache.
//!
//! The parameters of the cut are constants of the program that wrote a file, chosen by the shape of
//! the matrix, and the file does not say which they were. [`Tiling::of`] knows the published ones;
//! a matrix written with others is read by saying them, see [`Encoding`](super::Encoding).

use super::{Format, FormatError, tl1, tl2};

/// Bytes behind the codes: the `f32` scale, and 28 that mean nothing.
pub(super) const TAIL: usize = 32;

/// How a matrix is cut into tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
/// `bitnet_b1_58-3B`, `Llama3-8B-1.58-100B-tokens`.
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

/// Where the presets that come with bitnet.cpp differ from that: rows, columns, and the `[BM, BK, bm]`
/// of TL1. In TL2 they do for a shape of `bitnet_b1_58-large` only, by strips that no converter takes.
const PRESETS: [(usize, usize, [usize; 3]); 4] = [
    (14336, 4096, [256, 128, 64]),
    (4096, 14336, [256, 128, 32]),
    (1024, 4096, [128, 64, 64]),
    (4096, 4096, [128, 64, 32]),
];

impl Tiling {
    /// Strips of 32 rows, one after the other: the same bytes whatever the columns of a tile, so
    /// that nobody has to know them.
    #[must_use]
    pub const fn plain(format: Format) -> Tiling {
        Tiling { rows: 32, cols: if matches!(format, Format::Tl1) { 8 } else { 96 }, strip: 32 }
    }

    /// The parameters bitnet.cpp has for a `[rows, cols]` matrix, if it has any: those of a set-up, and
    /// those of a preset where they differ. Which of two a file was written with has to be tried.
    pub fn published(format: Format, rows: usize, cols: usize) -> impl Iterator<Item = Tiling> {
        let set_up = PUBLISHED.iter().filter(move |p| (p.0, p.1) == (rows, cols));
        let set_up = set_up.filter_map(move |&(.., tl1, tl2)| match format {
            Format::Tl1 => Some(tl1),
            Format::Tl2 => Some(tl2),
            _ => None,
        });
        let preset =
            PRESETS.iter().filter(move |p| (format, p.0, p.1) == (Format::Tl1, rows, cols));
        let all = set_up.chain(preset.map(|&(.., tl1)| tl1));
        all.map(|[rows, cols, strip]| Tiling { rows, cols, strip })
    }

    /// The first published parameters, or the plain ones where there are none: what [`encode`],
    /// [`decode`] and [`check`] of this module use where nothing else is said.
    ///
    /// [`encode`]: super::encode
    /// [`decode`]: super::decode
    /// [`check`]: super::check
    #[must_use]
    pub fn of(format: Format, rows: usize, cols: usize) -> Tiling {
        Tiling::published(format, rows, cols).next().unwrap_or(Tiling::plain(format))
    }
}

/// A TL1 or TL2 matrix of one shape, cut by one [`Tiling`].
pub(super) struct Tiled {
    pub(super) format: Format,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) tiling: Tiling,
}

impl Tiled {
    /// A `[rows, cols]` matrix in TL1 or TL2, if it comes apart into such tiles.
    pub(super) fn new(
        format: Format,
        rows: usize,
        cols: usize,
        tiling: Tiling,
    ) -> Result<Tiled, FormatError> {
        format.check_shape(rows, cols)?;
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
    pub(super) fn payload(&self) -> usize {
        self.codes().saturating_add(TAIL)
    }

    fn codes(&self) -> usize {
        match self.format {
            Format::Tl1 => (self.rows / 4).saturating_mul(self.cols),
            _ => tl2::reserved(self.rows, self.cols),
        }
    }

    /// Checks as many bytes as [`Tiled::payload`] says, and reads the scale.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<f32, FormatError> {
        let (codes, tail) = bytes.split_at(bytes.len() - TAIL);
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

    /// Ternary weights `[rows, cols]`, and the scale.
    pub(super) fn encode(&self, weights: &[i8], d: f32) -> Vec<u8> {
        let mut bytes = vec![0; self.payload()];
        let codes = self.codes();
        match self.format {
            Format::Tl1 => tl1::encode(self, weights, &mut bytes[..codes]),
            _ => tl2::encode(self, weights, &mut bytes[..codes]),
        }
        bytes[codes..][..4].copy_from_slice(&d.to_le_bytes());
        bytes
    }

    /// The weights of bytes that were checked.
    pub(super) fn decode(&self, bytes: &[u8]) -> Vec<i8> {
        let mut weights = vec![0; self.rows * self.cols];
        match self.format {
            Format::Tl1 => tl1::decode(self, bytes, &mut weights),
            _ => tl2::decode(self, bytes, &mut weights),
        }
        weights
    }

    /// Which tile down the matrix, and which strip of it, strip `strip` of the matrix is.
    pub(super) fn place(&self, strip: usize) -> (usize, usize) {
        let strips = self.tiling.rows / self.tiling.strip;
        (strip / strips, strip % strips)
    }
}
