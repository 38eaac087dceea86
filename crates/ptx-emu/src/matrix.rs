//! Products of fragments: which lane has which elements is in the PTX manual, under `mma`.

use half::{bf16, f16};

use crate::inst::{LANES, Lanes, Product};

/// `a b + c`, of the fragments of all lanes.
pub(crate) fn multiply(product: Product, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    match product {
        Product::Bytes { signed } => bytes(signed, a, b, c),
        Product::Halves { bfloat } => halves(bfloat, a, b, c),
    }
}

/// The row and the column of element `i` of the four of a lane, in the result `[16, 8]`.
fn result(lane: usize, i: usize) -> (usize, usize) {
    (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2)
}

fn bytes([a_signed, b_signed]: [bool; 2], a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    let mut right = [[0; 32]; 8];
    for lane in 0..LANES {
        let (group, thread) = (lane / 4, lane % 4);
        for i in 0..8 {
            right[group][4 * thread + i % 4 + 16 * (i / 4)] = number_of(b_signed, byte(b, lane, i));
        }
    }
    let left = rows(a_signed, a);
    std::array::from_fn(|i| sums(&left, &right, i, &c[i]))
}

/// `a b + c`: `a` as fragments `[16, 32]`, the columns of `b` as they are, and eight of them after another in the result.
pub(crate) fn multiply_columns(
    [a_signed, b_signed]: [bool; 2],
    a: &[Lanes],
    b: &[[u8; 32]],
    c: &[Lanes],
) -> Vec<Lanes> {
    let left = rows(a_signed, a);
    let right: Vec<_> =
        b.iter().map(|column| column.map(|byte| number_of(b_signed, byte))).collect();
    let eights = right.as_chunks().0.iter().zip(c.as_chunks::<4>().0);
    eights
        .flat_map(|(right, c)| std::array::from_fn::<_, 4, _>(|i| sums(&left, right, i, &c[i])))
        .collect()
}

/// Bytes of fragments, as rows `[16, 32]`.
fn rows(signed: bool, a: &[Lanes]) -> [[i16; 32]; 16] {
    let mut rows = [[0; 32]; 16];
    for lane in 0..LANES {
        let (group, thread) = (lane / 4, lane % 4);
        for i in 0..16 {
            let (row, col) = (group + 8 * (i / 4 % 2), 4 * thread + i % 4 + 16 * (i / 8));
            rows[row][col] = number_of(signed, byte(a, lane, i));
        }
    }
    rows
}

/// Byte `i` of what a lane has in some registers.
fn byte(registers: &[Lanes], lane: usize, i: usize) -> u8 {
    (registers[i / 4][lane] >> (8 * (i % 4))) as u8
}

fn number_of(signed: bool, byte: u8) -> i16 {
    if signed { i16::from(byte.cast_signed()) } else { i16::from(byte) }
}

/// Element `i` of the result of each lane: what was there, and the product of a row and a column.
fn sums(rows: &[[i16; 32]; 16], columns: &[[i16; 32]; 8], i: usize, c: &Lanes) -> Lanes {
    std::array::from_fn(|lane| {
        let (row, col) = result(lane, i);
        let products =
            rows[row].iter().zip(&columns[col]).map(|(a, b)| i32::from(*a) * i32::from(*b));
        let sum: i32 = products.sum();
        u64::from((c[lane] as u32).wrapping_add(sum.cast_unsigned()))
    })
}

/// Products are exact, and added in double precision: devices round otherwise, in the last bits.
fn halves(bfloat: bool, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> [Lanes; 4] {
    let half = |word: u64, i: usize| number(bfloat, (word >> (16 * i)) as u16);
    let (mut left, mut right) = ([[0.0; 16]; 16], [[0.0; 16]; 8]);
    for lane in 0..LANES {
        let (group, thread) = (lane / 4, lane % 4);
        for i in 0..8 {
            let (row, col) = (group + 8 * (i / 2 % 2), 2 * thread + i % 2 + 8 * (i / 4));
            left[row][col] = half(a[i / 2][lane], i % 2);
        }
        for i in 0..4 {
            right[group][2 * thread + i % 2 + 8 * (i / 2)] = half(b[i / 2][lane], i % 2);
        }
    }
    std::array::from_fn(|i| {
        std::array::from_fn(|lane| {
            let (row, col) = result(lane, i);
            let sum: f64 = left[row].iter().zip(&right[col]).map(|(a, b)| a * b).sum();
            let sum = f64::from(f32::from_bits(c[i][lane] as u32)) + sum;
            u64::from((sum as f32).to_bits())
        })
    })
}

/// Rows and columns of the matrices of `wmma`.
pub(crate) const TILE: usize = 16;

/// Which element of a matrix a half of a register is: whatever suits, since programs are not told. Registers for more than
/// there are hold elements twice, as those of devices do.
fn element(registers: usize, lane: usize, register: usize, half: usize) -> usize {
    ((lane * registers + register) * 2 + half) % (TILE * TILE)
}

/// The registers of all lanes for a matrix of numbers of 16 bits.
pub(crate) fn fragments(tile: &[[u16; TILE]; TILE], registers: usize) -> Vec<Lanes> {
    let all = tile.as_flattened();
    let value = |register, lane| {
        let [low, high] = [0, 1].map(|half| all[element(registers, lane, register, half)]);
        u64::from(low) | u64::from(high) << 16
    };
    (0..registers).map(|register| std::array::from_fn(|lane| value(register, lane))).collect()
}

/// `a b + c`, rounded as [`halves`] is. A lane has eight elements of the result, side by side in half a row.
pub(crate) fn multiply_tiles(bfloat: bool, a: &[Lanes], b: &[Lanes], c: &[Lanes]) -> Vec<Lanes> {
    let tile = |fragments: &[Lanes]| {
        let mut tile = [0.0; TILE * TILE];
        for lane in 0..LANES {
            for (register, values) in fragments.iter().enumerate() {
                for half in 0..2 {
                    let bits = (values[lane] >> (16 * half)) as u16;
                    tile[element(fragments.len(), lane, register, half)] = number(bfloat, bits);
                }
            }
        }
        tile
    };
    let (left, right) = (tile(a), tile(b));
    let value = |i: usize, lane: usize| {
        let (row, col) = (lane / 2, TILE / 2 * (lane % 2) + i);
        let sum: f64 = (0..TILE).map(|k| left[row * TILE + k] * right[k * TILE + col]).sum();
        let sum = f64::from(f32::from_bits(c[i][lane] as u32)) + sum;
        u64::from((sum as f32).to_bits())
    };
    (0..c.len()).map(|i| std::array::from_fn(|lane| value(i, lane))).collect()
}

/// A number of 16 bits.
fn number(bfloat: bool, bits: u16) -> f64 {
    if bfloat { bf16::from_bits(bits).to_f64() } else { f16::from_bits(bits).to_f64() }
}
