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
    let byte = |signed: bool, word: u64, i: usize| {
        let byte = (word >> (8 * i)) as u8;
        if signed { i32::from(byte.cast_signed()) } else { i32::from(byte) }
    };
    let (mut left, mut right) = ([[0; 32]; 16], [[0; 32]; 8]);
    for lane in 0..LANES {
        let (group, thread) = (lane / 4, lane % 4);
        for i in 0..16 {
            let (row, col) = (group + 8 * (i / 4 % 2), 4 * thread + i % 4 + 16 * (i / 8));
            left[row][col] = byte(a_signed, a[i / 4][lane], i % 4);
        }
        for i in 0..8 {
            right[group][4 * thread + i % 4 + 16 * (i / 4)] = byte(b_signed, b[i / 4][lane], i % 4);
        }
    }
    std::array::from_fn(|i| {
        std::array::from_fn(|lane| {
            let (row, col) = result(lane, i);
            let sum: i32 = left[row].iter().zip(&right[col]).map(|(a, b)| a * b).sum();
            u64::from((c[i][lane] as u32).wrapping_add(sum.cast_unsigned()))
        })
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
