//! Q4_0 and Q4_K against gguf-py, Q2_0 against its rule: `data/float_blocks.safetensors`, written by
//! `data/float_blocks.py`.

use bitnet_kernels::Format;
use bitnet_kernels::format::{narrow, widen};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("data/float_blocks.safetensors");

fn bytes(name: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(FILE).expect("a safetensors file");
    file.tensor(name).expect("a tensor of the file").data().to_vec()
}

fn floats(name: &str) -> Vec<f32> {
    bytes(name).as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn widened(format: Format, blocks: &[u8]) -> Vec<f32> {
    let (numbers, size) = format.block();
    let mut out = vec![0.0; blocks.len() / size * numbers];
    widen(format, blocks, &mut out);
    out
}

#[test]
fn blocks_widen_to_the_published_numbers() {
    for format in [Format::Q4_0, Format::Q4K, Format::Q2_0, Format::Q2_0G128] {
        let values = floats(&format!("{format}.values"));
        assert_eq!(widened(format, &bytes(format.name())), values, "{format}");
    }
}

/// Sum of the squares of what numbers lose in some blocks.
fn lost(blocks: &[u8], numbers: &[f32]) -> f64 {
    let widened = widened(Format::Q4_0, blocks);
    widened.iter().zip(numbers).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

#[test]
fn numbers_lose_no_more_than_as_published() {
    let (numbers, published) = (floats("numbers"), bytes("q4_0.encoded"));
    let ours = narrow(Format::Q4_0, &numbers, 32).expect("finite numbers");
    // The same scales; levels are nearest to those as they are stored.
    for (ours, published) in ours.chunks(18).zip(published.chunks(18)) {
        assert_eq!(ours[..2], published[..2]);
    }
    assert!(lost(&ours, &numbers) <= lost(&published, &numbers) && lost(&ours, &numbers) > 0.0);
}
