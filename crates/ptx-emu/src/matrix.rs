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
    let half = |word: u64, i: usize| {
        let bits = (word >> (16 * i)) as u16;
        if bfloat { bf16::from_bits(bits).to_f64() } else { f16::from_bits(bits).to_f64() }
    };
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
