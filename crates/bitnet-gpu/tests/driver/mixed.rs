//! Products of floats in other precisions.

use bitnet_gpu::PrecisionMode;
use bitnet_gpu::cuda::{Error, Gpu, MixedPrecisionKernel};
use fake_cuda::cases::{Case, Library};

pub(crate) const CASES: &[Case] = &[
    ("products_of_floats", Library::Fake, "", || {
        products(PrecisionMode::Bf16);
    }),
    ("products_of_floats_on_older_devices", Library::Fake, "cc=7.5", || {
        products(PrecisionMode::Fp16);
        let gpu = Gpu::open(0).unwrap();
        let error = MixedPrecisionKernel::new(&gpu, PrecisionMode::Bf16).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        let mut kernel = MixedPrecisionKernel::new(&gpu, PrecisionMode::Fp32).unwrap();
        let error = kernel.matmul_bf16(&[1.0], &[1.0], &mut [0.0], (1, 1, 1)).unwrap_err();
        assert!(error.to_string().contains("brain floats on Fake GPU 0"), "{error}");
    }),
    ("products_of_nothing", Library::Fake, "", || {
        let gpu = Gpu::open(0).unwrap();
        let mut kernel = MixedPrecisionKernel::new(&gpu, PrecisionMode::Auto).unwrap();
        let mut c = [7.0; 6];
        kernel.matmul_auto(&[], &[], &mut c, (2, 3, 0)).unwrap();
        assert_eq!(c, [0.0; 6]);
        kernel.matmul_auto(&[], &[1.0; 6], &mut [], (0, 3, 2)).unwrap();
    }),
];

/// Whole numbers, which all precisions have; `best` is that of the device.
fn products(best: PrecisionMode) {
    let (m, n, k) = (20, 18, 33);
    let a: Vec<f32> = (0..m * k).map(|i| (i * 7 % 255) as f32 - 127.0).collect();
    let b: Vec<f32> = (0..k * n).map(|i| (i * 5 % 3) as f32 - 1.0).collect();
    let number = |i: usize| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum::<f32>();
    let expected: Vec<f32> = (0..m * n).map(number).collect();

    let gpu = Gpu::open(0).unwrap();
    let before = gpu.memory().current_allocated;
    let mut kernel = MixedPrecisionKernel::new(&gpu, PrecisionMode::Auto).unwrap();
    assert_eq!(kernel.effective_precision(), best);
    type Multiply = fn(
        &mut MixedPrecisionKernel,
        &[f32],
        &[f32],
        &mut [f32],
        (usize, usize, usize),
    ) -> Result<(), Error>;
    let mut ways: Vec<Multiply> = vec![
        MixedPrecisionKernel::matmul_auto,
        MixedPrecisionKernel::matmul_fp32,
        MixedPrecisionKernel::matmul_fp16,
    ];
    if best == PrecisionMode::Bf16 {
        ways.extend([
            MixedPrecisionKernel::matmul_bf16 as Multiply,
            MixedPrecisionKernel::matmul_tensor_core,
        ]);
    }
    for (i, multiply) in ways.iter().enumerate() {
        let mut c = vec![0.5; m * n];
        multiply(&mut kernel, &a, &b, &mut c, (m, n, k)).unwrap();
        assert_eq!(c, expected, "way {i}");
    }
    let times = ways.len() as u64;
    let metrics = kernel.metrics();
    assert_eq!(metrics.total_operations, times * (m * n * k) as u64);
    assert_eq!((metrics.memory_transfers_h2d, metrics.memory_transfers_d2h), (2 * times, times));
    assert_eq!(metrics.bytes_transferred_h2d, times * 4 * (m * k + k * n) as u64);
    assert_eq!(metrics.bytes_transferred_d2h, times * 4 * (m * n) as u64);
    assert!(metrics.peak_memory_usage > 0 && metrics.memory_allocated > metrics.peak_memory_usage);
    assert_eq!(gpu.memory().current_allocated, before);
}
