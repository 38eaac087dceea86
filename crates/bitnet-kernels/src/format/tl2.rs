//! TL2 of bitnet.cpp (made for AVX2): three weights in 5 bits, the magnitude of
//! `9 t0 + 3 t1 + t2` in a nibble and its sign in a bit elsewhere; columns that fill no tile are
//! pairs as in TL1.
//!
//! Three parts follow each other: magnitudes, signs, pairs. Each part is tiles along the rows of the
//! matrix, tiles of `BM` rows and `BK` columns (32 for the pairs), of strips of 32 rows. Six columns of
//! a strip are 32 bytes of magnitudes, the first triple in the high nibble; 24 columns have sixteen
//! little-endian words of signs besides, word `r` for rows `r` and `r + 16`: from the highest bit on,
//! a bit for each in turn. Four columns of a strip of pairs are 32 bytes.
//!
//! The 32 bytes hold the rows in the order 0 to 7, 16 to 23, 8 to 15, 24 to 31.

use super::tiling::Tiled;
use super::{FormatError, first, tl1};

/// Rows of a strip.
const STRIP: usize = 32;
/// Columns whose signs fill the words: four times 32 bytes of magnitudes, 32 bytes of signs.
const GROUP: usize = 24;
/// The most columns that space is reserved for as pairs.
const MOST_PAIRED: usize = 256;

/// The weights of a magnitude, and those with the sign; anything for one that stands for none.
const WEIGHTS: [[i8; 4]; 32] = {
    let mut weights = [[0; 4]; 32];
    let mut magnitude = 0;
    while magnitude < 16 {
        let v = magnitude as i8 + 13;
        let triple = [v / 9 - 1, v / 3 % 3 - 1, v % 3 - 1, 0];
        weights[magnitude] = triple;
        weights[16 + magnitude] = [-triple[0], -triple[1], -triple[2], 0];
        magnitude += 1;
    }
    weights
};

/// Which of the 32 bytes is that of row `row`.
const fn lane(row: usize) -> usize {
    [0, 16, 8, 24][row / 8] + row % 8
}

/// Whether that many columns can be stored as pairs.
pub(super) fn rest_fits(cols: usize) -> bool {
    cols.is_multiple_of(32) && cols <= MOST_PAIRED
}

/// Bytes of the three parts: as many as if 256 columns were pairs, up to a multiple of 32.
pub(super) fn reserved(rows: usize, cols: usize) -> usize {
    // As the reference computes it, where fewer columns than 256 give a negative number.
    let (rows, cols) = (rows as i128, cols as i128);
    let bytes = (cols - 256) * rows / 3 * 5 / 8 + 256 * rows / 2 * 4 / 8;
    usize::try_from((bytes + 31) / 32 * 32).unwrap_or(usize::MAX)
}

/// Where the parts are.
struct Parts {
    /// Columns in triples.
    tripled: usize,
    signs: usize,
    pairs: usize,
    /// The end of the last.
    end: usize,
}

impl Parts {
    fn new(tiled: &Tiled) -> Parts {
        let tripled = tiled.cols - tiled.cols % tiled.tiling.cols;
        let signs = tiled.rows * tripled / 6;
        let pairs = signs + tiled.rows * tripled / 24;
        Parts { tripled, signs, pairs, end: pairs + tiled.rows * (tiled.cols - tripled) / 4 }
    }
}

/// Every magnitude and every index of a pair must be one, and what is behind them zero.
pub(super) fn check(tiled: &Tiled, codes: &[u8]) -> Result<(), FormatError> {
    let parts = Parts::new(tiled);
    let magnitude = first(&codes[..parts.signs], |byte| byte >= 14 << 4 || byte & 15 >= 14);
    if let Some(offset) = magnitude {
        return Err(FormatError::Index { offset, value: codes[offset] });
    }
    tl1::check(&codes[parts.pairs..parts.end]).map_err(|error| match error {
        FormatError::Index { offset, value } => {
            FormatError::Index { offset: parts.pairs + offset, value }
        }
        other => other,
    })?;
    match first(&codes[parts.end..], |byte| byte != 0) {
        Some(i) => {
            let offset = parts.end + i;
            Err(FormatError::Padding { offset, value: codes[offset] })
        }
        None => Ok(()),
    }
}

