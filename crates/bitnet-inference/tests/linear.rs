//! Linear layers as library users make them.

use bitnet_inference::{Error, QuantizedLinear};
use bitnet_kernels::manager::Choice;
use bitnet_kernels::{Cpu, Device, Format, KernelManager, Pool, Reason, format};

/// The brief's test of its layer.
#[test]
fn test_quantized_linear_construction() {
    let manager = KernelManager::new();
    let layer = QuantizedLinear::new(128, 256, Some(Format::I2S), Device::Cpu, &manager);
    assert!(layer.is_ok());
    let layer = QuantizedLinear::new(128, 256, None, Device::Cpu, &manager);
    assert!(matches!(layer, Err(Error::UnsupportedKernelConfiguration(_))));
}

#[test]
fn a_layer_without_kernels_says_why_and_what_would_help() {
    let manager = KernelManager::new();
    let new = |cols, format, device| {
        let error = QuantizedLinear::new(cols, 64, Some(format), device, &manager).unwrap_err();
        let Error::UnsupportedKernelConfiguration(why) = &error else { panic!("{error}") };
        (why.reasons.clone(), error.to_string())
    };
    let (_, said) = new(2500, Format::Tq2_0, Device::Cpu);
    assert!(said.contains("2500 columns are not a multiple of 256"), "{said}");
    assert!(said.contains("--dequantize"), "{said}");
    let (reasons, said) = new(256, Format::F16, Device::Cpu);
    assert!(matches!(reasons[0].1, Reason::Weights { .. }), "{said}");
    let (reasons, said) = new(256, Format::I2S, Device::Cuda(1));
    assert_eq!(reasons[0].1, Reason::NotCompiled { device: Device::Cuda(1) }, "{said}");
}

#[test]
fn every_format_and_instruction_set_gives_the_product() {
    const COLS: usize = 256;
    const ROWS: usize = 96;
    let weights: Vec<i8> = (0..ROWS * COLS).map(|i| ((7 * i + i / 5) % 3) as i8 - 1).collect();
    // Whole numbers, of which the greatest is 127: quantisation changes nothing.
    let x: Vec<f32> =
        (0..5 * COLS).map(|i| if i % COLS == 9 { 127.0 } else { (i % 100) as f32 }).collect();
    let want: Vec<f32> = x
        .chunks(COLS)
        .flat_map(|x| {
            weights.chunks(COLS).map(move |row| {
                let products = row.iter().zip(x).map(|(&w, &x)| f32::from(w) * x);
                products.sum::<f32>() * 0.25
            })
        })
        .collect();
    let pool = Pool::alone();
    for format in Format::TERNARY {
        // That of Hugging Face has its scale elsewhere.
        let side = if format == Format::HfPacked { 0.25 } else { 1.0 };
        let bytes = format::encode(format, &weights, ROWS, COLS, 0.25 / side).unwrap();
        for &isa in Cpu::detect().isas() {
            let manager = KernelManager::new().limit(isa).unwrap();
            let layer = QuantizedLinear::new(COLS, ROWS, Some(format), Device::Cpu, &manager)
                .unwrap()
                .load(&bytes, &pool)
                .and_then(|layer| layer.scaled(side))
                .unwrap();
            for tokens in [1, 5] {
                let mut y = vec![0.0; tokens * ROWS];
                layer.forward(&x[..tokens * COLS], &mut y, &pool).unwrap();
                assert_eq!(y, want[..tokens * ROWS], "{format}, {isa}, {tokens} tokens");
            }
        }
    }
}

#[test]
fn a_preference_binds_the_kernels_of_a_layer() {
    let mut manager = KernelManager::new();
    let choice: Choice = "gemv_tl2_r32_q8_scalar".parse().unwrap();
    manager.set_backend_preference(&[choice]).unwrap();
    let layer = QuantizedLinear::new(256, 64, Some(Format::I2S), Device::Cpu, &manager).unwrap();
    assert_eq!(layer.kernels().gemv.kernel.to_string(), "gemv_tl2_r32_q8_scalar");
    assert_eq!(layer.kernels().layout, Format::Tl2R32);
}

#[test]
fn activations_and_weights_of_other_shapes_are_refused() {
    let (manager, pool) = (KernelManager::new(), Pool::alone());
    let new = || QuantizedLinear::new(128, 2, Some(Format::I2S), Device::Cpu, &manager).unwrap();
    let bytes = format::encode(Format::I2S, &[1; 256], 2, 128, 1.0).unwrap();
    assert!(new().load(&bytes[1..], &pool).is_err());
    let layer = new().load(&bytes, &pool).unwrap();
    for (x, y) in [(0, 0), (127, 2), (128, 3), (256, 2), (128, 0)] {
        let error = layer.forward(&vec![0.0; x], &mut vec![0.0; y], &pool).unwrap_err();
        assert!(matches!(error, Error::Activations { inputs: 128, outputs: 2, .. }), "{error}");
    }
}
