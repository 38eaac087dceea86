//! Weights packed by other programs decode to the weights they were made of, encode back to the
//! same bytes, and give the same integer products through every kernel.
//!
//! `data/layouts.safetensors`: weights `W` i8 [128, 512], activations `x` i8 [512], their products
//! `dot` i32 [128], and `W` in each layout, packed by the tools that define them (gguf-py for TQ1_0
//! and TQ2_0, bitnet.cpp for I2_S, TL1 and TL2, transformers for bytes of Hugging Face), or by their
//! rules (ik_llama.cpp for IQ1_BN, IQ2_BN and IQ2_BN_R4).

use bitnet_kernels::format::{Encoding, Tiling};
use bitnet_kernels::op::{GemvArgs, GemvFn, RowScale};
use bitnet_kernels::{Cpu, Format, Operation, Packed, Pool, format, kernels};
use safetensors::SafeTensors;

const ROWS: usize = 128;
const COLS: usize = 512;
const FILE: &[u8] = include_bytes!("data/layouts.safetensors");
const LAYOUTS: [(Format, &str); 9] = [
    (Format::I2S, "i2_s"),
    (Format::I2SArm, "i2_s_arm64x16"),
    (Format::I2SR4, "i2_s_4row"),
    (Format::Tq1_0, "tq1_0"),
    (Format::Tq2_0, "tq2_0"),
    (Format::Iq1Bn, "iq1_bn"),
    (Format::Iq2Bn, "iq2_bn"),
    (Format::Iq2BnR4, "iq2_bn_r4"),
    (Format::HfPacked, "hf_packed"),
];
/// TL1 and TL2 with their tiles.
const TILED: [(Format, &str, Tiling); 3] = [
    (Format::Tl1, "tl1.BM128.BK128.bm32", Tiling { rows: 128, cols: 128, strip: 32 }),
    (Format::Tl1, "tl1.BM128.BK64.bm64", Tiling { rows: 128, cols: 64, strip: 64 }),
    (Format::Tl2, "tl2.BM128.BK96", Tiling { rows: 128, cols: 96, strip: 32 }),
];

/// Every layout of the file, as what it is, with its name.
fn encodings() -> impl Iterator<Item = (Encoding, &'static str)> {
    let tiled = TILED.into_iter().map(|(format, name, tiling)| {
        let tiling = Some(tiling);
        (Encoding { format, tiling }, name)
    });
    LAYOUTS.into_iter().map(|(format, name)| (format.into(), name)).chain(tiled)
}

fn signed(bytes: &[u8]) -> Vec<i8> {
    bytes.iter().map(|b| b.cast_signed()).collect()
}

#[test]
fn layouts_decode_and_encode_byte_for_byte() {
    let file = SafeTensors::deserialize(FILE).unwrap();
    let weights = signed(file.tensor("W").unwrap().data());
    let scale = file.tensor("scale").unwrap().data().try_into().map(f32::from_le_bytes).unwrap();
    for (encoding, name) in encodings() {
        let packed = file.tensor(name).unwrap().data().to_vec();
        let scale = if encoding.format == Format::HfPacked { 1.0 } else { scale };
        assert_eq!(format::decode(encoding, &packed, ROWS, COLS).unwrap(), weights, "{name}");
        assert_eq!(format::check(encoding, &packed, ROWS, COLS), Ok(scale), "{name}");
        let encoded = format::encode(encoding, &weights, ROWS, COLS, scale).unwrap();
        // The last 28 bytes of I2_S mean nothing.
        let meant = packed.len() - if name.starts_with("i2_s") { 28 } else { 0 };
        assert_eq!(encoded.len(), packed.len(), "{name}");
        assert_eq!(encoded[..meant], packed[..meant], "{name}");
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
    for (encoding, name) in encodings() {
        let file = file.tensor(name).unwrap();
        for kernel in kernels().filter(|k| k.operation() == Operation::Gemv) {
            let Some(run) = kernel.bind::<GemvFn>(&cpu) else { continue };
            let (layout, shape) = (kernel.format().unwrap(), (ROWS, COLS));
            let matrix = Packed::new(encoding, file.data(), shape, layout, &Pool::alone()).unwrap();
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
fn a_wrong_guess_gives_other_weights() {
    // Their bytes are legal codes, so nothing in such a file tells: whoever has one must know.
    let file = SafeTensors::deserialize(FILE).unwrap();
    let weights = signed(file.tensor("W").unwrap().data());
    let lookalikes = [(Format::I2S, "i2_s_arm64x16"), (Format::I2S, "i2_s_4row")];
    let tiles = TILED.map(|(format, name, _)| (format, name));
    for (format, name) in lookalikes.into_iter().chain(tiles) {
        let packed = file.tensor(name).unwrap();
        let decoded = format::decode(format, packed.data(), ROWS, COLS);
        assert_ne!(decoded, Ok(weights.clone()), "{name}");
    }
}
