//! Ternary matrices in the layout that kernels read.
//!
//! Files hold rows one after another. Kernels multiply 32 of them, a panel, by the same activations,
//! and want each row in a 32-bit lane of its own, so that nothing has to be summed across lanes. A
//! [`Group`] is four bytes of each row of a panel. The missing rows of the last panel are zeros. The first
//! panel, the third and so on follow one another, and behind them all the second, the fourth and so on:
//! gemv reads two panels together, at two places far from each other, which was measured to be faster.
//!
//! The columns need not be a multiple of anything: those that the last block has more than the matrix
//! are zeros. Activations come with zeros up to [`padded`] columns.
//!
//! In [`Format::I2SR32`] the four bytes of a row are four bytes of its I2_S block: group `8 b + q`
//! holds bytes `4 q .. 4 q + 4` of block `b`, whose field `g` (0 in the two highest bits) is columns
//! `128 b + 32 g + 4 q ..` of the matrix. Packing is a transposition of 32-bit words.
//!
//! In [`Format::Tl2R32`] five groups are 96 columns. Byte `i` of a row in group `5 b + j` holds the magnitudes of two triples as TL2 has
//! them, of columns `96 b + 24 j + i`, 4 and 8 after it in the low nibble, of those 12 after them in
//! the high one; their signs are bits `2 j` and `2 j + 1` of byte `i` in group `5 b + 4`. It takes 1.67
//! bits a weight instead of 2, and more instructions.

use std::borrow::Cow;
use std::ops::Range;

use memmap2::MmapMut;

use crate::format::{self, Encoding, Format, FormatError, MOST_COLS, i2_s_blocks};
use crate::pool::Pool;
use crate::simd::PANEL;

/// Four bytes of each of 32 rows.
pub type Group = [u8; 4 * PANEL];

/// Rows of a panel. Kernels take whole panels.
pub const ROWS: usize = PANEL;

/// Rows of two panels, which are read together. Tiles start at such rows.
pub const PAIR: usize = 2 * ROWS;

/// Panels of some rows: every other one, and those between them.
#[derive(Clone, Copy, Debug)]
pub struct Panels<'a>(pub [&'a [Group]; 2]);

impl<'a> Panels<'a> {
    /// Two panels of `width` groups after the other two; the last has none beside it if their number is
    /// odd.
    #[inline(always)]
    pub(crate) fn pairs(
        self,
        width: usize,
    ) -> impl Iterator<Item = (&'a [Group], Option<&'a [Group]>)> {
        let mut second = self.0[1].chunks_exact(width);
        self.0[0].chunks_exact(width).map(move |first| (first, second.next()))
    }

    /// All panels of `width` groups, in the order of their rows.
    #[inline(always)]
    pub(crate) fn each(self, width: usize) -> impl Iterator<Item = &'a [Group]> {
        let panels = (self.0[0].len() + self.0[1].len()) / width;
        (0..panels).map(move |p| &self.0[p % 2][p / 2 * width..][..width])
    }

    /// Bytes of all panels.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0.iter().map(|panels| size_of_val(*panels)).sum()
    }
}

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
        #[cfg(all(target_os = "linux", not(miri)))]
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
    /// How they are packed.
    layout: Format,
}

impl Packed {
    /// Checks every byte of a matrix in a ternary format of files, and packs it in `layout`, one of
    /// [`Format::PACKED`].
    ///
    /// `bytes` is the payload of a `[rows, cols]` matrix, the tail of I2_S included.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where the bytes are not such a matrix, or there is no memory for it.
    ///
    /// # Panics
    ///
    /// If the format is not a ternary one of files, or `layout` is not one for packed matrices.
    pub fn new(
        encoding: impl Into<Encoding>,
        bytes: &[u8],
        (rows, cols): (usize, usize),
        layout: Format,
        pool: &Pool,
    ) -> Result<Packed, FormatError> {
        let encoding = encoding.into();
        let format = encoding.format;
        assert!(Format::TERNARY.contains(&format), "{format} is no ternary format of files");
        let scale = format::check(encoding, bytes, rows, cols)?;
        let width = width(layout, cols)?;
        let mut groups = Groups::zeros(rows.div_ceil(ROWS) * width)?;
        // TL1 and TL2 are laid out in tiles of rows: they come apart as a whole.
        let decoded = encoding.is_tiled().then(|| format::decode(encoding, bytes, rows, cols));
        let decoded = decoded.transpose()?;
        // Rows of I2_S that are whole blocks are moved as they are.
        let whole = cols.is_multiple_of(Format::I2S.block().0);
        let firsts = rows.div_ceil(PAIR);
        pool.tiles(groups.get_mut(), width, (1, width), |mut tile| {
            let place = tile.rows().start;
            let panel = if place < firsts { 2 * place } else { 2 * (place - firsts) + 1 };
            let own = panel * ROWS..rows.min((panel + 1) * ROWS);
            let (of_own, out) = (own.start * cols..own.end * cols, tile.row(place));
            if (format, layout, whole) == (Format::I2S, Format::I2SR32, true) {
                return interleave(&bytes[of_own.start / 4..of_own.end / 4], out);
            }
            let weights = match &decoded {
                Some(weights) => Cow::Borrowed(&weights[of_own]),
                None => format::decode_rows(format, bytes, (rows, cols), own).into(),
            };
            match layout {
                Format::I2SR32 => interleave(&blocks(&weights, cols), out),
                _ => triple(&weights, cols, out),
            }
        });
        Ok(Packed { groups, rows, cols, scale, layout })
    }

