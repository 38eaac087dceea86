//! Ternary matrices in the order in which tensor cores take them.
//!
//! A matrix lies in tiles of 16 rows and 128 columns, 16 bytes for each of the 32 threads of a warp. Two bits at `2p` of byte
//! `b` of word `j` of thread `4g + t` are the weight, and one, of row `g + 8 (j % 2)` and column
//! `32 p + 16 (j / 2) + 4 t + b`. Rows and columns behind the last have weights of zero.

/// What the layout is called.
pub const NAME: &str = "i2_tiles";
/// Rows of a tile.
pub const ROWS: usize = 16;
/// Columns of a tile.
pub const COLS: usize = 128;
/// Bytes of a tile.
pub const BYTES: usize = ROWS * COLS / 4;

/// Columns of a row with those that are added.
#[must_use]
pub fn width(cols: usize) -> usize {
    cols.next_multiple_of(COLS)
}

/// Bytes of a matrix `[rows, cols]`.
#[must_use]
pub fn bytes(rows: usize, cols: usize) -> usize {
    rows.div_ceil(ROWS) * (width(cols) / COLS) * BYTES
}

/// The row and the column in a tile of the weight at `2 plane` of byte `at`.
fn place(at: usize, plane: usize) -> (usize, usize) {
    let (lane, word, byte) = (at / 16, at / 4 % 4, at % 4);
    let (group, thread) = (lane / 4, lane % 4);
    (group + 8 * (word % 2), 32 * plane + 16 * (word / 2) + 4 * thread + byte)
}

/// Writes weights of -1, 0 and 1, `[rows, cols]`, as tiles.
///
/// # Panics
///
/// If the lengths are not those of such a matrix.
pub fn pack(weights: &[i8], cols: usize, out: &mut [u8]) {
    let rows = weights.len() / cols;
    assert_eq!(
        (weights.len(), out.len()),
        (rows * cols, bytes(rows, cols)),
        "a matrix of {cols} columns"
    );
    let across = width(cols) / COLS;
    let mut all = [[0_i8; COLS]; ROWS];
    for (index, tile) in out.chunks_exact_mut(BYTES).enumerate() {
        let (row, col) = (index / across * ROWS, index % across * COLS);
        let here = COLS.min(cols - col);
        for (r, all) in all.iter_mut().enumerate() {
            all.fill(0);
            if row + r < rows {
                all[..here].copy_from_slice(&weights[(row + r) * cols + col..][..here]);
            }
        }
        for (at, word) in tile.as_chunks_mut().0.iter_mut().enumerate() {
            let (r, c) = place(4 * at, 0);
            let codes = (0..4).fold(0, |word, plane| {
                let four: [i8; 4] = std::array::from_fn(|b| all[r][c + 32 * plane + b] + 1);
                word | u32::from_le_bytes(four.map(i8::cast_unsigned)) << (2 * plane)
            });
            *word = codes.to_le_bytes();
        }
    }
}

/// The weights `[rows, cols]` of tiles.
///
/// # Panics
///
/// If the length is not that of such a matrix.
#[must_use]
pub fn unpack(tiles: &[u8], rows: usize, cols: usize) -> Vec<i8> {
    assert_eq!(tiles.len(), bytes(rows, cols), "a matrix of {cols} columns");
    let across = width(cols) / COLS;
    let mut weights = vec![0; rows * cols];
    for (index, tile) in tiles.chunks_exact(BYTES).enumerate() {
        let (row, col) = (index / across * ROWS, index % across * COLS);
        for (at, byte) in tile.iter().enumerate() {
            for plane in 0..4 {
                let (r, c) = place(at, plane);
                if row + r < rows && col + c < cols {
                    weights[(row + r) * cols + col + c] =
                        (byte >> (2 * plane) & 3).cast_signed() - 1;
                }
            }
        }
    }
    weights
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_weight_has_a_place_of_its_own() {
        let mut places: Vec<_> =
            (0..BYTES).flat_map(|at| (0..4).map(move |plane| place(at, plane))).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), ROWS * COLS);
        assert!(places.iter().all(|(row, col)| *row < ROWS && *col < COLS));
    }

    proptest! {
        #[test]
        fn tiles_hold_the_weights(rows in 1_usize..40, cols in 1_usize..300, seed in any::<u64>()) {
            let mut state = seed | 1;
            let weights: Vec<i8> = (0..rows * cols)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 40) as i8 % 2
                })
                .collect();
            let mut tiles = vec![0xff; bytes(rows, cols)];
            pack(&weights, cols, &mut tiles);
            prop_assert_eq!(&unpack(&tiles, rows, cols), &weights);
            // What is added has weights of zero.
            let all = unpack(&tiles, rows.next_multiple_of(ROWS), width(cols));
            let zeros = all.iter().filter(|weight| **weight == 0).count();
            let expected = weights.iter().filter(|weight| **weight == 0).count();
            prop_assert_eq!(zeros, all.len() - weights.len() + expected);
        }
    }
}
