//! Ternary matrices in the layout that kernels read.
//!
//! Files hold rows one after another. Kernels multiply 32 of them, a panel, by the same activations,
//! and want each row in a 32-bit lane of its own, so that nothing has to be summed across lanes. A
//! [`Group`] is four bytes of each row of a panel. Panels follow one another; the missing rows of
//! the last one are zeros.
//!
//! In [`Format::I2SR32`] the four bytes of a row are four bytes of its I2_S block: group `8 b + q`
//! holds bytes `4 q .. 4 q + 4` of block `b`, whose field `g` (0 in the two highest bits) is columns
//! `128 b + 32 g + 4 q ..` of the matrix. Packing is a transposition of 32-bit words.

use std::borrow::Cow;
use std::ops::Range;

use memmap2::MmapMut;

use crate::format::{self, Format, FormatError, I2S};
use crate::pool::Pool;
use crate::simd::PANEL;

/// Four bytes of each of 32 rows.
pub type Group = [u8; 4 * PANEL];

/// Rows of a panel. Kernels take whole panels.
pub const ROWS: usize = PANEL;

/// Groups in pages of their own: weights are read from end to end for each token, at the speed of
/// memory, and no register of them lies across two cache lines.
#[derive(Debug)]
pub(crate) struct Groups {
    memory: MmapMut,
    bytes: usize,
}

impl Groups {
    /// `n` groups of zeros.
    pub(crate) fn zeros(n: usize) -> Result<Groups, FormatError> {
        let bytes = n.saturating_mul(size_of::<Group>());
        let memory = MmapMut::map_anon(bytes.max(1)).map_err(|_| FormatError::Memory { bytes })?;
        // Large pages are found faster; a system that has none to give keeps small ones.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Groups { memory, bytes })
    }

    pub(crate) fn get(&self) -> &[Group] {
        self.memory[..self.bytes].as_chunks().0
    }

    pub(crate) fn get_mut(&mut self) -> &mut [Group] {
        self.memory[..self.bytes].as_chunks_mut().0
    }
}

/// A ternary matrix `[rows, cols]`, packed.
#[derive(Debug)]
pub struct Packed {
    groups: Groups,
    /// Output features.
    rows: usize,
    /// Input features.
    cols: usize,
    /// The scale `d` of all weights.
    scale: f32,
}

impl Packed {
    /// Checks every byte of a matrix in a ternary format of files, and packs it.
    ///
    /// `bytes` is the payload of a `[rows, cols]` matrix, the tail of I2_S included.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where the bytes are not such a matrix, or there is no memory for it.
    pub fn new(
        format: Format,
        bytes: &[u8],
        (rows, cols): (usize, usize),
        pool: &Pool,
    ) -> Result<Packed, FormatError> {
        let scale = format::check(format, bytes, rows, cols)?;
        let width = Format::I2SR32.row_bytes(cols)? / 4;
        let mut groups = Groups::zeros(rows.div_ceil(ROWS) * width)?;
        let tiled = matches!(format, Format::Tl1 | Format::Tl2);
        let decoded = tiled.then(|| format::decode(format, bytes, rows, cols)).transpose()?;
        // TL1 and TL2 are laid out in tiles of rows: they come apart as a whole.
        let row_bytes = if tiled { 0 } else { format.row_bytes(cols)? };
        pool.tiles(groups.get_mut(), width, (1, width), |mut tile| {
            let panel = tile.rows().start;
            let rows = panel * ROWS..rows.min((panel + 1) * ROWS);
            let blocks = match (&decoded, format) {
                (Some(weights), _) => {
                    I2S::encode_rows(&weights[rows.start * cols..rows.end * cols]).into()
                }
                (None, Format::I2S) => {
                    Cow::Borrowed(&bytes[rows.start * row_bytes..rows.end * row_bytes])
                }
                (None, _) => {
                    let bytes = &bytes[rows.start * row_bytes..rows.end * row_bytes];
                    I2S::encode_rows(&format::decode_rows(format, bytes, cols)).into()
                }
            };
            interleave(&blocks, tile.row(panel));
        });
        Ok(Packed { groups, rows, cols, scale })
    }

    /// Output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The scale `d` of all weights.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The panels that hold some rows, of which the first must be the first of a panel.
    ///
    /// # Panics
    ///
    /// If it is not, or there are no such rows.
    #[must_use]
    pub fn panels(&self, rows: Range<usize>) -> &[Group] {
        assert!(rows.start.is_multiple_of(ROWS) && rows.end <= self.rows, "rows {rows:?}");
        let width = self.cols / 16;
        &self.groups.get()[rows.start / ROWS * width..rows.end.div_ceil(ROWS) * width]
    }
}

/// Packs the rows of a panel, given as I2_S blocks.
fn interleave(blocks: &[u8], groups: &mut [Group]) {
    /// Four zeros in each byte.
    const ZEROS: u8 = 0x55;
    let row_bytes = 4 * groups.len();
    for r in 0..ROWS {
        match blocks.chunks_exact(row_bytes).nth(r) {
            Some(row) => {
                for (word, group) in row.as_chunks::<4>().0.iter().zip(groups.iter_mut()) {
                    group.as_chunks_mut().0[r] = *word;
                }
            }
            None => groups.iter_mut().for_each(|group| group.as_chunks_mut().0[r] = [ZEROS; 4]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_packs_to_the_same_panels() {
        let (rows, cols) = (64, 768);
        let weights: Vec<i8> = (0..rows * cols).map(|i| ((7 * i + i / 5) % 3) as i8 - 1).collect();
        let pack = |format| {
            let bytes = format::encode(format, &weights, rows, cols, 0.75).unwrap();
            Packed::new(format, &bytes, (rows, cols), &Pool::alone()).unwrap()
        };
        let want = pack(Format::I2S);
        assert_eq!(want.panels(0..rows)[0][..4], [0x25, 0x42, 0x94, 0x09]);
        for format in Format::TERNARY {
            let packed = pack(format);
            assert_eq!((packed.rows(), packed.cols(), packed.scale()), (rows, cols, 0.75));
            assert!(packed.panels(0..rows) == want.panels(0..rows), "{format}");
            assert_eq!(packed.panels(0..1).as_ptr().addr() % crate::aligned::LINE, 0);
        }
        let bytes = format::encode(Format::Iq2Bn, &[0; 2 * 192], 2, 192, 1.0).unwrap();
        let error = Packed::new(Format::Iq2Bn, &bytes, (2, 192), &Pool::alone()).unwrap_err();
        assert!(matches!(error, FormatError::Columns { cols: 192, .. }), "{error}");
    }

    #[test]
    fn rows_that_a_panel_lacks_are_zeros() {
        let bytes = format::encode(Format::I2S, &[1; 33 * 128], 33, 128, 1.0).unwrap();
        let packed = Packed::new(Format::I2S, &bytes, (33, 128), &Pool::alone()).unwrap();
        let panels = packed.panels(0..33);
        assert!(panels[..8].iter().all(|group| *group == [0xAA; 128]));
        assert!(
            panels[8..].iter().all(|group| group[..4] == [0xAA; 4] && group[4..] == [0x55; 124])
        );
    }
}