    /// The same with a scale that is `by` times as great: of formats whose scale is not in the bytes,
    /// or not all of it.
    ///
    /// # Errors
    ///
    /// [`FormatError::Unscalable`] where the scale would not be finite, or vanish.
    pub fn scaled(self, by: f32) -> Result<Packed, FormatError> {
        Ok(Packed { scale: scaled(self.layout, self.scale, by)?, ..self })
    }

    /// Output features.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features; activations have [`padded`] as many.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The scale `d` of all weights.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Bytes of all panels.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.groups.bytes
    }

    /// How it is packed.
    #[must_use]
    pub fn layout(&self) -> Format {
        self.layout
    }

    /// The panels that hold some rows, of which the first must be the first of a [`PAIR`].
    ///
    /// # Panics
    ///
    /// If it is not, or there are no such rows.
    #[must_use]
    pub fn panels(&self, rows: Range<usize>) -> Panels<'_> {
        assert!(rows.start.is_multiple_of(PAIR) && rows.end <= self.rows, "rows {rows:?}");
        let (all, end) = (self.groups.get(), rows.end.div_ceil(ROWS));
        let width = all.len() / self.rows.div_ceil(ROWS).max(1);
        let (first, second) = all.split_at(self.rows.div_ceil(PAIR) * width);
        let start = rows.start / PAIR * width;
        Panels([&first[start..end.div_ceil(2) * width], &second[start..end / 2 * width]])
    }
}

/// What weights of `scale` have when they are multiplied by `by`; `format` is theirs.
///
/// # Errors
///
/// [`FormatError::Unscalable`] where that would not be finite, or vanish.
pub fn scaled(format: Format, scale: f32, by: f32) -> Result<f32, FormatError> {
    let product = scale * by;
    match product.is_finite() && (product != 0.0 || scale == 0.0 || by == 0.0) {
        true => Ok(product),
        false => Err(FormatError::Unscalable { format, value: product }),
    }
}

/// Columns that activations of a matrix with `cols` columns must have, whatever its layout: what is
/// behind those of the matrix must be zeros, so that sums stay the same.
#[must_use]
pub const fn padded(cols: usize) -> usize {
    // Eight columns of several tokens are multiplied together.
    cols.div_ceil(8).saturating_mul(8)
}

/// Bytes of a matrix `[rows, cols]` that is packed in `layout`.
///
/// # Errors
///
/// [`FormatError`] where there are no such matrices: of no columns, or of more than
/// [`MOST_COLS`].
///
/// # Panics
///
/// If `layout` is not one for packed matrices.
pub fn bytes(layout: Format, rows: usize, cols: usize) -> Result<usize, FormatError> {
    Ok(rows.div_ceil(ROWS).saturating_mul(width(layout, cols)?).saturating_mul(size_of::<Group>()))
}

/// Groups of a panel.
pub(crate) fn width(layout: Format, cols: usize) -> Result<usize, FormatError> {
    assert!(Format::PACKED.contains(&layout), "{layout} is not a layout of packed matrices");
    if cols == 0 || cols > MOST_COLS {
        return Err(FormatError::Width { cols });
    }
    let (columns, bytes) = layout.block();
    Ok(cols.div_ceil(columns) * bytes / 4)
}

/// Rows as whole blocks of I2_S each, with zeros behind their columns.
fn blocks(weights: &[i8], cols: usize) -> Vec<u8> {
    let wide = cols.next_multiple_of(Format::I2SR32.block().0);
    if wide == cols {
        return i2_s_blocks(weights);
    }
    let mut rows = vec![0; weights.len() / cols * wide];
    for (padded, row) in rows.chunks_exact_mut(wide).zip(weights.chunks_exact(cols)) {
        padded[..cols].copy_from_slice(row);
    }
    i2_s_blocks(&rows)
}

