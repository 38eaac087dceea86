//! Master weights become the codes that their trainer packed.
//!
//! `data/absmean.safetensors`: a linear layer of a small model made by `transformers`: `master` bf16
//! [64, 256], `packed` u8 [16, 256] (row `r + 16 i` in bits `2 i` of row `r`, code `t + 1`), `scale`
//! bf16 [1], the mean of the absolute values.

use bitnet_kernels::format::FormatError;
use bitnet_kernels::ternarize::Ternarizer;
use bitnet_kernels::{Cpu, Format, KernelManager, format};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("data/absmean.safetensors");
const ROWS: usize = 64;
const COLS: usize = 256;

/// The numbers of a bf16 tensor.
fn bf16(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).expect("a tensor of the file");
    let bits = tensor.data().as_chunks().0.iter().map(|b| u32::from(u16::from_le_bytes(*b)));
    bits.map(|bits| f32::from_bits(bits << 16)).collect()
}

#[test]
fn master_weights_become_the_packed_ones_in_every_format() {
    let file = SafeTensors::deserialize(FILE).expect("a safetensors file");
    let (master, mean) = (bf16(&file, "master"), bf16(&file, "scale")[0]);
    let packed = file.tensor("packed").expect("a tensor of the file").data().to_vec();
    let weights = format::decode(Format::HfPacked, &packed, ROWS, COLS).expect("codes");
    let cpu = Cpu::detect();
    for &isa in cpu.isas() {
        let manager = KernelManager::new().limit(isa).expect("it is there");
        let ternarizer = Ternarizer::select(&manager).expect("kernels for every processor");
        for format in Format::TERNARY {
            if format == Format::HfPacked {
                // The scale would be lost.
                let error = ternarizer.encode(format, &master, ROWS, COLS);
                assert!(matches!(error, Err(FormatError::Unscalable { .. })), "{error:?}");
                let again = format::encode(format, &weights, ROWS, COLS, 1.0);
                assert_eq!(again, Ok(packed.clone()));
                continue;
            }
            let bytes = ternarizer.encode(format, &master, ROWS, COLS).expect("finite weights");
            let scale = format::check(format, &bytes, ROWS, COLS).expect("what was encoded");
            // The reference stores the mean in eight bits.
            assert!((scale - mean).abs() < mean / 256.0, "{isa} {format}: {scale} is not {mean}");
            assert_eq!(format::decode(format, &bytes, ROWS, COLS), Ok(weights.clone()), "{format}");
        }
    }
}
