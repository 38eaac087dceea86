//! Weights packed by other programs decode to the weights they were made of, encode back to the
//! same bytes, and give the same integer products through every kernel.
//!
//! `data/layouts.safetensors`: weights `W` i8 [128, 512], activations `x` i8 [512], their products
//! `dot` i32 [128], and `W` in each layout, packed by the tools that define them (gguf-py for TQ1_0
//! and TQ2_0, bitnet.cpp for I2_S, TL1 and TL2), or by their rules (ik_llama.cpp for IQ2_BN).

use bitnet_kernels::format::{Tiled, Tiling};
use bitnet_kernels::op::{GemvArgs, GemvFn, RowScale};
use bitnet_kernels::{Cpu, Format, Operation, Packed, Pool, format, kernels};
use safetensors::SafeTensors;

const ROWS: usize = 128;
const COLS: usize = 512;
const FILE: &[u8] = include_bytes!("data/layouts.safetensors");
const LAYOUTS: [(Format, &str); 3] =
    [(Format::I2S, "i2_s"), (Format::Tq1_0, "tq1_0"), (Format::Tq2_0, "tq2_0")];

fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|b| b.cast_signed()).collect()
}

#[test]
fn layouts_decode_and_encode_byte_for_byte() {
    let file = SafeTensors::deserialize(FILE).unwrap();
    let weights = signed(file.tensor("W").unwrap().data());
    let scale = file.tensor("scale").unwrap().data().try_into().map(f32::from_le_bytes).unwrap();
    for (format, name) in LAYOUTS.into_iter().chain([(Format::Iq2Bn, "iq2_bn")]) {
        let packed = file.tensor(name).unwrap().data().to_vec();
        assert_eq!(format::decode(format, &packed, ROWS, COLS).unwrap(), weights, "{name}");
        assert_eq!(format::check(format, &packed, ROWS, COLS), Ok(scale), "{name}");
        let encoded = format::encode(format, &weights, ROWS, COLS, scale).unwrap();
        // The last 28 bytes of I2_S mean nothing.
        let meant = packed.len() - if format == Format::I2S { 28 } else { 0 };
        assert_eq!(encoded.len(), packed.len(), "{name}");
        assert_eq!(encoded[..meant], packed[..meant], "{name}");
    }
}

#[test]
fn tiles_decode_and_encode_byte_for_byte() {
    let file = SafeTensors::deserialize(FILE).unwrap();
    let weights = signed(file.tensor("W").unwrap().data());
    let scale = file.tensor("scale").unwrap().data().try_into().map(f32::from_le_bytes).unwrap();
    for (format, name, [rows, cols, strip]) in [
        (Format::Tl1, "tl1.BM128.BK128.bm32", [128, 128, 32]),
        (Format::Tl1, "tl1.BM128.BK64.bm64", [128, 64, 64]),
        (Format::Tl2, "tl2.BM128.BK96", [128, 96, 32]),
    ] {
        let packed = file.tensor(name).unwrap().data().to_vec();
        let tiled = Tiled::new(format, ROWS, COLS, Tiling { rows, cols, strip }).unwrap();
        assert_eq!(tiled.check(&packed), Ok(scale), "{name}");
        assert_eq!(tiled.decode(&packed).unwrap(), weights, "{name}");
        assert_eq!(tiled.encode(&weights, scale).unwrap(), packed, "{name}");
        // A wrong guess gives other weights, and nothing in the file tells.
        assert_ne!(format::decode(format, &packed, ROWS, COLS), Ok(weights.clone()), "{name}");
    }
}

#[test]
fn every_gemv_gives_the_products() {
    let file = SafeTensors::deserialize(FILE).unwrap();
    let x = signed(file.tensor("x").unwrap().data());
    let sum = x.iter().map(|&x| i32::from(x)).sum();
    let dots = file.tensor("dot").unwrap();
    let want: Vec<_> = dots.data().as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect();
    let cpu = Cpu::detect();
    for (format, name) in LAYOUTS {
        let file = file.tensor(name).unwrap();
        for kernel in kernels().filter(|k| k.operation() == Operation::Gemv) {
            let Some(run) = kernel.bind::<GemvFn>(&cpu) else { continue };
            let (layout, shape) = (kernel.format().unwrap(), (ROWS, COLS));
            let matrix = Packed::new(format, file.data(), shape, layout, &Pool::alone()).unwrap();
            let mut y = [0.0; ROWS];
            run(GemvArgs {
                panels: matrix.panels(0..ROWS),
                scale: 1.0,
                x: x.as_chunks().0,
                x_scale: RowScale { scale: 1.0, sum },
                y: &mut y,
            });
            assert_eq!(y.map(|y| y as i32).as_slice(), want, "{name}, {kernel}");
        }
    }
}

#[test]
fn layouts_of_other_builds_decode_to_other_weights() {
    // Their bytes are legal codes, so nothing in such a file tells: whoever has one must know.
    let file = SafeTensors::deserialize(FILE).unwrap();
    let weights = signed(file.tensor("W").unwrap().data());
    for name in ["i2_s_arm64x16", "i2_s_4row"] {
        let packed = file.tensor(name).unwrap();
        let decoded = format::decode(Format::I2S, packed.data(), ROWS, COLS).unwrap();
        assert_ne!(decoded, weights, "{name}");
    }
}
