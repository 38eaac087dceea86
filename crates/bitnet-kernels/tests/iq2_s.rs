//! IQ2_S against gguf-py: `data/iq2_s.safetensors`, written by `data/iq2_s.py`.

use bitnet_kernels::Format;
use bitnet_kernels::format::{FormatError, encode_iq2_s, widen};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("data/iq2_s.safetensors");

fn decode(bytes: &[u8]) -> Vec<f32> {
    let mut numbers = vec![0.0; bytes.len() / 82 * 256];
    widen(Format::Iq2S, bytes, &mut numbers);
    numbers
}

/// Blocks of gguf-py, and their numbers.
fn published() -> (Vec<u8>, Vec<f32>) {
    let file = SafeTensors::deserialize(FILE).expect("a safetensors file");
    let tensor = |name| file.tensor(name).expect("a tensor of the file").data().to_vec();
    let values = tensor("values");
    (tensor("blocks"), values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Root of the mean square of `a - b` over that of `b`.
fn error(a: &[f32], b: &[f32]) -> f64 {
    let squares = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let difference = squares(&mut a.iter().zip(b).map(|(a, b)| a - b));
    (difference / squares(&mut b.iter().copied())).sqrt()
}

#[test]
fn blocks_widen_to_the_published_numbers() {
    let (blocks, values) = published();
    assert_eq!(decode(&blocks), values);
}

#[test]
fn numbers_survive_with_little_error() {
    // Twelve uniform numbers add up to something normal.
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let numbers: Vec<f32> = (0..2048).map(|_| (0..12).map(|_| uniform()).sum()).collect();
    let normal = error(&decode(&encode_iq2_s(&numbers).expect("finite numbers")), &numbers);
    println!("normal numbers: {normal}");
    assert!(normal < 0.26, "{normal}");

    let (_, values) = published();
    let again = error(&decode(&encode_iq2_s(&values).expect("finite numbers")), &values);
    println!("numbers of the format: {again}");
    assert!(again < 0.03, "{again}");
}

#[test]
fn zeros_and_small_blocks_are_encoded_and_others_refused() {
    assert!(decode(&encode_iq2_s(&[0.0; 256]).expect("zeros")).iter().all(|&x| x == 0.0));
    let ones = decode(&encode_iq2_s(&[-1.0; 512]).expect("ones"));
    assert!(ones.iter().all(|x| (x + 1.0).abs() < 0.04), "{ones:?}");

    let columns = FormatError::Columns { format: Format::Iq2S, cols: 255, multiple: 256 };
    assert_eq!(encode_iq2_s(&[0.0; 255]), Err(columns));
    let mut numbers = [1.0; 512];
    numbers[300] = f32::INFINITY;
    let error = FormatError::Number { index: 300, value: f32::INFINITY };
    assert_eq!(encode_iq2_s(&numbers), Err(error));
    numbers[300] = f32::MAX;
    assert!(encode_iq2_s(&numbers).is_err());
    numbers[300] = 1e6;
    assert!(decode(&encode_iq2_s(&numbers).expect("in range")).iter().all(|x| x.is_finite()));
}