/// Packs the rows of a panel as triples. `groups` are zeros.
fn triple(weights: &[i8], cols: usize, groups: &mut [Group]) {
    let blocks = groups.as_chunks_mut::<5>().0;
    let mut padded = vec![0; blocks.len() * 96];
    for (r, row) in weights.chunks_exact(cols).enumerate() {
        padded[..cols].copy_from_slice(row);
        for (block, weights) in blocks.iter_mut().zip(padded.as_chunks::<96>().0) {
            let mut words = [0; 5];
            for (p, weights) in weights.as_chunks::<12>().0.iter().enumerate() {
                let (magnitudes, signs) = triples(weights);
                words[p / 2] |= magnitudes << (4 * (p % 2));
                words[4] |= signs << p;
            }
            for (group, word) in block.iter_mut().zip(words) {
                group.as_chunks_mut().0[r] = word.to_le_bytes();
            }
        }
    }
}

/// The four triples of twelve columns, one in each byte: the magnitude of `9 t0 + 3 t1 + t2`, and 1
/// where that is negative.
fn triples(weights: &[i8; 12]) -> (u32, u32) {
    /// In each byte.
    const ONE: u32 = 0x0101_0101;
    let mut value = 0;
    for four in weights.as_chunks::<4>().0 {
        // Codes 0, 1, 2: no byte carries into the next, here and below.
        let codes = u32::from_le_bytes(four.map(|t| (t + 1).cast_unsigned()));
        value = 3 * value + codes;
    }
    // 13 is zero. Bit 7 of what is 128 there tells the sign, and the others are the magnitude, or
    // what it lacks to 128.
    let shifted = value + (128 - 13) * ONE;
    let negative = !shifted >> 7 & ONE;
    let magnitude = ((shifted ^ (negative * 0x7F)) & (0x7F * ONE)) + negative;
    (magnitude, negative)
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
        let (rows, cols) = (if cfg!(miri) { 32 } else { 96 }, 768);
        let weights: Vec<i8> = (0..rows * cols).map(|i| ((7 * i + i / 5) % 3) as i8 - 1).collect();
        let pack = |format| {
            // One of them holds no scale.
            let d = if format == Format::HfPacked { 1.0 } else { 0.75 };
            let bytes = format::encode(format, &weights, rows, cols, d).unwrap();
            let (shape, layout) = ((rows, cols), Format::I2SR32);
            let packed = Packed::new(format, &bytes, shape, layout, &Pool::alone()).unwrap();
            packed.scaled(0.75 / d).unwrap()
        };
        let want = pack(Format::I2S);
        assert_eq!(want.panels(0..rows).0[0][0][..4], [0x25, 0x42, 0x94, 0x09]);
        for format in Format::TERNARY {
            let packed = pack(format);
            assert_eq!((packed.rows(), packed.cols(), packed.scale()), (rows, cols, 0.75));
            assert!(packed.panels(0..rows).0 == want.panels(0..rows).0, "{format}");
            assert_eq!(packed.panels(0..1).0[0].as_ptr().addr() % crate::aligned::LINE, 0);
        }
    }

    #[test]
    fn columns_that_fill_no_block_are_packed_with_zeros() {
        let weights: Vec<i8> = (0..64 * 100).map(|i| ((7 * i + i / 5) % 3) as i8 - 1).collect();
        for (format, layout) in [Format::I2S, Format::HfPacked]
            .into_iter()
            .flat_map(|format| Format::PACKED.map(|layout| (format, layout)))
        {
            let pack = |weights: &[i8], cols| {
                let bytes = format::encode(format, weights, 64, cols, 1.0).unwrap();
                Packed::new(format, &bytes, (64, cols), layout, &Pool::alone()).unwrap()
            };
            let (narrow, zeros) = (pack(&weights, 100), vec![0; 28]);
            let wide: Vec<i8> =
                weights.chunks(100).flat_map(|row| [row, &zeros].concat()).collect();
            let wide = pack(&wide, 128);
            assert_eq!((narrow.cols(), padded(100), narrow.bytes()), (100, 104, wide.bytes()));
            assert!(narrow.panels(0..64).0 == wide.panels(0..64).0, "{format} in {layout}");
        }
    }

    #[test]
    fn scales_beside_the_matrix_must_stay_numbers() {
        let pack = || {
            let bytes = format::encode(Format::I2S, &[1; 128], 1, 128, 0.5).unwrap();
            Packed::new(Format::I2S, &bytes, (1, 128), Format::I2SR32, &Pool::alone()).unwrap()
        };
        assert_eq!(pack().scaled(3.0).unwrap().scaled(0.5).unwrap().scale(), 0.75);
        assert_eq!(pack().scaled(0.0).unwrap().scale(), 0.0);
        for by in [f32::NAN, f32::INFINITY, 1e-45] {
            let error = pack().scaled(by).unwrap_err();
            assert!(matches!(error, FormatError::Unscalable { .. }), "{error}");
        }
    }

    #[test]
    fn triples_are_what_tl2_has() {
        for value in -13_i8..=13 {
            let code = value + 13;
            let weights = [code / 9 - 1, code / 3 % 3 - 1, code % 3 - 1];
            assert_eq!(9 * weights[0] + 3 * weights[1] + weights[2], value);
            for i in 0..4 {
                let mut twelve = [0; 12];
                (0..3).for_each(|t| twelve[4 * t + i] = weights[t]);
                let (magnitude, negative) = (value.unsigned_abs(), u32::from(value < 0));
                let want = (u32::from(magnitude) << (8 * i), negative << (8 * i));
                assert_eq!(triples(&twelve), want, "{value}");
            }
        }
    }

    #[test]
    fn columns_and_rows_that_a_panel_of_triples_lacks_are_zeros() {
        let file = format::encode(Format::Iq2Bn, &[-1; 33 * 64], 33, 64, 1.0).unwrap();
        let layout = Format::Tl2R32;
        let packed = Packed::new(Format::Iq2Bn, &file, (33, 64), layout, &Pool::alone()).unwrap();
        let panels = packed.panels(0..33);
        assert_eq!((packed.layout(), panels.bytes()), (layout, 10 * size_of::<Group>()));
        assert_eq!((packed.bytes(), bytes(layout, 33, 64).unwrap()), (10 * 128, 10 * 128));
        // Five times twelve columns and four more, of which a triple has only the first.
        let words = [0xDDDD_DDDD, 0xDDDD_DDDD, 0x0909_0909 << 4 | 0x0D0D_0D0D, 0, 0x3F3F_3F3F];
        for (groups, rows) in panels.each(5).zip([32, 1]) {
            for (group, word) in groups.iter().zip(words) {
                let (first, rest) = group.split_at(4 * rows);
                assert!(first.as_chunks().0.iter().all(|row| u32::from_le_bytes(*row) == word));
                assert!(rest.iter().all(|&byte| byte == 0));
            }
        }
        for cols in [0, MOST_COLS + 1] {
            assert_eq!(width(layout, cols), Err(FormatError::Width { cols }));
        }
        assert_eq!([0, 1, 8, 9, usize::MAX].map(padded), [0, 8, 8, 16, usize::MAX]);
    }

    #[test]
    fn rows_that_a_panel_lacks_are_zeros() {
        let bytes = format::encode(Format::I2S, &[1; 33 * 128], 33, 128, 1.0).unwrap();
        let packed =
            Packed::new(Format::I2S, &bytes, (33, 128), Format::I2SR32, &Pool::alone()).unwrap();
        let Panels([first, second]) = packed.panels(0..33);
        assert_eq!((first.len(), second.len()), (8, 8));
        assert!(first.iter().all(|group| *group == [0xAA; 128]));
        assert!(second.iter().all(|group| group[..4] == [0xAA; 4] && group[4..] == [0x55; 124]));
    }

    #[test]
    fn panels_of_some_rows_are_those_of_all() {
        let weights: Vec<i8> = (0..162 * 128).map(|i| ((i + i / 7) % 3) as i8 - 1).collect();
        let bytes = format::encode(Format::I2S, &weights, 162, 128, 1.0).unwrap();
        let packed =
            Packed::new(Format::I2S, &bytes, (162, 128), Format::I2SR32, &Pool::alone()).unwrap();
        let all: Vec<_> = packed.panels(0..162).each(8).collect();
        assert_eq!(all.len(), 6);
        for (rows, panels) in [(64..162, 2..6), (64..96, 2..3), (128..162, 4..6), (0..33, 0..2)] {
            let some: Vec<_> = packed.panels(rows.clone()).each(8).collect();
            assert!(some == all[panels], "rows {rows:?}");
        }
    }

    #[test]
    #[should_panic(expected = "no ternary format of files")]
    fn other_formats_are_not_packed() {
        let _ = Packed::new(Format::F32, &[0; 512], (1, 128), Format::I2SR32, &Pool::alone());
    }
}