/// Calls `f` for pieces of `piece` columns of a strip within `cols` columns that are tiled by `tile`:
/// with the number of the piece, the first row and the column within those.
#[inline(always)]
fn each_piece(
    tiled: &Tiled,
    cols: usize,
    (tile, piece): (usize, usize),
    mut f: impl FnMut(usize, usize, usize),
) {
    let (across, strips, pieces) = (cols / tile, tiled.tiling.rows / STRIP, tile / piece);
    for strip in 0..tiled.rows / STRIP {
        let (down, within) = tiled.place(strip);
        for tile_across in 0..across {
            let start = ((down * across + tile_across) * strips + within) * pieces;
            for i in 0..pieces {
                f(start + i, strip * STRIP, tile_across * tile + i * piece);
            }
        }
    }
}

pub(super) fn encode(tiled: &Tiled, weights: &[i8], codes: &mut [u8]) {
    let parts = Parts::new(tiled);
    let row_at = |row: usize, col: usize| &weights[row * tiled.cols + col..];
    each_piece(tiled, parts.tripled, (tiled.tiling.cols, GROUP), |group, first, col| {
        for row in 0..STRIP {
            let mut word = 0;
            for (i, t) in row_at(first + row, col)[..GROUP].as_chunks::<3>().0.iter().enumerate() {
                let v = 9 * t[0] + 3 * t[1] + t[2];
                let byte = (group * 4 + i / 2) * STRIP + lane(row);
                codes[byte] |= v.unsigned_abs() << (4 * (1 - i % 2));
                word |= u16::from(v < 0) << (15 - 2 * i - row / 16);
            }
            let signs = &mut codes[parts.signs + group * STRIP + row % 16 * 2..][..2];
            signs[0] |= word.to_le_bytes()[0];
            signs[1] |= word.to_le_bytes()[1];
        }
    });
    let paired = tiled.cols - parts.tripled;
    each_piece(tiled, paired, (32, 4), |piece, first, col| {
        let bytes = &mut codes[parts.pairs + piece * STRIP..][..STRIP];
        for row in 0..STRIP {
            bytes[lane(row)] = tl1::pack(row_at(first + row, parts.tripled + col));
        }
    });
}

pub(super) fn decode(tiled: &Tiled, codes: &[u8], weights: &mut [i8]) {
    let parts = Parts::new(tiled);
    let magnitudes = codes[..parts.signs].as_chunks::<{ 4 * STRIP }>().0;
    let signs = codes[parts.signs..parts.pairs].as_chunks::<STRIP>().0;
    each_piece(tiled, parts.tripled, (tiled.tiling.cols, GROUP), |group, first, col| {
        for row in 0..STRIP {
            let signs = &signs[group][row % 16 * 2..][..2];
            let signs = u16::from_le_bytes([signs[0], signs[1]]) << (row / 16);
            let out = &mut weights[(first + row) * tiled.cols + col..][..GROUP];
            decode_group(&magnitudes[group], lane(row), signs, out);
        }
    });
    let pairs = codes[parts.pairs..parts.end].as_chunks::<STRIP>().0;
    let paired = tiled.cols - parts.tripled;
    each_piece(tiled, paired, (32, 4), |piece, first, col| {
        for row in 0..STRIP {
            let at = (first + row) * tiled.cols + parts.tripled + col;
            weights[at..][..4].copy_from_slice(&tl1::unpack(pairs[piece][lane(row)]));
        }
    });
}

/// Eight triples of a row, whose signs are every other bit of `signs` from the highest on.
#[inline(always)]
fn decode_group(magnitudes: &[u8; 4 * STRIP], lane: usize, signs: u16, out: &mut [i8]) {
    // Triples are written as four bytes each; the last overlaps nothing of the row.
    let mut row = [0; GROUP + 1];
    for i in 0..4 {
        let byte = usize::from(magnitudes[i * STRIP + lane]);
        let sign = |triple: usize| usize::from(signs >> (15 - 2 * triple) & 1) << 4;
        row[6 * i..][..4].copy_from_slice(&WEIGHTS[sign(2 * i) | byte >> 4]);
        row[6 * i + 3..][..4].copy_from_slice(&WEIGHTS[sign(2 * i + 1) | byte & 15]);
    }
    out.copy_from_slice(&row[..GROUP]);
}
